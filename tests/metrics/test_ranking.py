"""Scores of rankings, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from foreword.errors import UserError
from foreword.metrics.ranking import ranking, ranks


def test_by_hand() -> None:
    scores = [[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1], [1.0, 2.0, 3.0, 4.0]]
    found = ranking(scores, [{1}, {1}, {0}])
    assert (found["hit_1"], found["hit_3"]) == (33.33, 66.67)
    assert found["mrr"] == round(100 * (1 + 1 / 2 + 1 / 4) / 3, 2)
    assert found["candidates"] == 4.0
    assert "hit_10" not in found


def test_ndcg_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((50, 20))
    gains = (rng.random((50, 20)) < 0.15).astype(float)
    gains[gains.sum(1) == 0, 3] = 1
    right = [set(np.flatnonzero(row).tolist()) for row in gains]
    found = ranking(scores.tolist(), right)
    assert found["ndcg_10"] == pytest.approx(100 * ndcg_score(gains, scores, k=10), abs=0.006)
    assert {"hit_1", "hit_3", "hit_10"} <= found.keys()
    low, high = found["intervals"]["ndcg_10"]
    assert low < found["ndcg_10"] < high


def test_equal_scores_earn_nothing() -> None:
    assert ranks([1.0, 1.0, 1.0], {0}) == [3]
    assert ranks([1.0, 1.0, 2.0, 0.0], {0, 3}) == [3, 4]
    assert ranking([[0.0, 0.0]], [{0}])["hit_1"] == 0


def test_a_hit_among_as_many_as_there_are_is_not_scored() -> None:
    assert "hit_3" not in ranking([[0.3, 0.2, 0.1], [1.0, 2.0, 3.0, 4.0]], [{0}, {1}])
    assert "hit_1" in ranking([[0.3]], [{0}])


def test_wrong_input() -> None:
    with pytest.raises(UserError, match="no rows"):
        ranking([], [])
    with pytest.raises(ValueError, match="no right item"):
        ranking([[1.0, 2.0]], [set()])
    with pytest.raises(ValueError, match="lengths differ"):
        ranking([[1.0, 2.0]], [])
