#!/usr/bin/env bash
# On a machine with a CUDA card: the correctness tests of serving, then its benchmarks in bfloat16 on random weights in the
# shapes of 1B and 7B models, without a network. From the root of the repository, with the `dev` extra:
#   bench/gpu.sh > table.txt
# On a CPU, to see that it runs:  DEVICE=cpu DTYPE=float32 SHAPES=random-tiny bench/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} DTYPE=${DTYPE:-bfloat16}
SHAPES=${SHAPES:-random-1b random-7b}
AT_ONCE=${AT_ONCE:-1 8 32 128}
export PYTHONPATH=src HF_HUB_OFFLINE=1
many=(); for count in $AT_ONCE; do many+=(--at-once "$count"); done

echo "== on $DEVICE: the engine beside the model alone, in float32, token for token"
"$PYTHON" bench/serve.py agree --model random-tiny --device "$DEVICE" --dtype float32
if [ "${TESTS:-1}" = 1 ]; then
  echo "== tests of serving"
  "$PYTHON" -m pytest -q -p no:cacheprovider tests/serve/test_serving.py tests/serve/test_prompt_memory.py
fi
for shape in $SHAPES; do
  echo "== $shape, $DTYPE: memory, time to the first token, tokens a second"
  "$PYTHON" bench/serve.py shapes --model "$shape" --device "$DEVICE" --dtype "$DTYPE" "${many[@]}" --json
  echo "== $shape, $DTYPE: the engine, no prompt, the products alone"
  "$PYTHON" bench/serve.py generate --model "$shape" --device "$DEVICE" --dtype "$DTYPE" \
    --requests "${REQUESTS:-128}" --rounds 2 --adapters 0 --json
done
first=${SHAPES%% *}
echo "== $first, $DTYPE: a thousand prompts"
"$PYTHON" bench/serve.py thousand --model "$first" --device "$DEVICE" --dtype "$DTYPE" --prompts "${PROMPTS:-1000}" --json
