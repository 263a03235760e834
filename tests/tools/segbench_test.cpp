// segbench from outside, on work of seconds: that each subcommand measures, that its forms agree, and that peers are spoken to and judged. The peer
// here is a shell script: what other engines compute is no business of the tests.
#include <nlohmann/json.hpp>

#include "tensor/os.h"
#include "tests/layers/files.h"
#include "tests/tools/process.h"

namespace vg {
namespace {

using test::contains;
using test::Result;
using test::run;
using Json = nlohmann::json;

TEST(Segbench, WrongArgumentsAreUsageErrors) {
  for (const test::Words& words : {test::Words{}, {"nonsense"}, {"kernels"}, {"kernels", "--case", "nonsense"}, {"train", "--case", "mesh128"},
                                   {"train", "--case", "tiny", "--exact", "--direct"}, {"vs-peers", "--case", "tiny", "--rounds", "0"}})
    EXPECT_EQ(run("segbench", words).code, 2);
}

TEST(Segbench, PeakMeasuresArithmeticAndMemory) {
  const Result r = run("segbench", {"peak", "--quick", "-q", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(r.err.empty()) << r.err;
  const Json j = Json::parse(r.out);
  EXPECT_GT(j["multiply_add_gflops"]["one_thread"].get<double>(), 0.01);
  ASSERT_EQ(j["bandwidth_gbytes"].size(), 12u);
  for (const Json& b : j["bandwidth_gbytes"]) EXPECT_GT(b["all_threads"].get<double>(), 0.01) << b.dump();
}

TEST(Segbench, KernelsOfARealStep) {
  const Result r = run("segbench", {"kernels", "--case", "tiny", "--quick", "-q", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json j = Json::parse(r.out);
  std::map<std::string, int> calls;
  double flop = 0, before = 1e30;
  for (const Json& k : j["kernels"]) {
    const double total = k["cpu_seconds"].get<double>() * k["calls"].get<int>();
    EXPECT_LE(total, before) << "not sorted by time: " << k.dump();
    before = total;
    calls[k["kernel"]] += k["calls"].get<int>();
    if (k["kernel"] == "conv_forward") flop += k["flop"].get<double>() * k["calls"].get<int>();
    EXPECT_GT(k["bytes"].get<double>(), 0) << k.dump();
  }
  EXPECT_EQ(r.out.find("not recorded"), std::string::npos) << r.out;
  // Three blocks down and two up, two convolutions each, a head, and two transposed ones, which run conv_forward on their way back.
  EXPECT_EQ(calls["conv_forward"], 10 + 1 + 2);
  EXPECT_EQ(calls["conv_backward_weight"], 10 + 1 + 2);
  EXPECT_EQ(calls["norm_statistics"], 10);
  EXPECT_EQ(calls["norm_backward"], 10);
  EXPECT_EQ(calls["dice_ce_forward"], 1);
  EXPECT_EQ(calls["adam_step"], 1);
  // By hand: 2 * 2 samples * (16^3 (1*4 + 4*4 + 8*4 + 4*4) + 8^3 (4*6 + 6*6 + 12*6 + 6*6) + 4^3 (6*8 + 8*8)) * 27 taps; the head; back through the
  // transposed ones of 2^3 taps: 8^3 * 6*4 and 4^3 * 8*6.
  EXPECT_DOUBLE_EQ(flop, 4.0 * (27.0 * (4096 * 68 + 512 * 168 + 64 * 112) + 4096 * 12 + 8.0 * (512 * 24 + 64 * 48)));
}

TEST(Segbench, ThreadsAreModelledFromOne) {
  const Result r = run("segbench", {"threads", "--case", "tiny", "-q", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json j = Json::parse(r.out);
  EXPECT_GT(j["calls"].get<int>(), 50);
  double before = 0;
  for (const Json& t : j["threads"]) {
    const double faster = t["speedup"].get<double>();
    EXPECT_LE(faster, 1.0001 * t["workers"].get<double>()) << t.dump();
    EXPECT_GE(faster, 0.9999 * before) << "slower with more workers: " << t.dump();
    before = faster;
  }
  EXPECT_NEAR(j["threads"][0]["speedup"].get<double>(), 1.0, 1e-6);
  EXPECT_GT(before, 1.2);
}

TEST(Segbench, SpeedupWithoutAGpuReportsNoSpeedup) {
  const test::Folder folder;
  const Result r = run("segbench", {"speedup", "--cases", "tiny", "-n", "1", "-q", "--json", "--svg", folder / "s.svg"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json j = Json::parse(r.out), one = j["cases"][0];
  EXPECT_EQ(one["case"], "tiny");
  EXPECT_EQ(one["cpu_seconds"].size(), 1u);
  if (!j.contains("gpu")) {
    EXPECT_FALSE(one.contains("gpu")) << "nothing was measured";
  }
  const double fp32 = one["projected"]["fp32"].get<double>(), bf16 = one["projected"]["bf16"].get<double>();
  EXPECT_GT(bf16, 0.0);
  EXPECT_GE(fp32, 2 * 0.999 * bf16) << "twice the bytes";
  const std::string svg = test::bytes_of(folder / "s.svg");
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n")) << svg;
  EXPECT_TRUE(contains(svg, "projected bound"));
  EXPECT_EQ(run("segbench", {"speedup", "--cases", "none"}).code, 2);
}

TEST(Segbench, TrainWritesASectionAndReplacesIt) {
  const test::Folder folder;
  const std::string path = folder / "R.md";
  const Result first = run("segbench", {"train", "--case", "tiny", "-n", "2", "-q", "--markdown", path});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "parameters, input (2, 16, 16, 16, 1), 3 classes; loss ")) << first.out;
  ASSERT_EQ(run("segbench", {"peak", "--quick", "-q", "--markdown", path}).code, 0);
  ASSERT_EQ(run("segbench", {"train", "--case", "tiny", "-n", "3", "-q", "--markdown", path}).code, 0);
  ASSERT_EQ(run("segbench", {"train", "--case", "tiny", "-n", "1", "--direct", "-q", "--markdown", path}).code, 0);
  const std::string text = os::read_text(path);
  EXPECT_EQ(text.find("## train tiny\n"), text.rfind("## train tiny\n")) << text;
  EXPECT_TRUE(contains(text, "## train tiny --direct\n")) << text;
  EXPECT_LT(text.find("## train tiny"), text.find("## peak")) << text;
  EXPECT_TRUE(contains(text, "segbench train --case tiny -n 3 -q")) << text;
  EXPECT_FALSE(contains(text, "-n 2 ")) << text;
  EXPECT_TRUE(contains(text, ", commit ")) << text;
}

// Answers as a peer whose first loss is `loss` and whose every step takes 3 CPU seconds.
void write_peer(const std::string& folder, const std::string& loss) {
  os::write_file_atomic(folder + "/train_peer.py", "echo '{\"version\": \"shell\", \"loss\": " + loss +
                                                       "}'\nwhile read line; do echo '{\"seconds\": 2, \"cpu_seconds\": 3, \"rss\": 1073741824}'; done\n");
}

TEST(Segbench, PeersTakeTurnsAndTheLastLineIsTheRatio) {
  const test::Folder folder;
  const Result alone = run("segbench", {"vs-peers", "--case", "tiny", "--python", "/bin/sh", "--scripts", folder / "", "-q"});
  EXPECT_EQ(alone.code, 1);
  EXPECT_TRUE(contains(alone.err, "no peer runs with /bin/sh")) << alone.err;

  write_peer(folder / "", "2.0582");
  const Result r = run("segbench", {"vs-peers", "--case", "tiny", "--rounds", "2", "--python", "/bin/sh", "--scripts", folder / "", "--peers", "eager,bf16"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "best peer: eager\nratio ")) << r.out;
  const double ratio = std::strtod(r.out.c_str() + r.out.rfind("ratio ") + 6, nullptr);
  EXPECT_GT(ratio, 3.0) << "a step of tiny takes less than a CPU second";
  EXPECT_EQ(r.out.find('\n', r.out.rfind("ratio ")), r.out.size() - 1);

  write_peer(folder / "", "2.1");
  const Result wrong = run("segbench", {"vs-peers", "--case", "tiny", "--python", "/bin/sh", "--scripts", folder / "", "-q"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_TRUE(contains(wrong.err, "eager: first loss 2.1")) << wrong.err;
}

}  // namespace
}  // namespace vg
