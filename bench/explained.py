"""What explanations recover of prompts, over tasks, methods and seeds: ``docs/explain.md``.

    python bench/explained.py run --data ../shared/data
    python bench/explained.py report

Each explained prompt is one line of ``bench/explained.jsonl``, and is not made again. It is tuned
on 256 rows for two epochs and explained on 64 dev rows (of which 16 are those by which words are
searched), its importance on 32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import foreword as fw
from foreword.data.rows import as_rows
from foreword.data.sample import first

RECORDS = Path(__file__).with_suffix(".jsonl")
SUPPORT = Path(__file__).parent.parent / "examples" / "support"
ROWS, DEV_ROWS, IMPORTANCE_ROWS = 256, 64, 32
SEEDS = (0, 1, 2)
LINES = {"sst2": "Review: {text}\nSentiment:", "support": "Customer: {text}\nIntent:"}
FRAME = "Please [soft:10]. "
METHODS: Mapping[str, dict[str, Any]] = {
    "prefix": {"method": "prefix"},
    "frame": {"method": "soft"},
    "soft": {"method": "soft", "length": 20, "start": "text"},
}


def explained(name: str, method: str, seed: int, part: str, data: Path) -> dict[str, Any]:
    """Tune a prompt and explain it; return a record of one part."""
    folder = SUPPORT if name == "support" else data / name
    train = first(as_rows(folder / "train.jsonl"), ROWS, seed)
    dev = as_rows(folder / "dev.jsonl")
    template = (FRAME if method == "frame" else "") + LINES[name]
    began = time.process_time()
    prompt = fw.tune(
        "smollm2", train=train, template=template, epochs=2, seed=seed, **METHODS[method]
    )
    tuned = time.process_time()
    most = DEV_ROWS if part == "words" else IMPORTANCE_ROWS
    found: Any = prompt.explain(dev, parts=(part,), rows=most, seed=seed).to_dict()
    return {
        "task": name,
        "method": method,
        "seed": seed,
        "part": part,
        "tuned_seconds": round(tuned - began, 1),
        "seconds": round(time.process_time() - tuned, 1),
        "found": found[part],
        "left_out": found["left_out"],
    }


def report(records: Sequence[dict[str, Any]]) -> str:
    """Return what the words recovered, and which pieces matter most, as Markdown."""
    lines = []
    for each in sorted(records, key=lambda r: (r["part"], r["task"], r["method"], r["seed"])):
        found = each["found"]
        name = f"{each['task']}, {each['method']}, seed {each['seed']}"
        prompt, bare = (found[key]["loss"] for key in ("prompt", "untouched"))
        lines.append(f"{name}: {each['part']}, prompt {prompt:.3f}, untouched {bare:.3f}")
        if each["part"] == "words":
            for kind in ("inspect", "asked", "searched", "nearest", "control"):
                own = [text for text in found["texts"] if text["kind"] == kind]
                if own:
                    best = min(own, key=lambda text: text["loss"])
                    share = "no gain" if best["gain"] is None else f"{best['gain']:.0%}"
                    lines.append(f"  {kind}: {best['loss']:.3f}, {share}: {best['text']!r}")
            continue
        for kind in ("layers", "tokens", "sides"):
            worst = sorted(found[kind], key=lambda piece: -piece["loss"])[:3]
            told = ", ".join(f"{piece['name']} {piece['loss']:.3f}" for piece in worst)
            if told:
                lines.append(f"  {kind}: {told}")
    return "\n".join(lines)


def read_records() -> list[dict[str, Any]]:
    """Return the records of prompts that were explained."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text("utf-8").splitlines()]


def main(words: Sequence[str] | None = None) -> None:
    """Explain what has not been explained, or report what has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="+", choices=tuple(LINES), default=list(LINES))
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--parts", nargs="+", default=["words", "importance"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args(words)
    if given.what == "report":
        print(report(read_records()))
        return
    done = {tuple(r[key] for key in ("part", "seed", "task", "method")) for r in read_records()}
    asked = itertools.product(given.parts, given.seeds, given.tasks, given.methods)
    for part, seed, name, method in asked:
        if (part, seed, name, method) not in done:
            record = explained(name, method, seed, part, given.data)
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
