"""Distillation: the loss is the divergence from the model that has the whole text in front."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foreword.backbone.decode import Decoding
from foreword.compression.distil import Distillation, divergence
from foreword.data.row import Row
from foreword.engine.passes import differentiate, infer
from foreword.injection import NOTHING, Injection
from foreword.methods.cartridge import Cartridge, PrefixWithSink
from foreword.tasks.generate import Generate
from foreword.tasks.texts.generator import Generator
from oracles import get
from plain import twin

FAMILIES = ["llama", "gpt2", "gemma2", "phi", "mistral"]
TASK = Generate(" {prompt} :", decoding=Decoding(max_new_tokens=8))
TEXT = "good film it was a bad film and fine it is the film was good as it was bad and so on"
ROWS = [
    Row({"prompt": "film it", "completion": "it was good"}, "F:1"),
    Row({"prompt": "a bad film it was", "completion": "fine"}, "F:2"),
    Row({"prompt": "so", "completion": "as it is bad"}, "F:3"),
]


def bound(name: str) -> Generator:
    return TASK.bind(get(name))


def read(name: str, ids: list[int]) -> Injection:
    found = get(name).prefill(NOTHING, ids, 64)
    assert found is not None
    return found


def whole_text(name: str, row: Row) -> tuple[list[int], list[int]]:
    """The text's tokens, and those of the row behind it, by the tokenizer alone."""
    tokens = get(name).text
    item = bound(name).train_example(row, 64)
    return tokens.ids(TEXT), [*item.example.ids, *item.example.branches[0]]


def plain_logits(name: str, before: list[int], row: list[int]) -> Tensor:
    """The scores at a row's tokens after a text, by the untouched model."""
    with torch.no_grad():
        return twin(get(name))(torch.tensor([[*before, *row]])).logits[0, len(before) :]


def plain_divergence(one: Tensor, other: Tensor) -> Tensor:
    p, q = (torch.distributions.Categorical(logits=t.double()) for t in (one, other))
    return torch.distributions.kl_divergence(p, q)


def test_the_divergence_is_that_of_the_distributions() -> None:
    one, other = torch.randn(2, 7, 30, generator=torch.Generator().manual_seed(0)) * 3
    found, expected = divergence(one, other).double(), plain_divergence(one, other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert float(divergence(one, one).abs().max()) < 1e-6
    assert not torch.allclose(divergence(one, other), divergence(other, one))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_the_divergence_from_the_full_text(name: str) -> None:
    """Both sides by the untouched model: once with the whole text in front, once with a part."""
    ids = get(name).text.ids(TEXT)
    distilled = Distillation(bound(name), read(name, ids), ROWS)
    items = [distilled.train_example(row, 64) for row in ROWS]
    student = read(name, ids[:5])
    for group, logits in infer(get(name), student, [item.example for item in items]):
        losses = distilled.losses(logits, [items[i] for i in group])
        for i, loss in zip(group, losses, strict=True):
            before, row = whole_text(name, ROWS[i])
            full, part = plain_logits(name, before, row), plain_logits(name, before[:5], row)
            assert items[i].gold == len(row)
            expected = plain_divergence(full, part).sum()
            torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=1e-5)


def test_who_holds_the_full_text_agrees_with_it() -> None:
    ids = get("llama").text.ids(TEXT)
    distilled = Distillation(bound("llama"), read("llama", ids), ROWS)
    same = distilled.agreement(read("llama", ids), ROWS)
    assert same["kl"] < 1e-6
    assert same["top1"] == 100
    other = distilled.agreement(read("llama", ids[:3]), ROWS)
    pairs = [
        (plain_logits("llama", before, row), plain_logits("llama", before[:3], row))
        for before, row in (whole_text("llama", row) for row in ROWS)
    ]
    full, part = (torch.cat(each) for each in zip(*pairs, strict=True))
    assert other["kl"] == pytest.approx(float(plain_divergence(full, part).mean()), rel=1e-3)
    agreed = (full.argmax(1) == part.argmax(1)).float().mean()
    assert other["top1"] == pytest.approx(100 * float(agreed))


def test_the_gradient_is_that_of_the_mean_divergence() -> None:
    """Against autograd through one plain pass a row with the prefix in a cache's place."""
    base = get("llama")
    ids = base.text.ids(TEXT)
    distilled = Distillation(bound("llama"), read("llama", ids), ROWS)
    items = [distilled.train_example(row, 64) for row in ROWS]
    made = Cartridge("", 4).start_from(bound("llama"), ids)
    weight = sum(distilled.units(item) for item in items)

    def loss(group: list[int], logits: Tensor) -> Tensor:
        return distilled.losses(logits, [items[i] for i in group]).sum() / weight

    examples = [item.example for item in items]
    total = differentiate(base, made, examples, (), 64, 64, loss)
    found = {n: p.grad for n, p in made.named_parameters() if p.grad is not None}
    eps, parameter = 1e-2, made.rest.values[1]
    place = (1, 2, 3)

    def at(change: float) -> float:
        with torch.no_grad():
            parameter[place] += change
            value = distilled.agreement(made(), ROWS)["kl"]
            parameter[place] -= change
        return value

    assert total == pytest.approx(at(0.0), rel=1e-5)
    slope = (at(eps) - at(-eps)) / (2 * eps)
    grad = next(g for n, g in found.items() if n == "rest.values.1")
    assert float(grad[place]) == pytest.approx(slope, rel=0.05, abs=1e-5)


def test_the_sink_has_no_gradient_and_the_rest_has() -> None:
    made = Cartridge("", 4, sink=2).start_from(bound("llama"), get("llama").text.ids(TEXT))
    assert isinstance(made, PrefixWithSink)
    trained = [n for n, p in made.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith("rest.") for name in trained)
    assert made.rest.keys[0].shape[1] == 2
