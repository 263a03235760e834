#!/usr/bin/env python3
"""nibabel and ITK against bench_nifti on the same files, turn by turn: read heads as float32, read a header, write a label map.
Usage: python3 nifti_peer.py DATA BENCH_NIFTI [ROUNDS]   (the folder of test data, our program; nibabel, numpy and SimpleITK installed)
Prints medians in ms and the ratios theirs / ours. Other work on the machine strikes all alike: rounds alternate."""
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import nibabel as nib
import numpy as np
import SimpleITK as sitk

data, program = sys.argv[1], sys.argv[2]
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 7
heads = sorted(glob.glob(os.path.join(data, "t1/*.nii.gz")))
label_file = os.path.join(data, "models/subcortical-t1_crop-reference.nii.gz")
labels = nib.load(label_file)
values = np.asanyarray(labels.dataobj)
folder = tempfile.mkdtemp()
out = os.path.join(folder, "labels.nii.gz")


def read(path):
    nib.load(path).get_fdata(dtype=np.float32, caching="unchanged")


def write():
    nib.save(nib.Nifti1Image(values, labels.affine), out)


def itk_header():
    reader = sitk.ImageFileReader()
    reader.SetFileName(heads[-1])
    reader.ReadImageInformation()


def milliseconds(work):
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


itk_labels = sitk.ReadImage(label_file)
theirs = {"read_head/" + os.path.basename(p): (lambda p=p: read(p), lambda p=p: sitk.ReadImage(p, sitk.sitkFloat32)) for p in heads}
theirs["read_header_alone"] = lambda: nib.load(heads[-1]).header, itk_header
theirs["read_labels_of_a_head"] = (lambda: np.asanyarray(nib.load(label_file).dataobj).astype(np.int32),
                                   lambda: sitk.ReadImage(label_file, sitk.sitkInt32))
theirs["write_labels"] = write, lambda: sitk.WriteImage(itk_labels, out, useCompression=True)
times = {name: ([], [], []) for name in theirs}
sizes = {}
for _ in range(rounds):
    for name, (nibabel, itk) in theirs.items():
        times[name][0].append(milliseconds(nibabel))
        if name == "write_labels":
            sizes["nibabel"] = os.path.getsize(out)
        times[name][1].append(milliseconds(itk))
        answer = subprocess.run([program, "--benchmark_filter=^%s(/real_time)?$" % name.replace(".", r"\."), "--benchmark_min_time=0.15",
                                 "--benchmark_format=json"], capture_output=True, env=dict(os.environ, VG_TEST_DATA=data), check=True)
        for b in json.loads(answer.stdout)["benchmarks"]:
            times[name][2].append(b["real_time"] * {"ms": 1, "us": 1e-3}[b["time_unit"]])
            if "bytes" in b:
                sizes["ours"] = int(b["bytes"])
print("| what | nibabel %s, ms | ITK %s, ms | ours, ms | nibabel / ours | ITK / ours |\n|---|---:|---:|---:|---:|---:|" %
      (nib.__version__, sitk.Version_ITKVersionString()))
for name, samples in times.items():
    nibabel, itk, ours = (statistics.median(s) for s in samples)
    print("| %s | %.4g | %.4g | %.4g | %.1f | %.1f |" % (name, nibabel, itk, ours, nibabel / ours, itk / ours))
print("label map: nibabel %d bytes, ours %d" % (sizes["nibabel"], sizes.get("ours", 0)))
os.remove(out)
os.rmdir(folder)
