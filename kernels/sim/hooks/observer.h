// The one observer of a hooks build: state shared by the files of this folder.
#pragma once
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernels/sim/executor.h"
#include "kernels/sim/hooks/hooks.h"
#include "kernels/sim/hooks/shadow.h"
#include "kernels/sim/vectors.h"

namespace vg::simt::hooks {

inline constexpr int kWarps = 32, kLanes = 32;

enum class Kind : std::uint8_t { read, write, atomic };

// One request of a warp: the k-th access that its lanes made at one place since they were last together.
struct WarpRequest {
  std::uintptr_t address[kLanes];
  unsigned lanes = 0;
};
struct OpenSite {  // one place of the code, one warp
  std::uint32_t count[kLanes] = {};
  std::vector<WarpRequest> requests;
  bool open = false;
};

class Observer {
 public:
  void access(const void* address, std::size_t bytes, Kind kind, std::uintptr_t place);
  // Of one thread of the running block; counted: as traffic, too.
  void thread_access(int thread, const void* address, std::size_t bytes, Kind kind, std::uintptr_t place, bool counted = true);
  std::uintptr_t named_place(const char* file, int line);

  std::uint64_t blocks_to_run(std::uint64_t blocks);
  void begin_launch(const Launch& launch);
  void end_launch();
  void begin_block(uint3 block, char* dynamic_shared);
  void end_block();
  void place_shared(const SharedArray& array, char* data);
  void block_synchronised();
  void warp_asked(int warp, unsigned mask, Collective what);
  bool left_out(const Request& request);
  bool left_out(const char* file, int line, const char* what);

  void add_buffer(void* data, std::size_t bytes);
  void allow_virtual(void* data, std::size_t bytes);
  void remove_buffer(void* data);
  void mark(const void* data, std::size_t bytes, unsigned char written);

  std::recursive_mutex mutex;  // held for a whole launch
  std::vector<Report> reports;
  std::vector<Traffic> sites;  // index: site number; 0 unused
  std::map<const void*, LaunchShapes> launched;
  std::map<std::string, const char*> barriers_reached;
  std::vector<std::string> places;                             // named ones
  std::map<std::pair<const char*, int>, bool> barrier_places;  // by the compiler's constants: is it the one to be left out?
  std::string omit;
  std::uint64_t most_blocks = 0;  // of a launch; 0: all
  std::int64_t omitted = 0;

 private:
  Region* find(const char* p);
  std::string where(const char* p, std::size_t bytes) const;
  std::uint32_t site_number(std::uintptr_t place, bool shared, Kind kind, int bytes);
  void record(std::uint32_t site, std::uintptr_t address);
  void flush(int warp);
  void count(Traffic& t, const WarpRequest& r) const;
  void check_written(Region& r, const char* p, std::size_t bytes, std::uintptr_t place);
  void check_races(Region& r, const char* p, std::size_t bytes, Kind kind);
  bool ordered(const Access& before) const;
  void collide(const Access& before, const char* was, const char* is, const char* p);
  void report(Finding what, std::uintptr_t place, std::uintptr_t other, const std::string& text);
  std::string who(std::uint32_t block, int thread) const;

  std::map<const char*, Region> buffers_;  // by first byte
  std::vector<Region> shared_;             // of the running block
  Region* last_ = nullptr;
  const Launch* launch_ = nullptr;
  uint3 block_{0, 0, 0};
  std::int64_t accesses_ = 0;                    // of this launch
  std::uint32_t serial_ = 0, first_serial_ = 1;  // of the block; of this launch's first
  std::uint32_t barriers_ = 0, warp_syncs_[kWarps] = {};
  unsigned warp_mask_[kWarps] = {};  // who took part in the last __syncwarp
  Access now_;
  std::unordered_map<std::uint64_t, std::uint32_t> numbers_;
  std::map<std::pair<const char*, int>, std::uintptr_t> named_;
  std::vector<OpenSite> open_[kWarps];
  std::vector<std::uint32_t> touched_[kWarps];
};

Observer& observer();

}  // namespace vg::simt::hooks
