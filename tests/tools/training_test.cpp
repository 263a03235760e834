// segtrain as a process that is interrupted, killed and started again: whatever happens to it, the last checkpoint's bits are those of a run that
// nothing happened to.
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "layers/json.h"
#include "tests/layers/files.h"
#include "tests/tools/process.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Process;
using test::Result;
using test::run;
using test::Words;

class Training : public testing::Test {
 protected:
  Training() {
    test::put_bytes(folder_ / "c.json", R"({"network": {"features": [6, 10, 12]}, "batch": 3, "epochs": 6, "seed": 5,
      "augment": {"flip": true, "intensity": 0.5, "noise": 0.5, "affine": 0.5}})");
  }
  // 6 epochs of 2 steps on pictures of 48 x 40; one line of JSON a step and an epoch.
  Words arguments(const std::string& run_folder, Words more = {}) const {
    Words a = {"--phantom",          "--phantoms", "6",   "--grid",     "48",  "40", "--spacing", "0", "--config", folder_ / "c.json", "-o",
               folder_ / run_folder, "--device",   "cpu", "--progress", "json"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }
  std::string bits(const std::string& run_folder) const { return test::bytes_of(folder_ / (run_folder + "/last.safetensors")); }
  // The checkpoint of a run that nothing happened to.
  const std::string& wanted() {
    if (wanted_.empty()) {
      const Result r = run("segtrain", arguments("straight"));
      EXPECT_EQ(r.code, 0) << r.err;
      wanted_ = bits("straight");
      EXPECT_GT(wanted_.size(), 1000u);
    }
    return wanted_;
  }
  // Starts or continues, whichever the folder asks for.
  Words again(const std::string& run_folder) const {
    return arguments(run_folder, fs::exists(folder_ / (run_folder + "/last.safetensors")) ? Words{"--resume"} : Words{});
  }
  test::Folder folder_;
  std::string wanted_;
};

TEST_F(Training, TheNumberOfThreadsLeavesNoTrace) {
  for (const char* threads : {"1", "2", "3"}) {
    const std::string name = std::string("t") + threads;
    EXPECT_EQ(run("segtrain", arguments(name, {"-t", threads})).code, 0);
    EXPECT_TRUE(bits(name) == wanted()) << threads;
  }
}

TEST_F(Training, InterruptedItSavesAndSaysSo) {
  for (const auto& [number, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    Result r;
    std::string name;
    for (int attempt = 0; r.code != code && attempt < 5; ++attempt) {  // on a busy machine it may be done before the signal comes
      name = fmt::format("run{}_{}", code, attempt);
      Words plain = arguments(name);
      plain.resize(plain.size() - 2);  // the words for people instead of JSON
      Process p("segtrain", plain);
      while (!fs::exists(folder_ / (name + "/last.safetensors"))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      p.signal(number);
      r = p.wait();
    }
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_TRUE(contains(r.err, "stopped and saved")) << r.err;
    r = run("segtrain", again(name));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(bits(name) == wanted()) << code;
  }
}

TEST_F(Training, KilledAtAnyMomentItEndsWithTheSameBits) {
  wanted();
  std::mt19937 random(7);
  int killed = 0;
  for (int sequence = 0; sequence < 2; ++sequence) {
    const std::string name = "killed" + std::to_string(sequence);
    for (int attempt = 0; attempt < 8; ++attempt) {
      Process p("segtrain", again(name));
      // After some lines, and a moment that falls into a step, a validation, or the writing of a file.
      p.read_lines(static_cast<int>(random() % 5));
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 15000));
      p.signal(SIGKILL);
      const Result r = p.wait();
      if (r.code == 0) break;
      EXPECT_EQ(r.code, 128 + SIGKILL) << r.err;
      ++killed;
    }
    const Result r = run("segtrain", again(name));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(bits(name) == wanted());
    for (const auto& entry : fs::directory_iterator(folder_ / name)) EXPECT_FALSE(contains(entry.path().string(), ".tmp-")) << entry.path();
  }
  EXPECT_GE(killed, 3) << "it was always too fast: nothing was tested";
}

TEST_F(Training, ATimeLimitSavesAndTheRestFollows) {
  const Result r = run("segtrain", arguments("run", {"--time-limit", "0.000001"}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;  // one step
  EXPECT_EQ(run("segtrain", again("run")).code, 0);
  EXPECT_TRUE(bits("run") == wanted());
}

TEST_F(Training, ARunFolderIsProtected) {
  Process first("segtrain", arguments("run", {"--epochs", "10000"}));
  ASSERT_TRUE(first.read_lines(3));
  Result r = run("segtrain", arguments("run", {"--resume"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "another training run is writing there")) << r.err;
  first.signal(SIGINT);
  EXPECT_EQ(first.wait().code, 130);

  const std::string before = bits("run");
  r = run("segtrain", arguments("run"));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "--resume")) << r.err;
  r = run("segtrain", arguments("run", {"--resume", "--rate", "0.5"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "was started with")) << r.err;
  EXPECT_EQ(bits("run"), before);
  r = run("segtrain", arguments("nothing", {"--resume"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "no last.safetensors")) << r.err;
}

TEST_F(Training, ARateThatIsTooHighNamesTheStep) {
  const Result r = run("segtrain", arguments("run", {"--rate", "1e30", "-q"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "step ")) << r.err;
  EXPECT_TRUE(contains(r.err, "lower rate")) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
}

TEST_F(Training, QuietMeansQuietAndJsonIsJson) {
  Words quiet = arguments("quiet", {"--steps", "2", "-q"});
  quiet.erase(std::find(quiet.begin(), quiet.end(), "--progress"), std::find(quiet.begin(), quiet.end(), "json") + 1);
  Result r = run("segtrain", quiet);
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out + r.err, "");
  r = run("segtrain", arguments("json", {"--steps", "2"}));
  EXPECT_EQ(r.err, "");
  std::istringstream lines(r.out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_TRUE(parse_json(line, "progress").contains(count < 2 ? "loss" : "epoch")) << line;
  EXPECT_EQ(count, 3);
  r = run("segtrain", arguments("plan", {"--plan", "-q"}));
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.out, "parameters")) << r.out;
  EXPECT_FALSE(fs::exists(folder_ / "plan"));
}

TEST_F(Training, AGivenOrderMustFitTheBatches) {
  test::put_bytes(folder_ / "good.json",
                  R"([["phantom_000", "phantom_001", "phantom_002"], ["phantom_003", "phantom_003", "phantom_005"]])");
  EXPECT_EQ(run("segtrain", arguments("good", {"--steps", "2", "--order", folder_ / "good.json"})).code, 0);
  const std::pair<const char*, const char*> bad[] = {{R"([["phantom_000", "phantom_001"]])", "wanted 3 names"},
                                                     {R"([["phantom_000", "phantom_001", "nobody"]])", "nobody"},
                                                     {R"([["phantom_000", "phantom_001", 7]])", "7"},
                                                     {R"({"a": 1})", "wanted 3 names"}};
  for (const auto& [text, word] : bad) {
    test::put_bytes(folder_ / "bad.json", text);
    const Result r = run("segtrain", arguments("bad", {"--steps", "1", "--order", folder_ / "bad.json"}));
    EXPECT_EQ(r.code, 1) << text;
    EXPECT_TRUE(contains(r.err, word) && contains(r.err, "bad.json")) << r.err;
  }
}

}  // namespace
}  // namespace vg
