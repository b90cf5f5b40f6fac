"""Live bars on a terminal, with a table of what goes on above them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text


class Bars(Progress):
    """Bars, and a table above them that is shown anew as it changes."""

    above: Table | None = None

    def show_above(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show another table; without rows there is none."""
        table = None
        if rows:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for name in header:
                table.add_column(name, overflow="ellipsis", no_wrap=True)
            for row in rows:
                table.add_row(*map(Text, row))
        self.above = table
        self.refresh()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn: the table, then the bars."""
        if self.above is not None:
            yield self.above
        yield from super().get_renderables()
