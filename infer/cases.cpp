// Finding scans: files, folders, lists and BIDS data sets become one list of what to read and where to write, so that the programs have one loop and
// every collision of outputs is found before the first network runs.
#include "infer/cases.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "nifti/dicom.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWritten[] = {".nii.gz", ".nii", ".mgz", ".mgh", ".png"};
constexpr const char* kReadOnly[] = {".hdr.gz", ".hdr", ".nrrd", ".nhdr", ".dcm", ".dcm.gz", ".ima", ".zip"};

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

template <std::size_t n>
std::string ending_among(const std::string& name, const char* const (&endings)[n]) {
  const std::string l = lower(name);
  for (const char* e : endings)
    if (l.size() > std::string(e).size() && l.ends_with(e)) return e;
  return "";
}
// The known ending of a name, "" if it has none.
std::string ending_of(const std::string& name) {
  const std::string written = ending_among(name, kWritten);
  return written.empty() ? ending_among(name, kReadOnly) : written;
}

// "bold.nii.gz,3" -> "bold_3"
std::string stem_of(const std::string& path) {
  const Pick pick = pick_of(path);
  const std::string file = (fs::path(pick.path) / "").parent_path().filename().string();  // of a folder with or without a slash behind it
  std::string stem = file.substr(0, file.size() - ending_of(file).size());
  if (pick.series) stem += fmt::format("_series{}", *pick.series);
  if (pick.frame) stem += fmt::format("_{}", *pick.frame);
  return stem;
}

std::string result_ending(const std::string& input) { return ending_of(pick_of(input).path) == ".png" ? ".png" : ".nii.gz"; }

std::vector<Case> bids(const std::string& root, const std::string& output) {
  std::vector<Case> cases;
  for (const auto& entry : fs::recursive_directory_iterator(root, fs::directory_options::skip_permission_denied)) {
    const fs::path relative = fs::relative(entry.path(), root);
    const std::string file = entry.path().filename().string(), ending = ending_of(file);
    const std::string top = relative.begin()->string();
    if (top.rfind("sub-", 0) != 0 || entry.path().parent_path().filename() != "anat" || ending.empty() || !stem_of(file).ends_with("_T1w")) continue;
    const std::string stem = stem_of(file), base = stem.substr(0, stem.size() - 4);
    cases.push_back({stem, entry.path().string(), (fs::path(output) / relative.parent_path() / (base + "_desc-voxgrad_dseg.nii.gz")).string()});
  }
  if (cases.empty()) fail(ErrorCode::io, "{}: a BIDS data set without any sub-*/anat/*_T1w.nii.gz", root);
  return cases;
}

bool holds_dicom(const std::string& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied))
    if (entry.is_regular_file() && is_dicom(entry.path().string())) return true;
  return false;
}

}  // namespace

std::vector<Case> find_cases(const std::string& input, const std::string& output) {
  std::vector<std::string> scans;
  std::vector<Case> cases;
  const fs::path path(input);
  if (!fs::exists(pick_of(input).path)) fail(ErrorCode::io, "{}: No such file or directory", input);
  if (fs::is_directory(path)) {
    if (fs::exists(path / "dataset_description.json")) {
      cases = bids(input, output);
    } else {
      for (const auto& entry : fs::directory_iterator(path))
        if (entry.is_regular_file() && entry.path().filename().string()[0] != '.' && !ending_of(entry.path().string()).empty()) scans.push_back(entry.path().string());
      const auto no_scan = [](const std::string& scan) { return !ending_of(scan).starts_with(".dcm") && ending_of(scan) != ".ima"; };
      // Slices of DICOM, with or without an ending, here or in folders below, are one scan together.
      if (scans.empty() || std::none_of(scans.begin(), scans.end(), no_scan)) {
        if (scans.empty() && !holds_dicom(input)) fail(ErrorCode::io, "{}: no scans (.nii, .nii.gz, .mgz, .mgh, .hdr, .nrrd, .png, .zip, DICOM) in this folder", input);
        scans = {input};
      }
    }
  } else if (lower(path.extension().string()) == ".txt") {
    std::istringstream lines(os::read_text(input));
    for (std::string line; std::getline(lines, line);) {
      while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
      line.erase(0, line.find_first_not_of(" \t"));
      if (line.empty() || line[0] == '#') continue;
      scans.push_back(fs::path(line).is_absolute() ? line : (path.parent_path() / line).string());
    }
    if (scans.empty()) fail(ErrorCode::io, "{}: the list names no scans", input);
  } else {
    scans = {input};
  }
  const bool to_file = !ending_of(output).empty();
  require(ending_among(output, kReadOnly).empty(), "{}: labels are written as .nii.gz, .nii, .mgz, .mgh or .png", output);
  require(cases.size() + scans.size() == 1 || !to_file, "{}: {} scans, so the output must be a folder, not {}", input, cases.size() + scans.size(), output);
  std::sort(scans.begin(), scans.end());
  for (const std::string& scan : scans) cases.push_back({stem_of(scan), scan, (fs::path(output) / (stem_of(scan) + "_seg" + result_ending(scan))).string()});
  std::sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) { return a.output < b.output; });
  if (to_file) cases[0].output = output;
  for (const Case& c : cases) {
    std::error_code ignored;
    require(!fs::equivalent(c.input, c.output, ignored), "{}: the labels would replace the scan; name another output", c.input);
  }
  for (std::size_t i = 1; i < cases.size(); ++i)
    require(cases[i].output != cases[i - 1].output, "{} and {} would both be written to {}", cases[i - 1].input, cases[i].input, cases[i].output);
  return cases;
}

}  // namespace vg
