// libvoxgrad_dicom.so: GDCM behind two functions. Runs in child processes only (tensor/os_child.h), since it meets strangers' bytes.
#include <gdcmGlobal.h>
#include <gdcmImageReader.h>
#include <gdcmReader.h>
#include <gdcmSequenceOfFragments.h>
#include <gdcmSequenceOfItems.h>
#include <gdcmTrace.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <istream>
#include <set>
#include <streambuf>
#include <string>
#include <string_view>
#include <vector>

#include "nifti/dicom_plugin.h"

namespace vg::dicom {
namespace {

constexpr const char* kVersion = VG_VERSION;

// Reads, seeks, copies nothing. GDCM fills pixels that a truncated file lacks with zeros, silently: whether a value ran past the end is noted here.
class Memory : public std::streambuf {
 public:
  Memory(const void* bytes, std::size_t size) {
    char* p = const_cast<char*>(static_cast<const char*>(bytes));
    setg(p, p, p + size);
  }
  bool cut = false;

 protected:
  std::streamsize xsgetn(char* to, std::streamsize wanted) override {
    constexpr std::streamsize kLongestTag = 12;  // asked for at the proper end too
    const std::streamsize n = std::min<std::streamsize>(wanted, egptr() - gptr());
    if (n < wanted && wanted > kLongestTag) cut = true;
    std::memcpy(to, gptr(), static_cast<std::size_t>(n));
    setg(eback(), gptr() + n, egptr());
    return n;
  }
  pos_type seekoff(off_type off, std::ios_base::seekdir from, std::ios_base::openmode) override {
    const off_type base = from == std::ios_base::beg ? 0 : from == std::ios_base::cur ? gptr() - eback() : egptr() - eback();
    const off_type to = base + off;
    if (to < 0 || to > egptr() - eback()) return pos_type(off_type(-1));
    setg(eback(), eback() + to, egptr());
    return pos_type(to);
  }
  pos_type seekpos(pos_type to, std::ios_base::openmode which) override { return seekoff(off_type(to), std::ios_base::beg, which); }
};

// The data set is one deflate stream, which GDCM cannot read in parts. The name stands in the meta information, which is never packed.
bool is_deflated(const void* bytes, std::size_t size) {
  constexpr std::string_view kDeflated = "1.2.840.10008.1.2.1.99";
  return std::string_view(static_cast<const char*>(bytes), std::min<std::size_t>(size, 1024)).find(kDeflated) != std::string_view::npos;
}

void quiet() {
  gdcm::Trace::DebugOff();
  gdcm::Trace::WarningOff();
  gdcm::Trace::ErrorOff();
}

template <class T>
std::string numbers(const char* p, std::size_t size) {
  std::string text;
  for (std::size_t n = 0; n + sizeof(T) <= size; n += sizeof(T)) {
    T v;
    std::memcpy(&v, p + n, sizeof(T));
    if (n > 0) text += '\\';
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.17g", static_cast<double>(v));
    text += digits;
  }
  return text;
}

// Those whose value is binary by the standard; asked where the file does not say (implicit VR).
bool is_short(const Tag& t) {
  return t == kSamples || t == kRows || t == kColumns || t == kAllocated || t == kStored || t == kHighBit || t == kSigned;
}

void pass(const gdcm::DataSet& set, int frame, const Sink& sink) {
  for (const Tag& tag : kTags) {
    const gdcm::Tag key(tag.group, tag.element);
    if (!set.FindDataElement(key)) continue;
    const gdcm::DataElement& e = set.GetDataElement(key);
    std::string text;
    if (tag == kModalityLut) {
      text = "sequence";
    } else if (const gdcm::ByteValue* value = e.GetByteValue()) {
      const char* p = value->GetPointer();
      const std::size_t size = value->GetLength();
      const gdcm::VR vr = e.GetVR();
      if (vr == gdcm::VR::US || (vr != gdcm::VR::SS && vr != gdcm::VR::UL && vr != gdcm::VR::IS && is_short(tag) && size == 2)) {
        text = numbers<std::uint16_t>(p, size);
      } else if (vr == gdcm::VR::SS) {
        text = numbers<std::int16_t>(p, size);
      } else if (vr == gdcm::VR::UL || (tag == kTemporalIndex && size == 4)) {
        text = numbers<std::uint32_t>(p, size);
      } else if (vr == gdcm::VR::SL) {
        text = numbers<std::int32_t>(p, size);
      } else if (vr == gdcm::VR::FD) {
        text = numbers<double>(p, size);
      } else if (vr == gdcm::VR::FL) {
        text = numbers<float>(p, size);
      } else {
        text.assign(p, size);
      }
    }
    sink.element(sink.context, frame, tag, text.data(), text.size());
  }
}

// The functional groups of one item: a sequence of one item each, whose elements belong to the frame.
void pass_groups(const gdcm::DataSet& item, int frame, const Sink& sink) {
  constexpr std::uint32_t kGroups[] = {0x00209113, 0x00209116, 0x00289110, 0x00289145, 0x00209111, 0x00189114, 0x00189226};
  for (const std::uint32_t group : kGroups) {
    const gdcm::Tag key(static_cast<std::uint16_t>(group >> 16), static_cast<std::uint16_t>(group & 0xffff));
    if (!item.FindDataElement(key)) continue;
    const auto sequence = item.GetDataElement(key).GetValueAsSQ();
    if (sequence && sequence->GetNumberOfItems() > 0) pass(sequence->GetItem(1).GetNestedDataSet(), frame, sink);
  }
}

// One of GDCM's readers on bytes in memory.
template <class Reader>
struct Opened {
  Opened(const void* bytes, std::size_t size) : memory(bytes, size), in(&memory) { reader.SetStream(in); }
  Memory memory;
  std::istream in;
  Reader reader;
};

const char* header(const void* bytes, std::size_t size, const Sink& sink) {
  quiet();
  try {
    Opened<gdcm::Reader> opened(bytes, size);
    gdcm::Reader& reader = opened.reader;
    std::set<gdcm::Tag> wanted{{0x5200, 0x9229}, {0x5200, 0x9230}};  // up to the last of them, which comes before the pixels
    for (const Tag& tag : kTags) wanted.emplace(tag.group, tag.element);
    if (!(is_deflated(bytes, size) ? reader.Read() : reader.ReadSelectedTags(wanted))) return "no DICOM data set that can be read";
    const gdcm::DataSet& set = reader.GetFile().GetDataSet();
    pass(reader.GetFile().GetHeader(), kTopLevel, sink);
    pass(set, kTopLevel, sink);
    const gdcm::Tag shared(0x5200, 0x9229), per_frame(0x5200, 0x9230);
    if (set.FindDataElement(shared)) {
      const auto sequence = set.GetDataElement(shared).GetValueAsSQ();
      if (sequence && sequence->GetNumberOfItems() > 0) pass_groups(sequence->GetItem(1).GetNestedDataSet(), kShared, sink);
    }
    if (set.FindDataElement(per_frame)) {
      const auto sequence = set.GetDataElement(per_frame).GetValueAsSQ();
      for (std::size_t n = 1; sequence && n <= sequence->GetNumberOfItems(); ++n)
        pass_groups(sequence->GetItem(n).GetNestedDataSet(), static_cast<int>(n - 1), sink);
    }
    return nullptr;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (...) {
    return "no DICOM data set that can be read";
  }
}

const char* pixels(const void* bytes, std::size_t size, void (*take)(void*, const void*, std::size_t), void* context) {
  quiet();
  try {
    Opened<gdcm::Reader> opened(bytes, size);
    gdcm::Reader& reader = opened.reader;
    if (!reader.Read()) return "the data set cannot be read to its end";
    const gdcm::DataSet& set = reader.GetFile().GetDataSet();
    const gdcm::DataElement* data = nullptr;
    for (const Tag& tag : {kPixels, kFloatPixels, kDoublePixels}) {
      const gdcm::Tag key(tag.group, tag.element);
      if (!data && set.FindDataElement(key)) data = &set.GetDataElement(key);
    }
    if (!data) return "(7FE0,0010) PixelData is missing";
    if (opened.memory.cut && !is_deflated(bytes, size)) return "(7FE0,0010) PixelData is longer than the file: truncated";
    if (const gdcm::ByteValue* value = data->GetByteValue()) {
      std::vector<std::uint16_t> words;
      const void* first = value->GetPointer();
      const gdcm::Tag allocated(kAllocated.group, kAllocated.element);
      const bool big = reader.GetFile().GetHeader().GetDataSetTransferSyntax() == gdcm::TransferSyntax::ExplicitVRBigEndian;
      if (big && set.FindDataElement(allocated) && set.GetDataElement(allocated).GetByteValue()) {
        std::uint16_t bits = 0;
        const gdcm::ByteValue& v = *set.GetDataElement(allocated).GetByteValue();
        if (v.GetLength() == sizeof bits) std::memcpy(&bits, v.GetPointer(), sizeof bits);
        const std::size_t per_pixel = bits / 16;
        if (per_pixel > 1) {  // GDCM turned 16-bit words round; the words of a pixel are left to turn
          words.resize(value->GetLength() / 2);
          std::memcpy(words.data(), first, words.size() * 2);
          for (std::size_t n = 0; n + per_pixel <= words.size(); n += per_pixel) std::reverse(words.begin() + static_cast<std::ptrdiff_t>(n), words.begin() + static_cast<std::ptrdiff_t>(n + per_pixel));
          first = words.data();
        }
      }
      take(context, first, value->GetLength());
      return nullptr;
    }
    if (!data->GetSequenceOfFragments()) return "(7FE0,0010) PixelData is empty";
    Opened<gdcm::ImageReader> images(bytes, size);
    if (!images.reader.Read()) return "(7FE0,0010) PixelData cannot be decoded";
    const gdcm::Image& image = images.reader.GetImage();
    std::vector<char> buffer(image.GetBufferLength());
    if (!image.GetBuffer(buffer.data())) return "(7FE0,0010) PixelData cannot be decoded";
    take(context, buffer.data(), buffer.size());
    return nullptr;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (...) {
    return "the pixels cannot be decoded";
  }
}

constexpr Plugin kPlugin{kPluginAbi, kVersion, header, pixels};

}  // namespace
}  // namespace vg::dicom

extern "C" __attribute__((visibility("default"))) const vg::dicom::Plugin* vg_dicom_plugin(int abi) {
  return abi == vg::dicom::kPluginAbi ? &vg::dicom::kPlugin : nullptr;
}
