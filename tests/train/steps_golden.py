"""Writes steps_golden.h: learning rates of PyTorch's schedulers, and weights after a few steps of its optimizers. Usage: python3 steps_golden.py > steps_golden.h

Rates: base rate 0.02, 11 steps in all (OneCycleLR counts one more: its last value is never used for a step).
Optimizers: float64; 7 weights of two parameters (4 and 3); gradient i of step t is  g[t][i] = sin(3 i + 5 t + 1) * (2 where t is odd, else 0.5).
"""
import math, torch
from torch.optim import lr_scheduler as S

TOTAL, RATE = 11, 0.02


def schedule(make):
    p = torch.nn.Parameter(torch.zeros(1))
    o = torch.optim.AdamW([p], lr=RATE, betas=(0.9, 0.999))
    s = make(o)
    out = []
    for _ in range(TOTAL):
        out.append((o.param_groups[0]['lr'], o.param_groups[0]['betas'][0]))
        o.step()
        s.step()
    return out


def optimise(make, clip=0.0, cycle=False, steps=6):
    w = [torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)), torch.nn.Parameter(torch.tensor([1.5, -0.75, 0.0], dtype=torch.float64))]
    o = make(w)
    s = S.OneCycleLR(o, RATE, total_steps=steps + 1) if cycle else None
    for t in range(steps):
        g = torch.tensor([math.sin(3 * i + 5 * t + 1) * (2 if t % 2 else 0.5) for i in range(7)], dtype=torch.float64)
        w[0].grad, w[1].grad = g[:4].clone(), g[4:].clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(w, clip)
        o.step()
        if s:
            s.step()
    return torch.cat([p.detach() for p in w]).tolist()


rates = {
    'one_cycle': lambda o: S.OneCycleLR(o, RATE, total_steps=TOTAL + 1),
    'one_cycle_other': lambda o: S.OneCycleLR(o, RATE, total_steps=TOTAL + 1, pct_start=0.5, div_factor=10, final_div_factor=100, base_momentum=0.8, max_momentum=0.9),
    'poly': lambda o: S.PolynomialLR(o, total_iters=TOTAL, power=0.9),
    'cosine': lambda o: S.CosineAnnealingLR(o, T_max=TOTAL, eta_min=0.001),
}
cases = {
    'adamw': dict(make=lambda w: torch.optim.AdamW(w, RATE, weight_decay=0.1)),
    'adam': dict(make=lambda w: torch.optim.Adam(w, RATE, weight_decay=0.1)),
    'sgd': dict(make=lambda w: torch.optim.SGD(w, RATE, momentum=0.9, weight_decay=0.1)),
    'sgd_nesterov': dict(make=lambda w: torch.optim.SGD(w, RATE, momentum=0.9, weight_decay=0.1, nesterov=True)),
    'sgd_clipped': dict(make=lambda w: torch.optim.SGD(w, RATE, momentum=0.9), clip=1.5),
    'adamw_one_cycle': dict(make=lambda w: torch.optim.AdamW(w, RATE, weight_decay=0.1), cycle=True),
}


def rows(values):
    return ', '.join(f'{v:.12g}' for v in values)


print('// Written by steps_golden.py with PyTorch %s: do not edit.' % torch.__version__.split('+')[0])
print('#pragma once\n#include <vector>\n\nnamespace vg::test {\n')
print('struct GoldenRates {\n  const char* name;\n  std::vector<double> rate, momentum;\n};\ninline const GoldenRates kGoldenRates[] = {')
for name, make in rates.items():
    r = schedule(make)
    print(f'    {{"{name}",\n     {{{rows(a for a, _ in r)}}},\n     {{{rows(b for _, b in r)}}}}},')
print('};\nstruct GoldenWeights {\n  const char* name;\n  std::vector<double> weights;  // after 6 steps\n};\ninline const GoldenWeights kGoldenWeights[] = {')
for name, how in cases.items():
    print(f'    {{"{name}", {{{rows(optimise(**how))}}}}},')
print('};\n\n}  // namespace vg::test')
