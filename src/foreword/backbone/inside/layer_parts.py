"""Finds the attention and feed-forward parts of layers by a run on a few tokens, not by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.inside.attention_sites import Site
from foreword.backbone.inside.hooks import own_passes
from foreword.errors import UserError

Part = Literal["attention", "feed-forward"]


@dataclass(frozen=True)
class LayerPart:
    """The attention or the feed-forward part of a layer, at whose end a patch may be put.

    ``module`` is the name of the part's last module, ``entry`` of its first linear layer. For
    attention both are the output projection; for a mixture of experts both are the whole mixture.
    ``inputs`` is the size of what ``entry`` takes, and ``width`` of what ``module`` returns.
    """

    part: Part
    module: str
    width: int
    entry: str
    inputs: int


@dataclass(frozen=True, eq=False)
class _Call:
    """A module's first call: when it began and ended, its input and its output."""

    name: str
    module: nn.Module
    began: int
    ended: int
    input: Tensor
    output: Tensor

    @property
    def linear(self) -> bool:
        return isinstance(self.module, nn.Linear | Conv1D)


def find_layer_parts(model: PreTrainedModel, sites: Mapping[str, Site]) -> tuple[LayerPart, ...]:
    """List the parts of all layers, in the order in which they run.

    Attention ends with the first linear layer after the attention function. In a model without
    attention sites it ends with the first linear layer whose input at one token depends on
    another token. The feed-forward part is what a layer runs after its last attention, from the
    first linear layer to the last one whose output has the layer's width.

    Raises UserError for a model whose layers do not stand in a list or have no such parts.
    """
    calls, attended = _record_calls(model, sites)
    layers = _layers(model, sites)
    mixing = None if sites else _mixing(calls, layers[0])
    found: list[LayerPart] = []
    for layer in layers:
        own = [r for r in calls if r.name.startswith(f"{layer}.")]
        linears = [r for r in own if r.linear]
        if sites:
            times = [time for site, time in attended.items() if site.startswith(f"{layer}.")]
            ends = [next((r for r in linears if r.began > time), None) for time in times]
        else:
            ends = [next((r for r in linears if r.name == f"{layer}{mixing}"), None)]
        attention = [end for end in ends if end is not None]
        whole = next((r for r in calls if r.name == layer), None)
        if whole is None or not ends or len(attention) < len(ends):
            raise _no_parts(model)
        found += [_part("attention", end, end) for end in attention]
        after = [r for r in own if r.began > attention[-1].ended]
        found.append(_part("feed-forward", *_feed_forward(model, after, whole)))
    return tuple(found)


def _part(part: Part, first: _Call, last: _Call) -> LayerPart:
    return LayerPart(part, last.name, last.output.shape[-1], first.name, first.input.shape[-1])


def _mixing(calls: Sequence[_Call], layer: str) -> str | None:
    """Return the name, within a layer, of the first linear layer whose input mixes tokens."""
    own = (r for r in calls if r.linear and r.name.startswith(f"{layer}."))
    return next((r.name.removeprefix(layer) for r in own if _is_mixed(r.input)), None)


def _feed_forward(
    model: PreTrainedModel, after: Sequence[_Call], layer: _Call
) -> tuple[_Call, _Call]:
    """Return the first and the last module of what a layer runs after its attention."""
    width = layer.output.shape[-1]
    wide = [r for r in after if r.output.shape[-1] == width]
    if any(p.dim() > 2 for r in after for p in r.module.parameters(recurse=False)):  # of experts
        whole = [r for r in wide if any(p.dim() > 1 for p in r.module.parameters())]
        if whole:
            return whole[0], whole[0]
    linears = [r for r in after if r.linear]
    last = [r for r in wide if r.linear]
    if not last:
        raise _no_parts(model)
    return linears[0], last[-1]


def _layers(model: PreTrainedModel, sites: Mapping[str, Site]) -> list[str]:
    """Return the names of the layers: members of the lists in which the model attends."""
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    found: dict[str, None] = {}
    for site in sites:
        parts = site.split(".")
        paths = (".".join(parts[:depth]) for depth in range(1, len(parts)))
        outer = next((path for path in paths if path in lists), None)
        if outer is None:
            raise _no_parts(model)
        found[f"{outer}.{parts[outer.count('.') + 1]}"] = None
    if not sites:  # the longest list of layers of one kind
        alike = [n for n, own in lists.items() if len({type(m) for m in own}) == 1]
        if not alike:
            raise _no_parts(model)
        longest = max(alike, key=lambda name: len(lists[name]))
        found = {f"{longest}.{number}": None for number in range(len(lists[longest]))}
    return list(found)


def _record_calls(
    model: PreTrainedModel, sites: Mapping[str, Site]
) -> tuple[list[_Call], dict[str, int]]:
    """Run two rows that differ in their first token, and record when modules are called.

    Returns the calls in the order in which they began, and the time of each site's attention.
    Of a module that is called more than once (ALBERT's shared layer) the first call counts.
    """
    names = {module: name for name, module in model.named_modules()}
    clock = count()
    began: dict[str, tuple[int, Tensor]] = {}
    calls: dict[str, _Call] = {}
    attended: dict[str, int] = {}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if given is not None:
            began.setdefault(names[module], (next(clock), given))

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name = names[module]
        made = output[0] if isinstance(output, tuple) else output
        if name in began and name not in calls and isinstance(made, Tensor):
            calls[name] = _Call(name, module, began[name][0], next(clock), began[name][1], made)

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> None:
        attended.setdefault(names[module], next(clock))

    ids = torch.tensor([[3, 4, 5, 6], [7, 4, 5, 6]], device=model.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :2]
    if sites:
        inputs["foreword"] = PassContext(record=record)
    hooks = list(_hooks(model, begin, end))
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(calls.values(), key=lambda r: r.began), attended


def _hooks(model: nn.Module, begin: Callable[..., Any], end: Callable[..., Any]) -> Iterator[Any]:
    for module in model.modules():
        yield module.register_forward_pre_hook(own_passes(begin), with_kwargs=True)
        yield module.register_forward_hook(own_passes(end))


def _is_mixed(given: Tensor) -> bool:
    """Whether the last token's states depend on the first token, in which the two rows differ."""
    return given.dim() == 3 and len(given) == 2 and not torch.equal(given[0, -1], given[1, -1])


def _no_parts(model: PreTrainedModel) -> UserError:
    return UserError(
        f"{type(model).__name__} cannot take an adapter: its layers do not stand in a list, or "
        "have no attention and feed-forward part; `method=soft` works on it"
    )
