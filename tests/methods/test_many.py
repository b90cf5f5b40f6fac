"""Prompts of several tasks in one pass: the losses and gradients that each has alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Method, Trainable
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft
from foreword.multitask_learning.separate import (
    Owners,
    SeparatePrompts,
    check_shared_pass,
    mix_injections,
)
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.objective import Objective
from foreword.training.several_tasks import MixedObjective
from toys import TASK, get, rows

MOOD = Classify(template="{text} was", labels={"good": " film", "bad": (" a bad", " it")})
WRITE = Generate(template="{text} :")
OWNERS = (0, 1, 1, 2, 0, 1)
METHODS: dict[str, Method] = {
    "soft": Soft(length=3),
    "ptuning": PTuning(length=3, encoder="mlp", hidden=8),
    "prefix": Prefix(length=4, shots=2),
    "deep": Deep(length=4),
    "context": Context(shots=2, token_dropout=0.0),
}


def built(method: Method, base: Backbone) -> tuple[list[Bound], list[list[Row]], list[Trainable]]:
    tasks = [TASK, MOOD] if base.architecture == "encoder-decoder" else [TASK, MOOD, WRITE]
    bounds = [task.bind(base) for task in tasks]
    own = [[row for row, t in zip(rows(6), OWNERS, strict=True) if t == n] for n in range(3)]
    parts = []
    for number, bound in enumerate(bounds):
        part = method.build(bound, own[number] * 2, number)
        chance = torch.Generator().manual_seed(number)
        for parameter in part.parameters():  # else equal texts would start equal prompts
            drawn = torch.randn(parameter.shape, generator=chance)
            parameter.data.add_(0.1 * drawn.to(parameter.dtype))
        parts.append(part)
    return bounds, own, parts


def backward(
    task: Objective, base: Backbone, trainable: Trainable, given: list[Row], budget: int
) -> float:
    items = [task.train_example(row, 400) for row in given]

    def loss(group: list[int], logits: Tensor) -> Tensor:
        return task.losses(logits, [items[i] for i in group]).sum()

    return differentiate(
        base,
        lambda: trainable.training_on(range(len(given)), torch.Generator().manual_seed(0)),
        [item.example for item in items],
        (),
        max(item.example.length for item in items),
        budget,
        loss,
        tokens=task.tokens,
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("budget", "rows_a_part"),
    [(30, 100), (1000, 100), (1000, 2)],
    ids=["several passes", "leads with each row", "leads once"],
)
def test_a_mixed_batch_has_the_losses_and_gradients_of_the_tasks_alone(
    name: str, budget: int, rows_a_part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.engine.groups.ROWS_A_PART", rows_a_part)
    base = get(double=True)
    bounds, own, parts = built(METHODS[name], base)
    whole = SeparatePrompts(parts, Owners(OWNERS, ()))
    given = [replace(row, task=t) for row, t in zip(rows(6), OWNERS, strict=True)]
    together = backward(MixedObjective(bounds), base, whole, given, budget)
    found = [{n: p.grad for n, p in part.named_parameters()} for part in parts]
    total = 0.0
    for bound, given, part, gradients in zip(bounds, own, parts, found, strict=True):
        part.zero_grad(set_to_none=True)
        total += backward(bound, base, part, given, 1000)
        reached = 0
        for key, parameter in part.named_parameters():
            if parameter.grad is None:
                assert gradients[key] is None
                continue
            reached += 1
            torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-5, atol=1e-7)
        assert reached
    assert together == pytest.approx(total, rel=1e-6)


def test_leads_of_many_rows_are_run_once() -> None:
    base = get()
    bounds, _, parts = built(Soft(length=3), base)
    given = [replace(row, task=t) for row, t in zip(rows(6), OWNERS, strict=True)]
    lengths = [bounds[row.task].train_example(row, 400).example.length for row in given]
    run: list[int] = []

    def count(_: object, args: object, given: dict[str, Tensor]) -> None:
        ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
        run.append(ids.numel() if ids is not None else embeds[..., 0].numel())  # type: ignore[index]

    def step() -> None:
        backward(
            MixedObjective(bounds), base, SeparatePrompts(parts, Owners(OWNERS, ())), given, 1000
        )

    step()  # in which the backbone is tried
    hook = base.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        step()
    finally:
        hook.remove()
    assert run == [3, 3, 3, sum(lengths)]


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_other_architectures_serve_several_tasks_too(family: str) -> None:
    base = get(family, double=True)
    masked = base.architecture == "masked"
    tasks = [replace(t, template="{text} [mask]." if masked else t.template) for t in (TASK, MOOD)]
    bounds = [task.bind(base) for task in tasks]
    owners = (0, 1, 1, 0)
    given = [replace(row, task=t) for row, t in zip(rows(4), owners, strict=True)]
    parts = [
        Prefix(length=3, start="random").build(bound, given, n) for n, bound in enumerate(bounds)
    ]
    together = backward(
        MixedObjective(bounds), base, SeparatePrompts(parts, Owners(owners, ())), given, 1000
    )
    found = [[p.grad for p in part.parameters()] for part in parts]
    alone = 0.0
    for n, part in enumerate(parts):
        part.zero_grad(set_to_none=True)
        own = [row for row in given if row.task == n]
        alone += backward(bounds[n], base, part, own, 1000)
        for one, parameter in zip(found[n], part.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-5, atol=1e-7)
    assert together == pytest.approx(alone, rel=1e-6)


def test_rows_are_told_by_their_number_among_those_of_their_task() -> None:
    asked = []
    parts = [Injection(leading=0), Injection(leading=1), Injection(leading=2)]

    def make(task: int, own: list[int]) -> Injection:
        asked.append((task, list(own)))
        return parts[task]

    class Walked(tuple[int, ...]):
        def __iter__(self) -> Iterator[int]:
            walks.append(len(self))
            return super().__iter__()

    walks: list[int] = []
    owners = Walked((0, 1, 1, 2, 0, 1))
    found = mix_injections(owners, (5, 0, 2, 4), make)  # type: ignore[arg-type]
    assert asked == [(0, [0, 1]), (1, [2, 1])]
    assert isinstance(found, Mixture)
    assert [found.parts[part] for part in found.rows] == [parts[1], parts[0], parts[1], parts[0]]
    assert mix_injections(owners, (3,), make) is parts[2]  # type: ignore[arg-type]
    assert len(walks) < 2  # once, and not at every step


@pytest.mark.parametrize("method", [Head(), Lora()], ids=["head", "lora"])
def test_what_changes_the_model_is_refused(method: Method) -> None:
    if isinstance(method, Lora):
        pytest.importorskip("peft")
    made = method.build(TASK.bind(get()), rows(6), 0)()
    with pytest.raises(UserError, match="`method=x`: changes the model itself"):
        check_shared_pass("x", made)
