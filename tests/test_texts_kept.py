"""The texts of rows in a prompt file and its log: said, shown by info, and left out on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.export.registry import EXPORTS
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.multitask_learning.multitask import Member, multitask
from foreword.prompt.file import read_file
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.rank import Rank
from foreword.training.log import log_path
from foreword.training.settings import Training
from foreword.training.several_tasks import Replay
from foreword.training.tune import tune, tune_prompt
from toys import Lines, get

SECRET = "secretzq"
ROWS = [
    Row({"text": f"{SECRET} film {n}", "label": ("good", "bad")[n % 2]}, f"F:{n}") for n in range(8)
]
TASK = Classify(template="{text} :", labels={"good": " good", "bad": " bad"})
ONCE = Training(epochs=1, batch_size=8)
WITHOUT = Training(epochs=1, batch_size=8, no_texts=True)
STARTS = {
    "demonstrations": (Prefix(shots=2), {"demonstrations": 2}),
    "text": (Soft(start="text", start_text=f"{SECRET} it", length=3, shots=0), {"start texts": 1}),
    "both": (Prefix(shots=1, length=4, start="text", start_text=SECRET), None),
}


def run(out: Path, training: Training, method: Any, task: Task = TASK, rows: Any = ROWS) -> Any:
    said: list[str] = []
    prompt = tune(get(), task, method, rows, rows, training=training, out=out, report=Lines(said))
    return prompt, [line for line in said if "texts of your rows" in line]


@pytest.mark.parametrize("start", STARTS)
def test_texts_are_said_and_left_out_and_the_answers_are_the_same(
    start: str, tmp_path: Path
) -> None:
    method, counts = STARTS[start]
    held, bare = tmp_path / "held.safetensors", tmp_path / "bare.safetensors"
    kept, said = run(held, ONCE, method)
    left, nothing = run(bare, WITHOUT, method)
    assert [SECRET.encode() in path.read_bytes() for path in (held, log_path(held))] == [True] * 2
    assert [SECRET.encode() in path.read_bytes() for path in (bare, log_path(bare))] == [False] * 2
    assert len(said) == 1
    assert not nothing
    assert "held.log.jsonl hold texts of your rows (" in said[0]
    assert "`no_texts` leaves them out" in said[0]
    assert read_file(held).facts()["texts"] == (counts or {"demonstrations": 1, "start texts": 1})
    assert read_file(bare).facts()["texts"] == {}
    assert {n: t.tolist() for n, t in kept.tensors().items()} == {
        n: t.tolist() for n, t in left.tensors().items()
    }
    again = Prompt.load(bare, get())
    assert again.predict(["a film"], probabilities=True) == kept.predict(
        ["a film"], probabilities=True
    )


def test_what_needs_the_texts_says_so_in_one_line(tmp_path: Path) -> None:
    shows = Classify(template="{demos:2}{text} :", labels=TASK.labels)
    ranked = [Row({"history": "a film", "answer": f"{SECRET} {n % 3}"}, f"F:{n}") for n in range(6)]
    for task, rows, reason in (
        (shows, ROWS, r"`no_texts`: the template shows rows at {demos:N}"),
        (Rank(template="{history}"), ranked, r"`no_texts`: a ranking without candidates"),
    ):
        out = tmp_path / "p.safetensors"
        with pytest.raises(UserError, match=reason) as caught:
            run(out, WITHOUT, Soft(length=2, start="random"), task, rows)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())
        _, said = run(out, ONCE, Soft(length=2, start="random"), task, rows)  # type: ignore[arg-type]
        assert len(said) == 1
        assert {"shown": 3, "catalogue": 3}.items() & read_file(out).facts()["texts"].items()
        for path in (out, log_path(out)):
            assert SECRET.encode() in path.read_bytes()
            path.unlink()
    candidates = [
        Row({**row.fields, "candidates": [row.fields["answer"], "it"]}, "") for row in ranked
    ]
    run(tmp_path / "c.safetensors", WITHOUT, Soft(length=2), Rank(template="{history}"), candidates)


def test_eval_says_why_there_is_no_baseline_in_context(tmp_path: Path) -> None:
    prompt, _ = run(tmp_path / "p.safetensors", WITHOUT, Prefix(shots=2))
    said: list[str] = []
    found = evaluate(prompt, ROWS, baselines=True, report=Lines(said))
    assert set(found.plain["baselines"]) == {"zero-shot"}
    assert [line for line in said if "was written without texts of its rows (`no_texts`)" in line]


@pytest.mark.parametrize("start", STARTS)
def test_texts_are_taken_out_of_a_prompt_that_is_there(start: str, tmp_path: Path) -> None:
    held, bare = tmp_path / "held.safetensors", tmp_path / "bare.safetensors"
    kept, _ = run(held, ONCE, STARTS[start][0])
    assert EXPORTS["without-texts"]().write(Prompt.load(held), bare) == bare
    assert SECRET.encode() not in bare.read_bytes()
    assert read_file(bare).facts()["texts"] == {}
    again = Prompt.load(bare, get())
    texts = ["a film", "it"]
    asked = {"probabilities": True}
    assert again.predict(texts, **asked) == kept.predict(texts, **asked)
    said: list[str] = []
    found = evaluate(again, ROWS, baselines=True, report=Lines(said))
    assert "demonstrations" not in found.plain["baselines"]
    assert [line for line in said if "(`no_texts`)" in line]
    assert again.without_texts().metadata() == again.metadata()


def test_a_prompt_that_answers_by_texts_keeps_them(tmp_path: Path) -> None:
    shows = Classify(template="{demos:2}{text} :", labels=TASK.labels)
    prompt, _ = run(tmp_path / "p.safetensors", ONCE, Soft(length=2), task=shows)
    with pytest.raises(UserError, match=r"`no_texts`: the template shows rows at {demos:N}"):
        prompt.without_texts()


def test_several_tasks_leave_them_out_too(tmp_path: Path) -> None:
    members = [Member(name, TASK, ROWS, ROWS) for name in ("one", "two")]
    for training, there in ((ONCE, True), (WITHOUT, False)):
        said: list[str] = []
        multitask(
            get(), members, Soft(), tmp_path / str(there), training=training, report=Lines(said)
        )
        files = sorted((tmp_path / str(there)).iterdir())
        assert [path.name.split(".")[0] for path in files] == ["multitask", "one", "two"]
        assert [SECRET.encode() in path.read_bytes() for path in files] == [there] * 3
        assert sum("texts of your rows" in line for line in said) == 2 * there


def test_rows_of_an_old_task_are_not_kept_either(tmp_path: Path) -> None:
    shown = [{"text": SECRET, "label": "good"}] * 2
    old = Classify(template="{demos:2}{text} :", labels=TASK.labels, shown=shown)
    with pytest.raises(UserError, match="`no_texts`: the template shows rows"):
        tune_prompt(
            get(), TASK, Soft(length=2), ROWS, ROWS, training=WITHOUT, replay=Replay(old, ROWS, 0.5)
        )
