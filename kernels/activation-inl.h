// The activation functions on vectors, one type each, so that a kernel's inner loop is compiled for its activation: activation, norm and
// conv.
//
//   with_activation(p, [&](auto f) HWY_ATTR { ... y = f.forward(x);  dx = f.backward(dy, x); });
//
// backward gives dy f'(x); at x = 0 as PyTorch (kernels/activation.h). prelu has a slope per channel and is not among them.
#include "kernels/activation.h"
#include "kernels/vector_math-inl.h"

#if defined(VG_ACTIVATION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef VG_ACTIVATION_INL_H
#undef VG_ACTIVATION_INL_H
#else
#define VG_ACTIVATION_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {

struct Identity {
  HWY_INLINE VF forward(VF x) const { return x; }
  HWY_INLINE VF backward(VF dy, VF) const { return dy; }
};

struct Relu {
  HWY_INLINE VF forward(VF x) const { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(F())), x); }  // NaN stays NaN
  HWY_INLINE VF backward(VF dy, VF x) const { return hn::IfThenZeroElse(hn::Le(x, hn::Zero(F())), dy); }
};

struct LeakyRelu {
  float alpha;
  HWY_INLINE VF forward(VF x) const { return hn::IfThenElse(hn::Lt(x, hn::Zero(F())), hn::Mul(set(alpha), x), x); }
  HWY_INLINE VF backward(VF dy, VF x) const { return hn::IfThenElse(hn::Gt(x, hn::Zero(F())), dy, hn::Mul(set(alpha), dy)); }
};

struct Elu {
  float alpha;
  HWY_INLINE VF forward(VF x) const {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(F())), hn::Mul(set(alpha), expm1_nonpositive(hn::Min(x, hn::Zero(F())))), x);
  }
  HWY_INLINE VF backward(VF dy, VF x) const {
    return hn::IfThenElse(hn::Gt(x, hn::Zero(F())), dy, hn::Mul(hn::Mul(set(alpha), exp_nonpositive(hn::Min(x, hn::Zero(F())))), dy));
  }
};

struct Gelu {
  static HWY_INLINE VF cdf(VF x) { return hn::MulAdd(set(0.5f), erf(hn::Mul(x, set(0.70710678118654752f))), set(0.5f)); }
  HWY_INLINE VF forward(VF x) const { return hn::Mul(x, cdf(x)); }
  HWY_INLINE VF backward(VF dy, VF x) const {  // f' = cdf + x pdf
    const VF pdf = hn::Mul(set(0.39894228040143268f), exp_nonpositive(hn::Mul(set(-0.5f), hn::Mul(x, x))));
    return hn::Mul(dy, hn::MulAdd(x, pdf, cdf(x)));
  }
};

struct GeluTanh {                                    // x/2 (1 + tanh u) = x sigmoid(2u), which has no cancellation for negative x
  static constexpr float k2 = 1.59576912160573071f;  // 2 sqrt(2 / pi)
  HWY_INLINE VF forward(VF x) const {
    const VF u2 = hn::Mul(hn::Mul(set(k2), x), hn::MulAdd(set(0.044715f), hn::Mul(x, x), set(1.0f)));
    return hn::Mul(x, sigmoid(u2));
  }
  HWY_INLINE VF backward(VF dy, VF x) const {
    const VF x2 = hn::Mul(x, x), u2 = hn::Mul(hn::Mul(set(k2), x), hn::MulAdd(set(0.044715f), x2, set(1.0f))), s = sigmoid(u2);
    const VF slope = hn::Mul(set(k2), hn::MulAdd(set(3 * 0.044715f), x2, set(1.0f)));  // d(2u)/dx
    return hn::Mul(dy, hn::MulAdd(hn::Mul(hn::Mul(x, s), sigmoid(hn::Neg(u2))), slope, s));
  }
};

struct Silu {
  HWY_INLINE VF forward(VF x) const { return hn::Mul(x, sigmoid(x)); }
  HWY_INLINE VF backward(VF dy, VF x) const {
    const VF s = sigmoid(x);
    return hn::Mul(dy, hn::MulAdd(hn::Mul(x, s), sigmoid(hn::Neg(x)), s));
  }
};

struct Sigmoid {
  HWY_INLINE VF forward(VF x) const { return sigmoid(x); }
  HWY_INLINE VF backward(VF dy, VF x) const { return hn::Mul(dy, hn::Mul(sigmoid(x), sigmoid(hn::Neg(x)))); }
};

// body(f) with the type that p names. prelu: identity (its callers do not come here with it).
template <class Body>
HWY_INLINE void with_activation(const Activation& p, const Body& body) {
  switch (p.kind) {
    case ActivationKind::relu: return body(Relu{});
    case ActivationKind::leaky_relu: return body(LeakyRelu{p.alpha});
    case ActivationKind::elu: return body(Elu{p.alpha});
    case ActivationKind::gelu: return body(Gelu{});
    case ActivationKind::gelu_tanh: return body(GeluTanh{});
    case ActivationKind::silu: return body(Silu{});
    case ActivationKind::sigmoid: return body(Sigmoid{});
    case ActivationKind::identity:
    case ActivationKind::prelu: return body(Identity{});
  }
}

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
