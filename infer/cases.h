// Which scans a command means, and where their results go: a file, a folder, a BIDS data set, a list in a text file.
#pragma once
#include <string>
#include <vector>

namespace vg {

struct Case {
  std::string name;    // "sub-01_T1w"
  std::string input;   // the scan
  std::string output;  // the label map: .nii.gz, or .png for a PNG, or the ending that was asked for
};

// input:  a scan (.nii, .nii.gz, .mgz, .mgh, .hdr, .nrrd, .png, .dcm, .zip of DICOM), with a volume or series picked as for pick_of;  a folder of
//         DICOM: one scan;  a folder: every scan in it;  a folder with dataset_description.json: every *_T1w.nii[.gz] in
//         sub-*/[ses-*/]anat;  a .txt: one path a line, empty lines and #-comments skipped, relative to the list's folder.
// output: for one scan a file name (known ending) or a folder; for several a folder. NAME_seg.nii.gz; for BIDS the same sub-folders and
//         ..._desc-voxgrad_dseg.nii.gz.
// Throws io (nothing there), invalid_argument (several scans but `output` names one file; two scans with the same result; a result that would
// replace its scan).
std::vector<Case> find_cases(const std::string& input, const std::string& output);

}  // namespace vg
