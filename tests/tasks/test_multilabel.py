"""Many labels a row: log-odds beside none, their loss, and the thresholds that are fitted."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from families import CAUSAL, MASKED, SEQ2SEQ, backbone
from foreword.backbone.backbone import Backbone
from foreword.config.values import from_plain, plain
from foreword.data.row import Row
from foreword.data.sample import draw
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.methods.head import Head
from foreword.methods.soft import Soft
from foreword.reporter import SILENT
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.gold import labels_of
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.multilabel import Multilabel, choose_thresholds, count_at_steps
from foreword.training.settings import Training
from foreword.training.tune import tune

FAMILIES = {f.name: f for f in (CAUSAL[0], MASKED[0], SEQ2SEQ[0])}
LABELS = {"art": " good", "war": " bad film", "none": " it"}
OWN = [["art"], [], ["war", "art"], ["war"]]
ROWS = [
    Row({"text": text, "labels": own}, f"F:{n}")
    for n, (text, own) in enumerate(zip(["a good film", "it", "bad", "and"], OWN, strict=True), 1)
]


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def bound(name: str = "llama", **more: Any) -> Classifier:
    task = Multilabel(**{"labels": LABELS, **more})
    return task.complete(ROWS, get(name)).bind(get(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_probabilities_are_those_beside_none(name: str) -> None:
    """sigmoid(s_k - s_none) of what a classification over the same words finds."""
    end = " [mask]" if name == "bert" else ""
    plainly = Classify(template=f"{{text}}\nLabels:{end}", labels=LABELS).bind(get(name))
    single = plainly.predict(ROWS, NOTHING)
    for one, many in zip(single, bound(name).predict(ROWS, NOTHING), strict=True):
        for label in ("art", "war"):
            odds = one["probabilities"][label] / one["probabilities"]["none"]
            assert many["probabilities"][label] == pytest.approx(odds / (1 + odds), rel=1e-4)
        assert many["labels"] == [k for k, p in many["probabilities"].items() if p >= 0.5]


@pytest.mark.parametrize("headed", [False, True])
def test_the_loss_is_torchs_own(headed: bool) -> None:
    task = bound().with_head() if headed else bound()
    items = [task.train_example(row, 200) for row in ROWS]
    if headed:
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        odds = logits[:, [0, 2]] - logits[:, [1]]  # a head's order is that of the names
    else:
        examples = [item.example for item in items]
        ((group, logits),) = infer(task.backbone, NOTHING, examples, 999, tokens=task.tokens)
        items = [items[i] for i in group]
        scores = task.verbalizer.scores(logits, [item.example for item in items])
        odds = scores[:, :2] - scores[:, 2:]
    held = torch.tensor([[float(label in item.golds) for label in (0, 1)] for item in items])
    expected = F.binary_cross_entropy_with_logits(odds, held, reduction="none").mean(1)
    torch.testing.assert_close(task.losses(logits, items), expected)


def told(chances: list[list[float]]) -> list[dict[str, Any]]:
    return [{"probabilities": dict(zip(("art", "war"), own, strict=True))} for own in chances]


def test_thresholds_give_the_highest_f1() -> None:
    """All but one pair are right between 0.2 and 0.3, for both labels together."""
    task = Multilabel(labels=LABELS, template="{text}:")
    chances = told([[0.3, 0.1], [0.2, 0.05], [0.9, 0.3], [0.1, 0.6]])
    fitted = choose_thresholds(task, ROWS, chances)
    assert fitted.thresholds is not None
    assert set(fitted.thresholds) == {"art", "war"}
    assert 0.2 < fitted.thresholds["art"] <= 0.3
    assert fitted.thresholds["art"] == fitted.thresholds["war"]


def test_a_probability_of_exactly_the_threshold_is_enough() -> None:
    chances = bound().predict(ROWS[:1], NOTHING)[0]["probabilities"]
    exactly = bound(thresholds=chances).predict(ROWS[:1], NOTHING)[0]
    assert exactly["labels"] == ["art", "war"]
    above = {name: float(np.nextafter(chance, 1)) for name, chance in chances.items()}
    assert bound(thresholds=above).predict(ROWS[:1], NOTHING)[0]["labels"] == []


def test_thresholds_of_many_rows_are_counted_in_little_memory() -> None:
    chance = np.random.default_rng(0)
    odds, held = chance.normal(0, 4, (500, 20)), chance.integers(0, 2, (500, 20)).astype(float)
    tracemalloc.start()
    hits, support, claimed = count_at_steps(odds, held)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * odds.nbytes
    for step, limit in enumerate(np.linspace(-8, 8, len(hits))):
        above = odds >= limit
        assert hits[step].tolist() == (above & (held == 1)).sum(0).tolist()
        assert support[step].tolist() == held.sum(0).tolist()
        assert claimed[step].tolist() == above.sum(0).tolist()


def test_of_equal_thresholds_the_middle_one_is_taken() -> None:
    """Any from 0.2 on to 0.7 is right: near the middle of their log-odds, -0.27."""
    task = Multilabel(labels=LABELS, template="{text}:", fit_thresholds="own")
    chances = told([[0.7, 0.2], [0.2, 0.2], [0.7, 0.7], [0.2, 0.7]])
    fitted = choose_thresholds(task, ROWS, chances)
    assert fitted.thresholds is not None
    for limit in fitted.thresholds.values():
        assert np.log(limit / (1 - limit)) == pytest.approx(-0.27, abs=0.1)


def test_each_label_may_have_a_threshold_of_its_own() -> None:
    task = Multilabel(labels=LABELS, template="{text}:", fit_thresholds="own")
    chances = told([[0.05, 0.7], [0.01, 0.75], [0.04, 0.9], [0.02, 0.95]])
    fitted = choose_thresholds(task, ROWS, chances)
    assert fitted.thresholds is not None
    assert 0.02 < fitted.thresholds["art"] <= 0.04
    assert 0.75 < fitted.thresholds["war"] <= 0.9
    shared = choose_thresholds(Multilabel(labels=LABELS, template="{text}:"), ROWS, chances)
    assert shared.thresholds is not None
    assert shared.thresholds["art"] == shared.thresholds["war"]


def test_the_dev_score_is_the_best_that_a_threshold_gives() -> None:
    task = bound()
    items = [task.dev_example(row, 200) for row in ROWS]
    sums: list[float] = []
    for group, logits in infer(
        task.backbone, NOTHING, [item.example for item in items], 20, tokens=task.tokens
    ):
        found = task.dev_counts(logits, [items[i] for i in group])
        sums = [a + b for a, b in zip(sums or [0.0] * len(found), found, strict=True)]
    answers = task.predict(ROWS, NOTHING)
    best = 0.0
    for limit in np.linspace(0.001, 0.999, 999):
        own = [[k for k, p in a["probabilities"].items() if p >= limit] for a in answers]
        hits = sum(len({*a} & {*b}) for a, b in zip(own, OWN, strict=True))
        best = max(best, 200 * hits / (sum(map(len, own)) + sum(map(len, OWN))))
    assert task.dev_score(sums) <= best + 1e-9
    assert (
        task.dev_score(sums) >= best - 20
    )  # the grid of thresholds is coarser than rows are apart


@pytest.mark.parametrize("method", [Soft(length=3), Head()])
def test_a_training_keeps_its_thresholds(method: Any) -> None:
    prompt = tune(
        get("llama"),
        Multilabel(labels=LABELS),
        method,
        ROWS,
        ROWS,
        training=Training(epochs=1, batch_size=2),
    )
    assert isinstance(prompt.task, Multilabel)
    assert prompt.task.thresholds is not None
    again = from_plain(Multilabel, plain(prompt.task), "file")
    assert again == prompt.task
    scores = prompt.bound.score(ROWS, prompt.answers(ROWS), 0)
    assert scores["micro_f1"] == pytest.approx(prompt.scores["dev"]["micro_f1"], abs=0.01)


def test_given_thresholds_stay() -> None:
    given = {"art": 0.9, "war": 0.1}
    task = bound(thresholds=given)
    assert task.fit_on_dev(ROWS, NOTHING).thresholds == given  # type: ignore[attr-defined]
    assert bound(fit_thresholds="off").fit_on_dev(ROWS, NOTHING) == bound(fit_thresholds="off").task
    with pytest.raises(UserError, match="unknown label 'atr'"):
        bound(thresholds={"atr": 0.5})
    with pytest.raises(UserError, match="2 of 'art' is no probability"):
        bound(thresholds={"art": 2.0})


def test_fitted_thresholds_are_fitted_again_and_given_ones_are_not() -> None:
    """A task that is tuned again has those of other numbers, or of another model."""
    other = dict.fromkeys(("art", "war"), 0.99)
    how: dict[str, Any] = {"training": Training(epochs=1, batch_size=2), "report": SILENT}

    def tuned(task: Task) -> Task:
        return tune(get("llama"), task, Soft(length=3), ROWS, ROWS, **how).task

    fresh: Any = tuned(Multilabel(labels=LABELS))
    assert fresh.fit_thresholds == "shared"
    assert tuned(replace(fresh, thresholds=other)) == fresh
    given: Any = tuned(Multilabel(labels=LABELS, thresholds=other))
    assert (given.thresholds, given.fit_thresholds) == (other, "off")
    assert tuned(given) == given


def test_labels_and_none_are_found_in_the_rows() -> None:
    task = Multilabel().complete(ROWS, get("llama"))
    assert task.labels == {"art": (" art",), "war": (" war",), "none": (" none",)}
    named = Multilabel(labels={"art": " art", "law": " law"}, none="nothing")
    assert "nothing" in (named.complete(ROWS, get("llama")).labels or {})


def test_demonstrations_name_all_labels_or_none() -> None:
    shown = [bound().demonstration(row) for row in ROWS]
    assert shown[2] == "bad\nLabels: good, bad film\n\n"
    assert shown[1] == "it\nLabels: it\n\n"


def test_labels_may_be_one_text() -> None:
    assert labels_of(Row({"labels": "art, war"}, "F:1"), "labels") == ["art", "war"]
    assert labels_of(Row({"labels": ""}, "F:1"), "labels") == []


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"labels": ["atr"]}, "F:2: unknown label 'atr'; "),
        ({"labels": ["none"]}, "F:2: unknown label 'none'"),
        ({"labels": ["art", "art"]}, "F:2: label 'art' stands twice; leave one out"),
        ({"labels": 3}, 'F:2: field "labels" is a number; give a list of labels, or []'),
        ({"labels": [3]}, 'F:2: field "labels" holds what is no text'),
        ({}, 'F:2: field "labels" is missing'),
    ],
)
def test_rows_that_cannot_be_used(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        bound().check([Row({"text": "a", **given}, "F:2")], answers=True)
    assert str(error.value).startswith(line)


def test_an_unknown_headline_is_refused() -> None:
    with pytest.raises(UserError, match="`headline=micro-f1`: unknown; did you mean 'micro_f1'"):
        bound(headline="micro-f1")


def test_few_rows_of_each_label_are_for_tasks_of_one_label() -> None:
    assert Classify(label_field="kind").label_field == "kind"
    with pytest.raises(UserError, match="no single label; use `rows`"):
        draw(ROWS, None, 1, 0, Multilabel().label_field)
