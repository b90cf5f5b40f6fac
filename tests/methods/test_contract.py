"""Soft prompts and prefixes keep the contract on every family of the table."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

import contract
from families import REACHED, UNREACHED, WINDOWED, Family, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from oracles import embeddings_in_front
from plain import twin

FAMILIES: dict[str, Family] = {f.name: f for f in [*REACHED, *UNREACHED]} | {
    f"{f.name}-window": f for f in WINDOWED
}
METHODS: dict[str, tuple[Method, Method]] = {
    "soft": (Soft(length=3), Soft(length=5, start="vocabulary")),
    "prefix": (Prefix(length=3), Prefix(length=5, start="random")),
    "prefix by MLP": (Prefix(length=3, reparameterize=4), Prefix(length=2, start="labels")),
}
UNREACHED_NAMES = [family.name for family in UNREACHED]
CARRIED = [
    (method, name)
    for method in METHODS
    for name in FAMILIES
    if method == "soft" or name not in UNREACHED_NAMES
]
# Each clause about what does not depend on the family's attention runs on one of every kind.
FEW = [
    (method, name)
    for method, name in CARRIED
    if name in ("llama", "gpt2", "bert", "albert", "t5", "mistral-window", "bloom")
]


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():
        if parameter.dim() > 1:  # as initialized, some hardly heed what stands before a row
            parameter.data.mul_(3)
    return made


@cache
def plain(name: str) -> PreTrainedModel:
    return twin(get(name))


def keys_and_values_in_a_cache(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Hand the prefix to the untouched model as what it has read, in its own cache."""
    model, found = plain_of(base), []
    for b, j in example.targets:
        cache = DynamicCache()
        for name, kv in injection.kv.items():
            cache.update(kv.keys[None], kv.values[None], base.sites[name].layer)
        ids = [*example.ids, *example.branches[b]]
        positions = torch.arange(len(ids))[None] + injection.positions
        out = model(torch.tensor([ids]), past_key_values=cache, position_ids=positions)
        found.append(out.logits[0, len(example.ids) + j])
    return torch.stack(found)


def plain_of(base: Backbone) -> PreTrainedModel:
    return plain(next(name for name in FAMILIES if get(name) is base))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_soft_equals_embeddings_in_front(name: str) -> None:
    contract.equals_a_plain_oracle(METHODS["soft"][0], get(name), embeddings_in_front)


@pytest.mark.parametrize("method", ["prefix", "prefix by MLP"])
@pytest.mark.parametrize(
    "name",
    by_mechanism([n for n, f in FAMILIES.items() if f.architecture == "causal" and f in REACHED]),
)
def test_a_prefix_equals_keys_and_values_in_the_models_cache(name: str, method: str) -> None:
    contract.equals_a_plain_oracle(METHODS[method][0], get(name), keys_and_values_in_a_cache)


@pytest.mark.parametrize(("method", "name"), by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter(method: str, name: str) -> None:
    contract.gradient_reaches_every_parameter(METHODS[method][0], get(name))


@pytest.mark.parametrize(("method", "name"), by_mechanism(FEW))
def test_a_file_gives_the_same_prompt(method: str, name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(METHODS[method][0], get(name), tmp_path)


@pytest.mark.parametrize(("method", "name"), by_mechanism(FEW))
def test_the_backbone_is_untouched(method: str, name: str) -> None:
    contract.the_backbone_is_untouched(METHODS[method][0], get(name))


@pytest.mark.parametrize(("method", "name"), by_mechanism(CARRIED))
def test_a_mixed_batch_equals_single_rows(method: str, name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(*METHODS[method], get(name))


@pytest.mark.parametrize("name", by_mechanism([n for n in FAMILIES if n not in UNREACHED_NAMES]))
def test_methods_mix_in_one_batch(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(METHODS["soft"][0], METHODS["prefix"][1], get(name))


@pytest.mark.parametrize(("method", "name"), by_mechanism(CARRIED))
def test_checkpointing_changes_nothing(method: str, name: str) -> None:
    if get(name).model.supports_gradient_checkpointing:
        contract.checkpointing_changes_nothing(METHODS[method][0], get(name))
    else:
        assert name in ("albert", "mpnet")
        with pytest.raises(UserError, match=r"cannot recompute its layers"):
            get(name).checkpointing(True)


@pytest.mark.parametrize("name", by_mechanism(UNREACHED_NAMES))
def test_what_cannot_carry_a_prefix_says_so_and_what_works(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot take a prefix: .* `method=soft` works"):
        contract.built(METHODS["prefix"][0], get(name))
