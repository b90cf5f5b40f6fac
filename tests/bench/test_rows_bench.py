"""Rows in other shapes: slots for many labels, replies for rankings."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "bench"


def run(*arguments: str) -> str | None:
    """Run the file as a program in this process; return its last words, None if it ends well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rows.py", *arguments])
        try:
            runpy.run_path(str(BENCH / "rows.py"), run_name="__main__")
        except SystemExit as ended:
            return str(ended)
    return None


def made(tmp_path: Path, shape: str, row: dict[str, object]) -> dict[str, object]:
    source, out = tmp_path / "in.jsonl", tmp_path / "deep" / "out.jsonl"
    source.write_text(json.dumps(row) + "\n")
    assert run(shape, str(source), str(out)) is None
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == 1
    return dict(found[0])


def test_slots_are_the_attributes_but_the_name(tmp_path: Path) -> None:
    row = {"prompt": "name[A, B], customer rating[5], near[C (D)]", "completion": "A, B is fine."}
    assert made(tmp_path, "slots", row) == {
        "text": "A, B is fine.",
        "labels": ["customer rating", "near"],
    }


def test_the_last_turn_is_the_answer(tmp_path: Path) -> None:
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "a taxi"), ("assistant", "where?")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    assert made(tmp_path, "responses", row) == {
        "history": ["User: hi", "Assistant: hello", "User: a taxi"],
        "answer": "where?",
    }


def test_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "a"}\n')
    wrong = [(), ("slots", "x"), ("turns", "a", "b"), ("slots", "missing.jsonl", "b")]
    for arguments in (*wrong, ("slots", str(other), "b"), ("responses", str(other), "b")):
        line = run(*arguments)
        assert line is not None
        assert line.startswith("bench: ")
        assert "\n" not in line
