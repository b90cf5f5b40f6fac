"""Lists that a table holds as texts: as JSON, Python, pandas or numpy write them."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from foreword.data.row import Row
from foreword.data.values import plain
from foreword.errors import UserError

_PIECE = re.compile(
    r"""(?P<opens>array\(|[\[({])|(?P<value>'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|[^\s\[\](){},:'"]+)"""
    r"""|(?P<closes>,\s*dtype=[^)]*\)|[\])}])|(?P<between>[,:])|\s+""",
    re.DOTALL,
)
_CUT_OFF = re.compile(
    r"""\[\s*(?:'[^']*|"[^"]*|(?:'[^']*'|"[^"]*")\s*,(?:.*[^\]\s])?)\s*""", re.DOTALL
)
"""A list of texts that does not end: in the middle of the first one, or behind a comma."""

_PLAINLY = re.compile(r"""\[(?:['"\d][^\[\]]*|(?!\s)[^\[\]]*,[^\[\]]*)(?<!\s)\]""", re.DOTALL)


def parsed(text: str) -> list[Any] | dict[str, Any] | None:
    """Return the list or object that a text is; None for all other texts.

    >>> parsed('["a", "b"]'), parsed("['a', 'b']"), parsed("['a' 'b']"), parsed("a, b")
    (['a', 'b'], ['a', 'b'], ['a', 'b'], None)
    """
    text = text.strip()
    if not re.match(r"""\[.*\]\Z|array\(.*\)\Z|\{.*\}\Z|\(\s*['"].*\)\Z""", text, re.DOTALL):
        return None
    try:
        made = json.loads(text)
    except (ValueError, RecursionError):
        try:
            made = plain(ast.literal_eval(_with_commas(text)))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
    return made if isinstance(made, list | dict) else None


def is_broken(text: str) -> bool:
    """Tell whether a text is plainly a list and cannot be read, as one that is cut off.

    >>> [is_broken(text) for text in ("['warm',", "['wa", "[a, b]", "['a']", "[sic] a, b")]
    [True, True, True, False, False]
    """
    text = text.strip()
    return parsed(text) is None and bool(_PLAINLY.fullmatch(text) or _CUT_OFF.fullmatch(text))


def listed(row: Row, field: str) -> Any:
    """Return the value of a row's field, where it is a text that is a list, the list.

    Raises UserError for a text that is plainly a list and cannot be read: cut off in the middle, or
    with texts that are not in quotes.
    """
    value = row.fields[field]
    if not isinstance(value, str):
        return value
    made = parsed(value)
    if is_broken(value):
        raise UserError(
            f'{row.where}: field "{field}" is a list written as text that cannot be read; write it '
            'as ["a", "b"]',
            field=field,
        )
    return value if made is None else made


def _with_commas(text: str) -> str:
    """Put commas between the values of arrays, which numpy writes without.

    Raises ValueError for what no list has: an ellipsis, or quotes that do not pair up.
    """
    made, at, ended = "", 0, False
    while at < len(text):
        match = _PIECE.match(text, at)
        begins = match is not None and (match["value"] or match["opens"])
        if match is None or match[0] == "..." or (ended and begins and not text[at - 1].isspace()):
            raise ValueError(text)
        at = match.end()
        if match[0].isspace():
            made += " "
            continue
        piece = match["value"] or match[0].removeprefix("array")
        piece = ")" if match["closes"] and match[0].startswith(",") else piece
        made += f",{piece}" if ended and begins else piece
        ended = bool(match["value"] or match["closes"])
    return made
