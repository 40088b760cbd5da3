#!/usr/bin/env bash
# Compiles the committed network for every task, runs all of them on a rendered scene and on a photograph, and says what
# came of it.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/demo
mkdir -p "$out"
build/moecc compile examples/nano/nano.onnx -o "$out/nano"
echo "Compiled examples/nano/nano.onnx to $out/nano: $(ls "$out/nano" | wc -l) files, one C file for each task:"
ls "$out"/nano/*_task_*.c
for picture in room.png photo.jpg; do
  echo
  echo "Running all tasks on examples/$picture:"
  build/moecc run examples/nano/nano.onnx --input image=examples/$picture -o "$out/${picture%.*}"
done
