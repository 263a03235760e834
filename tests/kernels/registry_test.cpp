// Every kernel must run on cpu and on sim, and some test file must cover it: a new kernel without a test fails here.
#include <algorithm>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

TEST(Registry, KernelsAreListedByName) {
  const auto kernels = all_kernels();
  ASSERT_GE(kernels.size(), 25u);
  EXPECT_TRUE(std::is_sorted(kernels.begin(), kernels.end(), [](auto* a, auto* b) { return std::string(a->name()) < b->name(); }));
}

TEST(Registry, EveryKernelHasACpuAndASimImplementation) {
  for (const KernelBase* kernel : all_kernels()) {
    EXPECT_TRUE(kernel->implemented(DeviceKind::cpu)) << kernel->name();
    EXPECT_TRUE(kernel->implemented(DeviceKind::sim)) << kernel->name();
  }
}

TEST(Registry, EveryKernelIsCoveredByATest) {
  std::set<std::string> known;
  for (const KernelBase* kernel : all_kernels()) {
    known.insert(kernel->name());
    EXPECT_TRUE(covered_kernels().count(kernel->name())) << kernel->name() << " has no VG_COVERS in tests/kernels";
  }
  for (const std::string& name : covered_kernels()) EXPECT_TRUE(known.count(name)) << name << " is covered but does not exist";
}

}  // namespace
}  // namespace vg::test
