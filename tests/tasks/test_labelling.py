"""One label a row: class weights, smoothing, and the score by which the best is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from foreword.cli.words import parse_labels
from foreword.data.epochs import epoch_order
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.one_label import balance
from foreword.training.configure import make_task
from foreword.training.settings import Training
from foreword.training.tune import tune
from toys import Recorder, get

WORDS = {"good": " good", "bad": " bad film", "fine": " it"}
LABELS = ["good", "good", "good", "good", "bad", "fine", "good", "bad"]
ROWS = [
    Row({"text": f"film {n} was {'a' * (n % 3)}", "label": label}, f"F:{n}")
    for n, label in enumerate(LABELS, 1)
]


def bound(name: str = "llama", **more: Any) -> Classifier:
    mask = " [mask]" if name == "bert" else ""
    task = Classify(template=f"{{text}}:{mask}", labels=WORDS, **more)
    return task.complete(ROWS, get(name)).bind(get(name))


ENDS = {"text": "an old film", "head": "an", "tail": "film"}
NAMED: dict[str, list[dict[str, Any]]] = {
    "classify": [{"text": "房间很干净", "label": name} for name in ("good", "gift_card")],
    "multilabel": [{"text": "房间很干净", "labels": ["Wi-Fi"]}, {"text": "很", "labels": ["none"]}],
    "relate": [{**ENDS, "label": f"Cause-Effect({way})"} for way in ("e1,e2", "e2,e1")],
    "tag": [{"tokens": ["a", "film", "it"], "tags": ["O", "B-PER", "I-PER"]}],
}


@pytest.mark.parametrize("task", NAMED)
def test_labels_that_are_named_have_the_words_that_the_rows_give_them(task: str) -> None:
    rows = [Row(fields, f"F:{n}") for n, fields in enumerate(NAMED[task], 1)]
    found: Any = make_task(task, {}).complete(rows, get())
    names = list(found.labels)
    for labels in (names, parse_labels(names), dict.fromkeys(names, "")):
        named: Any = make_task(task, {"labels": labels}).complete(rows, get())
        assert named.labels == found.labels
    given = replace(found, labels={**found.labels, names[0]: " it"})
    assert given.complete(rows, get()).labels == {**found.labels, names[0]: (" it",)}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_weighted_losses_are_torchs_own(name: str, smoothing: float) -> None:
    task = bound(name, class_weights="balanced", label_smoothing=smoothing)
    plain = bound(name)
    total, units, scores, gold = 0.0, 0, [], []
    for row in ROWS:
        item = task.train_example(row, 100)
        ((_, logits),) = infer(task.backbone, NOTHING, [item.example], tokens=task.tokens)
        total += float(task.losses(logits, [item]))
        units += task.units(item)
        whole = plain.dev_example(row, 100)
        ((_, logits),) = infer(plain.backbone, NOTHING, [whole.example], tokens=plain.tokens)
        scores.append(plain.verbalizer.scores(logits, [whole.example])[0])
        gold.append(whole.gold)
    weights = task.task.class_weights  # type: ignore[attr-defined]
    expected = F.cross_entropy(
        torch.stack(scores),
        torch.tensor(gold),
        weight=torch.tensor([weights[label] for label in task.labels]),
        label_smoothing=smoothing,
        reduction="none",
    ).mean()  # torch's own mean divides by the batch's weights, so that a row alone has none
    assert total / units == pytest.approx(float(expected), rel=1e-5)


def test_a_weight_multiplies_the_loss_of_a_row_in_any_batch() -> None:
    """Losses of a run whose parameters stay, in batches of any size and in any passes."""

    def losses(batch: int, weights: Any, budget: int | None = None) -> list[float]:
        told = Recorder()
        tune(
            get(),
            Classify(template="{text}:", labels=WORDS, class_weights=weights),
            Soft(length=2),
            ROWS,
            ROWS,
            training=Training(
                epochs=1, batch_size=batch, rate=1e-20, warmup=0, token_budget=budget
            ),
            report=told,
        )
        return [values["loss"] for values in told.of("step")]

    weights = {"good": 0.5, "bad": 2.0, "fine": 7.0}
    order = epoch_order([0] * 8, {0: 8}, 0, 0)
    plain = losses(1, None)
    expected = [weights[LABELS[n]] * loss for n, loss in zip(order, plain, strict=True)]
    assert losses(1, weights) == pytest.approx(expected, rel=1e-5)
    for batch in (2, 8):
        mean = [sum(expected[n : n + batch]) / batch for n in range(0, 8, batch)]
        assert losses(batch, weights) == pytest.approx(mean, rel=1e-5)
        assert losses(batch, weights, budget=8) == pytest.approx(mean, rel=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    names = sorted(set(LABELS))
    expected = compute_class_weight("balanced", classes=np.array(names), y=LABELS)
    assert balance(LABELS) == pytest.approx(dict(zip(names, expected, strict=True)))


def test_weights_that_are_no_weights_are_refused() -> None:
    with pytest.raises(UserError, match="unknown label 'godo'; did you mean 'good'"):
        bound(class_weights={"godo": 1.0})
    with pytest.raises(UserError, match="label 'fine' needs a weight above 0"):
        bound(class_weights={"good": 1.0, "bad": 2.0})
    with pytest.raises(UserError, match="are those of training rows; give rows"):
        Classify(template="{text}", labels=WORDS, class_weights="balanced").bind(get())


@pytest.mark.parametrize("headline", ["accuracy", "macro_f1", "mcc"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_the_dev_score_is_that_of_the_evaluation(name: str, headline: str) -> None:
    task = bound(name, headline=headline)
    items = [task.dev_example(row, 100) for row in ROWS]
    sums: list[float] = []
    for group, logits in infer(
        task.backbone, NOTHING, [item.example for item in items], 30, tokens=task.tokens
    ):
        found = task.dev_counts(logits, [items[i] for i in group])
        sums = [a + b for a, b in zip(sums or [0.0] * len(found), found, strict=True)]
    scores = task.score(ROWS, task.predict(ROWS, NOTHING), 0)
    assert task.dev_score(sums) == pytest.approx(scores[headline], abs=0.005)
    assert task.headline == task.metric == headline
    assert headline in scores["intervals"]


def test_a_run_is_judged_by_the_headline() -> None:
    told = Recorder()
    prompt = tune(
        get(),
        Classify(template="{text}:", labels=WORDS, headline="macro_f1"),
        Soft(length=2),
        ROWS,
        ROWS,
        training=Training(epochs=1, batch_size=4),
        report=told,
    )
    best = max(told.of("score"))
    assert prompt.scores["dev"] == {"macro_f1": best, "rows": 8}
    scores = prompt.bound.score(ROWS, prompt.answers(ROWS), 0)
    assert scores["macro_f1"] == pytest.approx(best, abs=0.005)


def test_probabilities_are_scored_where_there_are_some() -> None:
    task = bound()
    scores = task.score(ROWS, task.predict(ROWS, NOTHING), 0)
    assert {"mcc", "auroc", "ece"} <= scores.keys()
    assert {"mcc", "auroc", "ece", "accuracy"} <= scores["intervals"].keys()
    bare = task.score(ROWS, [{"label": "good"}] * len(ROWS), 0)
    assert "auroc" not in bare


def test_an_unknown_headline_is_refused() -> None:
    with pytest.raises(UserError, match="`headline=f1`: unknown"):
        bound(headline="f1")
