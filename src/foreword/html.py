"""Tables as HTML, for the output of a notebook's cell; everything in them is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; without a header, the first cell of a row is its name.

    >>> html_table(["a"], [["<b>"]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    head = f"<tr>{''.join(_cell('th', each) for each in header)}</tr>" if header else ""
    body = []
    for row in rows:
        cells = [_cell("td" if header or n else "th", each) for n, each in enumerate(row)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(body)}</table>"


def _cell(kind: str, value: object) -> str:
    text = escape(str(value)).replace("\n", "<br>")
    return f"<{kind}>{text}</{kind}>"
