"""A few fuzzed cases of every kind; ``make fuzz`` runs 20,000 and counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from fuzzing.cases import KINDS
from fuzzing.counted import fuzz
from fuzzing.world import World, world

CASES = 60


@pytest.fixture(scope="module")
def place() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.mark.slow
def test_commands_accept_or_refuse_and_read_what_is_there(place: World) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    faults = fuzz(CASES, 0, place, counts)
    assert not faults, "\n".join(f"{wrong}: {case.words}" for wrong, case in faults.values())
    came = Counter[str]()
    for (_, outcome), count in counts.items():
        came[outcome] += count
    assert came["accepted"] > came["refused"]
    assert sum(came.values()) >= CASES - len(KINDS)
