"""The reference for training on IXI slices: PyTorch and MONAI train the network of train/ixi.json (DynUNet 16..256, instance norm without weights, LeakyReLU 0.01,
AdamW, one-cycle with peak 4e-3, batch 8, cross-entropy + soft Dice over the batch) and leave everything that is needed to repeat the run:
  init.safetensors  the initial weights under DynUNet's names      order.json  the people of each batch
  losses.json       the loss of each step                           dice.json   validation Dice after each epoch
Then:  segtrain DATA --split SPLIT --init OUT/init.safetensors --order OUT/order.json --config train/ixi.json -o RUN --progress json > LINES
       ixi2d_compare.py OUT/losses.json LINES
Usage: ixi2d_reference.py DATA SPLIT.json OUT [--seed S] [--epochs N] [--steps N] [--view axial] [--threads 2]"""
import argparse, json, os, time
import numpy as np, torch
import torch.nn.functional as F
from PIL import Image
from monai.networks.nets import DynUNet
from safetensors.torch import save_file

a = argparse.ArgumentParser()
a.add_argument('data'), a.add_argument('split'), a.add_argument('out')
a.add_argument('--seed', type=int, default=0), a.add_argument('--epochs', type=int, default=8), a.add_argument('--steps', type=int)
a.add_argument('--view', default='axial'), a.add_argument('--threads', type=int, default=2)
a = a.parse_args()
os.makedirs(a.out, exist_ok=True)
torch.set_num_threads(a.threads), torch.manual_seed(a.seed)
rng = np.random.default_rng(a.seed)
split = json.load(open(a.split))


def load(ids):
    x = np.stack([np.array(Image.open(f'{a.data}/{a.view}/{i}-2d_{a.view}.png').convert('L'), np.float32) for i in ids])
    y = np.stack([np.array(Image.open(f'{a.data}/{a.view}-mask/{i}-2d_{a.view}-mask.png')) for i in ids])
    return (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 1e-5), y.astype(np.int64)


X, Y = load(split['training'])
XV, YV = load(split['validation'])
labels = np.unique(np.concatenate([np.unique(Y), np.unique(YV)]))
K = len(labels)
lut = np.zeros(256, np.int64)
lut[labels] = np.arange(K)
Y, YV = lut[Y], lut[YV]
seen = np.array([(YV == k).any((1, 2)).sum() for k in range(K)])
foreground = np.arange(K) > 0
common, present = foreground & (seen > len(YV) / 2), foreground & (seen >= 3)

net = DynUNet(2, 1, K, [3] * 5, [1, 2, 2, 2, 2], [2] * 4, filters=[16, 32, 64, 128, 256], norm_name='instance').to(memory_format=torch.channels_last)
# DynUNet lists each tensor twice, under its own name and under skip_layers.
save_file({k: v.clone().contiguous() for k, v in net.state_dict().items() if not k.startswith('skip_layers')}, f'{a.out}/init.safetensors')
batch, per_epoch = 8, len(X) // 8
total = a.epochs * per_epoch
optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=total + 1)


def tensor(x):
    return torch.from_numpy(x)[:, None].contiguous(memory_format=torch.channels_last)


def loss_of(out, y):
    p, t = out.softmax(1), F.one_hot(y, K).permute(0, 3, 1, 2).float()
    dice = (2 * (p * t).sum((0, 2, 3)) + 1e-5) / ((p + t).sum((0, 2, 3)) + 1e-5)
    return F.cross_entropy(out, y) + 1 - dice[1:].mean()


def dice():
    net.eval()
    both, sizes = np.zeros(K), np.zeros(K)
    with torch.inference_mode():
        for i in range(0, len(XV), batch):
            o, y = net(tensor(XV[i:i + batch])).argmax(1).numpy(), YV[i:i + batch]
            both += np.bincount(o[o == y], minlength=K)
            sizes += np.bincount(o.ravel(), minlength=K) + np.bincount(y.ravel(), minlength=K)
    net.train()
    d = 2 * both / np.maximum(sizes, 1)
    return {'common': d[common].mean(), 'present': d[present].mean(), 'all': d[1:].mean()}


shuffles = [rng.permutation(len(X)) for _ in range(a.epochs)]
order = [[split['training'][k] for k in p[i * batch:(i + 1) * batch]] for p in shuffles for i in range(per_epoch)]
json.dump(order, open(f'{a.out}/order.json', 'w'))
losses, scores, spent, cpu, n = [], [], 0.0, 0.0, 0
stop = min(total, a.steps or total)
while n < stop:
    shuffled = shuffles[n // per_epoch]
    for i in range(min(per_epoch, stop - n)):
        ids = shuffled[i * batch:(i + 1) * batch]
        t, c = time.perf_counter(), time.process_time()
        x, y = tensor(X[ids]), torch.from_numpy(Y[ids])
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step(), schedule.step()
        spent, cpu, n = spent + time.perf_counter() - t, cpu + time.process_time() - c, n + 1
        losses.append(float(loss.detach()))
        json.dump(losses, open(f'{a.out}/losses.json', 'w'))
    scores.append({'step': n, 'seconds': round(spent, 1), 'cpu_seconds': round(cpu, 1), **{k: round(float(v), 4) for k, v in dice().items()}})
    print(scores[-1], flush=True)
    json.dump(scores, open(f'{a.out}/dice.json', 'w'), indent=1)
