"""Mutation proof of the kernels' synchronisation: every __syncthreads, __syncwarp and wait for asynchronous copies in kernels/ is left out in turn (the
hooks build can do that without compiling: VG_SIM_LEAVE_OUT), and the kernel tests must fail. Prints the list as Markdown; fails if a mutant survives
that EQUIVALENT does not explain, or if more than a twentieth are explained. Atomics: there are none, and the script fails when one appears.

    python3 tests/proof/mutants.py build/hooks/bin/test_kernels > build/hooks/mutants.md
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILTER = "-VectorPath*:BigOutputs*:*Planes*"  # these run on the cpu alone
SITE = re.compile(r"\b(__syncthreads(?:_or|_and|_count)?|__syncwarp|copy_async_wait\s*<[^>]*>)\s*\(")
ATOMIC = re.compile(r"\batomic(?:Add|Sub|Exch|CAS|Min|Max|And|Or|Xor|Inc|Dec)\s*\(")

# "file:line text of the line" -> why leaving it out changes nothing that CUDA promises.
EQUIVALENT = {
    "kernels/simt_reduce.h __syncthreads();": "what block_reduce promises, that it may be called again at once, no kernel makes use of today",
}


def sources():
    for path in sorted((ROOT / "kernels").iterdir()):
        if path.suffix in (".cu", ".cuh") or path.name == "simt_reduce.h":
            yield path


def code_lines(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield number, line.split("//")[0]


def run(program, tests, **more):
    environment = dict(os.environ, **more)
    done = subprocess.run([program, "--gtest_filter=" + tests, "--gtest_brief=1", "--gtest_fail_fast"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, errors="replace", timeout=900)
    return done.returncode, done.stdout + done.stderr


def verdicts(output):
    """What noticed: the observer, the results, the executor's own rules."""
    found = []
    for name, pattern in (("race", r": race: "), ("uninitialised read", r": uninitialised: "), ("out of bounds", r": out of bounds: "),
                          ("wrong values", r"values are off|other bits"), ("refused by the executor", r"C\+\+ exception|deadlock")):
        if re.search(pattern, output):
            found.append(name)
    return found or ["test failed"]


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    sites, atomics = [], []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for number, line in code_lines(path):
            for match in SITE.finditer(line):
                sites.append((f"{name}:{number}", re.sub(r"\s", "", match.group(1)), line.strip()))
            if ATOMIC.search(line):
                atomics.append(f"{name}:{number}")
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        code, output = run(program, FILTER, VG_HOOKS_REPORT=report)
        if code:
            sys.exit("the tests fail without any mutant:\n" + output[-2000:])
        reached = {}  # place -> tests
        for test, entries in json.load(open(report))["barriers"].items():
            for entry in entries:
                reached.setdefault(entry.split(" ")[0], []).append(test)

    bad, equivalent, rows = list(f"atomic without a mutant: {a}" for a in atomics), 0, []
    for place, word, line in sites:
        if place not in reached:
            bad.append(f"{place}: no test reaches it")
            rows.append((place, word, "**never reached**", ""))
            continue
        caught = None
        for order in ("forward", "reverse", "random:1"):
            code, output = run(program, ":".join(reached[place]), VG_SIM_LEAVE_OUT=place, VG_SIM_ORDER=order)
            if code:
                test = re.search(r"\[  FAILED  \] ([\w/.]+)", output)
                caught = ", ".join(verdicts(output)) + ("" if order == "forward" else f" ({order})")
                rows.append((place, word, caught, test.group(1) if test else ""))
                break
        if not caught:
            reason = EQUIVALENT.get(f"{place.split(':')[0]} {line}")
            equivalent += reason is not None
            rows.append((place, word, "equivalent: " + reason if reason else "**survives**", ""))
            if not reason:
                bad.append(f"{place}: survives")
        print(place, rows[-1][2], file=sys.stderr, flush=True)
    if equivalent > len(sites) / 20:
        bad.append(f"{equivalent} of {len(sites)} are claimed equivalent: at most one in twenty")

    print("# Every barrier left out in turn\n\nWritten by `tests/proof/mutants.py` (`./dev test --full`): which check noticed first, in which test.\n")
    print(f"{len(sites)} places, {len(sites) - len(bad) - equivalent} caught, {equivalent} equivalent, {len(bad)} not caught. Atomics in kernels: "
          f"{len(atomics)}.\n\n| left out | word | noticed as | first test |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
