// segeval: Dice and volumes of predicted label maps against references, for files or folders of NIfTI or PNG.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <string>

#include "infer/evaluate.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

int main(int argc, char** argv) {
  CLI::App app{"Dice and volumes of predicted label maps against references. Research use, not a medical device."};
  app.set_version_flag("--version", VG_VERSION);
  std::string reference, predicted, output, table;
  vg::EvaluateOptions options;
  double least = -1;
  int threads = 0;
  app.add_option("--ref,-r", reference, "Reference label map, or a folder of them (NIfTI, PNG)")->required();
  app.add_option("--pred,-p", predicted, "Predicted label map, or a folder; cases are matched by file name")->required();
  app.add_option("-o,--output", output, "Write the results as JSON (nnU-Net's summary.json keys)");
  app.add_option("--lut", table, "Label names: a FreeSurferColorLUT.txt-like table");
  app.add_option("--min-dice", least, "Exit with 1 if the mean foreground Dice is below this")->check(CLI::Range(0.0, 1.0));
  app.add_flag("--ignore-geometry", options.ignore_geometry, "Compare voxel by voxel even where the affines differ");
  app.add_flag("--skip-missing", options.skip_missing, "References without a prediction are not an error");
  app.add_option("--threads", threads, "Threads; 0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    vg::set_threads(threads);
    const vg::Lut lut = table.empty() ? vg::builtin_freesurfer() : vg::read_lut(table);
    const vg::Evaluation evaluation = vg::evaluate(reference, predicted, options);
    for (const vg::ScoredCase& c : evaluation.cases) {
      for (const std::string& w : c.warnings) std::fprintf(stderr, "segeval: warning: %s\n", w.c_str());
      if (!c.error.empty()) std::fprintf(stderr, "segeval: %s\n", c.error.c_str());
    }
    if (options.skip_missing && !evaluation.missing.empty())
      std::fprintf(stderr, "segeval: %zu references have no prediction and are left out\n", evaluation.missing.size());
    if (!output.empty()) vg::os::write_file_atomic(output, vg::to_json(evaluation, lut));
    if (evaluation.scored()) std::fputs(vg::to_table(evaluation, lut).c_str(), stdout);
    if (evaluation.failed()) {
      std::fprintf(stderr, "segeval: %d of %zu cases could not be scored\n", evaluation.failed(), evaluation.cases.size());
      return 1;
    }
    const double mean = evaluation.mean_foreground();
    if (least >= 0 && !(mean >= least)) {
      std::fprintf(stderr, "segeval: mean foreground Dice %.4f is below the %.4f asked for\n", mean, least);
      return 1;
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "segeval: %s\n", e.what());
    return 1;
  }
}
