"""A sweep for a paper: prompts of three lengths by two methods, as a LaTeX table and a picture.

    python examples/sweep.py [--model smollm2] [--out out/sweep] [flags of foreword compare]

The rows are customers' messages with their intents (examples/support); seven runs take about seven
minutes of one processor. Every finished run is kept
in runs.jsonl, so that the same command goes on where it was stopped, and longer lists of values
add runs to those that are there.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

from foreword.cli.main import run

ROWS = Path(__file__).parent / "support"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, default=Path("out/sweep"))
    given, more = parser.parse_known_args()
    began = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    table, picture = given.out / "table.tex", given.out / "front.pdf"
    command = [
        *("compare", "--methods", "zero-shot,soft,prefix", "--start", "text"),
        *("--length", "1,5,20", "--epochs", "2", "--batch-size", "8", "--rows", "80"),
        *("--data", str(ROWS / "train.jsonl"), "--dev", str(ROWS / "dev.jsonl")),
        *("--dev-rows", "50", "--test", str(ROWS / "test.jsonl")),
        *("--template", "Customer: {text}\\nIntent:", "--model", given.model),
        *("--out", str(given.out / "runs.jsonl"), "--table", "latex", "--plot", str(picture)),
    ]
    known = set(more)
    pairs = zip(command[1::2], command[2::2], strict=True)
    command = ["compare", *(word for pair in pairs if pair[0] not in known for word in pair), *more]
    with table.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        status = run(command)
    if status == 0:
        print(table.read_text("utf-8"))
        print(f"{table} and {picture} in {time.monotonic() - began:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
