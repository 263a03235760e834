// What every kernel test needs: the implementations to run (each cpu thread count and instruction set, each sim thread order, cuda where
// there is a device), inputs, outputs filled with NaN, comparison with a double reference that refuses to be trivial, equal bits across
// threads and orders.
//
//   VG_COVERS(add);                                              // registry_test fails for a kernel that no test file covers
//   for (const KernelRun& run : runs_of(add)) {
//     SCOPED_TRACE(run.name);
//     Tensor y = run.blank(shape);
//     add(run.exec(), y, run.put(a, shape), run.put(b, shape));
//     expect_close(y, want, {.relative = 1e-6});
//     bits.same(run, y);                                         // Bits bits; outside the loop
//   }
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/scratch.h"
#include "tensor/random.h"
#include "tensor/tensor.h"

namespace vg::test {

// An output to be added to (beta 1: random contents) or written (beta 0: NaN, which must not be read).
struct Output {
  Grad grad;
  std::vector<double> before;  // what is in it when beta is 1, else zeros: the reference is before + gradient
};

// One implementation, run in one way.
class KernelRun {
 public:
  std::string name;   // "cpu, 2 threads", "cpu, SSE4", "sim, reverse order", "cuda:0"
  std::string group;  // runs of one group must give the same bits
  Device device;
  int threads = 2, order = 0;
  std::int64_t targets = 0;  // instruction sets that the cpu may use; 0: all

  KernelRun(std::string run_name, std::string run_group, Device where);
  // Sets threads, order and instruction set, and fills the scratch memory with 0xff (NaN): call it for every kernel call.
  Exec exec() const;

  Tensor put(const std::vector<float>& values, Shape shape) const { return from_host(values, shape, device); }
  Tensor put(const std::vector<float>& values, Shape shape, DType type) const;  // rounded to f32, bf16 or f16
  Tensor put(const std::vector<float>& values) const { return put(values, {static_cast<std::int64_t>(values.size())}); }
  Tensor put_labels(const std::vector<std::int32_t>& values, Shape shape, DType type) const;
  Tensor blank(Shape shape, DType type = DType::f32) const;  // every byte 0xff: NaN, -1, 255
  Output output(Shape shape, float beta, std::uint64_t seed = 77, DType type = DType::f32) const;

 private:
  std::shared_ptr<ScratchOwner> scratch_;
};

// cpu with 1, 2 and 3 threads, and with each lesser instruction set; sim forward, reverse, random; cuda:0. Implementations that do not
// exist are left out (registry_test finds them).
std::vector<KernelRun> runs_of(const KernelBase& kernel);

// The names of all kernels that test files cover.
std::set<std::string>& covered_kernels();
struct Covers {
  explicit Covers(const char* name) { covered_kernels().insert(name); }
};
#define VG_COVERS(NAME) \
  static const ::vg::test::Covers covers_##NAME { (static_cast<void>(&::vg::NAME), #NAME) }

std::vector<float> normals(std::int64_t count, std::uint64_t seed, double mean = 0.0, double deviation = 1.0);
std::vector<float> uniforms(std::int64_t count, std::uint64_t seed, double low = 0.0, double high = 1.0);
std::vector<double> doubles(const std::vector<float>& values);
std::vector<float> rounded(std::vector<float> values, DType type);  // to the nearest bf16 or f16; f32: as they are
std::vector<float> floats_of(const Tensor& t);                      // of f32, bf16 or f16, to the host
// Half of the distance between neighbours, relative to the larger: the error of one rounding (f32: of a few).
inline double precision_of(DType type) { return type == DType::bf16 ? 0x1p-8 : type == DType::f16 ? 0x1p-11 : 0x1p-22; }

struct Close {
  double relative = 1e-5;  // of the largest magnitude in the reference
  double floor = 1e-30;    // absolute error that is always allowed
  bool trivial = false;    // the reference may be constant or mostly zeros; otherwise such a reference proves nothing and fails
};
// NaN and infinity must be where the reference has them.
void expect_close(const std::vector<float>& got, const std::vector<double>& want, Close how = {});
void expect_close(const Tensor& got, const std::vector<double>& want, Close how = {});
void expect_close(const Output& got, const std::vector<double>& gradient, Close how = {});  // want = before + gradient

// Remembers each group's first result and compares the bits of all later ones.
class Bits {
 public:
  void same(const KernelRun& run, const Tensor& result, const std::string& what = "result");

 private:
  std::map<std::string, std::vector<std::uint8_t>> first_;
};

// df/dx[i] for every i by the four-point central difference (error h^4), on a double function: the truth about gradients.
std::vector<double> numeric_gradient(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x, double h = 1e-3);

}  // namespace vg::test
