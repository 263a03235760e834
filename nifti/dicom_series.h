// From the elements of many DICOM files to one volume's plan: which files form a series, in which order their slices lie, what is missing or double,
// and where the voxels are in the patient. No pixels and no files here, so that any bytes can be tried on it. Internal to nifti/.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nifti/dicom_plugin.h"
#include "nifti/geometry.h"
#include "nifti/image.h"
#include "tensor/error.h"

namespace vg::dicom {

// One file's elements by frame and tag. A frame's own group is asked first, then the shared one, then the top level.
class Header {
 public:
  std::string name;
  void set(int frame, std::uint16_t group, std::uint16_t element, std::string text);
  const std::string* find(const Tag& tag, int frame = kTopLevel) const;
  std::string text(const Tag& tag, int frame = kTopLevel) const;  // "" where it is missing; blanks at the ends are dropped
  // The numbers of an element; empty where it is missing or empty. Throws bad_file, naming file and element, for what is no finite number.
  std::vector<double> numbers(const Tag& tag, int frame = kTopLevel) const;
  // One whole number; throws bad_file where it is missing or outside [low, high].
  std::int64_t whole(const Tag& tag, std::int64_t low, std::int64_t high, std::optional<std::int64_t> fallback = {}) const;
  [[noreturn]] void refuse(ErrorCode code, const Tag& tag, const std::string& wanted, int frame = kTopLevel) const;
  std::int64_t described_frames() const;  // frames with elements of their own
  bool is_image() const { return find(kRows) != nullptr; }
  std::uint64_t bytes = 0;  // of the file

 private:
  std::map<std::uint64_t, std::string> elements_;
};
// The lines of a record: "FRAME GGGG EEEE TEXT". Lines of another form are skipped.
void add_record(Header& header, const std::string& lines);

struct Series {
  std::string uid, modality;
  int number = 0;
  std::vector<std::size_t> files;  // of the headers
};
// Images alone, by series number, then as they come. Files of one SeriesInstanceUID are one series.
std::vector<Series> group(const std::vector<Header>& headers);

struct Slice {
  std::size_t file = 0;
  std::int64_t frame = 0;
  double slope = 1, inter = 0;
};
// A series as one volume: `slices` (or times x slices) in the order of the result, k fastest.
struct Stack {
  Size3 size{};
  std::int64_t times = 1;
  int allocated = 16, stored = 16, high_bit = 15;
  bool is_signed = false;
  Number type = Number::i16;  // of one stored pixel
  bool one_scaling = true;
  Placement place;
  std::vector<Slice> slices;
  std::vector<std::size_t> files;  // those that hold the slices, each once
  std::string syntax;
  Warnings warnings;

  std::uint64_t frame_bytes() const { return static_cast<std::uint64_t>(size[0] * size[1]) * size_of(type); }
  std::int64_t frames_of(std::size_t file, const std::vector<Header>& headers) const;
};
// Throws bad_file or unsupported, naming the file and the element (number and name).
Stack stack(const std::vector<Header>& headers, const Series& series);

// Pixels as stored -> numbers: bits above HighBit or beyond BitsStored are cut off, signs extended. In place.
void clean_bits(std::byte* pixels, std::int64_t count, const Stack& stack);

}  // namespace vg::dicom
