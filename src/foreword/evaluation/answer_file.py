"""Answers to many rows, written as they come: what is stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foreword.data.bad_rows import BadRows, OnBad, refuse
from foreword.data.formats import TABLES
from foreword.data.row import Row
from foreword.data.write import write_rows
from foreword.errors import UserError
from foreword.evaluation.answer_columns import (
    answer_columns,
    answer_rows,
    free_name,
    usable_row,
)
from foreword.files import file_to_write
from foreword.prompt.abstain import is_unsure
from foreword.prompt.answerer import Answerer
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Bound

AT_ONCE = 1000
"""Rows that are answered together and then written; a run goes on behind a whole such part."""


@dataclass(frozen=True)
class Answered:
    """What came of a file of rows: how many, and how many were cut, left blank or not answered.

    ``renamed`` are the columns of answers that bear another name, since the rows have theirs.
    """

    rows: int
    cut: int
    blank: int
    unanswered: int
    renamed: Mapping[str, str]


def partial_path(out: Path) -> Path:
    """Return where answers are kept until all are there, one JSON line a row."""
    target = file_to_write(out)
    return target.with_name(f"{target.name}.partial")


def answer_file(
    tuned: Answerer,
    rows: Callable[[], Iterable[Row]],
    out: Path,
    *,
    settings: Mapping[str, Any],
    like: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    least: float | None = None,
    bad: BadRows | None = None,
    hear: Callable[[dict[str, Any]], None] | None = None,
    report: Reporter = SILENT,
) -> Answered:
    """Write rows with their answers to a file, in memory for ``AT_ONCE`` of them.

    ``rows`` reads them anew at each call. All rows are checked before the first is answered. The
    answers stand in ``OUT.partial`` until all are there; then ``out`` is written, whole, and that
    file removed. After a stop the same call goes on, and its end is that of an unbroken run.
    ``settings`` are what else the answers depend on; ``columns`` and ``least`` are those of
    ``answer_rows`` and ``with_answers``, ``like`` that of ``write_rows``. ``bad`` collects rows
    that cannot be answered, which stay without an answer. ``hear`` is given each row as written.

    Raises UserError for rows that cannot be answered, without ``bad`` or if all are, and for a
    partial file of other rows, another prompt or other settings, or that another run writes to.
    """
    bound, table = tuned.bound, out.suffix.lower() in TABLES
    seen = _survey(
        rows(), lambda row: usable_row(row, bound, columns), refuse if bad is None else bad
    )
    if bad is not None:
        bad.check(seen.rows > len(bad.errors))
    asked = {**settings, "columns": dict(columns or {}), "least": least, "table": table}
    about = {"rows": seen.digest, "settings": json.loads(json.dumps(asked, default=str))}
    partial = partial_path(out)
    with _alone(partial):
        done = _kept(partial, out, about)
        if done:
            report.line(f"{partial}: {done} of {seen.rows} rows are answered already")
        try:
            with (
                _appending(partial) as file,
                report.bar("predicting", seen.rows - done) as progress,
            ):
                left = islice(iter(rows()), done, None)
                while part := list(islice(left, AT_ONCE)):
                    found = answer_rows(
                        tuned, part, columns=columns, on_bad=_pass_over, progress=progress
                    )
                    file.writelines(_line_of(each, bound, least, table) for each in found)
                    file.flush()
                    os.fsync(file.fileno())
        except KeyboardInterrupt as error:
            stopped = f"stopped; {partial} keeps what is answered, and the same command goes on"
            raise type(error)(stopped) from None
        counts, names = [0, 0, 0], dict[str, None]()
        for made, *marks in _lines(partial):
            names.update(dict.fromkeys(made))
            counts = [a + b for a, b in zip(counts, marks, strict=True)]
        called = {name: free_name(name, seen.fields) for name in names}

        def lines() -> Iterator[dict[str, Any]]:
            for row, (made, *_) in zip(rows(), _lines(partial), strict=True):
                line = {**row.fields, **{called[name]: made.get(name) for name in names}}
                if hear is not None:
                    hear(line)
                yield line

        write_rows(out, lines, like=like, columns=[*seen.fields, *called.values()])
        partial.unlink()
    renamed = {name: other for name, other in called.items() if name != other}
    return Answered(seen.rows, counts[0], counts[1], counts[2], renamed)


@dataclass(frozen=True)
class _Survey:
    rows: int
    fields: Mapping[str, None]
    digest: str


def _survey(rows: Iterable[Row], check: Callable[[Row], object], on_bad: OnBad) -> _Survey:
    """Check all rows; return their number, the names of their fields, and a digest of them."""
    count, fields, digest = 0, dict[str, None](), hashlib.sha256()
    for row in rows:
        count += 1
        fields.update(dict.fromkeys(row.fields))
        digest.update(json.dumps(dict(row.fields), default=str).encode() + b"\n")
        try:
            check(row)
        except UserError as error:
            on_bad(error)
    return _Survey(count, fields, digest.hexdigest())


def _line_of(
    answer: Mapping[str, Any] | None, bound: Bound, least: float | None, as_table: bool
) -> bytes:
    """Return the line of a partial file that keeps an answer, None for a row that has none."""
    made = answer_columns(bound, answer, least, as_table=as_table)
    cut = answer is not None and bool(answer["cut"])
    unsure = answer is not None and is_unsure(bound, answer, least)
    return (
        json.dumps([made, int(cut), int(unsure), int(answer is None)], default=str).encode() + b"\n"
    )


def _pass_over(error: UserError) -> None:
    """Leave a row out that the survey has told of."""


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Keep a partial file from other runs; raises UserError where one writes to it."""
    path = partial.with_name(f"{partial.name}.lock")
    lock = FileLock(path)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{partial}: another run writes its answers there; wait for its end, or name another "
            "file"
        ) from None
    except OSError as error:
        raise _unwritable(partial, error) from None
    try:
        yield
    finally:
        with suppress(OSError):  # an open file, on Windows
            path.unlink()
        lock.release()


def _kept(partial: Path, out: Path, about: Mapping[str, Any]) -> int:
    """Begin a partial file, or cut one to its whole parts; return how many rows it holds."""
    head = json.dumps(about).encode() + b"\n"
    try:
        if not partial.exists() or partial.stat().st_size < len(head):
            partial.write_bytes(head)
            return 0
        with partial.open("r+b") as file:
            if file.readline() != head:
                raise UserError(
                    f"{partial}: holds answers to other rows, of another prompt or with other "
                    f"settings; delete it, or name another file than {out}"
                )
            done, whole = 0, file.tell()
            for number, line in enumerate(iter(file.readline, b""), start=1):
                if not line.endswith(b"\n"):
                    break
                if number % AT_ONCE == 0:
                    done, whole = number, file.tell()
            file.truncate(whole)
            return done
    except OSError as error:
        raise _unwritable(partial, error) from None


def _appending(partial: Path) -> Any:
    try:
        return partial.open("ab")
    except OSError as error:
        raise _unwritable(partial, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror}); name another file")


def _lines(partial: Path) -> Iterator[list[Any]]:
    """Yield what a partial file holds: an answer's columns, and whether it is cut, blank, none."""
    with partial.open("rb") as file:
        file.readline()
        for line in file:
            yield json.loads(line)
