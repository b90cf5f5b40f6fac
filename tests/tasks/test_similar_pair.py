"""How alike two texts are, on an encoder: against plain transformers models, and learned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import foreword as fw
from families import ENCODERS, family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.load.pooling import Pooling
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.similar_pair import SimilarPair
from oracles import pooled
from plain import twin

TEXTS = [("a good film", "it was good"), ("it was bad", "it was bad"), ("a", "good bad film:")]
SCORES = [4.0, 5.0, 0.5]


def open_encoder(name: str = "bert-encoder", **pooling: object) -> Backbone:
    family = next(f for f in ENCODERS if f.name == name)
    model = family_model(family, dtype=torch.float64)
    made = Pooling("mean", **pooling)  # type: ignore[arg-type]
    return Backbone(model, tokenizer(), architecture="encoder", name=name, pooling=made)


def rows() -> list[fw.Row]:
    return [
        fw.Row({"text_a": a, "text_b": b, "label": score}, f"r:{n}")
        for n, ((a, b), score) in enumerate(zip(TEXTS, SCORES, strict=True), 1)
    ]


def bound(base: Backbone, **settings: object) -> Classifier:
    settings = {"low": 0.0, "high": 5.0, **settings}
    return fw.Score(**settings).complete(rows(), base).bind(base)  # type: ignore[arg-type]


def cosines(base: Backbone, prompt: str = "", most: int = 512) -> Tensor:
    """What plain transformers gives for the texts, one after the other: (rows,)."""
    model = twin(base)

    def state(text: str) -> Tensor:
        ids = base.text.ids(prompt + text)[:most]
        return pooled(base, model(torch.tensor([ids])).last_hidden_state[0])

    pairs = [(state(a), state(b)) for a, b in TEXTS]
    return torch.stack([a @ b / (a.norm() * b.norm()) for a, b in pairs])


@pytest.mark.parametrize("name", ["bert-encoder", "qwen3-encoder"])
def test_a_score_is_the_cosine_of_plain_states(name: str) -> None:
    base = open_encoder(name)
    task = bound(base)
    assert type(task) is SimilarPair
    found = [answer["score"] for answer in task.predict(rows(), NOTHING)]
    expected = 5 * cosines(base).clamp(0, 1)
    torch.testing.assert_close(torch.tensor(found), expected.float(), rtol=1e-5, atol=1e-5)
    assert found[1] == pytest.approx(5)  # a text is as itself


def test_each_text_is_read_behind_the_prompt_of_the_folder() -> None:
    base = open_encoder(prompt="good: ")
    found = [answer["score"] for answer in bound(base).predict(rows(), NOTHING)]
    expected = 5 * cosines(base, "good: ").clamp(0, 1)
    torch.testing.assert_close(torch.tensor(found), expected.float(), rtol=1e-5, atol=1e-5)
    assert (expected - 5 * cosines(base).clamp(0, 1)).abs().max() > 1e-3


def test_a_long_text_loses_its_end_and_says_so() -> None:
    base = open_encoder()
    answers = bound(base, max_length=3).predict(rows(), NOTHING)
    short = 5 * cosines(base, most=3).clamp(0, 1)
    found = torch.tensor([answer["score"] for answer in answers])
    torch.testing.assert_close(found, short.float(), rtol=1e-5, atol=1e-5)
    lengths = [max(len(base.text.ids(text)) for text in pair) for pair in TEXTS]
    assert [answer["cut"] for answer in answers] == [length > 3 for length in lengths]


def test_losses_are_squared_errors_of_the_cosine() -> None:
    base = open_encoder()
    task = bound(base)
    noise = torch.Generator().manual_seed(0)
    virtual = torch.randn(2, base.width, generator=noise, dtype=torch.float64)
    injection = Injection(embeds=virtual, leading=2)
    items = [task.train_example(row, 64) for row in rows()]
    states = base.states([item.example for item in items], injection)
    scores = torch.tensor([a["score"] for a in task.predict(rows(), injection)], dtype=torch.double)
    gold = torch.tensor(SCORES, dtype=torch.double)
    inside = (scores > 0) & (scores < 5)
    assert inside.any()
    losses = task.losses(states, items).double()
    torch.testing.assert_close(
        losses[inside], ((scores - gold) / 5).square()[inside], rtol=1e-4, atol=1e-6
    )
    total, count = task.dev_counts(states, items)
    assert count == 3
    assert total == pytest.approx(-float((scores - gold).square().sum()), rel=1e-4)


def test_a_soft_prompt_learns_how_alike_texts_are() -> None:
    base = open_encoder()
    prompt = fw.tune(
        base,
        task=fw.Score(low=0, high=5),
        method="soft",
        train=rows(),
        dev=rows(),
        length=2,
        start="random",
        rate=0.3,
        epochs=20,
        batch_size=3,
    )
    before = bound(base).zero_shot().predict(rows(), NOTHING)
    after = prompt.bound.predict(rows(), prompt.injection)

    def error(answers: list[dict[str, float]]) -> float:
        return sum((a["score"] - g) ** 2 for a, g in zip(answers, SCORES, strict=True))

    assert error(after) < 0.9 * error(before)


def test_a_head_reads_both_texts_as_one_row() -> None:
    base = open_encoder()
    task = bound(base).with_head()
    plain = Classifier(task.task, base, task.labelling, task.words).with_head()
    for row in rows():
        assert task.dev_example(row, 64) == plain.dev_example(row, 64)


@pytest.mark.parametrize("template", ["{text_a} and {text_b}", "[soft:2]{text_a}\n{text_b}"])
def test_words_around_the_texts_are_refused_without_a_head(template: str) -> None:
    task = bound(open_encoder(), template=template)
    with pytest.raises(UserError, match=r"each of them alone; leave `template` out, or train"):
        task.predict(rows(), NOTHING)
    task.with_head().dev_example(rows()[0], 64)


def test_a_text_before_the_row_is_refused() -> None:
    with pytest.raises(UserError, match="an encoder, which reads no text before a row"):
        bound(open_encoder()).predict(rows(), NOTHING, before="it was good")
