"""The contract that every method keeps on every backbone that can carry it.

A test module calls these with a method's configuration and a backbone; each checks one clause.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.engine.passes import differentiate, infer
from foreword.injection import Injection, Mixture
from foreword.methods.base import Method, Trainable
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.templates.layout import room_for
from oracles import in_double
from plain import twin

TEXTS = ["a good film", "it was", "bad film and a good film :", "film 0123"]
LABELS = {"good": " good", "bad": (" bad", " a bad film"), "fine": " good film"}
ROWS = [
    Row({"text": text, "label": label}, f"F:{n}")
    for n, (text, label) in enumerate(zip(TEXTS, [*LABELS, "bad"], strict=True), 1)
]

Oracle = Callable[[Backbone, Injection, Example], Tensor]
"""The logits at an example's targets under an injection, (N, vocabulary), by a plain definition."""


def task_on(base: Backbone) -> Classify:
    template = "{text} it was [mask]." if base.architecture == "masked" else "{text}\nMood:"
    return Classify(template=template, labels=LABELS)


def built(method: Method, base: Backbone, seed: int = 0) -> tuple[Bound, Trainable]:
    task = task_on(base).bind(base)
    trainable = method.build(task, ROWS, seed)
    return task.with_head() if trainable.has_head else task, trainable


def backward(task: Bound, trainable: Trainable) -> float:
    """Take the gradient of the task's loss on all rows."""
    room = room_for(task.backbone, trainable.outline)
    items = [task.train_example(row, room) for row in ROWS]

    def loss(group: list[int], logits: Tensor) -> Tensor:
        return task.losses(logits, [items[i] for i in group]).sum()

    examples = [item.example for item in items]
    longest = max(e.length for e in examples)
    return differentiate(
        task.backbone,
        lambda: trainable.training_on(range(len(ROWS)), torch.Generator().manual_seed(0)),
        examples,
        (),
        longest,
        100,
        loss,
        tokens=task.tokens,
    )


@dataclass(frozen=True)
class Run:
    """A training: the loss and gradients of each step, and the trainable moved along it."""

    trainable: Trainable
    losses: list[float]
    gradients: list[dict[str, Tensor | None]]


STEPS = 4


@cache
def run(method: Method, base: Backbone, seed: int = 0) -> Run:
    """Train a method once for all clauses. The backbone's weights are noted before."""
    first_digest(base)
    task, trainable = built(method, base, seed)
    learning = {n: p for n, p in trainable.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(learning.values(), lr=1e-3)
    starts = [parameter.detach().clone() for parameter in learning.values()]
    losses, gradients = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses.append(backward(task, trainable))
        gradients.append(
            {n: None if p.grad is None else p.grad.clone() for n, p in learning.items()}
        )
        optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():  # on from there, so far that a wrong scale or a wrong place shows
        for parameter, start in zip(learning.values(), starts, strict=True):
            parameter.add_(10 * (parameter - start))
    return Run(trainable.requires_grad_(False), losses, gradients)


def trained(method: Method, base: Backbone, seed: int = 0) -> Trainable:
    return run(method, base, seed).trainable


def digest(base: Backbone) -> str:
    found = hashlib.sha256()
    for name, tensor in [*base.model.named_parameters(), *base.model.named_buffers()]:
        if type(tensor) not in (Tensor, Parameter):  # quantized
            tensor = tensor.dequantize()
        held = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        found.update(name.encode() + held.numpy().tobytes())
    return found.hexdigest()


first_digest = cache(digest)
"""What a backbone's weights were when they were first asked for."""


def probabilities(task: Bound, injection: Injection | Mixture) -> Tensor:
    part = injection.parts[0] if isinstance(injection, Mixture) else injection
    answers = (task if part.head is None else task.with_head()).predict(ROWS, injection)
    return torch.tensor([list(answer["probabilities"].values()) for answer in answers])


# The clauses ----------------------------------------------------------------------------------


def equals_a_plain_oracle(method: Method, base: Backbone, oracle: Oracle) -> None:
    task, _ = built(method, base)
    injection = trained(method, base)()
    if base.name == "t5":  # whose scores, unscaled, round more than is allowed
        base, injection = in_double(base), injection.map(Tensor.double)
    for row in ROWS:
        example = task.dev_example(row, room_for(base, injection)).example
        with torch.no_grad():
            ((_, found),) = infer(base, injection, [example])
            expected = oracle(base, injection, example)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def gradient_reaches_every_parameter(method: Method, base: Backbone) -> None:
    found = run(method, base)
    last = found.gradients[-1]  # not the first, since what starts at zero hides what is behind it
    assert last
    for name, gradient in last.items():
        assert gradient is not None, f"no gradient reaches {name}"
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().max()) > 0, f"the gradient of {name} is zero"
    assert found.losses[-1] < min(found.losses[:-1]), f"the loss does not fall: {found.losses}"


def a_file_gives_the_same_prompt(method: Method, base: Backbone, folder: Path) -> None:
    injection = trained(method, base)()
    prompt = Prompt(
        injection=injection,
        task=task_on(base),
        backbone={
            "name": base.name,
            "architecture": base.architecture,
            "fingerprint": base.fingerprint,
        },
        method={"name": name_of(method), **plain(method)},
        on=base,
    )
    path = prompt.save(folder / "p.safetensors")
    again = Prompt.load(path, base)
    kept, read = dict(injection.tensors()), dict(again.injection.tensors())
    assert kept.keys() == read.keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in kept.items())
    bound = prompt.bound
    # The tensors are equal, and lie in memory otherwise: a sum may be taken in another order.
    before, after = probabilities(bound, injection), probabilities(bound, again.injection)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert prompt.predict(TEXTS) == again.predict(TEXTS)


def the_backbone_is_untouched(method: Method, base: Backbone) -> None:
    before, kind = first_digest(base), type(base.model)
    probabilities(task_on(base).bind(base), trained(method, base)())
    assert digest(base) == before
    assert type(base.model) is kind
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())
    plainly = twin(base)
    ids = {"input_ids": torch.tensor([[5, 7, 9, 11]])}
    if base.architecture == "encoder-decoder":
        ids["decoder_input_ids"] = torch.tensor([[0, 3]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(**ids)[0], plainly(**ids)[0])


def a_mixed_batch_equals_single_rows(method: Method, other: Method, base: Backbone) -> None:
    task = task_on(base).bind(base)
    parts = (trained(method, base)(), trained(other, base, seed=1)())
    owners = (1, 0, 0, 1)
    mixed = probabilities(task, Mixture(parts, owners))
    alone = torch.stack([probabilities(task, part) for part in parts])
    expected = alone[torch.tensor(owners), torch.arange(len(ROWS))]
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], rtol=1e-4, atol=1e-6)


def checkpointing_changes_nothing(method: Method, base: Backbone) -> None:
    expected = run(method, base)
    task, trainable = built(method, base)
    base.checkpointing(True)
    try:
        loss = backward(task, trainable)
    finally:
        base.checkpointing(False)
    assert loss == expected.losses[0]
    gradients = {n: p.grad for n, p in trainable.named_parameters() if p.requires_grad}
    assert gradients.keys() == expected.gradients[0].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected.gradients[0][name])
