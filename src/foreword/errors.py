"""The one exception that stands for a user's mistake rather than a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: one line saying what, where, and how.

    The command line prints it without a traceback and exits with status 2. ``field`` is the field
    of a row that is wrong, where it is one.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows below a cell in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


LONG = 20
"""More known words than this are not listed where one of them is meant."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the closest known word and list the rest, for the tail of an error line.

    A long list is left out beside a close word.

    >>> nearest("sfot", ["soft", "prefix"])
    "did you mean 'soft'? (known: soft, prefix)"
    >>> nearest("lora", ["soft", "prefix"]), nearest("lora", ["soft"]), nearest("lora", [])
    ('known are: soft, prefix', 'known is: soft', 'none is known')
    """
    names = list(known)
    listed = ", ".join(names)
    if close := difflib.get_close_matches(word, names, n=1):
        meant = f"did you mean '{close[0]}'?"
        return meant if len(names) > LONG else f"{meant} (known: {listed})"
    if not names:
        return "none is known"
    return f"known {'are' if names[1:] else 'is'}: {listed}"


def meant(word: str, known: Iterable[str]) -> str:
    """Name the closest known word, to stand behind the one that is wrong; "" where none is close.

    >>> meant("lable", ["text", "label"]), meant("lable", ["text"])
    (" (did you mean 'label'?)", '')
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
