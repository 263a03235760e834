#!/usr/bin/env python3
"""Golden values for geometry_test.cpp from nibabel: orientation codes, qform affines and reoriented affines of random transforms.
Run with nibabel and numpy installed: python3 geometry_golden.py > geometry_golden.inc"""
import numpy as np
import nibabel as nib
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

rng = np.random.default_rng(7)
print("// Made by geometry_golden.py with nibabel", nib.__version__)
print("// {b, c, d}, {offset}, {spacing}, qfac, affine rows (12), code, code reached, affine rows after reorientation of a 5 x 6 x 7 box (12)")
codes = ["RAS", "LIA", "LPS", "ASR", "IRP", "SLA"]
for n in range(18):
    q = rng.normal(size=4)
    q /= np.linalg.norm(q)
    q *= np.sign(q[0])
    h = nib.Nifti1Header()
    h.set_data_shape((5, 6, 7))
    h["qform_code"] = 1
    h["quatern_b"], h["quatern_c"], h["quatern_d"] = q[1:]
    h["pixdim"][1:4] = rng.uniform(0.4, 4, 3)
    h["pixdim"][0] = qfac = 1 if n % 2 else -1
    for name, v in zip(("qoffset_x", "qoffset_y", "qoffset_z"), rng.uniform(-200, 200, 3)):
        h[name] = v
    a = h.get_qform()
    target = codes[n % len(codes)]
    t = ornt_transform(io_orientation(a), axcodes2ornt(target))
    b = a @ inv_ornt_aff(t, (5, 6, 7))
    show = lambda v: "{" + ", ".join(repr(float(x)) for x in np.ravel(v)) + "}"
    print("{%s, %s, %s, %d, %s, \"%s\", \"%s\", %s}," % (
        show([h["quatern_b"], h["quatern_c"], h["quatern_d"]]), show([h["qoffset_x"], h["qoffset_y"], h["qoffset_z"]]), show(h["pixdim"][1:4]), qfac,
        show(a[:3]), "".join(aff2axcodes(a)), target, show(b[:3])))
