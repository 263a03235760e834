// segbench vs-peers: our side and other engines in turns. Each peer is a script of benchmarks/peers that stays alive: it prepares, answers one line of
// JSON, and then does one repetition for every line that it is told, answering {"seconds", "cpu_seconds", "rss"}. Start-up, compilation and warming
// up are not counted for anybody.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#include "benchmarks/segbench/child.h"
#include "benchmarks/segbench/commands.h"
#include "benchmarks/segbench/timing.h"
#include "tensor/error.h"

namespace vg::bench {
namespace {

constexpr double kPatience = 1200;     // seconds that a peer may be silent: torch.compile tunes for minutes
constexpr double kHopeless = 1.6;      // a peer that takes so many times the best peer's seconds in the first round is not asked again
constexpr double kMostLabels = 1e-4;   // part of the voxels whose label may differ from a peer's

struct Peer {
  std::string name;
  Words command;
  std::unique_ptr<Child> child;
  std::string remark;   // why it does not run, or how its results differ
  Samples samples;
  double rss = 0;
  bool running = true;
};

// What both sides work on, and how their results are compared.
struct Work {
  std::function<void()> run;                               // our repetition
  std::function<std::string(const nlohmann::json&)> check;  // of a peer's first answer; throws numeric
  bool resident = true;  // may all peers stay in memory together?
};

std::string check_labels(const std::vector<std::uint8_t>& ours, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> theirs(ours.size());
  file.read(theirs.data(), static_cast<std::streamsize>(theirs.size()));
  if (static_cast<std::size_t>(file.gcount()) != ours.size()) fail(ErrorCode::bad_file, "{}: {} bytes of labels, wanted {}", path, file.gcount(), ours.size());
  std::size_t different = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) different += static_cast<std::uint8_t>(theirs[i]) != ours[i];
  const std::string text = fmt::format("{} of {} labels differ", different, ours.size());
  if (static_cast<double>(different) > kMostLabels * static_cast<double>(ours.size())) fail(ErrorCode::numeric, "{}", text);
  return text;
}

std::string check_loss(double ours, double theirs, double tolerance) {
  const std::string text = fmt::format("first loss {:.6f}, ours {:.6f}", theirs, ours);
  if (!(std::fabs(ours - theirs) <= tolerance * std::fabs(ours))) fail(ErrorCode::numeric, "{}", text);
  return text;
}

// Starts the peer and compares its first result with ours. false: it cannot run here, `remark` says why. Throws where it computes something else.
bool start(Peer& p, const Work& work, const Options& o) {
  o.say("starting " + p.name);
  p.child = std::make_unique<Child>(p.command, o.loud);
  nlohmann::json j;
  try {
    j = p.child->answer(kPatience);
  } catch (const Error& e) {
    j = {{"error", e.what()}};
  }
  if (j.contains("error")) {
    p.remark = "does not run: " + j["error"].get<std::string>().substr(0, 120), p.running = false, p.child.reset();
    return false;
  }
  try {
    p.remark = work.check(j);
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", p.name, e.what());
  }
  p.remark = j.value("version", "") + ", " + p.remark;
  return true;
}

void take_turn(Peer& p, const Work& work, const Options& o) {
  if (!p.child && !start(p, work, o)) return;
  p.child->tell("go");
  const nlohmann::json j = p.child->answer(kPatience);
  if (j.contains("error")) fail(ErrorCode::io, "{}: {}", p.name, j["error"].get<std::string>());
  p.samples.add({j.at("seconds").get<double>(), j.at("cpu_seconds").get<double>()});
  p.rss = std::max(p.rss, j.at("rss").get<double>());
  o.say(fmt::format("{}: {:.2f} s, cpu {:.2f} s", p.name, p.samples.wall.back(), p.samples.cpu.back() / threads()));
  if (!work.resident) p.child.reset();
}

std::vector<double> ratios(const std::vector<double>& theirs, const std::vector<double>& ours) {
  std::vector<double> r;
  for (std::size_t i = 0; i < theirs.size(); ++i) r.push_back(theirs[i] / ours[i]);
  return r;
}

Report report(const Options& o, const Samples& ours, const std::vector<Peer>& peers, const std::string& what) {
  Report r;
  r.title = "vs-peers " + o.name;
  r.columns = {"", "rounds", "cpu min", "cpu median", "wall min", "wall median", "GiB", "ratio: cpu min", "cpu", "wall min", "wall"};
  const auto row = [&](const std::string& name, const Samples& s, double rss, bool peer) {
    std::vector<std::string> cells = {name, std::to_string(s.wall.size())};
    for (const double v : {least(s.cpu) / threads(), median(s.cpu) / threads(), least(s.wall), median(s.wall)}) cells.push_back(fmt::format("{:.3f} s", v));
    cells.push_back(fmt::format("{:.2f}", rss / 1073741824.0));
    const auto ratio = [&](double v) { cells.push_back(peer ? fmt::format("{:.2f}", v) : ""); };
    ratio(least(s.cpu) / least(ours.cpu)), ratio(median(ratios(s.cpu, ours.cpu)));
    ratio(least(s.wall) / least(ours.wall)), ratio(median(ratios(s.wall, ours.wall)));
    r.rows.push_back(std::move(cells));
  };
  const auto own = static_cast<double>(os::peak_resident_bytes());
  row("voxgrad", ours, own, false);
  Json items = Json::array({{{"name", "voxgrad"}, {"wall_seconds", ours.wall}, {"cpu_seconds", ours.cpu}, {"rss", own}}});
  double best = 0;
  std::string name;
  for (const Peer& p : peers) {
    if (!p.remark.empty()) r.notes.push_back(p.name + ": " + p.remark);
    items.push_back({{"name", p.name}, {"wall_seconds", p.samples.wall}, {"cpu_seconds", p.samples.cpu}, {"rss", p.rss}, {"remark", p.remark}});
    if (p.samples.cpu.empty()) continue;
    row(p.name, p.samples, p.rss, true);
    const double ratio = median(ratios(p.samples.cpu, ours.cpu));
    if (p.running && (name.empty() || ratio < best)) best = ratio, name = p.name;
  }
  r.notes.insert(r.notes.begin(), what + "; cpu: seconds of all threads / threads; ratios: theirs / ours of the same round, median over the rounds (min: of the minima)");
  if (name.empty()) fail(ErrorCode::unsupported, "vs-peers: no peer runs with {}: {}", o.python, peers.empty() ? "none chosen" : peers[0].remark);
  r.notes.push_back("best peer: " + name);
  r.last = fmt::format("ratio {:.2f}", best);
  r.data = {{"case", o.name}, {"sides", items}, {"best_peer", name}, {"ratio", best}, {"threads", threads()}};
  return r;
}

}  // namespace

Report vs_peers(const Options& o) {
  const bool train = is_train_case(o.name);
  const TemporaryFolder folder;
  Work work;
  std::unique_ptr<TrainCase> training;
  std::unique_ptr<InferCase> inference;
  std::string what;
  o.say("preparing " + o.name);
  if (train) {
    training = std::make_unique<TrainCase>(o.name, o);
    training->export_to(folder.path());
    const double first = static_cast<double>(training->step());
    what = training->describe();
    work.run = [&] { training->step(); };
    work.check = [first](const nlohmann::json& j) { return check_loss(first, j.at("loss").get<double>(), j.value("tolerance", 1e-3)); };
  } else {
    inference = std::make_unique<InferCase>(o.name, o);
    inference->run();
    what = inference->describe();
    work.run = [&] { inference->run(); };
    work.check = [&](const nlohmann::json& j) { return check_labels(inference->labels(), j.at("labels").get<std::string>()); };
    work.resident = o.name == "mesh128";  // every engine takes 6 to 8 GiB there
  }
  std::vector<std::string> names = o.peers;
  if (names.empty())
    names = train ? std::vector<std::string>{"eager", "channels_last", "bf16"}
                  : std::vector<std::string>{"eager", "channels_last", "compile", "onnxruntime", "openvino", "openvino_latency"};
  std::vector<Peer> peers;
  for (const std::string& name : names) {
    Peer p;
    p.name = name;
    p.command = {o.python, o.scripts + (train ? "/train_peer.py" : "/infer_peer.py"), "--peer", name, "--case", o.name == "mesh256_head" ? "mesh256" : o.name, "--files", folder.path(),
                 "--data", data_folder(o), "--threads", std::to_string(threads())};
    peers.push_back(std::move(p));
  }
  if (work.resident)
    for (Peer& p : peers) start(p, work, o);
  Samples ours;
  for (int round = 0; round < o.rounds; ++round) {
    o.say(fmt::format("round {} of {}", round + 1, o.rounds));
    ours.add(timed(work.run));
    o.say(fmt::format("voxgrad: {:.2f} s, cpu {:.2f} s", ours.wall.back(), ours.cpu.back() / threads()));
    for (Peer& p : peers)
      if (p.running) take_turn(p, work, o);
    if (round > 0 || o.rounds < 2) continue;
    double best = 1e30;
    for (const Peer& p : peers)
      if (p.running) best = std::min(best, p.samples.cpu.at(0));
    for (Peer& p : peers)
      if (p.running && p.samples.cpu.at(0) > kHopeless * best) p.running = false, p.child.reset(), p.remark += "; left after a round";
  }
  return report(o, ours, peers, what);
}

}  // namespace vg::bench
