"""Tables written as text: cells between commas, semicolons, tabs or bars."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from foreword.data.bad_rows import OnBad
from foreword.data.encodings import Parts
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.reporter import SILENT, Reporter

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""The signs that are looked for between cells, with their names."""

SAMPLE = 200
"""Rows from which the delimiter is found."""

_LINE_END = re.compile("\r\n|\n|\r")
_EXCEL = re.compile('\ufeff?"?sep=(.)"?(?:\r\n|\n|\r)')
"""The line with which Excel is told the delimiter of a file."""

EXCEL = 16
"""Signs of a text among which such a line ends."""


def read_table(
    text: Parts, name: str, *, delimiter: str | None, on_bad: OnBad, report: Reporter = SILENT
) -> Iterator[Row]:
    """Read rows of cells under a header; all cells are texts. ``delimiter`` None finds it.

    The text is read once to see how its rows are written, and once more for the rows, of which one
    is in memory. Where quotes make rows uneven, and without them all rows have as many cells, they
    are text.
    ``on_bad`` is given the error of each row that has other cells than the header; ``report`` hears
    of what may be meant otherwise: cells over several lines, and one column that may be several.
    """
    sign = delimiter or find_delimiter(text)

    def quoted(hears: Reporter) -> Iterator[tuple[int, list[str]]]:
        return _stray_quotes_as_text(_scan(text(), sign), sign, name, hears)

    def plain() -> Iterator[tuple[int, list[str]]]:
        return cells(text(), sign, quoted=False)

    rows: Callable[[], Iterator[tuple[int, list[str]]]] = partial(quoted, SILENT)
    if not _even(quoted(report)) and _even(plain()):
        rows = plain
    if other := other_delimiter(row for _, row in islice(_filled(rows()), SAMPLE)):
        one = len(other) == 1 and other.isprintable()
        mend = f"give `delimiter={other}`" if one else "write a tab in its place"
        report.line(f"{name}: read as one column; if {other!r} parts its cells, {mend}")
    called = DELIMITERS.get(sign or ",", f"'{sign}'")
    mend = f"fill the row, or quote a cell that holds a {called}"
    _, header = next(_filled(rows()), (1, []))
    return under_header(_without_margins(rows(), header), name, mend=mend, on_bad=on_bad)


def _stray_quotes_as_text(
    rows: Iterable[tuple[int, list[str], str]],
    sign: str | None,
    name: str,
    report: Reporter,
) -> Iterator[tuple[int, list[str]]]:
    """Yield rows; one over several lines, each of which is a whole row by itself, line by line.

    This is so between tabs, which texts seldom hold, and where the row has other cells than the
    header. In other tables "Hello, you" with a line break in it looks the same, and stays.
    """
    width, doubtful = 0, []
    for line, row, written in rows:
        width = width or (len(row) if any(map(str.strip, row)) else 0)
        more = sum(len(_LINE_END.findall(cell)) for cell in row)
        if not more:
            yield line, row
            continue
        inside = enumerate(_LINE_END.split(written)[: more + 1], start=line)
        parts = [(n, next(cells(each, sign))[1]) for n, each in inside if each.strip()]
        whole = all(len(part) == width for _, part in parts)
        if whole and (sign == "\t" or len(row) != width):
            yield from parts
            continue
        if whole or sign == "\t":
            doubtful.append(f"{name}:{line}: a quoted cell goes over {more + 1} lines")
        yield line, row
    if doubtful:
        others = f" (and so do {len(doubtful) - 1} more)" if doubtful[1:] else ""
        report.line(f"{doubtful[0]}{others}; if its quotes are text, double and quote them")


def _without_margins(
    rows: Iterable[tuple[int, list[str]]], header: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
    """Leave out the spaces behind delimiters, or before them, where all of the header have one."""
    left = len(header) > 1 and all(cell.startswith(" ") for cell in header[1:])
    right = len(header) > 1 and all(cell.endswith(" ") for cell in header[:-1])
    for line, row in rows:
        if left:
            row = [*row[:1], *(cell.lstrip(" ") for cell in row[1:])]
        if right:
            row = [*(cell.rstrip(" ") for cell in row[:-1]), *row[-1:]]
        yield line, row


def other_delimiter(rows: Iterable[Sequence[str]]) -> str | None:
    """Return signs that part the only column into as many cells in the header and in all rows."""
    sample = list(rows)
    if len(sample) < 2 or any(len(row) > 1 for row in sample):
        return None
    columns = [row[0] for row in sample]
    for found in re.finditer(r"([^\w\s\"'.-])\1*|[\t\x00-\x08\x1f]", columns[0]):
        if {cell.count(found[0]) for cell in columns} == {columns[0].count(found[0])}:
            return found[0]
    return None


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


def find_delimiter(text: Parts) -> str | None:
    """Return the sign that parts the header and most rows into as many cells; None for no sign."""
    if said := _EXCEL.match(_grown("", iter(text()), EXCEL)[0]):
        return said[1]

    def shape(sign: str) -> tuple[bool, float, int, int]:
        rows = [row for _, row in islice(_filled(cells(text(), sign)), SAMPLE)]
        header, *widths = [len(row) for row in rows] or [1]
        same = sum(width == header for width in widths) / max(1, len(widths))
        open_quotes = sum(cell.lstrip(" ").startswith('"') for row in rows for cell in row)
        return header > 1, same, -open_quotes, header

    best = max(DELIMITERS, key=shape)
    return best if shape(best)[0] else None


def _even(rows: Iterable[tuple[int, Sequence[str]]]) -> bool:
    return len({len(row) for _, row in _filled(rows)}) == 1


def _filled(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, Sequence[str]]]:
    return ((line, row) for line, row in rows if any(map(str.strip, row)))


def cells(
    text: str | Iterable[str], delimiter: str | None, *, quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the cells of each row, with the line that it starts on; a text may come in parts.

    A cell is quoted if its first sign is a quote, and the quote that ends it stands before a
    delimiter or the end of a line; spaces around the quotes are no part of it. Quotes inside it are
    doubled (RFC 4180); where they are not, it ends on its line. All other quotes are text, or all
    where no cell is ``quoted``. Without a delimiter a row is one cell.

    >>> [row for _, row in cells('"a;b";"c" d\n"e;f', ";")]
    [['a;b', '"c" d'], ['"e', 'f']]
    """
    return ((line, row) for line, row, _ in _scan(text, delimiter, quoted=quoted))


def _scan(
    text: str | Iterable[str], delimiter: str | None, *, quoted: bool = True
) -> Iterator[tuple[int, list[str], str]]:
    """Yield the line, the cells and the text of each row; no more of the text is held than needed.

    A row is cut out where its end is certain: behind it stands another sign, and no quote is open.
    """
    sign = "" if delimiter is None else re.escape(delimiter)
    end = rf"(?=[\r\n{sign}]|\Z)"
    pad = "" if delimiter == " " else " *+"
    quote = f'{pad}"' if quoted else r"\Z\A"  # which matches nothing
    cell = re.compile(
        rf'{quote}(?P<doubled>(?:[^"]++|"")*+)"{pad}{end}|{quote}(?P<single>[^\r\n]*?)"{pad}{end}'
        rf"|[^\r\n{sign}]*"
    )
    unended = re.compile(rf'{quote}(?:[^"]++|"")*+\Z')
    parts = iter([text] if isinstance(text, str) else text)
    held, whole = _grown("", parts, EXCEL)
    at, line = 0, 1
    if said := _EXCEL.match(held):
        at, line = said.end(), 2
    while not (whole and at == len(held)):
        start, row, certain = at, [], True
        while True:
            match = cell.match(held, at)
            assert match is not None, "the last of its ways matches anything"
            inside = match["doubled"] if match["single"] is None else match["single"]
            row.append(match[0] if inside is None else inside.replace('""', '"'))
            certain = certain and (match["doubled"] is not None or not unended.match(held, at))
            at = match.end()
            if at == len(held) or held[at] != delimiter:
                break
            at += 1
        if broken := _LINE_END.match(held, at):
            at = broken.end()
        if not whole and (not certain or at == len(held)):
            held, whole = _grown(held[start:], parts, 2 * (len(held) - start))
            at = 0
            continue
        yield line, row, held[start:at]
        line += len(_LINE_END.findall(held, start, at))


def _grown(text: str, parts: Iterator[str], least: int) -> tuple[str, bool]:
    """Return a text with parts behind it, at least so long, and whether there are no more."""
    held, size = [text], len(text)
    for part in parts:
        held.append(part)
        size += len(part)
        if size > least:
            return "".join(held), False
    return "".join(held), True
