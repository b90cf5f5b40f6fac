"""A row's scores by a plain model, one branch at a time, whatever was done to that model."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from families import ENCODERS, REACHED, UNREACHED, WINDOWED, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.injection import NOTHING, Injection, Patch
from plain import twin

FAMILIES: dict[str, Family] = {f.name: f for f in [*REACHED, *UNREACHED, *ENCODERS]} | {
    f"{f.name}-window": f for f in WINDOWED
}
FEW = ("llama", "gpt2", "bert", "albert", "t5", "mistral-window", "bloom", "qwen3_moe")
"""One family of every kind."""


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():
        if parameter.dim() > 1:  # as initialized, some hardly heed what stands before a row
            parameter.data.mul_(3)
    return made


@cache
def in_double(base: Backbone) -> Backbone:
    """The same model in float64, where two ways to one number do not part by rounding."""
    model = deepcopy(base.model).double()
    return Backbone(
        model,
        base.text.tokenizer,
        architecture=base.architecture,
        name=base.name,
        pooling=base.pooling,
    )


def pooled(base: Backbone, states: Tensor) -> Tensor:
    """What an encoder gives for a row, of the states of its own tokens: (T, width) -> (width,)."""
    assert base.pooling is not None
    count = len(states)
    found = {"mean": states.sum(0) / count, "cls": states[0], "last": states[-1]}
    heavier = sum(n * state for n, state in enumerate(states, 1))
    found["weightedmean"] = torch.as_tensor(heavier / (count * (count + 1) / 2))
    made = found[str(base.pooling.mode)]
    return made / made.square().sum().sqrt() if base.pooling.normalize else made


def scores(
    base: Backbone, model: PreTrainedModel, example: Example, injection: Injection = NOTHING
) -> Tensor:
    """Logits at the targets (N, vocabulary); a prefix of a causal model stands in its cache."""
    found = []
    for b, j in example.targets:
        branch = list(example.branches[b])
        if base.architecture == "encoder-decoder":
            said = torch.tensor([[model.config.decoder_start_token_id, *branch]])
            out = model(input_ids=torch.tensor([example.ids]), decoder_input_ids=said)
            found.append(out.logits[0, 1 + j])
            continue
        ids = torch.tensor([[*example.ids[: example.slot], *branch, *example.ids[example.slot :]]])
        read = {}
        if injection.kv:
            kept = DynamicCache()
            for name, kv in injection.kv.items():
                kept.update(kv.keys[None], kv.values[None], base.sites[name].layer)
            positions = torch.arange(ids.shape[1])[None] + injection.positions
            read = {"past_key_values": kept, "position_ids": positions}
        out = model(input_ids=ids, **read)
        if base.architecture == "encoder":
            found.append(pooled(base, out.last_hidden_state[0]))
        else:
            found.append(out.logits[0, example.slot + j])
    return torch.stack(found)


def embeddings_in_front(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Write the virtual tokens' embeddings before the row's, and run one branch at a time."""
    assert injection.embeds is not None
    model, lead = twin(base), injection.embeds
    found = []
    for b, j in example.targets:
        branch = list(example.branches[b])
        ids = [*example.ids[: example.slot], *branch, *example.ids[example.slot :]]
        if base.architecture == "encoder-decoder":
            ids = list(example.ids)
        row = torch.cat([lead, model.get_input_embeddings()(torch.tensor(ids))])[None]
        if base.architecture == "encoder-decoder":
            said = torch.tensor([[model.config.decoder_start_token_id, *branch]])
            found.append(model(inputs_embeds=row, decoder_input_ids=said).logits[0, 1 + j])
        elif base.architecture == "encoder":
            own = model(inputs_embeds=row).last_hidden_state[0, len(lead) :]
            found.append(pooled(base, own))
        else:
            at = len(lead) + example.slot + j
            found.append(model(inputs_embeds=row).logits[0, at])
    return torch.stack(found)


# Any injection, on a plain model ------------------------------------------------------------------

FUNCTIONS = {"identity": lambda x: x, "relu": F.relu, "gelu": F.gelu, "silu": F.silu} | {
    "tanh": torch.tanh
}


def patch_by_hooks(model: PreTrainedModel, patches: Mapping[str, tuple[Patch, ...]]) -> None:
    """Add to the input or the output of each module what its patches say."""
    read = {}

    def keep(module: nn.Module, args: Any) -> None:
        read[module] = args[0]

    def added(patch: Patch, states: Tensor) -> Tensor:
        x = states if patch.reads is None else read[model.get_submodule(patch.reads)]
        inner = x if patch.down is None else x @ patch.down.T
        inner = inner if patch.down_bias is None else inner + patch.down_bias
        inner = FUNCTIONS[patch.activation](inner)
        more = inner * patch.up if patch.down is None else inner @ patch.up.T
        more = more if patch.up_bias is None else more + patch.up_bias
        if patch.gate is not None:
            gate = (x * patch.gate[:-1]).sum(-1, keepdim=True) + patch.gate[-1]
            more = more / (1 + torch.exp(-gate))
        return states + more.reshape(states.shape)

    for name, own in patches.items():

        def before(module: nn.Module, args: Any, own: Any = own) -> Any:
            states = args[0]
            for patch in own:
                states = added(patch, states) if patch.adds_to == "input" else states
            return (states, *args[1:])

        def after(module: nn.Module, args: Any, output: Any, own: Any = own) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            for patch in own:
                states = added(patch, states) if patch.adds_to == "output" else states
            return (states, *output[1:]) if isinstance(output, tuple) else states

        for patch in own:
            if patch.reads is not None:
                model.get_submodule(patch.reads).register_forward_pre_hook(keep)
        model.get_submodule(name).register_forward_pre_hook(before)
        model.get_submodule(name).register_forward_hook(after)


def last_state(base: Backbone, model: PreTrainedModel, example: Example) -> Tensor:
    """The last hidden state at the place of the answer: (width,)."""
    head, tail = example.ids[: example.slot], example.ids[example.slot :]
    hole = example.branches[0] if base.architecture == "masked" else ()
    ids = torch.tensor([[*head, *hole, *tail]])
    if base.architecture != "encoder-decoder":
        states = model.base_model(ids).last_hidden_state[0]
        if base.architecture == "encoder":
            return pooled(base, states)
        return states[example.slot - (base.architecture == "causal")]
    start = torch.tensor([[model.config.decoder_start_token_id]])
    out = model(input_ids=ids, decoder_input_ids=start, output_hidden_states=True)
    return out.decoder_hidden_states[-1][0, 0]


def by_hand(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """The scores of a plain model that an injection is applied to by hand, part after part.

    A prefix can be written into the cache of a causal model alone.
    """
    model = twin(base)
    for name, tensor in injection.weights.items():
        model.get_parameter(name).data.copy_(tensor)
    patch_by_hooks(model, injection.patches)
    if injection.head is not None:
        assert injection.head.scale is None
        weight, bias = injection.head.weight, injection.head.bias
        return (weight @ last_state(base, model, example) + bias)[None]
    if injection.embeds is not None:
        return embeddings_in_front(base, injection, example)
    return scores(base, model, example, injection)
