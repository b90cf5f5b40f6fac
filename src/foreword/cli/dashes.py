"""Values and texts that begin with a dash: ``--labels -1=bad``, ``--data -``, ``"-5 degrees"``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cyclopts import UNSET, App
from cyclopts.argument import ArgumentCollection

FLAG = re.compile(r"--?[a-z][\w.-]*(=.*)?", re.IGNORECASE | re.DOTALL)
"""What is read as a flag, known or not; other words that begin with a dash are values or texts."""


def is_value(word: str) -> bool:
    """Tell a value or a text that begins with a dash from a flag.

    >>> [is_value(word) for word in ("-", "-1=bad", "- {text}", "-5 degrees", "-h", "--lr", "--")]
    [True, True, True, True, False, False, False]
    """
    return word.startswith("-") and word != "--" and FLAG.fullmatch(word) is None


def with_dashes(app: App, words: Sequence[str]) -> list[str]:
    """Write a command so that words which begin with a dash are read as what they are.

    A value is joined to its flag, ``--labels=-1=bad``, and texts are put behind ``--``.
    """
    given = list(words)
    end = given.index("--") if "--" in given else len(given)
    if not any(map(is_value, given[:end])):
        return given
    command, apps, rest = app.parse_commands(given[:end])
    if apps[-1].default_command is None:  # an app of commands alone, which takes no values
        return given
    arguments = apps[-1].assemble_argument_collection()
    made: list[str] = []
    texts: list[str] = []
    owner, several = "", False  # the flag whose values come next
    for word in rest:
        if word.startswith("-") and not is_value(word):
            made.append(word)
            owner, joined, _ = word.partition("=")
            takes, several = _takes(arguments, owner)
            owner = owner if takes and (several or not joined) else ""
        elif not owner:
            texts.append(word)
        else:
            if word.startswith("-") and made[-1] == owner:
                made[-1] = f"{owner}={word}"
            else:
                made.append(f"{owner}={word}" if word.startswith("-") else word)
            owner = owner if several else ""
    texts += given[end + 1 :]
    return [*command, *made, *(["--", *texts] if texts else [])]


def _takes(arguments: ArgumentCollection, flag: str) -> tuple[bool, bool]:
    """Return whether a flag takes a value, and whether it takes several."""
    try:
        argument, _, implied = arguments.match(flag)
    except ValueError:  # no such flag, which is told when the command is read
        return False, False
    several = argument.parameter.consume_multiple is not None and argument.token_count()[1]
    return implied is UNSET, several
