"""Splits: shares, classes, groups and repeated texts, each as it was asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.data.duplicates import key_of
from foreword.data.row import Row
from foreword.data.split import by_shares, few
from foreword.errors import UserError


def rows(*labels: str, groups: int = 0) -> list[Row]:
    made = []
    for n, label in enumerate(labels):
        fields = {"text": f"text {n}", "label": label}
        made.append(Row(fields | ({"who": f"g{n % groups}"} if groups else {}), f"f:{n + 1}"))
    return made


def labels(part: list[Row]) -> Counter[str]:
    return Counter(row.fields["label"] for row in part)


def test_each_class_is_parted_in_proportion() -> None:
    found = by_shares(rows(*"a" * 50, *"b" * 30, *"c" * 20), 0.1, 0.2, 0, by="label")
    assert labels(found["train"]) == {"a": 35, "b": 21, "c": 14}
    assert labels(found["dev"]) == {"a": 5, "b": 3, "c": 2}
    assert labels(found["test"]) == {"a": 10, "b": 6, "c": 4}


def test_the_largest_groups_are_placed_first() -> None:
    given = [Row({"text": f"text {n}", "who": f"g{max(n, 4)}"}, f"f:{n}") for n in range(10)]
    for seed in range(10):
        found = by_shares(given, 0.5, 0, seed, group="who")
        assert {name: len(part) for name, part in found.items()} == {"train": 5, "dev": 5}


def test_the_seed_alone_decides() -> None:
    given = rows(*"ab" * 40)
    once, again, other = (by_shares(given, 0.1, 0.1, seed, by="label") for seed in (3, 3, 4))
    assert once == again
    assert once != other


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=30, max_size=80),
    st.integers(0, 5),
)
def test_nothing_is_lost_and_texts_and_groups_stay_together(
    drawn: list[tuple[str, int]], seed: int
) -> None:
    given = [
        Row({"text": f"text {n % 23}", "label": label, "who": group}, f"f:{n}")
        for n, (label, group) in enumerate(drawn)
    ]
    try:
        found = by_shares(given, 0.2, 0.2, seed, by="label", group="who")
    except UserError:
        return  # one group of nearly all
    assert sorted(r.where for own in found.values() for r in own) == sorted(r.where for r in given)
    for field in ("who", "text"):
        sides = [{key_of(row, [field]) for row in own} for own in found.values()]
        assert sum(map(len, sides)) == len(set().union(*sides))
    for own in found.values():
        places = [given.index(row) for row in own]
        assert places == sorted(places)


@pytest.mark.parametrize("group", [None, "text"])
def test_a_text_is_on_one_side_whatever_else_its_rows_have(group: str | None) -> None:
    given = [
        Row({"id": n, "text": f"text {n % 20}", "label": "ab"[n % 2], "day": f"{n}"}, f"f:{n}")
        for n in range(80)
    ]
    for found in (
        by_shares(given, 0.2, 0.2, 0, by="label", group=group),
        few(given, 8, 0, "label", group=group),
    ):
        texts = [{row.fields["text"] for row in part} for part in found.values()]
        assert sum(map(len, texts)) == 20


def test_rows_without_labels_are_parted_too() -> None:
    given = [Row({"prompt": f"p {n}", "completion": "c"}, f"f:{n}") for n in range(20)]
    found = by_shares(given, 0.1, 0.1, 0)
    assert {name: len(own) for name, own in found.items()} == {"train": 16, "dev": 2, "test": 2}
    assert list(by_shares(given, 0.1, 0.0, 0)) == ["train", "dev"]


def test_groups_of_unlike_sizes_come_near_the_shares() -> None:
    given = rows(*"ab" * 100, groups=17)
    found = by_shares(given, 0.2, 0.2, 0, by="label", group="who")
    assert abs(len(found["dev"]) - 40) <= 12
    assert abs(len(found["test"]) - 40) <= 12


def test_few_of_each_class_for_train_and_as_many_for_dev() -> None:
    given = rows(*"a" * 20, *"b" * 10)
    given.append(Row({"text": "TEXT 0!", "label": "a"}, "f:31"))
    found = few(given, 4, 0, "label")
    assert labels(found["train"]) == labels(found["dev"]) == {"a": 4, "b": 4}
    assert sum(map(len, found.values())) == 31
    sides = [{key_of(row, ["text"]) for row in own} for own in found.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert few(given, 4, 0, "label") == found


def test_few_fill_both_sides_where_rows_stay_together() -> None:
    """Repeated texts, and groups: train and dev have exactly k rows of each class."""
    texts = ["t1", "t1", "t2", "t2", "t2", "t3", "t4", "t4", *"uvwxyz"]
    again = [Row({"text": text, "label": "a"}, f"f:{n}") for n, text in enumerate(texts)]
    groups = [
        Row({"text": f"t{n}", "label": "ab"[n % 3 == 0], "who": n // 2}, f"g:{n}")
        for n in range(36)
    ]
    for seed in range(60):
        found = few(again, 4, seed, "label")
        assert [len(found[side]) for side in ("train", "dev", "test")] == [4, 4, 6]
        found = few(groups, 3, seed, "label", group="who")
        assert labels(found["train"]) == labels(found["dev"]) == {"a": 3, "b": 3}
        assert not {r.fields["who"] for r in found["train"]} & {
            r.fields["who"] for r in found["dev"]
        }


def test_a_class_of_few_rows_is_in_train() -> None:
    for seed in range(20):
        found = by_shares(rows(*"a" * 20, *"b" * 3, "c"), 0.4, 0.4, seed, by="label")
        assert {"a", "b", "c"} == set(labels(found["train"]))
    numbers = rows(*(f"{n}.5" for n in range(20)))
    assert {
        name: len(own) for name, own in by_shares(numbers, 0.4, 0.4, 0, by="label").items()
    } == {
        "train": 4,
        "dev": 8,
        "test": 8,
    }


MISTAKES = {
    "groups of two for one": (
        lambda: few(
            [Row({"text": f"{n}", "label": "a", "who": n // 2}, "f:1") for n in range(12)],
            3,
            0,
            "label",
            group="who",
        ),
        "class 'a': 3 rows for train and 3 for dev cannot be chosen without parting",
    ),
    "shares of all": (lambda: by_shares(rows(*"ab" * 9), 0.5, 0.5, 0), "less than 1 together"),
    "shares of none": (lambda: by_shares(rows(*"ab" * 9), 0, 0, 0), "less than 1 together"),
    "too few rows": (lambda: by_shares(rows("a", "b"), 0.1, 0.1, 0), "f: no rows come to dev"),
    "too few of a class": (
        lambda: few(rows(*"a" * 9, *"b" * 5), 3, 0, "label"),
        "f: class 'b' has 5 row",
    ),
    "none of a class": (lambda: few(rows("a", "b"), 0, 0, "label"), "give 1 or more"),
    "no such group": (
        lambda: by_shares(rows(*"ab" * 9), 0.1, 0.1, 0, group="who"),
        "f:1: missing field 'who'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str) -> None:
    act, part = MISTAKES[name]
    with pytest.raises(UserError, match=part):
        act()
