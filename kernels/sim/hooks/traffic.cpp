// Memory traffic as a GPU would make it of the lanes' accesses. A request is what the lanes of a warp did at one place in the code for the k-th time
// since they were last together (a barrier, a shuffle): the lanes run one after the other here, so this puts together what a GPU issues at once.
#include <algorithm>
#include <bit>

#include "kernels/sim/hooks/observer.h"

namespace vg::simt::hooks {
namespace {

constexpr std::uintptr_t kSector = 32;  // bytes: what the second-level cache moves
constexpr int kBanks = 32;              // of 4 bytes

// How many different values of address / unit the accesses of `bytes` each touch.
std::int64_t different(const WarpRequest& r, int bytes, std::uintptr_t unit) {
  std::uintptr_t touched[kLanes * 64];
  int n = 0;
  for (unsigned rest = r.lanes; rest; rest &= rest - 1) {
    const std::uintptr_t first = r.address[std::countr_zero(rest)];
    for (std::uintptr_t u = first / unit; u <= (first + static_cast<std::uintptr_t>(bytes) - 1) / unit && n < kLanes * 64; ++u)
      touched[n++] = u;
  }
  std::sort(touched, touched + n);
  return std::unique(touched, touched + n) - touched;
}

// A wavefront serves one word of each bank. Lanes go in order, in groups of 32 (4 bytes each), 16 (8 bytes) or 8 (16 bytes); a group that fits into
// the wavefront of the one before (broadcasts) joins it.
std::int64_t wavefronts(const WarpRequest& r, int bytes) {
  const int group = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  std::int64_t total = 0;
  std::vector<std::uintptr_t> open;  // words of the current wavefronts
  const auto depth = [](const std::vector<std::uintptr_t>& words) {
    int most = 0, load[kBanks] = {};
    for (const std::uintptr_t w : words) most = std::max(most, ++load[w % kBanks]);
    return most;
  };
  int open_depth = 0;
  for (int first = 0; first < kLanes; first += group) {
    std::vector<std::uintptr_t> words;
    for (int lane = first; lane < first + group; ++lane)
      if (r.lanes >> lane & 1)
        for (std::uintptr_t w = r.address[lane] / 4; w <= (r.address[lane] + static_cast<std::uintptr_t>(bytes) - 1) / 4; ++w)
          words.push_back(w);
    if (words.empty()) continue;
    std::vector<std::uintptr_t> both = open;
    both.insert(both.end(), words.begin(), words.end());
    for (auto* list : {&words, &both}) {
      std::sort(list->begin(), list->end());
      list->erase(std::unique(list->begin(), list->end()), list->end());
    }
    if (!open.empty() && depth(both) == open_depth) {
      open = std::move(both);
      continue;
    }
    total += open_depth;
    open = std::move(words);
    open_depth = depth(open);
  }
  return total + open_depth;
}

}  // namespace

std::uint32_t Observer::site_number(std::uintptr_t place, bool shared, Kind kind, int bytes) {
  const std::uint64_t key = (place * 0x9e3779b97f4a7c15u) ^ (reinterpret_cast<std::uintptr_t>(launch_->function) << 8) ^
                            (static_cast<std::uint64_t>(bytes) << 56) ^ (shared ? 2u : 0u) ^ static_cast<std::uint64_t>(kind);
  const auto [at, is_new] = numbers_.try_emplace(key, 0);
  if (is_new) {
    if (sites.empty()) sites.resize(1);
    at->second = static_cast<std::uint32_t>(sites.size());
    sites.push_back({launch_->function, place, shared, kind == Kind::write, kind == Kind::atomic, bytes, 0, 0, 0, 0});
  }
  return at->second;
}

void Observer::record(std::uint32_t site, std::uintptr_t address) {
  const int warp = now_.thread / kLanes, lane = now_.thread % kLanes;
  std::vector<OpenSite>& all = open_[warp];
  if (site >= all.size()) all.resize(std::max<std::size_t>(sites.size(), site + 1));
  OpenSite& s = all[site];
  if (!s.open) {
    s.open = true;
    touched_[warp].push_back(site);
  }
  const std::uint32_t k = s.count[lane]++;
  if (k >= s.requests.size()) s.requests.resize(k + 1);
  s.requests[k].address[lane] = address;
  s.requests[k].lanes |= 1u << lane;
}

void Observer::flush(int warp) {
  for (const std::uint32_t site : touched_[warp]) {
    OpenSite& s = open_[warp][site];
    for (const WarpRequest& r : s.requests) count(sites[site], r);
    s.requests.clear();
    std::fill_n(s.count, kLanes, 0u);
    s.open = false;
  }
  touched_[warp].clear();
}

void Observer::count(Traffic& t, const WarpRequest& r) const {
  ++t.requests;
  t.lanes += std::popcount(r.lanes);
  if (t.shared) {
    t.moved += wavefronts(r, t.bytes);
    t.ideal += (different(r, t.bytes, 4) + kBanks - 1) / kBanks;
  } else {
    t.moved += different(r, t.bytes, kSector);
    t.ideal += (different(r, t.bytes, 1) + static_cast<std::int64_t>(kSector) - 1) / static_cast<std::int64_t>(kSector);
  }
}

std::vector<Traffic> traffic() {
  const std::lock_guard lock(observer().mutex);
  const auto& all = observer().sites;
  return all.empty() ? all : std::vector<Traffic>(all.begin() + 1, all.end());
}

}  // namespace vg::simt::hooks
