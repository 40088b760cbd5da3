#!/usr/bin/env bash
# Fuzzes each target for a while: run.sh BUILD SECONDS PYTHON [TARGET...]. What it finds lands in tests/data/fuzz/TARGET,
# where the normal tests replay it. The corpus grows in BUILD/corpus from one run to the next.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1 seconds=$2 python=$3
shift 3
[ $# -gt 0 ] || set -- npy picture tensor text onnx
corpus=$build/corpus
[ -d "$corpus/seeds" ] || "$python" tests/fuzz/make_seeds.py "$corpus/seeds"

# A size that cannot be had is an answer, not a find.
export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=256:detect_leaks=1
failed=0
for target in "$@"; do
  mkdir -p "$corpus/$target" "tests/data/fuzz/$target"
  log=$build/fuzz-$target.log
  status=0
  "$build/tests/fuzz/fuzz_$target" "$corpus/$target" "$corpus/seeds/$target" "tests/data/fuzz/$target" \
    -artifact_prefix="tests/data/fuzz/$target/" -dict="$corpus/seeds.words" -max_total_time="$seconds" -timeout=25 \
    -rss_limit_mb=3000 -malloc_limit_mb=0 -max_len=8192 -print_final_stats=1 >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
  if [ "$status" -eq 0 ]; then
    echo "fuzz_$target: ${runs:-0} inputs, ${covered:-nothing covered}, nothing found"
  else
    failed=$((failed + 1))
    echo "fuzz_$target: found something; see $log"
    grep -E 'ERROR|SUMMARY|runtime error|Test unit written|internal error' "$log" || tail -20 "$log"
  fi
done
echo "$(($# - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
