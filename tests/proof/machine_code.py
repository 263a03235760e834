"""What nvcc makes of kernels/*.cu, read without a GPU: compiles every file for the given architectures, and fails on a byte of spilling, stack or local
memory, and where a kernel lacks the instructions that it is written for (GATES). benchmarks/cards reads the same numbers from resources() and mix().

    python3 tests/proof/machine_code.py [--arch 90]... [--keep build/machine_code]

Without --arch: 75, 80, 90, 120. The disassembler is no part of every toolkit: `python3 -m pip install nvidia-cuda-nvdisasm` (any venv) provides it; it is
looked for on PATH, beside nvcc, and in site-packages. Without it, the gates on instructions are skipped, and that is said.
"""
import argparse
import collections
import concurrent.futures
import glob
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARCHITECTURES = ["75", "80", "90", "120"]
FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-lineinfo", "-DNDEBUG", "-DVG_SLOT_CUDA=1", '-DVG_VERSION="proof"', f"-I{ROOT}"]

# kernel (regular expression over the demangled name) -> instruction (prefix) -> least number of them, on every architecture or from sm_80 on.
# A kernel for fours must load 128 bits at once; products on tensor cores must be HMMA with fragments by LDSM and copies by LDGSTS (cp.async).
GATES = [
    (r"conv_(gemm|weight)_kernel<(?!vg).*4, \d+>", {"LDG.E.128": 1, "LDS.128": 2, "STS.128": 1, "FFMA": 64}),
    (r"(add|accumulate|activation_\w+|norm_apply|norm_backward|adam_step|sgd_step|copy_channels)_kernel<4(, float)?>", {"LDG.E.128": 1, "STG.E.128": 1}),
    (r"(vary_intensity_kernel<true>|resample_kernel<4, )", {"LDG.E.128": 1, "STG.E.128": 1}),
    (r"fill_kernel<4(, float)?>", {"STG.E.128": 1}),
    (r"(norm_moments|norm_backward_sums|channel_sum|sum_squares)_kernel<4(, float)?>", {"LDG.E.128": 1}),
]
GATES_SM80 = [
    (r"conv_(weight_)?tensor_kernel", {"HMMA.16816": 16, "LDSM": 4, "LDGSTS.E.BYPASS.128": 2}),
]
# Functions that may be called: not inlined on purpose; and nvcc's own for the rare operands of an IEEE division or root, for
# 64-bit division, and (Turing, Ampere) for shuffles after a branch.
CALLED_ON_PURPOSE = re.compile(r"activate_(four|sums)")
# sm_75 has half the registers' worth of m16n8k16 (two m16n8k8 each): the widest tensor-core kernels spill a little there, and run all the same.
SPILLS_ON_75 = (re.compile(r"conv_(weight_)?tensor_kernel"), 192)
RARE_OPERANDS = re.compile(r"__cuda_sm\w+_(?:div|rem|rcp|sqrt|dsqrt|shflsync|votesync|warpsync)")


def nvcc():
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def disassembler():
    beside = os.path.join(os.path.dirname(os.path.realpath(nvcc() or "")), "nvdisasm")
    places = [shutil.which("nvdisasm"), os.environ.get("VG_NVDISASM"), beside]
    for packages in site.getsitepackages() + [site.getusersitepackages(), str(ROOT / "build/nvtools/lib/python3*/site-packages")]:
        places += glob.glob(packages + "/nvidia/cu13/bin/nvdisasm") + glob.glob(packages + "/nvidia/*/bin/nvdisasm")
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def demangle(names):
    if not names:
        return {}
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.splitlines()
    return {mangled: plain.replace("vg::gpu::", "").removeprefix("void ") for mangled, plain in zip(names, out)}


def newest_header():
    return max(p.stat().st_mtime for folder in ("kernels", "tensor") for p in (ROOT / folder).rglob("*") if p.suffix in (".h", ".cuh"))


def compile_one(source, arch, folder):
    cubin, log = folder / f"{source.stem}.sm_{arch}.cubin", folder / f"{source.stem}.sm_{arch}.log"
    if not cubin.exists() or not log.exists() or cubin.stat().st_mtime < max(source.stat().st_mtime, newest_header()):
        done = subprocess.run([nvcc(), "-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v", *FLAGS, "-o", str(cubin), str(source)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        log.write_text(done.stderr)
    return cubin, log.read_text()


Usage = collections.namedtuple("Usage", "registers shared stack spills barriers")


def resources(log):
    """Mangled kernel name -> Usage, from ptxas -v."""
    found = {}
    for entry in re.split(r"ptxas info\s+: Compiling entry function '", log)[1:]:
        name = entry.split("'")[0]
        number = lambda pattern: int((re.search(pattern, entry) or [0, 0])[1])
        found[name] = Usage(number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame") + number(r"(\d+) bytes cumulative stack"),
                            number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"), number(r"used (\d+) barriers"))
    return found


class Code:
    """One function's machine code: instructions in order, as (address, opcode, text), and its loops."""

    def __init__(self):
        self.instructions, self.labels, self.calls = [], {}, []

    def mix(self, first=0, last=None):
        counts = collections.Counter()
        for _, opcode, _ in self.instructions[first:last]:
            counts[opcode] += 1
        return counts

    def count(self, prefix, first=0, last=None):
        return sum(n for opcode, n in self.mix(first, last).items() if opcode == prefix or opcode.startswith(prefix + "."))

    def loops(self):
        """Backward branches: (first, last + 1) instruction numbers, innermost (no loop inside) only."""
        at = {address: i for i, (address, _, _) in enumerate(self.instructions)}
        found = []
        for i, (_, opcode, text) in enumerate(self.instructions):
            target = re.search(r"`\((\.L_x_\d+)\)", text)
            if opcode.startswith("BRA") and target and target[1] in self.labels:
                start = at.get(self.labels[target[1]])
                if start is not None and start < i:  # a branch to itself ends every function
                    found.append((start, i + 1))
        return [a for a in found if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in found)]


def machine_code(cubin):
    """Mangled function name -> Code."""
    text = subprocess.run([disassembler(), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    functions, code, pending = {}, None, []
    for line in text.splitlines():
        if start := re.match(r"\s*\.section\s+\.text\.([^,]+),", line):
            code = functions[start[1]] = Code()
            pending = []
        elif code is None:
            continue
        elif label := re.match(r"(\.L_x_\d+):", line):
            pending.append(label[1])
        elif instruction := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)", line):
            address = int(instruction[1], 16)
            for name in pending:
                code.labels[name] = address
            pending = []
            code.instructions.append((address, instruction[2].replace("LDS.U.", "LDS."), instruction[3]))  # sm_75 says LDS.U.128
            if instruction[2].startswith("CALL"):
                code.calls.append(instruction[3].strip())
    for code in functions.values():  # sm_75 and sm_80 also "call" places of the same function, to join threads again after a branch
        code.calls = [call for call in code.calls if not re.search(r"\.L_x_\d+", call)]
    return functions


def everything(arch, folder, jobs=1):
    """(demangled kernel, Usage, Code or None) of all kernels on one architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        built = list(pool.map(lambda s: compile_one(s, arch, folder), sources))
    found = {}
    for cubin, log in built:
        usage, code = resources(log), machine_code(cubin) if disassembler() else {}
        for mangled, plain in demangle(list(usage)).items():
            found[plain] = (usage[mangled], code.get(mangled))
    return found


def check(arch, folder, jobs):
    bad, kernels = [], everything(arch, folder, jobs)
    for name, (usage, code) in sorted(kernels.items()):
        short = re.sub(r"\(.*", "", name)
        tolerated = SPILLS_ON_75[1] if arch == "75" and SPILLS_ON_75[0].match(short) else 0
        if usage.stack > tolerated or usage.spills > 2 * tolerated:
            bad.append(f"sm_{arch} {short}: {usage.stack} bytes of stack, {usage.spills} spilled")
        if code is None:
            continue
        if (local := code.count("LDL") + code.count("STL")) and not tolerated:
            bad.append(f"sm_{arch} {short}: {local} accesses of local memory")
        bad += [f"sm_{arch} {short}: calls {call}" for call in sorted(set(code.calls)) if not CALLED_ON_PURPOSE.search(call) and not RARE_OPERANDS.search(call)]
        for pattern, wanted in GATES + (GATES_SM80 if int(arch) >= 80 else []):
            if re.match(pattern, short):
                bad += [f"sm_{arch} {short}: {code.count(op)} {op}, wanted {n}" for op, n in wanted.items() if code.count(op) < n]
        # Tensor-core kernels: of the inner loop, at least a quarter are HMMA and at most 15 % integer arithmetic on addresses.
        if int(arch) >= 80 and code.count("HMMA"):
            first, last = max(code.loops(), key=lambda l: code.count("HMMA", *l), default=(0, None))
            total = sum(code.mix(first, last).values())
            hmma = code.count("HMMA", first, last)
            integer = sum(code.count(op, first, last) for op in ("IMAD", "IADD3", "LEA", "ISETP", "LOP3", "SHF", "IADD", "VIADD", "UIADD3", "UIMAD", "ULEA", "USHF", "ULOP3", "UISETP"))
            if hmma < total / 4:
                bad.append(f"sm_{arch} {short}: {hmma} of the inner loop's {total} instructions are HMMA, wanted a quarter")
            if integer > 0.15 * total:
                bad.append(f"sm_{arch} {short}: {integer} of the inner loop's {total} instructions are integer arithmetic, at most 15 % wanted")
    return kernels, bad


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--arch", action="append")
    options.add_argument("--keep", default=str(ROOT / "build/machine_code"))
    options.add_argument("--jobs", type=int, default=os.cpu_count())
    chosen = options.parse_args()
    if not nvcc():
        print("machine code: no nvcc here, nothing was checked")
        return
    if not disassembler():
        print("machine code: no nvdisasm here; only registers, stack and spills are checked")
    bad = []
    for arch in chosen.arch or ARCHITECTURES:
        kernels, faults = check(arch, pathlib.Path(chosen.keep), chosen.jobs)
        bad += faults
        most = max(kernels.items(), key=lambda k: k[1][0].registers)
        print(f"sm_{arch}: {len(kernels)} kernels, at most {most[1][0].registers} registers ({most[0].split('(')[0]}), "
              f"{sum(code is not None and any(RARE_OPERANDS.search(c) for c in code.calls) for _, code in kernels.values())} divide exactly, {len(faults)} faults", flush=True)
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
