"""Compares the losses of a segtrain run (--progress json, one line a step) with those of ixi2d_reference.py.
Prints the largest relative difference of the first 30 steps, and of the running mean over 20 steps up to step 200. Exit 1 beyond 1 % and 5 %.
Usage: ixi2d_compare.py losses.json segtrain-lines.json"""
import json, sys
import numpy as np

reference = np.array(json.load(open(sys.argv[1])))
lines = [json.loads(line) for line in open(sys.argv[2]) if line.startswith('{')]
ours = np.array([line['loss'] for line in lines if 'of' in line])
n = min(len(reference), len(ours), 200)
first = np.abs(ours[:30] / reference[:30] - 1).max()
smooth = lambda v: np.convolve(v[:n], np.ones(20) / 20, 'valid')
late = np.abs(smooth(ours) / smooth(reference) - 1).max() if n >= 20 else float('nan')
print(f'{n} steps; largest difference: steps 1-30 {first:.2e} (bar 1e-2); mean over 20 steps up to step {n} {late:.2e} (bar 5e-2)')
sys.exit(not (first <= 0.01 and late <= 0.05))
