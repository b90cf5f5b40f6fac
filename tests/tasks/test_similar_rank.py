"""Candidates ranked by likeness on encoders: against plain transformers models, and learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import foreword as fw
from families import ENCODERS, family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.load.pooling import Pooling
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.tasks.labels.similar import SCALE
from foreword.tasks.texts.ranker import Ranker
from foreword.tasks.texts.similar_ranker import SimilarRanker
from oracles import pooled
from plain import twin

CANDIDATES = ["a good film", "bad", "it was a bad film", "a good"]
ROWS = [
    fw.Row({"history": "it was", "candidates": CANDIDATES, "answer": "bad"}, "F:1"),
    fw.Row({"history": ["a film", "and"], "candidates": CANDIDATES[:2], "answer": 0}, "F:2"),
    fw.Row({"history": "bad", "candidates": CANDIDATES[1:], "answer": ["a good", "bad"]}, "F:3"),
]
HISTORIES = ["it was", "a film\nand", "bad"]


def opened(name: str = "bert-encoder", **pooling: Any) -> Backbone:
    family = next(f for f in ENCODERS if f.name == name)
    model = family_model(family, dtype=torch.float64)
    made = Pooling("mean", **pooling)
    return Backbone(model, tokenizer(), architecture="encoder", name=name, pooling=made)


def bound(base: Backbone, **more: Any) -> Ranker:
    made = fw.Rank(**more).complete(ROWS, base).bind(base)
    assert type(made) is SimilarRanker
    return made


def by_hand(base: Backbone, history: str, texts: list[str], passage: str = "") -> Tensor:
    """The cosines of plain states: (candidates,)."""
    model = twin(base)

    def unit(text: str) -> Tensor:
        found = pooled(base, model(torch.tensor([base.text.ids(text)])).last_hidden_state[0])
        return found / found.norm()

    return torch.stack([unit(history) @ unit(passage + text) for text in texts]).float()


@pytest.mark.parametrize("name", ["bert-encoder", "qwen3-encoder"])
def test_a_candidate_scores_as_its_cosine_with_the_history(name: str) -> None:
    base = opened(name)
    task = bound(base)
    found = task.predict(ROWS, NOTHING)
    items = [task.train_example(row, 64) for row in ROWS]
    losses = {}
    for group, states in infer(base, NOTHING, [item.example for item in items]):
        own = task.losses(states, [items[n] for n in group])
        losses.update(zip(group, own.tolist(), strict=True))
    for number, (row, answer) in enumerate(zip(ROWS, found, strict=True)):
        texts = row.fields["candidates"]
        expected = by_hand(base, HISTORIES[number], texts)
        order = expected.argsort(descending=True).tolist()
        assert answer["ranking"] == [texts[n] for n in order]
        assert answer["scores"] == pytest.approx(expected[order].tolist(), abs=1e-5)
        right = sorted(task.candidates(row).right)
        chosen = (SCALE * expected).softmax(0)[right].sum()
        assert losses[number] == pytest.approx(-float(chosen.log()), abs=1e-4)


def test_texts_stand_behind_the_prompts_of_the_folder() -> None:
    base = opened(prompt="film: ", passage="good: ")
    assert bound(base).task.template == "film: {history}"
    (found,) = bound(base).predict(ROWS[:1], NOTHING)
    expected = by_hand(base, "film: it was", CANDIDATES, "good: ").sort(descending=True).values
    assert found["scores"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_rows_of_a_mixture_are_ranked_as_alone() -> None:
    base = opened()
    task = bound(base)
    virtual = torch.randn(2, base.width, generator=torch.Generator().manual_seed(0)).double()
    parts = (NOTHING, Injection(embeds=virtual, leading=2))
    mixed = task.predict(ROWS, Mixture(parts, (1, 0, 1)))
    alone = [task.predict([r], parts[o])[0] for r, o in zip(ROWS, (1, 0, 1), strict=True)]
    for one, other in zip(mixed, alone, strict=True):
        assert one["ranking"] == other["ranking"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_long_texts_are_cut_and_a_catalogue_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = opened()
    rows = [fw.Row({"history": f"it was {n}", "answer": f"film {n % 3}"}, "F") for n in range(6)]
    task = fw.Rank(max_length=3).complete(rows, base)
    open_rows = [fw.Row({"history": row.fields["history"]}, "F") for row in rows]
    read: list[int] = []
    states = base.states
    monkeypatch.setattr(base, "states", lambda e, *a: [read.append(len(e)), states(e, *a)][1])
    answers = task.bind(base).predict(open_rows, NOTHING)
    assert sum(read) == len(rows) + 3
    assert all(answer["cut"] for answer in answers)
    assert all(len(answer["ranking"]) == 3 for answer in answers)


def test_an_update_learns_to_choose() -> None:
    base = opened()
    prompt = fw.tune(base, "rank", "lora", ROWS, ROWS, rate=1e-2, epochs=10)

    def mrr(injection: Injection) -> float:
        task = prompt.bound
        return float(task.score(ROWS, task.predict(ROWS, injection), 0)["mrr"])

    with torch.no_grad():
        assert mrr(prompt.injection) > mrr(NOTHING)


def test_what_it_does_not_read_is_refused() -> None:
    base = opened()
    with pytest.raises(UserError, match="an encoder, which reads no text before a row"):
        bound(base).predict(ROWS, NOTHING, before="it was good")
    with pytest.raises(UserError, match="the task has no classes for a head"):
        bound(base).with_head()
