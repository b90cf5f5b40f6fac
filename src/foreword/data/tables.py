"""Tables written as text: cells between commas, semicolons, tabs or bars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from foreword.data.bad_rows import OnBad
from foreword.data.row import Row
from foreword.errors import UserError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""The signs that are looked for between cells, with their names."""

SAMPLE = 200
"""Rows from which the delimiter is found."""

_LINE_END = re.compile("\r\n|\n|\r")
_EXCEL = re.compile('\ufeff?"?sep=(.)"?(?:\r\n|\n|\r)')
"""The line with which Excel is told the delimiter of a file."""


def read_table(text: str, name: str, *, delimiter: str | None, on_bad: OnBad) -> Iterator[Row]:
    """Read rows of cells under a header; all cells are texts. ``delimiter`` None finds it.

    Where quotes make rows uneven, and without them all rows have as many cells, they are text.
    ``on_bad`` is given the error of each row that has other cells than the header.
    """
    sign = delimiter or find_delimiter(text)
    rows = list(cells(text, sign))
    if not _even(rows) and _even(plain := list(cells(text, sign, quoted=False))):
        rows = plain
    called = DELIMITERS.get(sign or ",", f"'{sign}'")
    mend = f"fill the row, or quote a cell that holds a {called}"
    return under_header(rows, name, mend=mend, on_bad=on_bad)


def under_header(
    rows: Iterable[tuple[int, Sequence[str]]],
    name: str,
    *,
    mend: str,
    on_bad: OnBad,
) -> Iterator[Row]:
    """Yield rows of cells, each with its line, as rows of the fields that the first one names.

    Rows without any text are left out, and so are empty cells behind the last column.
    """
    filled = _filled(rows)
    line, first = next(filled, (1, ()))
    header = name_columns(first, f"{name}:{line}")
    for line, row in filled:
        if len(row) < len(header) or any(map(str.strip, row[len(header) :])):
            counted = f"cells in this row: {len(row)}, in the header: {len(header)}"
            on_bad(UserError(f"{name}:{line}: {counted} ({', '.join(header)}); {mend}"))
            continue
        yield Row(dict(zip(header, row, strict=False)), f"{name}:{line}")


def name_columns(header: Sequence[str], where: str) -> list[str]:
    """Return the names of a header's columns, up to the last that has one.

    Raises UserError for two columns of one name.
    """
    names = [column.strip() for column in header]
    while names and not names[-1]:
        names.pop()
    for column in names:
        if names.count(column) > 1:
            called = f"are named '{column}'; rename one" if column else "have no name; name them"
            raise UserError(f"{where}: two columns {called}")
    return names


def parse_delimiter(word: str) -> str:
    """Return the sign between cells that a word names, or the word if it is one sign.

    Raises UserError for any other word.
    """
    named = {name: sign for sign, name in DELIMITERS.items()} | {"\\t": "\t"}
    sign = named.get(word, word)
    if len(sign) != 1 or sign in '"\r\n':
        raise UserError(
            f"`delimiter={word}`: give one sign, or one of the words {', '.join(named)[:-4]}"
        )
    return sign


def find_delimiter(text: str) -> str | None:
    """Return the sign that parts the header and most rows into as many cells; None for no sign."""
    if said := _EXCEL.match(text):
        return said[1]

    def shape(sign: str) -> tuple[bool, float, int, int]:
        rows = [row for _, row in islice(_filled(cells(text, sign)), SAMPLE)]
        header, *widths = [len(row) for row in rows] or [1]
        same = sum(width == header for width in widths) / max(1, len(widths))
        open_quotes = sum(cell.startswith('"') for row in rows for cell in row)
        return header > 1, same, -open_quotes, header

    best = max(DELIMITERS, key=shape)
    return best if shape(best)[0] else None


def _even(rows: Iterable[tuple[int, Sequence[str]]]) -> bool:
    return len({len(row) for _, row in _filled(rows)}) == 1


def _filled(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, Sequence[str]]]:
    return ((line, row) for line, row in rows if any(map(str.strip, row)))


def cells(
    text: str, delimiter: str | None, *, quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the cells of each row, with the line that it starts on.

    A cell is quoted if its first sign is a quote, and the quote that ends it stands before a
    delimiter or the end of a line. Quotes inside it are doubled (RFC 4180); where they are not, it
    ends on its line. All other quotes are text, or all where no cell is ``quoted``. Without a
    delimiter a row is one cell.

    >>> [row for _, row in cells('"a;b";"c" d\n"e;f', ";")]
    [['a;b', '"c" d'], ['"e', 'f']]
    """
    sign = "" if delimiter is None else re.escape(delimiter)
    end = rf"(?=[\r\n{sign}]|\Z)"
    quote = '"' if quoted else r"\Z\A"  # which matches nothing
    cell = re.compile(
        rf'{quote}(?P<doubled>(?:[^"]++|"")*+)"{end}|{quote}(?P<single>[^\r\n]*?)"{end}'
        rf"|[^\r\n{sign}]*"
    )
    at, line = 0, 1
    if said := _EXCEL.match(text):
        at, line = said.end(), 2
    while at < len(text):
        start, row = at, []
        while True:
            match = cell.match(text, at)
            assert match is not None, "the last of its ways matches anything"
            inside = match["doubled"] if match["single"] is None else match["single"]
            row.append(match[0] if inside is None else inside.replace('""', '"'))
            at = match.end()
            if at == len(text) or text[at] != delimiter:
                break
            at += 1
        if broken := _LINE_END.match(text, at):
            at = broken.end()
        yield line, row
        line += len(_LINE_END.findall(text, start, at))
