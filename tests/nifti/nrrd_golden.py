#!/usr/bin/env python3
"""Makes nrrd_golden.inc: small NRRD files written by SimpleITK and pynrrd (bytes as hex), with affine and voxels as SimpleITK reads them.
Usage: python3 nrrd_golden.py > nrrd_golden.inc   (made with SimpleITK 2.5.7, pynrrd 1.1.3)"""
import os
import tempfile

import nrrd
import numpy as np
import SimpleITK as sitk

folder = tempfile.mkdtemp()
rng = np.random.default_rng(3)


def rotation(a, b):
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return rx @ rz


def from_sitk(array, vector, packed, name):
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.9, 1.25, 2.5))
    image.SetDirection(rotation(0.3, -0.2).ravel())
    image.SetOrigin((12.5, -30.25, 7))
    path = os.path.join(folder, name)
    sitk.WriteImage(image, path, useCompression=packed)
    return path


def from_pynrrd(array, header, name):
    path = os.path.join(folder, name)
    nrrd.write(path, array, header)
    return path


m = rotation(-0.4, 0.6) @ np.diag([1, 2, 3])
files = [
    from_sitk(rng.integers(-300, 300, (2, 4, 3)).astype(np.int16), False, True, "a.nrrd"),
    from_sitk(rng.integers(0, 255, (2, 2, 3, 3)).astype(np.uint8), True, False, "vector.nrrd"),
    from_pynrrd(rng.standard_normal((3, 2, 4)).astype(np.float32), {"space": "right-anterior-superior", "space directions": m.T,
                "space origin": [1, 2, 3], "encoding": "raw"}, "ras.nrrd"),
    from_pynrrd(rng.integers(0, 70000, (2, 3, 2)).astype(np.uint32), {"space": "left-anterior-superior", "space directions": m.T,
                "space origin": [-4, 5.5, 6], "encoding": "gzip"}, "las.nrrd"),
]
print("// Made by nrrd_golden.py: {name, extents, components, affine, voxels (components apart, i fastest), file}.")
for path in files:
    image = sitk.ReadImage(path)
    lps = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    ras = np.diag([-1, -1, 1]) @ np.column_stack([lps, image.GetOrigin()])
    values = sitk.GetArrayFromImage(image)
    parts = image.GetNumberOfComponentsPerPixel()
    if parts > 1:
        values = np.moveaxis(values, -1, 0)
    text = open(path, "rb").read().hex()
    print('{"%s", {%s}, %d,\n {%s},\n {%s},' % (os.path.basename(path), ", ".join(map(str, image.GetSize())), parts,
          ", ".join(repr(float(v)) for v in ras.ravel()), ", ".join(repr(float(v)) for v in values.ravel())))
    for at in range(0, len(text), 128):
        print('  "%s"' % text[at : at + 128])
    print("},")
