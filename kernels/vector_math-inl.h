// exp, expm1, log, erf and the logistic function on vectors of floats. Measured errors (tests/kernels/vector_math_test.cpp): at most 1.2
// units in the last place, the logistic function 2.3. Results below 2^-126 are flushed to zero; NaN stays NaN.
#include "kernels/simd-inl.h"

#if defined(VG_VECTOR_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef VG_VECTOR_MATH_INL_H
#undef VG_VECTOR_MATH_INL_H
#else
#define VG_VECTOR_MATH_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {

// x = n ln 2 + r with whole n and |r| <= ln 2 / 2; ln 2 = 0.693359375 - 2.12194440e-4, whose first product with n is exact.
HWY_INLINE VF reduce(VF x, VF n) { return hn::MulAdd(n, set(2.12194440e-4f), hn::NegMulAdd(n, set(0.693359375f), x)); }

// exp(r) - 1 - r = r^2 (1/2 + r/6 + ...), Moshier's coefficients (Cephes, expf.c); this is the factor of r^2.
HWY_INLINE VF exp_series(VF r) {
  VF p = set(1.9875691500e-4f);
  p = hn::MulAdd(p, r, set(1.3981999507e-3f));
  p = hn::MulAdd(p, r, set(8.3334519073e-3f));
  p = hn::MulAdd(p, r, set(4.1665795894e-2f));
  p = hn::MulAdd(p, r, set(1.6666665459e-1f));
  return hn::MulAdd(p, r, set(5.0000001201e-1f));
}

// x / ln 2 rounded to a whole number: as a float (n), and as the bits of 2^n for n in [-126, 127]. Adding 1.5 * 2^23 leaves the whole
// number in the last bits of the sum; 127 more make it a biased exponent.
HWY_INLINE VF power_of_two(VF x, VF& n) {
  constexpr float kShift = 12582912.0f + 127.0f;
  const VF shifted = hn::MulAdd(x, set(1.44269504088896341f), set(kShift));
  n = hn::Sub(shifted, set(kShift));
  return hn::BitCast(F(), hn::ShiftLeft<23>(hn::BitCast(I(), shifted)));
}

// exp(x) for x <= 0 (softmax): one scaling is enough.
HWY_INLINE VF exp_nonpositive(VF x) {
  VF n;
  const VF scale = power_of_two(x, n), r = reduce(x, n);
  const VF y = hn::Mul(hn::MulAdd(hn::MulAdd(exp_series(r), r, set(1.0f)), r, set(1.0f)), scale);
  return hn::IfThenZeroElse(hn::Lt(x, set(-87.3365479f)), y);
}

HWY_INLINE VF exp(VF x) {
  const VF n = hn::Round(hn::Mul(x, set(1.44269504088896341f))), r = reduce(x, n);
  const VI whole = hn::ConvertTo(I(), n), half = hn::ShiftRight<1>(whole), bias = hn::Set(I(), 127);  // 2^128 is not a float: two factors
  const VF scale1 = hn::BitCast(F(), hn::ShiftLeft<23>(hn::Add(half, bias)));
  const VF scale2 = hn::BitCast(F(), hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), bias)));
  VF y = hn::Mul(hn::Mul(hn::MulAdd(hn::MulAdd(exp_series(r), r, set(1.0f)), r, set(1.0f)), scale1), scale2);
  y = hn::IfThenZeroElse(hn::Lt(x, set(-87.3365479f)), y);
  return hn::IfThenElse(hn::Gt(x, set(88.7228394f)), set(__builtin_inff()), y);
}

// exp(x) - 1 for x <= 0, without the cancellation near 0.
HWY_INLINE VF expm1_nonpositive(VF x) {
  VF n;
  const VF scale = power_of_two(x, n), r = reduce(x, n);
  const VF y = hn::MulAdd(scale, hn::MulAdd(exp_series(r), hn::Mul(r, r), r), hn::Sub(scale, set(1.0f)));
  return hn::IfThenElse(hn::Lt(x, set(-87.3365479f)), set(-1.0f), y);
}

// log(x) for normal positive x (Moshier, Cephes logf.c): x = m 2^e with m in [sqrt(1/2), sqrt(2)).
HWY_INLINE VF log(VF x) {
  const VI bits = hn::Sub(hn::BitCast(I(), x), hn::Set(I(), 0x3f3504f3));  // bits of sqrt(1/2)
  const VI e = hn::ShiftRight<23>(bits);
  const VF m = hn::BitCast(F(), hn::Sub(hn::BitCast(I(), x), hn::ShiftLeft<23>(e)));
  const VF n = hn::ConvertTo(F(), e), r = hn::Sub(m, set(1.0f)), r2 = hn::Mul(r, r);
  VF p = set(7.0376836292e-2f);
  p = hn::MulAdd(p, r, set(-1.1514610310e-1f));
  p = hn::MulAdd(p, r, set(1.1676998740e-1f));
  p = hn::MulAdd(p, r, set(-1.2420140846e-1f));
  p = hn::MulAdd(p, r, set(1.4249322787e-1f));
  p = hn::MulAdd(p, r, set(-1.6668057665e-1f));
  p = hn::MulAdd(p, r, set(2.0000714765e-1f));
  p = hn::MulAdd(p, r, set(-2.4999993993e-1f));
  p = hn::MulAdd(p, r, set(3.3333331174e-1f));
  p = hn::Mul(p, hn::Mul(r, r2));
  p = hn::MulAdd(n, set(-2.12194440e-4f), p);
  p = hn::NegMulAdd(set(0.5f), r2, p);
  return hn::MulAdd(n, set(0.693359375f), hn::Add(r, p));
}

// erf(x): an odd polynomial for |x| <= 0.927734375, 1 - exp(polynomial) beyond (N. Juffa's single-precision fit).
HWY_INLINE VF erf(VF x) {
  const VF t = hn::Abs(x), s = hn::Mul(x, x);
  VF small = set(-5.96761703e-4f);
  small = hn::MulAdd(small, s, set(4.99119423e-3f));
  small = hn::MulAdd(small, s, set(-2.67681349e-2f));
  small = hn::MulAdd(small, s, set(1.12819925e-1f));
  small = hn::MulAdd(small, s, set(-3.76125336e-1f));
  small = hn::MulAdd(small, s, set(1.28379166e-1f));
  small = hn::MulAdd(small, x, x);
  const VF u = hn::Min(t, set(4.0f));  // erf(4) is 1 - 1.5e-8: 1 in single precision
  const VF u2 = hn::Mul(u, u);
  VF large = hn::MulAdd(set(-1.72853470e-5f), u, set(3.83197126e-4f));
  large = hn::MulAdd(large, u2, hn::MulAdd(set(-3.88396438e-3f), u, set(2.42546219e-2f)));
  large = hn::MulAdd(large, u, set(-1.06777877e-1f));
  large = hn::MulAdd(large, u, set(-6.34846687e-1f));
  large = hn::MulAdd(large, u, set(-1.28717512e-1f));
  large = hn::MulAdd(large, u, hn::Neg(u));
  large = hn::CopySign(hn::Sub(set(1.0f), exp_nonpositive(large)), x);
  const VF y = hn::IfThenElse(hn::Gt(t, set(0.927734375f)), large, small);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// 1 / (1 + exp(-x))
HWY_INLINE VF sigmoid(VF x) { return hn::Div(set(1.0f), hn::Add(set(1.0f), exp(hn::Neg(x)))); }

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
