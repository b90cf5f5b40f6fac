"""Fitted weights are the best of all that are tried, as told by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import contract
import toys
from composed import GENERATE, prompt
from foreword.backbone.decode import Decoding
from foreword.compose import fusion, lockstep
from foreword.compose.ensemble import Ensemble, weighted
from foreword.compose.fit import candidates, fit, score_weights
from foreword.compose.lockstep import TextFusion
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.injection import Injection
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.score import Score
from foreword.tasks.templates.layout import room_for
from foreword.training.settings import Training
from oracles import embeddings_in_front, get

SOFT, LONGER, PREFIX = Soft(length=3), Soft(length=5, start="vocabulary"), Prefix(length=2)
COMPLETIONS = [
    Row({"text": text, "completion": answer}, f"F:{n}")
    for n, (text, answer) in enumerate(
        [("a good film", "good film"), ("it was", "bad"), ("bad film : it", "was a good film")], 1
    )
]


@pytest.mark.slow
@given(count=st.integers(2, 12), most=st.integers(60, 3000))
def test_candidates_are_a_lattice_of_weights_with_every_part_alone(count: int, most: int) -> None:
    tried = list(candidates(count, most))
    assert len(tried) <= most
    assert tried[:count] == [tuple(float(i == n) for i in range(count)) for n in range(count)]
    assert tried[count] == (1 / count,) * count
    lattice = tried[count + 1 :]
    assert len(set(lattice)) == len(lattice)
    steps = round(1 / min(w for point in lattice for w in point if w > 0))
    assert len(lattice) == math.comb(steps + count - 1, count - 1)
    for point in lattice:
        exact = [Fraction(w).limit_denominator(1000) for w in point]
        assert sum(exact) == 1
        assert all(w.denominator <= steps and w >= 0 for w in exact)


def test_of_equals_those_of_the_fewest_members_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(prompts: object, tried: list[object], *_: object) -> tuple[list[float], list[float]]:
        return [float(n > 2) for n in range(len(tried))], [0.0] * len(tried)

    monkeypatch.setattr("foreword.compose.fit._score_candidates", alike)
    parts = [prompt(SOFT), prompt(LONGER, seed=1), prompt(SOFT, seed=2)]
    found = fit(parts, COMPLETIONS)
    assert sum(weight > 0 for weight in found.weights) == 2  # equal weights are tried before


def test_two_parts_are_tried_in_steps_of_a_twentieth() -> None:
    lattice = list(candidates(2, 2000))[3:]
    assert sorted(lattice) == [(n / 20, 1 - n / 20) for n in range(21)] or sorted(lattice) == [
        (n / 20, (20 - n) / 20) for n in range(21)
    ]


# Classification -----------------------------------------------------------------------------------


Found = list[list[dict[str, Any]]]


def own_answers(parts: list[Prompt], rows: list[Row]) -> Found:
    return [part.bound.predict(rows, part.injection) for part in parts]


def judged_by_hand(found: Found, rows: list[Row], weights: Any) -> tuple[float, float]:
    """Accuracy and mean log-likelihood of the right label, from the parts' own probabilities."""
    right, likely = 0, 0.0
    for number, row in enumerate(rows):
        logs = {
            label: sum(
                w * math.log(f[number]["probabilities"][label])
                for w, f in zip(weights, found, strict=True)
            )
            for label in found[0][0]["probabilities"]
        }
        gold = str(row.fields["label"])
        right += max(logs, key=logs.__getitem__) == gold
        likely += logs[gold] - math.log(sum(math.exp(value) for value in logs.values()))
    return 100 * right / len(rows), likely / len(rows)


def test_the_best_of_all_candidates_is_found() -> None:
    parts = [prompt(SOFT), prompt(PREFIX, 1), prompt(LONGER, 2)]
    found = fit(parts, contract.ROWS)
    own = own_answers(parts, contract.ROWS)
    scored = {w: judged_by_hand(own, contract.ROWS, w) for w in candidates(3, 2000)}
    best = max(scored.values())
    assert found.score == pytest.approx(best[0])
    assert scored[found.weights] == pytest.approx(best, abs=1e-4)
    assert found.alone == pytest.approx([scored[w][0] for w in list(scored)[:3]])
    assert found.metric == "accuracy"
    assert found.dev == {"accuracy": found.score, "rows": 4}


def test_a_part_that_is_enough_stands_alone() -> None:
    one = prompt(SOFT)
    found = fit([one, one, one], contract.ROWS)
    assert sum(w > 0 for w in found.weights) == 1  # equal scores: the fewest members
    assert len(weighted([one, one, one], found.weights).members) == 1


def test_given_weights_are_scored_and_not_fitted() -> None:
    parts = [prompt(SOFT), prompt(PREFIX, 1)]
    found = score_weights(parts, (0.25, 0.75), contract.ROWS)
    own = own_answers(parts, contract.ROWS)
    expected = judged_by_hand(own, contract.ROWS, (0.25, 0.75))
    assert (found.weights, found.score) == ((0.25, 0.75), pytest.approx(expected[0]))
    assert found.alone == tuple(judged_by_hand(own, contract.ROWS, w)[0] for w in ((1, 0), (0, 1)))


def test_it_is_not_below_its_parts_on_dev_and_scores_the_same_when_evaluated() -> None:
    dev = toys.rows(30, 300, "dev.jsonl")
    options = [(Soft(length=2), 0), (Prefix(length=2), 1), (Lora(rank=2), 2)]
    parts = [
        toys.toy_run(None, method=method, training=Training(epochs=3, rate=0.15, seed=seed))
        for method, seed in options
    ]
    found = fit(parts, dev)
    alone = [evaluate(part, dev)["accuracy"] for part in parts]
    assert found.alone == pytest.approx(alone, abs=0.01)
    assert found.score > max(found.alone)  # here a mixture is better than each part
    assert evaluate(weighted(parts, found.weights), dev)["accuracy"] == pytest.approx(
        found.score, abs=0.01
    )


# Scores -------------------------------------------------------------------------------------------


def test_scores_are_fitted_by_pearsons_correlation() -> None:
    task = Score(
        template="{text} :", low=1, high=3, anchors={" good": 1.0, " bad": 2.0, " film": 3.0}
    )
    rows = [
        Row({"text": text, "label": number}, f"F:{n}")
        for n, (text, number) in enumerate(
            zip(contract.TEXTS * 2, [1, 3, 2, 1.5] * 2, strict=True), 1
        )
    ]
    rows = [replace(r, fields={**r.fields, "text": f"{r.where} {r.fields['text']}"}) for r in rows]
    parts = [prompt(SOFT, task=task), prompt(PREFIX, 1, task=task)]
    found = fit(parts, rows)
    assert found.metric == "pearson"
    own = {
        weights: evaluate(weighted(parts, weights), rows)["pearson"]
        for weights in candidates(2, 2000)
    }
    assert found.score == pytest.approx(max(own.values()), abs=0.01)
    assert own[found.weights] == pytest.approx(max(own.values()), abs=0.01)
    assert found.alone == pytest.approx([own[1.0, 0.0], own[0.0, 1.0]], abs=0.01)


def test_equal_numbers_have_no_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Score(template="{text} :", low=1, high=2, anchors={" good": 1.0, " bad": 2.0})
    rows = [Row({"text": "a film", "label": n}, f"F:{n}") for n in (1, 2)]
    answers = [[{"score": number, "cut": False}] * 2 for number in (1.25, 1.5)]
    monkeypatch.setattr(fusion, "collected", lambda *_: answers)
    found = fit([prompt(SOFT, task=task), prompt(PREFIX, 1, task=task)], rows)
    assert (found.alone, found.score) == ((0.0, 0.0), 0.0)
    assert found.weights == (0.0, 1.0)  # of equal correlations the smallest squared error


# Completions --------------------------------------------------------------------------------------


def likelihood_by_hand(injections: list[Injection], weights: Any) -> float:
    """The mean log-likelihood of a completion's token under the fused scores of plain models."""
    base, total, count = get("llama"), 0.0, 0
    bound = GENERATE.bind(base)
    for row in COMPLETIONS:
        logs = []
        for injection in injections:
            example = bound.dev_example(row, room_for(base, injection)).example
            logs.append(embeddings_in_front(base, injection, example).double().log_softmax(1))
        fused = sum(w * each for w, each in zip(weights, logs, strict=True)).log_softmax(1)
        total += float(fused[range(len(example.answers)), list(example.answers)].sum())
        count += len(example.answers)
    return total / count


@pytest.mark.slow
def test_completions_are_fitted_by_their_likelihood() -> None:
    parts = [prompt(SOFT, task=GENERATE), prompt(LONGER, 1, task=GENERATE)]
    own = [part.injection for part in parts]
    found = fit(parts, COMPLETIONS)
    scored = {w: likelihood_by_hand(own, w) for w in candidates(2, 100)}
    assert found.score == pytest.approx(max(scored.values()), abs=1e-4)
    assert scored[found.weights] == pytest.approx(max(scored.values()), abs=1e-4)
    assert found.alone == pytest.approx([scored[1.0, 0.0], scored[0.0, 1.0]], abs=1e-4)
    assert found.metric == "log-likelihood"


def test_few_tokens_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [prompt(SOFT, task=GENERATE), prompt(Lora(rank=2), 1, task=GENERATE)]
    whole = fit(parts, COMPLETIONS)
    monkeypatch.setattr(lockstep, "LOGITS", {"cpu": 160 * 2, "cuda": 160 * 2})
    counts = toys.Counts()
    few = fit(parts, COMPLETIONS, report=counts)
    assert (few.score, few.alone) == (pytest.approx(whole.score), pytest.approx(whole.alone))
    assert counts.heard["dev rows"] == (3, [1, 1, 1])


def test_completions_are_tried_with_fewer_weights() -> None:
    assert TextFusion.most == 100
    assert len(list(candidates(3, TextFusion.most))) <= 100


# Mistakes -----------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    parts = [prompt(SOFT), prompt(PREFIX, 1)]
    with pytest.raises(UserError, match="there are no dev rows; give one or more"):
        fit(parts, [])
    with pytest.raises(UserError, match="F:1: unknown label 'godo'; did you mean 'good'"):
        fit(parts, [Row({"text": "a", "label": "godo"}, "F:1")])
    with pytest.raises(UserError, match=r"1 prompt cannot be composed"):
        fit(parts[:1], contract.ROWS)
    with pytest.raises(UserError, match="weights 1 1 add up to 2"):
        score_weights(parts, (1.0, 1.0), contract.ROWS)
    with pytest.raises(UserError, match="no model to run it on"):
        fit([replace(part, on=None) for part in parts], contract.ROWS)


def test_templates_that_end_otherwise_are_refused_for_completions() -> None:
    other = replace(GENERATE, template="{text}\n\n")
    parts = [prompt(SOFT, task=GENERATE), prompt(SOFT, 1, task=other)]
    with pytest.raises(UserError, match="F:1: the prompts' templates end otherwise"):
        fit(parts, COMPLETIONS)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"beams": 3}, "prompt 2 decodes with beams 3; an ensemble decodes greedily"),
        ({"temperature": 0.7}, "prompt 2 decodes with temperature 0.7"),
        ({"repetition_penalty": 1.2}, "prompt 2 decodes with repetition_penalty 1.2"),
        (
            {"max_new_tokens": 9},
            "max_new_tokens 9, and prompt 1 with 5; an ensemble needs the same",
        ),
    ],
)
def test_decoding_that_cannot_be_fused_is_refused(change: dict[str, Any], what: str) -> None:
    decoding = replace(Decoding(max_new_tokens=5), **change)
    members = (
        prompt(SOFT, task=GENERATE),
        prompt(SOFT, 1, task=replace(GENERATE, decoding=decoding)),
    )
    with pytest.raises(UserError, match=what):
        Ensemble(members, (0.5, 0.5))


def test_rows_are_judged_without_gradients() -> None:
    parts = [prompt(SOFT, task=GENERATE), prompt(PREFIX, 1, task=GENERATE)]
    parts = [
        replace(p, injection=p.injection.map(lambda t: t.clone().requires_grad_())) for p in parts
    ]
    fit(parts, COMPLETIONS)
    assert all(t.grad is None for p in parts for _, t in p.injection.tensors())
    assert torch.is_grad_enabled()
