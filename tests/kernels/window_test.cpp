// Cutting, blending and deciding windows against loops in double precision: windows inside, across and beyond every face of the image.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/window.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(cut_window);
VG_COVERS(blend_window);
VG_COVERS(decide);

using Start = std::int64_t[3];

struct Case {
  Shape image, window;  // without samples: (1, ., ., ., C)
  Start start;
};
const Case kCases[] = {
    {{1, 5, 7, 9, 3}, {1, 3, 4, 5, 3}, {1, 2, 3}},      // inside
    {{1, 4, 6, 33, 4}, {1, 4, 6, 33, 4}, {0, 0, 0}},    // the whole image
    {{1, 5, 7, 17, 1}, {1, 4, 6, 17, 1}, {-2, 3, -7}},  // beyond low faces and a high one
    {{1, 3, 4, 5, 8}, {1, 5, 9, 40, 8}, {-1, -2, -17}}, // around all of it
    {{1, 1, 65, 33, 12}, {1, 1, 32, 16, 12}, {0, 40, 20}},
    {{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}, {0, 9, 0}},      // beside it
};

bool inside(const Shape& s, std::int64_t z, std::int64_t y, std::int64_t x) { return z >= 0 && y >= 0 && x >= 0 && z < s.d() && y < s.h() && x < s.w(); }

// visit(number of the window's voxel, its place in the window, and in the image)
template <class Visit>
void each_voxel(const Case& c, Visit visit) {
  for (std::int64_t i = 0; i < c.window.voxels(); ++i) {
    const std::int64_t z = i / (c.window.h() * c.window.w()), y = i / c.window.w() % c.window.h(), x = i % c.window.w();
    visit(i, Start{z, y, x}, z + c.start[0], y + c.start[1], x + c.start[2]);
  }
}

TEST(Windows, Cut) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(to_string(c.window));
    const std::vector<float> image = normals(c.image.elements(), 3);
    const std::int64_t C = c.image.c();
    std::vector<double> want(static_cast<std::size_t>(c.window.elements()), 0.0);
    each_voxel(c, [&](std::int64_t i, const Start&, std::int64_t z, std::int64_t y, std::int64_t x) {
      for (std::int64_t k = 0; k < C && inside(c.image, z, y, x); ++k)
        want[static_cast<std::size_t>(i * C + k)] = static_cast<double>(image[static_cast<std::size_t>(((z * c.image.h() + y) * c.image.w() + x) * C + k)]);
    });
    for (const KernelRun& run : runs_of(cut_window)) {
      SCOPED_TRACE(run.name);
      Tensor window = run.blank(c.window);
      cut_window(run.exec(), window, run.put(image, c.image), WindowParams{{c.start[0], c.start[1], c.start[2]}});
      expect_close(window, want, {.relative = 0, .trivial = true});
    }
  }
}

// The ring holds as many planes as the window has, or two more.
TEST(Windows, Blend) {
  for (const Case& c : kCases)
    for (const std::int64_t more : {0, 2}) {
      SCOPED_TRACE(to_string(c.window) + (more ? ", larger ring" : ""));
      const Shape ring = {1, c.window.d() + more, c.image.h(), c.image.w(), c.image.c()};
      const std::vector<float> before = normals(ring.elements(), 4), scores = normals(c.window.elements(), 5),
                               weights = uniforms(c.window.d() + c.window.h() + c.window.w(), 6, 0.1, 1.0);
      std::vector<double> want = doubles(before);
      each_voxel(c, [&](std::int64_t i, const Start& at, std::int64_t z, std::int64_t y, std::int64_t x) {
        if (!inside(c.image, z, y, x)) return;
        double w = 1.0;
        for (std::int64_t a = 0, first = 0; a < 3; first += c.window[static_cast<int>(++a)])
          w *= static_cast<double>(weights[static_cast<std::size_t>(first + at[a])]);
        for (std::int64_t k = 0; k < ring.c(); ++k)
          want[static_cast<std::size_t>((((z % ring.d()) * ring.h() + y) * ring.w() + x) * ring.c() + k)] += w * static_cast<double>(scores[static_cast<std::size_t>(i * ring.c() + k)]);
      });
      Bits bits;
      for (const KernelRun& run : runs_of(blend_window)) {
        SCOPED_TRACE(run.name);
        Tensor sums = run.put(before, ring);
        blend_window(run.exec(), sums, run.put(scores, c.window), run.put(weights), BlendParams{{c.start[0], c.start[1], c.start[2]}, c.image.d()});
        expect_close(sums, want, {.relative = 1e-6});
        bits.same(run, sums);
      }
    }
}

struct Decision {
  Shape labels, scores;
  Start from;
};
const Decision kDecisions[] = {
    {{1, 3, 4, 17, 1}, {1, 3, 4, 17, 5}, {0, 0, 0}},     // all of it
    {{2, 3, 2, 9, 1}, {2, 5, 4, 12, 3}, {1, 2, 3}},      // the middle of padded samples
    {{1, 4, 3, 33, 1}, {1, 6, 3, 33, 4}, {4, 0, 0}},     // across the ring's end
    {{1, 1, 2, 150, 1}, {1, 1, 2, 150, 104}, {0, 0, 0}}, // more than a tile of a row
    {{1, 1, 3, 7, 1}, {1, 1, 3, 7, 374}, {0, 0, 0}},
    {{1, 2, 1, 5, 1}, {1, 2, 1, 5, 1}, {0, 0, 0}},       // one class
};

std::vector<float> classes_of(const Tensor& labels) {
  std::vector<float> v;
  if (labels.dtype() == DType::u8)
    for (std::uint8_t c : to_host<std::uint8_t>(labels)) v.push_back(c);
  else
    for (std::int32_t c : to_host<std::int32_t>(labels)) v.push_back(static_cast<float>(c));
  return v;
}

// Of rows of `each` numbers the first `kept`.
std::vector<double> first_of(const std::vector<double>& all, std::int64_t each, std::int64_t kept) {
  std::vector<double> some;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (static_cast<std::int64_t>(i) % each < kept) some.push_back(all[i]);
  return some;
}

TEST(Windows, Decide) {
  for (const Decision& c : kDecisions)
    for (const bool ties : {false, true})
      for (const bool weighed : {false, true}) {
        SCOPED_TRACE(to_string(c.scores) + (ties ? ", ties" : "") + (weighed ? ", weighed" : ""));
        const Shape &l = c.labels, &s = c.scores;
        std::vector<float> scores = normals(s.elements(), 11, -5, 2);  // mostly negative: zeros beyond the last class must not win
        if (ties)
          for (float& v : scores) v = std::round(v);
        const std::vector<float> totals = uniforms(l.d() + l.h() + l.w(), 12, 0.5, 2.0);
        std::vector<double> want, confidence, entropy, order, probability;  // the last two: of all classes, the likeliest first
        for (std::int64_t v = 0; v < l.elements(); ++v) {
          const std::int64_t n = v / l.voxels(), z = v / (l.h() * l.w()) % l.d(), y = v / l.w() % l.h(), x = v % l.w();
          const float* at = scores.data() + (((n * s.d() + (z + c.from[0]) % s.d()) * s.h() + y + c.from[1]) * s.w() + x + c.from[2]) * s.c();
          const float* best = std::max_element(at, at + s.c());
          const auto total = [&](std::int64_t i) { return static_cast<double>(totals[static_cast<std::size_t>(i)]); };
          const double k = weighed ? 1.0 / (total(z) * total(l.d() + y) * total(l.d() + l.h() + x)) : 1.0;
          double sum = 0.0, h = 0.0;
          for (std::int64_t i = 0; i < s.c(); ++i) sum += std::exp(k * static_cast<double>(at[i] - *best));
          for (std::int64_t i = 0; i < s.c(); ++i) {
            const double p = std::exp(k * static_cast<double>(at[i] - *best)) / sum;
            h -= p * std::log(p);
          }
          std::vector<std::int64_t> ranks(static_cast<std::size_t>(s.c()));
          std::iota(ranks.begin(), ranks.end(), 0);
          std::stable_sort(ranks.begin(), ranks.end(), [&](std::int64_t a, std::int64_t b) { return at[a] > at[b]; });
          for (const std::int64_t i : ranks) order.push_back(static_cast<double>(i)), probability.push_back(std::exp(k * static_cast<double>(at[i] - *best)) / sum);
          want.push_back(static_cast<double>(best - at)), confidence.push_back(1.0 / sum), entropy.push_back(h);
        }
        for (const DType type : {DType::u8, DType::i32}) {
          if (type == DType::u8 && s.c() > 256) continue;
          Bits bits;
          for (const KernelRun& run : runs_of(decide)) {
            SCOPED_TRACE(run.name);
            Tensor labels = run.blank(l, type), sure = run.blank(l), unsure = run.blank(l), none;
            const Tensor x = run.put(scores, s), t = weighed ? run.put(totals) : Tensor();
            const DecideParams p{{c.from[0], c.from[1], c.from[2]}};
            decide(run.exec(), labels, sure, unsure, x, t, p);
            expect_close(classes_of(labels), want, {.relative = 0, .trivial = true});
            expect_close(sure, confidence, {.relative = 2e-6, .trivial = true});
            expect_close(unsure, entropy, {.relative = 2e-6, .floor = 2e-6, .trivial = true});
            bits.same(run, sure, "confidence"), bits.same(run, unsure, "entropy");
            Tensor alone = run.blank(l, type);
            decide(run.exec(), alone, none, none, x, Tensor(), p);
            EXPECT_EQ(classes_of(alone), classes_of(labels));
            const std::int64_t kept = std::min<std::int64_t>(s.c(), 5);
            Shape several = l;
            several[4] = kept;
            Tensor ranked = run.blank(several, type), chances = run.blank(several);
            decide(run.exec(), ranked, chances, unsure, x, t, p);
            expect_close(classes_of(ranked), first_of(order, s.c(), kept), {.relative = 0, .trivial = true});
            expect_close(chances, first_of(probability, s.c(), kept), {.relative = 3e-6, .trivial = true});
            expect_close(unsure, entropy, {.relative = 2e-6, .floor = 2e-6, .trivial = true});
            bits.same(run, chances, "probabilities");
            decide(run.exec(), ranked, none, none, x, t, p);
            expect_close(classes_of(ranked), first_of(order, s.c(), kept), {.relative = 0, .trivial = true});
          }
        }
      }
}

}  // namespace
}  // namespace vg::test
