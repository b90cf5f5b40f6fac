"""The house plan: imports point one way, from what knows less to what knows more."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "foreword"
ORDER = [
    ["errors", "grammar"],
    ["files", "garbage", "html", "threads", "machine", "reporter", "bars"],
    ["config", "injection", "notebook"],
    ["data", "metrics", "terminal"],
    ["backbone"],
    ["engine"],
    ["tasks"],
    ["prompt"],
    ["methods", "export"],
    ["training"],
    ["display", "recurrent"],
    ["evaluation"],
    [
        "multitask_learning",
        "compose",
        "compression",
        "augmentation",
        "explanation",
        "sklearn",
    ],
    ["report"],
    ["prompt_search", "retuning"],
    ["serve"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> frozenset[str]:
    """The modules of the house that a file imports, those for its types alone among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {n if n in MODULES else (node.module or "") for n in named}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name in MODULES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    for other in imported(path):
        theirs = room(MODULES[other])
        known = theirs == room(path) or RANK[theirs] < RANK[room(path)]
        assert known, f"{room(path)} must not import {other}"


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in FILES} == set(RANK)


def test_no_files_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(imported(MODULES[name])):
                visit(other, (*above, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_the_parts_of_peft_are_never_needed_to_run() -> None:
    for path in FILES:
        assert not re.search(r"^\s*(import|from) peft", path.read_text("utf-8"), re.MULTILINE), path


def test_files_of_tests_have_names_of_their_own() -> None:
    """Two of one name, in folders that are no packages, cannot be collected in one run."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.stem != "conftest"]
    assert [name for name in set(names) if names.count(name) > 1] == []
