#!/usr/bin/env python3
"""Makes sweep_golden.inc: nibabel's verdict (A: header and voxels load, R: refused) on the fixture's file with every byte of the header set
to every value, and with every field set to hostile values in both byte orders.
Usage: python3 sweep_golden.py > sweep_golden.inc   (made with nibabel 5.4.2; a minute)"""
import logging
import struct
import warnings

import nibabel as nib
import numpy as np

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")


def base(order):
    b = bytearray(400)
    put = lambda form, at, *values: struct.pack_into(order + form, b, at, *values)
    put("i", 0, 348), put("8h", 40, 3, 2, 3, 4, 1, 1, 1, 1), put("2h", 70, 4, 16), put("8f", 76, 1, 1, 2, 3, 1, 1, 1, 1)
    put("f", 108, 352), put("h", 254, 1), put("f", 292, -10), put("24h", 352, *range(1, 25))
    for row in range(3):
        put("f", 280 + 20 * row, row + 1)
    b[344:348] = b"n+1\0"
    return b


def accepted(b):
    try:
        np.asanyarray(nib.Nifti1Image.from_bytes(bytes(b)).dataobj)
        return True
    except Exception:
        return False


print("// Made by sweep_golden.py with nibabel %s." % nib.__version__)
print("// Values of one byte (little-endian file) that are refused: {byte, first, last}.")
print("const Refused kRefused[] = {")
little = base("<")
line = ""
for at in range(352):
    first = None
    for value in range(257):
        b = bytearray(little)
        refused = value < 256 and not accepted(b[:at] + bytes([value]) + b[at + 1 :])
        if refused and first is None:
            first = value
        if not refused and first is not None:
            line += "{%d, %d, %d}, " % (at, first, value - 1)
            first = None
    if len(line) > 100:
        print(line.rstrip())
        line = ""
print(line.rstrip() + "\n};")

print('// Fields: {byte, value as little-endian hex, verdict for the little-endian file and the big-endian one}.')
print("const Field kFields[] = {")
integers = [0, 1, -1, 2, -2, 8, 100, 255, 348, 32767]
reals = [0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-40, 1e38, -1e38, 0.5, 353.0]
line = ""
for name, (kind, start) in sorted(((n, f[:2]) for n, f in nib.Nifti1Header.template_dtype.fields.items()), key=lambda x: x[1][1]):
    item, count = (kind.subdtype[0], kind.itemsize // kind.subdtype[0].itemsize) if kind.subdtype else (kind, 1)
    for n in range(count):
        at, size = start + n * item.itemsize, item.itemsize
        if item.kind == "f":
            values = [struct.pack("<f", v) for v in reals]
        elif item.kind == "S" or size == 1:
            values = [bytes(size), b"\xff" * size, b"ni1\0"[:size].ljust(size, b"\0"), b"n+2\0"[:size].ljust(size, b"n")]
        else:
            low, high = -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1
            values = [v.to_bytes(size, "little", signed=True) for v in integers + [low, high]]
        for v in values:
            verdicts = ""
            for order in "<>":
                b = base(order)
                b[at : at + size] = v if order == "<" or item.kind == "S" else v[::-1]
                verdicts += "A" if accepted(b) else "R"
            line += '{%d, %d, "%s", "%s"}, ' % (at, item.kind != "S", v.hex(), verdicts)
            if len(line) > 90:
                print(line.rstrip())
                line = ""
print(line.rstrip() + "\n};")
