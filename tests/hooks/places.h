// From addresses in this program's code to lines of source: addr2line asked once for many. For the tests of the hooks build.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vg::test {

struct Frame {
  std::string function, file;  // "vg::sim::norm_apply_kernel<4>(...)", "kernels/norm.cu"
  int line = 0;
};
// For each address: the line itself, then those into which it was inlined, the kernel last.
std::vector<std::vector<Frame>> frames_of(const std::vector<std::uintptr_t>& addresses);

// The names of all functions in this program that are called like a kernel: vg::sim::..._kernel.
std::vector<std::string> compiled_kernels();

// "kernels/device.cuh:45 in kernels/norm.cu:88"
std::string describe(const std::vector<Frame>& frames);

}  // namespace vg::test
