#!/usr/bin/env python3
"""Makes mgh_golden.inc: small MGH files as nibabel writes them (bytes as hex) and the affines it reads from them.
Usage: python3 mgh_golden.py > mgh_golden.inc   (made with nibabel 5.4.2, numpy 2.4.6)"""
import io

import nibabel as nib
import numpy as np


def oblique():
    a, b = 0.3, -0.2
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    m = np.eye(4)
    m[:3, :3] = rx @ rz @ np.diag([-0.9, 1.25, 2.5])
    m[:3, 3] = [12.5, -30.25, 7]
    return m


def lia():
    return np.array([[-1, 0, 0, 2], [0, 0, 1, -1.5], [0, -1, 0, 1], [0, 0, 0, 1]], float)


rng = np.random.default_rng(5)
cases = [
    ("uint8", (3, 4, 2), lia(), 0),
    ("int16", (5, 1, 3), oblique(), 0),
    ("int32", (2, 3, 2), oblique(), 0),
    ("float32", (3, 2, 2, 2), lia(), 2300.0),
]
print("// Made by mgh_golden.py: {type, extents, TR in ms, affine as nibabel reads it, file as nibabel writes it}.")
for dtype, shape, affine, tr in cases:
    if dtype == "float32":
        values = rng.standard_normal(shape).astype(dtype)
    else:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    image = nib.MGHImage(values, affine)
    if tr:
        image.header["tr"] = tr
    buffer = io.BytesIO()
    image.file_map["image"].fileobj = buffer
    image.to_file_map()
    back = nib.MGHImage.from_bytes(buffer.getvalue())
    assert np.array_equal(np.asanyarray(back.dataobj), values)
    number = {"uint8": "u8", "int16": "i16", "int32": "i32", "float32": "f32"}[dtype]
    rows = ", ".join(", ".join(repr(float(v)) for v in row) for row in back.affine[:3])
    print("{Number::%s, {%s}, %r,\n {%s}," % (number, ", ".join(map(str, shape)), float(tr), rows))
    text = buffer.getvalue().hex()
    for at in range(0, len(text), 128):
        print('  "%s"' % text[at : at + 128])
    print("},")
