"""The engine: examples through the backbone in passes that do no work twice and none on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, behind, common_lead
from foreword.backbone.run.layers import WHOLE
from foreword.engine.groups import Shared, StoredStates, groups_of, planned, token_budget
from foreword.engine.mixup import Mix
from foreword.injection import NOTHING, Injection, Mixture

LOGITS = {"cpu": 2**24, "cuda": 2**27}
"""Scores that stand in memory at once: 64 MiB of float32 on a CPU, 512 MiB on a GPU."""


def score_limit(backbone: Backbone) -> int:
    """Return how many scores of targets stand in memory at once, unless a run has a limit."""
    return LOGITS.get(backbone.device.type, LOGITS["cuda"])


def passes(
    backbone: Backbone,
    shared: Shared,
    examples: Sequence[Example],
    groups: Sequence[Sequence[int]],
    given: StoredStates | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield groups of rows and the states at their targets: (targets of the group, width)."""
    rows = [example.after(shared.lead) for example in examples]
    for group in groups:
        injection = shared.injection
        if isinstance(injection, Mixture):
            injection = injection.of_rows(group)
        layers = WHOLE if given is None else given.of(group, backbone.device)
        yield (
            list(group),
            backbone.states([rows[i] for i in group], injection, shared.in_pass_lead, layers),
        )


def chunks(
    examples: Sequence[Example], group: Sequence[int], most: int, *, split: bool = False
) -> Iterator[tuple[list[int], slice]]:
    """Part a group's rows so that no more than ``most`` targets are scored at once.

    Yields rows, and their targets' places. A row with more targets stands alone, or comes several
    times where rows may be ``split``, each time with the next of its targets.
    """
    rows: list[int] = []
    start = stop = 0
    for index in group:
        size = len(examples[index].targets)
        if rows and stop - start + size > most:
            yield rows, slice(start, stop)
            rows, start = [], stop
        stop += size
        if split and size > most:
            for first in range(start, stop, most):
                yield [index], slice(first, min(first + most, stop))
            start = stop
        else:
            rows.append(index)
    if rows:
        yield rows, slice(start, stop)


@torch.no_grad()  # around each step of the generator, not around who iterates
def infer(
    backbone: Backbone,
    injection: Injection | Mixture,
    examples: Sequence[Example],
    budget: int | None = None,
    *,
    tokens: Sequence[int] | None = None,
    given: StoredStates | None = None,
    scores: int | None = None,
    split: bool = False,
    hear: Callable[[list[int], Tensor], None] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows and the scores at their targets, without gradients: (targets, scores).

    ``tokens`` names the vocabulary tokens that are scored, None all of them. No more than
    ``scores`` stand in memory at once, but for those of one row; where rows may be ``split``, one
    with more targets comes several times, each time with the scores of the next of them. ``hear``
    is given the states that these are the scores of: (targets, width).
    """
    most = _targets_at_once(backbone, tokens, scores)
    for view, group, states in _read(backbone, injection, examples, budget, given):
        for rows, place in chunks(examples, group, most, split=split):
            if hear is not None:
                hear(rows, states[place])
            yield rows, view.logits(states[place], tokens)


def _targets_at_once(backbone: Backbone, tokens: Sequence[int] | None, scores: int | None) -> int:
    """Return how many targets have ``scores`` scores together, at least one."""
    width = backbone.vocabulary if tokens is None else len(tokens)
    return max(1, (scores or score_limit(backbone)) // width)


@torch.no_grad()
def states_of(
    backbone: Backbone,
    injection: Injection | Mixture,
    examples: Sequence[Example],
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Tensor]:
    """Return the last hidden states at each example's targets, on the CPU: (targets, width)."""
    found: dict[int, Tensor] = {}
    for _, group, states in _read(backbone, injection, examples):
        sizes = [len(examples[i].targets) for i in group]
        found.update(zip(group, torch.split(states.cpu(), sizes), strict=True))
        progress(len(group))
    return [found[i] for i in range(len(examples))]


def _read(
    backbone: Backbone,
    injection: Injection | Mixture,
    examples: Sequence[Example],
    budget: int | None = None,
    given: StoredStates | None = None,
) -> Iterator[tuple[Backbone, list[int], Tensor]]:
    """Yield rows, the states at their targets, and the backbone as it was changed for them."""
    if isinstance(injection, Mixture) and len(kinds := injection.groups_by_change()) > 1:
        for own in kinds:
            chosen = [examples[i] for i in own]
            for view, group, states in _read(backbone, injection.of_rows(own), chosen, budget):
                yield view, [own[i] for i in group], states
        return
    backbone, examples = backbone.with_changes(injection), behind(examples, injection)
    lead = () if isinstance(injection, Mixture) else common_lead(examples)
    longest = max((example.length for example in examples), default=0)
    budget = budget or token_budget(backbone)
    shared, groups = planned(backbone, injection, examples, lead, longest, budget, given)
    for group, states in passes(backbone, shared, examples, groups, given):
        yield backbone, group, states


def differentiate(
    backbone: Backbone,
    make: Callable[[], Injection | Mixture],
    examples: Sequence[Example],
    lead: Sequence[int],
    longest: int,
    budget: int,
    loss: Callable[[list[int], Tensor], Tensor],
    *,
    tokens: Sequence[int] | None = None,
    given: StoredStates | None = None,
    mix: Mix | None = None,
    on_states: Callable[[list[int], Tensor], Tensor] | None = None,
    scores: int | None = None,
    split: bool = False,
) -> float:
    """Take the gradient of a loss summed over rows, in passes within the token budget.

    ``make`` builds the injection from its parameters, or a mixture whose parts change the model
    alike; a mixture's rows have no common lead. What is read before the passes (:func:`planned`)
    is differentiated once.

    ``loss`` maps rows and the logits of their targets (of ``tokens``, None for all) to their
    share of the loss; it is called with a few rows at a time where the vocabulary is large, and
    with some targets of one row where rows may be ``split`` (:func:`infer`, with ``scores``). With
    ``mix``, rows are mixed with others of their pass, and each must have one target. ``on_states``
    maps the rows of a pass and the states of their targets to a loss that is added. Gradients are
    added to the parameters' ``grad``; returns the loss.
    """
    scale = _loss_scale(backbone, examples)
    injection = _unscaled(make(), scale)
    frozen, backbone = backbone, backbone.with_changes(injection)
    shared, groups = planned(backbone, injection, examples, lead, longest, budget, given)
    grown = {id(tensor): tensor for _, tensor in shared.injection.tensors() if tensor.requires_grad}
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in grown.items()}
    detached = Shared(
        shared.injection.map(lambda t: leaves.get(id(t), t)), shared.lead, shared.in_pass_lead
    )
    backbone = frozen.with_changes(detached.injection)
    total = torch.zeros((), device=backbone.device)
    most = _targets_at_once(backbone, tokens, scores)
    for group, states in passes(backbone, detached, examples, groups, given):
        leaf = states.detach().requires_grad_()
        for rows, place in chunks(examples, group, most, split=split):
            if mix is None:
                part = loss(rows, backbone.logits(leaf[place], tokens))
            else:
                part = _mixed(backbone, leaf[place], rows, loss, tokens, mix)
            torch.autograd.backward(part * scale)
            total = total + part.detach()
        if on_states is not None:
            part = on_states(group, leaf)
            torch.autograd.backward(part * scale)
            total = total + part.detach()
        if states.requires_grad:  # below a head alone they do not
            torch.autograd.backward(states, leaf.grad)
    reached = [key for key in grown if leaves[key].grad is not None]
    torch.autograd.backward([grown[key] for key in reached], [leaves[key].grad for key in reached])
    return float(total)  # the one time that the host waits for the device


def _loss_scale(backbone: Backbone, examples: Sequence[Example]) -> int:
    """Return by what a loss is multiplied on its way back through the model.

    A mean over many targets has gradients that float16 rounds to zero, so that there it is their
    sum: a power of two, which rounds nothing itself. Other types hold numbers as small as float32.
    """
    if backbone.dtype != torch.float16:
        return 1
    return 1 << (sum(len(example.targets) for example in examples)).bit_length()


def _unscaled(injection: Injection | Mixture, scale: int) -> Injection | Mixture:
    """Return what divides its gradients by ``scale``, where they are float32 again."""
    if scale == 1:
        return injection
    made: dict[int, Tensor] = {}

    def divided(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        if id(tensor) not in made:
            made[id(tensor)] = tensor.view_as(tensor)
            made[id(tensor)].register_hook(lambda grad: grad / scale)  # type: ignore[no-untyped-call]
        return made[id(tensor)]

    return injection.map(divided)


def _mixed(
    backbone: Backbone,
    states: Tensor,
    rows: list[int],
    loss: Callable[[list[int], Tensor], Tensor],
    tokens: Sequence[int] | None,
    mix: Mix,
) -> Tensor:
    """Return the loss of states that are mixed two by two, (rows, width), one target a row."""
    partners = mix.partners(len(rows))
    blended = mix.share * states + (1 - mix.share) * states[partners]
    logits = backbone.logits(blended, tokens)
    own = loss(rows, logits)
    return mix.share * own + (1 - mix.share) * loss([rows[n] for n in partners], logits)


def passes_over(
    examples: Sequence[Example], backbone: Backbone, lead: int, budget: int
) -> list[list[int]]:
    """Part examples, by number, into the passes that ``lower_states`` makes of them."""
    return groups_of(backbone, Shared(NOTHING, 0, lead), examples, budget)


@torch.no_grad()
def lower_states(
    backbone: Backbone,
    frame: Injection,
    examples: Sequence[Example],
    lead: int,
    layer: int,
    budget: int,
) -> tuple[Tensor, list[Tensor]]:
    """Run the layers below ``layer``; return the states that enter it, on the CPU.

    Those of the lead are (lead, width), and those of each example's other tokens (tokens, width).
    ``frame`` says at which position rows begin.
    """
    rows: dict[int, Tensor] = {}
    first = torch.zeros(0, backbone.width)
    for group in groups_of(backbone, Shared(frame, 0, lead), examples, budget):
        first, own = backbone.lower_states([examples[i] for i in group], frame, lead, layer)
        rows.update(zip(group, own, strict=True))
    return first, [rows[i] for i in range(len(examples))]
