// The graph's operations in double precision, in the plainest way: the truth that gradients are taken from, by finite differences.
#pragma once
#include <array>
#include <cmath>
#include <functional>
#include <numbers>
#include <string>
#include <vector>

#include "kernels/activation.h"
#include "tensor/shape.h"

namespace vg::test {

using Doubles = std::vector<double>;
using Axes = std::array<std::int64_t, 3>;

inline std::size_t at(const Shape& s, std::int64_t n, const Axes& v, std::int64_t c) {
  return static_cast<std::size_t>((((n * s.d() + v[0]) * s.h() + v[1]) * s.w() + v[2]) * s.c() + c);
}
inline bool inside(const Shape& s, const Axes& v) {
  return v[0] >= 0 && v[0] < s.d() && v[1] >= 0 && v[1] < s.h() && v[2] >= 0 && v[2] < s.w();
}

// Calls f(n, voxel) for each voxel.
template <class F>
void each_voxel(const Shape& s, F&& f) {
  for (std::int64_t n = 0; n < s.n(); ++n)
    for (std::int64_t z = 0; z < s.d(); ++z)
      for (std::int64_t y = 0; y < s.h(); ++y)
        for (std::int64_t x = 0; x < s.w(); ++x) f(n, Axes{z, y, x});
}

inline double activate(const Activation& f, double x, double slope = 0) {
  switch (f.kind) {
    case ActivationKind::identity: return x;
    case ActivationKind::relu: return x > 0 ? x : 0;
    case ActivationKind::leaky_relu: return x < 0 ? f.alpha * x : x;
    case ActivationKind::elu: return x < 0 ? f.alpha * std::expm1(x) : x;
    case ActivationKind::gelu: return x / 2 * (1 + std::erf(x / std::numbers::sqrt2));
    case ActivationKind::gelu_tanh: return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case ActivationKind::silu: return x / (1 + std::exp(-x));
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-x));
    case ActivationKind::prelu: return x < 0 ? slope * x : x;
  }
  return 0;
}

struct Window {
  Axes kernel{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1}, pad{0, 0, 0};
};

// weight: (O, I, kD, kH, kW); y's shape is given
inline Doubles convolve(const Doubles& x, const Shape& xs, const Doubles& w, const Doubles& bias, const Window& k, const Shape& ys) {
  Doubles y(static_cast<std::size_t>(ys.elements()));
  const Shape ws = {ys.c(), xs.c(), k.kernel[0], k.kernel[1], k.kernel[2]};
  each_voxel(ys, [&](std::int64_t n, const Axes& v) {
    for (std::int64_t o = 0; o < ys.c(); ++o) {
      double sum = bias.empty() ? 0.0 : bias[static_cast<std::size_t>(o)];
      each_voxel({1, k.kernel[0], k.kernel[1], k.kernel[2], 1}, [&](std::int64_t, const Axes& t) {
        Axes u;
        for (std::size_t a = 0; a < 3; ++a) u[a] = v[a] * k.stride[a] - k.pad[a] + t[a] * k.dilation[a];
        if (!inside(xs, u)) return;
        for (std::int64_t i = 0; i < xs.c(); ++i)
          sum += x[at(xs, n, u, i)] * w[static_cast<std::size_t>((((o * ws[1] + i) * ws[2] + t[0]) * ws[3] + t[1]) * ws[4] + t[2])];
      });
      y[at(ys, n, v, o)] = sum;
    }
  });
  return y;
}

// weight: (I, O, kD, kH, kW): every input voxel paints its kernel
inline Doubles convolve_transposed(const Doubles& x, const Shape& xs, const Doubles& w, const Doubles& bias, const Window& k,
                                   const Shape& ys) {
  Doubles y(static_cast<std::size_t>(ys.elements()));
  each_voxel(ys, [&](std::int64_t n, const Axes& v) {
    for (std::int64_t o = 0; o < ys.c(); ++o) y[at(ys, n, v, o)] = bias.empty() ? 0.0 : bias[static_cast<std::size_t>(o)];
  });
  each_voxel(xs, [&](std::int64_t n, const Axes& v) {
    each_voxel({1, k.kernel[0], k.kernel[1], k.kernel[2], 1}, [&](std::int64_t, const Axes& t) {
      Axes u;
      for (std::size_t a = 0; a < 3; ++a) u[a] = v[a] * k.stride[a] - k.pad[a] + t[a] * k.dilation[a];
      if (!inside(ys, u)) return;
      for (std::int64_t i = 0; i < xs.c(); ++i)
        for (std::int64_t o = 0; o < ys.c(); ++o)
          y[at(ys, n, u, o)] +=
              x[at(xs, n, v, i)] *
              w[static_cast<std::size_t>((((i * ys.c() + o) * k.kernel[0] + t[0]) * k.kernel[1] + t[1]) * k.kernel[2] + t[2])];
    });
  });
  return y;
}

inline Doubles pool(const Doubles& x, const Shape& xs, const Window& k, const Shape& ys) {
  Doubles y(static_cast<std::size_t>(ys.elements()), -1e300);
  each_voxel(ys, [&](std::int64_t n, const Axes& v) {
    each_voxel({1, k.kernel[0], k.kernel[1], k.kernel[2], 1}, [&](std::int64_t, const Axes& t) {
      Axes u;
      for (std::size_t a = 0; a < 3; ++a) u[a] = v[a] * k.stride[a] - k.pad[a] + t[a];
      if (!inside(xs, u)) return;
      for (std::int64_t c = 0; c < xs.c(); ++c) y[at(ys, n, v, c)] = std::max(y[at(ys, n, v, c)], x[at(xs, n, u, c)]);
    });
  });
  return y;
}

inline Doubles enlarge(const Doubles& x, const Shape& xs, const Axes& factor, bool linear, const Shape& ys) {
  Doubles y(static_cast<std::size_t>(ys.elements()), 0.0);
  each_voxel(ys, [&](std::int64_t n, const Axes& v) {
    Axes low, high;
    double part[3];
    for (std::size_t a = 0; a < 3; ++a) {
      const auto f = static_cast<double>(factor[a]), last = static_cast<double>(xs[static_cast<int>(a) + 1] - 1);
      const double source =
          linear ? std::min(std::max((static_cast<double>(v[a]) + 0.5) / f - 0.5, 0.0), last) : static_cast<double>(v[a] / factor[a]);
      low[a] = static_cast<std::int64_t>(source), part[a] = source - static_cast<double>(low[a]);
      high[a] = std::min(low[a] + 1, static_cast<std::int64_t>(last));
    }
    for (int corner = 0; corner < 8; ++corner) {
      Axes u;
      double weight = 1;
      for (std::size_t a = 0; a < 3; ++a) {
        const bool up = (corner >> a) & 1;
        u[a] = up ? high[a] : low[a], weight *= up ? part[a] : 1 - part[a];
      }
      for (std::int64_t c = 0; c < xs.c(); ++c) y[at(ys, n, v, c)] += weight * x[at(xs, n, u, c)];
    }
  });
  return y;
}

inline Doubles shuffle(const Doubles& x, const Shape& xs, const Axes& factor, const Shape& ys) {
  Doubles y(static_cast<std::size_t>(ys.elements()));
  each_voxel(ys, [&](std::int64_t n, const Axes& v) {
    Axes u;
    std::int64_t tap = 0;
    for (std::size_t a = 0; a < 3; ++a) u[a] = v[a] / factor[a], tap = tap * factor[a] + v[a] % factor[a];
    for (std::int64_t c = 0; c < ys.c(); ++c) y[at(ys, n, v, c)] = x[at(xs, n, u, c * factor[0] * factor[1] * factor[2] + tap)];
  });
  return y;
}

// The mean over a window that ends at the voxel; before the first lies its copy.
inline Doubles blur(const Doubles& x, const Shape& s, const Axes& kernel) {
  Doubles y(x.size());
  each_voxel(s, [&](std::int64_t n, const Axes& v) {
    each_voxel({1, kernel[0], kernel[1], kernel[2], 1}, [&](std::int64_t, const Axes& t) {
      const Axes u = {std::max<std::int64_t>(v[0] - t[0], 0), std::max<std::int64_t>(v[1] - t[1], 0), std::max<std::int64_t>(v[2] - t[2], 0)};
      for (std::int64_t c = 0; c < s.c(); ++c)
        y[at(s, n, v, c)] += x[at(s, n, u, c)] / static_cast<double>(kernel[0] * kernel[1] * kernel[2]);
    });
  });
  return y;
}

// Statistics over each sample (instance), over the batch, or given ones.
inline Doubles normalise(const Doubles& x, const Shape& s, bool batch, const Doubles& gamma, const Doubles& beta, double eps,
                         const Activation& f, const Doubles* given_mean = nullptr, const Doubles* given_var = nullptr) {
  Doubles y(x.size());
  for (std::int64_t n0 = 0; n0 < (batch ? 1 : s.n()); ++n0)
    for (std::int64_t c = 0; c < s.c(); ++c) {
      const auto mine = [&](std::int64_t n) { return batch || n == n0; };
      double mean = 0, var = 0, count = 0;
      each_voxel(s, [&](std::int64_t n, const Axes& v) { mine(n) ? mean += x[at(s, n, v, c)], count += 1 : 0.0; });
      mean /= count;
      each_voxel(s, [&](std::int64_t n, const Axes& v) { mine(n) ? var += std::pow(x[at(s, n, v, c)] - mean, 2) / count : 0.0; });
      const auto i = static_cast<std::size_t>(c);
      if (given_mean) mean = (*given_mean)[i], var = (*given_var)[i];
      each_voxel(s, [&](std::int64_t n, const Axes& v) {
        if (mine(n))
          y[at(s, n, v, c)] = activate(
              f, (x[at(s, n, v, c)] - mean) / std::sqrt(var + eps) * (gamma.empty() ? 1 : gamma[i]) + (beta.empty() ? 0 : beta[i]));
      });
    }
  return y;
}

// df/dx[i] for every i by the four-point central difference (error h^4).
inline Doubles numeric_gradient(const std::function<double(const Doubles&)>& f, Doubles x, double h = 1e-4) {
  Doubles g;
  for (double& v : x) {
    const double keep = v;
    const auto shifted = [&](double by) { return v = keep + by, f(x); };
    g.push_back((8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h));
    v = keep;
  }
  return g;
}

}  // namespace vg::test
