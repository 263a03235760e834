"""PyTorch's convolutions on the shapes of ../conv_shapes.txt: forward, data gradient, weight gradient, in the default and the channels-last layout.
With --bench PATH it runs conv_bench on the same shape right after each measurement and prints both, because a busy machine's clock wanders.
Times are medians over the repetitions of process CPU seconds / threads, which do not count other processes' time slices.
Usage: conv_peer.py [--bench build/release/bin/conv_bench] [--only SUBSTRING] [--seconds 0.3] [--threads 2] [--md]"""
import argparse, csv, io, os, subprocess, time
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # idle threads must not spin: that would count as work
import torch

here = os.path.dirname(os.path.abspath(__file__))
a = argparse.ArgumentParser()
a.add_argument('--bench'); a.add_argument('--only', default=''); a.add_argument('--seconds', type=float, default=0.3)
a.add_argument('--threads', type=int, default=2); a.add_argument('--md', action='store_true', help='print a Markdown table')
a = a.parse_args()
torch.set_num_threads(a.threads)
shapes_file = os.path.join(here, '..', 'conv_shapes.txt')


def measure(work):
    work()
    times, end = [], time.perf_counter() + a.seconds
    while time.perf_counter() < end or len(times) < 3:
        c = time.process_time()
        work()
        times.append((time.process_time() - c) / a.threads)
    return sorted(times)[len(times) // 2]


def peer(fields):
    n, *v = map(int, fields[1:])
    extent, (i0, i1, o), kernel, stride, dilation, transposed = v[0:3], v[3:6], v[6:9], v[9:12], v[12], v[13]
    flat = extent[0] == 1 and kernel[0] == 1
    if flat: extent, kernel, stride = extent[1:], kernel[1:], stride[1:]
    i, results = i0 + i1, {}
    pad = [0 if transposed else dilation * (k - 1) // 2 for k in kernel]
    for layout in ('default', 'last'):
        fmt = torch.contiguous_format if layout == 'default' else torch.channels_last if flat else torch.channels_last_3d
        x = torch.rand(n, i, *extent).contiguous(memory_format=fmt)
        w = torch.rand(*((i, o) if transposed else (o, i)), *kernel).contiguous(memory_format=fmt)
        b = torch.rand(o)
        dil = [dilation] * len(kernel)
        args = (stride, pad, dil, bool(transposed), [0] * len(kernel), 1)
        with torch.inference_mode():
            y = torch.convolution(x, w, b, *args)
            dy = torch.rand_like(y)
            def forward(): torch.convolution(x, w, b, *args)
            def data(): torch.ops.aten.convolution_backward(dy, x, w, None, *args, (True, False, False))
            def weight(): torch.ops.aten.convolution_backward(dy, x, w, None, *args, (False, True, False))
            for name, work in (('forward', forward), ('data', data), ('weight', weight)):
                if name == 'data' and i == 1: continue
                results[name, layout] = measure(work)
    return results


def ours(name):
    text = subprocess.run([a.bench, shapes_file, '-f', name, '-s', str(a.seconds), '-t', str(a.threads)], check=True, capture_output=True, text=True).stdout
    return {r['pass']: r for r in csv.DictReader(io.StringIO(text)) if r['name'] == name}


if a.md: print('| shape | pass | ours ms | GFLOP/s | % of peak | PyTorch ms (default / channels last) | ratio |\n|---|---|---|---|---|---|---|')
else: print('name,pass,ours_cpu,gflops,percent,torch_default_cpu,torch_last_cpu,ratio')
for line in open(shapes_file):
    if line.startswith('#') or not line.strip() or a.only not in line: continue
    fields = line.split()
    theirs = peer(fields)
    mine = ours(fields[0]) if a.bench else {}
    for name in ('forward', 'data', 'weight'):
        if (name, 'default') not in theirs: continue
        d, l, m = theirs[name, 'default'], theirs[name, 'last'], mine.get(name)
        own = float(m['cpu_median']) if m else float('nan')
        rate, percent = (m['gflops'], m['percent_of_peak']) if m else ('', '')
        ratio = min(d, l) / own
        if a.md: print(f'| {fields[0]} | {name} | {1e3 * own:.2f} | {rate} | {percent} | {1e3 * d:.2f} / {1e3 * l:.2f} | {ratio:.2f} |', flush=True)
        else: print(f'{fields[0]},{name},{own:.6f},{rate},{percent},{d:.6f},{l:.6f},{ratio:.2f}', flush=True)
