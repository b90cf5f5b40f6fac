"""What a request costs where a prompt of label words was exported to: processor time, and memory.

    python bench/runtimes.py --data examples/support/test.jsonl foreword=P.safetensors \\
        onnx=FOLDER llama.cpp=P.bin,MODEL.gguf mlx=P-mlx.safetensors,MODEL_FOLDER

Each program answers the same rows, one after the other on one thread, in a process of its own that
imports that program alone. A request reads a row under the prompt: ``foreword`` and ``onnx`` give
all labels' probabilities, ``llama.cpp`` and ``mlx`` the scores of the next token. The first two
requests are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
WARM = 2
"""Requests that are not counted."""

Ask = Callable[[dict[str, Any]], object]


def by_foreword(prompt: str) -> Ask:
    """Answer as ``Prompt.predict`` does."""
    import foreword as fw

    loaded = fw.Prompt.load(prompt)
    return lambda row: loaded.predict([row])


def by_onnx(folder: str) -> Ask:
    """Answer by the exported folder's own script."""
    sys.path.insert(0, folder)
    import run

    answer: Ask = run.answer
    return answer


def by_llama(state: str, gguf: str) -> Ask:
    """Load a saved sequence, and read a row after it."""
    import ctypes

    import llama_cpp

    llama = llama_cpp.Llama(
        gguf,
        n_ctx=1024,
        n_threads=1,
        n_threads_batch=1,
        flash_attn=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    held, count = (llama_cpp.llama_token * 1024)(), ctypes.c_size_t()
    llama_cpp.llama_state_seq_load_file(
        llama.ctx, state.encode(), 0, held, 1024, ctypes.byref(count)
    )
    llama.input_ids[: count.value] = held[: count.value]

    def ask(row: dict[str, Any]) -> object:
        llama.n_tokens = count.value
        llama._ctx.kv_cache_seq_rm(0, count.value, -1)
        llama.eval(llama.tokenize(laid_out(row).encode(), add_bos=False))
        return llama.sample(temp=0.0)

    return ask


def by_mlx(cache: str, model: str) -> Ask:
    """Load a prompt cache, and read a row after it."""
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.models.cache import load_prompt_cache, trim_prompt_cache

    network, tokenizer = mlx_lm.load(model)
    held = load_prompt_cache(cache)

    def ask(row: dict[str, Any]) -> object:
        ids = tokenizer.encode(laid_out(row), add_special_tokens=False)
        found = int(mx.argmax(network(mx.array([ids]), cache=held)[0, -1]))
        trim_prompt_cache(held, len(ids))
        return found

    return ask


def laid_out(row: dict[str, Any]) -> str:
    """Write a row of the demo as its template does."""
    return f"Customer: {row['text']}\nIntent:"


PROGRAMS: dict[str, Callable[..., Ask]] = {
    "foreword": by_foreword,
    "onnx": by_onnx,
    "llama.cpp": by_llama,
    "mlx": by_mlx,
}


def measure(program: str, files: list[str], data: str, count: int) -> dict[str, Any]:
    """Answer rows in this process: milliseconds of the processor for each, and its peak memory."""
    ask = PROGRAMS[program](*files)
    rows = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()[: count + WARM]]
    spent = []
    for row in rows:
        begin = time.process_time()
        ask({"text": row["text"]})
        spent.append(1000 * (time.process_time() - begin))
    spent = spent[WARM:]
    low, middle, high = statistics.quantiles(spent, n=4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"program": program, "ms": middle, "quartiles": (low, high), "peak_mb": peak}


def main() -> None:
    """Measure each program in a process of its own, and print a line for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("programs", nargs="+", metavar="PROGRAM=FILE[,MODEL]")
    reader.add_argument("--data", required=True)
    reader.add_argument("--rows", type=int, default=20)
    reader.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = reader.parse_args()
    for given in asked.programs:
        program, _, files = given.partition("=")
        if program not in PROGRAMS:
            reader.error(f"{program}: no such program; give one of {', '.join(PROGRAMS)}")
        if asked.here:
            print(json.dumps(measure(program, files.split(","), asked.data, asked.rows)))
            continue
        words = [sys.executable, __file__, "--here", "--data", asked.data]
        words += ["--rows", str(asked.rows), given]
        found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        print(found.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
