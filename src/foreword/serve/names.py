"""Names in requests: prompts, ``support``, ``support@2`` and ``manual+style``, and files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import UserError

_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
_NUMBER = re.compile(r"[1-9]\d{0,8}")

MOST_PARTS = 8
"""Prompts that one name may join."""


class UnknownPromptError(UserError):
    """There is no prompt, or no version, of this name."""


class RefusedPromptError(UserError):
    """There is a file of this name, and it cannot be served; says why."""


@dataclass(frozen=True)
class Part:
    """One prompt of a name: with ``number`` None the version that is current."""

    name: str
    number: int | None = None


def check_name(name: str) -> str:
    """Return a name that a prompt may have; raises UserError for any other.

    Letters, digits and ``. _ -``, of which the first is a letter or a digit, 100 at most: never a
    path.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:100]!r} cannot be a prompt's name; take letters, digits, '.', '_' and '-', "
            "at most 100, and begin with a letter or a digit",
            field="name",
        )
    return name


def path_inside(folder: Path, file: str) -> Path:
    """Return the path of a file in a folder, or below it; raises UserError for others."""
    root = Path(os.path.realpath(folder))
    try:
        path = Path(os.path.realpath(root / file))
        regular = path.is_file()
    except (OSError, ValueError):  # too long, a zero byte
        path, regular = root, False
    hidden = any(part.startswith(".") for part in path.parts[len(root.parts) :])
    if not path.is_relative_to(root) or hidden or not regular:
        raise UserError(f"{file[:200]!r} is no file in the folder of prompts", field="file")
    return path


def parse(asked: str) -> list[Part]:
    """Read ``name``, ``name@number``, and several of these with + between them.

    Raises UnknownPromptError for what can be no such name.

    >>> parse("manual@2+style")
    [Part(name='manual', number=2), Part(name='style', number=None)]
    """
    words = asked.split("+")
    if len(words) > MOST_PARTS:
        raise UnknownPromptError(f"'{asked[:100]}' joins more than {MOST_PARTS} prompts")
    parts = []
    for word in words:
        name, sign, number = word.partition("@")
        if not _NAME.fullmatch(name) or (sign and not _NUMBER.fullmatch(number)):
            raise UnknownPromptError(f"there is no prompt '{asked[:100]}'")
        parts.append(Part(name, int(number) if sign else None))
    return parts
