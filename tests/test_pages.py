"""What pages and docstrings name is there: files, links, and the public names of examples."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import foreword
from foreword.cli.commands import COMMANDS, HELP, app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "foreword"
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md"))
    if page.name not in ("LOG.md", "CHANGELOG.md", "extending.md")  # files as they were, or may be
]
BELOW = (ROOT, SOURCE, *(path for path in SOURCE.rglob("*") if path.is_dir()))


def there(name: str, page: Path) -> bool:
    return any((folder / name).exists() for folder in (page.parent, *BELOW))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"`([\w/.-]+\.py)`", text)
    linked = [link for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text) if "//" not in link]
    assert [name for name in (*named, *linked) if not there(name, page)] == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.name))
def test_every_file_that_a_docstring_names_is_there(path: Path) -> None:
    text = path.read_text("utf-8")
    assert [n for n in re.findall(r"\(([a-z_/]+\.py)\)", text) if not there(n, path)] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda p: str(p.name))
def test_examples_use_what_is_public(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "fw"
    }
    assert used or "from foreword.cli.main import run" in path.read_text("utf-8")
    assert used <= {*foreword.__all__, "sklearn"}


def commands(page: Path) -> list[list[str]]:
    """The `foreword` commands of a page's shell blocks, a line each, mistaken ones left out."""
    blocks = re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.removeprefix("$ ") for line in lines]
    found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("foreword ")]
    known = {name.split()[0] for name in COMMANDS}
    return [words for words in found if words[0] in known]


@cache
def names(*command: str) -> frozenset[str]:
    """The flags of a command."""
    found = app
    for name in command:
        found = found[name]
    return frozenset(name for each in found.assemble_argument_collection() for name in each.names)


def test_pages_give_commands_flags_that_they_have() -> None:
    seen = set()
    for page in PAGES:
        for command in commands(page):
            name = command[: 2 if " ".join(command[:2]) in COMMANDS else 1]
            flags = {word.partition("=")[0] for word in command if re.match("--[a-z]", word)}
            assert flags <= names(*name) | {*HELP, "--version"}, (page.name, command)
            seen.add(command[0])
    assert seen >= {"train", "eval", "predict", "compare", "export", "data"}
