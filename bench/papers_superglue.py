"""SuperGLUE's tasks of labels (Wang et al. 2019), as in P-tuning v2's table of accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.terminal import Terminal
from foreword.training.configure import method_from
from foreword.training.settings import Training
from foreword.training.tune import tune

TASKS: Mapping[str, str] = {
    "boolq": "{passage}\nQuestion: {question}?\nAnswer:",
    "cb": "{premise}\nQuestion: {hypothesis}?\nAnswer:",
    "rte": "{premise}\nQuestion: {hypothesis}?\nAnswer:",
    "wic": "{sentence1}\n{sentence2}\nThe word {word} means the same in both:",
}
"""Tasks by name, with their templates; rows have SuperGLUE's own fields."""

ENDS = {"masked": " [mask]", "encoder": ""}


@dataclass(frozen=True)
class SuperGlue:
    """What the runs of a task have in common; ``data`` has train.jsonl and val.jsonl."""

    task: str
    data: Path
    epochs: int
    batch: int
    length: int
    memory: str | None

    def plain(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        return {k: v for k, v in asdict(self).items() if k not in ("data", "memory", "task")}

    def rows(self, part: str) -> list[Row]:
        """Return rows with labels as words; raises UserError for a missing file."""
        path = self.data / f"{part}.jsonl"
        if not path.exists():
            raise UserError(f"{path}: no such file; give the folder of SuperGLUE's {self.task}")
        words = {"true": "yes", "false": "no", "entailment": "yes", "not_entailment": "no",
                 "contradiction": "no", "neutral": "maybe"}  # fmt: skip
        found = []
        for row in as_rows(path):
            label = str(row.fields["label"]).lower()
            found.append(Row({**row.fields, "label": words.get(label, label)}, row.where))
        return found


def run_superglue(setting: SuperGlue, work: Path, backbone: Backbone, name: str) -> dict[str, Any]:
    """Tune a method on a task's training rows, and return its accuracy on the validation rows.

    As in the paper the best step is chosen by the validation rows, so that numbers compare.
    """
    file = work / f"{setting.task}-{Path(backbone.name).stem}-{name}-{setting.length}.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    judged = setting.rows("val")
    if not file.exists():
        template = TASKS[setting.task] + ENDS.get(backbone.architecture, "")
        given = {"length": setting.length}
        method = method_from(name, given, "settings")
        tune(
            backbone,
            Classify(template=template, max_length=256),
            method,
            setting.rows("train"),
            judged,
            training=Training(
                epochs=setting.epochs,
                batch_size=setting.batch,
                memory=setting.memory,
                dev_sample=len(judged),
                no_texts=True,
            ),
            out=file,
            resume=True,
            report=Terminal(f"{setting.task}, {name}"),
        )
    prompt = Prompt.load(file, backbone=backbone)
    found = evaluate(prompt, judged, report=Terminal(f"{setting.task}, {name}"))
    return {
        "accuracy": found["accuracy"],
        "interval": found["intervals"]["accuracy"],
        "rows": len(judged),
        "trained": prompt.method["trained"],
    }
