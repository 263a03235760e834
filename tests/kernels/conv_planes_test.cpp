// Convolution plane by plane against conv_forward on the whole volume: every tile, orders of groups, planes that are missing, parts of rows.
#include "kernels/conv_planes.h"

#include "kernels/conv.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

using cpu::PlaneLayer;
using cpu::PlaneTile;
using cpu::RowSpan;

struct Case {
  std::int64_t extent[3], in, out, kernel, dilation[3];
  Activation activation = {};
  bool bias = true;
};
const Case kCases[] = {
    {{7, 17, 33}, 3, 5, 3, {1, 1, 1}},
    {{33, 7, 17}, 1, 16, 3, {2, 3, 1}, {ActivationKind::elu, 1.0f}},
    {{12, 16, 24}, 16, 33, 3, {1, 2, 4}, {ActivationKind::relu}, false},
    {{5, 9, 20}, 20, 7, 3, {16, 8, 8}},  // dilation beyond the volume
    {{2, 40, 1}, 4, 4, 3, {1, 1, 1}},
    {{6, 11, 13}, 17, 18, 1, {1, 1, 1}},
};

void PrintTo(const Case& c, std::ostream* os) {
  *os << c.extent[0] << "x" << c.extent[1] << "x" << c.extent[2] << ", " << c.in << " -> " << c.out << ", kernel " << c.kernel << ", dilation "
      << c.dilation[0] << " " << c.dilation[1] << " " << c.dilation[2];
}

std::vector<PlaneTile> tiles_of(const Case& c) {
  if (c.kernel == 1) return {{}};
  return {{}, {1, 2}, {1, 4}, {2, 2}, {2, 4}, {4, 4}};
}

std::vector<float*> planes(std::vector<float>& v, std::int64_t count) {
  std::vector<float*> p;
  for (std::int64_t z = 0; z < count; ++z) p.push_back(v.data() + z * static_cast<std::int64_t>(v.size()) / count);
  return p;
}

struct Layer {
  explicit Layer(const Case& k)
      : c(k), x(normals(voxels() * c.in, 1)), w(normals(c.out * c.in * c.kernel * c.kernel * c.kernel, 2)), b(normals(c.out, 3)) {
    for (int a = 0; a < 3; ++a) layer.extent[a] = c.extent[a], layer.dilation[a] = c.dilation[a];
    layer.in_channels = c.in, layer.out_channels = c.out, layer.kernel = c.kernel;
    layer.weight = w.data(), layer.bias = c.bias ? b.data() : nullptr, layer.activation = c.activation;
  }
  std::int64_t voxels() const { return c.extent[0] * c.extent[1] * c.extent[2]; }
  // By the plain sum on the whole volume.
  std::vector<float> reference(const std::vector<float>& input) {
    ScratchOwner scratch(kCpu);
    ConvAlgorithm direct;
    direct.allow = ConvAlgorithm::Allow::direct;
    ConvParams p;
    for (int a = 0; a < 3; ++a) p.dilation[a] = static_cast<std::int32_t>(c.dilation[a]), p.pad[a] = static_cast<std::int32_t>(c.kernel / 2 * c.dilation[a]);
    p.activation = c.activation;
    Tensor y({1, c.extent[0], c.extent[1], c.extent[2], c.out}, DType::f32, kCpu);
    conv_forward(Exec{kCpu, &scratch, nullptr, direct}, y, from_host(input, {1, c.extent[0], c.extent[1], c.extent[2], c.in}), Tensor(),
                 from_host(w, {c.out, c.in, c.kernel, c.kernel, c.kernel}), c.bias ? from_host(b, {c.out}) : Tensor(), p);
    return to_host<float>(y);
  }
  std::vector<std::int64_t> starts(PlaneTile tile) const {
    std::vector<std::int64_t> s;
    for (std::int64_t r = c.dilation[0] - 1; r >= 0; --r)  // any order will do
      for (std::int64_t g = r; g < c.extent[0]; g += tile.d * c.dilation[0]) s.push_back(g);
    return s;
  }
  Case c;
  std::vector<float> x, w, b;
  PlaneLayer layer;
};

class ConvPlanes : public testing::TestWithParam<Case> {};

TEST_P(ConvPlanes, GroupsMakeTheVolume) {
  Layer s(GetParam());
  const std::vector<double> want = doubles(s.reference(s.x));
  ScratchOwner scratch(kCpu);
  for (const PlaneTile tile : tiles_of(s.c)) {
    SCOPED_TRACE(testing::Message() << "tile " << tile.d << " " << tile.hw);
    const std::vector<float> packed = cpu::packed_planes(s.layer, tile);
    for (const bool together : {false, true}) {
      std::vector<float> y(static_cast<std::size_t>(s.voxels() * s.c.out), NAN);
      const std::vector<float*> in = planes(s.x, s.c.extent[0]), out = planes(y, s.c.extent[0]);
      const std::vector<std::int64_t> starts = s.starts(tile);
      const Exec ex{kCpu, &scratch, nullptr, {}};
      for (std::size_t i = 0; i < starts.size(); i += together ? starts.size() : 1)
        cpu::conv_planes(ex, s.layer, tile, together ? nullptr : packed.data(), {starts.data() + i, together ? starts.size() : 1}, out.data(), in.data(), nullptr);
      expect_close(from_host(y, {static_cast<std::int64_t>(y.size())}), want, {.relative = 2e-5});
    }
  }
}

// A plane that is not there counts as zeros, one that nobody wants is not written.
TEST_P(ConvPlanes, MissingPlanes) {
  Layer s(GetParam());
  const std::int64_t D = s.c.extent[0], missing = D / 2;

  std::vector<float> holed = s.x;
  std::fill_n(holed.begin() + missing * s.voxels() / D * s.c.in, s.voxels() / D * s.c.in, 0.0f);
  std::vector<float> want = s.reference(holed);
  std::fill_n(want.begin(), s.voxels() / D * s.c.out, 0.5f);
  ScratchOwner scratch(kCpu);
  for (const PlaneTile tile : tiles_of(s.c)) {
    SCOPED_TRACE(testing::Message() << "tile " << tile.d << " " << tile.hw);
    std::vector<float> y(want.size(), 0.5f);
    std::vector<float*> in = planes(s.x, D), out = planes(y, D);
    in[static_cast<std::size_t>(missing)] = nullptr;
    std::vector<std::int64_t> starts = s.starts(tile);
    if (tile.d == 1)
      std::erase(starts, 0);  // plane 0 has a group of its own
    else
      out[0] = nullptr;
    cpu::conv_planes(Exec{kCpu, &scratch, nullptr, {}}, s.layer, tile, nullptr, starts, out.data(), in.data(), nullptr);
    expect_close(from_host(y, {static_cast<std::int64_t>(y.size())}), doubles(want), {.relative = 2e-5});
  }
}

// Wanted rows, widened to tiles, are computed with the bits of the whole; nothing else is touched.
TEST_P(ConvPlanes, PartsOfRows) {
  Layer s(GetParam());
  const std::int64_t D = s.c.extent[0], H = s.c.extent[1], W = s.c.extent[2];
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch, nullptr, {}};
  for (const PlaneTile tile : tiles_of(s.c)) {
    SCOPED_TRACE(testing::Message() << "tile " << tile.d << " " << tile.hw);
    std::vector<float> whole(static_cast<std::size_t>(s.voxels() * s.c.out)), part(whole.size(), NAN);
    const std::vector<float*> in = planes(s.x, D), all = planes(whole, D), out = planes(part, D);
    const std::vector<std::int64_t> starts = s.starts(tile);
    cpu::conv_planes(ex, s.layer, tile, nullptr, starts, all.data(), in.data(), nullptr);
    std::vector<RowSpan> wanted, asked(static_cast<std::size_t>(H));
    for (std::int64_t y = H / 3; y < (H + 1) / 2; ++y) asked[static_cast<std::size_t>(y)] = {W / 4, std::max(W / 2, W / 4 + 1)};
    std::vector<RowSpan> rows = asked;
    cpu::widen(s.layer, tile, rows.data());
    for (std::int64_t y = 0; y < H; ++y) {
      const RowSpan a = asked[static_cast<std::size_t>(y)], r = rows[static_cast<std::size_t>(y)];
      EXPECT_TRUE(a.empty() || (r.begin <= a.begin && r.end >= a.end && r.begin >= 0 && r.end <= W));
    }
    for (std::size_t i = 0; i < starts.size(); ++i) wanted.insert(wanted.end(), rows.begin(), rows.end());
    cpu::conv_planes(ex, s.layer, tile, nullptr, starts, out.data(), in.data(), wanted.data());
    std::int64_t computed = 0;
    for (std::int64_t z = 0; z < D; ++z)
      for (std::int64_t y = 0; y < H; ++y)
        for (std::int64_t i = 0; i < W * s.c.out; ++i) {
          const RowSpan r = rows[static_cast<std::size_t>(y)];
          const std::size_t at = static_cast<std::size_t>((z * H + y) * W * s.c.out + i);
          const bool inside = i / s.c.out >= r.begin && i / s.c.out < r.end;
          computed += inside;
          if (inside)
            ASSERT_EQ(part[at], whole[at]);
          else
            ASSERT_TRUE(std::isnan(part[at]));
        }
    EXPECT_GT(computed, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConvPlanes, testing::ValuesIn(kCases));

}  // namespace
}  // namespace vg::test
