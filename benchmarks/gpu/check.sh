#!/usr/bin/env bash
# What only a GPU can tell, the most valuable first, in less than nine minutes:
#   gpu-check [RESULTS]          (default: ./gpu-results; at most six files)
# 1 summary.txt    the machine, what was run, how it ended, how long it took
# 2 tests.txt      every kernel on the device against the double references; networks and training on it
# 3 speedup.json   the same work on CPU and GPU, checked, then timed;  peer.json  PyTorch on the same GPU
# 4 sanitizer.txt  compute-sanitizer: memcheck, racecheck, initcheck, synccheck on the kernel tests
# 5 ncu.csv        counters of the kernels of one training step
# Needs a driver. compute-sanitizer and ncu come with the CUDA toolkit, PyTorch with python3: what is missing is said and left out.
# VG_GPU_CHECK_QUICK=1: seconds instead of minutes; does it work, not how fast is it.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-gpu-results}
bin=$here/bin quick=${VG_GPU_CHECK_QUICK:-}
mkdir -p "$out"
summary=$out/summary.txt
bad=0
limit=540
exec 3>&1  # for people, whatever a step's own output becomes
say() { echo "$*" | tee -a "$summary" >&3; }
left() { echo $((limit - SECONDS)); }

# step NAME SECONDS COMMAND...: at most so long, and not beyond the end; its result into the summary.
step() {
  local name=$1 most=$2 start=$SECONDS status=0
  shift 2
  ((most < $(left))) || most=$(left)
  if ((most < 5)); then
    say "$name: left out, the time is over"
    return 1
  fi
  timeout "$most" "$@" || status=$?
  case $status in
    0) say "$name: passed, $((SECONDS - start)) s" ;;
    124) say "$name: stopped after $most s" ;;
    *) say "$name: FAILED with $status, $((SECONDS - start)) s"; bad=1 ;;
  esac
  return "$status"
}
have() { command -v "$1" > /dev/null || { say "$1: not on this machine"; return 1; }; }

: > "$summary"
say "voxgrad $(cat "$here/commit"), $(date -u +%FT%TZ), $(uname -sr), glibc $(ldd --version | head -1 | grep -o '[0-9.]*$')"
have nvidia-smi && say "$(nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 | head -4)"

# Is there a GPU that our plug-in can use? Says why not.
if ! VG_TEST_DEVICES=cuda "$bin/segtrain" --phantom --phantoms 2 --grid 16 16 16 --spacing 0 --steps 1 --device cuda -o "$out/run" -q 2> "$out/tests.txt"; then
  say "no usable GPU: $(tail -1 "$out/tests.txt")"
  exit 1
fi
rm -rf "$out/run"

kernels='*' layers='*' cases=dynunet2d,unet3d,origin,slices repetitions=5
if [[ $quick ]]; then kernels='*Activation*:*Pool*' layers='*Tape*' cases=tiny repetitions=1; fi
tests() {
  echo "== test_kernels" && VG_TEST_DEVICES=cuda "$bin/test_kernels" --gtest_brief=1 "--gtest_filter=$kernels"
  local status=$?
  echo "== test_layers" && VG_TEST_DEVICES=cuda "$bin/test_layers" --gtest_brief=1 "--gtest_filter=$layers" || status=1
  return "$status"
}
export -f tests
export bin kernels layers
step "kernels and layers on the device" 150 bash -c tests > "$out/tests.txt" 2>&1 || tail -5 "$out/tests.txt"
step "speed-up" 200 "$bin/segbench" speedup --cases "$cases" -n "$repetitions" -q --json > "$out/speedup.json"
python3 - "$out/speedup.json" 2> /dev/null <<'PY' | tee -a "$summary"
import json, sys
for c in json.load(open(sys.argv[1]))["cases"]:
    for p, g in c.get("gpu", {}).items():
        took = sorted(g.get("seconds", []))
        print("  %-10s %s %s, apart %.1e" % (c["case"], p, "%6.1f times as fast as this CPU (%.3g s)" % (g["speedup"], took[len(took) // 2]) if took else "not timed", g["apart"]))
PY
if have python3 && python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
  step "PyTorch beside it" 90 python3 "$here/peer.py" ${quick:+--quick} > "$out/peer.json"
else
  say "PyTorch with CUDA: not on this machine"
fi
if have compute-sanitizer; then
  : > "$out/sanitizer.txt"
  for tool in memcheck racecheck initcheck synccheck; do
    VG_TEST_DEVICES=cuda step "compute-sanitizer $tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
      "$bin/test_kernels" --gtest_brief=1 "--gtest_filter=$kernels" >> "$out/sanitizer.txt" 2>&1
  done
fi
if have ncu; then
  step "ncu on a training step" 100 ncu --csv --target-processes all --launch-skip 400 --launch-count 120 \
    --metrics gpu__time_duration.sum,sm__throughput.avg.pct_of_peak_sustained_elapsed,dram__throughput.avg.pct_of_peak_sustained_elapsed,l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio,l1tex__data_bank_conflicts_pipe_lsu.sum,sm__warps_active.avg.pct_of_peak_sustained_active \
    "$bin/segbench" speedup --cases "${cases%%,*}" -n 1 -q > "$out/ncu.csv" 2>&1
fi
say "$SECONDS s in all; results in $out"
exit "$bad"
