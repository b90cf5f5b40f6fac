"""The house plan: imports point one way, from what knows less to what knows more."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "foreword"
ORDER = [
    ["errors"],
    ["config", "injection", "interrupt", "metrics", "data", "parallel", "overflow", "training"],
    ["regularise"],
    ["backbone"],
    ["engine"],
    ["tasks", "trunk"],
    ["distil"],
    ["artefact"],
    ["methods"],
    ["prompt"],
    ["checkpoint", "watch"],
    ["loop"],
    ["streams"],
    ["train", "pretrain", "evaluate", "presets", "records"],
    ["find_rate", "multitask"],
    ["self_study", "compose"],
    ["augment", "compare", "compress"],
    ["export"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms of the house that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            modules = names if module == "foreword" else [module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        found |= {m.split(".")[1] for m in modules if m.startswith("foreword.")}
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(path)
    for other in imported(path):
        known = RANK.get(other, RANK["__init__"])  # a public name of the package itself
        assert other == own or known < RANK[own], f"{own} must not import {other}"


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in FILES} == set(RANK)


def test_the_parts_of_peft_are_never_needed_to_run() -> None:
    for path in FILES:
        assert not re.search(r"^\s*(import|from) peft", path.read_text("utf-8"), re.MULTILINE), path
