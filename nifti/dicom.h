// DICOM as scanners and archives hand it out: a folder, a zip archive or one file becomes a list of series, and a series one image. GDCM reads and
// decodes, in a child process under limits, through libvoxgrad_dicom.so, which is opened when the first such file is. Names, numbers and dates of
// the patient never get here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nifti/image.h"

namespace vg {

// A folder, a zip archive, a name that ends in .dcm, .ima or .dcm.gz, or a file with DICOM's mark at byte 128 whose name claims no other format.
bool is_dicom(const std::string& path);
// "": the plug-in is there. Otherwise why not.
std::string dicom_missing();

struct DicomSeries {
  int number = 0;         // SeriesNumber
  std::string modality;   // "MR"
  std::size_t files = 0;
  Size3 size{};           // 0 where `problem` says why it is no volume
  std::int64_t times = 1;
  std::string problem;
};
// By series number. Files that are no DICOM images (reports, DICOMDIR, text) are passed over. Throws as read_dicom does.
std::vector<DicomSeries> list_dicom(const std::string& path);
std::string to_text(const std::vector<DicomSeries>& list);  // a line each, counted from 0

// One series as an image of 3 axes, or 4 with times or echoes; k runs along the normal of the slices. Stored numbers with one slope and intercept
// where all slices share them, else f32 values. Without `series` there must be one that is a volume. Throws bad_file or unsupported with the
// file and the element (number and name): no or contradicting geometry, a gap, a duplicate, several orientations (a scout), colour, tiles; pixels
// that cannot be decoded; a decoder that crashed or ran out of its limits; io.
Image read_dicom(const std::string& path, std::optional<int> series = {});
// The same without its voxels.
Image read_dicom_header(const std::string& path, std::optional<int> series = {});

}  // namespace vg
