"""Where a model attends: found by running it once on a few tokens, never by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from foreword.backbone.attention.interface import PassContext, probing
from foreword.backbone.inside.agreement import EXACT, agree
from foreword.backbone.inside.hooks import own_passes
from foreword.injection import KV

COARSE = 0.2
"""How far outputs of a module in a half type may be apart; Qwen2.5's are by 0.026, by rounding."""

Role = Literal["self", "encoder", "cross"]
PastWindow = Literal["hidden", "seen"]
"""Whether layers of a sliding window leave out what lies past it at the beginning of a row."""


@dataclass(frozen=True, eq=False)
class Site:
    """One attention module that keys and values can be given to.

    ``role`` is "self" in a model of one stack and in a decoder, "encoder" in the encoder of an
    encoder-decoder, "cross" where a decoder reads the encoder. ``layer`` counts from 0 within a
    role. ``window`` is the reach of sliding-window attention in tokens, or the size of a chunk,
    None where it is full; it is what the module, or else its mask, was made for.
    A ``recurrent`` layer asks for no keys, and goes on from the last position before its tokens.
    """

    name: str
    module: nn.Module
    role: Role
    layer: int
    heads: int  # key-value heads H
    key_width: int  # D
    value_width: int  # D'
    window: int | None
    recurrent: bool

    def kept(self, kv: KV, *, past_window: PastWindow = "hidden") -> KV:
        """Return the positions of a prefix that count here: all, or the last ones alone.

        Where ``past_window`` is "hidden", those that the window hides from a row's first token, as
        it hides text, are left out.
        """
        length, last = kv.keys.shape[1], kv.keys.shape[1]
        if self.recurrent:
            last = 1
        elif self.window is not None and past_window == "hidden":
            last = max(1, self.window - 1)  # beside the token itself
        return kv if last >= length else KV(kv.keys[:, -last:], kv.values[:, -last:])


def find_sites(model: PreTrainedModel) -> tuple[Mapping[str, Site], str]:
    """Set ``model`` to the one attention function; list the modules that call it, and why none do.

    A model whose attention does not go through transformers' interface has none, and so has one
    that cannot be run so, or not with the same result as by its own code; it keeps its own
    attention. On the meta device what it raises is raised.
    A module that is called more than once in a pass (ALBERT shares one among all its layers)
    is one site. Encoder (4 tokens), decoder (2 tokens) and cross attention (2 queries, 4 keys)
    are told apart by the lengths that arrive.
    """
    if not model._can_set_attn_implementation():
        return {}, "its attention does not go through transformers' attention interface"
    own = model.config._attn_implementation
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, Site] = {}
    two_stacks = bool(model.config.is_encoder_decoder)

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> None:
        name = names[module]
        if name in found:
            return
        role: Role = "self"
        if two_stacks and query.shape[2] == 4:
            role = "encoder"
        elif two_stacks and key.shape[2] == 4:
            role = "cross"
        layer = sum(site.role == role for site in found.values())
        sizes = key.shape[1], key.shape[3], value.shape[3]
        found[name] = Site(name, module, role, layer, *sizes, window, query.shape[3] == 0)

    inputs = {"input_ids": torch.arange(3, 7, device=model.device)[None]}
    if two_stacks:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :2]
    try:
        with torch.no_grad(), probing(model):
            states = _states(model(**inputs, foreword=PassContext(record=record)))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: the model's code is another's
        if model.device.type == "meta":
            raise
        model.set_attn_implementation(own or "eager")
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return {}, f"its attention cannot be run through transformers' interface ({why})"
    if found and not states.is_meta:
        first = next(iter(found.values())).module
        if not _as_by_its_own_code(model, inputs, first, states):
            model.set_attn_implementation(own or "eager")
            return {}, "its own attention does more than transformers' interface says"
    return found, "it has no attention that is reached"


@torch.no_grad()
def _as_by_its_own_code(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], first: nn.Module, states: Tensor
) -> bool:
    """Tell whether a model's own attention, where it has one, comes to the same states.

    Half types round so much that the last states of a deep model can be anything; there the
    outputs of the first module that attends are compared, as far as they tell.
    """
    exact, set_to = states.dtype in EXACT, model.config._attn_implementation
    found = states if exact else _output(model, inputs, first)
    try:
        model.set_attn_implementation("eager")
        if exact:
            return agree(_states(model(**inputs)), found)
        own = _output(model, inputs, first)
        return bool((own - found).abs().max() <= COARSE * own.abs().max())
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of any kind: the model's code is another's
        return True
    finally:
        model.set_attn_implementation(set_to)


def _output(model: PreTrainedModel, inputs: Mapping[str, Tensor], module: nn.Module) -> Tensor:
    """Run a model and return what one of its modules makes of a row: (T, N)."""
    seen: list[Tensor] = []

    def see(module: object, given: object, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handle = module.register_forward_hook(own_passes(see))
    try:
        model(**inputs)
    finally:
        handle.remove()
    return seen[0].flatten(0, -2)


def _states(answer: ModelOutput) -> Tensor:
    """Return the scores of a row's tokens, or the states of a model without any: (T, N)."""
    scores = cast(Tensor, answer["logits" if "logits" in answer else "last_hidden_state"])
    return scores.flatten(0, -2)
