"""Golden values of cubic B-spline resampling: scipy.ndimage, order 3, mode "mirror", places clamped to the outermost voxel centres.

  python3 tests/nifti/cubic_golden.py > tests/nifti/cubic_golden.inc
"""
import numpy as np
import scipy
from scipy import ndimage

rng = np.random.default_rng(11)
print(f"// Made by cubic_golden.py with scipy {scipy.__version__}: source extents (i, j, k), target extents, target voxel -> source voxel (3 rows of 4),")
print("// values at all target voxels, k slowest; voxels more than half a voxel outside: -7.")
for size, wanted in (((7, 5, 6), (4, 5, 3)), ((17, 1, 7), (6, 2, 4)), ((2, 33, 3), (3, 5, 4)), ((1, 1, 1), (2, 1, 1))):
    i, j, k = np.meshgrid(*map(np.arange, size), indexing="ij")
    values = ((i * 7919 + j * 104729 + k * 1299709) % 1021).astype(float)
    m = np.diag([(s - 1) / max(w - 1, 1) * 1.07 for s, w in zip(size, wanted)]) + rng.uniform(-0.06, 0.06, (3, 3))
    t = rng.uniform(-0.3, 0.3, 3)
    ti, tj, tk = np.meshgrid(*map(np.arange, wanted), indexing="ij")
    p = np.tensordot(m, np.stack([ti, tj, tk]).astype(float), 1) + t[:, None, None, None]
    inside = np.all([(p[a] >= -0.5) & (p[a] <= size[a] - 0.5) for a in range(3)], axis=0)
    clamped = np.stack([np.clip(p[a], 0, size[a] - 1) for a in range(3)])
    out = np.where(inside, ndimage.map_coordinates(values, clamped, order=3, mode="mirror"), -7)
    show = lambda v: "{" + ", ".join(repr(round(float(x), 9)) for x in v) + "}"
    exact = lambda v: "{" + ", ".join(repr(float(x)) for x in v) + "}"
    print("{%s, %s, %s,\n %s}," % (show(size), show(wanted), exact(np.column_stack([m, t]).ravel()), show(out.transpose(2, 1, 0).ravel())))
