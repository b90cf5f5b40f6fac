"""The learning rate test as a table with bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar
from rich.table import Table

LINES = 24
"""Lines of the table at most."""


def learning_rates(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> Table:
    """Draw the smoothed loss as bars, a line a rate, the suggested one marked."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("rate", justify="right")
    made.add_column("loss", justify="right")
    made.add_column("", width=50)
    least = min(losses)
    most = max(losses[0], least * 1.5)
    step = max(1, -(-len(rates) // LINES))
    shown = {*range(0, len(rates), step), rates.index(suggestion)}
    for place in sorted(shown):
        rate, loss = rates[place], losses[place]
        mark = " <" if rate == suggestion else ""
        width = min(loss, most) - 0.8 * least
        made.add_row(f"{rate:.1e}", f"{loss:.3f}{mark}", Bar(most - 0.8 * least, 0, width))
    return made
