"""The stream of users of examples/recommend: the same by its seed, and its habits change."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

MODULE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "recommend" / "drift.py"))


@pytest.mark.parametrize("name", ["recommend", "support"])
def test_rows_follow_from_the_seed(name: str) -> None:
    scene: dict[str, Any] = MODULE["scene_of"](name)
    rows = list(MODULE["stream"](scene, 200, 0, start=50))
    assert rows == list(MODULE["stream"](scene, 200, 0, start=50))
    assert rows != list(MODULE["stream"](scene, 200, 1, start=50))
    assert len(rows) == 250
    assert {row["label"] for row in rows} <= set(scene["labels"])
    assert len({row["text"] for row in rows}) > 200
    assert not any("{" in row["text"] for row in rows)


def test_three_habits_of_five_change_and_most_rows_are_habits() -> None:
    scene = MODULE["scene_of"]("recommend")
    # A scene whose text says who and when, so that rows can be told apart.
    scene |= {"who": {k: [k] for k in scene["who"]}, "when": {w: [w] for w in scene["when"]}}
    scene["layouts"] = ["{who}/{when}"]
    rows = list(MODULE["stream"](scene, 20_000, 3, start=4000))

    def usual(part: list[Any]) -> dict[str, str]:
        counts: dict[str, dict[str, int]] = {}
        for row in part:
            own = counts.setdefault(row["text"], {})
            own[row["label"]] = own.get(row["label"], 0) + 1
        for own in counts.values():
            assert 0.65 < max(own.values()) / sum(own.values()) < 0.97
        return {text: max(own, key=own.__getitem__) for text, own in counts.items()}

    first, last = usual(rows[:4000]), usual(rows[-2000:])
    assert len(first) == 20
    assert sum(first[text] != last[text] for text in first) == 12
