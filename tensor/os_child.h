// Work that may crash, hang or eat all memory (other people's decoders on strangers' bytes) runs in a forked child under limits; what it writes
// arrives here. A crash over there is a sentence here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace vg::os {

struct ChildLimits {
  std::uint64_t memory = std::uint64_t{1} << 30;  // bytes of address space beyond what is mapped at the fork
  int cpu_seconds = 60;
  double silence_seconds = 60;  // without a byte written
};
using ChildWrite = std::function<void(const void* data, std::size_t bytes)>;

// Runs `work(write)` in a child whose standard output and error are closed, which cannot write files and leaves no core. The bytes that it writes
// come to `take` in pieces of any size; an exception from `take` ends the child and passes on. Returns "" when `work` came to its end, else why
// not: "ended by signal 11 (Segmentation fault)", "used more than 60 s of processor time", "said nothing for 60 s", "ran out of memory",
// "failed". Under the address and thread sanitizers the memory limit is not set. Throws io if no process can be made.
std::string run_in_child(const ChildLimits& limits, const std::function<void(const ChildWrite&)>& work,
                         const std::function<void(std::span<const std::byte>)>& take);

}  // namespace vg::os
