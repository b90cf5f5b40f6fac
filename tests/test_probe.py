"""The probe beside a prompt: plain scikit-learn on states that plain transformers gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.display import console
from foreword.evaluation.compare import perform
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.runs import Data, Model, Probe, Run
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.base import Task
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.probe import LinearProbe
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from foreword.training.settings import Training
from toys import TASK, TRAINING, Lines, get, rows, toy_run

TRAIN, TEST = rows(24), rows(16, 100, "test.jsonl")


@torch.no_grad()
def plain_states(base: Backbone, texts: list[str]) -> NDArray[np.float64]:
    """The last hidden state at the end of each text, or at its mask, run by itself."""
    found = []
    for text in texts:
        ids = base.text.tokenizer(text, return_tensors="pt")["input_ids"]
        states = base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        at = -1 if not base.fills_masks else int((ids[0] == base.text.mask).nonzero()[0])
        found.append(states[at].double().numpy())
    return np.array(found)


def both(base: Backbone, end: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = [
        plain_states(base, [f"{r.fields['text']}{end}" for r in part]) for part in (TRAIN, TEST)
    ]
    scaler = StandardScaler().fit(parts[0])
    return scaler.transform(parts[0]), scaler.transform(parts[1])


@pytest.mark.parametrize(("family", "end"), [("llama", " :"), ("bert", " : [mask]")])
def test_the_probe_is_logistic_regression_on_the_frozen_states(family: str, end: str) -> None:
    base = get(family)
    bound = replace(TASK, template=f"{{text}}{end}").bind(base)
    found = LinearProbe.fit(bound, TRAIN).predict(TEST)
    x, given = both(base, end.replace(" [mask]", base.text.tokenizer.mask_token))
    plain = LogisticRegression(max_iter=1000).fit(x, [r.fields["label"] for r in TRAIN])
    chances = [[each["probabilities"][name] for name in plain.classes_] for each in found]
    np.testing.assert_allclose(chances, plain.predict_proba(given), atol=2e-3)
    assert [each["label"] for each in found] == plain.predict(given).tolist()


def test_several_labels_are_one_regression_each_and_numbers_a_ridge() -> None:
    held = [[n for n in ("good", "film") if n in str(row.fields["text"])] for row in TRAIN]
    train = [
        replace(r, fields={**r.fields, "labels": own}) for r, own in zip(TRAIN, held, strict=True)
    ]
    many = Multilabel(template="{text} :", labels={n: f" {n}" for n in ("film", "good", "none")})
    bound = many.bind(get())
    test = [replace(row, fields={**row.fields, "labels": []}) for row in TEST]
    found = LinearProbe.fit(bound, train).predict(test)
    x, given = both(get(), " :")
    hot = np.array([["film" in own, "good" in own] for own in held], int)
    expected = (
        OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(x, hot).predict_proba(given)
    )
    chances = np.array([[each["probabilities"][n] for n in ("film", "good")] for each in found])
    np.testing.assert_allclose(chances, expected, atol=2e-3)
    assert [set(each["labels"]) for each in found] == [
        {name for name, chance in zip(("film", "good"), own, strict=True) if chance >= 0.5}
        for own in expected
    ]

    numbers = [float(n % 6) for n in range(24)]
    train = [
        replace(r, fields={**r.fields, "label": n}) for r, n in zip(TRAIN, numbers, strict=True)
    ]
    test = [replace(row, fields={**row.fields, "label": 1}) for row in TEST]
    score = Score(template="{text} :", low=0, high=5).complete(train, get()).bind(get())
    fitted = LinearProbe.fit(score, train)
    ridge = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(x, numbers)
    wanted = np.clip(ridge.predict(given), 0, 5)
    np.testing.assert_allclose([a["score"] for a in fitted.predict(test)], wanted, atol=2e-3)
    assert fitted.name == "ridge regression"
    assert fitted.parameters == get().state_width + 1


def test_one_label_that_rows_may_have_is_one_regression() -> None:
    held = [["good"] if "good" in str(row.fields["text"]) else [] for row in TRAIN]
    train = [
        replace(r, fields={**r.fields, "labels": own}) for r, own in zip(TRAIN, held, strict=True)
    ]
    bound = Multilabel(template="{text} :").complete(train, get()).bind(get())
    fitted = LinearProbe.fit(bound, train)
    x, given = both(get(), " :")
    plain = LogisticRegression(max_iter=1000).fit(x, [bool(own) for own in held])
    test = [replace(row, fields={**row.fields, "labels": []}) for row in TEST]
    chances = [each["probabilities"]["good"] for each in fitted.predict(test)]
    np.testing.assert_allclose(chances, plain.predict_proba(given)[:, 1], atol=2e-3)
    assert fitted.parameters == get().state_width + 1


TASKS: dict[str, tuple[Task, dict[str, Any], dict[str, Any]]] = {
    "relate": (
        Relate(),
        {"text": "a film by bad", "head": "film", "tail": "bad", "label": "Other"},
        {"text": "it was good", "head": "it", "tail": "good", "label": "Is(e1,e2)"},
    ),
    "tag": (
        Tag(),
        {"tokens": ["a", "film", "and"], "tags": ["O", "B-X", "I-X"]},
        {"tokens": ["film", "it"], "tags": ["B-X", "O"]},
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_other_tasks_of_labels_have_a_probe(name: str) -> None:
    task, one, other = TASKS[name]
    given = [Row(fields, f"rows:{n}") for n, fields in enumerate([one, other] * 3, 1)]
    bound = task.complete(given, get()).bind(get())
    found = LinearProbe.fit(bound, given).predict(given)
    assert [each[bound.answer] for each in found] == [bound.gold_answer(row) for row in given]


def test_the_probe_stands_among_the_baselines_paired_with_the_prompt() -> None:
    prompt = toy_run(None, method=Prefix(shots=3, rate=0.1), train=TRAIN)
    others = [*TRAIN, *rows(8, 300)]  # rows that it was not tuned on are left out
    heard: list[str] = []
    result = evaluate(prompt, TEST, baselines=True, train=others, report=Lines(heard))
    assert list(result.baselines) == ["zero-shot", "demonstrations", "probe"]
    probe = result.baselines["probe"]
    bound = prompt.bound
    assert isinstance(bound, Classifier)
    answers = LinearProbe.fit(bound, TRAIN).predict(TEST)
    right = [a["label"] == row.fields["label"] for a, row in zip(answers, TEST, strict=True)]
    assert probe.score == pytest.approx(100 * np.mean(right))
    assert (probe["train_rows"], probe["model"]) == (24, "logistic regression")
    gains = [float(bool(own.right)) - r for own, r in zip(result.rows, right, strict=True)]
    lead = result.lead("probe")
    assert lead is not None
    assert lead.value == pytest.approx(100 * np.mean(gains))
    assert lead.low <= lead.value <= lead.high
    assert result["baselines"]["probe"]["lead"]["value"] == pytest.approx(lead.value, abs=0.01)
    same = result.lead("zero-shot")
    assert same is not None
    assert heard == []


def test_without_training_rows_one_line_says_what_to_give() -> None:
    heard: list[str] = []
    found = evaluate(toy_run(None), TEST, baselines=True, report=Lines(heard))
    assert "probe" not in found.baselines
    assert [line for line in heard if "probe" in line and "with `train`" in line] == heard
    many = rows(30, 50)
    heard.clear()
    evaluate(toy_run(None), TEST, baselines=True, train=many, report=Lines(heard))
    assert heard == ["the probe learns from 30 rows; the prompt was tuned on 12"]


def test_one_answer_alone_is_refused() -> None:
    bound = TASK.bind(get())
    with pytest.raises(fw.UserError, match="the 1 training row has one answer"):
        LinearProbe.fit(bound, TRAIN[:1])


def test_a_comparison_has_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "load", lambda name, **_: get())
    data = Data(TRAIN, TEST)
    found = perform(Run("probe", Probe(), TRAINING, Model("llama"), TASK, data), tmp_path)
    prompt = fw.tune(get(), TASK, Soft(length=2), TRAIN, TEST, training=Training(epochs=1))
    beside = evaluate(prompt, TEST, baselines=True, train=TRAIN).baselines["probe"]
    assert found["score"] == beside.score
    assert found["parameters"] == get().state_width + 1
    task = fw.Generate(template="{text}")
    with pytest.raises(fw.UserError, match="leave `probe` out"):
        perform(Run("probe", Probe(), TRAINING, Model("llama"), task, data), tmp_path)


@pytest.mark.parametrize(
    ("lead", "said"),
    [
        ((9.1, [0.9, 17.3]), "above ridge regression by 9.1 (0.9 to 17.3) of 100 rows\n"),
        ((-2.0, [-7.0, 3.5]), "below ridge regression by 2.0 (-3.5 to 7.0) of 100 rows\n"),
        (None, ""),
    ],
)
def test_the_line_under_the_table(
    lead: tuple[float, list[float]] | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    probe: dict[str, Any] = {"model": "ridge regression"}
    if lead is not None:
        probe["lead"] = dict(zip(("value", "interval"), lead, strict=True))
    console.say_leads({"baselines": {"probe": probe}})
    assert capsys.readouterr().out == said
