#!/usr/bin/env bash
# Packs everything that a machine with a GPU needs to check voxgrad, and that machine needs nothing but its driver: one folder that runs wherever it
# is put. `./dev gpu-bundle` calls this.
#   benchmarks/gpu/bundle.sh BUILD FOLDER [--fake]     BUILD: a finished build (linked for $ORIGIN/../lib); --fake: with the fake CUDA runtime
# FOLDER/gpu-check is what to run there. Stripped, at most 50 MiB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=$1 out=$2 fake=${3:-}
programs=(segtrain seginfer segbench test_kernels test_layers)

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/data"
for program in "${programs[@]}"; do cp "$build/bin/$program" "$out/bin/"; done
if [[ $fake == --fake ]]; then
  cp "$build/bin/libvoxgrad_cuda_fake.so" "$out/bin/libvoxgrad_cuda.so"
else
  cp "$build/bin/libvoxgrad_cuda.so" "$out/bin/"
fi
strip "$out"/bin/*

# Every shared library but the C library and the loader, which belong to the machine.
ldd "$out"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | while read -r library; do
  case $(basename "$library") in
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | ld-linux*) ;;
    *) cp -L "$library" "$out/lib/" && strip "$out/lib/$(basename "$library")" ;;
  esac
done

"$build/bin/segphantom" -o "$out/data" -n 2 --size 48x56x40 --spacing 0 --seed 3 -q
cp benchmarks/gpu/check.sh "$out/gpu-check"
cp benchmarks/gpu/peer.py benchmarks/peers/dynamic_unet_peer.py "$out/"
cp LICENSE "$out/"
git describe --always --dirty --abbrev=7 --exclude '*' > "$out/commit" 2> /dev/null || echo unknown > "$out/commit"

size=$(du -sm "$out" | cut -f1)
((size <= 50)) || { echo "bundle: $out has $size MiB (wanted at most 50)" >&2; exit 1; }
echo "$out: $size MiB, commit $(cat "$out/commit")"
