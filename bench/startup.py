"""How soon each command answers, beside a Python that does nothing.

    python bench/startup.py [--runs 5] [--prompt FILE] [--predict FILE]

Every command is run in fresh processes, in turn with ``python -c pass``; printed are the fastest
times, and their ratio to Python's own. With ``--predict``, a prompt on smollm2 answers one text as
well, and says where the time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 1000
HERE = Path(__file__).parent
PARTS = """
import time
began = time.perf_counter()
def lap(name):
    global began
    now = time.perf_counter()
    print(f"  {now - began:5.2f} s  {name}")
    began = now
import torch
lap("import torch")
import foreword.backbone
lap("import the part of transformers that runs models")
from foreword.compose.ensemble import load_prompt
lap("import the rest")
prompt = load_prompt(FILE)
lap("read the prompt")
from foreword.backbone.backbone import Backbone
backbone = Backbone.load(prompt.backbone["name"])
lap("load the model")
prompt = prompt.on_backbone(backbone)
lap("fingerprint the model, and hold the prompt against it")
prompt.predict([TEXT])
lap("answer one text")
"""


def fastest(arguments: list[str], runs: int) -> float:
    """Return the shortest time of some runs of Python, in seconds."""
    # Compiled modules are kept, as on a user's machine: some set this for all of their processes.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], check=True, capture_output=True, env=environment
        )
        times.append(time.perf_counter() - began)
    return min(times)


def commands(prompt: Path, folder: Path) -> dict[str, list[str]]:
    """Return what is timed: arguments of Python by what they are called."""
    rows = folder / "rows.jsonl"
    lines = [{"text": f"text number {n} of many", "label": "ab"[n % 2]} for n in range(ROWS)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    asked = {
        "--version": ["--version"],
        "--help": ["--help"],
        "train --help": ["train", "--help"],
        "predict --help": ["predict", "--help"],
        "info": ["info", str(prompt)],
        "library": ["library", str(prompt.parent)],
        f"data check, {ROWS} rows": ["data", "check", str(rows)],
        f"data clean, {ROWS} rows": [
            "data",
            "clean",
            str(rows),
            "--out",
            str(folder / "c.jsonl"),
            "--force",
        ],
        f"data split, {ROWS} rows": [
            "data",
            "split",
            str(rows),
            "--out",
            str(folder / "split"),
            "--force",
        ],
    }
    every = {name: ["-m", "foreword", *arguments] for name, arguments in asked.items()}
    return {"import foreword": ["-c", "import foreword"], **every}


def main() -> None:
    about = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    about.add_argument("--runs", type=int, default=5)
    default = HERE.parent / "tests" / "prompts_0_1" / "soft-generate.safetensors"
    about.add_argument("--prompt", type=Path, default=default)
    about.add_argument("--predict", type=Path, help="a prompt on smollm2, of one text")
    given = about.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nothing = fastest(["-c", "pass"], given.runs)
        print(f"{nothing:6.3f} s  python -c pass")
        for name, arguments in commands(given.prompt, Path(folder)).items():
            took = fastest(arguments, given.runs)
            print(f"{took:6.3f} s  {took / nothing:5.1f} times  {name}")
    if given.predict is not None:
        text = "i want my money back"
        took = fastest(["-m", "foreword", "predict", str(given.predict), text], given.runs)
        print(f"{took:6.3f} s  {took / nothing:5.1f} times  predict of one text")
        code = PARTS.replace("FILE", repr(str(given.predict))).replace("TEXT", repr(text))
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
