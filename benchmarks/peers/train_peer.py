"""A training step in PyTorch and MONAI, for `segbench vs-peers` (resident.py has the protocol): forward, loss, backward, optimizer, from the weights and
the batch that our side wrote (FILES/weights.safetensors, FILES/batch.safetensors).
Peers: eager, channels_last, bf16 (channels last, autocast; its first loss may differ by 2 %).      Cases: benchmarks/segbench/cases.h"""
import resident
a = resident.arguments(__doc__)
import torch, torch.nn.functional as F
from safetensors import safe_open

torch.set_num_threads(a.threads)
FEATURES = [16, 32, 64, 128, 256]


def network(classes):
    from monai.networks.nets import DynUNet, UNet
    if a.case in ('unet3d', 'ixi'):
        dims = 3 if a.case == 'unet3d' else 2
        return DynUNet(dims, 1, classes, [3] * 5, [1, 2, 2, 2, 2], [2] * 4, filters=FEATURES, norm_name='instance')
    if a.case == 'monai_unet':
        return UNet(spatial_dims=3, in_channels=1, out_channels=classes, channels=FEATURES, strides=(2, 2, 2, 2), num_res_units=2)
    if a.case == 'tiny':
        return DynUNet(3, 1, classes, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 6, 8], norm_name='instance')
    if a.case == 'dynunet2d':
        from dynamic_unet_peer import DynamicUnet
        return DynamicUnet(3, classes)
    raise ValueError(f'unknown case {a.case}')


def batch_dice_ce(out, y):
    k, axes = out.shape[1], [0] + list(range(2, out.ndim))
    p, t = out.softmax(1), F.one_hot(y, k).movedim(-1, 1).float()
    dice = (2 * (p * t).sum(axes) + 1e-5) / ((p + t).sum(axes) + 1e-5)
    return F.cross_entropy(out, y) + 1 - dice[1:].mean()


def prepare():
    if a.peer not in ('eager', 'channels_last', 'bf16'): raise ValueError(f'unknown peer {a.peer}')
    with safe_open(f'{a.files}/batch.safetensors', 'pt') as f:
        x, y, about = f.get_tensor('x'), f.get_tensor('y'), f.metadata()
    classes, rate = int(about['classes']), float(about['rate'])
    net = network(classes)
    with safe_open(f'{a.files}/weights.safetensors', 'pt') as f:
        weights = {k: f.get_tensor(k) for k in f.keys()}
    own = {k for k in net.state_dict() if not k.startswith('skip_layers') and not k.endswith('num_batches_tracked')}  # DynUNet lists each tensor twice; counters of batches are PyTorch's alone
    if own != set(weights): raise ValueError(f'weights differ: {sorted(own ^ set(weights))[:4]}')
    net.load_state_dict(weights, strict=False)
    flat = x.shape[1] == 1
    last = a.peer != 'eager'
    form = torch.contiguous_format if not last else torch.channels_last if flat else torch.channels_last_3d
    x, y = x.movedim(-1, 1), y.movedim(-1, 1).long()  # N, C, D, H, W
    if flat: x, y = x[:, :, 0], y[:, :, 0]
    net, x, y = net.to(memory_format=form), x.contiguous(memory_format=form), y.contiguous()
    if a.case in ('unet3d', 'monai_unet'):
        from monai.losses import DiceCELoss
        loss_of, optimizer = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.Adam(net.parameters(), rate)
    else:
        target = y[:, 0]
        optimizer = torch.optim.AdamW(net.parameters(), rate)
        loss_of = lambda out, _: batch_dice_ce(out, target)

    def step():
        optimizer.zero_grad()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=a.peer == 'bf16'):
            out = net(x)
        loss = loss_of(out.float(), y)
        loss.backward()
        optimizer.step()
        return loss

    import monai
    first = {'version': f'torch {torch.__version__}, monai {monai.__version__}', 'loss': step().item(), 'tolerance': 0.02 if a.peer == 'bf16' else 1e-4}
    return first, lambda: (step(), None)[1]


resident.serve(a.peer, prepare)
