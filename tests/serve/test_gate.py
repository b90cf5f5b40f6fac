"""The gate of a server that learns: which versions may come in, also where people lie alike."""

from __future__ import annotations

import pytest

from foreword.serve.feedback.gate import objection, sudden

RIGHT, WRONG = 100.0, 0.0


def test_a_version_comes_in_by_the_lower_end_of_its_gain() -> None:
    old, new = [WRONG] * 60 + [RIGHT] * 40, [WRONG] * 40 + [RIGHT] * 60
    assert objection([], [], old, new, -3) is None
    why = objection([], [], new, old, -3)
    assert why is not None
    assert "its gain may be as low as -2" in why
    assert "-3 is allowed" in why
    assert objection([], [], new, old, -50) is None


@pytest.mark.parametrize(
    ("labels", "answered", "expected"),
    [
        ("abab", "abab", None),
        ("aabb" * 5, "abbb" * 5, "a"),
        ("a" * 6 + "b" * 4, "a" * 4 + "b" * 6, None),  # a fifth more is a taste that drifts
        ("a" * 7 + "b" * 3, "a" * 4 + "b" * 6, "a"),
        ("aaab", "bbbb", "a"),
        ("", "", None),
    ],
)
def test_a_label_is_sudden_that_is_right_far_more_often_than_answered(
    labels: str, answered: str, expected: str | None
) -> None:
    assert sudden(labels, answered) == expected


def poisoned(others: float) -> tuple[list[str], list[str], list[float], list[float]]:
    """Return rows of which half call for "refund", which the old version hardly answers.

    The new one is right in all of these, and in a share of the others, of which the old one knows
    half.
    """
    labels = ["refund"] * 50 + ["repair"] * 25 + ["delivery"] * 25
    answered = ["repair", "delivery"] * 50
    old = [WRONG] * 50 + [RIGHT, WRONG] * 25
    known = round(50 * others)
    return labels, answered, old, [RIGHT] * 50 + [RIGHT] * known + [WRONG] * (50 - known)


def test_half_of_the_corrections_wrong_alike_do_not_carry_a_version_in() -> None:
    labels, answered, old, new = poisoned(0.2)
    assert objection([], [], old, new, -3) is None  # by all rows it is far better
    why = objection(labels, answered, old, new, -3)
    assert why is not None
    assert why.startswith("'refund' is right in 50% of the rows, and answered in 0%; on the others")


def test_what_people_suddenly_want_comes_in_where_the_rest_holds() -> None:
    labels, answered, old, new = poisoned(1.0)
    assert objection(labels, answered, old, new, -3) is None


def test_a_sudden_label_alone_has_nothing_to_be_judged_by() -> None:
    why = objection(["refund"] * 9, ["repair"] * 9, [WRONG] * 9, [RIGHT] * 9, -3)
    assert why is not None
    assert why.endswith("no others to judge by")
