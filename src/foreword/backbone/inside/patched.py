"""Patched models: the same modules, some of them with patches or with other weights.

A patched model is a view. Modules that nothing changes are shared with the frozen model, those on
the way to a change are shallow copies, and what is patched stands in a module that adds to it.
Nothing of the frozen model is written to, and any number of patched models stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.inside.views import StandIn, with_modules
from foreword.errors import UserError
from foreword.injection import Activation, Injection, Patch

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def patch_model(model: PreTrainedModel, injection: Injection) -> PreTrainedModel:
    """Return ``model`` under an injection's patches and weights, differentiable by both.

    Raises UserError for a module or a parameter that the model does not have.
    """
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    reads = {p.reads for own in injection.patches.values() for p in own if p.reads is not None}
    places = (*injection.patches, *sorted(reads - injection.patches.keys()))
    _check("module", places, modules)
    _check("parameter", injection.weights, parameters)
    change = _Change(
        {id(modules[name]): name for name in places},
        injection.patches,
        {id(parameters[name]): tensor for name, tensor in injection.weights.items()},
        reads,
    )
    found: PreTrainedModel = change.apply(model)  # type: ignore[assignment]
    return found


@dataclass(frozen=True, eq=False)
class _Change:
    """What changes in a model: modules and parameters are known by their ``id``.

    ``reads`` are the names of modules whose inputs patches read, and ``inputs`` holds these while
    the model runs.
    """

    named: Mapping[int, str]
    patches: Mapping[str, tuple[Patch, ...]]
    weights: Mapping[int, Tensor]
    reads: Container[str]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    made: dict[int, nn.Module] = field(default_factory=dict)

    def apply(self, module: nn.Module) -> nn.Module:
        """Return the module with what changes below it; itself where nothing does."""
        if id(module) in self.made:
            return self.made[id(module)]
        children = {n: None if c is None else self.apply(c) for n, c in module._modules.items()}
        own = {n: _instead(p, self.weights) for n, p in module._parameters.items()}
        result = module
        changed = any(children[n] is not c for n, c in module._modules.items())
        if changed or any(own[n] is not p for n, p in module._parameters.items()):
            result = with_modules(module, children)
            result._parameters = own  # type: ignore[assignment]
        if id(module) in self.named:
            name = self.named[id(module)]
            shown = name if name in self.reads else None
            result = _Patched(result, self.patches.get(name, ()), self.inputs, shown)
        self.made[id(module)] = result
        return result


def _check(kind: str, names: Iterable[str], known: Container[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"the model has no {kind} '{name}'; the prompt was made for another model"
            )


def _instead(parameter: Tensor | None, weights: Mapping[int, Tensor]) -> Tensor | None:
    if parameter is None or id(parameter) not in weights:
        return parameter
    return weights[id(parameter)].to(parameter.device, parameter.dtype)


class _Patched(StandIn):
    """Adds patches to a module's input and output, in turn, and shows its input to others.

    What others read in ``inputs``, under the name ``shown``, is the input as it arrives, before
    patches are added to it.
    """

    def __init__(
        self,
        within: nn.Module,
        patches: tuple[Patch, ...],
        inputs: dict[str, Tensor],
        shown: str | None,
    ) -> None:
        super().__init__(within)
        self.shown = shown
        self.before = [patch for patch in patches if patch.adds_to == "input"]
        self.after = [patch for patch in patches if patch.adds_to == "output"]
        self.inputs = inputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        first = None if args else next(iter(kwargs))
        given: Tensor = args[0] if first is None else kwargs[first]
        if self.shown is not None:
            self.inputs[self.shown] = given
        if self.before:
            given = self._sum(given, self.before)
            if first is None:
                args = (given, *args[1:])
            else:
                kwargs = {**kwargs, first: given}
        found = self.within(*args, **kwargs)
        output: Tensor = found[0] if isinstance(found, tuple) else found
        output = self._sum(output, self.after)
        return (output, *found[1:]) if isinstance(found, tuple) else output

    def _sum(self, states: Tensor, patches: list[Patch]) -> Tensor:
        for patch in patches:
            read = states if patch.reads is None else self.inputs[patch.reads]
            states = states + delta(patch, read).view(states.shape)
        return states


def delta(patch: Patch, x: Tensor) -> Tensor:
    """Return what a patch adds: (..., in) -> (..., out), computed in the type of x."""
    own = {name: tensor.to(x.device, x.dtype) for name, tensor in patch.parts().items()}
    activation = ACTIVATIONS[patch.activation]
    if "down" in own:
        inner = activation(F.linear(x, own["down"], own.get("down_bias")))
        made = F.linear(inner, own["up"], own.get("up_bias"))
    else:
        made = activation(x) * own["up"] + own.get("up_bias", 0)
    if "gate" in own:
        gate = own["gate"]
        made = made * torch.sigmoid(x @ gate[:-1] + gate[-1])[..., None]
    return made
