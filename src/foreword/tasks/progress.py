"""Progress over rows that are asked in several parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def by_owner(
    progress: Callable[[int], None] | None, owners: Sequence[int]
) -> Callable[[Iterable[int]], None]:
    """Return what is told of parts, by number, and tells of an owner with the last of its parts."""
    left = Counter(owners)

    def told(parts: Iterable[int]) -> None:
        done = [owners[n] for n in parts]
        left.subtract(done)
        if progress is not None:
            progress(len({owner for owner in done if not left[owner]}))

    return told
