"""Heads that start as classifiers of the rows' states, and prefixes that start as nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from torch import Tensor

import contract
from families import CAUSAL, ENCODERS, backbone
from foreword.backbone.example import Line
from foreword.backbone.run.single_stack import run_padded
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.head import Head
from foreword.methods.parts import head_starts, prefixes, probes
from foreword.methods.parts.probes import KnownStates
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from foreword.training.tune import tune
from oracles import get

TEXTS = ["a good film", "bad", "it was so bad", "fine and good", "the film", "so good it was"]
WORDS = {"good": " good", "bad": " bad"}
TASK = Classify(template="{text}\nMood:", labels=WORDS)
ROWS = [
    Row({"text": text, "label": label}, f"F:{n}")
    for n, (text, label) in enumerate(zip(TEXTS, ["good", "bad"] * 3, strict=True), 1)
]


def states(bound: Bound, injection: Any = NOTHING, rows: list[Row] = ROWS) -> np.ndarray[Any, Any]:
    headed = bound.with_head()
    examples = [headed.dev_example(row, 100).example for row in rows]
    with torch.no_grad():
        return torch.cat(states_of(bound.backbone, injection, examples)).double().numpy()


def features(own: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (own - own.mean(0)) / own.std(0) / own.shape[1] ** 0.5  # type: ignore[no-any-return]


def answers(bound: Bound, injection: Injection, key: str = "probabilities") -> list[Any]:
    with torch.no_grad():
        return [each[key] for each in bound.with_head().predict(ROWS, injection)]


def built(method: Any, task: Any, rows: list[Row] = ROWS) -> tuple[Bound, Injection]:
    bound = task.bind(get("llama"))
    with torch.no_grad():
        return bound, method.build(bound, rows, 0)()


def known(classes: int) -> KnownStates:
    noise = torch.Generator().manual_seed(classes)
    own = torch.randn(14, 6, generator=noise).double() * 3 + 1
    return KnownStates(own, torch.eye(classes).double()[torch.arange(14) % classes])


@pytest.mark.parametrize("classes", [2, 4])
def test_ridge_is_the_best_of_models_fitted_anew_without_each_row(classes: int) -> None:
    given = known(classes)
    z, goal = features(given.states.numpy()), given.shares.numpy()
    best: tuple[float, Any, Any] = (np.inf, None, None)
    for penalty in probes.PENALTIES:
        left_out = np.zeros_like(goal)
        for n in range(len(z)):
            others = np.arange(len(z)) != n
            model = Ridge(alpha=penalty).fit(z[others], goal[others])
            left_out[n] = model.predict(z[[n]])[0]
        for scale in probes.SCALES:
            loss = -log_softmax(scale * left_out, 1)[goal == 1].mean()
            if loss < best[0]:
                best = (loss, penalty, scale)
    _, penalty, scale = best
    weight, bias = probes.ridge(given)
    want = scale * Ridge(alpha=penalty).fit(z, goal).predict(z)
    np.testing.assert_allclose(given.states @ weight.T + bias, want, atol=1e-6)


def test_logistic_is_that_of_scikit_learn() -> None:
    bound, made = built(Head(head_start="logistic"), TASK)
    z = features(states(bound))
    labels = [row.fields["label"] for row in ROWS]
    model = LogisticRegression(C=3.0).fit(z, labels)
    want = [dict(zip(model.classes_, row, strict=True)) for row in model.predict_proba(z)]
    for found, expected in zip(answers(bound, made), want, strict=True):
        assert found == pytest.approx(expected, abs=1e-3)
    given = known(4)
    weight, bias = probes.logistic(given)
    z, classes = features(given.states.numpy()), given.shares.argmax(1).numpy()
    want = LogisticRegression(C=3.0).fit(z, classes).predict_proba(z)
    np.testing.assert_allclose(softmax(given.states @ weight.T + bias, 1), want, atol=1e-3)
    assert [probes.strength(labels) for labels in (2, 9, 10, 77)] == [3.0, 3.0, 10.0, 10.0]


@pytest.mark.parametrize("start", ["prototypes", "ridge", "logistic"])
def test_labels_of_any_number_are_fitted_one_by_one(start: Any) -> None:
    rows = [
        Row({"text": text, "labels": own}, f"F:{n}")
        for n, (text, own) in enumerate(
            zip(TEXTS, [["x"], ["y", "x"], [], ["y"], ["x"], []], strict=True), 1
        )
    ]
    task = Multilabel(template="{text}\nTags:", labels={"x": " x", "y": " y", "none": " none"})
    bound, made = built(Head(head_start=start), task, rows)
    z = features(states(bound, rows=rows))
    found = answers(bound, made)
    for label in ("x", "y"):
        held = np.array([label in row.fields["labels"] for row in rows])
        if start == "logistic":
            odds = LogisticRegression(C=3.0).fit(z, held).decision_function(z)
        elif start == "prototypes":
            far = [np.square(z - z[side].mean(0)).sum(1) for side in (~held, held)]
            odds = far[0] - far[1]
        else:
            continue  # its answers are checked below, its numbers with one label a row
        chances = [each[label] for each in found]
        assert chances == pytest.approx(expit(odds).tolist(), abs=1e-3)
    assert all(0 < chance < 1 for each in found for chance in each.values())


def test_a_number_is_fitted_as_its_two_anchors() -> None:
    numbers = [0.0, 1.0, 0.25, 2.0, 1.5, 0.5]
    rows = [Row({"text": t, "label": n}, "F:1") for t, n in zip(TEXTS, numbers, strict=True)]
    task = Score(template="{text} :", anchors={" 0": 0.0, " 1": 1.0, " 2": 2.0})
    bound, made = built(Head(), task, rows)
    z = features(states(bound, rows=rows))
    pairs = [(n, int(x), 1 - x % 1) for n, x in enumerate(numbers)]
    pairs += [(n, int(x) + 1, x % 1) for n, x in enumerate(numbers) if x % 1]
    places, classes, counts = zip(*pairs, strict=True)
    model = LogisticRegression(C=3.0).fit(z[list(places)], classes, counts)
    want = model.predict_proba(z) @ [0, 1, 2]
    assert answers(bound, made, "score") == pytest.approx(want.tolist(), abs=2e-3)
    with pytest.raises(UserError, match="`head_start=ridge`: a score is the mean of its anchors"):
        built(Head(head_start="ridge"), task, rows)


def test_a_number_is_fitted_as_the_best_ridge_regression() -> None:
    numbers = [0.0, 1.0, 0.25, 2.0, 1.5, 0.5]
    rows = [Row({"text": t, "label": n}, "F:1") for t, n in zip(TEXTS, numbers, strict=True)]
    task = Score(template="{text} :", regression=True).complete(rows, get("llama"))
    bound, made = built(Head(head_start="ridge"), task, rows)
    assert made.head is not None
    assert made.head.weight.shape[0] == 1
    z = features(states(bound, rows=rows))
    model = RidgeCV(alphas=probes.PENALTIES).fit(z, np.array(numbers) / 2)
    want = 2 * model.predict(z).clip(0, 1)
    assert answers(bound, made, "score") == pytest.approx(want.tolist(), abs=1e-3)
    items = [bound.with_head().dev_example(row, 100) for row in rows]
    logits = torch.tensor([[0.5], [0.25], [2.0], [0.0], [-1.0], [0.1]])
    headed = bound.with_head()
    errors = [(x - n / 2) ** 2 for x, n in zip(logits[:, 0].tolist(), numbers, strict=True)]
    assert headed.losses(logits, items).tolist() == pytest.approx(errors)
    scores = np.clip(2 * logits[:, 0].numpy(), 0, 2)
    total, count = headed.dev_counts(logits, items)
    assert (total, count) == (pytest.approx(-np.square(scores - numbers).sum()), 6)
    for start in ("logistic", "words"):
        with pytest.raises(UserError, match=f"`head_start={start}`: a head of one number has no"):
            built(Head(head_start=start), task, rows)


def test_a_number_is_learned_and_kept(tmp_path: Any) -> None:
    rows = [Row({"text": t, "label": len(t)}, "F:1") for t in TEXTS]
    settings = {"template": "{text} :", "regression": True, "head_start": "ridge", "epochs": 2}
    prompt = tune(get("llama"), "score", "head", rows, rows, report=SILENT, **settings)
    again = Prompt.load(prompt.save(tmp_path / "p.safetensors"), get("llama"))
    assert again.predict(TEXTS) == prompt.predict(TEXTS)
    task = prompt.bound
    assert task.score(rows, task.predict(rows, prompt.injection), 0)["pearson"] > 0.9


def test_tags_and_relations_are_classes_too() -> None:
    tags = [Row({"tokens": ["a", "film"], "tags": ["D", "N"]}, "F:1")]
    tags.append(Row({"tokens": ["film", "bad"], "tags": ["N", "J"]}, "F:2"))
    task = Tag(labels={"D": " d", "N": " n", "J": " j"}).complete(tags, get("llama"))
    bound, made = built(Head(head_start="logistic"), task, tags)
    with torch.no_grad():
        found = bound.with_head().predict(tags, made)
    assert [each["tags"] for each in found] == [["D", "N"], ["N", "J"]]
    own = [
        Row({**r.fields, "head": "a", "tail": "b", "text": f"a b {n}"}, r.where)
        for n, r in enumerate(ROWS)
    ]
    related = Relate(labels=WORDS).complete(own, get("llama"))
    assert built(Head(head_start="ridge"), related, own)[1].head is not None


@pytest.mark.parametrize("beside", [Prefix(length=3), Soft(length=3), Context(shots=3)])
def test_the_states_are_those_of_the_first_step(beside: Any) -> None:
    """Under the other method's start; of demonstrations, without a row's own."""
    bound = TASK.bind(get("llama"))
    whole = Several((Head(head_start="prototypes"), beside)).build(bound, ROWS, 0)
    other = beside.build(bound, ROWS, 0)
    with torch.no_grad():
        under = other.training_on(range(len(ROWS)), torch.Generator().manual_seed(0))
        weight, bias = (each.detach().double().numpy() for each in whole().head.parts().values())
    own = states(bound, under)
    z = features(own)
    labels = np.array([row.fields["label"] for row in ROWS])
    far = [np.square(z - z[labels == name].mean(0)).sum(1) for name in ("bad", "good")]
    found = own @ weight.T + bias
    np.testing.assert_allclose(found[:, 1] - found[:, 0], far[0] - far[1], atol=1e-3)
    assert list(whole.rates.values()) == [Head().rate, beside.rate], "in the order given"


def test_cosine_prototypes_are_mean_directions() -> None:
    bound, made = built(Head(head_start="prototypes", head_form="cosine"), TASK)
    own = states(bound)
    unit = own / np.linalg.norm(own, axis=1, keepdims=True)
    labels = np.array([row.fields["label"] for row in ROWS])
    means = np.stack([unit[labels == name].mean(0) for name in ("bad", "good")])
    cosines = unit @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    want = softmax(cosines / Head().head_temperature, 1)
    assert [each["bad"] for each in answers(bound, made)] == pytest.approx(want[:, 0], abs=1e-4)
    with pytest.raises(UserError, match="`head_start=logistic`: is a linear layer; use `head_form"):
        built(Head(head_start="logistic", head_form="cosine"), TASK)


def test_a_class_without_rows_is_named() -> None:
    with pytest.raises(UserError, match=r"there are none for good; use `head_start=random`"):
        built(Head(head_start="ridge"), TASK, ROWS[1:2])


def test_many_rows_are_sampled_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_starts, "MOST_ROWS", 2)
    bound = TASK.bind(get("llama"))
    taken = head_starts.known_states("ridge", bound, ROWS, None)
    assert taken.shares.sum(0).tolist() == [1, 1]


# A prefix that starts as nothing ----------------------------------------------------------------


@pytest.mark.parametrize("method", [Prefix(length=3, start="zero"), Deep(length=3, start="zero")])
@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_prefix_of_zero_gives_nothing_and_its_positions_differ(method: Any, name: str) -> None:
    bound, made = contract.built(method, get(name))
    kv = made().kv
    assert kv
    for own in kv.values():
        assert not own.values.any()
        assert own.keys.std(1).max() > 0
        if name == "t5":
            torch.testing.assert_close(own.keys.mean(1), torch.zeros_like(own.keys[:, 0]))
    contract.backward(bound, made)

    def apart(tensor: Tensor | None) -> bool:
        assert tensor is not None
        return bool((tensor[:, 0] != tensor[:, 1]).any())

    assert all(apart(each.grad) for each in made.parameters())


@pytest.mark.parametrize("name", ["bert-encoder", "qwen3-encoder", "llama"])
def test_hardly_a_query_attends_to_a_prefix_of_zero(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = next(each for each in (*ENCODERS, *CAUSAL) if each.name == name)
    base = backbone(family, initializer_range=0.3)
    bound = TASK.bind(base)
    shares: list[Tensor] = []

    def by_hand(module: Any, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> None:
        own = under.kv[names[module]].keys.repeat_interleave(query.shape[1] // key.shape[1], 0)
        keys = key[0].repeat_interleave(query.shape[1] // key.shape[1], 0)
        scores = query[0] @ torch.cat([own, keys], 1).transpose(1, 2) * module.scaling
        if base.is_causal:
            count = keys.shape[1]
            later = torch.ones(count, count).triu(1).bool()
            scores[:, :, 3:] = scores[:, :, 3:].masked_fill(later, -torch.inf)
        shares.append(scores.softmax(2)[:, :, :3].sum(2).flatten())

    def mean_share() -> float:
        shares.clear()
        with torch.no_grad():
            for row in ROWS:
                ids = bound.with_head().dev_example(row, 100).example.ids
                run_padded(base, [Line(ids)], Mixture((NOTHING,), (0,)), record=by_hand)
        return float(torch.cat(shares).mean())

    names = {site.module: site.name for site in base.sites.values()}
    under = Prefix(length=3, start="zero").build(bound, ROWS, 0)()
    few = mean_share()
    monkeypatch.setattr(prefixes, "unattended_keys", lambda *_: {})
    under = Prefix(length=3, start="zero").build(bound, ROWS, 0)()
    assert few < 0.8 * mean_share()  # random queries behind rotary positions have little in common
    assert few < 0.05 or name != "bert-encoder"


def test_a_prefix_of_zero_hardly_moves_the_scores() -> None:
    bound = TASK.bind(get("llama"))

    def moved(start: str) -> float:
        with torch.no_grad():
            under = Prefix(length=3, start=start).build(bound, ROWS, 0)()
        return float(np.abs(states(bound, under) - states(bound)).mean())

    assert moved("zero") < 0.8 * moved("demonstrations")
    with pytest.raises(UserError, match="unknown start 'zero'"):
        Soft(length=3, start="zero").build(bound, ROWS, 0)
