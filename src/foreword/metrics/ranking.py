"""Ranking: hit rates, NDCG and MRR."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from foreword.metrics.resample import bootstrap, check_rows

CUTS = (1, 3, 10)


def ranking(
    scores: Sequence[Sequence[float]],
    right: Sequence[Collection[int]],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Hit@k, NDCG@10 and MRR of lists, each with the places of its right items, in percent points.

    ``hit_k``: share of rows with a right item among the first k, for each k of 1, 3 and 10 that is
    shorter than the shortest list. ``ndcg_10`` (Järvelin and Kekäläinen 2002): gains of 1 for a
    right item, discounted by log2(rank + 1). ``mrr``: mean of 1 / rank of the first right item.
    Of items with equal scores the wrong ones come first, so that a list that tells nothing apart
    earns nothing. Raises `UserError` if there are no rows, and `ValueError` if the lengths differ
    or a row has no right item.
    """
    check_rows(len(scores), len(right))
    found_at = [ranks(own, places) for own, places in zip(scores, right, strict=True)]
    shortest = min(map(len, scores))
    found = {
        f"hit_{k}": [float(own[0] <= k) for own in found_at] for k in CUTS if k == 1 or k < shortest
    }
    found["ndcg_10"] = [_ndcg(own, 10) for own in found_at]
    found["mrr"] = [1 / own[0] for own in found_at]
    intervals = {name: bootstrap(each, seed, resamples) for name, each in found.items()}
    return {
        "rows": len(found_at),
        "candidates": round(float(np.mean([len(own) for own in scores])), 1),
        **{name: round(each.value, 2) for name, each in intervals.items()},
        "intervals": {name: each.bounds() for name, each in intervals.items()},
    }


def ranks(scores: Sequence[float], right: Collection[int]) -> list[int]:
    """Return the ranks of the right items, from 1, best first; of equal scores wrong ones lead."""
    if not right:
        raise ValueError("a row has no right item")
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n in right))
    return [rank for rank, n in enumerate(order, 1) if n in right]


def _ndcg(ranks: Sequence[int], k: int) -> float:
    gained = sum(1 / np.log2(rank + 1) for rank in ranks if rank <= k)
    best = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(ranks), k) + 1))
    return float(gained / best)
