"""Decoding: injections against transformers' own ``generate`` on the full text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from families import CAUSAL, MASKED, SEQ2SEQ, UNREACHED, Family, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import Text
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture, Patch
from plain import twin

FULL = {f.name: f for f in CAUSAL}
TWO = {f.name: f for f in SEQ2SEQ}
ALL: dict[str, Family] = FULL | TWO | {"bloom": UNREACHED[0], "bert": MASKED[0]}
LEAD = (17, 90, 33, 120, 64, 71)
OTHER = (55, 44, 99)
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))
NEW = 7
DULL = ("gpt2", "opt", "bart", "marian", "gpt_oss")  # say one thing whatever they read, else


@cache
def words() -> PreTrainedTokenizerFast:
    """A word for each of the 160 ids, so that texts are equal only where all ids are."""
    made = Tokenizer(models.WordLevel({f"t{i}": i for i in range(160)}))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="t0", eos_token="t1")


@cache
def get(name: str) -> Backbone:
    made = backbone(ALL[name])
    made.text = Text(words())
    for parameter in made.model.parameters():
        if parameter.dim() > 1 and name in DULL:
            parameter.data.mul_(4)
    for key, buffer in made.model.named_buffers():
        if key == "final_logits_bias":  # without it these two say <pad> alone
            buffer[0, :3] = -torch.inf
    return made


@cache
def plain(name: str) -> PreTrainedModel:
    model = twin(get(name))
    model.generation_config = GenerationConfig()  # so that nothing counts that is not asked for
    return model


@torch.no_grad()
def own(name: str, row: Sequence[int], seed: int = 0, **how: Any) -> str:
    """What transformers makes of one row of plain tokens."""
    model, base = plain(name), get(name)
    two = base.architecture == "encoder-decoder"
    config = GenerationConfig(
        max_new_tokens=NEW,
        eos_token_id=1,
        pad_token_id=0,
        decoder_start_token_id=0 if two else None,
        **{"do_sample": False, **how},
    )
    torch.manual_seed(seed)
    ids = torch.tensor([list(row)])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return base.text.decode(found[0, 1 if two else len(row) :].tolist())


def read(name: str, lead: Sequence[int]) -> Injection:
    with torch.no_grad():
        return Injection(kv=get(name).kv(lead), positions=len(lead))


def soft(name: str, ids: Sequence[int]) -> Injection:
    with torch.no_grad():
        return Injection(embeds=get(name).embed(ids), leading=len(ids))


HOW = {
    "greedy": (Decoding(max_new_tokens=NEW), {}),
    "beams": (Decoding(max_new_tokens=NEW, beams=3), {"num_beams": 3}),
}


def every_family_greedily(names: Iterable[str]) -> list[Any]:
    """Every family writes greedily; with beams, whose code they share, some are slow tests."""
    listed = list(names)
    return [*(("greedy", n) for n in listed), *by_mechanism(("beams", n) for n in listed)]


# Plain, and under the keys and values of real text ---------------------------------------------


@pytest.mark.parametrize(("how", "name"), every_family_greedily(n for n in ALL if n != "bert"))
def test_without_an_injection_rows_of_a_batch_equal_generate(name: str, how: str) -> None:
    decoding, same = HOW[how]
    found = decode(get(name), ROWS, NOTHING, decoding)
    assert found == [own(name, row, **same) for row in ROWS]
    assert any(found)


@pytest.mark.parametrize(("how", "name"), every_family_greedily(FULL))
def test_under_the_keys_and_values_of_text_rows_go_on_as_after_the_text(
    name: str, how: str
) -> None:
    decoding, same = HOW[how]
    found = decode(get(name), ROWS, read(name, LEAD), decoding)
    assert found == [own(name, (*LEAD, *row), **same) for row in ROWS]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt"])
@pytest.mark.parametrize("how", ["greedy", "beams"])
def test_leading_embeddings_of_text_are_the_text(name: str, how: str) -> None:
    decoding, same = HOW[how]
    found = decode(get(name), ROWS, soft(name, LEAD), decoding)
    assert found == [own(name, (*LEAD, *row), **same) for row in ROWS]


@pytest.mark.parametrize("how", ["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_each_row_of_a_mixture_has_its_own_prefix(name: str, how: str) -> None:
    decoding, same = HOW[how]
    parts = (NOTHING, read(name, LEAD), read(name, OTHER), soft(name, OTHER))
    leads = ((), LEAD, OTHER, OTHER)
    rows, owners = (*ROWS, ROWS[0], ROWS[1]), (2, 0, 1, 1, 3)
    found = decode(get(name), rows, Mixture(parts, owners), decoding)
    expected = [
        own(name, (*leads[owner], *row), **same) for row, owner in zip(rows, owners, strict=True)
    ]
    assert found == expected


def test_a_mixture_of_soft_prompts_needs_no_attention_function() -> None:
    parts = (soft("bloom", LEAD), soft("bloom", OTHER))
    found = decode(get("bloom"), ROWS, Mixture(parts, (1, 0, 1)), HOW["beams"][0])
    leads = (OTHER, LEAD, OTHER)
    expected = [own("bloom", (*a, *r), num_beams=3) for a, r in zip(leads, ROWS, strict=True)]
    assert found == expected


# Encoder-decoders -----------------------------------------------------------------------------


def step_by_step(name: str, row: Sequence[int], injection: Injection) -> str:
    """Greedy decoding without a cache: the whole row again for each token."""
    base, said = get(name), []
    for _ in range(NEW):
        example = Example(tuple(row), len(row), (tuple(said),), ((0, len(said) - 1),))
        with torch.no_grad():
            said.append(int(base.logits(base.states([example], injection)).argmax()))
        if said[-1] == 1:
            break
    return base.text.decode(said)


def learned(name: str, length: int, seed: int, scale: float = 2.0) -> Injection:
    """Keys and values of no text, for every site: encoder, decoder and cross attention."""
    base, noise = get(name), torch.Generator().manual_seed(seed)
    kv = {
        site.name: KV(
            scale * torch.randn(site.heads, length, site.key_width, generator=noise),
            scale * torch.randn(site.heads, length, site.value_width, generator=noise),
        )
        for site in base.sites.values()
    }
    return Injection(kv=kv, positions=length if base.architecture == "causal" else 0)


@pytest.mark.parametrize("name", [*TWO, "llama", "gpt_oss"])
def test_a_learned_prefix_decodes_with_a_cache_as_without(name: str) -> None:
    parts = (learned(name, 4, 0), NOTHING, learned(name, 2, 1))
    owners = (2, 1, 0)
    alone = [step_by_step(name, row, parts[o]) for row, o in zip(ROWS, owners, strict=True)]

    def decoded(rows: Sequence[Sequence[int]], injection: Injection | Mixture) -> list[str]:
        return decode(get(name), rows, injection, HOW["greedy"][0])

    assert decoded(ROWS, Mixture(parts, owners)) == alone
    for row, owner, expected in zip(ROWS, owners, alone, strict=True):
        assert decoded([row], parts[owner]) == [expected]
    assert decoded(ROWS, NOTHING) != alone


@pytest.mark.parametrize("name", TWO)
def test_beams_of_a_mixture_on_encoder_decoders_equal_single_rows(name: str) -> None:
    parts, decoding = (learned(name, 4, 0), soft(name, OTHER)), HOW["beams"][0]
    found = decode(get(name), ROWS, Mixture(parts, (1, 0, 1)), decoding)
    alone = [
        decode(get(name), [r], parts[o], decoding)[0] for r, o in zip(ROWS, (1, 0, 1), strict=True)
    ]
    assert found == alone


@pytest.mark.parametrize("name", TWO)
def test_leading_embeddings_on_an_encoder_are_its_text(name: str) -> None:
    found = decode(get(name), ROWS, soft(name, LEAD), HOW["greedy"][0])
    assert found == [own(name, (*LEAD, *row)) for row in ROWS]


# Sampling --------------------------------------------------------------------------------------


def test_seeds_differ_and_repeat() -> None:
    def drawn(seed: int) -> list[str]:
        how = Decoding(max_new_tokens=NEW, temperature=1.0, seed=seed)
        return decode(get("llama"), ROWS, NOTHING, how)

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_a_temperature_of_next_to_nothing_takes_the_likeliest_tokens() -> None:
    cold = Decoding(max_new_tokens=NEW, temperature=1e-40)
    greedy = Decoding(max_new_tokens=NEW)
    assert decode(get("llama"), ROWS, NOTHING, cold) == decode(get("llama"), ROWS, NOTHING, greedy)


def test_rows_that_read_alike_are_drawn_alike_unless_they_get_seeds() -> None:
    how = Decoding(max_new_tokens=NEW, temperature=1.0)
    first, second, other = decode(get("llama"), [ROWS[0], ROWS[0], ROWS[1]], NOTHING, how)
    assert first == second != other
    seeds = [row_seed(0, (n,)) for n in range(3)]
    assert len(set(decode(get("llama"), [ROWS[0]] * 3, NOTHING, how, seeds=seeds))) == 3


def test_rows_of_several_changes_keep_their_draws() -> None:
    """Rows under different patches run group after group."""
    base, how = backbone(ALL["llama"]), Decoding(max_new_tokens=NEW, temperature=1.0)
    name = next(n for n, m in base.model.named_modules() if isinstance(m, torch.nn.Linear))
    patches = Injection(patches={name: (Patch(torch.full((32,), 0.1)),)})
    mixture = Mixture((NOTHING, patches), (1, 0, 1))
    found = decode(base, ROWS, mixture, how)
    assert found == [
        decode(base, [row], mixture.parts[part], how)[0]
        for row, part in zip(ROWS, mixture.rows, strict=True)
    ]


@pytest.mark.parametrize("how", ["greedy", "sampling"])
def test_the_callers_random_state_is_left_alone(how: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    temperature = 1.0 if how == "sampling" else 0.0
    decode(get("llama"), ROWS, NOTHING, Decoding(max_new_tokens=2, temperature=temperature))
    assert torch.equal(torch.rand(2), expected)


# What is refused ------------------------------------------------------------------------------


def test_a_masked_model_cannot_generate() -> None:
    with pytest.raises(UserError, match=r"is a masked model and cannot generate"):
        decode(get("bert"), ROWS, NOTHING, Decoding())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"beams": 0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"stop": ("film", "")},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        decode(get("llama"), ROWS, NOTHING, Decoding(**wrong))


def test_the_model_is_as_it_was() -> None:
    base = get("llama")
    kind, before = type(base.model), {n: t.clone() for n, t in base.model.state_dict().items()}
    decode(base, ROWS, read("llama", LEAD), Decoding(max_new_tokens=2))
    assert type(base.model) is kind
    assert all(torch.equal(t, before[n]) for n, t in base.model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_the_head_reads_states_that_lie_side_by_side(name: str) -> None:
    base = get(name)
    head: torch.nn.Module = base.model.get_output_embeddings()  # type: ignore[assignment]
    heard: list[bool] = []
    hook = head.register_forward_hook(lambda _, given, out: heard.append(given[0].is_contiguous()))
    try:
        decode(base, ROWS, NOTHING, Decoding(max_new_tokens=2))
    finally:
        hook.remove()
    assert heard == [True, True]
    assert not head._forward_pre_hooks
