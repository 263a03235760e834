// What a segmentation says in numbers: volumes of structures as CSV, the run as JSON. No patient data: names of files alone.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "infer/segment.h"

namespace vg {

struct CaseReport {
  std::string name, input, output;
  std::string error;                       // "" when it went well
  std::map<std::int32_t, double> volumes;  // id -> mm^3, background left out
  std::vector<std::string> warnings;
  double network_seconds = 0, total_seconds = 0;
};

std::map<std::int32_t, double> label_volumes(const Volume& labels);

// First line a comment (units, "research use, not a medical device"), then: case, one column per label of the table, in its order. mm^3 with one decimal.
std::string volumes_csv(const std::vector<CaseReport>& cases, const Lut& lut);
std::string report_json(const std::vector<CaseReport>& cases, const Segmenter& segmenter, const std::string& device);

}  // namespace vg
