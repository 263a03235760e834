// segbench: what the machine can do, what our kernels, training steps and segmentations take, and how that compares with other engines.
// The work is in benchmarks/segbench.
#include <fstream>

#include "benchmarks/segbench/commands.h"
#include "tools/program.h"

namespace {

using namespace vg;

struct Output {
  bool json = false, exact = false, direct = false, quiet = false;
  int threads = 0;
  std::string markdown, svg;
};

int segbench(bench::Report (*measure)(const bench::Options&), bench::Options o, const Output& out, const std::string& command) {
  if (out.threads > 0) set_threads(out.threads);
  if (out.exact) o.allow = ConvAlgorithm::Allow::exact;
  if (out.direct) o.allow = ConvAlgorithm::Allow::direct;
  if (!out.quiet) o.say = [](const std::string& text) { std::fprintf(stderr, "segbench: %s\n", text.c_str()); };
  bench::Report r = measure(o);
  if (const std::string path = os::environment("VG_CPU"); !path.empty()) r.title += " on " + path;
  if (out.exact || out.direct) r.title += out.exact ? " --exact" : " --direct";
  if (!out.markdown.empty()) bench::write_markdown(out.markdown, r, command);
  if (!out.svg.empty()) os::write_file_atomic(out.svg, bench::speedup_svg(r));
  std::fputs((out.json ? bench::to_json(r) : bench::to_table(r)).c_str(), stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options o;
  Output out;
  bench::Report (*chosen)(const bench::Options&) = nullptr;
  CLI::App app("Measures this machine, voxgrad's kernels, training steps and segmentations, and other engines beside them.", "segbench");
  app.require_subcommand(1);
  const auto command = [&](const char* name, const char* help, bench::Report (*measure)(const bench::Options&)) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->callback([&chosen, measure] { chosen = measure; });
    sub->add_flag("--json", out.json, "the result as JSON");
    sub->add_option("--markdown", out.markdown, "also write the result into this file, as a section of its own");
    sub->add_option("-t,--threads", out.threads, "threads (default: all)")->check(CLI::NonNegativeNumber);
    sub->add_flag("-q,--quiet", out.quiet, "no progress on stderr");
    return sub;
  };
  const auto with_case = [&](CLI::App* sub, std::vector<std::string> names) {
    sub->add_option("--case", o.name, "what to run")->required()->check(CLI::IsMember(std::move(names)));
    sub->add_option("--data", o.data, "folder of the test data (default: VG_TEST_DATA, else ../shared/data)");
    CLI::Option* exact = sub->add_flag("--exact", out.exact, "convolutions round no coarser than the plain sum");
    sub->add_flag("--direct", out.direct, "convolutions by the plain sum alone")->excludes(exact);
    return sub;
  };
  const auto all = [](std::vector<std::string> a, const std::vector<std::string>& b) { return a.insert(a.end(), b.begin(), b.end()), a; };
  const std::vector<std::string>&train = bench::train_cases(), &infer = bench::infer_cases();
  const char* repeat = "repetitions after an untimed one";

  command("peak", "multiply-adds and memory bandwidth of this machine", bench::peak)->add_flag("--quick", o.quick, "short measurements");
  with_case(command("kernels", "every kernel call of one step, by itself", bench::kernels), all(train, infer))->add_flag("--quick", o.quick, "short measurements");
  with_case(command("train", "seconds of a training step", bench::train_case), train)->add_option("-n", o.repetitions, repeat)->check(CLI::PositiveNumber)->capture_default_str();
  with_case(command("infer", "seconds of a segmentation", bench::infer_case), infer)->add_option("-n", o.repetitions, repeat)->check(CLI::PositiveNumber)->capture_default_str();
  with_case(command("threads", "1 to 64 workers modelled by counting imbalance", bench::thread_model), all(train, infer));
  CLI::App* io = command("io", "reading and writing .nii.gz", bench::io);
  io->add_option("--data", o.data, "folder of the test data (default: VG_TEST_DATA, else ../shared/data)");
  io->add_option("-n", o.repetitions, repeat)->check(CLI::PositiveNumber)->capture_default_str();
  CLI::App* speedup = command("speedup", "the same work on this CPU and on a GPU, and what bounds an H100", bench::speedup);
  speedup->add_option("--cases", o.cases, "only these, e.g. unet3d,mesh256")->delimiter(',')->check(CLI::IsMember(bench::speedup_cases()));
  speedup->add_option("--precision", o.precisions, "of the GPU, only these, e.g. fp32,bf16")->delimiter(',')->check(CLI::IsMember({"fp32", "tf32", "bf16"}));
  speedup->add_option("--data", o.data, "folder of the test data (default: VG_TEST_DATA, else ../shared/data)");
  speedup->add_option("-n", o.repetitions, repeat)->check(CLI::PositiveNumber)->capture_default_str();
  speedup->add_option("--svg", out.svg, "also draw it into this file");
  CLI::App* peers = with_case(command("vs-peers", "voxgrad and other engines in turns", bench::vs_peers), all(infer, train));
  peers->add_option("--rounds", o.rounds, "turns of everyone")->check(CLI::PositiveNumber)->capture_default_str();
  peers->add_option("--python", o.python, "interpreter with the peers installed")->capture_default_str();
  peers->add_option("--peers", o.peers, "only these, e.g. eager,openvino")->delimiter(',');
  peers->add_option("--scripts", o.scripts, "folder of the peers' scripts")->capture_default_str();
  peers->add_flag("--verbose", o.loud, "peers may write to stderr");

  std::string line;  // as in a shell, with what holds engines back
  for (const char* name : {"VG_CPU", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"})
    if (const std::string value = os::environment(name); !value.empty()) line += std::string(name) + "=" + value + " ";
  line += "segbench";
  for (int i = 1; i < argc; ++i) line += std::string(" ") + argv[i];
  return run_program(app, argc, argv, [&] { return segbench(chosen, o, out, line); });
}
