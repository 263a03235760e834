#!/usr/bin/env bash
# Fuzzes every target for RUNS executions, one after the other, keeps the inputs that found something new, and writes down what was done:
#   tests/fuzz/run.sh [RUNS [TARGET ...]]        (default 1000000, all targets; builds the preset "fuzz" first, which wants clang)
# tests/fuzz/counter.md gets the executions added up; tests/fuzz/corpus/TARGET.corpus the smallest of the inputs that together reach every edge.
# A finding makes the exit code 1; its input lies in build/fuzz/work. VG_FUZZ_BIN: programs built before; VG_FUZZ_RECORD: another
# folder for counter and corpus; VG_FUZZ_WORK: another folder to work in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
runs=${1:-1000000}
shift || true
record=${VG_FUZZ_RECORD:-tests/fuzz} work=${VG_FUZZ_WORK:-build/fuzz/work} bin=${VG_FUZZ_BIN:-build/fuzz/bin}
if [[ -z ${VG_FUZZ_BIN:-} ]]; then
  cmake --preset fuzz > /dev/null
  cmake --build build/fuzz --target fuzz_files fuzz_models >&2
  git describe --always --dirty --abbrev=7 --exclude '*' > build/fuzz/bin/commit
fi
counter=$record/counter.md
mkdir -p "$work" "$record/corpus"
[[ -e $counter ]] || cp tests/fuzz/counter.md "$counter" 2> /dev/null || cat > "$counter" <<'TEXT'
# What has been fuzzed

Written by `tests/fuzz/run.sh`: executions are added up over all runs; edges and inputs are those of the last one. Address and
undefined-behaviour sanitizers on, at most 65 MiB in one allocation, 5 s an input.

| target | executions | edges | inputs | date | commit |
|---|---:|---:|---:|---|---|
TEXT

# note TARGET EXECUTIONS EDGES INPUTS
note() {
  local commit
  commit=$(cat "$bin/commit" 2> /dev/null || echo unknown)  # of the programs, not of what is checked out by now
  awk -F' *[|] *' -v t="$1" -v n="$2" -v rest="$3 | $4 | $(date -u +%F) | $commit |" '
    $2 == t { printf "| %s | %d | %s\n", t, $3 + n, rest; found = 1; next }
    { print }
    END { if (!found) printf "| %s | %d | %s\n", t, n, rest }' "$counter" > "$work/counter.new"
  mv "$work/counter.new" "$counter"
}

export ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=8  # short stacks of allocations: every input makes many
failed=0
for program in fuzz_files fuzz_models; do
  [[ -x $bin/$program ]] || continue
  "$bin/$program" --seeds "$work/seeds"
  for target in $("$bin/$program" --targets); do
    [[ $# -eq 0 || " $* " == *" $target "* ]] || continue
    export VG_FUZZ_TARGET=$target
    log=$work/$target.log inputs=$work/$target
    mkdir -p "$inputs"
    [[ ! -e $record/corpus/$target.corpus ]] || "$bin/$program" --unpack "$record/corpus/$target.corpus" "$inputs"
    length=1024
    [[ $program == fuzz_files ]] || length=4096
    status=0
    # A twentieth explores, weighing inputs and watching values compared; the rest is several times as fast without.
    : > "$log"
    for mode in "$((runs / 20)) -use_value_profile=1" "$((runs - runs / 20)) -entropic=0"; do
      "$bin/$program" -runs=$mode "-max_len=$length" -malloc_limit_mb=65 -rss_limit_mb=1024 -timeout=5 -print_final_stats=1 \
        "-artifact_prefix=$work/$target-" "$inputs" "$work/seeds/$target" >> "$log" 2>&1 || status=$?
      ((status == 0)) || break
    done
    # A finding ends the run before its statistics: then the last line that counts executions is taken.
    done_runs=$(sed -n -E 's/^stat::number_of_executed_units: //p' "$log" | awk '{n += $1} END {print n + 0}')
    ((status == 0)) || done_runs=$((done_runs + $(sed -n -E '/^stat::/d; s/^#([0-9]+)[[:space:]].*/\1/p' "$log" | tail -1)))
    edges=$(sed -n -E 's/.* cov: ([0-9]+) .*/\1/p' "$log" | tail -1)
    if ((status == 0)); then
      rm -rf "$work/least"
      mkdir "$work/least"
      "$bin/$program" -merge=1 "-max_len=$length" "$work/least" "$inputs" "$work/seeds/$target" > "$work/merge.log" 2>&1
      "$bin/$program" --pack "$work/least" "$record/corpus/$target.corpus" 25000 > /dev/null
    fi
    note "$target" "${done_runs:-0}" "${edges:-0}" "$(find "$inputs" -type f | wc -l)"
    printf '%-14s %10s executions, %5s edges\n' "$target" "${done_runs:-0}" "${edges:-0}"
    if ((status)); then
      grep -E 'what\(\)|ERROR|SUMMARY|Test unit' "$log" >&2 || tail -5 "$log" >&2
      failed=1
    fi
  done
done
exit "$failed"
