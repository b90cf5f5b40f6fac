"""E2E (Novikova et al. 2017): all training rows, the official test set, the official BLEU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first
from foreword.display import console
from foreword.errors import UserError
from foreword.files import write_whole
from foreword.metrics.generation import generation
from foreword.prompt.prompt import Prompt
from foreword.tasks.generate import Generate
from foreword.terminal import Terminal
from foreword.training.configure import method_from
from foreword.training.settings import Training
from foreword.training.tune import tune

AT_ONCE = 30
"""Test rows that are written together and then kept."""

SETTINGS: dict[str, dict[str, Any]] = {
    "prefix": {"length": 20, "shots": 2},
    "soft": {"length": 20},
    "lora": {"rank": 4},
}
"""What the methods are tuned with; the others have their usual settings."""

OFFICIAL = "BLEU of e2e-metrics: multi-reference, mteval-v13a tokens, lower case, by sacrebleu"


@dataclass(frozen=True)
class E2E:
    """What all runs have in common."""

    data: Path
    epochs: int
    batch: int
    beams: int
    rows: int | None
    dtype: str
    memory: str | None

    def check(self) -> None:
        """Raise UserError where the files are missing."""
        for part in ("train", "dev", "test"):
            self.file(part)

    def file(self, part: str) -> Path:
        """Return the file of a part, which may be packed."""
        found = [self.data / f"{part}.jsonl{end}" for end in ("", ".gz")]
        for path in found:
            if path.exists():
                return path
        raise UserError(f"{found[0]}: no such file; give the folder of the E2E data set")

    def plain(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        kept = {k: v for k, v in asdict(self).items() if k not in ("data", "memory")}
        return {name: value for name, value in kept.items() if value is not None}


def run_e2e(setting: E2E, work: Path, backbone: Backbone, name: str) -> dict[str, Any]:
    """Tune a method, write the test set, and return its scores; goes on where it was stopped."""
    settings = "-".join(f"{key}{value}" for key, value in setting.plain().items())
    file = work / f"e2e-{Path(backbone.name).stem}-{name}-{settings}.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        _tune(backbone, name, setting, file)
    prompt = Prompt.load(file, backbone=backbone)
    test = as_rows(setting.file("test"))
    texts = write(prompt, test, setting.beams, file)
    return {
        **official_scores(texts, test),
        "dev": prompt.scores["dev"],
        "trained": prompt.method["trained"],
        "train_rows": prompt.data["train"]["rows"],
        "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }


def _tune(backbone: Backbone, name: str, setting: E2E, file: Path) -> None:
    rows = as_rows(setting.file("train"))
    tune(
        backbone,
        Generate("Meaning: {prompt}\nText:", decoding=Decoding(max_new_tokens=80, stop=("\n",))),
        method_from(name, dict(SETTINGS.get(name, {})), "SETTINGS"),
        rows if setting.rows is None else first(rows, setting.rows, 0),
        as_rows(setting.file("dev")),
        training=Training(
            epochs=setting.epochs, batch_size=setting.batch, memory=setting.memory, no_texts=True
        ),
        out=file,
        resume=True,
        report=Terminal(f"e2e, {name}"),
    )


def write(prompt: Prompt, rows: Sequence[Row], beams: int, file: Path) -> list[str]:
    """Return the texts that a prompt writes, kept in a file beside its own, part by part."""
    content = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    kept = file.with_name(f"{file.stem}-{content}-beams{beams}.answers.jsonl")
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    texts: list[str] = [json.loads(line) for line in lines]
    answerer = prompt.decoding(beams=beams)
    for start in range(len(texts), len(rows), AT_ONCE):
        answers = answerer.answers(rows[start : start + AT_ONCE])
        texts += [str(each["text"]).strip() for each in answers]
        write_whole(kept, "".join(f"{json.dumps(text)}\n" for text in texts).encode())
        console.say(f"{len(texts)} of {len(rows)} test rows are written")
    return texts


def official_scores(texts: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the official metrics' BLEU with its interval, and Foreword's own scores beside it.

    e2e-metrics (pymteval) takes mteval-v13a's tokens without regard to case, clips by the most of
    any reference, and takes the length of the closest one; sacrebleu does the same on lower case.
    """
    references = [list(map(str, row.fields["references"])) for row in rows]
    low = generation(
        [text.lower() for text in texts],
        [[each.lower() for each in own] for own in references],
        scores=("bleu",),
        language="en",
    )
    own = generation(texts, references, scores=("bleu", "chrf", "rouge_l"), language="en")
    return {
        "bleu": low["bleu"],
        "interval": low["intervals"]["bleu"],
        "metric": OFFICIAL,
        "rows": len(rows),
        "cased": {name: own[name] for name in ("bleu", "chrf", "rouge_l")},
    }
