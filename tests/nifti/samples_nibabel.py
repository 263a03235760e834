#!/usr/bin/env python3
"""Reads what samples_test.cpp wrote with nibabel: stored voxels bit for bit, shape, type, scaling, extensions, affine.
Usage: VG_SAMPLES=FOLDER test_nifti --gtest_filter='Samples.*' && python3 samples_nibabel.py FOLDER   (nibabel 5.4.2)"""
import hashlib
import json
import os
import sys

import nibabel as nib
import numpy as np

folder = sys.argv[1]
samples = json.load(open(os.path.join(folder, "samples.json")))
for s in samples:
    image = nib.load(os.path.join(folder, s["file"]))
    mgh = isinstance(image, nib.MGHImage)
    raw = image.dataobj.get_unscaled() if not mgh else np.asanyarray(image.dataobj)
    assert list(image.shape) == s["shape"], s
    assert raw.dtype.newbyteorder("<") == np.dtype(s["type"]), s
    voxels = raw.astype(raw.dtype.newbyteorder("<")).tobytes(order="F")
    assert hashlib.sha256(voxels).hexdigest() == s["sha256"], s
    assert np.array_equal(image.affine, s["affine"]) if not mgh else np.allclose(image.affine, s["affine"], rtol=0, atol=1e-4), s
    if not mgh:
        assert (image.dataobj.slope, image.dataobj.inter) == (s["slope"], s["inter"]), s
        assert len(image.header.extensions) == s["extensions"], s
        qform, code = image.get_qform(coded=True)
        assert code > 0 and np.allclose(qform, image.affine, rtol=0, atol=1e-3), s
print("%d files of ours read by nibabel %s: voxels and affines equal" % (len(samples), nib.__version__))
