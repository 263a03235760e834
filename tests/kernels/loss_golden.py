"""Writes loss_golden.h: the loss and its gradient from PyTorch's cross_entropy and MONAI's DiceLoss. Usage: python3 loss_golden.py > loss_golden.h

The shape is that of loss_test.cpp: logits (N, D, H, W, C) = (2, 1, 2, 3, 4), labels (2, 1, 2, 3, 1).
"""
import torch
from monai.losses import DiceLoss

torch.manual_seed(20)
N, D, H, W, C = 2, 1, 2, 3, 4
logits = torch.randn(N, D, H, W, C, dtype=torch.float64).float()
labels = torch.randint(0, C, (N, D, H, W))


def literal(values):
    return ", ".join(f"{v:.9g}" for v in values)


def floats(values):
    return ", ".join(f"{v:#.9g}f" for v in values)


cases = []
for background in (False, True):
    for per_sample in (False, True):
        x = logits.double().permute(0, 4, 1, 2, 3).clone().requires_grad_()  # channels first, as both libraries want
        dice = DiceLoss(include_background=background, to_onehot_y=True, softmax=True, batch=not per_sample, smooth_nr=1e-5, smooth_dr=1e-5)
        loss = torch.nn.functional.cross_entropy(x, labels) + dice(x, labels[:, None])
        loss.backward()
        cases.append((background, per_sample, loss.item(), x.grad.permute(0, 2, 3, 4, 1).flatten().tolist()))

print("// Written by loss_golden.py with PyTorch %s and MONAI: do not edit." % torch.__version__.split("+")[0])
print("#pragma once\n#include <cstdint>\n#include <vector>\n\n#include \"kernels/loss.h\"\n\nnamespace vg::test {\n")
print("inline const std::vector<float> kGoldenLogits = {%s};" % floats(logits.flatten().tolist()))
print("inline const std::vector<std::int32_t> kGoldenLabels = {%s};" % ", ".join(map(str, labels.flatten().tolist())))
print("struct Golden {\n  const char* name;\n  DiceCeParams p;\n  double loss;\n  std::vector<double> gradient;\n};\ninline const Golden kGolden[] = {")
for background, per_sample, loss, gradient in cases:
    name = f"{'with' if background else 'without'} background, per {'sample' if per_sample else 'batch'}"
    flags = f"{{.background = {str(background).lower()}, .per_sample = {str(per_sample).lower()}}}"
    print(f"    {{\"{name}\",\n     {flags},\n     {loss:.12g},\n     {{{literal(gradient)}}}}},")
print("};\n\n}  // namespace vg::test")
