"""Where answers end: at what the model, its tokenizer or its chat template ends with."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from chat_templates import CHATS, chat_backbone
from families import backbone as tiny
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.compose.lockstep import continued
from foreword.injection import NOTHING, Mixture
from foreword.tasks.texts.generator import DecodingInputs
from toys import FAMILIES

ROW = (40, 41, 42, 43)
NEW = 8


def plain(model: Any, **how: Any) -> list[int]:
    """What transformers' own ``generate`` writes, greedily."""
    found = model.generate(torch.tensor([ROW]), do_sample=False, max_new_tokens=NEW, **how)
    return list(found[0, len(ROW) :].tolist())


def saying(name: str, end: str, **changes: Any) -> tuple[Backbone, list[int], list[int]]:
    """A model that writes an end token where it wrote another, and what it writes before it."""
    base = chat_backbone(name)
    model = deepcopy(base.model)
    tokenizer = deepcopy(base.text.tokenizer)
    for key, value in changes.pop("tokenizer", {}).items():
        setattr(tokenizer, key, value)
    for key, value in changes.items():
        setattr(model.generation_config, key, value)
    free = plain(model, eos_token_id=[])
    at = next(n for n in range(2, NEW) if free[n] not in free[:n])
    token = tokenizer.convert_tokens_to_ids(end)
    assert isinstance(token, int)
    assert token not in free
    scores: Any = model.get_output_embeddings().weight
    scores[[token, free[at]]] = scores[[free[at], token]]
    assert plain(model, eos_token_id=[])[: at + 1] == [*free[:at], token]
    return Backbone(model, tokenizer, architecture="causal", name=name), free[:at], [token]


def check(base: Backbone, said: list[int]) -> None:
    how = Decoding(max_new_tokens=NEW)
    want = base.text.decode(said)
    assert decode(base, [ROW, ROW], NOTHING, how) == [want, want]
    inputs = DecodingInputs([ROW], Mixture.of(NOTHING, 1), [False])
    assert continued(base, [inputs], [1.0], [0], how) == [want]


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_ends_where_the_chat_template_ends_a_turn(name: str) -> None:
    """As transformers' own generate under the family's generation_config does, which names it."""
    base, said, end = saying(name, CHATS[name].turn)
    assert plain(base.model) == [*said, *end]
    assert base.text.turn_end == tuple(end)
    check(base, said)


@pytest.mark.parametrize("name", ["llama3", "gemma", "phi3"])
def test_an_answer_ends_at_every_end_of_the_generation_config(name: str) -> None:
    other = next(end for end in CHATS[name].ends if end != CHATS[name].turn)
    base, said, end = saying(name, other)
    assert plain(base.model) == [*said, *end]
    check(base, said)


def test_the_chat_template_alone_may_tell() -> None:
    """Neither the tokenizer nor the model names the end of a turn; generate runs on."""
    texts = {"eos_token": "<|endoftext|>"}
    base, said, _ = saying("qwen2", "<|im_end|>", tokenizer=texts, eos_token_id=None)
    assert len(plain(base.model)) == NEW
    check(base, said)
    names = base.text.tokenizer.convert_ids_to_tokens(list(base.ends))
    assert names == ["<|endoftext|>", "<|im_end|>"]


def test_the_tokenizers_own_end_is_one_too() -> None:
    base, said, _ = saying("gemma", "<eos>", eos_token_id=None)
    check(base, said)


def test_an_end_that_is_no_special_token_is_cut_off() -> None:
    """Some tokenizers add the end of a turn as a plain token, which decoding would write out."""
    base, said, _ = saying("qwen2", "</think>", eos_token_id=None)
    token = base.text.tokenizer.convert_tokens_to_ids("</think>")
    base.model.generation_config.eos_token_id = [token]  # type: ignore[union-attr]
    assert base.text.decode([token]) == "</think>"
    check(base, said)


def test_ends_that_the_model_has_no_token_for_are_none() -> None:
    base = tiny(FAMILIES["llama"])
    base.model.generation_config.eos_token_id = [1, 5000, -1]  # type: ignore[union-attr]
    assert base.ends == (1,)
