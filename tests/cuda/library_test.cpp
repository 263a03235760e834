// Libraries found at run time, and the cache of plans: who is asked, what is kept, what is said when there is nobody.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "kernels/cuda/conv_library.h"
#include "kernels/cuda/library.h"
#include "tensor/error.h"
#include "tests/layers/files.h"

namespace vg::test {
namespace {

using gpu::find_plan;
using gpu::plan_statistics;
using Engine = ConvAlgorithm::Engine;

TEST(Library, IsLookedForWhereItMayBe) {
  const Folder folder;
  const std::string lib = std::string(folder / "lib") + "/python3.11/site-packages/nvidia/cudnn/lib";
  std::filesystem::create_directories(lib);
  ::setenv("VIRTUAL_ENV", (folder / "").c_str(), 1);
  const std::vector<std::string> folders = gpu::library_folders({"cuDNN 9", "libcudnn.so.9", "VG_TEST_LIBRARY", {"cudnn", "cu13"}});
  ::unsetenv("VIRTUAL_ENV");
  ASSERT_GE(folders.size(), 2u);
  EXPECT_EQ(folders[0], "");
  EXPECT_TRUE(std::filesystem::equivalent(folders[1], lib)) << folders[1];
  ::setenv("VG_TEST_LIBRARY", "/nowhere", 1);
  EXPECT_EQ(gpu::library_folders({"x", "x.so", "VG_TEST_LIBRARY", {}}), std::vector<std::string>{"/nowhere"});
  void* handle = nullptr;
  std::string path;
  const std::string why = gpu::open_library({"cuDNN 9", "libcudnn.so.9", "VG_TEST_LIBRARY", {"cudnn"}}, {}, &handle, &path);
  ::unsetenv("VG_TEST_LIBRARY");
  EXPECT_EQ(handle, nullptr);
  EXPECT_EQ(why, "no cuDNN 9: /nowhere/libcudnn.so.9: cannot open shared object file: No such file or directory");
}

TEST(Library, FillsItsTableOrSaysWhatIsMissing) {
  void *version = nullptr, *nothing = nullptr, *handle = nullptr;
  std::string path;
  const gpu::LibraryName zlib{"zlib", "libz.so.1", "VG_TEST_LIBRARY", {}};
  EXPECT_EQ(gpu::open_library(zlib, {{"zlibVersion", &version}}, &handle, &path), "");
  EXPECT_NE(handle, nullptr);
  EXPECT_EQ(path, "libz.so.1");
  EXPECT_EQ(reinterpret_cast<const char* (*)()>(version)()[0], '1');
  const std::string why = gpu::open_library(zlib, {{"zlibVersion", &version}, {"zlibConvolve", &nothing}}, &handle, &path);
  EXPECT_EQ(why.rfind("no zlib: libz.so.1: it has no zlibConvolve", 0), 0u) << why;
  EXPECT_EQ(handle, nullptr);
}

gpu::ConvProblem problem(std::int64_t inputs, std::int64_t outputs, std::int32_t kernel = 3) {
  gpu::ConvProblem p;
  p.samples = 1, p.inputs = inputs, p.outputs = outputs;
  for (int a = 0; a < 3; ++a) p.in[a] = p.out[a] = 9, p.kernel[a] = kernel, p.stride[a] = p.dilation[a] = 1, p.pad[a] = kernel / 2;
  return p;
}

TEST(Plans, AreMadeOncePerProblem) {
  const gpu::PlanStatistics before = plan_statistics();
  const auto first = find_plan(problem(16, 32), Engine::automatic);
  ASSERT_TRUE(first);
  EXPECT_EQ(find_plan(problem(16, 32), Engine::automatic), first);
  EXPECT_EQ(find_plan(problem(16, 32), Engine::library), first);
  // Whatever could change the answer makes another problem.
  std::vector<gpu::ConvProblem> others(14, problem(16, 32));
  others[0].pass = gpu::ConvProblem::Pass::data, others[1].add = true, others[2].nondeterministic = true, others[3].exact = true, others[4].device = 1;
  others[5].samples = 2, others[6].out[2] = 8, others[7].stride[0] = 2, others[8].dilation[1] = 2;
  others[9].type = others[9].w_type = DType::bf16, others[10].type = others[10].w_type = DType::f16, others[11].tf32 = true, others[12].bias = true;
  others[13].activation = ActivationKind::relu;
  for (const gpu::ConvProblem& p : others) EXPECT_NE(find_plan(p, Engine::automatic), first) << to_string(p);
  const gpu::PlanStatistics after = plan_statistics();
  EXPECT_EQ(after.made - before.made, 15);
  EXPECT_EQ(after.found - before.found, 2);
  EXPECT_EQ(after.refused, before.refused);
}

TEST(Plans, TheChoice) {
  EXPECT_FALSE(find_plan(problem(16, 32), Engine::native)) << "native is native";
  EXPECT_TRUE(gpu::library_may(Engine::automatic, 16, 16));
  EXPECT_FALSE(gpu::library_may(Engine::automatic, 15, 32)) << "a narrow layer stays with our kernels";
  EXPECT_FALSE(gpu::library_may(Engine::automatic, 32, 15));
  EXPECT_TRUE(gpu::library_may(Engine::library, 8, 32)) << "unless the library is demanded";
  EXPECT_FALSE(gpu::library_may(Engine::native, 32, 32));
  const gpu::PlanStatistics before = plan_statistics();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(find_plan(problem(16, 16, 7), Engine::library)) << "what it cannot do";
  const gpu::PlanStatistics after = plan_statistics();
  EXPECT_EQ(after.refused - before.refused, 1) << "it was asked again";
  EXPECT_EQ(after.found - before.found, 2);
}

// Thousands of shapes pass; the cache keeps to its bound and forgets the oldest.
TEST(Plans, TheCacheForgets) {
  const auto kept = find_plan(problem(16, 32), Engine::library);
  for (int i = 0; i < 5000; ++i) {
    gpu::ConvProblem p = problem(16, 32);
    p.samples = 10 + i;
    ASSERT_TRUE(find_plan(p, Engine::library));
    const auto again = find_plan(problem(16, 32), Engine::library);
    ASSERT_EQ(again, kept) << "used all the time, and yet forgotten";
  }
  const gpu::PlanStatistics before = plan_statistics();
  gpu::ConvProblem p = problem(16, 32);
  p.samples = 10;
  EXPECT_TRUE(find_plan(p, Engine::library));
  EXPECT_EQ(plan_statistics().made - before.made, 1);
}

}  // namespace
}  // namespace vg::test
