#!/usr/bin/env bash
# Exports the tiny network (one task) and times it against onnxruntime, each in its best form.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
out=build/bench
mkdir -p "$out"
export_network() { (cd training && "../$python" -m m3vit.export --config tiny --tasks semseg:21 "$@"); }
[ -f "$out/tiny.onnx" ] || export_network -o "../$out/tiny.onnx"
[ -f "$out/tiny_routed.onnx" ] || export_network --form routed -o "../$out/tiny_routed.onnx"
for threads in 1 2; do
  "$python" bench/compare.py build/moecc "$out/tiny.onnx" --peer "$out/tiny_routed.onnx" --threads "$threads"
done
