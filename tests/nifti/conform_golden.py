#!/usr/bin/env python3
"""Golden values for conform_test.cpp: a volume by formula, resampled by nibabel (nibabel.processing.resample_from_to, order 1 and 0) to the LIA grid and back,
and the robust grey range as FreeSurfer and FastSurfer define it (numpy.histogram). Places that fall in the outermost half voxel are left out: nibabel
calls them outside, FreeSurfer inside. Run with nibabel and scipy installed: python3 conform_golden.py > conform_golden.inc"""
import numpy as np
import nibabel as nib
from nibabel.processing import resample_from_to

SHAPE, MM = (41, 37, 29), (3.5, 4.25, 5.5)


def volume():
    i, j, k = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    v = (i * 7919 + j * 104729 + k * 1299709) % 1021 + 3 * i + 2 * j
    v[(i + j + k) % 5 == 0] = 0
    return v.astype(np.float32)


def affine(b, c, d, qfac):
    h = nib.Nifti1Header()
    h.set_data_shape(SHAPE)
    h["qform_code"] = 1
    h["quatern_b"], h["quatern_c"], h["quatern_d"] = b, c, d
    h["pixdim"][0], h["pixdim"][1:4] = qfac, MM
    h["qoffset_x"], h["qoffset_y"], h["qoffset_z"] = -60, 40, 12.5
    return h.get_qform()


def robust(data):
    low, high = float(data.min()), float(data.max())
    nz, count = int((np.abs(data) >= 1e-15).sum()), data.size
    width = (high - low) / 1000
    cs = np.concatenate(([0], np.cumsum(np.histogram(data, 1000)[0])))
    idx = np.where(cs >= count - int((1.0 - 0.999) * nz))[0][0] - 2
    return low, float(255 / (idx * width))


data = volume()
low, scale = robust(data)
print("// Made by conform_golden.py with nibabel %s: quaternion b, c, d, qfac; low and scale; places (i, j, k) on the conformed grid with linear and" % nib.__version__)
print("// nearest value; places on the input's grid with the nearest value that came back from the conformed grid")
rng = np.random.default_rng(3)
for b, c, d, qfac in ((0, 0, 0, 1), (0.1, -0.2, 0.05, -1), (0.6, 0.3, -0.4, 1)):
    a = affine(b, c, d, qfac)
    img = nib.Nifti1Image(data, a)
    lia = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    lia[:3, 3] = (a @ [*(np.array(SHAPE) / 2), 1])[:3] - (lia @ [128, 128, 128, 0])[:3]
    linear = resample_from_to(img, ((256,) * 3, lia), order=1).get_fdata()
    p = np.stack(np.meshgrid(*[np.arange(256)] * 3, indexing="ij"), -1) @ (np.linalg.inv(a) @ lia)[:3, :3].T + (np.linalg.inv(a) @ lia)[:3, 3]
    size = np.array(SHAPE)
    inner = np.all((p > 0.01) & (p < size - 1.01), -1)
    outer = np.any((p < -0.51) | (p > size - 0.49), -1)
    untied = np.all(np.abs(np.mod(p + 0.5, 1) - 0.5) < 0.49, -1)  # nearest is clear
    rows = []
    for i, j, k in np.concatenate((rng.permutation(np.argwhere(inner & untied))[:24], rng.permutation(np.argwhere(outer))[:6])):
        near = np.round(p[i, j, k]).astype(int)
        nearest = data[tuple(near)] if inner[i, j, k] else 0
        rows.append("{%d, %d, %d, %.9g, %d}" % (i, j, k, linear[i, j, k], nearest))
    # Back: labels = linear values, floored; order 0 of nibabel on the input's grid.
    labels = nib.Nifti1Image(np.floor(linear).astype(np.int32), lia)
    back = resample_from_to(labels, (SHAPE, a), order=0).get_fdata()
    q = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1) @ (np.linalg.inv(lia) @ a)[:3, :3].T + (np.linalg.inv(lia) @ a)[:3, 3]
    near = np.clip(np.round(q).astype(int), 0, 255)
    clear = np.all((q > 0) & (q < 255), -1) & np.all(np.abs(np.mod(q + 0.5, 1) - 0.5) < 0.49, -1) & inner[tuple(np.moveaxis(near, -1, 0))]
    source = linear[tuple(np.moveaxis(near, -1, 0))]
    clear &= np.abs(source - np.round(source)) > 1e-2  # floor is the same in float and double
    places = rng.permutation(np.argwhere(clear))[:24] if clear.any() else np.zeros((0, 3), int)
    again = ["{%d, %d, %d, 0, %d}" % (i, j, k, back[i, j, k]) for i, j, k in places]
    print("{{%g, %g, %g}, %d, %r, %r, {%s}, {%s}}," % (b, c, d, qfac, low, scale, ", ".join(rows), ", ".join(again)))
