"""Progress over rows that are read in several parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def report_by_row(
    progress: Callable[[int], None] | None, owners: Sequence[int]
) -> Callable[[Iterable[int]], None]:
    """Return a function to call with the parts that are done, by number.

    It calls ``progress`` with the number of rows whose last part is among them; ``owners`` gives
    the row of each part.
    """
    left = Counter(owners)

    def report(parts: Iterable[int]) -> None:
        done = [owners[part] for part in parts]
        left.subtract(done)
        if progress is not None:
            progress(len({owner for owner in done if not left[owner]}))

    return report
