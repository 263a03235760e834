"""Writes benchmarks/kernel-cards.md and benchmarks/top10.txt: what can be known of every kernel without a GPU, and how fast it can be at best.

    ./dev build hooks && build/hooks/bin/card_probe > build/probe.json
    python3 benchmarks/cards/cards.py build/probe.json

Needs nvcc and nvdisasm (tests/proof/machine_code.py says where they are looked for). A bound is a lower bound on the time: the largest of six times, each a
count over a rate, and nothing between them is added. Latency, launches and the tail of a grid come on top. No number here was measured on a GPU.
"""
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/proof"))
import machine_code  # noqa: E402

# SMs, clock (Hz), fp32 FLOP/s, dense bf16 FLOP/s (float sums) times the share that mma.sync reaches, DRAM and L2 bytes/s. Data sheets; the 0.62 of sm_90's
# wgmma peak and the L2 rates are from published microbenchmarks (Luo et al., arXiv:2402.13499; Jia et al., arXiv:1804.06826 for the method).
Gpu = collections.namedtuple("Gpu", "name arch sms clock fp32 tensor dram l2")
GPUS = [Gpu("A100", "80", 108, 1.41e9, 19.5e12, 312e12, 2.04e12, 5.1e12), Gpu("H100", "90", 132, 1.83e9, 61.8e12, 0.62 * 989e12, 3.35e12, 5.6e12),
        Gpu("RTX 4090", "89", 128, 2.52e9, 82.6e12, 165e12, 1.01e12, 5.0e12)]
BAR = "bf16 conv 3^3 32 -> 32, 64^3 forward"


def short(name):
    name = name.replace("vg::sim::", "").replace("vg::gpu::", "").replace("void ", "")
    return re.sub(r"\(.*", "", name)


def occupancy(rows):
    """[(registers, shared, threads)] -> per row [(blocks, percent)] for A100, H100, 4090."""
    with tempfile.TemporaryDirectory() as folder:
        program = folder + "/occupancy"
        include = str(pathlib.Path(machine_code.nvcc()).resolve().parents[1] / "include")
        subprocess.run(["g++", "-O1", "-I" + include, str(ROOT / "benchmarks/cards/occupancy.cpp"), "-o", program], check=True)
        text = "\n".join(" ".join(map(str, r)) for r in rows)
        out = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout
    return [[(int(w[i]), int(float(w[i + 1]))) for i in range(0, 6, 2)] for w in (line.split() for line in out.splitlines())]


MEMORY = {"shared load": ("LDS", "LDSM"), "global load": ("LDG", "LDGSTS"), "global store": ("STG",)}


def instructions(code, requests, warps):
    """Warp instructions of a launch, and the loop they were counted by: the trips of the innermost loop with most memory instructions of a kind follow from
    how often the observer saw that kind. Code outside of that loop is left out: a lower bound."""
    best = (0, None, "")
    loops = code.loops()
    for arithmetic, least in (("HMMA", 1), ("FFMA", 64)):  # the loop of a matrix product is the one that multiplies
        if most := max((code.count(arithmetic, *l) for l in loops), default=0):
            if most >= least:
                loops = [l for l in loops if code.count(arithmetic, *l) == most]
                break
    for loop in loops:
        for kind, opcodes in MEMORY.items():
            inside = sum(code.count(op, *loop) for op in opcodes)
            everywhere = sum(code.count(op) for op in opcodes)
            if inside and requests.get(kind):
                trips = requests[kind] * (inside / everywhere if inside < everywhere and inside * 2 < everywhere else 1.0) / inside
                total = trips * (loop[1] - loop[0])
                if total > best[0]:
                    best = (total, loop, kind)
    return best if best[1] else (float(len(code.instructions) * warps) / 2, None, "straight line, half of it")


class Launch:
    """One kernel of one case: counts scaled to the whole launch."""

    def __init__(self, case, kernel, code, usage):
        self.case, self.name, self.times = case["case"], short(kernel["kernel"]), case["times"]
        scale = kernel["blocks"] / kernel["blocks_run"]
        self.threads, self.dynamic, self.blocks = kernel["threads"], kernel["dynamic_shared"], kernel["blocks"]
        self.warps = self.blocks * ((self.threads + 31) // 32)
        self.rows = [t for t in case["traffic"] if t["kernel"] == kernel["kernel"]]
        self.sectors = scale * sum(t["moved"] for t in self.rows if t["space"] == "global")
        self.waves = scale * sum(t["moved"] for t in self.rows if t["space"] == "shared")
        self.requests = collections.Counter()
        for t in self.rows:
            self.requests[f"{t['space']} {t['access']}"] += scale * t["requests"]
        self.code, self.usage = code, usage
        self.issue, self.loop, self.by = instructions(code, self.requests, self.warps)
        self.hmma = bool(code.count("HMMA"))
        self.flops = self.dram = 0.0

    def terms(self, g):
        return {"issue": self.issue / (g.sms * 4 * g.clock), "HMMA" if self.hmma else "fp32": self.flops / (g.tensor if self.hmma else g.fp32),
                "DRAM": self.dram / g.dram, "L2": 32 * self.sectors / g.l2, "shared": self.waves / (g.sms * g.clock)}

    def bound(self, g):
        return max(self.terms(g).values())


def launches(probe, kernels):
    found = []
    for case in probe:
        mine = []
        for k in case["kernels"]:
            name = short(k["kernel"])
            if name in kernels and kernels[name][1]:
                mine.append(Launch(case, k, kernels[name][1], kernels[name][0]))
        if not mine:
            continue
        # The case's arithmetic and compulsory bytes belong to its main kernel: the one that issues most.
        main = max(mine, key=lambda l: l.issue)
        main.flops, main.dram = case["flops"], case["bytes"]
        # Products: the trips follow from the multiplications. An HMMA.16816 is 4096 FLOP, an FFMA of a warp 64.
        for arithmetic, flop in (("HMMA", 4096), ("FFMA", 64)):
            if main.loop and main.code.count(arithmetic, *main.loop) >= 16:
                main.issue = main.flops / flop / main.code.count(arithmetic, *main.loop) * (main.loop[1] - main.loop[0])
                main.by = f"{arithmetic} instruction"
                break
        found += mine
    return found


def mix(code, loop):
    first, last = loop or (0, None)
    counts, total = code.mix(first, last), sum(code.mix(first, last).values())
    group = collections.Counter()
    for opcode, n in counts.items():
        head = opcode.split(".")[0]
        group["HMMA" if head == "HMMA" else "FFMA" if head == "FFMA" else "other float" if head in ("FADD", "FMUL", "MUFU", "FSETP", "FMNMX", "FSEL") else
              "load/store" if head in ("LDG", "STG", "LDS", "STS", "LDSM", "LDGSTS", "LDC", "ULDC") else
              "integer" if head in ("IMAD", "IADD3", "LEA", "ISETP", "LOP3", "SHF", "IADD", "VIADD", "UIADD3", "UIMAD", "ULEA", "SEL", "IMNMX") else "rest"] += n
    return total, ", ".join(f"{100 * n / total:.0f} % {what}" for what, n in group.most_common())


def ratio(rows, space):
    moved, ideal = sum(t["moved"] for t in rows if t["space"] == space), sum(t["ideal"] for t in rows if t["space"] == space)
    return moved / ideal if ideal else None


def us(seconds):
    return f"{1e6 * seconds:.1f}"


def card(l, out):
    total, shares = mix(l.code, l.loop)
    g, s = ratio(l.rows, "global"), ratio(l.rows, "shared")
    out.append(f"### {l.case}: `{l.name}`\n\n{l.blocks} blocks of {l.threads} threads, {l.usage.registers} registers, {l.usage.shared + l.dynamic} bytes of shared memory; "
               f"{l.times} in the step. Unmeasured.\n")
    out.append(f"Inner loop: {total} instructions ({shares}); trips from its {l.by}s. Sectors: {g:.2f} of the ideal."
               + (f" Shared wavefronts: {s:.2f} of the ideal." if s else ""))
    out.append("\n| | issue us | arithmetic us | DRAM us | L2 us | shared us | **bound us** | bound by | share of peak |\n|---|---|---|---|---|---|---|---|---|")
    for gpu in GPUS:
        t, b = l.terms(gpu), l.bound(gpu)
        binds = max(t, key=t.get)
        peak = (t.get("HMMA") or t.get("fp32") or 0) / b
        memory = t["DRAM"] / b
        share = f"{100 * peak:.0f} % of {'HMMA' if l.hmma else 'fp32'}, {100 * memory:.0f} % of DRAM" if l.dram else "-"
        out.append(f"| {gpu.name} | {us(t['issue'])} | {us(t.get('HMMA', t.get('fp32', 0)))} | {us(t['DRAM'])} | {us(t['L2'])} | {us(t['shared'])} | **{us(b)}** | "
                   f"{binds} | {share} |")
    worst = sorted((t for t in l.rows if t["requests"] and t["moved"] > (1.25 if t["space"] == "global" else 1.1) * t["ideal"]),
                   key=lambda t: t["ideal"] - t["moved"])[:6]
    if worst:
        out.append("\nAbove the bar (1.25 of the ideal sectors, 1.1 of the ideal wavefronts): " + "; ".join(
            f"{t['file'].split('/')[-1]}:{t['line']} {t['space']} {t['access']} {t['bytes']} B: {t['moved'] / t['requests']:.1f} for {t['ideal'] / t['requests']:.1f}" for t in worst) + ".")
    out.append("")


def main():
    probe = json.load(open(sys.argv[1]))
    folder = ROOT / "build/machine_code"
    kernels = {short(name): found for name, found in machine_code.everything("90", folder, 2).items()}
    all_launches = launches(probe, kernels)
    h100 = GPUS[1]

    heavy = collections.Counter()
    by_name = collections.defaultdict(list)
    for l in all_launches:
        heavy[l.name] += l.times * l.bound(h100)
        by_name[l.name].append(l)
    step = sum(heavy.values())
    top = [name for name, t in heavy.most_common(10) if t > 0]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    lines = [f"# The ten heaviest kernels of a training step of the 3-D U-Net (96^3, 16 to 128 channels, 33 classes), by projected bound on an H100. Of the kernels at {commit}.",
             "# Written by benchmarks/cards/cards.py. us in the step (projected, unmeasured); sectors and shared wavefronts against the ideal (bars: 1.25 and 1.1,",
             "# every access); what is above a bar."]
    misses = 0
    for name in top:
        rows = [t for l in by_name[name] for t in l.rows if l.times]
        g, s = ratio(rows, "global"), ratio(rows, "shared")
        sites = collections.defaultdict(lambda: [0, 0])
        for t in rows:
            key = (t["file"].split("/")[-1], t["line"], t["space"], t["access"])
            sites[key][0] += t["moved"]
            sites[key][1] += t["ideal"]
        above = [f"{k[0]}:{k[1]} {k[2]} {k[3]} {m / i:.2f}" for k, (m, i) in sorted(sites.items()) if m > (1.25 if k[2] == "global" else 1.1) * i]
        misses += len(above)
        lines.append(f"{name}  {us(heavy[name])} us  sectors {g:.2f}" + (f"  wavefronts {s:.2f}" if s else "") + ("  above: " + "; ".join(above) if above else ""))
    (ROOT / "benchmarks/top10.txt").write_text("\n".join(lines) + "\n")

    out = [f"# Kernel cards\n\nOf the kernels at {commit}.\n", "What is known of the CUDA kernels without a GPU. Written by `benchmarks/cards/cards.py`, which says how; nothing here was *measured*. A bound is a lower "
           "bound on the time: the largest of",
           "issue slots (instructions of the innermost loop that the counted accesses belong to), arithmetic (HMMA at 0.62 of the dense peak on sm_90), DRAM (every tensor "
           "once), L2 (all sectors, with what halos read again), and shared\nmemory (wavefronts). Counts of accesses: [the hooks build](../kernels/sim/README.md).\n"]
    bar = next((l for l in all_launches if l.case == BAR and l.hmma), None)
    if bar:
        t, b = bar.terms(h100), bar.bound(h100)
        binds = max(t, key=t.get)
        roof = max(("HMMA", t["HMMA"]), ("DRAM", t["DRAM"]), key=lambda x: x[1])
        out.append(f"**{BAR}** on an H100: bound {us(b)} us, set by {binds}; the roof that binds the problem is {roof[0]} with {us(roof[1])} us: "
                   f"**{100 * roof[1] / b:.0f} %** of it (bar: 50 %).\n")
    out.append(f"## The step\n\nSum of all bounds on an H100: {1e3 * step:.2f} ms (projected). The heaviest:\n\n| kernel | us | share |\n|---|---|---|")
    out += [f"| `{n}` | {us(heavy[n])} | {100 * heavy[n] / step:.0f} % |" for n in top]
    out.append("\n## Every kernel on sm_90\n\nOccupancy in blocks per multiprocessor and percent of its threads, at the block size of the probe (256 where it was not launched there).\n")
    out.append("| kernel | registers | shared | spills, stack | instructions | A100 | H100 | RTX 4090 |\n|---|---|---|---|---|---|---|---|")
    threads = {l.name: (l.threads, l.dynamic) for l in all_launches}
    rows = []
    for name, (usage, code) in sorted(kernels.items()):
        t, d = threads.get(name, (256, 0))
        rows.append((name, usage, code, usage.registers, usage.shared + d, t))
    for (name, usage, code, *_), occ in zip(rows, occupancy([r[3:] for r in rows])):
        out.append(f"| `{name}` | {usage.registers} | {usage.shared} | {usage.spills}, {usage.stack} | {len(code.instructions) if code else '?'} | "
                   + " | ".join(f"{b} ({p} %)" for b, p in occ) + " |")
    out.append("\n## Launch by launch\n")
    for l in sorted(all_launches, key=lambda l: -max(l.times, 1) * l.bound(h100)):
        if l.bound(h100) * max(l.times, 1) > 2e-6:
            card(l, out)
    (ROOT / "benchmarks/kernel-cards.md").write_text("\n".join(out) + "\n")
    print(f"{len(kernels)} kernels, {len(all_launches)} launches, {misses} accesses of the ten heaviest above a bar")


if __name__ == "__main__":
    main()
