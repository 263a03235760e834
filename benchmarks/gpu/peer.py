#!/usr/bin/env python3
"""PyTorch on this GPU, plain: the training step of the DynamicUnet on ResNet-34 (dynamic_unet_peer.py; 44 and 374 classes, 2 x 3 x 256 x 256), of a plain
3-D U-Net 16..256 at 96^3 (33 classes), and 64 slices through the first; fp32, tf32, bf16 autocast. Prints one JSON object of seconds (medians).
Usage: peer.py [--quick]      (--quick: tiny sizes; --device cpu runs it without a GPU)"""
import argparse
import json
import statistics
import time

import torch
from torch import nn

from dynamic_unet_peer import DynamicUnet, loss_of


def block(i, o, stride=1):
    return nn.Sequential(nn.Conv3d(i, o, 3, stride, 1), nn.InstanceNorm3d(o), nn.LeakyReLU(0.01), nn.Conv3d(o, o, 3, 1, 1), nn.InstanceNorm3d(o), nn.LeakyReLU(0.01))


class Unet3d(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.down = nn.ModuleList(block(a, b, 1 if n == 0 else 2) for n, (a, b) in enumerate(zip([1] + features, features)))
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in zip(features, features[1:]))
        self.merge = nn.ModuleList(block(2 * a, a) for a in features[:-1])
        self.head = nn.Conv3d(features[0], classes, 1)

    def forward(self, x):
        skips = []
        for d in self.down:
            x = d(x)
            skips.append(x)
        for n in reversed(range(len(self.up))):
            x = self.merge[n](torch.cat([self.up[n](x), skips[n]], 1))
        return self.head(x)


def seconds(work, device, repetitions):
    times = []
    for n in range(repetitions + 3):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if n >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    p.add_argument("--device", default="cuda")
    a = p.parse_args()
    device, n = torch.device(a.device), 1 if a.quick else 10
    size, cube, features = (64, 16, [4, 8]) if a.quick else (256, 96, [16, 32, 64, 128, 256])
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True

    def train(net, x, y, loss, bf16):
        optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=device.type == "cuda")

        def step():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                out = net(x)
            loss(out.float(), y).backward()
            optimizer.step()
        return seconds(step, device, n)

    def dice_ce_3d(out, y):
        p, t = out.softmax(1), nn.functional.one_hot(y, out.shape[1]).movedim(-1, 1).to(out.dtype)
        dice = (2 * (p * t).sum((0, 2, 3, 4)) + 1e-5) / ((p + t).sum((0, 2, 3, 4)) + 1e-5)
        return nn.functional.cross_entropy(out, y) + 1 - dice.mean()

    result = {"peer": "torch " + torch.__version__, "device": torch.cuda.get_device_name() if device.type == "cuda" else a.device, "cases": {}}
    for mode in ("fp32", "tf32", "bf16"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode == "tf32"
        for name, classes in (("dynunet2d", 44), ("origin", 374)):
            net = DynamicUnet(3, classes).to(device, memory_format=torch.channels_last).train()
            x = torch.rand(2, 3, size, size, device=device).to(memory_format=torch.channels_last)
            y = torch.randint(0, classes, (2, size, size), device=device)
            result["cases"].setdefault(name, {})[mode] = train(net, x, y, loss_of, mode == "bf16")
            if name == "dynunet2d":
                net.eval()
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mode == "bf16"):
                    result["cases"].setdefault("slices", {})[mode] = seconds(lambda: [net(x).argmax(1) for _ in range(32)], device, 1 if a.quick else 3)
        net = Unet3d(features, 33).to(device, memory_format=torch.channels_last_3d)
        x = torch.rand(1, 1, cube, cube, cube, device=device)
        y = torch.randint(0, 33, (1, cube, cube, cube), device=device)
        result["cases"].setdefault("unet3d", {})[mode] = train(net, x, y, dice_ce_3d, mode == "bf16")
    print(json.dumps(result, indent=1))


main()
