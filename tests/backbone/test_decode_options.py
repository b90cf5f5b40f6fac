"""Every setting of a decoding, against transformers' own ``generate`` with that setting alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from families import CAUSAL, SEQ2SEQ, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.injection import NOTHING, Injection, Mixture
from foreword.prompt.prompt import Prompt
from foreword.tasks.generate import Generate
from plain import twin
from quick import first

FAMILIES: dict[str, Family] = {f.name: f for f in (*CAUSAL, *SEQ2SEQ)}
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))
LEAD = (17, 90, 33, 120, 64, 71, 23, 51, 140)
NEW = 7

SAMPLED = {"do_sample": True, "top_k": 0}
OPTIONS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "max_new_tokens": [({"max_new_tokens": 3}, {"max_new_tokens": 3})],
    "beams": [({"beams": 3}, {"num_beams": 3})],
    "temperature": [({"temperature": 1.8}, {**SAMPLED, "temperature": 1.8})],
    "top_p": [
        (
            {"temperature": 1.4, "top_p": 0.6, "beams": beams},
            {**SAMPLED, "temperature": 1.4, "top_p": 0.6, "num_beams": beams},
        )
        for beams in (1, 2)
    ],
    "repetition_penalty": [
        ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
        ({"repetition_penalty": 0.6, "beams": 2}, {"repetition_penalty": 0.6, "num_beams": 2}),
    ],
    "stop": [
        ({"stop": ("n", "zz", "5")}, {"stop_strings": ["n", "zz", "5"]}),
        ({"stop": ("nO", "U"), "beams": 2}, {"num_beams": 2, "stop_strings": ["nO", "U"]}),
    ],
    "seed": [({"temperature": 1.0, "seed": 2}, {**SAMPLED, "temperature": 1.0, "seed": 2})],
}
"""For each setting of Decoding, values of it and what says the same to ``generate``."""

CASES = [
    pytest.param(own, same, id="-".join([option, *map(str, own.values())]))
    for option, values in OPTIONS.items()
    for own, same in values
]

ODD = {
    "do_sample": True,
    "num_beams": 3,
    "temperature": 0.3,
    "top_k": 2,
    "top_p": 0.2,
    "min_p": 0.4,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.3,
    "eta_cutoff": 0.3,
    "repetition_penalty": 3.0,
    "encoder_repetition_penalty": 3.0,
    "length_penalty": 4.0,
    "early_stopping": True,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[n] for n in range(20, 90)],
    "min_length": 40,
    "max_length": 2,
    "min_new_tokens": 5,
    "max_new_tokens": 2,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 8,
    "suppress_tokens": list(range(90, 120)),
    "begin_suppress_tokens": list(range(120, 150)),
    "exponential_decay_length_penalty": (1, 9.0),
    "sequence_bias": [[[30], 50.0]],
    "guidance_scale": 3.0,
    "renormalize_logits": True,
    "decoder_start_token_id": 9,
    "stop_strings": ["a"],
    "use_cache": False,
}
"""What a model's folder may ask of ``generate``, and a decoding does not."""


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():
        if parameter.dim() > 1 and name != "t5":
            parameter.data.mul_(3)  # else some say one thing whatever they read
    for key, buffer in made.model.named_buffers():
        if key == "final_logits_bias":  # without it these say <pad> alone
            buffer[0, :3] = -torch.inf
    for key, value in ODD.items():
        setattr(made.model.generation_config, key, value)
    return made


@cache
def plain(name: str) -> PreTrainedModel:
    model = twin(get(name))
    model.generation_config = GenerationConfig()
    return model


@torch.no_grad()
def generated(name: str, row: Sequence[int], *, seed: int = 0, **how: Any) -> str:
    """What transformers writes after one row, alone, under a bare configuration."""
    base, two = get(name), get(name).has_two_stacks
    config = GenerationConfig(
        eos_token_id=1,
        pad_token_id=0,
        decoder_start_token_id=0 if two else None,
        **{"max_new_tokens": NEW, "do_sample": False, **how},
    )
    torch.manual_seed(row_seed(seed, row))
    ids = torch.tensor([list(row)])
    found = plain(name).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        tokenizer=base.text.tokenizer,
    )
    text = base.text.decode(found[0, 1 if two else len(row) :].tolist())
    return min((text.split(stop)[0] for stop in how.get("stop_strings", ())), key=len, default=text)


def test_every_setting_is_compared() -> None:
    own = {"json_schema"}  # which generate does not have (test_json_rule.py)
    assert set(OPTIONS) | own == {each.name for each in fields(Decoding)}


@pytest.mark.parametrize("name", first(2, ["llama", "t5", "bart", "gpt2"]))
@pytest.mark.parametrize(("own", "same"), CASES)
def test_a_setting_is_generates_alone_and_in_a_batch(
    name: str, own: dict[str, Any], same: dict[str, Any]
) -> None:
    """Whatever the model's own ``generation_config`` asks for."""
    decoding = Decoding(**{"max_new_tokens": NEW, **own})
    expected = [generated(name, row, **same) for row in ROWS]
    assert decode(get(name), ROWS, NOTHING, decoding) == expected
    assert decode(get(name), ROWS[:1], NOTHING, decoding) == expected[:1]


@pytest.mark.parametrize("how", ["greedy", "beams"])
def test_no_forced_token_takes_the_place_of_bart(how: str) -> None:
    """BART, mBART and Pegasus are configured to force their first and their last token."""
    beams = 1 if how == "greedy" else 2
    decoding = Decoding(max_new_tokens=4, beams=beams)
    expected = [generated("bart", row, max_new_tokens=4, num_beams=beams) for row in ROWS]
    assert decode(get("bart"), ROWS, NOTHING, decoding) == expected
    assert all(expected)


# What a penalty counts ----------------------------------------------------------------------------

PENALTY = Decoding(max_new_tokens=NEW, repetition_penalty=1.7)


@torch.no_grad()
def penalized(row: Sequence[int], table: Tensor, penalty: float) -> str:
    """Greedy decoding after embeddings: logits of real tokens that stand before are penalized."""
    model, base = plain("llama"), get("llama")
    said: list[int] = []
    while len(said) < NEW and said[-1:] != [1]:
        after = model.get_input_embeddings()(torch.tensor(said, dtype=torch.long))
        logits = model(inputs_embeds=torch.cat([table, after])[None]).logits[0, -1]
        for token in {*row, *said} & set(range(base.vocabulary)):
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        said.append(int(logits.argmax()))
    return base.text.decode(said)


def test_text_that_was_read_ahead_is_penalized_as_if_it_stood_there() -> None:
    with torch.no_grad():
        lead = Injection(kv=get("llama").kv(LEAD), positions=len(LEAD))
    expected = [generated("llama", (*LEAD, *row), repetition_penalty=0.4) for row in ROWS]
    reward = replace(PENALTY, repetition_penalty=0.4)
    assert decode(get("llama"), ROWS, lead, reward, lead=LEAD) == expected
    assert decode(get("llama"), ROWS[:1], lead, reward, lead=LEAD) == expected[:1]
    assert decode(get("llama"), ROWS, lead, reward) != expected  # of which it was not told


def test_behind_virtual_tokens_the_text_alone_is_penalized() -> None:
    base = get("llama")
    v = base.vocabulary
    made = torch.randn(4, base.width, generator=torch.Generator().manual_seed(5))
    soft = Injection(embeds=made, leading=2)
    rows = [(*ROWS[0], v + 2, *ROWS[1]), ROWS[2], (v + 3, *ROWS[1])]
    tables = [
        torch.stack([made[t - v] if t >= v else base.embed([t])[0] for t in (v, v + 1, *row)])
        for row in rows
    ]
    expected = [penalized(row, table, 1.7) for row, table in zip(rows, tables, strict=True)]
    assert decode(base, rows, soft, PENALTY) == expected
    assert [decode(base, [row], soft, PENALTY)[0] for row in rows] == expected
    assert expected != [penalized(r, t, 1.0) for r, t in zip(rows, tables, strict=True)]


def test_rows_of_a_mixture_are_penalized_for_their_own_text() -> None:
    base = get("llama")
    soft = Injection(embeds=base.embed(LEAD), leading=len(LEAD))
    found = decode(base, ROWS, Mixture((NOTHING, soft), (0, 1, 0)), PENALTY)
    table = base.embed((*LEAD, *ROWS[1]))
    assert found[1] == penalized(ROWS[1], table, 1.7)
    assert found[::2] == [generated("llama", row, repetition_penalty=1.7) for row in ROWS[::2]]


# Through a prompt ---------------------------------------------------------------------------------

WORDS = ["a good film", "it was", "bad film and a good film"]
TEMPLATE = "it was a good film and it was a bad film {text} :"


def prompt(**decoding: Any) -> Prompt:
    """A prompt of virtual tokens for texts that all begin with the same words."""
    how = Decoding(max_new_tokens=NEW, **decoding)
    embeds = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    made = Injection(embeds=embeds, leading=3)
    task, on = Generate(TEMPLATE, decoding=how), get("llama")
    return Prompt(made, task, {"name": on.name}, on=on)


@pytest.mark.parametrize(
    "how",
    [
        {"repetition_penalty": 1.5},
        {"temperature": 1.3},
        {"temperature": 1.3, "top_p": 0.8, "repetition_penalty": 1.5, "beams": 2},
        {"stop": (": a", "n")},
    ],
    ids=str,
)
def test_a_row_is_answered_alone_as_in_any_batch(how: dict[str, Any]) -> None:
    """Alone, all of a row's text but one token is read ahead."""
    one = prompt(**how)
    together = one.predict(WORDS)
    assert [one.predict(word) for word in WORDS] == together
    assert one.predict([*WORDS[::-1], "it", *WORDS]) == [
        *together[::-1],
        one.predict("it"),
        *together,
    ]


# Where a stop text may stand ----------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
def test_a_stop_text_is_looked_for_in_the_completion_alone(beams: int) -> None:
    """A row whose end and the first token make up the stop text goes on."""
    base, plainly = get("llama"), Decoding(max_new_tokens=NEW, beams=beams)
    (whole,) = decode(base, ROWS[:1], NOTHING, plainly)
    across = base.text.decode(list(ROWS[0]))[-1] + whole[:1]
    assert len(whole) > 1
    assert across not in whole
    assert decode(base, ROWS[:1], NOTHING, replace(plainly, stop=(across,))) == [whole]
