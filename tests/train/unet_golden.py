"""Golden values of small U-Nets, computed by PyTorch, MONAI and benchmarks/peers/dynamic_unet_peer.py in double precision and stored as float32, one safetensors file a network:
  weight.NAME     initial weights         input, labels     a batch, (N, C, [D,] H, W) and (N, [D,] H, W)
  logits          the network's output    gradient.NAME     of the loss (cross-entropy + soft Dice, foreground, sums over the batch)
  losses          of 10 AdamW steps (rate 1e-2, weight decay 0.01) on that batch
and, as metadata, `config`: the same network for layers/unet.h or layers/dynamic_unet.h. Run in tests/train:  python unet_golden.py   (torch, monai, safetensors)"""
import json, os, sys
import numpy as np, torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet, UNet
from safetensors.torch import save_file
sys.path.insert(0, '../../benchmarks/peers')
from dynamic_unet_peer import DynamicUnet

affine = ('instance', {'affine': True})
cases = {
    'dynunet2d': (lambda: DynUNet(2, 1, 5, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 6, 8], norm_name=affine), (2, 1, 12, 20),
                  {'spatial_dims': 2, 'classes': 5, 'features': [4, 6, 8]}),
    'dynunet3d': (lambda: DynUNet(3, 2, 4, [[3, 3, 3], [3, 3, 3], [3, 3, 3]], [1, [2, 2, 2], [1, 2, 2]], [[2, 2, 2], [1, 2, 2]], filters=[3, 4, 5], norm_name=affine),
                  (2, 2, 6, 12, 8), {'spatial_dims': 3, 'in_channels': 2, 'classes': 4, 'features': [3, 4, 5], 'strides': [[1], [2, 2, 2], [1, 2, 2]]}),
    'dynunet2d_batchnorm_residual': (lambda: DynUNet(2, 2, 3, [3] * 3, [1, 2, 2], [2] * 2, filters=[3, 4, 5], norm_name='batch', res_block=True), (3, 2, 8, 8),
                                     {'spatial_dims': 2, 'in_channels': 2, 'classes': 3, 'features': [3, 4, 5], 'norm': 'batch', 'residual_units': 1}),
    'unet3d_residual': (lambda: UNet(3, 1, 3, (3, 4, 6), (2, 2), num_res_units=2), (1, 1, 8, 12, 16),
                        {'style': 'unet', 'spatial_dims': 3, 'classes': 3, 'features': [3, 4, 6], 'norm_affine': False, 'activation': 'prelu', 'residual_units': 2}),
    'unet2d': (lambda: UNet(2, 1, 4, (4, 6, 8), (2, 2)), (2, 1, 16, 12),
               {'style': 'unet', 'spatial_dims': 2, 'classes': 4, 'features': [4, 6, 8], 'norm_affine': False, 'activation': 'prelu'}),
    # Widths that halve to odd numbers; then extents that halve to odd numbers.
    'dynamic_unet': (lambda: DynamicUnet(3, 4, (4, 6, 7, 9), (1, 1, 2, 1)), (2, 3, 64, 32),
                     {'network': 'dynamic_unet', 'in_channels': 3, 'classes': 4, 'features': [4, 6, 7, 9], 'blocks': [1, 1, 2, 1]}),
    'dynamic_unet_blur_odd': (lambda: DynamicUnet(1, 3, (4, 5, 6), (1, 1, 1), blur=True), (2, 1, 37, 50),
                              {'network': 'dynamic_unet', 'in_channels': 1, 'classes': 3, 'features': [4, 5, 6], 'blocks': [1, 1, 1], 'blur': True}),
}


def loss_of(out, y):
    k = out.shape[1]
    axes = [0] + list(range(2, out.ndim))
    p, t = out.softmax(1), F.one_hot(y, k).movedim(-1, 1).to(out.dtype)
    dice = (2 * (p * t).sum(axes) + 1e-5) / ((p + t).sum(axes) + 1e-5)
    return F.cross_entropy(out, y) + 1 - dice[1:].mean()


os.makedirs('golden', exist_ok=True)
for seed, (name, (make, shape, config)) in enumerate(cases.items()):
    torch.manual_seed(seed)
    net = make().double()
    with torch.no_grad():  # norms that start at 1 and 0 would hide exchanged parameters
        for p in net.parameters():
            p.copy_((p + 0.1 * torch.randn_like(p)).float().double())
    own = [k for k in net.state_dict() if not k.startswith('skip_layers') and not k.endswith('num_batches_tracked')]
    x = torch.randn(shape).float().double()
    y = torch.randint(0, config['classes'], (shape[0],) + shape[2:])
    out = {f'weight.{k}': net.state_dict()[k].clone() for k in own}
    net.train()
    logits = net(x)
    loss = loss_of(logits, y)
    loss.backward()
    parameters = dict(net.named_parameters())
    out |= {f'gradient.{k}': parameters[k].grad.clone() for k in own if k in parameters}
    out |= {'input': x, 'logits': logits.detach()}
    net.load_state_dict({k: out['weight.' + k] for k in own}, strict=False)  # running statistics as they were
    optimizer, losses = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.01), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out['losses'] = torch.tensor(losses)
    tensors = {k: v.float().contiguous() for k, v in out.items()} | {'labels': y.to(torch.int32)}
    save_file(tensors, f'golden/{name}.safetensors', {'config': json.dumps(config), 'torch': torch.__version__})
    print(name, sum(p.numel() for p in net.parameters()), 'parameters', [round(v, 4) for v in losses])
