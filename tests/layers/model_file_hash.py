#!/usr/bin/env python3
"""Computes vg.sha256 of a model file as layers/model_file.h describes it, and compares it with the stored one.

Written against the description, not against the C++ code: the golden value in model_file_test.cpp comes from here.
With --logits it also runs the file's graph (convolutions only, as a MeshNet has) in PyTorch on golden.input.
"""
import hashlib
import json
import struct
import sys


def content_hash(path):
    blob = open(path, "rb").read()
    n = struct.unpack("<Q", blob[:8])[0]
    header, data = json.loads(blob[8:8 + n]), blob[8 + n:]
    meta = header.pop("__metadata__")
    parts = []
    u64 = lambda v: parts.append(struct.pack("<Q", v))
    text = lambda t: (u64(len(t)), parts.append(t))
    for key in sorted(k.encode() for k in meta):
        if key != b"vg.sha256":
            text(key), text(meta[key.decode()].encode())
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        text(name.encode()), text(info["dtype"].encode()), u64(len(info["shape"]))
        for extent in info["shape"]:
            u64(extent)
        parts.append(data[slice(*info["data_offsets"])])
    return hashlib.sha256(b"".join(parts)).hexdigest(), meta


def logits_difference(path, graph):
    import torch.nn.functional as F
    from safetensors.torch import load_file
    tensors = load_file(path)
    x = tensors["golden.input"]
    functions = {"elu": F.elu, "relu": F.relu, "gelu": F.gelu}
    for node in graph["nodes"]:
        a, p = node.get("attributes", {}), node.get("params", {})
        if node["op"] == "conv":
            x = F.conv3d(x, tensors[p["weight"]], tensors.get(p.get("bias")), padding=a.get("pad", 0), dilation=a.get("dilation", 1))
        elif node["op"] == "norm":
            x = F.instance_norm(x, eps=1e-5)
        f = a.get("activation")
        if f:
            x = functions[f["kind"] if isinstance(f, dict) else f](x)
    return float((x - tensors["golden.logits"]).abs().max())


if __name__ == "__main__":
    for path in [a for a in sys.argv[1:] if not a.startswith("-")]:
        digest, meta = content_hash(path)
        print(path, digest, "as stored" if digest == meta["vg.sha256"] else "NOT as stored")
        if "--logits" in sys.argv:
            print("  largest difference of a logit from PyTorch:", logits_difference(path, json.loads(meta["vg.graph"])))
