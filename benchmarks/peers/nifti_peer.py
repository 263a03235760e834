#!/usr/bin/env python3
"""nibabel's times for what benchmarks/bench_nifti.cpp does: read a head as float32, read its header, write its label map. Median and best of ten.
Usage: python3 nifti_peer.py DATA   (the folder of test data; nibabel and numpy installed)"""
import os
import statistics
import sys
import tempfile
import time

import nibabel as nib
import numpy as np

data = sys.argv[1]
head = os.path.join(data, "t1/t1_crop.nii.gz")
labels = nib.load(os.path.join(data, "models/subcortical-t1_crop-reference.nii.gz"))
values = np.asanyarray(labels.dataobj)


def timed(name, work):
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    print("%-20s median %8.2f ms   best %8.2f ms" % (name, 1e3 * statistics.median(seconds), 1e3 * min(seconds)))


timed("read_head", lambda: nib.load(head).get_fdata(dtype=np.float32, caching="unchanged"))
timed("read_header_alone", lambda: nib.load(head).header)
with tempfile.TemporaryDirectory() as folder:
    out = os.path.join(folder, "labels.nii.gz")
    timed("write_labels", lambda: nib.save(nib.Nifti1Image(values, labels.affine), out))
    print("written: %d bytes" % os.path.getsize(out))
