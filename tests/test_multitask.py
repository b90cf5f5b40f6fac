"""Several tasks in one run: prompts as their own runs would give them, or one that is shared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.methods.context import Context
from foreword.methods.head import Head
from foreword.methods.soft import Soft
from foreword.multitask_learning.multitask import Member, Outcome, Sharing, multitask
from foreword.multitask_learning.separate import Owners, SeparatePrompts
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from foreword.training import checkpoint
from foreword.training import loop as loop_module
from foreword.training.examples import encode
from foreword.training.loop import Loop
from foreword.training.run_state import RunState
from foreword.training.settings import Training
from foreword.training.several_tasks import MixedObjective
from toys import TASK, Recorder, get, rows, toy_run

MOOD = Classify(template="{text} was", labels={"good": " film", "bad": " it"})
MEMBERS = [
    Member("one", TASK, rows(8), rows(6, 100)),
    Member("two", MOOD, rows(8, 40), rows(5, 200), rows(7, 300)),
]
TRAINING = Training(epochs=3, batch_size=4, clip=1e9)
METHOD = Soft(length=3)


def run(out: Path, members: list[Member] | None = None, **changes: Any) -> Outcome:
    options: dict[str, Any] = {"training": TRAINING}
    method = changes.pop("method", METHOD)
    return multitask(get(), members or MEMBERS, method, out, **{**options, **changes})


WRITE = Member("write", Generate(template="{text} :"), rows(8, 60), rows(4, 400))
SENTENCES = [(["a", "film", "it"], ["X", "Y", "Y"]), (["a", "film"], ["X", "Y"]), (["it"], ["Y"])]
TAGGED_ROWS = [Row({"tokens": list(w), "tags": list(t)}, "") for w, t in SENTENCES * 3]
TAGGED = Member("tagged", Tag(), TAGGED_ROWS[:8], TAGGED_ROWS[:2])


@pytest.mark.parametrize(
    "others",
    [(MEMBERS[1],), (MEMBERS[1], WRITE), (TAGGED, WRITE)],
    ids=["labels", "texts", "words"],
)
def test_independent_prompts_are_those_of_single_runs(
    others: tuple[Member, ...], tmp_path: Path
) -> None:
    """Equal numbers of rows, so that each batch has two of each task, in its own units."""
    members = [MEMBERS[0], *others]
    training = replace(TRAINING, clip=0.5, l2_start=0.1)
    many = replace(training, batch_size=2 * len(members))
    found = run(tmp_path / "d", members, training=many)
    for member in members:
        alone = toy_run(
            None,
            task=member.task,
            method=METHOD,
            train=member.train,
            dev=member.dev,
            training=replace(training, batch_size=2),
        )
        made = found.prompts[member.name]
        assert made.injection.embeds is not None
        assert alone.injection.embeds is not None
        torch.testing.assert_close(
            made.injection.embeds, alone.injection.embeds, rtol=1e-5, atol=2e-6
        )
        assert made.scores["dev"] == pytest.approx(alone.scores["dev"], rel=1e-5)
        assert made.data == alone.data
        assert made.task == alone.task
        read = Prompt.load(tmp_path / "d" / f"{member.name}.safetensors", get())
        assert read.task == made.task


def test_a_prompt_file_for_each_task_and_one_log(tmp_path: Path) -> None:
    found = run(tmp_path / "d")
    for member in MEMBERS:
        read = Prompt.load(tmp_path / "d" / f"{member.name}.safetensors", get())
        assert read.predict(["a film"]) == found.prompts[member.name].predict(["a film"])
    assert found.prompts["two"].scores["test"]["rows"] == 7
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["multitask.log.jsonl", "one.safetensors", "two.safetensors"]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: dict[str | None, list[float]]) -> None:
    """Let the evaluations to come have these scores, by the tasks' templates."""
    coming = {template: iter(own) for template, own in scores.items()}

    def judge(bound: Classifier, logits: Any, items: Any) -> tuple[float, int]:
        return next(coming[bound.task.template]) * len(items), len(items)

    monkeypatch.setattr(Classifier, "dev_counts", judge)


@pytest.mark.parametrize("share", ["none", "mpt"])
def test_the_best_is_kept_by_each_task_s_own_score_or_by_the_mean(
    share: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[torch.Tensor]] = []
    save = RunState.save

    def noting(state: RunState) -> None:
        with torch.no_grad():
            kept.append([part.embeds.clone() for part in state.trainable().parts])
        save(state)

    monkeypatch.setattr(RunState, "save", noting)
    scripted(monkeypatch, {TASK.template: [10, 60, 20, 30], MOOD.template: [10, 20, 50, 70]})
    recorder = Recorder()
    members = [replace(member, test=None) for member in MEMBERS]
    found = run(
        tmp_path,
        members,
        sharing=Sharing(share),
        report=recorder,  # type: ignore[arg-type]
    )
    assert recorder.of("score") == [10, 10, 10, 60, 20, 40, 20, 50, 35, 30, 70, 50]
    at = {"none": (1, 3), "mpt": (3, 3)}[share]
    dev = {"none": (60, 70), "mpt": (30, 70)}[share]
    for task, name in enumerate(("one", "two")):
        made = found.prompts[name]
        assert made.injection.embeds is not None
        torch.testing.assert_close(made.injection.embeds, kept[at[task]][task])
        assert made.scores["dev"]["accuracy"] == dev[task]


def test_the_mean_dev_score_counts_tasks_alike_whatever_their_rows() -> None:
    owners = Owners((0, 1), (0, 1, 1, 1))
    bounds = [TASK.bind(get()), MOOD.bind(get())]
    parts = [METHOD.build(bound, rows(4), 0) for bound in bounds]
    held = [replace(row, task=t) for row, t in zip(rows(4, 100), owners.dev, strict=True)]
    train = [replace(row, task=n) for n, row in enumerate(rows(2))]
    objective, many = MixedObjective(bounds), SeparatePrompts(parts, owners)
    counts = {"a": 1, "b": 1}
    examples = encode(get(), objective, many.outline, train, held, TRAINING, SILENT, counts)
    loop = Loop(get(), objective, many, examples, TRAINING, 1e-2)
    recorder = Recorder()
    loop.score(recorder)
    one, two, mean = recorder.of("score")
    assert mean == (one + two) / 2
    for task, score in enumerate((one, two)):
        own = [row for row in held if row.task == task]
        found = bounds[task].predict(own, parts[task]())
        right = [p["label"] == row.fields["label"] for p, row in zip(found, own, strict=True)]
        assert score == pytest.approx(100 * sum(right) / len(right))


def test_scores_of_different_units_enter_the_mean_in_percent() -> None:
    """89% right beside -0.1 nats a token, or an error of a tenth of the range."""
    anchors = {"it": 1, "a": 3, "film": 5}
    grades = Score(template="{text}:", anchors=anchors, low=1, high=5).bind(get())
    labels, texts = TASK.bind(get()), Generate(template="{text} :").bind(get())
    mean = MixedObjective([labels, texts]).overall([89.0, -0.1])
    assert mean == pytest.approx((89 + 100 * math.exp(-0.1)) / 2)
    mean = MixedObjective([labels, grades]).overall([89.0, -(0.4**2)])
    assert mean == pytest.approx((89 + 99) / 2)
    assert MixedObjective([labels, labels]).overall([89.0, 80.0]) == 84.5
    assert MixedObjective([texts, texts]).overall([-1.0, -3.0]) == -2.0


def test_a_shared_prompt_is_what_a_new_task_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {TASK.template: [1, 2, 3, 4], MOOD.template: [1, 2, 3, 4]})
    members = [replace(member, test=None) for member in MEMBERS]
    found = run(tmp_path, members, sharing=Sharing("mpt", rank=2))
    path = tmp_path / "shared.safetensors"
    assert found.shared is not None
    assert found.shared.injection.embeds is not None
    other = Soft(start=str(path)).build(TASK.bind(get()), rows(4), 0)()
    assert torch.equal(other.embeds, found.shared.injection.embeds)
    tuned = [found.prompts[name].injection.embeds for name in ("one", "two")]
    assert not torch.equal(*tuned)  # type: ignore[arg-type]
    assert found.prompts["one"].method["multitask"]["rank"] == 2


def test_tasks_of_different_kinds_and_sizes_are_learned_together(tmp_path: Path) -> None:
    members = [MEMBERS[0], Member("write", Generate(template="{text} :"), rows(20), rows(3))]
    recorder = Recorder()
    sharing = Sharing(mixing=2.0)
    found = run(tmp_path, members, sharing=sharing, report=recorder, training=Training(epochs=1))
    assert [values["rows"] for values in recorder.of("step")] == [16, 12]
    assert set(found.prompts["write"].scores["dev"]) == {"log-likelihood", "rows"}


@pytest.mark.parametrize("share", ["none", "mpt"])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    share: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "SAVE_EVERY", 0.0)
    sharing = Sharing(share, mixing=3.0)
    members = [replace(MEMBERS[0], train=rows(15)), MEMBERS[1]]
    whole, out = tmp_path / "whole", tmp_path / "p"
    run(whole, members, sharing=sharing)

    class Stopped(BaseException):
        pass

    write, save = checkpoint.write, Prompt.save
    left = [3, 5, 4]

    def stopping(*arguments: Any) -> None:
        write(*arguments)
        left[0] -= 1
        if left[0] == 0:
            left.pop(0)
            raise Stopped

    def unsaved(prompt: Prompt, path: Path) -> Path:
        if path.name == "two.safetensors" and left:
            left.clear()
            raise Stopped
        return save(prompt, path)

    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", stopping)
        patch.setattr(Prompt, "save", unsaved)
        left.append(1000)
        while left:
            with pytest.raises(Stopped):
                run(out, members, sharing=sharing, resume=stops > 0)
            stops += 1
    assert stops == 4
    run(out, members, sharing=sharing, resume=True)
    for path in whole.iterdir():
        if path.suffix == ".safetensors":
            assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_what_a_method_leaves_open_is_decided_by_each_tasks_own_rows(tmp_path: Path) -> None:
    many, few = (Member(name, TASK, rows(n), rows(4, 90)) for name, n in (("a", 20), ("b", 10)))
    for members in ([many, few], [few, many]):
        made = run(tmp_path, members, method=Context(), training=Training(epochs=1)).prompts
        assert {name: each.method["shots"] for name, each in made.items()} == {"a": 16, "b": 10}
    shared = run(tmp_path, [few, many], method=Context(), sharing=Sharing("mpt"))
    assert {each.method["shots"] for each in shared.prompts.values()} == {10}


UNLIKE = Member("three", replace(TASK, template="{text} [soft:2]:"), rows(8), rows(6))
PLACED = Member("four", replace(TASK, template="{text} [soft:3]:"), rows(8), rows(6))
WRONG = [Row({"text": "a", "label": "none"}, "F:1")]
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "one task": ({"members": MEMBERS[:1]}, "give two, or use foreword train"),
    "a name that is no file's": (
        {"members": [MEMBERS[0], replace(MEMBERS[1], name="a/b")]},
        "task 'a/b': names a file",
    ),
    "a name that is taken": (
        {"members": [MEMBERS[0], replace(MEMBERS[1], name="shared")]},
        "task 'shared': names a file",
    ),
    "a name twice": (
        {"members": [*MEMBERS, replace(MEMBERS[1], name="one")]},
        "task 'one': is the name of two, and of one file; give each its own",
    ),
    "a head": ({"method": Head()}, "`method=head`: changes the model itself"),
    "an unknown sharing": ({"sharing": Sharing("some")}, "`share=some`:"),  # type: ignore[arg-type]
    "no mixing": ({"sharing": Sharing(mixing=0.0)}, "`mixing=0`: give a temperature above 0"),
    "a rank": ({"sharing": Sharing("mpt", rank=9)}, "`rank=9`: give from 1 to 3"),
    "mixup": ({"training": replace(TRAINING, mixup=0.2)}, "`mixup` would mix rows of different"),
    "templates that differ": (
        {"members": [UNLIKE, PLACED], "sharing": Sharing("mpt"), "method": Soft()},
        "cannot share a prompt; give all as many, or `share` none",
    ),
    "a test row's label": (
        {"members": [replace(MEMBERS[0], test=WRONG), MEMBERS[1]]},
        "unknown label 'none'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line_before_anything_is_written(
    name: str, tmp_path: Path
) -> None:
    changes, expected = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        run(tmp_path / "d", **changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_templates_may_place_different_tokens_where_prompts_are_apart(tmp_path: Path) -> None:
    found = run(tmp_path, [UNLIKE, PLACED], method=Soft(), training=Training(epochs=1))
    sizes = [found.prompts[name].injection.embeds.shape[0] for name in ("three", "four")]  # type: ignore[union-attr]
    assert sizes == [2, 3]
