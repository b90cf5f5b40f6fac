"""Labels that come later: added to a finished prompt and taken away, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import foreword as fw
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.evaluation.evaluate import evaluate
from foreword.methods.head import Head
from foreword.prompt.prompt import Prompt
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.tag import Tag
from foreword.tasks.templates.layout import room_for
from toys import TASK, TRAINING, get, rows, toy_run

HELD = rows(12, 200)
NEW = [Row({"text": f"it and {n} it", "label": "it"}, f"new:{n}") for n in range(4)]


@cache
def words() -> Prompt:
    return toy_run(None)


@cache
def headed(form: str = "linear") -> Prompt:
    method = Head(head_start="prototypes", head_form=form)  # type: ignore[arg-type]
    return toy_run(None, method=method, training=replace(TRAINING, epochs=1))


def answers(prompt: Prompt, given: list[Row] = HELD) -> list[dict[str, Any]]:
    return prompt.bound.predict(given, prompt.injection)


def same(one: Prompt, other: Prompt) -> None:
    for found, expected in zip(answers(one), answers(other), strict=True):
        assert found["label"] == expected["label"]
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=2e-6)


# Label words -------------------------------------------------------------------------------------


def test_a_label_of_words_is_one_that_the_task_had_from_the_start() -> None:
    made = words().add_label("it", " it")
    task = replace(TASK, labels={"good": " good", "bad": " bad", "it": " it"})
    assert answers(made) == task.bind(get()).predict(HELD, words().injection)
    assert [each["label"] for each in answers(made)] != []
    assert made.scores == {}
    assert made.data["labels"] == [{"added": "it", "by": "its words"}]
    named = words().add_label("a_film")
    assert named.task.labels["a_film"] == (" a film",)  # type: ignore[attr-defined]
    assert named.add_label("was").data["labels"][1]["added"] == "was"


def test_a_label_is_added_with_the_words_that_its_task_has_for_a_name() -> None:
    behind = replace(words(), task=replace(TASK, template="{text}："))
    assert behind.add_label("a_film").task.labels["a_film"] == ("a film",)  # type: ignore[attr-defined]
    tags = Tag(template="{tokens}", word_template="{word}:", labels={"O": " it", "B-X": " film"})
    made = replace(words(), task=tags).add_label("I-PER")
    assert made.task.labels["I-PER"] == (" inside person",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("prompt", [words, headed, lambda: headed("cosine")])
def test_what_was_added_is_taken_away_again(prompt: Callable[[], Prompt], tmp_path: Path) -> None:
    made = prompt().add_label("but", " it")
    loaded = fw.Prompt.load(made.save(tmp_path / "p.safetensors"), get())
    same(loaded, made)  # a file has the labels in another order
    assert set(answers(made)[0]["probabilities"]) == {"good", "bad", "but"}
    same(loaded.remove_label("but"), prompt())


def test_a_label_is_removed_from_all_that_names_it() -> None:
    three = replace(
        TASK,
        labels={"good": " good", "bad": " bad", "it": " it"},
        class_weights={"good": 1.0, "bad": 2.0, "it": 3.0},
        shown=[{"text": "a", "label": "good"}, {"text": "b", "label": "it"}],
    )
    data = {"demonstrations": ["film : good\n\n", "was : it\n\n"]}
    made = replace(words(), task=three, data=data).remove_label("it")
    task: Any = made.task
    assert task.class_weights == {"good": 1.0, "bad": 2.0}
    assert task.shown == [{"text": "a", "label": "good"}]
    assert made.data["demonstrations"] == ["film : good\n\n"]
    assert made.add_label("was").task.class_weights["was"] == 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("left", "template"), [(2, "{demos:2}{text} :"), (0, "{text} :")])
def test_no_more_rows_are_shown_than_other_labels_have(left: int, template: str) -> None:
    shown = [{"text": f"film {n}", "label": "it" if n >= left else "good"} for n in range(3)]
    labels = {"good": " good", "bad": " bad", "it": " it"}
    task = replace(TASK, template="{ demos: 3 }{text} :", labels=labels, shown=shown)
    made = replace(words(), task=task).remove_label("it")
    assert made.task.template == template
    assert {each["label"] for each in answers(made)} <= {"good", "bad"}


def test_demonstrations_of_a_label_whose_word_ends_with_another_stay() -> None:
    task = replace(TASK, labels={"happy": " good", "unhappy": " not good", "bad": " bad"})
    texts = ["a : good\n\n", "b : not good\n\n", "c : bad\n\n"]
    prompt = replace(words(), task=task, data={"demonstrations": texts})
    assert prompt.remove_label("happy").data["demonstrations"] == texts[1:]
    assert prompt.remove_label("unhappy").data["demonstrations"] == [texts[0], texts[2]]


def test_several_labels_keep_their_thresholds() -> None:
    task = Multilabel(
        template="{text} :",
        labels={"good": " good", "film": " film", "none": " none"},
        thresholds={"good": 0.25, "film": 0.25},
    )
    prompt = replace(words(), task=task)
    made = prompt.add_label("bad")
    assert made.task.thresholds == {"good": 0.25, "film": 0.25, "bad": 0.25}  # type: ignore[attr-defined]
    assert set(answers(made)[0]["probabilities"]) == {"good", "film", "bad"}
    assert made.remove_label("bad").task == task
    with pytest.raises(fw.UserError, match="'none' stands for no label at all"):
        prompt.remove_label("none")


# A head ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_new_row_of_a_head_is_a_logistic_regression_beside_the_old_ones() -> None:
    """By scipy, from the objective's definition; the new label stands between the others."""
    prompt = headed()
    others = rows(10, 60)
    made = prompt.add_label(
        "but", rows=[replace(r, fields={**r.fields, "label": "but"}) for r in NEW] + others
    )
    head, before = made.injection.head, prompt.injection.head
    assert head is not None
    assert before is not None
    torch.testing.assert_close(head.weight[[0, 2]], before.weight)
    bound = prompt.bound
    examples = [bound.dev_example(row, room_for(get(), prompt.injection)).example for row in others]
    new = [replace(row, fields={**row.fields, "label": "good"}) for row in NEW]
    examples = [bound.dev_example(row, 99).example for row in new] + examples
    x = torch.cat(states_of(get(), prompt.injection, examples)).double().numpy()
    old = x @ before.weight.double().numpy().T + before.bias.double().numpy()
    gold = [1] * 4 + [0 if row.fields["label"] == "bad" else 2 for row in others]
    share = np.array([14 / 3 / gold.count(each) for each in gold])
    z = (x - x.mean(0)) / x.std(0)

    def objective(u: Any) -> float:
        logits = np.insert(old, 1, z @ u[:-1] + u[-1], axis=1)
        chosen = logits[np.arange(14), gold]
        return float(share @ (np.logaddexp.reduce(logits, 1) - chosen) + u[:-1] @ u[:-1] / 2)

    best = minimize(objective, np.zeros(x.shape[1] + 1), method="L-BFGS-B")
    found = x @ head.weight[1].double().numpy() + head.bias[1].double().item()
    np.testing.assert_allclose(found, z @ best.x[:-1] + best.x[-1], atol=0.02)


@pytest.mark.parametrize("form", ["linear", "cosine"])
@pytest.mark.parametrize("given", [{"rows": NEW}, {"description": "it and it"}, {}])
def test_a_head_learns_a_label_from_rows_a_description_or_its_name(
    form: str, given: dict[str, Any]
) -> None:
    made = headed(form).add_label("it", **given)
    assert made.injection.head is not None
    assert made.injection.head.weight.shape == (3, get().state_width)
    told = NEW if "rows" in given else [Row({"text": given.get("description", "it")}, "x")]
    assert {each["label"] for each in answers(made, told)} == {"it"}
    bound = made.bound
    assert isinstance(bound, Classifier)
    assert evaluate(made, [*HELD, *NEW])["rows"] == 16


def test_rows_without_a_label_are_of_the_new_one_and_are_marked_as_known() -> None:
    bare = [{"text": row.fields["text"]} for row in NEW]
    made = headed().add_label("it", rows=bare)
    assert made.data["labels"] == [{"added": "it", "by": "4 rows"}]
    assert evaluate(made, [*HELD, *NEW]).in_train == 4
    assert answers(made) == answers(headed().add_label("it", rows=NEW))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: words().add_label("good"), "has the label 'good' already"),
        (lambda: words().add_label(5), "`label=5` is of type int; give a name as text"),  # type: ignore[arg-type]
        (lambda: words().add_label("fine", " good"), "share the word ' good'"),
        (lambda: words().add_label("it", rows=NEW), "a label is added by its name or by `words`"),
        (lambda: words().remove_label("godo"), "has no label 'godo'; did you mean 'good'"),
        (lambda: words().remove_label("good"), "has 2 labels; two or more have to stay"),
        (lambda: headed().add_label("x", rows=HELD), "none of the 12 rows is of the label 'x'"),
        (lambda: headed().add_label("x", rows=NEW), "unknown label 'it'"),
        (
            lambda: headed().add_label("x", rows=NEW, description="y"),
            "`description` and `rows` both say what the label is",
        ),
        (
            lambda: replace(words(), task=fw.Generate(template="{text}")).remove_label("x"),
            "a task of kind generate has no labels",
        ),
    ],
)
def test_what_cannot_be_changed_is_refused(change: Callable[[], Prompt], said: str) -> None:
    with pytest.raises(fw.UserError, match=said):
        change()


def test_a_tagging_takes_a_tag_by_its_words() -> None:
    task = Tag(template="{tokens}", word_template="\n{word}:", labels={"O": " no", "B-X": " yes"})
    made = replace(words(), task=task).add_label("I-X")
    assert made.task.labels["I-X"] == (" inside X",)  # type: ignore[attr-defined]
