#!/usr/bin/env python3
"""Prints zip64_golden.inc: an archive of two files whose numbers all stand in zip64 records, written by Python's zipfile."""
import io
import zipfile

zipfile.ZIP64_LIMIT = 1  # whatever is larger goes there
zipfile.ZIP_FILECOUNT_LIMIT = 1
out = io.BytesIO()
with zipfile.ZipFile(out, "w") as z:
    for name, method in (("stored.txt", zipfile.ZIP_STORED), ("packed.txt", zipfile.ZIP_DEFLATED)):
        info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        info.compress_type = method
        with z.open(info, "w", force_zip64=True) as f:
            f.write(b"voxels " * 20)
print('// Made by zip64_golden.py: the archive as hexadecimal')
data = out.getvalue()
assert b"PK\x06\x06" in data and b"PK\x06\x07" in data
for start in range(0, len(data), 60):
    print('"%s"' % data[start:start + 60].hex())
