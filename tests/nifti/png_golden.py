#!/usr/bin/env python3
"""Small PNG files of every kind for png_test.cpp, with the sample values they hold: pixels by formula, packed by hand with zlib (no PNG library), checked
with Pillow. Run with pillow installed: python3 png_golden.py > png_golden.inc"""
import io
import struct
import zlib

from PIL import Image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sample(x, y, c, depth):
    return (x * 7 + y * 13 + c * 5 + x * y) % (1 << depth)


def packed_rows(xs, ys, channels, depth, filt):
    out, before = b"", None
    for y in ys:
        if depth == 16:
            row = b"".join(struct.pack(">H", sample(x, y, c, 16) * 257 % 65536) for x in xs for c in range(channels))
        else:
            bits = "".join(format(sample(x, y, c, depth), "0%db" % depth) for x in xs for c in range(channels))
            bits += "0" * (-len(bits) % 8)
            row = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
        if not row:
            continue
        bpp = max(1, depth * channels // 8)
        up = before or bytes(len(row))
        coded = bytearray()
        for i, v in enumerate(row):
            a, b, c = (row[i - bpp] if i >= bpp else 0), up[i], (up[i - bpp] if i >= bpp else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            coded.append((v - [0, a, b, (a + b) // 2, paeth][filt]) % 256)
        out += bytes([filt]) + bytes(coded)
        before = row
    return out


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(w, h, depth, colour, interlaced, filt):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced))
    data += chunk(b"gAMA", struct.pack(">I", 45455))
    if colour == 3:
        data += chunk(b"PLTE", bytes((i * 3 + c * 50) % 256 for i in range(1 << depth) for c in range(3)))
    if interlaced:
        rows = b"".join(packed_rows(range(x0, w, dx), range(y0, h, dy), channels, depth, filt) for x0, y0, dx, dy in ADAM7)
    else:
        rows = packed_rows(range(w), range(h), channels, depth, filt)
    packed = zlib.compress(rows, 9)
    data += chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", b"") + chunk(b"IDAT", packed[9:]) + chunk(b"IEND", b"")
    Image.open(io.BytesIO(data)).load()
    return data


print("// Made by png_golden.py: width, height, depth, colour type, interlaced, filter, file as hexadecimal digits")
kinds = [(0, d) for d in (1, 2, 4, 8, 16)] + [(3, d) for d in (1, 2, 4, 8)] + [(2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]
for n, (colour, depth) in enumerate(kinds):
    for w, h, interlaced in ((5, 3, 0), (9, 7, 1), (1, 6, 1)):
        f = (n + w) % 5
        print('{%d, %d, %d, %d, %d, %d, "%s"},' % (w, h, depth, colour, interlaced, f, png(w, h, depth, colour, interlaced, f).hex()))
