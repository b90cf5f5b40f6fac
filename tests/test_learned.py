"""Encoders and encoder-decoders that know a language are tuned to it, by every task they take."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.data.read import Row
from foreword.evaluate import evaluate, scored
from foreword.injection import NOTHING
from foreword.methods.head import Head
from foreword.methods.joint import Joint
from foreword.methods.lora import Lora
from foreword.methods.method import Method
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.relate import Relate
from foreword.tasks.tag import Tag
from foreword.tasks.task import Task
from foreword.train import tune
from foreword.training import Training
from learned import ARCHITECTURES, COLOURS, classified, related, tagged, taught

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = {colour: f" {colour}" for colour in COLOURS}
STANDS = {
    "Left-Right(e1,e2)": " before",
    "Left-Right(e2,e1)": " after",
    "Other": " apart",
}
METHODS: dict[str, Method] = {
    "soft": Soft(start="vocabulary", length=1, rate=0.1),
    "prefix": Prefix(start="vocabulary", length=2, rate=0.3),
    "lora": Lora(rate=1e-2),
    "soft+head": Joint((Soft(start="vocabulary", length=1, rate=0.1), Head(rate=3e-2))),
}


def asked(name: str, task: str) -> tuple[Task, Any, str]:
    """A task, what makes its rows, and its score."""
    mask = " [mask]" if ARCHITECTURES[name] == "masked" else ""
    if task == "classify":
        found: Task = Classify(template=f"{{text}} | {{asked}} :{mask}", labels=LABELS)
        return found, classified, "accuracy"
    if task == "tag":
        each = f" {{left}}{{word}} :{mask}"
        return Tag(template="{tokens} |", word_template=each, labels=LABELS), tagged, "accuracy"
    if task == "relate":
        template = f"{{text}} | {{head}} {{tail}} :{mask}"
        return Relate(template=template, labels=STANDS), related, "official_f1"
    return Generate(template="{text} | {asked} :"), classified, "exact_match"


CASES = [
    (name, task, method)
    for name in ARCHITECTURES
    for task in ("classify", "tag", "relate", "generate")
    for method in {"tag": tuple(METHODS)}.get(task, ("soft",))
    if (name, task) not in (("bert", "generate"), ("t5", "relate"))
]
"""A masked model does not generate. The tiny T5 knows poorly how two colours stand: no method
brought it beyond 60 of 100."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "task", "method"), CASES)
def test_a_prompt_finds_what_the_model_knows(name: str, task: str, method: str) -> None:
    """90 and more of 100 on rows of another seed, where the untouched model is at chance."""
    config, make, score = asked(name, task)
    rows: list[Row] = make(96, 1)
    prompt = tune(
        taught(name),
        config,
        METHODS[method],
        rows,
        make(24, 2),
        training=Training(epochs=15, batch_size=8, schedule="constant"),
        watchers=[],
    )
    unseen = make(60, 3)
    bare = scored(prompt.task.bind(taught(name)).bare(), unseen, NOTHING)
    assert bare[score] <= 45, bare[score]
    found = evaluate(prompt, unseen)
    assert found[score] >= 90, found[score]
