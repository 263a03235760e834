// Extents of a dense tensor. Activations are always (N, D, H, W, C), channels last; a 2-D image has D = 1. Weights keep PyTorch's order
// (O, I, kD, kH, kW), vectors have rank 1. Products are 64-bit: 2^31 elements are an ordinary size here.
#pragma once
#include <cassert>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace vg {

inline constexpr int kMaxRank = 5;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    assert(extents.size() <= kMaxRank);
    for (std::int64_t e : extents) dim_[rank_++] = e;
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return assert(i >= 0 && i < rank_), dim_[i]; }
  std::int64_t& operator[](int i) { return assert(i >= 0 && i < rank_), dim_[i]; }

  // The names of an activation's axes.
  std::int64_t n() const { return (*this)[0]; }
  std::int64_t d() const { return (*this)[1]; }
  std::int64_t h() const { return (*this)[2]; }
  std::int64_t w() const { return (*this)[3]; }
  std::int64_t c() const { return (*this)[4]; }
  std::int64_t voxels() const { return d() * h() * w(); }  // of one sample

  std::int64_t elements() const {
    std::int64_t total = 1;
    for (int i = 0; i < rank_; ++i) total *= dim_[i];
    return total;
  }
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.dim_[i] != b.dim_[i]) return false;
    return true;
  }

 private:
  std::int64_t dim_[kMaxRank] = {};
  int rank_ = 0;
};

// "(2, 1, 256, 256, 16)"
inline std::string to_string(const Shape& s) {
  std::string text = "(";
  for (int i = 0; i < s.rank(); ++i) text += (i ? ", " : "") + std::to_string(s[i]);
  return text + ")";
}

}  // namespace vg
