"""How much memory ``predict --data F --out G`` takes as rows become more.

    python bench/answer_memory.py [--rows 1000 10000 100000] [--ending .jsonl]

A random model of two layers with the tokenizer of smollm2, in a process of its own for each number
of rows. Printed are the peak of the process, the seconds, and the size of the file.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from foreword.cli.main import run


def prepare(folder: Path) -> None:
    """Write the model and an untrained prompt for it."""
    import torch
    from many_labels import tiny, words_of

    from foreword.injection import Injection
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.classify import Classify

    backbone = tiny()
    backbone.model.save_pretrained(folder / "model")
    backbone.text.tokenizer.save_pretrained(folder / "model")
    task = Classify(template="Text: {text}\nIs it good?", labels={"yes": " yes", "no": " no"})
    about = {"name": str(folder / "model"), "architecture": "causal"}
    about["fingerprint"] = backbone.fingerprint
    soft = Injection(embeds=torch.randn(2, backbone.width), leading=2)
    Prompt(soft, task, about, {"name": "soft"}).save(folder / "p.safetensors")
    (folder / "words.json").write_text(json.dumps(words_of(backbone)))


def write_texts(folder: Path, count: int, ending: str) -> Path:
    """Write rows of 20 words each."""
    words, draw = json.loads((folder / "words.json").read_text()), random.Random(0)
    texts = (" ".join(draw.choices(words, k=20)) for _ in range(count))
    file = folder / f"rows{ending}"
    with file.open("w") as out:
        if ending == ".csv":
            out.write("id,text\n")
            out.writelines(f"{number},{text}\n" for number, text in enumerate(texts))
        else:
            out.writelines(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(texts))
    return file


def answer(folder: Path, file: Path) -> int:
    """Run the command here, and print the peak of this process in MiB."""
    began = time.perf_counter()
    out = folder / f"out{file.suffix}"
    prompt = str(folder / "p.safetensors")
    status = run(["predict", prompt, "--data", str(file), "--out", str(out)])
    # Not getrusage's ru_maxrss, which begins at what the parent had.
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(lines["VmHWM"].split()[0]) / 1024
    print(f"{peak:.0f} MiB, {time.perf_counter() - began:.0f} s, {file.stat().st_size:,} bytes")
    return status


def main() -> int:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--ending", default=".jsonl", choices=[".jsonl", ".csv"])
    parser.add_argument("--answer", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.answer:
        return answer(*asked.answer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for count in asked.rows:
            file = write_texts(folder, count, asked.ending)
            print(f"{count:,} rows: ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "--answer", folder, file], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
