"""Going on from a prompt: its own tensors, whatever method made them, trained further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.config.values import plain
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.adapter import Adapter
from foreword.methods.base import Method
from foreword.methods.full import Full
from foreword.methods.head import Head
from foreword.methods.parts.from_file import FromFile
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.score import Score
from foreword.training.prepare import prepare
from foreword.training.settings import Training
from foreword.training.tune import tune
from toys import TASK, get, rows, toy_run

METHODS: dict[str, Method] = {
    "soft": Soft(length=3),
    "prefix": Prefix(upper=0.5, shots=2),
    "adapter": Adapter(),
    "head": Head(),
    "full": Full(),
    "prefix+head": Several((Prefix(shots=2), Head())),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_start_is_the_prompt_itself_and_training_moves_all_of_it(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.safetensors"
    first = toy_run(path, method=METHODS[name])
    method, task = FromFile.read(path)
    assert (method.method, task["template"]) == (name, TASK.template)
    bound = TASK.bind(get())
    start: Injection = method.build(bound, rows(12), 0)()
    held = dict(first.injection.tensors())
    assert all(torch.equal(t, held[n]) for n, t in start.tensors())
    assert start.settings() == first.injection.settings()
    again = tune(get(), TASK, method, rows(12, 500), rows(6, 100))
    made = dict(again.injection.tensors())
    assert made.keys() == held.keys()
    # The best may be the start itself; so it is asked whether the steps have moved everything.
    _, _, run = prepare(
        get(), TASK, method, rows(12, 500), rows(6, 100), Training(epochs=1), SILENT
    )
    run.go(SILENT)
    for name, tensor in run.trainable().tensors():
        assert not torch.equal(tensor, held[name]) or name.endswith("bias"), name


def test_training_on_is_training_from_the_same_values(tmp_path: Path) -> None:
    """A soft prompt gone on from takes the steps that one that starts from its file takes."""
    path = tmp_path / "p.safetensors"
    toy_run(path)
    going, _ = FromFile.read(path)
    found = toy_run(None, method=going, train=rows(12, 300))
    other = toy_run(None, method=Soft(start=str(path)), train=rows(12, 300))
    assert found.injection.embeds is not None
    assert other.injection.embeds is not None
    assert torch.equal(found.injection.embeds, other.injection.embeds)
    assert found.scores == other.scores


def test_the_learning_rate_is_that_of_the_file_s_method(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    toy_run(path, method=Soft(length=3, rate=0.123))
    assert FromFile.read(path)[0].rate == 0.123
    assert FromFile.read(path, 0.5)[0].rate == 0.5
    both = Several((Soft(length=3, rate=0.1), Head(rate=0.01)))
    toy_run(path, method=both)
    assert FromFile.read(path)[0].rate == 0.01


def test_what_a_prompt_came_from_stands_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    toy_run(path)
    going, _ = FromFile.read(path)
    made = toy_run(tmp_path / "q.safetensors", method=going)
    kept = Prompt.load(tmp_path / "q.safetensors").method
    assert kept["name"] == "soft"
    assert kept["source"] == str(path)
    assert kept["sha256"] == plain(going)["sha256"]
    # And it may be gone on from in turn.
    assert FromFile.read(tmp_path / "q.safetensors")[0].rate == going.rate
    assert made.method["trained"] == 96


def mistaken(path: Path, task: Any = TASK, model: str = "llama") -> str:
    with pytest.raises(UserError) as caught:
        tune(get(model), task, FromFile.read(path)[0], rows(12), rows(6, 100))
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    made = toy_run(path)
    assert "was tuned on llama, and this is qwen2" in mistaken(path, model="qwen2")
    placed = replace(TASK, template="{text} [soft:2]:")
    assert "has 0 virtual tokens in its template, and the template given has 2" in mistaken(
        path, placed
    )
    toy_run(path, method=Head())
    other = replace(TASK, labels={"good": " good", "bad": " bad", "film": " film"})
    assert "its head scores the labels bad, good, and the task has bad, film, good" in mistaken(
        path, other
    )
    replace(made, method={"name": "soft"}).save(path)
    with pytest.raises(UserError, match="names no learning rate to go on with; give `rate`"):
        FromFile.read(path)
    with pytest.raises(UserError, match="is not a safetensors file"):
        FromFile.read(__file__)


NUMBERS = Score(template="{text} :", anchors={" bad": 1, " good": 3})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(NUMBERS, anchors={" bad": 1, " film": 2, " good": 3}), "1, 2, 3"),
        (replace(NUMBERS, anchors={" bad": 0, " good": 50}), "0, 50"),
        (replace(NUMBERS, regression=True), "one number from 1 to 3"),
        (TASK, "the labels bad, good"),
    ],
)
def test_a_head_of_a_score_goes_on_with_its_own_anchors(
    other: Any, said: str, tmp_path: Path
) -> None:
    path, scored = (
        tmp_path / "p.safetensors",
        [
            Row({"text": row.fields["text"], "label": 1 + 2 * (n % 2)}, row.where)
            for n, row in enumerate(rows(8))
        ],
    )
    toy_run(path, method=Head(), task=NUMBERS, train=scored, dev=scored)
    going, _ = FromFile.read(path)
    assert going.build(NUMBERS.bind(get()), scored, 0)().head is not None
    with pytest.raises(UserError) as caught:
        going.build(other.bind(get()), scored, 0)
    assert f"its head scores the anchors 1, 3, and the task has {said}; give" in str(caught.value)
