"""A server that learns from people whose taste drifts, beside one that does not.

python bench/learning.py --model MODEL [--scenes recommend support] [--seeds 0 1 2 3 4]

The stream is that of ``examples/recommend/drift.py``. The first version of a prompt, a head on a
frozen encoder, is tuned on rows from before all drift. Then people come in turn: the version of the
moment answers, and what the user takes is feedback. Feedback, training, gate and swap are those of
``foreword serve --learn`` (``Learner``), in this process, without HTTP; a training is the same
command, but finds the model open and remembers the states of texts, so that five seeds take
minutes. "scratch" is trained anew on all rows, those held back too, whenever the learner tries, and
always swapped in. In the cases that are not clean a share of the corrections is wrong, in rows that
train and in those that judge; what a version is worth is seen on the rows that come next, with
their right answers.

A line of the records is a scene, a case and a seed; those that are there are not run again.
``bench/learning_report.py`` draws and counts them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "recommend"))
from drift import scene_of, stream

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, Example
from foreword.backbone.run.layers import WHOLE
from foreword.cli.main import run
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.prompt.answerer import Answerer
from foreword.prompt.familiar import states_of_answers
from foreword.serve.feedback.files import FeedbackFiles
from foreword.serve.feedback.learner import Attempt, Learner
from foreword.serve.feedback.learning import Learning
from foreword.serve.http.ready import Ready
from foreword.serve.prompts import PromptFolder

RECORDS = Path(__file__).with_name("learning.jsonl")
START, LENGTH, BLOCK = 300, 1500, 50
CASES = {
    "clean": 0.0,
    "a tenth wrong": 0.1,
    "half wrong": 0.5,
    "half wrong, all alike": 0.5,
}
RATE = ("--lr", "0.02")


class Direct:
    """The engine's answers without its loop."""

    busy = False

    def answer(self, prompt: Answerer, rows: Sequence[fw.Row]) -> Future[Any]:
        """Answer rows at once."""
        done: Future[Any] = Future()
        done.set_result(prompt.answers(rows))
        return done

    def states(self, prompt: fw.Prompt, rows: Sequence[fw.Row]) -> Future[Any]:
        """Return the states at rows' answers."""
        done: Future[Any] = Future()
        done.set_result(states_of_answers(prompt.bound, rows, prompt.injection))
        return done

    def release(self, injection: Any, wait: bool = True) -> None:
        """Nothing is held."""


class Here:
    """A training in this process in place of one of its own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.made = Path()

    def run(self, words: Sequence[str], folder: Path | None = None) -> None:
        """Run ``foreword`` with words."""
        began = time.process_time()
        if run([*words, "--json"]):
            raise UserError("training failed")
        self.seconds += time.process_time() - began

    def end(self) -> None:
        """Nothing is under way."""


@contextmanager
def remembered(backbone: Backbone, file: Path | None) -> Iterator[None]:
    """Let all that is opened be this model, and each text's pooled state be found once.

    They are kept in a file, where one is named.
    """
    states: dict[Example, torch.Tensor] = {}
    if file is not None and file.exists():
        held = torch.load(file, weights_only=True)
        states = {
            Example(ids, slot, branches, targets): s for ids, slot, branches, targets, s in held
        }
    real = Backbone.states

    def found(
        self: Backbone,
        examples: Any,
        injection: Any = NOTHING,
        lead: int = 0,
        layers: Any = WHOLE,
    ) -> torch.Tensor:
        pooled = all(token == POOLED for each in examples for _, token in each.targets)
        if not pooled or lead or layers is not WHOLE:
            return real(self, examples, injection, lead, layers)
        keys = [replace(each, answers=()) for each in examples]
        if new := [key for key in dict.fromkeys(keys) if key not in states]:
            with torch.no_grad():
                states.update(zip(new, real(self, new, injection), strict=True))
        return torch.stack([states[key] for key in keys])

    with (
        patch.object(Backbone, "states", found),
        patch.object(Backbone, "can_skip_lower_layers", lambda self, longest: False),
        patch.object(Backbone, "load", lambda *args, **how: backbone),
    ):
        yield
    if file is not None:
        torch.save([(e.ids, e.slot, e.branches, e.targets, s) for e, s in states.items()], file)


def rows_of(rows: Sequence[Any]) -> list[fw.Row]:
    return [fw.Row({"text": row["text"]}, "stream") for row in rows]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text(
        "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in rows), "utf-8"
    )
    return path


def hits(prompt: Answerer, rows: Sequence[Any]) -> list[int]:
    """Return 1 for each row whose first answer is what the user took."""
    found = prompt.answers(rows_of(rows))
    return [int(a["label"] == row["label"]) for a, row in zip(found, rows, strict=True)]


def corrected(row: Any, case: str, labels: Sequence[str], chance: random.Random) -> str:
    """Return what is told of a row: what the user took, or something wrong."""
    if chance.random() >= CASES[case]:
        return str(row["label"])
    if case.endswith("alike"):
        return labels[0]
    return chance.choice([label for label in labels if label != row["label"]])


def one(backbone: Backbone, scene: str, case: str, seed: int, base: Path) -> dict[str, Any]:
    """Run a stream once; return its record."""
    about = scene_of(scene)
    rows = list(stream(about, LENGTH, seed, start=START))
    before, rows = rows[:START], rows[START:]
    missing = {*about["labels"]} - {row["label"] for row in before}
    others = stream(about, 0, seed + 1000, start=4 * START)
    before += [row for row in others if row["label"] in missing]  # else they cannot be learned
    training, anew = Here(), Here()
    head = ["train", "--model", backbone.name, "--method", "head", "--threads", "1"]
    (base / "prompts").mkdir()
    first = base / "prompts" / "shop.safetensors"
    anew.run([*head, "--train", str(write(base / "first.jsonl", before)), "--out", str(first)])
    anew.seconds = 0.0
    chance = random.Random(seed)
    prompts = PromptFolder(base / "prompts", backbone)
    ready: Any = Ready("model", backbone, prompts, Direct(), None)  # type: ignore[arg-type]
    files = FeedbackFiles(base / "feedback", new_id=lambda: f"{chance.getrandbits(64):016x}")
    learner = Learner(ready, files, Learning(settings=RATE))
    learner.training = training  # type: ignore[assignment]
    made: list[Any] = []
    frozen = scratch = prompts.open("shop")[1]
    found: dict[str, list[int]] = {"frozen": [], "learning": []}
    if case == "clean":
        found["scratch"] = []
    watched = Watched(learner)
    judging = 0.0
    for start in range(0, LENGTH, BLOCK):
        block = rows[start : start + BLOCK]
        version, current = prompts.open("shop")
        for name, prompt in (("frozen", frozen), ("learning", current), ("scratch", scratch)):
            if name in found:
                found[name] += hits(prompt, block)
        for row in block:
            told = corrected(row, case, about["labels"], chance)
            files.add(
                "shop", {"text": row["text"], "label": told}, version=version, subject=row["user"]
            )
        took, training_took = time.process_time(), training.seconds
        attempt = learner.look("shop")
        if attempt is None:
            continue
        judging += time.process_time() - took - (training.seconds - training_took)
        coming = rows[start + BLOCK : start + BLOCK + 3 * BLOCK]
        made.append(_attempt(attempt, start + BLOCK, current, watched.last, coming))
        if case == "clean":
            out = base / f"scratch-{start}.safetensors"
            data = write(base / "all.jsonl", [*before, *rows[: start + BLOCK]])
            anew.run([*head, "--train", str(data), "--out", str(out)])
            scratch = fw.Prompt.load(out, backbone)
    prompts.close()
    return {
        "scene": scene,
        "case": case,
        "seed": seed,
        "start": START,
        "hits": {name: "".join(map(str, each)) for name, each in found.items()},
        "attempts": made,
        "processor_seconds": {
            "training": round(training.seconds, 2),
            "judging": round(judging, 2),
            **({"scratch": round(anew.seconds, 2)} if case == "clean" else {}),
        },
    }


class Watched:
    """The version that a learner has judged last, swapped in or not."""

    def __init__(self, learner: Learner) -> None:
        self.last: Answerer | None = None
        real = learner._load

        def load(path: Path) -> Answerer:
            self.last = real(path)
            return self.last

        learner._load = load  # type: ignore[method-assign]


def _attempt(
    attempt: Attempt, at: int, old: Answerer, new: Answerer | None, coming: Sequence[Any]
) -> dict[str, Any]:
    """Return an attempt with how right both versions are on the rows that come next."""
    kept = asdict(attempt)
    names = ("trained", "held", "taken", "old", "new", "low", "high", "reason")
    made = {"at": at, **{name: kept[name] for name in names}}
    if new is not None and coming:
        made["next"] = {
            "rows": len(coming),
            "old": sum(hits(old, coming)),
            "new": sum(hits(new, coming)),
        }
    return made


def main() -> None:
    """Run what the records do not have yet."""
    own = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    own.add_argument("--model", required=True, help="an encoder, a folder or a name")
    own.add_argument("--scenes", nargs="+", default=["recommend", "support"])
    own.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    own.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    own.add_argument("--states", type=Path, help="keep texts' states there, for the next time")
    own.add_argument("--records", type=Path, default=RECORDS)
    given = own.parse_args()
    torch.set_num_threads(1)
    lines = given.records.read_text("utf-8").splitlines() if given.records.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("scene", "case", "seed")) for line in lines}
    backbone = fw.load(given.model)
    with remembered(backbone, given.states):
        for case in given.cases:  # of which "clean" is the longest, since texts are new there
            for seed in given.seeds:
                for scene in given.scenes:
                    if (scene, case, seed) in done:
                        continue
                    with tempfile.TemporaryDirectory(prefix="foreword-bench-") as base:
                        record = one(backbone, scene, case, seed, Path(base))
                    with given.records.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                    print(scene, case, seed, record["processor_seconds"], file=sys.stderr)


if __name__ == "__main__":
    main()
