"""fastai's DynamicUnet on a ResNet of basic blocks, written out in PyTorch with fastai's parameter names, and the time of its training step.
`DynamicUnet` is also the definition that tests/train/unet_golden.py takes golden values from. One JSON line per configuration and round:
  {"peer": "torch", "layout": "channels_last", "wall": [seconds of each repetition], "cpu": [process CPU seconds of each], "loss": last}
A step is forward, cross-entropy + soft Dice, backward, AdamW on one batch of noise.
--check compares with fastai itself (pip install fastai torchvision): names and shapes at 374 classes, values and gradients of the same weights.
Usage: dynamic_unet_peer.py [--batch 2] [--size 256] [--channels 3] [--classes 44] [--repetitions 3] [--threads 2] [--layout both] [--check]"""
import argparse, json, os, time
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # idle threads must not spin: that would count as work
import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):  # torchvision's
    def __init__(self, ni, nf, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(ni, nf, 3, stride, 1, bias=False), nn.BatchNorm2d(nf)
        self.conv2, self.bn2 = nn.Conv2d(nf, nf, 3, 1, 1, bias=False), nn.BatchNorm2d(nf)
        self.downsample = nn.Sequential(nn.Conv2d(ni, nf, 1, stride, bias=False), nn.BatchNorm2d(nf)) if stride != 1 or ni != nf else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


def encoder(channels, features, blocks):
    stages, ni = [], features[0]
    for s, (nf, n) in enumerate(zip(features, blocks)):
        stages.append(nn.Sequential(*[BasicBlock(ni if i == 0 else nf, nf, 2 if s > 0 and i == 0 else 1) for i in range(n)]))
        ni = nf
    net = nn.Sequential(nn.Conv2d(channels, features[0], 7, 2, 3, bias=False), nn.BatchNorm2d(features[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages)
    for m in net.modules():
        if isinstance(m, nn.Conv2d): nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
    return net


def conv(ni, nf, size=3, relu=True):
    c = nn.Conv2d(ni, nf, size, padding=size // 2)
    if size == 3: nn.init.kaiming_normal_(c.weight), nn.init.zeros_(c.bias)
    return nn.Sequential(c, nn.ReLU()) if relu else nn.Sequential(c)


def shuffle(ni, nf, blur):
    up = conv(ni, 4 * nf, 1)
    k = nn.init.kaiming_normal_(torch.empty(nf, ni, 1, 1))
    with torch.no_grad(): up[0].weight.copy_(k.repeat_interleave(4, 0)), up[0].bias.zero_()
    return nn.Sequential(up, nn.PixelShuffle(2), *([nn.ReplicationPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, stride=1)] if blur else []))


def resized(x, like):
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, like.shape[2:], mode='nearest')


class UnetBlock(nn.Module):
    def __init__(self, ni, ns, last, blur):
        super().__init__()
        n = ni // 2 + ns
        self.nf = n // 2 if last else n
        self.shuf, self.bn = shuffle(ni, ni // 2, blur), nn.BatchNorm2d(ns)
        self.conv1, self.conv2 = conv(n, self.nf), conv(self.nf, self.nf)

    def forward(self, x, skip):
        return self.conv2(self.conv1(F.relu(torch.cat([resized(self.shuf(x), skip), self.bn(skip)], 1))))


class ResBlock(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.convpath = nn.Sequential(conv(n, n), conv(n, n, relu=False))

    def forward(self, x):
        return F.relu(self.convpath(x) + x)


class DynamicUnet(nn.Module):
    def __init__(self, channels=3, classes=2, features=(64, 128, 256, 512), blocks=(3, 4, 6, 3), blur=False, blur_final=True):
        super().__init__()
        ni, skips = features[-1], [features[0], *features[:-1]][::-1]
        self.layers = nn.ModuleList([encoder(channels, features, blocks), nn.BatchNorm2d(ni), nn.ReLU(), nn.Sequential(conv(ni, 2 * ni), conv(2 * ni, ni))])
        for i, ns in enumerate(skips):
            last = i == len(skips) - 1
            self.layers.append(UnetBlock(ni, ns, last, blur and (not last or blur_final)))
            ni = self.layers[-1].nf
        n = ni + channels
        self.layers.extend([shuffle(ni, ni, False), nn.Identity(), nn.Identity(), ResBlock(n), conv(n, classes, 1, relu=False)])

    def forward(self, image):
        x, skips = image, []
        for i, m in enumerate(self.layers[0]):
            x = m(x)
            if i == 2 or 4 <= i < len(self.layers[0]) - 1: skips.append(x)
        x = self.layers[3](self.layers[2](self.layers[1](x)))
        for block, skip in zip(self.layers[4:], skips[::-1]): x = block(x, skip)
        up, _, _, residual, head = self.layers[4 + len(skips):]
        return head(residual(torch.cat([resized(up(x), image), image], 1)))


def loss_of(out, y):
    p, t = out.softmax(1), F.one_hot(y, out.shape[1]).permute(0, 3, 1, 2).to(out.dtype)
    dice = (2 * (p * t).sum((0, 2, 3)) + 1e-5) / ((p + t).sum((0, 2, 3)) + 1e-5)
    return F.cross_entropy(out, y) + 1 - dice[1:].mean()


def check():
    from fastai.vision.learner import create_unet_model
    from fastai.vision.models.unet import DynamicUnet as Fastai
    from torchvision.models import resnet34
    shapes = lambda net: [(k, tuple(v.shape)) for k, v in net.state_dict().items()]
    theirs, ours = create_unet_model(resnet34, 374, (256, 256), pretrained=False), DynamicUnet(classes=374)
    assert shapes(theirs) == shapes(ours)
    print('names and shapes: those of fastai;', sum(p.numel() for p in ours.parameters()), 'parameters')
    for blur, final, size in ((False, True, (64, 96)), (True, True, (64, 64)), (True, False, (50, 41)), (False, True, (37, 95))):
        kw = dict(features=(8, 12, 14, 18), blocks=(2, 1, 2, 1), blur=blur, blur_final=final)
        a = DynamicUnet(1, 5, **kw).double()
        b = Fastai(encoder(1, kw['features'], kw['blocks']), 5, (64, 64), blur=blur, blur_final=final).double()
        b.load_state_dict(a.state_dict())
        x, y = torch.randn(2, 1, *size).double(), torch.randint(0, 5, (2, *size))
        a.train(), b.train()
        for net in (a, b): loss_of(net(x.clone()).as_subclass(torch.Tensor), y).backward()
        worst = max(((p.grad - q.grad).abs().max() / q.grad.abs().max()).item() for p, q in zip(a.parameters(), b.parameters()))
        a.eval(), b.eval()
        far = (a(x) - b(x)).abs().max().item()
        print(f'blur {blur}, final {final}, {size}: gradients differ by {worst:.1e}, scores by {far:.1e}')
        assert worst < 1e-6 and far < 1e-6  # fastai's last module rounds to float32


def measure(a, layout):
    torch.manual_seed(0)
    form = torch.channels_last if layout == 'channels_last' else torch.contiguous_format
    net = DynamicUnet(a.channels, a.classes).to(memory_format=form).train()
    x, y = torch.randn(a.batch, a.channels, a.size, a.size).contiguous(memory_format=form), torch.randint(0, a.classes, (a.batch, a.size, a.size))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    wall, cpu = [], []
    for i in range(a.repetitions + 1):  # the first warms up
        w, c = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        if i > 0: wall.append(round(time.perf_counter() - w, 4)), cpu.append(round(time.process_time() - c, 4))
    print(json.dumps({'peer': 'torch', 'version': torch.__version__, 'layout': layout, 'threads': a.threads, 'batch': a.batch, 'size': a.size, 'classes': a.classes,
                      'parameters': sum(p.numel() for p in net.parameters()), 'wall': wall, 'cpu': cpu, 'loss': round(loss.item(), 4)}), flush=True)


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--batch', type=int, default=2), a.add_argument('--size', type=int, default=256), a.add_argument('--channels', type=int, default=3)
    a.add_argument('--classes', type=int, default=44), a.add_argument('--repetitions', type=int, default=3), a.add_argument('--threads', type=int, default=2)
    a.add_argument('--layout', choices=('default', 'channels_last', 'both'), default='both'), a.add_argument('--check', action='store_true')
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    if a.check: check()
    else:
        for layout in ('default', 'channels_last') if a.layout == 'both' else (a.layout,): measure(a, layout)
