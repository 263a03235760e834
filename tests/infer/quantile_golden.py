#!/usr/bin/env python3
"""Prints the quantiles that recipe_test.cpp expects: numpy.quantile of float32 values that both sides can make.

value(i) = float32(k) / float32(977) - float32(40) with k = (7919 i + 13 i^2) mod 100003; "bytes": float32(k mod 128).
"""
import numpy as np

Q = [0.0, 0.02, 0.25, 0.5, 0.9, 0.98, 1.0]
for n in (1, 2, 3, 17, 10007, 300007):
    i = np.arange(n, dtype=np.int64)
    k = (7919 * i + 13 * i * i) % 100003
    spread = k.astype(np.float32) / np.float32(977) - np.float32(40)
    for name, v in (("false", spread), ("true", (k % 128).astype(np.float32))):
        print(f"{{{n}, {name}, {{{', '.join(float(np.float32(np.quantile(v, q))).hex() + 'f' for q in Q)}}}}},")
print("// numpy", np.__version__)
