"""Running examples: laid out as lines and run, packed where that is exact and else padded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from foreword.backbone.example import Batch, Example, Line, batch
from foreword.backbone.run import encoder_decoder, single_stack
from foreword.backbone.run.inputs import virtual
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.backbone.run.network import Network
from foreword.backbone.run.pooled import states_at
from foreword.injection import KV, Injection, Mixture, in_turn


def states(
    network: Network,
    examples: Sequence[Example],
    injection: Injection | Mixture,
    lead: int,
    layers: LayerRange,
    *,
    pack: bool,
) -> Tensor:
    """Run examples and return the last hidden states at their targets: (N, width).

    ``lead`` tokens that all examples begin with are run once where rows are packed, which
    ``pack`` says is exact for this model.
    """
    if network.has_two_stacks:
        mixture = Mixture.of(injection, len(examples))
        return encoder_decoder.states(network, examples, mixture, layers=layers)
    laid, read = _run(network, examples, injection, lead, layers, pack)
    return states_at(network, laid, read)


def one_by_one(
    network: Network, examples: Sequence[Example], injection: Injection | Mixture
) -> Tensor:
    """Run each branch of each example in a pass of its own, as :func:`states` runs all of them.

    For models whose rows see what stands beside them.
    """
    mixture = Mixture.of(injection, len(examples))
    found: list[Tensor] = []
    for number, example in enumerate(examples):
        own = mixture.of_rows([number])
        by_target: dict[tuple[int, int], Tensor] = {}
        for b, branch in enumerate(example.branches):
            targets = [target for target in example.targets if target[0] == b]
            if targets:
                alone = replace(
                    example, branches=(branch,), targets=tuple((0, j) for _, j in targets)
                )
                read = states(network, [alone], own, 0, WHOLE, pack=False)
                by_target |= zip(targets, read, strict=True)
        found += [by_target[target] for target in example.targets]
    return torch.stack(found)


def lower_states(
    network: Network,
    examples: Sequence[Example],
    injection: Injection,
    lead: int,
    layers: LayerRange,
    *,
    pack: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run ``layers``, those up to before its last, and return what enters that, on the CPU.

    The states of the first ``lead`` tokens, (lead, width), which all examples share; and of each
    example's other tokens, (tokens, width). Where the lead cannot be run apart it is empty, and
    each example has its own. The layers are those of the network's stack.
    """
    if network.has_two_stacks:
        mixture = Mixture.of(injection, len(examples))
        ids = [example.ids for example in examples]
        context, _ = network.pass_context(mixture)
        found, _ = encoder_decoder.encode(network, ids, mixture, context, layers)
        each = [states[: len(row)].cpu() for states, row in zip(found, ids, strict=True)]
        return found[0, :0].cpu(), each
    laid, read = _run(network, examples, injection, lead, layers, pack)
    rows = [torch.cat([read.of(line) for line in own]).cpu() for own in laid.owned]
    return read.hidden[: read.lead].cpu(), rows


def keys_and_values(
    network: Network, ids: Sequence[int], injection: Injection, layers: LayerRange = WHOLE
) -> dict[str, KV]:
    """Return what every attention site holds after reading ``ids`` under ``injection``.

    Encoder-decoders read the ids in both stacks. The keys of prefixes that ``injection`` brings
    are not among the result, nor those of sites below ``layers``. Keeps the graph where gradients
    are on.
    """
    found: dict[str, KV] = {}
    names = {site.module: name for name, site in network.sites.items()}

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> None:
        found[names[module]] = KV(key[0], value[0])

    mixture = Mixture((injection,), (0,))
    if network.has_two_stacks:
        reading = Example(tuple(ids), len(ids), (tuple(ids[1:]),), ())
        encoder_decoder.states(network, [reading], mixture, record, ids[0])
    else:
        single_stack.run_padded(network, [Line(tuple(ids))], mixture, layers, record)
    return found


def prefill(network: Network, injection: Injection, lead: Sequence[int]) -> Injection:
    """Return an injection with its leading virtual tokens and ``lead`` as keys and values."""
    ids = [*virtual(network, injection.leading), *lead]
    if not ids:
        return injection
    read = keys_and_values(network, ids, replace(injection, leading=0))
    kv = in_turn(injection.kv, read)
    return replace(injection, leading=0, kv=kv, positions=injection.positions + len(ids))


def _run(
    network: Network,
    examples: Sequence[Example],
    injection: Injection | Mixture,
    lead: int,
    layers: LayerRange,
    pack: bool,
) -> tuple[Batch, single_stack.Read]:
    """Lay examples out and run them through a model of one stack."""
    mixture = Mixture.of(injection, len(examples))
    lengths = (
        e.length + mixture.parts[r].leading for e, r in zip(examples, mixture.rows, strict=True)
    )
    pack = pack and network.fits_window(max(lengths))
    shared = examples[0].ids[:lead] if pack else ()
    laid = batch([example.after(len(shared)) for example in examples], tree=pack)
    mixture = replace(mixture, rows=[mixture.rows[owner] for owner in laid.owners])
    if layers.given:
        rows = zip(layers.given[1:], laid.owned, strict=True)
        parts = [torch.split(r, [len(laid.lines[n].tokens) for n in own]) for r, own in rows]
        given = layers.given[0], *itertools.chain.from_iterable(parts)
        layers = replace(layers, given=given)
    if pack:
        return laid, single_stack.run_packed(network, laid.lines, mixture, shared, layers)
    return laid, single_stack.run_padded(network, laid.lines, mixture, layers)
