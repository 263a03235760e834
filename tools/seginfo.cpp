// seginfo: what is in a file? Of an image header, place in the patient, values, labels by name; of a model or checkpoint network, recipe, labels,
// provenance. As one screen or as JSON.
#include <filesystem>

#include "layers/describe_model.h"
#include "nifti/describe.h"
#include "tools/program.h"

int main(int argc, char** argv) {
  CLI::App app{"Shows what images and model files hold: header, geometry, values, labels by name; network, recipe, provenance. Research use, not a medical device.",
               "seginfo"};
  std::vector<std::string> files;
  std::string table;
  bool json = false, labels = false, no_labels = false;
  vg::InspectOptions options;
  int volume = -1, series = -1;
  app.add_option("FILE", files, "NIfTI (.nii, .nii.gz, .hdr), MGH (.mgz), NRRD, PNG, DICOM (file, folder or zip), model or safetensors files")->required();
  app.add_option("--volume", volume, "Of a 4-D file: this volume, from 0 (the same as FILE,N)")->check(CLI::NonNegativeNumber);
  app.add_option("--series", series, "Of a DICOM folder or zip: this series, from 0 (the same as FILE,series=N)")->check(CLI::NonNegativeNumber);
  app.add_flag("--json", json, "One JSON object (an array for several files) instead of text");
  app.add_flag("--header", options.header_only, "Read the header alone, not the voxels");
  auto* yes = app.add_flag("--labels", labels, "Count the values as labels, whatever they look like");
  app.add_flag("--no-labels", no_labels, "Never count the values as labels")->excludes(yes);
  app.add_option("--lut", table, "Label names: a FreeSurferColorLUT.txt-like table (default: the common FreeSurfer ids)");
  return vg::run_program(app, argc, argv, [&] {
    const vg::Lut lut = table.empty() ? vg::builtin_freesurfer() : vg::read_lut(table);
    options.labels = labels ? vg::LabelGuess::yes : no_labels ? vg::LabelGuess::no : vg::LabelGuess::automatic;
    nlohmann::json reports = nlohmann::json::array();
    int failed = 0;
    for (std::string& file : files) {
      if (series >= 0) file += ",series=" + std::to_string(series);
      if (volume >= 0) file += "," + std::to_string(volume);
      try {
        if (std::filesystem::is_regular_file(file) && vg::is_model_file(file)) {
          const nlohmann::json model = vg::describe_model(vg::read_model(file), file);
          if (json)
            reports.push_back(model);
          else
            std::fputs(vg::to_text(model).c_str(), stdout);
          continue;
        }
        if (std::filesystem::path(file).extension() == ".safetensors") {  // by name: the format has no mark of its own
          const nlohmann::json weights = vg::describe_safetensors(vg::read_safetensors(file), file);
          if (json)
            reports.push_back(weights);
          else
            std::fputs(vg::safetensors_text(weights).c_str(), stdout);
          continue;
        }
        const vg::FileReport report = vg::inspect(file, lut, options);
        if (json)
          reports.push_back(vg::to_json(report, lut));
        else
          std::fputs(vg::to_text(report, lut).c_str(), stdout);
      } catch (const vg::Error& e) {  // one bad file never hides the others
        std::fprintf(stderr, "seginfo: %s\n", e.what());
        if (json) reports.push_back({{"path", file}, {"error", e.what()}});
        ++failed;
      }
    }
    // Text fields of files may hold any bytes: those that are no UTF-8 are replaced.
    if (json) std::puts((files.size() == 1 ? reports[0] : reports).dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return failed > 0 ? 1 : 0;
  });
}
