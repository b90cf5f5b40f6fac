"""Scores: expected numbers and two-hot losses against token-by-token runs of plain models."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from families import CAUSAL, MASKED, SEQ2SEQ, backbone
from foreword.backbone.backbone import Backbone
from foreword.config.values import from_plain, plain
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.runs import Data
from foreword.injection import NOTHING
from foreword.methods.head import Head
from foreword.methods.registry import METHODS
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.rules import number_of
from foreword.tasks.score import Score, spread
from foreword.training.settings import Training
from foreword.training.tune import tune
from plain import next_logits, twin
from toys import Lines

FAMILIES = {f.name: f for f in (CAUSAL[0], CAUSAL[12], SEQ2SEQ[0], MASKED[0])}
NUMBERS = [0.0, 3.8, 5.0, 2.25]
TEXTS = ["a good film", "it was", "bad film and a good film :", "film 0123"]
STSB = Path(__file__).parents[2].parent / "shared" / "data" / "stsb"


@cache
def get(name: str = "llama") -> Backbone:
    return backbone(FAMILIES[name])


def rows(numbers: list[Any] | None = None) -> list[Row]:
    pairs = zip(TEXTS, NUMBERS if numbers is None else numbers, strict=False)
    made = [{"text_a": text, "text_b": "it was", "label": number} for text, number in pairs]
    return [Row(fields, f"F:{n}") for n, fields in enumerate(made, 1)]


def bound(name: str = "llama", **changes: Any) -> Classifier:
    return Score(**changes).complete(rows(), get(name)).bind(get(name))


def logits_of(task: Classifier, given: list[Row]) -> tuple[Tensor, list[Any]]:
    items = [task.train_example(row, 100) for row in given]
    examples = [item.example for item in items]
    ((group, logits),) = infer(task.backbone, NOTHING, examples, 10_000, tokens=task.tokens)
    return logits, [items[i] for i in group]


def chances_by_hand(name: str, row: Row, anchors: dict[str, float]) -> dict[float, float]:
    """Each anchor's probability: a softmax over the anchors' words, one token each."""
    text = get(name).text
    ids = text.ids(f"{row.fields['text_a']}\n{row.fields['text_b']}\nScore:")
    answers = [text.ids(w if get(name).architecture == "causal" else w.strip()) for w in anchors]
    mass = []
    for path in answers:
        log = 0.0
        for size, token in enumerate(path):
            on = sorted({p[size] for p in answers if p[:size] == path[:size] and len(p) > size})
            scores = next_logits(twin(get(name)), ids, path[:size])[on].log_softmax(0)
            log += float(scores[on.index(token)])
        mass.append(np.exp(log))
    return dict(zip(anchors.values(), mass, strict=True))


# Anchors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 5, [0, 1, 2, 3, 4, 5]),
        (1, 3, [1, 2, 3]),
        (0, 1, [0, 1]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (1, 9, [1, 3, 4, 6, 7, 9]),
        (-2, 2, [-2, -1, 0, 1, 2]),
        (0.5, 2.5, [0.5, 1.5, 2.5]),
        (0.1, 0.2, [0.1, 0.2]),
        (0, 3.7, [0, 1.23333, 2.46667, 3.7]),
        (0, 3.3, [0, 1.1, 2.2, 3.3]),
    ],
)
def test_anchors_are_spread_over_the_range(low: float, high: float, expected: list[float]) -> None:
    made = spread(low, high)
    assert list(made.values()) == expected
    assert list(made) == [f" {number:g}" for number in expected]


@pytest.mark.parametrize(
    ("low", "high"),
    [(1000000, 1000003), (1700000000, 1700000900), (0, 1234567), (-1.5, 1000000.25), (0, 1e20)],
)
def test_large_numbers_are_read_as_they_are_written(low: float, high: float) -> None:
    made = spread(low, high)
    assert [float(word) for word in made] == list(made.values())
    assert (min(made.values()), max(made.values())) == (low, high)
    task = Score(low=low, high=high).complete(rows([low, high]), get())
    assert [float(name) for name in task.class_names] == list(made.values())
    ended = replace(task, regression=True, anchors={" low": float(low), " high": float(high)})
    number = ended.bind(get()).with_head()
    given = Row({"text_a": "film", "text_b": "it", "label": high}, "F:1")
    assert number.answer_of(torch.tensor([[9.0]])) == {"score": high}
    assert number.class_shares([number.train_example(given, 100)])[0].tolist() == [[1.0]]


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 2), (0, float("inf"))])
def test_a_range_is_needed(low: float, high: float) -> None:
    with pytest.raises(UserError, match="`low` and `high`"):
        spread(low, high)


def test_the_rows_give_the_range_and_the_template() -> None:
    made = Score().complete(rows([0.2, 3.8, 4.6]), get())
    assert (made.low, made.high, made.template) == (0, 5, "{text_a}\n{text_b}\nScore:")
    assert Score(low=-1).complete(rows(), get()).low == -1
    assert made.complete(rows([1, 2]), get()) == made
    masked = Score().complete(rows(), get("bert")).template
    assert masked == "{text_a}\n{text_b}\nScore: [mask]"


def test_anchors_and_a_range_must_agree() -> None:
    words = {" bad": 0.0, " good": 4.0}
    assert Score(anchors=words).complete(rows(), get()).high == 4
    with pytest.raises(UserError, match="high is 5, but the anchors end at 4"):
        Score(anchors=words, high=5).complete(rows(), get())


@pytest.mark.parametrize(
    "anchors", [{}, {" one": 1.0}, {" a": 1.0, " b": 1.0}, {" a": 1.0, " b": float("nan")}]
)
def test_anchors_that_tell_nothing_apart_are_refused(anchors: dict[str, float]) -> None:
    with pytest.raises(UserError, match="two or more anchors"):
        Score(template="{text_a}", anchors=anchors).bind(get())


def test_a_task_without_anchors_cannot_be_bound() -> None:
    with pytest.raises(UserError, match="template and anchors"):
        Score().bind(get())


# Answers and losses ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_the_answer_is_the_expected_number(name: str) -> None:
    task = bound(name)
    assert task.task.anchors is not None
    found = task.predict(rows(), NOTHING)
    for row, answer in zip(rows(), found, strict=True):
        by_hand = chances_by_hand(name, row, dict(task.task.anchors))
        expected = sum(number * chance for number, chance in by_hand.items())
        assert answer["score"] == pytest.approx(expected, abs=1e-4)
        assert answer["cut"] is False


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_the_cross_entropy_to_both_neighbours(name: str) -> None:
    task = bound(name)
    logits, items = logits_of(task, rows())
    scores = task.verbalizer.scores(logits, [item.example for item in items])
    found = task.losses(logits, items)
    for item, own, loss in zip(items, scores, found, strict=True):
        # the same by interpolation: the loss is linear between neighbouring whole numbers
        expected = np.interp(item.number, range(6), -own.numpy())
        assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_the_judge_sums_squared_errors_of_the_answers() -> None:
    task = bound()
    total, count = task.dev_counts(*logits_of(task, rows()))
    found = [answer["score"] for answer in task.predict(rows(), NOTHING)]
    expected = -sum((a - b) ** 2 for a, b in zip(found, NUMBERS, strict=True))
    assert count == 4
    assert total == pytest.approx(expected, rel=1e-4)


def test_two_anchors_are_a_weighted_mean() -> None:
    task = bound(anchors={" good": 10.0, " bad": -10.0}, template="{text_a}\nMood:")
    labels = {"low": " bad", "high": " good"}
    plain_task = Classify(template="{text_a}\nMood:", labels=labels).bind(get())
    for one, other in zip(
        task.predict(rows(), NOTHING), plain_task.predict(rows(), NOTHING), strict=True
    ):
        chances = other["probabilities"]
        assert one["score"] == pytest.approx(10 * (chances["high"] - chances["low"]), abs=1e-5)


def test_the_order_of_anchors_does_not_matter() -> None:
    words = {" bad": 0.0, " it": 2.0, " good": 5.0}
    turned = dict(reversed(words.items()))
    one, other = (bound(anchors=given).predict(rows(), NOTHING) for given in (words, turned))
    assert one == other


def test_demonstrations_show_the_nearest_anchor() -> None:
    task = bound()
    assert [task.demonstration(row)[-4:] for row in rows()] == [
        " 0\n\n",
        " 4\n\n",
        " 5\n\n",
        " 2\n\n",
    ]
    assert [task.class_of(row) for row in rows()] == ["0.0", "4.0", "5.0", "2.0"]
    assert task.label_text() == " 0 1 2 3 4 5"
    assert task.instruction() == "Score the text from 0 to 5.\n\n"


# Tuning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["soft", "prefix", "full"])
def test_scores_are_tuned(name: str, tmp_path: Path) -> None:
    chosen = METHODS[name]()
    given = [
        Row({"text": f"{word} film {n}", "label": number}, f"F:{n}")
        for n, (word, number) in enumerate([("good", 4.8), ("bad", 4.2)] * 6)
    ]
    training = Training(epochs=2, batch_size=4)
    prompt = tune(get(), Score(low=0, high=5), chosen, given, given, training=training)
    before = Score(low=0, high=5).complete(given, get()).bind(get())
    frozen = before.score(given, before.predict(given, NOTHING), 0)
    after = evaluate(prompt, given)
    assert after["rmse"] < frozen["rmse"]
    assert prompt.scores["dev"]["negative MSE"] == pytest.approx(-(after["rmse"] ** 2), abs=2e-3)
    again = Prompt.load(prompt.save(tmp_path / "p.safetensors"), get())
    assert again.task == prompt.task
    texts = ["good film 3", "bad film 4"]
    assert again.predict(texts) == pytest.approx(prompt.predict(texts), abs=1e-5)
    assert all(isinstance(answer, float) for answer in again.predict(texts))


def test_a_head_scores_the_anchors() -> None:
    prompt = tune(get(), Score(), Head(), rows(), rows(), training=Training(epochs=1))
    assert prompt.injection.head is not None
    assert all(0 <= answer <= 5 for answer in prompt.predict([row.fields for row in rows()]))


def test_a_template_with_virtual_tokens_and_without() -> None:
    task = bound(template="{text_a} [soft:3] {text_b}")
    assert (task.virtual, task.starts(), task.fields) == (3, [(3, None)], ("text_a", "text_b"))
    assert (task.without_prompt().virtual, task.classes) == (0, 6)
    assert Soft().build(task, rows(), 0)().embeds is not None


def test_the_configuration_survives_its_plain_values() -> None:
    task = Score().complete(rows(), get())
    kept = json.loads(json.dumps(plain(task), sort_keys=True))
    assert from_plain(Score, kept, "here") == task


# Wrong input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["good", "1,5", True, "nan", float("inf"), "--", 10**400])
def test_a_label_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(UserError, match=r"^F:1: .*expected a number"):
        number_of(Row({"label": value}, "F:1"), "label")


@pytest.mark.parametrize("value", [None, "", [1], float("nan")])
def test_a_label_that_is_not_there_is_named(value: Any) -> None:
    with pytest.raises(UserError, match=r'^F:1: field "label"'):
        number_of(Row({"label": value}, "F:1"), "label")


def test_numbers_may_be_text() -> None:
    assert number_of(Row({"label": " 3.8 "}, "F:1"), "label") == 3.8


@pytest.mark.parametrize("number", [5.01, -0.5, 80])
def test_a_number_out_of_range_is_named(number: float) -> None:
    task, (row, *_) = bound(), rows([number])
    with pytest.raises(UserError, match=rf"^F:1: {number:g} is outside the range of 0 to 5"):
        task.check([row], answers=True)
    task.check([row], answers=False)


def test_a_missing_field_is_named() -> None:
    task = bound()
    with pytest.raises(UserError, match=r"F:1: .*text_b"):
        task.check([Row({"text_a": "film", "label": 1}, "F:1")], answers=True)
    with pytest.raises(UserError, match="no field 'text'"):
        Score().complete([Row({"story": "film", "label": 1}, "F:1")], get())


def test_rows_of_numbers_can_be_classified_too() -> None:
    task = Classify().complete(rows(), get())
    assert list(task.labels or ()) == ["0.0", "2.25", "3.8", "5.0"]
    replace(task).bind(get()).check(rows(), answers=True)


@pytest.mark.skipif(not STSB.is_dir(), reason="no such data here")
def test_real_rows_of_similarity_are_read() -> None:
    from foreword.data.read import read_rows

    given = read_rows(STSB / "train.jsonl")
    task = Score().complete(given, get())
    assert (task.low, task.high) == (0, 5)
    task.bind(get()).check(given, answers=True)


# Rows --------------------------------------------------------------------------------------------


def test_numbers_are_no_classes_that_rows_are_held_out_or_drawn_by() -> None:
    numbers = [0.0, 0.0, *(1 + n / 37 for n in range(38))]
    given = [Row({"text": f"film {n}", "label": s}, f"F:{n}") for n, s in enumerate(numbers)]
    heard: list[str] = []
    tune(get(), Score(), Soft(length=1), given, training=Training(epochs=1), report=Lines(heard))
    assert "no dev rows given: 4 of the training rows are held back" in heard
    with pytest.raises(UserError, match="rows of this task have no single label; use `rows`"):
        Data(given, given, per_label=1).chosen(Score(), 0)
