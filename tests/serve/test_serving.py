"""The engine: rows of many prompts in one loop equal those that are decoded alone."""

from __future__ import annotations

import pytest

from families import CAUSAL, backbone
from foreword.backbone.decode import decode
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.serve.engine import Engine
from foreword.serve.request import Piece, Sampling

ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))


def test_rows_are_continued_as_decode_does() -> None:
    base, how = backbone(CAUSAL[0]), Sampling(max_new_tokens=7)
    heard: list[Piece] = []
    with Engine(base) as engine:
        tickets = [engine.generate(row, None, how, heard.append) for row in ROWS]
        found = [ticket.result(20).text for ticket in tickets]
    assert found == decode(base, ROWS, NOTHING, how)
    assert {piece.finish for piece in heard if piece.finish} <= {"length", "stop"}


def test_a_row_that_is_longer_than_the_room_is_refused_in_one_line() -> None:
    refused = pytest.raises(UserError, match="a row of 12 tokens and 5 new ones")
    with Engine(backbone(CAUSAL[0], max_position_embeddings=16)) as engine, refused:
        engine.generate(range(3, 15), None, Sampling(max_new_tokens=5))
