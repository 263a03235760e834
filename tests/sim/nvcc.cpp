// The kernels of every_spelling.cu also compile with NVIDIA's compiler, where there is one.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace {

TEST(Nvcc, TakesEverySpelling) {
  std::string nvcc;
  for (const char* candidate : {"nvcc", "/usr/local/cuda/bin/nvcc"})
    if (nvcc.empty() && std::system(("command -v " + std::string(candidate) + " > /dev/null 2>&1").c_str()) == 0) nvcc = candidate;
  if (nvcc.empty()) GTEST_SKIP() << "no nvcc";
  const std::string root = VG_SOURCE_DIR;
  const std::string command =
      nvcc + " -std=c++20 -arch=sm_80 --expt-relaxed-constexpr -DVG_SLOT_CUDA=1 -Werror all-warnings -Xcompiler=-Wall -O1 -I" + root +
      " -c " + root + "/tests/sim/every_spelling.cu -o /dev/null";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

}  // namespace
