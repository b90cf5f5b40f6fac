"""Methods keep the contract on encoders: BERT, RoBERTa, ModernBERT, XLM-R, Qwen3."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import contract
from families import ENCODERS, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.methods.adapter import Adapter
from foreword.methods.base import Method
from foreword.methods.deep import Deep
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft

BESIDE_A_HEAD = Several(
    (Prefix(length=2, start="zero"), Head(head_start="prototypes", head_form="cosine"))
)
METHODS: dict[str, tuple[Method, Method]] = {
    "prefix": (Prefix(length=3), Prefix(length=5, start="random")),
    "soft": (Soft(length=3), Soft(length=5, start="vocabulary")),
    "lora": (Lora(rank=2), Lora(rank=4, init="orthogonal")),
    "deep": (Deep(length=3), Deep(length=2, start="zero")),
    "adapter": (Adapter(), Adapter()),
    "prefix+head": (BESIDE_A_HEAD, Several((Lora(rank=2), Head(head_start="logistic")))),
}
CASES = [
    (method, family.name)
    for family in ENCODERS
    for method in METHODS
    if method in ("prefix", "prefix+head") or family.name in ("bert-encoder", "qwen3-encoder")
]


@cache
def get(name: str) -> Backbone:
    made = backbone(next(family for family in ENCODERS if family.name == name))
    for parameter in made.model.parameters():
        if parameter.dim() > 1:  # as initialized, some hardly heed what stands before a row
            parameter.data.mul_(3)
    return made


@pytest.mark.parametrize(("method", "name"), by_mechanism(CASES))
def test_a_method_keeps_the_contract(method: str, name: str, tmp_path: Path) -> None:
    one, other = METHODS[method]
    contract.gradient_reaches_every_parameter(one, get(name))
    contract.a_file_gives_the_same_prompt(one, get(name), tmp_path)
    contract.the_backbone_is_untouched(one, get(name))
    if method != "prefix+head":  # whose mixtures are of one task's head each
        contract.a_mixed_batch_equals_single_rows(one, other, get(name))
