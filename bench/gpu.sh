#!/usr/bin/env bash
# On a machine with a CUDA card, in at most ten minutes: the correctness tests of serving, then its benchmarks in bfloat16
# on random weights in the shapes of 1B and 7B models, without a network. With the `dev` extra:
#   bench/gpu.sh > table.txt
#   bench/gpu.sh --device cpu    # a tiny shape, to see that it runs
# What fails does not stop the rest; the exit status is 1 then, as where the time was too short.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
case "$*" in
  "" | "--device cuda") ;;
  "--device cpu") device=cpu ;;
  *) echo "usage: bench/gpu.sh [--device cuda|cpu]" >&2; exit 2 ;;
esac
python=${PYTHON:-python} limit=${LIMIT:-600} failed=0
export PYTHONPATH=src HF_HUB_OFFLINE=1
if [ "$device" = cpu ]; then
  shapes="random-tiny" at_once="--at-once 1 --at-once 4" requests=16 prompts=40 seconds=2
else
  shapes="random-1b random-7b" at_once="--at-once 1 --at-once 8 --at-once 32 --at-once 128" requests=128 prompts=1000 seconds=10
fi

section() { # what it is called, and the command, which gets the time that is left
  echo "== $1 (at $SECONDS s)"
  local left=$((limit - SECONDS))
  if [ "$left" -le 0 ]; then
    echo "no time is left"
    failed=1
    return
  fi
  timeout "$left" "$python" "${@:2}" || { echo "failed: exit status $?"; failed=1; }
}
serve() { # a benchmark on a shape in bfloat16
  section "$2, bfloat16, $device: $1" bench/serve.py "$1" --model "$2" --device "$device" --dtype bfloat16 --json "${@:3}"
}

section "random-tiny, float32, $device: agree" bench/serve.py agree --device "$device" --dtype float32 --json
section "tests of serving" -m pytest -q -p no:cacheprovider tests/serve
for shape in $shapes; do
  # shellcheck disable=SC2086
  serve shapes "$shape" $at_once
  serve generate "$shape" --requests "$requests" --rounds 2 --adapters 0
done
first=${shapes%% *}
serve continuous "$first" --most "$requests" --rounds 2 --limit 60
serve thousand "$first" --prompts "$prompts"
serve classify "$first" --seconds "$seconds"
echo "== done in $SECONDS s"
exit "$failed"
