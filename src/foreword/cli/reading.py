"""How commands read rows: columns, delimiters, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter

from foreword.cli.panels import DATA
from foreword.cli.terminal import CommandTerminal
from foreword.cli.words import columns
from foreword.data.bad_rows import BadRows, OnBad, convert, refuse
from foreword.data.read import iterate_rows, read_rows
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first
from foreword.data.shapes import canonical, require
from foreword.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.tasks.base import Bound, Task


@dataclass(frozen=True)
class Table:
    """How a file of rows is read."""

    columns: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, help="name=column: read a field from another column"),
    ] = None
    delimiter: Annotated[
        str | None, Parameter(help="the sign between cells of a CSV file, or tab; else it is found")
    ] = None
    encoding: Annotated[
        str | None, Parameter(help="that of files that are not UTF-8, such as gb18030")
    ] = None

    @property
    def named(self) -> dict[str, str]:
        """The fields that are read from other columns."""
        return columns(self.columns)

    def read(
        self,
        source: str,
        split: Sequence[str] | None = None,
        *,
        renamed: bool = True,
        on_bad: OnBad = refuse,
    ) -> list[Row]:
        """Read all rows, and say on standard error what had to be guessed."""
        return read_rows(
            source,
            columns=self.named if renamed else None,
            split=split,
            delimiter=self.delimiter,
            encoding=self.encoding,
            on_bad=on_bad,
            report=CommandTerminal(),
        )

    def iterate(
        self, source: str, split: Sequence[str], on_bad: OnBad, report: Reporter = SILENT
    ) -> Iterator[Row]:
        """Yield all rows as they stand; ``report`` hears what had to be guessed."""
        return iterate_rows(
            source,
            split=split,
            delimiter=self.delimiter,
            encoding=self.encoding,
            on_bad=on_bad,
            report=report,
        )


@dataclass(frozen=True)
class Reading(Table):
    """How rows are read to be learned or answered."""

    skip_bad: Annotated[
        bool, Parameter(help="leave out rows that cannot be used, and say which")
    ] = False

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Return how the plain settings of a run say that rows are read."""
        names = ("columns", "delimiter", "encoding", "skip_bad")
        return cls(**{name: plain[name] for name in names})

    def rows(
        self,
        source: str,
        split: Sequence[str] | None = None,
        *,
        fields: Sequence[str] = (),
        check: Callable[[Row], None] = lambda row: None,
        targets: bool = True,
        n: int | None = None,
        seed: int = 0,
    ) -> list[Row]:
        """Read all rows, or the first ``n`` after shuffling with the seed.

        ``split`` has the names that the split of a data set may have, DEV or TEST. Where bad rows
        are left out, these are also the ones in which a field of ``fields`` is empty, and those for
        which ``check`` raises UserError. Without ``targets`` rows may lack their answers.
        """
        if self.skip_bad:
            bad = BadRows()
            rows = self.read(source, split, on_bad=bad)
            rows = canonical(rows, targets=targets, on_bad=bad)[1]
            rows = list(convert(rows, lambda row: _filled(row, fields, check), bad))
            say(bad, rows)
        else:
            rows = self.read(source, split)
        return rows if n is None else first(rows, n, seed)

    def usable(self, rows: Sequence[Row], bound: Bound) -> list[Row]:
        """Leave out rows that a task cannot learn or score, where bad rows are, and say which.

        Only a task with its labels knows these: a label that it has not, a text that is too long.
        """
        if not self.skip_bad:
            return list(rows)

        def checked(row: Row) -> Row:
            bound.check([row], answers=True)
            return row

        bad = BadRows()
        kept = list(convert(rows, checked, bad))
        say(bad, kept)
        return kept

    def usable_by(
        self, task: Task, backbone: Backbone, train: Sequence[Row], *more: Sequence[Row] | None
    ) -> list[Any]:
        """Return what of the rows is usable by a task that is completed from those of ``train``."""
        rows = as_rows(train)
        bound = task.complete(rows, backbone).bind(backbone)
        return [each and self.usable(as_rows(each), bound) for each in (rows, *more)]


Read = Annotated[Reading, Parameter(name="*", group=DATA)]
USUAL = Reading()
ReadTable = Annotated[Table, Parameter(name="*", group=DATA)]
USUAL_TABLE = Table()


def say(bad: BadRows, kept: object) -> None:
    """Say which rows are left out; raises UserError where none is kept."""
    bad.check(kept)
    for line in bad.lines():
        CommandTerminal().line(line)


def _filled(row: Row, fields: Sequence[str], check: Callable[[Row], None]) -> Row:
    require([row], [name for name in fields if name in row.fields])
    check(row)
    return row
