"""MeshNet `subcortical` by other engines, for `segbench vs-peers` (resident.py has the protocol). Real weights and the real scan of the test data.
  mesh128: the normalised central 128^3 of t1_crop; the network alone counts, not the argmax      mesh256: from the file to labels
Peers: eager, channels_last, compile (torch.compile, max-autotune), onnxruntime, openvino (f32), openvino_latency (f32 and the LATENCY hint).
FILES/labels-PEER.bin: class of each voxel as a byte, i fastest as in the file."""
import resident
a = resident.arguments(__doc__)
import json, os, time
import nibabel as nib, numpy as np, torch, torch.nn as nn
from safetensors.torch import load_file

torch.set_num_threads(a.threads)
torch.set_grad_enabled(False)


def network():
    weights, config = load_file(f'{a.data}/models/subcortical.safetensors'), json.load(open(f'{a.data}/models/subcortical.json'))
    names, layers = [k for k in weights if k.endswith('weight')], []
    for i, l in enumerate(config['layers']):
        c = nn.Conv3d(l['in_channels'], l['out_channels'], l['kernel_size'], padding=l['padding'], dilation=l['dilation'])
        c.weight.data, c.bias.data = weights[names[i]].reshape(c.weight.shape).clone(), weights[names[i][:-6] + 'bias'].clone()
        layers += [c, nn.ELU()] if i < len(config['layers']) - 1 else [c]
    return nn.Sequential(*layers).eval()


def scan():
    x = np.asarray(nib.load(f'{a.data}/t1/t1_crop.nii.gz').dataobj, np.float32)
    low, high = np.quantile(x, .02), np.quantile(x, .98)
    return np.clip((x - low) / (high - low), 0, 1)


def engine(x):
    """The engine's version, and a function from (1, 1, D, H, W) float32 to class scores as a torch tensor."""
    net = network()
    if a.peer == 'eager':
        return 'torch ' + torch.__version__, lambda v: net(torch.from_numpy(v))
    if a.peer == 'channels_last':
        net = net.to(memory_format=torch.channels_last_3d)
        return 'torch ' + torch.__version__, lambda v: net(torch.from_numpy(v).contiguous(memory_format=torch.channels_last_3d))
    if a.peer == 'compile':
        compiled = torch.compile(net, mode='max-autotune')
        return 'torch ' + torch.__version__, lambda v: compiled(torch.from_numpy(v))
    path = os.path.join(a.files, f'mesh-{a.peer}.onnx')
    torch.onnx.export(net, (torch.from_numpy(x),), path, opset_version=17, dynamo=False)
    if a.peer == 'onnxruntime':
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = a.threads
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        session = ort.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        name = session.get_inputs()[0].name
        return 'onnxruntime ' + ort.__version__, lambda v: torch.from_numpy(session.run(None, {name: v})[0])
    if a.peer in ('openvino', 'openvino_latency'):
        import openvino as ov
        core, hints = ov.Core(), {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': a.threads}
        if a.peer == 'openvino_latency': hints['PERFORMANCE_HINT'] = 'LATENCY'
        model = core.compile_model(core.read_model(path), 'CPU', hints)
        return 'openvino ' + ov.__version__.split('-')[0], lambda v: torch.from_numpy(model(v)[model.output(0)])
    raise ValueError(f'unknown peer {a.peer}')


def prepare():
    whole, x = a.case == 'mesh256', scan()
    if not whole:
        o = [(n - 128) // 2 for n in x.shape]
        x = x[o[0]:o[0] + 128, o[1]:o[1] + 128, o[2]:o[2] + 128]
    x = np.ascontiguousarray(x)[None, None]
    version, scores = engine(x)

    def labels(v):
        return scores(v)[0].argmax(0).to(torch.uint8).numpy()

    path = os.path.join(a.files, f'labels-{a.peer}.bin')
    labels(x).ravel(order='F').tofile(path)  # also what warms the engine up
    first = {'version': version, 'labels': path}
    if whole:
        del x
        return first, lambda: (labels(np.ascontiguousarray(scan())[None, None]), None)[1]

    def network_alone():
        scores(x)
    return first, network_alone


resident.serve(a.peer, prepare)
