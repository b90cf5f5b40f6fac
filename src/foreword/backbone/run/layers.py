"""A stack of layers, run whole or in part.

The list of layers is found by where the model attends, never by the model's name. A part is run
by a view of the model in which the layers that are left out return their input; embeddings,
positions, masks and the final norm run as they are.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as SIZES

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.inside.attention_sites import Site
from foreword.backbone.inside.views import StandIn, with_modules


@dataclass(frozen=True, eq=False)
class LayerRange:
    """Which layers run: from ``first``, on the states ``given`` to it, up to before ``last``.

    ``given`` holds the states that enter layer ``first``: those of the lead, then of each line,
    (tokens, width) each. None of them, and 0, is the beginning; ``last`` None is the end. The
    number of all layers stands for what follows the last of them, a norm at most.
    """

    first: int = 0
    given: tuple[Tensor, ...] = ()
    last: int | None = None


WHOLE = LayerRange()


class Stack:
    """The layers of a model, or of its encoder, and where the list of them stands.

    ``sites`` are the names of their attention sites, in order.
    """

    def __init__(self, base: nn.Module, path: str, sites: Iterable[str]) -> None:
        self.base = base
        self.path = path
        self.sites = tuple(sites)
        self.layers = list(base.get_submodule(path).children())
        self.compiled: Callable[..., Any] | None = None

    @staticmethod
    def find(base: nn.Module, sites: Mapping[str, Site]) -> Stack | None:
        """Find the list whose every member holds one attention site; None where there is none."""
        names = {module: name for name, module in base.named_modules()}
        places = [names.get(site.module, "").split(".") for site in sites.values()]
        if not places:
            return None
        for depth, part in enumerate(places[0]):
            path = ".".join(places[0][:depth])
            if part.isdigit() and isinstance(base.get_submodule(path), nn.ModuleList):
                size = len(list(base.get_submodule(path).children()))
                members = [p[depth] for p in places if p[:depth] == places[0][:depth]]
                if members == [str(n) for n in range(size)] and size == len(sites):
                    return Stack(base, path, sites)
        return None

    def passes(self, run: Callable[[], object]) -> bool:
        """Tell whether a layer hands states alone to the next; ``run`` runs them all.

        Some hand on what the first has made for all (T5's position biases), and cannot be parted.
        """
        kinds: list[type] = []
        handle = self.layers[0].register_forward_hook(lambda *seen: kinds.append(type(seen[2])))
        try:
            run()
        finally:
            handle.remove()
        return set(kinds) == {Tensor}

    def compile(self, on: bool) -> None:
        """Compile the layers' body when it first runs, once for all of them and every length."""
        if on and self.compiled is None:
            self.compiled = torch.compile(_body, dynamic=True)
        elif not on:
            self.compiled = None

    def run(self, inputs: Mapping[str, Any], layers: LayerRange, states: Tensor | None) -> Tensor:
        """Run what ``layers`` says; ``states`` (B, T, width) enter its first layer.

        Returns the last hidden states, or those that enter layer ``layers.last``.
        """
        if layers.first == 0 and layers.last is None and self._body is None:
            whole: Tensor = self.base(**inputs).last_hidden_state
            return whole
        kept: list[Tensor] = []
        run = [self._layer(n, layers, states, kept) for n in range(len(self.layers))]
        view = _with_layers(self.base, self.path.split("."), run)
        found: Tensor = view(**inputs).last_hidden_state
        return found if layers.last is None else kept[0]

    @property
    def _body(self) -> Callable[..., Any] | None:
        """What runs a layer compiled; None where there are no gradients, and little to gain."""
        return self.compiled if torch.is_grad_enabled() else None

    def _layer(
        self, number: int, layers: LayerRange, states: Tensor | None, kept: list[Tensor]
    ) -> nn.Module:
        """Return what stands in the place of a layer while ``layers`` are run."""
        layer = self.layers[number]
        if number == layers.first - 1:
            assert states is not None
            return _Stored(layer, states)
        if number == layers.last:
            return _KeepsInput(layer, kept)
        if number + 1 == layers.last == len(self.layers):
            return _KeepsOutput(layer, kept)
        if number < layers.first or (layers.last is not None and number > layers.last):
            return _Skipped(layer)
        return layer if self._body is None else _Compiled(layer, self._body)


class _Skipped(StandIn):
    """Returns its input."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states


class _Stored(StandIn):
    """Returns stored states, which enter the next layer."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__(layer)
        self.states = states

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.states


class _KeepsInput(StandIn):
    """Keeps the states that enter it, and returns them."""

    def __init__(self, layer: nn.Module, kept: list[Tensor]) -> None:
        super().__init__(layer)
        self.kept = kept

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.kept.append(hidden_states)
        return hidden_states


class _KeepsOutput(_KeepsInput):
    """Runs the last layer and keeps its output."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.within(hidden_states, *args, **kwargs)
        self.kept.append(output[0] if isinstance(output, tuple) else output)
        return output


class _Compiled(StandIn):
    """Hands a layer its own prefix as tensors, so that one compiled body serves all layers."""

    def __init__(self, layer: nn.Module, body: Callable[..., Any]) -> None:
        super().__init__(layer)
        self.body = body

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        context: PassContext | None = kwargs.get("foreword")
        if context is not None and isinstance(context.kv, Mapping):
            own = [context.kv[m] for m in self.within.modules() if m in context.kv]
            kwargs["foreword"] = replace(context, kv=own[0] if own else None)
        # A graph of its own is not worth it for the lowest layer, nor for rows of several prefixes,
        # which attend block by block: each shape of a block would be compiled anew.
        several = context is not None and context.rows is not None
        if several or not hidden_states.requires_grad:
            return self.within(hidden_states, *args, **kwargs)
        # Sizes that happen to be equal need not stay so.
        with SIZES.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            return self.body(self.within, hidden_states, *args, **kwargs)


def _body(layer: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    return layer(hidden_states, *args, **kwargs)


def no_compiler(device: torch.device) -> str | None:
    """Tell what torch.compile lacks on this machine; None where nothing is missing."""
    if device.type != "cpu":
        return None if device.type == "cuda" else f"nothing is compiled for {device.type}"
    from torch._inductor.cpp_builder import get_cpp_compiler  # late: it takes a second
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler"
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return None if headers.exists() else f"the headers of Python are missing ({headers})"


def _with_layers(base: nn.Module, path: list[str], layers: Sequence[nn.Module]) -> nn.Module:
    """Return a view of ``base`` whose list at ``path`` holds ``layers``."""
    if not path:
        return with_modules(base, {str(number): layer for number, layer in enumerate(layers)})
    inner = _with_layers(base.get_submodule(path[0]), path[1:], layers)
    return with_modules(base, {**base._modules, path[0]: inner})
