// Convolution as the formulas of kernels/conv.h say, in double precision, and the shapes on which every implementation is compared with it.
#pragma once
#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/conv.h"

namespace vg::test::conv {

struct Case {
  std::int64_t n;
  std::int64_t in[3];
  std::int64_t i0, i1, o;  // i1 = 0: one input
  std::int32_t kernel[3], stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1}, pad[3] = {0, 0, 0}, pad_high[3] = {-1, -1, -1};  // -1: as pad
  Activation activation = {};
  bool bias = true;
  bool on_all = true;  // small enough for sim

  std::int64_t inputs() const { return i0 + i1; }
  std::int64_t taps() const { return std::int64_t{kernel[0]} * kernel[1] * kernel[2]; }
  std::int64_t out(int a) const {
    return (in[a] + pad[a] + (pad_high[a] < 0 ? pad[a] : pad_high[a]) - dilation[a] * (kernel[a] - 1) - 1) / stride[a] + 1;
  }
  Shape x_shape(std::int64_t channels) const { return {n, in[0], in[1], in[2], channels}; }
  Shape y_shape() const { return {n, out(0), out(1), out(2), o}; }
  Shape w_shape() const { return {o, inputs(), kernel[0], kernel[1], kernel[2]}; }
  ConvParams params() const {
    ConvParams p;
    for (int a = 0; a < 3; ++a) p.stride[a] = stride[a], p.dilation[a] = dilation[a], p.pad[a] = pad[a];
    p.activation = activation;
    return p;
  }
};

inline void PrintTo(const Case& c, std::ostream* os) {
  *os << "x " << to_string(c.x_shape(c.i0)) << " + " << c.i1 << ", w " << to_string(c.w_shape()) << ", y " << to_string(c.y_shape());
  for (int a = 0; a < 3; ++a) *os << (a ? ", " : "; stride dilation pad ") << c.stride[a] << " " << c.dilation[a] << " " << c.pad[a];
}

using Doubles = std::vector<double>;

inline std::string name_of_case(const Case& c) {
  return "x " + to_string(c.x_shape(c.i0)) + " + " + std::to_string(c.i1) + ", w " + to_string(c.w_shape());
}

// Calls visit(y voxel, x voxel, tap) for every product of the formula; voxels count through samples and space.
template <class Visit>
void for_products(const Case& c, const Visit& visit) {
  std::int64_t at[3];
  for (std::int64_t n = 0, voxel = 0; n < c.n; ++n)
    for (at[0] = 0; at[0] < c.out(0); ++at[0])
      for (at[1] = 0; at[1] < c.out(1); ++at[1])
        for (at[2] = 0; at[2] < c.out(2); ++at[2], ++voxel)
          for (std::int64_t tap = 0; tap < c.taps(); ++tap) {
            const std::int64_t k[3] = {tap / c.kernel[2] / c.kernel[1], tap / c.kernel[2] % c.kernel[1], tap % c.kernel[2]};
            std::int64_t from = n;
            bool inside = true;
            for (int a = 0; a < 3; ++a) {
              const std::int64_t z = at[a] * c.stride[a] - c.pad[a] + k[a] * c.dilation[a];
              inside = inside && z >= 0 && z < c.in[a];
              from = from * c.in[a] + z;
            }
            if (inside) visit(voxel, from, tap);
          }
}

inline Doubles forward(const Case& c, const Doubles& x, const Doubles& w, const Doubles& b) {
  Doubles y(static_cast<std::size_t>(c.y_shape().elements()));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = b.empty() ? 0.0 : b[i % static_cast<std::size_t>(c.o)];
  for_products(c, [&](std::int64_t v, std::int64_t u, std::int64_t tap) {
    for (std::int64_t o = 0; o < c.o; ++o)
      for (std::int64_t i = 0; i < c.inputs(); ++i)
        y[static_cast<std::size_t>(v * c.o + o)] +=
            x[static_cast<std::size_t>(u * c.inputs() + i)] * w[static_cast<std::size_t>((o * c.inputs() + i) * c.taps() + tap)];
  });
  return y;
}

inline Doubles backward_data(const Case& c, const Doubles& dy, const Doubles& w, const Doubles& b) {
  Doubles dx(static_cast<std::size_t>(c.x_shape(c.inputs()).elements()));
  for (std::size_t i = 0; i < dx.size(); ++i) dx[i] = b.empty() ? 0.0 : b[i % static_cast<std::size_t>(c.inputs())];
  for_products(c, [&](std::int64_t v, std::int64_t u, std::int64_t tap) {
    for (std::int64_t o = 0; o < c.o; ++o)
      for (std::int64_t i = 0; i < c.inputs(); ++i)
        dx[static_cast<std::size_t>(u * c.inputs() + i)] +=
            dy[static_cast<std::size_t>(v * c.o + o)] * w[static_cast<std::size_t>((o * c.inputs() + i) * c.taps() + tap)];
  });
  return dx;
}

inline Doubles backward_weight(const Case& c, const Doubles& dy, const Doubles& x) {
  Doubles dw(static_cast<std::size_t>(c.w_shape().elements()));
  for_products(c, [&](std::int64_t v, std::int64_t u, std::int64_t tap) {
    for (std::int64_t o = 0; o < c.o; ++o)
      for (std::int64_t i = 0; i < c.inputs(); ++i)
        dw[static_cast<std::size_t>((o * c.inputs() + i) * c.taps() + tap)] +=
            dy[static_cast<std::size_t>(v * c.o + o)] * x[static_cast<std::size_t>(u * c.inputs() + i)];
  });
  return dw;
}

inline double apply(const Activation& f, double x) {
  switch (f.kind) {
    case ActivationKind::relu: return std::max(x, 0.0);
    case ActivationKind::leaky_relu: return x < 0 ? f.alpha * x : x;
    case ActivationKind::elu: return x < 0 ? f.alpha * std::expm1(x) : x;
    case ActivationKind::gelu: return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case ActivationKind::gelu_tanh: return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::silu: return x / (1 + std::exp(-x));
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-x));
    case ActivationKind::identity:
    case ActivationKind::prelu: break;
  }
  return x;
}

// Channels [first, first + count) of rows of `channels`.
template <class T>
std::vector<T> columns(const std::vector<T>& all, std::int64_t channels, std::int64_t first, std::int64_t count) {
  std::vector<T> part;
  for (std::size_t row = 0; row < all.size(); row += static_cast<std::size_t>(channels))
    for (std::int64_t i = 0; i < count; ++i) part.push_back(all[row + static_cast<std::size_t>(first + i)]);
  return part;
}

inline const std::vector<Case>& cases() {
  using K = ActivationKind;
  static const std::vector<Case> list = {
      // 1-D and 2-D, odd extents, kernels 1..7
      {1, {1, 1, 1}, 1, 0, 1, {1, 1, 1}},
      {2, {1, 1, 33}, 3, 0, 5, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}},
      {1, {1, 1, 33}, 2, 0, 3, {1, 1, 7}, {1, 1, 2}, {1, 1, 1}, {0, 0, 3}},
      {3, {1, 7, 17}, 1, 0, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {K::leaky_relu, 0.01f}},
      {2, {1, 17, 7}, 16, 0, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
      {1, {1, 7, 33}, 16, 16, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {K::relu}},
      {2, {1, 9, 17}, 5, 3, 7, {1, 5, 5}, {1, 1, 1}, {1, 1, 1}, {0, 2, 2}, {-1, -1, -1}, {K::elu, 0.7f}, false},
      {1, {1, 17, 17}, 33, 0, 17, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}},
      {1, {1, 16, 18}, 16, 0, 32, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}},
      {1, {1, 7, 7}, 4, 0, 48, {1, 4, 6}, {1, 1, 1}, {1, 1, 1}, {0, 2, 3}, {0, 1, 2}},
      {2, {1, 7, 17}, 17, 1, 44, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {-1, -1, -1}, {K::sigmoid}},
      {1, {1, 17, 33}, 3, 0, 4, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {0, 3, 3}, {-1, -1, -1}, {K::gelu}},
      {1, {1, 7, 33}, 3, 2, 18, {1, 3, 3}, {1, 1, 1}, {1, 2, 3}, {0, 2, 3}, {-1, -1, -1}, {K::silu}},
      {1, {1, 9, 13}, 6, 0, 10, {1, 3, 3}, {1, 2, 3}, {1, 3, 2}, {0, 3, 2}},
      {1, {1, 2, 3}, 5, 0, 6, {1, 3, 3}, {1, 1, 1}, {1, 5, 7}, {0, 5, 7}},  // all but the middle tap lies outside
      {1, {1, 6, 5}, 4, 3, 5, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 1, 0}, {0, 0, 1}},
      {1, {1, 8, 10}, 16, 0, 20, {1, 2, 2}, {1, 2, 2}},  // what a 2 x 2 upsampling runs backwards
      {2, {1, 6, 10}, 32, 0, 16, {1, 2, 2}, {1, 2, 2}},
      {1, {1, 5, 7}, 8, 0, 9, {1, 1, 1}, {1, 2, 3}},  // voxels that no output reads
      // 3-D
      {1, {7, 5, 9}, 1, 0, 16, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {-1, -1, -1}, {K::gelu_tanh}},
      {1, {5, 5, 7}, 30, 0, 30, {3, 3, 3}, {1, 1, 1}, {2, 2, 2}, {2, 2, 2}, {-1, -1, -1}, {K::elu, 1.0f}, true, false},
      {2, {5, 4, 17}, 3, 4, 6, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}, {1, 1, 1}},
      {1, {4, 6, 6}, 16, 0, 8, {2, 2, 2}, {2, 2, 2}},
      {2, {3, 5, 7}, 4, 0, 3, {1, 2, 3}, {1, 2, 1}, {1, 1, 2}, {0, 1, 2}, {0, 0, 1}},
      {1, {7, 7, 33}, 2, 0, 5, {3, 3, 3}, {1, 1, 1}, {3, 3, 16}, {3, 3, 16}},
      // larger ones, for tile and chunk borders of the cpu: several tiles in a row, several blocks of channels, several chunks
      {3, {1, 65, 67}, 16, 0, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {}, true, false},
      {1, {1, 3, 2100}, 17, 0, 33, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {-1, -1, -1}, {}, true, false},
      {1, {1, 40, 60}, 16, 0, 44, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {-1, -1, -1}, {}, true, false},
      {1, {13, 18, 37}, 7, 12, 19, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {-1, -1, -1}, {K::relu}, true, false},
      {2, {6, 9, 70}, 16, 0, 32, {3, 3, 3}, {1, 1, 1}, {1, 2, 4}, {1, 2, 4}, {-1, -1, -1}, {}, false, false},
      {2, {9, 10, 11}, 33, 0, 48, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 2, 1}, {-1, -1, -1}, {}, true, false},
      {1, {5, 21, 23}, 17, 0, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {K::elu, 1.0f}, true, false},
      {5, {3, 4, 6}, 100, 28, 96, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {-1, -1, -1}, {}, false, false},
      {1, {1, 6, 5}, 70, 0, 83, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {}, true, false},
      // for the matrix unit: rows in several pieces, pieces one below the other, channels beyond whole steps
      {1, {1, 2, 400}, 256, 0, 16, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {}, true, false},
      {2, {1, 40, 70}, 80, 0, 18, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {K::relu}, true, false},
      {1, {1, 19, 45}, 35, 0, 37, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {}, true, false},
      {1, {1, 9, 40}, 64, 7, 33, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {-1, -1, -1}, {}, true, false},
  };
  return list;
}

}  // namespace vg::test::conv
