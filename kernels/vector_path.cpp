// Highway's table of targets under names that people know.
#include "kernels/vector_path.h"

#include "kernels/simd.h"
#include "hwy/highway.h"

#include "kernels/conv_cpu_matrix.h"
#include "tensor/error.h"

namespace vg {
namespace {

struct Path {
  const char* name;
  std::int64_t target;
};
constexpr Path kPaths[] = {{"amx", HWY_AVX3}, {"avx512", HWY_AVX3}, {"avx2", HWY_AVX2}, {"sse4", HWY_SSE4}, {"neon", HWY_NEON}, {"scalar", HWY_STATIC_TARGET}};

}  // namespace

void choose_vector_path(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  cpu::allow_matrix_unit(name.empty() || name == "amx");
  const std::int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  std::int64_t chosen = 0;
  std::string known;
  for (const Path& p : kPaths) {
    if (name == p.name) chosen = p.target;
    if (all & p.target && (p.name != kPaths[0].name || cpu::matrix_unit())) known += std::string(known.empty() ? "" : ", ") + p.name;
  }
  if (!name.empty() && !chosen) fail(ErrorCode::invalid_argument, "vector path \"{}\": unknown (here: {})", name, known);
  if (!name.empty() && (!(all & chosen) || (name == "amx" && !cpu::matrix_unit()))) fail(ErrorCode::unsupported, "vector path {}: this machine has none (it has: {})", name, known);
  hwy::SetSupportedTargetsForTest(chosen);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

std::string vector_path() {
  const std::int64_t targets = hwy::SupportedTargets() & HWY_TARGETS, best = targets & -targets;  // the best one has the lowest bit
  for (const Path& p : kPaths)
    if (p.target == best && (p.name != kPaths[0].name || cpu::matrix_unit())) return p.name;
  return hwy::TargetName(best);
}

}  // namespace vg
