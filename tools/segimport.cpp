// segimport WEIGHTS --config C.json -o MODEL: other people's weights become a model file that seginfer runs.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "infer/import.h"

int main(int argc, char** argv) {
  CLI::App app("Imports MeshNet weights (safetensors and a description in JSON) as a voxgrad model file.");
  vg::ImportOptions options;
  std::string out;
  bool quiet = false, no_golden = false;
  app.add_option("weights", options.weights, "weights of others, .safetensors")->required()->option_text("WEIGHTS");
  app.add_option("--config", options.config, "their description: layers, activation, norm, classes")->required()->option_text("C.json");
  app.add_option("-o,--output", out, "the model file to write")->required()->option_text("MODEL");
  app.add_option("--licence,--license", options.licence, "licence and attribution, kept in the model file")->option_text("TEXT");
  app.add_option("--gelu", options.gelu, "what \"gelu\" means")->check(CLI::IsMember({"erf", "tanh"}))->capture_default_str();
  app.add_flag("--no-golden", no_golden, "do not run the network to keep test vectors in the file");
  app.add_flag("-q,--quiet", quiet, "say nothing");
  app.set_version_flag("--version", VG_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    options.golden = !no_golden;
    const vg::Model model = vg::import_meshnet(options);
    vg::write_model(out, model);
    vg::read_model(out);  // what was written can be read: a full disk or a broken build is found here, not at a user's
    if (!quiet) {
      const vg::Plan plan = vg::plan(model.graph, {1, 256, 256, 256, model.graph.in_channels});
      fmt::print(stderr, "{}: {} parameters, {} classes, {:.0f} GMAC and {:.1f} GiB of memory for 256^3 voxels\n", out, plan.parameters,
                 model.graph.out_channels(), plan.multiply_adds / 1e9, static_cast<double>(plan.inference_bytes) / (1 << 30));
    }
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "segimport: {}\n", e.what());
    return 1;
  }
}
