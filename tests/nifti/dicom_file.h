// DICOM files made element by element for the tests: explicit VR, little endian unless told otherwise.
#pragma once
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace vg::test {

// Elements in the order in which they are put; `file()` puts preamble and meta information before them.
class DicomFile {
 public:
  static constexpr const char* kExplicit = "1.2.840.10008.1.2.1";

  explicit DicomFile(std::string syntax = kExplicit) : syntax_(std::move(syntax)) {}
  DicomFile& put(std::uint16_t group, std::uint16_t element, const char* vr, std::string value) {
    if (value.size() % 2) value += std::string(vr) == "UI" ? '\0' : ' ';
    body_ += encode(group, element, vr, value);
    return *this;
  }
  DicomFile& us(std::uint16_t group, std::uint16_t element, std::uint16_t v) { return put(group, element, "US", le(v, 2)); }
  // A sequence of undefined length; every item is the body of another file.
  DicomFile& sequence(std::uint16_t group, std::uint16_t element, const std::vector<DicomFile>& items) {
    body_ += le(group, 2) + le(element, 2) + "SQ" + le(0, 2) + le(0xffffffff, 4);
    for (const DicomFile& item : items) body_ += le(0xfffe, 2) + le(0xe000, 2) + le(static_cast<std::uint32_t>(item.body_.size()), 4) + item.body_;
    body_ += le(0xfffe, 2) + le(0xe0dd, 2) + le(0, 4);
    return *this;
  }
  DicomFile& raw(const std::string& bytes) { return body_ += bytes, *this; }
  std::string file() const {
    const std::string meta = encode(2, 0x10, "UI", syntax_ + std::string(syntax_.size() % 2, '\0'));
    return std::string(128, '\0') + "DICM" + encode(2, 0, "UL", le(static_cast<std::uint32_t>(meta.size()), 4)) + meta + body_;
  }
  void write(const std::string& path) const { std::ofstream(path, std::ios::binary) << file(); }
  static std::string le(std::uint32_t v, int bytes) {
    std::string s;
    for (int b = 0; b < bytes; ++b) s += static_cast<char>(v >> 8 * b);
    return s;
  }

 private:
  static std::string encode(std::uint16_t group, std::uint16_t element, const std::string& vr, const std::string& value) {
    const bool long_form = vr == "OB" || vr == "OW" || vr == "OF" || vr == "OD" || vr == "UN" || vr == "SQ";
    const auto size = static_cast<std::uint32_t>(value.size());
    return le(group, 2) + le(element, 2) + vr + (long_form ? le(0, 2) + le(size, 4) : le(size, 2)) + value;
  }
  std::string syntax_, body_;
};

// One slice of 4 columns and 3 rows at z mm, axial, 2 mm between columns and 3 mm between rows; pixel n holds first + n. Every field can be
// changed before it is written.
struct DicomSlice {
  double z = 0;
  int first = 0, instance = 1, series = 7;
  std::string uid, series_uid = "1.2.3.7";  // uid: by default from z, instance and series
  std::string orientation = "1\\0\\0\\0\\1\\0", position, spacing = "3\\2", thickness = "5", slope, inter, photometric = "MONOCHROME2",
              image_type = "ORIGINAL\\PRIMARY\\M", between, temporal, syntax = DicomFile::kExplicit;
  int rows = 3, columns = 4, allocated = 16, stored = 16, high = -1, is_signed = 0, samples = 1;
  std::string pixels;  // by default as said above
  bool geometry = true;

  DicomFile make() const {
    DicomFile f(syntax);
    const std::string at = position.empty() ? "-10\\20\\" + number(z) : position;
    f.put(8, 8, "CS", image_type).put(8, 0x18, "UI", uid.empty() ? "1.2.3." + std::to_string(series) + "." + std::to_string(instance) + "." + std::to_string(static_cast<int>(z * 100) + 100000) : uid);
    f.put(8, 0x20, "DA", "20010203").put(8, 0x60, "CS", "MR").put(8, 0x103e, "LO", "SECRET^SERIES");
    f.put(0x10, 0x10, "PN", "SECRET^NAME").put(0x10, 0x20, "LO", "SECRET-ID").put(0x10, 0x30, "DA", "19700101");
    f.put(0x18, 0x50, "DS", thickness);
    if (!between.empty()) f.put(0x18, 0x88, "DS", between);
    f.put(0x20, 0xe, "UI", series_uid).put(0x20, 0x11, "IS", std::to_string(series)).put(0x20, 0x13, "IS", std::to_string(instance));
    if (geometry) f.put(0x20, 0x32, "DS", at).put(0x20, 0x37, "DS", orientation);
    if (!temporal.empty()) f.put(0x20, 0x100, "IS", temporal);
    f.us(0x28, 2, static_cast<std::uint16_t>(samples)).put(0x28, 4, "CS", photometric);
    f.us(0x28, 0x10, static_cast<std::uint16_t>(rows)).us(0x28, 0x11, static_cast<std::uint16_t>(columns));
    if (geometry) f.put(0x28, 0x30, "DS", spacing);
    f.us(0x28, 0x100, static_cast<std::uint16_t>(allocated)).us(0x28, 0x101, static_cast<std::uint16_t>(stored));
    f.us(0x28, 0x102, static_cast<std::uint16_t>(high < 0 ? stored - 1 : high)).us(0x28, 0x103, static_cast<std::uint16_t>(is_signed));
    if (!inter.empty()) f.put(0x28, 0x1052, "DS", inter);
    if (!slope.empty()) f.put(0x28, 0x1053, "DS", slope);
    return f.put(0x7fe0, 0x10, "OW", pixels.empty() ? counted(rows * columns, first) : pixels);
  }
  static std::string counted(int count, int first) {
    std::string s;
    for (int n = 0; n < count; ++n) s += DicomFile::le(static_cast<std::uint32_t>(first + n), 2);
    return s;
  }
  static std::string number(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", v);
    return text;
  }
};

}  // namespace vg::test
