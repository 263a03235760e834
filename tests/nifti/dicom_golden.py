"""Golden values of DICOM series: shape, affine (RAS) and moments, from pydicom and numpy alone. Writes dicom_golden.inc.

  python3 tests/nifti/dicom_golden.py ../shared/data/formats > tests/nifti/dicom_golden.inc
"""
import math
import os
import sys

import numpy as np
import pydicom

SERIES = ["dcm_qa_nih/In/20180918GE/mr_0004", "dcm_qa_stc/In/GE/RTIA/2_epiRT_ascending", "dcm_qa_philips/In/Magdeburg_2014/fmri",
          "dcm_qa_enh/In/Siemens/XA10", "nitest-balls1/DICOM/T1.dcm", "nitest-balls1/DICOM/T2-interleaved.dcm", "nitest-balls1/DICOM/T2_.dcm",
          "nitest-balls1/DICOM/fieldmap.dcm", "papaya/dicom", "pydicom/MR_small.dcm", "pydicom/CT_small.dcm", "pydicom/rtdose.dcm"]


def group(ds, frame, sequence, name):
    """An element of a frame's functional group, of the shared one, or of the data set."""
    for part in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        if part in ds:
            item = ds[part][frame if part.startswith("Per") else 0]
            if sequence in item and name in item[sequence][0]:
                return item[sequence][0][name].value
    return ds.get(name)


def slices(ds):
    frames = int(ds.get("NumberOfFrames", 1))
    pixels = ds.pixel_array.reshape(frames, ds.Rows, ds.Columns)
    for f in range(frames):
        o = np.array(group(ds, f, "PlaneOrientationSequence", "ImageOrientationPatient"), float)
        p = np.array(group(ds, f, "PlanePositionSequence", "ImagePositionPatient"), float)
        s = np.array(group(ds, f, "PixelMeasuresSequence", "PixelSpacing"), float)
        if "GridFrameOffsetVector" in ds:
            p = p + np.cross(o[:3], o[3:]) * (float(ds.GridFrameOffsetVector[f]) - float(ds.GridFrameOffsetVector[0]))
        slope = group(ds, f, "PixelValueTransformationSequence", "RescaleSlope")
        inter = group(ds, f, "PixelValueTransformationSequence", "RescaleIntercept")
        slope = float(ds.get("DoseGridScaling", 1)) if slope is None else float(slope)
        thick = group(ds, f, "PixelMeasuresSequence", "SpacingBetweenSlices") or group(ds, f, "PixelMeasuresSequence", "SliceThickness") or 1
        yield o, p, s, float(thick), pixels[f].astype(np.float64) * slope + float(inter or 0)


print(f"// Made by dicom_golden.py with pydicom {pydicom.__version__}: path; extents i, j, k, times; affine rows (RAS); sum of the values, sum of slice "
      "index x value,\n// least and largest value.")
for name in SERIES:
    path = os.path.join(sys.argv[1], name)
    files = [path] if os.path.isfile(path) else [os.path.join(path, f) for f in sorted(os.listdir(path)) if f.endswith(".dcm")]
    every = [s for f in files for s in slices(pydicom.dcmread(f))]
    o, _, spacing, thick, _ = every[0]
    normal = np.cross(o[:3], o[3:])
    at = {}
    for s in every:
        at.setdefault(round(float(s[1] @ normal), 2), []).append(s)
    keys = sorted(at)
    first, last = at[keys[0]][0][1], at[keys[-1]][0][1]
    step = (last - first) / (len(keys) - 1) if len(keys) > 1 else normal * thick
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = o[:3] * spacing[1], o[3:] * spacing[0], step, first
    affine = np.diag([-1, -1, 1, 1]) @ affine
    values = [s[4] for s in every]
    times = len(every) // len(keys)
    rows, columns = values[0].shape
    # By place: the order of slices shows in these, which the sum over all does not.
    places = [sum(float(np.sum(s[4])) for s in at[k]) for k in keys]
    weighted = math.fsum(k * v for k, v in enumerate(places))
    numbers = ", ".join(repr(float(v)) for v in affine[:3].ravel())
    print(f'{{"{name}", {{{columns}, {rows}, {len(keys)}, {times}}}, {{{numbers}}}, {math.fsum(places)!r}, {weighted!r}, '
          f'{min(float(v.min()) for v in values)!r}, {max(float(v.max()) for v in values)!r}}},')
