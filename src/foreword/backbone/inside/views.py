"""Views: copies of a model that share its weights, and differ in some of their modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from types import new_class
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import MoEModelOutput
from transformers.utils.generic import ModelOutput

from foreword.backbone.attention.interface import PassContext

T = TypeVar("T")
Kind = TypeVar("Kind", bound=nn.Module)


class of_unchanged(cached_property[T]):  # noqa: N801 - it is a decorator
    """A cached property of a frozen model, shared by all views that change it.

    Such a view has the frozen one as its ``unchanged``, which of the frozen one itself is None.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        frozen = None if instance is None else instance.unchanged or instance
        return super().__get__(frozen, owner)


def with_modules(module: Kind, modules: Mapping[str, nn.Module | None]) -> Kind:
    """Return a shallow copy of a module, with ``modules`` in place of its children."""
    view = copy.copy(module)
    view._modules = dict(modules)
    return view


def frozen_view(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in evaluation mode, over the same weights, which ask for no gradient.

    The modules and the configuration are copies, so that ``model`` itself stays as it is.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        frozen = nn.Parameter(weight.detach(), requires_grad=False)
        shared[id(weight)] = frozen if weight.requires_grad else weight
    view = copy.deepcopy(model, shared)
    view.train(False)
    return view


class StandIn(nn.Module):
    """Stands for the module ``within`` it, and shows its attributes to who looks."""

    def __init__(self, within: nn.Module) -> None:
        super().__init__()
        self.within = within

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.within, name)


class Given(nn.Module):
    """Stands for a module and for each of its parts, and answers with what is already known."""

    def __init__(self, instead_of: nn.Module, output: ModelOutput) -> None:
        super().__init__()
        self.output = output
        object.__setattr__(self, "_base", instead_of)  # no child: what it holds is not run

    def __getattr__(self, name: str) -> Any:
        """Return itself for a part, and a number that the head reads off the base model as it is.

        It does not hold itself: what goes in circles stays until garbage is collected.
        """
        if name == "_base":
            raise AttributeError(name)
        return self if name in self._base._modules else getattr(self._base, name)

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """Return the answer, whatever is asked."""
        return self.output


def head(
    model: PreTrainedModel,
    states: Tensor,
    output: type[ModelOutput],
    narrow: nn.Linear | None = None,
) -> Tensor:
    """Run only what ``model`` does after its last layer: (N, width) -> logits (N, vocabulary).

    The model's own code runs, with its scaling, soft caps and biases, over a stand-in for the
    base model (for the decoder, where the two stacks have no common base). ``output`` is the
    class in which that base model answers. ``narrow`` takes the place of the output embeddings.
    """
    hidden = states[None]  # (1, N, width)
    base = model.base_model
    if base is not model:
        name = model.base_model_prefix
    elif model.config.is_encoder_decoder:
        base = cast(nn.Module, model.get_decoder())  # type: ignore[no-untyped-call]
        name = next(n for n, module in model.named_children() if module is base)
    else:
        raise NotImplementedError(f"{type(model).__name__} has no base model below its head")
    modules: dict[str, nn.Module | None] = {
        **model._modules,
        name: Given(base, output(last_hidden_state=hidden)),
    }
    if narrow is not None:
        modules[held_by(model, output_embeddings(model))] = narrow
    view = with_modules(model, modules)
    if model.config.is_encoder_decoder:
        encoded = MoEModelOutput(last_hidden_state=hidden)
        answer = view(encoder_outputs=encoded, decoder_inputs_embeds=hidden)
    else:
        answer = view(inputs_embeds=hidden)
    logits: Tensor = answer.logits[0]
    return logits


def output_embeddings(model: PreTrainedModel) -> nn.Module | None:
    """Return the module that makes scores of states, None where the model has none."""
    found: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return found


def held_by(model: nn.Module, module: nn.Module | None) -> str:
    """Return the name under which ``model`` itself holds a module; empty where it does not."""
    return next((name for name, child in model.named_children() if child is module), "")


def generating_view(
    model: PreTrainedModel,
    context: PassContext | None,
    start: Tensor | None = None,
    read: Callable[[Tensor], Mapping[str, Tensor]] | None = None,
) -> PreTrainedModel:
    """Return a view of ``model`` whose ``generate`` runs under an injection.

    Its forward passes ``context`` on, counts positions from ``start`` (B, 1), that of each row's
    first token, and is given ids as what ``read`` makes of them. ``generate`` refuses unknown
    keywords, and models override parts of it; so the view is of a subclass of the model's class.
    Its ``generation_config`` is bare, so that nothing of the model's own is taken.
    """
    kind = type(model)

    @wraps(kind.forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if context is not None:
            kwargs["foreword"] = context
        if start is not None and kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"] + start
        if read is not None:
            kwargs |= read(kwargs.pop("input_ids"))
        return kind.forward(self, *args, **kwargs)

    generating = new_class(
        f"Generating{kind.__name__}", (kind,), {}, lambda body: body.update(forward=forward)
    )
    view: PreTrainedModel = object.__new__(generating)
    view.__dict__ = {**model.__dict__, "generation_config": GenerationConfig()}  # type: ignore[no-untyped-call]
    return view
