// Softmax + cross-entropy + soft Dice as one operation on logits. The logits are read twice in all: once for the loss and the class sums, once
// to write their gradient. One-hot targets and class probabilities are never stored.
//
//   p = softmax over c of logits[n, v, :]      t = 1 where c is the label, else 0      v runs over the voxels whose label is not `ignore`
//   ce   = - mean over n, v of log p[label]
//   I_c = sum p t,  P_c = sum p,  T_c = sum t          over v for each n (per_sample), or over n and v
//   dice = mean over the classes that count (and over n when per_sample) of (2 I_c + smooth_numerator) / (P_c + T_c + smooth_denominator)
//   loss = ce_weight ce + dice_weight (1 - dice)       Milletari, Navab, Ahmadi, arXiv:1606.04797; Isensee et al., Nature Methods 18, 2021
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct DiceCeParams {
  float ce_weight = 1.0f, dice_weight = 1.0f;
  float smooth_numerator = 1e-5f, smooth_denominator = 1e-5f;
  bool background = false;   // does class 0 count in dice?
  bool per_sample = false;   // one Dice per sample (MONAI's default) or over the batch
  std::int32_t ignore = -1;  // label that is left out of everything; -1: none
};

// result: (4) f32 = loss, ce, 1 - dice, voxels counted     sums: (N, C, 3) f32 = I, P, T of each sample (kept for backward)
// logits: (N, D, H, W, C) f32     labels: (N, D, H, W, 1) u8 or i32, 0..C-1 or `ignore` (checked by the caller)
// No voxel counted: loss 0.
VG_KERNEL(dice_ce_forward, Tensor& result, Tensor& sums, const Tensor& logits, const Tensor& labels, const DiceCeParams& p);
// dlogits = scale * dloss/dlogits        scale: (1) f32 on the device: the gradient from above, with the loss scale
// dlogits may be the memory of the logits when its beta is 0.
VG_KERNEL(dice_ce_backward, const Grad& dlogits, const Tensor& logits, const Tensor& labels, const Tensor& sums, const Tensor& result,
          const Tensor& scale, const DiceCeParams& p);

// y = softmax over the last axis; y may be x.                                                       (N, D, H, W, C)
VG_KERNEL(softmax, Tensor& y, const Tensor& x);

}  // namespace vg
