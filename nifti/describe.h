// What a person or a program wants to know about an image file at a glance: header, place, values, labels by name, warnings. For seginfo
// and reports.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "nifti/lut.h"
#include "nifti/volume.h"

namespace vg {

struct LabelCount {
  std::int32_t id = 0;
  std::int64_t voxels = 0;
};

struct FileReport {
  std::string path, format;
  std::uint64_t file_bytes = 0;
  std::vector<std::int64_t> dim;
  Number type = Number::u8;
  Placement place;
  Vec3 spacing{};
  double slope = 1, inter = 0;
  int intent_code = 0;
  std::string intent_name, description;
  std::size_t extensions = 0;
  bool conformed = false;  // has FreeSurfer's conformed grid
  Warnings warnings;
  struct Values {
    double low = 0, high = 0, mean = 0, quantile_02 = 0, median = 0, quantile_98 = 0;  // of the finite voxels
    std::int64_t finite = 0, non_finite = 0;
  };
  std::optional<Values> values;    // not for the header alone
  std::vector<LabelCount> labels;  // by id; empty unless the file holds labels

  Size3 size() const;
};

enum class LabelGuess { automatic, yes, no };
struct InspectOptions {
  bool header_only = false;
  // automatic: intent LABEL, or a palette, or unscaled integers of at most 64 different values, or of at most 2000 that all have a name
  // in the table.
  LabelGuess labels = LabelGuess::automatic;
};
// Throws as read_image and read_png do.
FileReport inspect(const std::string& path, const Lut& lut, const InspectOptions& options = {});

std::string to_text(const FileReport& report, const Lut& lut);     // one screen, several lines
nlohmann::json to_json(const FileReport& report, const Lut& lut);  // the same facts under stable keys

}  // namespace vg
