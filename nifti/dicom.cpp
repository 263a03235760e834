// Files and archives on one side, the child process on the other, voxels in the middle. The child is asked twice: for the elements of all files, and,
// once the plan stands, for the pixels of those that belong to it.
#include "nifti/dicom.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>

#include "nifti/convert.h"
#include "nifti/dicom_plugin.h"
#include "nifti/dicom_series.h"
#include "nifti/files.h"
#include "nifti/gzip.h"
#include "nifti/zip.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/os_child.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using dicom::Header;
using dicom::Plugin;
using dicom::Stack;

constexpr const char* kPluginFile = "libvoxgrad_dicom.so";
constexpr std::size_t kMostFiles = 100'000, kMarkAt = 128;

struct Found {
  const Plugin* plugin = nullptr;
  std::string why;
};
const Found& plugin() {
  static const Found found = [] {
    Found f;
    std::vector<std::string> paths;
    if (const std::string folder = os::environment("VG_PLUGIN_DIR"); !folder.empty()) paths.push_back(folder + "/" + kPluginFile);
    const std::string home = os::executable_folder();
    paths.insert(paths.end(), {home + "/" + kPluginFile, home + "/../lib/" + kPluginFile});
    void* library = nullptr;
    for (const std::string& path : paths) {
      if (!fs::exists(path)) continue;
      if (!(library = os::open_library(path, &f.why))) return f;
      break;
    }
    std::string error;
    if (!library) library = os::open_library(kPluginFile, &error);
    if (!library) {
      f.why = fmt::format("this build has no {} (it is built where GDCM is found: libgdcm-dev)", kPluginFile);
      return f;
    }
    const auto entry = reinterpret_cast<const Plugin* (*)(int)>(os::find_symbol(library, "vg_dicom_plugin"));
    const Plugin* p = entry ? entry(dicom::kPluginAbi) : nullptr;
    if (!p || std::string(p->version) != VG_VERSION) {
      f.why = fmt::format("{}: built from another version of voxgrad (this program is {})", kPluginFile, VG_VERSION);
      return f;
    }
    f.plugin = p;
    return f;
  }();
  return found;
}

bool has_mark(std::span<const std::byte> start) { return start.size() >= kMarkAt + 4 && std::memcmp(start.data() + kMarkAt, "DICM", 4) == 0; }
bool dicom_name(const std::string& name) { return files::ends_with(name, ".dcm") || files::ends_with(name, ".ima"); }

// Neither hidden nor the index of a medium, which is DICOM but no image.
bool may_be_image(const std::string& file) { return !file.empty() && file[0] != '.' && !file.starts_with("DICOMDIR"); }

// What may be a DICOM file: one on disk, or an entry of the archive.
struct Source {
  std::string name;  // for messages
  std::string path;
  std::optional<ZipEntry> entry;
  std::uint64_t bytes = 0;
};
struct Sources {
  std::shared_ptr<os::MappedFile> archive;
  std::string archive_name;
  std::vector<Source> list;
  bool single = false;

  // Runs in the child. The bytes live as long as `keep`.
  std::span<const std::byte> load(const Source& s, std::shared_ptr<void>& keep) const {
    std::span<const std::byte> bytes;
    if (s.entry) {
      auto plain = std::make_shared<Buffer>(zip_read({archive->data(), archive->size()}, *s.entry, archive_name));
      bytes = {plain->data(), plain->size()};
      keep = plain;
    } else {
      auto mapped = std::make_shared<os::MappedFile>(s.path);
      bytes = {mapped->data(), mapped->size()};
      keep = mapped;
    }
    if (!is_gzip(bytes) || bytes.size() < 18) return bytes;
    std::uint32_t size = 0;  // the member's last four bytes
    for (int b = 3; b >= 0; --b) size = size << 8 | static_cast<std::uint32_t>(bytes[bytes.size() - 4 + static_cast<std::size_t>(b)]);
    Warnings warnings;
    auto plain = std::make_shared<Buffer>(gunzip(bytes, size, s.name, warnings));
    bytes = {plain->data(), std::min<std::size_t>(plain->size(), size)};
    keep = plain;
    return bytes;
  }
};

Sources find_sources(const std::string& path) {
  Sources out;
  const auto add = [&](Source s) {
    if (out.list.size() >= kMostFiles) fail(ErrorCode::unsupported, "{}: more than {} files", path, kMostFiles);
    out.list.push_back(std::move(s));
  };
  if (fs::is_directory(path)) {
    std::error_code error;
    for (fs::recursive_directory_iterator at(path, fs::directory_options::skip_permission_denied, error), end; !error && at != end; at.increment(error))
      if (std::error_code ignored; at->is_regular_file(ignored) && may_be_image(at->path().filename().string()))
        add({at->path().string(), at->path().string(), {}, at->file_size(ignored)});
    if (error) fail(ErrorCode::io, "{}: {}", path, error.message());
    std::sort(out.list.begin(), out.list.end(), [](const Source& a, const Source& b) { return a.name < b.name; });
    return out;
  }
  os::InputFile file(path);
  std::byte start[4];
  if (is_zip({start, file.read(start, sizeof start)})) {
    out.archive = std::make_shared<os::MappedFile>(path);
    out.archive_name = path;
    for (ZipEntry& e : zip_entries({out.archive->data(), out.archive->size()}, path)) {
      if (!may_be_image(e.name.substr(e.name.find_last_of('/') + 1))) continue;
      const std::string name = path + "/" + e.name;
      const std::uint64_t bytes = e.packed;
      add({name, "", std::move(e), bytes});
    }
    return out;
  }
  out.single = true;
  add({path, path, {}, file.size()});
  return out;
}

// ---- what the child says: heads, each followed by `length` bytes

enum class Say : std::uint32_t { begin, record, pixels, refuse, damaged, done };
struct Head {
  Say say;
  std::uint32_t file;
  std::uint64_t length;
};

void say(const os::ChildWrite& write, Say what, std::size_t file, const void* data = nullptr, std::size_t length = 0) {
  const Head head{what, static_cast<std::uint32_t>(file), length};
  write(&head, sizeof head);
  if (length > 0) write(data, length);
}
void say_text(const os::ChildWrite& write, Say what, std::size_t file, const std::string& text) { say(write, what, file, text.data(), text.size()); }

// Cuts the stream into messages and hands on their bodies as they come.
class Listener {
 public:
  std::function<void(const Head&)> head;
  std::function<void(const Head&, std::span<const std::byte>)> body;

  void take(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (left_ == 0) {
        const std::size_t n = std::min(sizeof(Head) - have_, bytes.size());
        std::memcpy(reinterpret_cast<std::byte*>(&head_) + have_, bytes.data(), n);
        have_ += n, bytes = bytes.subspan(n);
        if (have_ < sizeof(Head)) return;
        have_ = 0, left_ = head_.length;
        head(head_);
      } else {
        const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
        body(head_, bytes.first(n));
        left_ -= n, bytes = bytes.subspan(n);
      }
    }
  }

 private:
  Head head_{};
  std::size_t have_ = 0;
  std::uint64_t left_ = 0;
};

os::ChildLimits limits_for(const Sources& sources) {
  std::uint64_t all = 0, largest = 0;
  for (const Source& s : sources.list) all += s.bytes, largest = std::max(largest, s.bytes);
  os::ChildLimits limits;
  limits.memory += 40 * largest + (sources.archive ? 1032 * largest : 0);
  limits.memory = std::min(limits.memory, std::uint64_t{8} << 30);
  limits.cpu_seconds = static_cast<int>(30 + all / 2'000'000);  // decoders manage 2 MB of packed pixels a second and much more
  return limits;
}

void need_plugin(const std::string& path) {
  if (!plugin().plugin) fail(ErrorCode::unsupported, "{}: DICOM cannot be read: {}", path, plugin().why);
}

// Runs `work` for the files one after the other in one child; errors there are told with the file's name.
void run_files(const Sources& sources, const std::vector<std::size_t>& wanted, Listener& listener, const std::function<void(const os::ChildWrite&, std::size_t)>& work) {
  if (wanted.empty()) return;
  std::size_t current = wanted[0];
  std::string text;
  bool complete = false;
  const auto inner_head = listener.head;
  const auto inner_body = listener.body;
  listener.head = [&](const Head& h) {
    if (h.file >= sources.list.size()) fail(ErrorCode::bad_file, "{}: the DICOM reader lost its way", sources.list[current].name);
    text.clear();
    if (h.say == Say::begin) current = h.file;
    if (h.say == Say::done) complete = true;
    if (inner_head) inner_head(h);
  };
  listener.body = [&](const Head& h, std::span<const std::byte> bytes) {
    if (h.say != Say::refuse && h.say != Say::damaged) return inner_body(h, bytes);
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (text.size() < h.length) return;
    throw Error(ErrorCode::bad_file, h.say == Say::refuse ? sources.list[h.file].name + ": " + text : text);  // damaged: names the file itself
  };
  const std::string end = os::run_in_child(
      limits_for(sources),
      [&](const os::ChildWrite& write) {
        for (const std::size_t file : wanted) {
          say(write, Say::begin, file);
          try {
            work(write, file);
          } catch (const Error& e) {
            if (e.code() == ErrorCode::out_of_memory) throw;
            say_text(write, Say::damaged, file, e.what());
          }
        }
        say(write, Say::done, 0);
      },
      [&](std::span<const std::byte> bytes) { listener.take(bytes); });
  if (!end.empty() || !complete)
    fail(ErrorCode::bad_file, "{}: the DICOM decoder {}", sources.list[current].name, end.empty() ? "stopped early" : end);
}

std::vector<Header> read_headers(const Sources& sources) {
  std::vector<Header> headers(sources.list.size());
  std::vector<std::size_t> all;
  for (std::size_t n = 0; n < headers.size(); ++n) {
    headers[n].name = sources.list[n].name, headers[n].bytes = sources.list[n].bytes;
    all.push_back(n);
  }
  Listener listener;
  std::string record;
  listener.body = [&](const Head& h, std::span<const std::byte> bytes) {
    if (record.size() + bytes.size() > (std::size_t{256} << 20)) fail(ErrorCode::bad_file, "{}: more than 256 MiB of elements", headers[h.file].name);
    record.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (record.size() < h.length) return;
    dicom::add_record(headers[h.file], record);
    record.clear();
  };
  run_files(sources, all, listener, [&](const os::ChildWrite& write, std::size_t file) {
    const Source& source = sources.list[file];
    std::shared_ptr<void> keep;
    const std::span<const std::byte> bytes = sources.load(source, keep);
    const bool marked = has_mark(bytes);
    if (!marked && !sources.single && !dicom_name(source.name)) return;  // something else that lies there
    std::string lines;
    const dicom::Sink sink{&lines, [](void* context, int frame, const dicom::Tag& tag, const char* text, std::size_t length) {
                             std::string& out = *static_cast<std::string*>(context);
                             out += fmt::format("{} {:04x} {:04x} ", frame, tag.group, tag.element);
                             for (std::size_t n = 0; n < std::min<std::size_t>(length, 1 << 20); ++n) out += text[n] == '\n' ? ' ' : text[n];
                             out += '\n';
                           }};
    if (const char* wrong = plugin().plugin->header(bytes.data(), bytes.size(), sink)) return say_text(write, Say::refuse, file, wrong);
    say_text(write, Say::record, file, lines);
  });
  return headers;
}

std::vector<DicomSeries> list_of(const std::vector<Header>& headers) {
  std::vector<DicomSeries> out;
  for (const dicom::Series& series : dicom::group(headers)) {
    DicomSeries d{series.number, series.modality, series.files.size(), {}, 1, {}};
    try {
      const Stack s = dicom::stack(headers, series);
      d.size = s.size, d.times = s.times;
    } catch (const Error& e) {
      d.problem = e.what();
    }
    out.push_back(std::move(d));
  }
  return out;
}

// The series that is meant, as a plan.
struct Chosen {
  dicom::Series series;
  Stack stack;
};
Chosen choose(const std::string& path, const std::vector<Header>& headers, const std::optional<int>& wanted) {
  const std::vector<dicom::Series> all = dicom::group(headers);
  if (all.empty()) {
    if (headers.size() == 1) headers[0].refuse(ErrorCode::unsupported, dicom::kRows, "an image");
    fail(ErrorCode::bad_file, "{}: no DICOM images in {} files", path, headers.size());
  }
  if (wanted) {
    if (*wanted < 0 || *wanted >= static_cast<int>(all.size()))
      fail(ErrorCode::invalid_argument, "{}: series {} (there are {}, counted from 0)", path, *wanted, all.size());
    const dicom::Series& s = all[static_cast<std::size_t>(*wanted)];
    return {s, dicom::stack(headers, s)};
  }
  if (all.size() == 1) return {all[0], dicom::stack(headers, all[0])};
  const std::vector<DicomSeries> list = list_of(headers);
  const auto good = [](const DicomSeries& s) { return s.problem.empty() && s.size[2] > 1; };
  if (std::count_if(list.begin(), list.end(), good) == 1) {  // scouts and single pictures beside the one scan
    const auto n = static_cast<std::size_t>(std::find_if(list.begin(), list.end(), good) - list.begin());
    Chosen chosen{all[n], dicom::stack(headers, all[n])};
    chosen.stack.warnings.push_back({"other_series", fmt::format("{} other series beside this one are no volumes: passed over", all.size() - 1)});
    return chosen;
  }
  fail(ErrorCode::unsupported, "{}: {} series; choose one (--series N, or \"{},series=N\"):\n{}", path, all.size(), path, to_text(list));
}

Image facts_of(const std::string& path, const Stack& s) {
  Image image;
  image.name = path;
  image.format = "DICOM, " + (s.syntax.empty() ? "no transfer syntax" : s.syntax);
  image.type = s.one_scaling ? s.type : Number::f32;
  image.dim = {s.size[0], s.size[1], s.size[2]};
  if (s.times > 1) image.dim.push_back(s.times);
  image.place = s.place;
  const Vec3 mm = spacing_of(s.place.affine);
  for (std::size_t a = 0; a < 3; ++a) image.pixdim[a + 1] = mm[a];
  constexpr int kMillimetres = 2;
  image.units = kMillimetres;
  if (s.one_scaling) image.slope = s.slices[0].slope, image.inter = s.slices[0].inter;
  image.warnings = s.warnings;
  return image;
}

void read_pixels(const Sources& sources, const std::vector<Header>& headers, const Stack& s, Image& image) {
  const std::uint64_t frame = s.frame_bytes();
  std::uint64_t present = 0;
  for (const std::size_t f : s.files) present += headers[f].bytes;
  std::vector<Buffer> waiting(headers.size());
  std::vector<std::vector<std::size_t>> places(headers.size());  // of a file's slices in the image
  for (std::size_t n = 0; n < s.slices.size(); ++n) places[s.slices[n].file].push_back(n);
  const auto place = [&](std::size_t file) {
    if (!image.storage) image.storage = std::make_shared<Buffer>(image.bytes());
    const std::int64_t pixels = s.size[0] * s.size[1];
    dicom::clean_bits(waiting[file].data(), static_cast<std::int64_t>(waiting[file].size() / size_of(s.type)), s);
    for (const std::size_t n : places[file]) {
      const std::byte* from = waiting[file].data() + static_cast<std::uint64_t>(s.slices[n].frame) * frame;
      std::byte* to = image.storage->data() + n * static_cast<std::size_t>(pixels) * size_of(image.type);
      if (s.one_scaling) std::memcpy(to, from, frame);
      else convert::to_float(from, s.type, {s.slices[n].slope, s.slices[n].inter}, pixels, reinterpret_cast<float*>(to), 1);
    }
    waiting[file] = Buffer();
  };
  // Small enough to be believed before the pixels are there? Otherwise the image waits until all files are decoded.
  const bool at_once = image.bytes() <= allocation_limit(present);
  Listener listener;
  std::uint64_t got = 0;
  const auto expected = [&](std::size_t file) { return static_cast<std::uint64_t>(s.frames_of(file, headers)) * frame; };
  listener.head = [&](const Head& h) {
    if (h.say == Say::begin) got = 0;
  };
  listener.body = [&](const Head& h, std::span<const std::byte> bytes) {
    const std::uint64_t all = expected(h.file);
    Buffer& pixels = waiting[h.file];
    if (h.length < all)
      fail(ErrorCode::bad_file, "{}: (7FE0,0010) PixelData holds {} bytes (wanted {}: {} frames of {} x {}): truncated?", headers[h.file].name, h.length, all,
           all / frame, s.size[0], s.size[1]);
    if (got == 0) pixels = Buffer(static_cast<std::size_t>(all));  // the child has as many
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), all - std::min(got, all)));
    std::memcpy(pixels.data() + std::min(got, all), bytes.data(), n);
    got += bytes.size();
    if (got >= h.length && at_once) place(h.file);
  };
  run_files(sources, s.files, listener, [&](const os::ChildWrite& write, std::size_t file) {
    std::shared_ptr<void> keep;
    const std::span<const std::byte> bytes = sources.load(sources.list[file], keep);
    struct Context {
      const os::ChildWrite* write;
      std::size_t file;
    } context{&write, file};
    const char* wrong = plugin().plugin->pixels(
        bytes.data(), bytes.size(),
        [](void* c, const void* data, std::size_t n) { say(*static_cast<Context*>(c)->write, Say::pixels, static_cast<Context*>(c)->file, data, n); }, &context);
    if (wrong) say_text(write, Say::refuse, file, wrong);
  });
  for (const std::size_t f : s.files) {
    if (!at_once && waiting[f].size() > 0) place(f), places[f].clear();
    else if (!at_once) fail(ErrorCode::bad_file, "{}: (7FE0,0010) PixelData is empty", headers[f].name);
  }
  if (!image.storage) fail(ErrorCode::bad_file, "{}: (7FE0,0010) PixelData is empty", image.name);
}

}  // namespace

bool is_dicom(const std::string& path) {
  std::error_code error;
  for (const char* other : {".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img", ".hdr.gz", ".img.gz", ".nrrd", ".nhdr", ".png"})
    if (files::ends_with(path, other)) return false;  // a header of these is read in microseconds
  if (fs::is_directory(path, error)) return true;
  if (!fs::is_regular_file(path, error)) return false;
  os::InputFile file(path);
  std::byte start[4];
  if (is_zip({start, file.read(start, sizeof start)})) return true;
  if (dicom_name(path) || files::ends_with(path, ".dcm.gz")) return true;
  file.seek(0);
  std::byte mark[kMarkAt + 4];
  return has_mark({mark, file.read(mark, sizeof mark)});
}

std::string dicom_missing() { return plugin().why; }

std::string to_text(const std::vector<DicomSeries>& list) {
  std::string text;
  for (std::size_t n = 0; n < list.size(); ++n) {
    const DicomSeries& s = list[n];
    text += fmt::format("  {}: series {}, {}, {} file{}", n, s.number, s.modality.empty() ? "no modality" : s.modality, s.files, s.files == 1 ? "" : "s");
    if (s.size[0] > 0) text += fmt::format(", {} x {} x {}", s.size[0], s.size[1], s.size[2]);
    if (s.times > 1) text += fmt::format(", {} times", s.times);
    if (!s.problem.empty()) text += ", no volume: " + s.problem;
    text += '\n';
  }
  return text;
}

std::vector<DicomSeries> list_dicom(const std::string& path) {
  need_plugin(path);
  return list_of(read_headers(find_sources(path)));
}

Image read_dicom(const std::string& path, std::optional<int> series) {
  need_plugin(path);
  const Sources sources = find_sources(path);
  const std::vector<Header> headers = read_headers(sources);
  const Chosen chosen = choose(path, headers, series);
  Image image = facts_of(path, chosen.stack);
  read_pixels(sources, headers, chosen.stack, image);
  return image;
}

Image read_dicom_header(const std::string& path, std::optional<int> series) {
  need_plugin(path);
  const std::vector<Header> headers = read_headers(find_sources(path));
  return facts_of(path, choose(path, headers, series).stack);
}

}  // namespace vg
