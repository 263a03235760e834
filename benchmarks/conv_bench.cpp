// How fast are the cpu convolutions, in GFLOP/s and as a share of what the multipliers can do?
// Prints one CSV line per shape and pass: name, pass, best and median seconds (CPU time of all threads / threads, and wall), GFLOP/s
// (of the plain sum, whatever the algorithm) and share of peak at the median, and the largest difference from the direct sum as a part of the largest value.
// The peak is measured beside every line, because clocks and neighbours move. peers/conv_peer.py runs PyTorch on the same shapes, in turns.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "benchmarks/segbench/peak.h"
#include "kernels/conv.h"
#include "kernels/scratch.h"
#include "tensor/os.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace vg {
namespace {

struct Times {
  double cpu = 0, cpu_median = 0, wall = 0, wall_median = 0;
};

Times measure(double seconds, const std::function<void()>& work) {
  work();
  std::vector<double> cpu, wall;
  for (double total = 0; total < seconds || cpu.size() < 3;) {
    const double w = os::wall_seconds(), c = os::cpu_seconds();
    work();
    cpu.push_back((os::cpu_seconds() - c) / threads()), wall.push_back(os::wall_seconds() - w);
    total += wall.back();
  }
  std::sort(cpu.begin(), cpu.end()), std::sort(wall.begin(), wall.end());
  return {cpu[0], cpu[cpu.size() / 2], wall[0], wall[wall.size() / 2]};
}

Tensor random_tensor(Shape shape, std::uint64_t seed) {
  Tensor t(shape, DType::f32, kCpu);
  Random random(seed);
  for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.uniform(-1, 1);
  return t;
}

// "direct", "exact", "fast", "amx", or a Winograd tile such as "244".
ConvAlgorithm algorithm(const std::string& name) {
  using Allow = ConvAlgorithm::Allow;
  if (name == "direct") return {Allow::direct, {}};
  if (name == "exact") return {Allow::exact, {}};
  ConvAlgorithm a;
  if (name == "amx") std::fill_n(a.tile, 3, std::int8_t{-1});
  if (name.size() == 3 && name.find_first_not_of("124") == std::string::npos)
    for (std::size_t i = 0; i < 3; ++i) a.tile[i] = static_cast<std::int8_t>(name[i] - '0');
  return a;
}

// The largest difference from the direct sum, as a part of the largest value.
double error_of(const std::function<void(const Exec&)>& work, const Exec& ex, const Tensor& result) {
  Exec direct = ex;
  direct.convolution = {ConvAlgorithm::Allow::direct, {}};
  work(direct);
  const std::vector<float> wanted(result.data<float>(), result.data<float>() + result.elements());
  work(ex);
  double most = 0, difference = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(wanted[i])));
    difference = std::max(difference, std::abs(static_cast<double>(wanted[i]) - static_cast<double>(result.data<float>()[i])));
  }
  return difference / most;
}

void run_shape(const std::string& line, const std::string& filter, const std::string& only, double seconds, const ConvAlgorithm& how) {
  std::istringstream in(line);
  std::string name;
  std::int64_t n, d[3], i0, i1, o, k[3], s[3], dilation, transposed;
  in >> name >> n >> d[0] >> d[1] >> d[2] >> i0 >> i1 >> o >> k[0] >> k[1] >> k[2] >> s[0] >> s[1] >> s[2] >> dilation >> transposed;
  if (!in || name.find(filter) == std::string::npos) return;
  ConvParams p;
  std::int64_t out[3];
  for (int a = 0; a < 3; ++a) {
    p.stride[a] = static_cast<std::int32_t>(s[a]), p.dilation[a] = static_cast<std::int32_t>(dilation);
    p.pad[a] = transposed ? 0 : static_cast<std::int32_t>(dilation * (k[a] - 1) / 2);
    out[a] = transposed ? d[a] * s[a] : (d[a] + 2 * p.pad[a] - dilation * (k[a] - 1) - 1) / s[a] + 1;
  }
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch, nullptr, how};
  const Tensor b = random_tensor({o}, 1), none;
  Tensor x0 = random_tensor({n, d[0], d[1], d[2], i0}, 2), x1 = i1 ? random_tensor({n, d[0], d[1], d[2], i1}, 3) : none;
  Tensor y = random_tensor({n, out[0], out[1], out[2], o}, 4);
  const Tensor w = random_tensor(transposed ? Shape{i0, o, k[0], k[1], k[2]} : Shape{o, i0 + i1, k[0], k[1], k[2]}, 5);
  Tensor dx0 = x0, dx1 = x1, dw = random_tensor(w.shape(), 6);
  const double voxels = static_cast<double>(transposed ? n * d[0] * d[1] * d[2] : y.shape().n() * y.shape().voxels());
  const double flop = 2 * voxels * static_cast<double>(k[0] * k[1] * k[2] * (i0 + i1) * o);
  struct Pass {
    const char* name;
    const Tensor& result;
    std::function<void(const Exec&)> work;
  };
  std::vector<Pass> passes;
  if (transposed) {
    passes.push_back({"forward", y, [&](const Exec& e) { conv_backward_data(e, Grad{y}, Grad{}, x0, w, b, p); }});
    passes.push_back({"data", dx0, [&](const Exec& e) { conv_forward(e, dx0, y, none, w, none, p); }});
    passes.push_back({"weight", dw, [&](const Exec& e) { conv_backward_weight(e, Grad{dw}, x0, y, none, p); }});
  } else {
    passes.push_back({"forward", y, [&](const Exec& e) { conv_forward(e, y, x0, x1, w, b, p); }});
    if (i0 > 1) passes.push_back({"data", dx0, [&](const Exec& e) { conv_backward_data(e, Grad{dx0}, Grad{dx1}, y, w, none, p); }});
    passes.push_back({"weight", dw, [&](const Exec& e) { conv_backward_weight(e, Grad{dw}, y, x0, x1, p); }});
  }
  for (const Pass& pass : passes) {
    if (only.size() && only != pass.name) continue;
    const double before = bench::multiply_add_peak(true);
    const Times t = measure(seconds, [&] { pass.work(ex); });
    const double error = error_of(pass.work, ex, pass.result);
    const double top = (before + bench::multiply_add_peak(true)) / 2, rate = flop / t.cpu_median * 1e-9;
    std::printf("%s,%s,%.6f,%.6f,%.6f,%.6f,%.1f,%.1f,%.1e\n", name.c_str(), pass.name, t.cpu, t.cpu_median, t.wall, t.wall_median, rate,
                100 * rate / top, error);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace vg

int main(int argc, char** argv) {
  std::string shapes = "benchmarks/conv_shapes.txt", filter, only, how = "fast";
  double seconds = 0.3;
  int threads = 0;
  CLI::App app("Times the cpu convolutions beside the machine's measured peak.", "conv_bench");
  app.add_option("shapes", shapes, "list of layers")->capture_default_str();
  app.add_option("-f", filter, "only lines that contain this");
  app.add_option("-p", only, "only this pass");
  app.add_option("-s", seconds, "seconds per measurement")->capture_default_str();
  app.add_option("-a", how, "direct, exact, fast, or a Winograd tile such as 244")->capture_default_str();
  app.add_option("-t", threads, "threads (default: all)");
  CLI11_PARSE(app, argc, argv);
  if (threads > 0) vg::set_threads(threads);
  std::ifstream file(shapes);
  if (!file) return std::fprintf(stderr, "conv_bench: cannot read %s\n", shapes.c_str()), 1;
  std::puts("name,pass,cpu,cpu_median,wall,wall_median,gflops,percent_of_peak,error");
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#') vg::run_shape(line, filter, only, seconds, vg::algorithm(how));
  return 0;
}
