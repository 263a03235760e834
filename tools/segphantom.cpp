// segphantom: writes synthetic heads (T1-like images and their FreeSurfer labels) as a data set to train on.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"
#include "train/phantom.h"

namespace {

// "64" or "96x112x96" (D x H x W: slices, rows, columns)
vg::Shape parse_size(const std::string& text) {
  std::vector<std::int64_t> extents;
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t end = std::min(text.find('x', at), text.size());
    const std::string part = text.substr(at, end - at);
    vg::require(!part.empty() && part.size() < 6 && part.find_first_not_of("0123456789") == std::string::npos,
                "--size {} (wanted one number, or DxHxW such as 96x112x96)", text);
    extents.push_back(std::stoi(part));
    at = end + 1;
  }
  if (extents.size() == 1) extents.resize(3, extents[0]);
  vg::require(extents.size() == 3, "--size {} (wanted one number, or DxHxW such as 96x112x96)", text);
  return {extents[0], extents[1], extents[2]};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes synthetic heads: T1-like images with FreeSurfer labels (skull, CSF, folded cortex, white matter, ventricles, nuclei, "
      "cerebellum)."};
  app.set_version_flag("--version", VG_VERSION);
  vg::PhantomSet set;
  std::string size = "96x112x96", format = "nnunet";
  int threads = 0;
  bool quiet = false;
  app.add_option("-o,--output", set.folder, "Folder to write into")->required();
  app.add_option("-n,--number", set.training, "Training cases")->capture_default_str()->check(CLI::Range(0, 100000));
  app.add_option("--test", set.test, "Held-out cases (imagesTs, labelsTs)")->capture_default_str()->check(CLI::Range(0, 100000));
  app.add_option("--seed", set.params.seed, "Seed of the whole set")->capture_default_str();
  app.add_option("--subject", set.params.subject, "Number of the first head")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--size", size, "Voxels: one number, or DxHxW")->capture_default_str();
  app.add_option("--spacing", set.params.spacing, "Voxel size in mm; 0: so that the head fits")->capture_default_str();
  app.add_option("--orientation", set.params.orientation, "Directions of i, j, k, e.g. RAS or LIA")->capture_default_str();
  app.add_option("--site", set.params.site, "Scanner 0 to 2; -1: drawn per head")->capture_default_str();
  app.add_option("--noise", set.params.noise, "Factor on the noise")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--bias", set.params.bias, "Factor on the bias field")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--format", format, "nnunet (imagesTr, labelsTr, dataset.json) or flat")
      ->capture_default_str()
      ->check(CLI::IsMember({"nnunet", "flat"}));
  app.add_option("--threads", threads, "Threads; 0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("-q,--quiet", quiet, "Print nothing but errors");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    vg::set_threads(threads);
    set.params.grid = parse_size(size);
    set.flat = format == "flat";
    int done = 0;
    const int cases = vg::write_phantoms(set, [&](const std::string&) {
      if (!quiet) std::fprintf(stderr, vg::os::is_terminal(2) ? "\r%d of %d heads" : "%d of %d heads\n", ++done, set.training + set.test);
    });
    if (!quiet && vg::os::is_terminal(2)) std::fprintf(stderr, "\n");
    if (!quiet) std::printf("%s: %d heads (%d for training, %d held out)\n", set.folder.c_str(), cases, set.training, set.test);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "segphantom: %s\n", e.what());
    return 1;
  }
}
