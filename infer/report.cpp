// CSV and JSON of a run. Numbers are written for spreadsheets and scripts; every page says what it is not: a medical device.
// File names are the only thing here that could identify a person, and they come from the user.
#include "infer/report.h"

#include <cmath>

#include "infer/metrics.h"

namespace vg {

namespace {

// A cell that may hold anything (RFC 4180).
std::string cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::map<std::int32_t, double> label_volumes(const Volume& labels) {
  const double voxel = std::abs(determinant(labels.place.affine));
  std::map<std::int32_t, double> volumes;
  for (const auto& [id, count] : label_counts(labels.voxels))
    if (id != 0) volumes[id] = voxel * static_cast<double>(count);
  return volumes;
}

std::string volumes_csv(const std::vector<CaseReport>& cases, const Lut& lut) {
  std::string text = "# volumes in mm^3; research use, not a medical device\ncase";
  for (const auto& [id, entry] : lut.entries)
    if (id != 0) text += "," + cell(entry.name);
  text += "\n";
  for (const CaseReport& c : cases) {
    if (!c.error.empty()) continue;
    text += cell(c.name);
    for (const auto& [id, entry] : lut.entries)
      if (id != 0) text += fmt::format(",{:.1f}", c.volumes.count(id) ? c.volumes.at(id) : 0.0);
    text += "\n";
  }
  return text;
}

std::string report_json(const std::vector<CaseReport>& cases, const Segmenter& segmenter, const std::string& device) {
  const Lut lut = segmenter.lut();
  Json list = Json::array();
  for (const CaseReport& c : cases) {
    Json j = {{"case", c.name}, {"input", c.input}, {"output", c.output}, {"warnings", c.warnings}};
    if (c.error.empty()) {
      Json volumes = Json::object();
      for (const auto& [id, mm3] : c.volumes) {
        std::string name = lut.name(id);
        if (volumes.contains(name)) name += fmt::format(" ({})", id);
        volumes[name] = {{"id", id}, {"mm3", mm3}};
      }
      j["volumes"] = volumes, j["network_seconds"] = c.network_seconds, j["total_seconds"] = c.total_seconds;
    } else {
      j["error"] = c.error;
    }
    list.push_back(std::move(j));
  }
  const Json all = {{"note", "research use, not a medical device"}, {"program", "voxgrad " VG_VERSION}, {"model", segmenter.path}, {"device", device}, {"cases", list}};
  return all.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";  // names of files may hold any bytes
}

}  // namespace vg
