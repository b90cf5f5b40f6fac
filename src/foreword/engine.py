"""The engine: examples through the backbone in passes that do no work twice and none on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, common_lead
from foreword.injection import Injection, Mixture

WORTH_SHARING = 8
"""Leading tokens that all rows share are run once from this many on; a pass of its own for
fewer costs more than it saves."""


def token_budget(backbone: Backbone) -> int:
    """Return how many tokens one pass should have: enough to be busy, few enough to stay cached."""
    return 1024 if backbone.device.type == "cpu" else 16384


def buckets(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Part rows into groups of near-equal length, each at most ``budget`` tokens with padding.

    Returns indices, longest rows first; a row longer than the budget makes a group of its own.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    groups: list[list[int]] = []
    for index in order:
        if groups and sizes[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


@dataclass(frozen=True)
class Shared:
    """An injection with what all rows begin with read into it, and how many tokens that was."""

    injection: Injection | Mixture
    lead: int


def share(
    backbone: Backbone, injection: Injection | Mixture, lead: Sequence[int], longest: int
) -> Shared:
    """Read leading virtual tokens and common leading text once, where that is exact and pays."""
    if isinstance(injection, Mixture):
        parts = [share(backbone, part, (), longest).injection for part in injection.parts]
        return Shared(
            Mixture(tuple(p for p in parts if isinstance(p, Injection)), injection.rows), 0
        )
    if len(lead) < WORTH_SHARING:
        lead = ()
    if not injection.leading and not lead:
        return Shared(injection, 0)
    folded = backbone.fold(injection, lead, longest)
    return Shared(injection, 0) if folded is None else Shared(folded, len(lead))


def passes(
    backbone: Backbone, shared: Shared, examples: Sequence[Example], budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield groups of rows and the logits at their targets: (targets of the group, vocabulary)."""
    rows = [example.after(shared.lead) for example in examples]
    for group in buckets([row.length for row in rows], budget):
        injection = shared.injection
        if isinstance(injection, Mixture):
            injection = Mixture(injection.parts, [injection.rows[i] for i in group])
        yield group, backbone.logits(backbone.states([rows[i] for i in group], injection))


@torch.no_grad()  # around each step of the generator, not around who iterates
def infer(
    backbone: Backbone,
    injection: Injection | Mixture,
    examples: Sequence[Example],
    budget: int | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Run examples without gradients; as :func:`passes`, with the sharing done."""
    lead = () if isinstance(injection, Mixture) else common_lead(examples)
    longest = max((example.length for example in examples), default=0)
    shared = share(backbone, injection, lead, longest)
    yield from passes(backbone, shared, examples, budget or token_budget(backbone))


def differentiate(
    backbone: Backbone,
    make: Callable[[], Injection],
    examples: Sequence[Example],
    lead: Sequence[int],
    longest: int,
    budget: int,
    loss: Callable[[list[int], Tensor], Tensor],
) -> float:
    """Take the gradient of a loss summed over rows, in passes within the token budget.

    ``make`` builds the injection from its parameters; it and the reading of the shared lead are
    run and differentiated once, whatever the number of passes. ``loss`` maps a group and its
    logits to the group's share of the loss. Gradients are added to the parameters' ``grad``;
    returns the loss.
    """
    shared = share(backbone, make(), lead, longest)
    assert isinstance(shared.injection, Injection)
    grown = {id(tensor): tensor for _, tensor in shared.injection.tensors() if tensor.requires_grad}
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in grown.items()}
    cut = Shared(shared.injection.map(lambda t: leaves.get(id(t), t)), shared.lead)
    total = 0.0
    for group, logits in passes(backbone, cut, examples, budget):
        part = loss(group, logits)
        torch.autograd.backward(part)
        total += float(part.detach())
    reached = [key for key in grown if leaves[key].grad is not None]
    torch.autograd.backward([grown[key] for key in reached], [leaves[key].grad for key in reached])
    return total
