"""The engine: rows of many prompts in one loop equal those that are decoded alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import foreword.serve.held
from families import CAUSAL, SEQ2SEQ, UNREACHED, WINDOWED, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import continuations, decode
from foreword.backbone.decoding_rules import until_end
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Patch
from foreword.serve.engine import Engine
from foreword.serve.request import Piece, Sampling

FAMILIES = {f.name: f for f in CAUSAL} | {"window": WINDOWED[1], "bloom": UNREACHED[0]}
FAMILIES |= {"t5": SEQ2SEQ[0]}
PACKED = ("llama", "gpt2", "qwen2", "gemma2", "gpt_oss", "window")
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():  # so that what is written depends on what is read
        if parameter.dim() > 1:
            parameter.data.mul_(4 if name in ("gpt2", "gpt_oss", "bloom") else 2)
    return made


@pytest.fixture(autouse=True)
def _some_prefixes_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreword.serve.held, "COPIED", 4)


@cache
def prompts(name: str) -> list[Injection]:
    """None, soft, prefixes of two lengths, one of upper layers, and a low-rank change."""
    base, noise = get(name), torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise)

    def kv(length: int, first: int = 0) -> Injection:
        sites = list(base.sites.values())[first:]
        made = {
            s.name: KV(drawn(s.heads, length, s.key_width), drawn(s.heads, length, s.value_width))
            for s in sites
        }
        return Injection(kv=made, positions=length if base.architecture == "causal" else 0)

    embeds = base.embed([7, 8, 9]) + 0.1 * drawn(3, base.width)
    soft = Injection(embeds=embeds, leading=3)
    module = next(
        n for n, m in base.model.named_modules() if n.endswith(("o_proj", "c_proj", "o", "dense"))
    )
    lora = Injection(patches={module: (Patch(drawn(base.width, 2), drawn(2, base.width)),)})
    found = [NOTHING, soft, lora]
    return [*found, kv(3), kv(9), kv(6, 1)] if base.sites else found


def alone(name: str, ids: Sequence[int], prompt: Injection, how: Sampling) -> list[int]:
    return until_end(continuations(get(name), [ids], prompt, how)[0], get(name).ends)


@pytest.mark.parametrize("name", [*PACKED, "bloom", "t5"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_of_any_mix_are_continued_as_alone(name: str, data: Any) -> None:
    parts = prompts(name)
    row = st.tuples(
        st.lists(st.integers(3, 159), min_size=1, max_size=12),
        st.integers(0, len(parts) - 1),
        st.integers(1, 6),
    )
    asked = data.draw(st.lists(row, min_size=1, max_size=8))
    slots, chunk = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1, 3, 64]))
    with Engine(get(name), slots=slots, chunk=chunk, tokens=512) as engine:
        tickets = [
            engine.generate(ids, parts[part], Sampling(max_new_tokens=new))
            for ids, part, new in asked
        ]
        found = [list(ticket.result(60).tokens) for ticket in tickets]
    for (ids, part, new), own in zip(asked, found, strict=True):
        assert own == alone(name, ids, parts[part], Sampling(max_new_tokens=new))


def test_pieces_join_to_what_decode_writes() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=7)
    heard: dict[int, list[Piece]] = {n: [] for n in range(len(ROWS))}
    with Engine(base) as engine:
        tickets = [engine.generate(row, None, how, heard[n].append) for n, row in enumerate(ROWS)]
        found = [ticket.result(20).text for ticket in tickets]
    assert found == decode(base, ROWS, NOTHING, how)
    assert found == ["".join(piece.text for piece in heard[n]) for n in heard]
    for n in heard:
        assert [piece.finish for piece in heard[n][:-1]] == [None] * (len(heard[n]) - 1)
        assert heard[n][-1].finish in ("length", "stop")


def test_a_row_that_is_longer_than_the_room_is_refused_in_one_line() -> None:
    refused = pytest.raises(UserError, match="a row of 12 tokens and 5 new ones")
    with Engine(backbone(CAUSAL[0], max_position_embeddings=16)) as engine, refused:
        engine.generate(range(3, 15), None, Sampling(max_new_tokens=5))
