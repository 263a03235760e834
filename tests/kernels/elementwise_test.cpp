// Fill, add, accumulate and channel copies.
#include "kernels/elementwise.h"

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(fill);
VG_COVERS(add);
VG_COVERS(accumulate);
VG_COVERS(copy_channels);

const std::int64_t kCounts[] = {1, 7, 16, 17, 33, 1000, 65537, 200003};

TEST(Elementwise, Fill) {
  for (std::int64_t count : kCounts)
    for (const KernelRun& run : runs_of(fill)) {
      SCOPED_TRACE(run.name + " " + std::to_string(count));
      // The middle of a longer buffer: nothing before or behind may change.
      Tensor all = run.put(std::vector<float>(static_cast<std::size_t>(count + 6), 5.0f)), part = all.range(3, {count});
      fill(run.exec(), part, FillParams{-2.5f});
      std::vector<double> want(static_cast<std::size_t>(count + 6), 5.0);
      std::fill(want.begin() + 3, want.end() - 3, -2.5);
      expect_close(all, want, {.relative = 0});
    }
}

TEST(Elementwise, Add) {
  for (std::int64_t count : kCounts) {
    const std::vector<float> a = normals(count, 1), b = normals(count, 2);
    std::vector<double> want;
    for (std::size_t i = 0; i < a.size(); ++i) want.push_back(static_cast<double>(a[i]) + static_cast<double>(b[i]));
    Bits bits;
    for (const KernelRun& run : runs_of(add)) {
      SCOPED_TRACE(run.name + " " + std::to_string(count));
      Tensor y = run.blank({count}), in_a = run.put(a), in_b = run.put(b);
      add(run.exec(), y, run.put(a), run.put(b));
      expect_close(y, want, {.relative = 1e-7});
      bits.same(run, y);
      add(run.exec(), in_a, in_a, run.put(b));
      bits.same(run, in_a);
      add(run.exec(), in_b, run.put(a), in_b);
      bits.same(run, in_b);
    }
  }
}

TEST(Elementwise, Accumulate) {
  for (std::int64_t count : kCounts)
    for (float beta : {0.0f, 1.0f}) {
      const std::vector<float> dy = normals(count, 3);
      std::vector<double> want;
      for (float v : dy) want.push_back(-0.75 * static_cast<double>(v));
      Bits bits;
      for (const KernelRun& run : runs_of(accumulate)) {
        SCOPED_TRACE(run.name + " " + std::to_string(count));
        const Output dx = run.output({count}, beta);
        accumulate(run.exec(), dx.grad, run.put(dy), ScaleParams{-0.75f});
        expect_close(dx, want, {.relative = 1e-7});
        bits.same(run, dx.grad.tensor);
      }
    }
}

TEST(Elementwise, CopyChannels) {
  struct Case {
    std::int64_t to, from;
    ChannelParams p;
  };
  for (const Case& c : {Case{1, 1, {0, 0, 1}}, Case{3, 5, {1, 2, 2}}, Case{33, 16, {17, 0, 16}}, Case{16, 33, {0, 17, 16}},
                        Case{44, 30, {3, 1, 29}}, Case{320, 256, {64, 0, 256}}, Case{7, 2, {5, 1, 1}}}) {
    const Shape to{2, 1, 7, 17, c.to}, from{2, 1, 7, 17, c.from};
    const std::vector<float> x = normals(from.elements(), 4), old = normals(to.elements(), 5);
    for (float beta : {0.0f, 1.0f}) {
      std::vector<double> want = doubles(old);
      for (std::int64_t v = 0; v < 2 * 7 * 17; ++v)
        for (std::int64_t k = 0; k < c.p.count; ++k) {
          double& w = want[v * c.to + c.p.first_to + k];
          w = static_cast<double>(beta) * w + x[v * c.from + c.p.first_from + k];
        }
      Bits bits;
      for (const KernelRun& run : runs_of(copy_channels)) {
        SCOPED_TRACE(run.name + " " + std::to_string(c.to) + " from " + std::to_string(c.from));
        // Where beta is 0, the channels that are written hold NaN at first.
        std::vector<float> start = old;
        for (std::int64_t i = 0; i < to.elements(); ++i)
          if (beta == 0 && i % c.to >= c.p.first_to && i % c.to < c.p.first_to + c.p.count)
            start[i] = std::numeric_limits<float>::quiet_NaN();
        const Tensor y = run.put(start, to);
        copy_channels(run.exec(), Grad{y, beta}, run.put(x, from), c.p);
        expect_close(y, want, {.relative = 1e-7});
        bits.same(run, y);
      }
    }
  }
}

}  // namespace
}  // namespace vg::test
