"""Choosing rows: the seed decides, nothing is lost, and classes keep their proportions."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data.epochs import epoch_order, tempered
from foreword.data.row import Row
from foreword.data.sample import (
    digest,
    draw,
    first,
    folds,
    hold_out,
    others,
    per_class,
    shuffled,
)
from foreword.errors import UserError


def made(labels: list[str]) -> list[Row]:
    return [
        Row({"text": f"row {n}", "label": label}, f"a.jsonl:{n}")
        for n, label in enumerate(labels, start=1)
    ]


def sizes(rows: list[Row]) -> Counter[str]:
    return Counter(row.fields["label"] for row in rows)


def places(rows: list[Row]) -> list[int]:
    return [int(row.where.rpartition(":")[2]) for row in rows]


seeds = st.integers(0, 2**32)
tables = st.lists(st.sampled_from("abcd"), min_size=2, max_size=60).map(made)
shares = st.floats(0.01, 0.99)


@given(tables, seeds)
def test_shuffling_keeps_every_row_and_obeys_the_seed(rows: list[Row], seed: int) -> None:
    before = list(rows)
    order = shuffled(rows, seed)
    assert rows == before
    assert sorted(places(order)) == places(rows)
    assert order == shuffled(rows, seed)


def test_seeds_differ() -> None:
    rows = made(["a"] * 50)
    assert len({tuple(places(shuffled(rows, seed))) for seed in range(5)}) == 5


@given(tables, seeds, st.data())
def test_first_is_a_part_of_a_larger_first(rows: list[Row], seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(rows)))
    assert first(rows, n, seed) == shuffled(rows, seed)[:n]
    assert first(rows, len(rows), seed)[:n] == first(rows, n, seed)


@pytest.mark.parametrize("n", [-1, 0, 4])
def test_first_names_the_counts(n: int) -> None:
    with pytest.raises(UserError) as caught:
        first(made(["a"] * 3), n, 0)
    assert str(caught.value) == f"a.jsonl: {n} rows asked for; choose from 1 to 3, all it has"


def test_rows_of_no_file_are_called_by_no_name() -> None:
    with pytest.raises(UserError, match=r"^5 rows asked for; choose from 1 to 1"):
        first([Row({"text": "x"}, "row 1")], 5, 0)


@given(tables, shares, seeds, st.sampled_from([None, "label"]))
def test_hold_out_parts_the_rows(rows: list[Row], share: float, seed: int, by: str | None) -> None:
    train, dev = hold_out(rows, share, seed, by)
    assert train
    assert dev
    assert sorted(places(train) + places(dev)) == places(rows)
    assert places(train) == sorted(places(train))
    assert places(dev) == sorted(places(dev))
    assert (train, dev) == hold_out(rows, share, seed, by)
    classes = len(sizes(rows)) if by else 1
    kept = classes if classes < len(rows) else 1  # one row a class, unless that is every row
    assert len(dev) == min(max(1, round(share * len(rows))), len(rows) - kept)


@given(tables, shares, seeds)
def test_hold_out_keeps_proportions(rows: list[Row], share: float, seed: int) -> None:
    train, dev = (sizes(part) for part in hold_out(rows, share, seed, by="label"))
    whole = sizes(rows)
    for name, size in whole.items():
        if size >= 2:
            assert train[name] >= 1
    if max(whole.values()) == 1:
        return
    # Webster's method: no row would have come sooner had it gone to another class with room.
    for name in whole:
        for other in whole:
            if dev[name] and dev[other] + 1 < whole[other]:
                taken = (dev[name] - 0.5) / whole[name]
                assert taken <= (dev[other] + 0.5) / whole[other] + 1e-12


def test_hold_out_of_balanced_classes_is_balanced() -> None:
    _, dev = hold_out(made(["a", "b", "c"] * 100), 0.1, seed=0, by="label")
    assert sizes(dev) == {"a": 10, "b": 10, "c": 10}


def test_hold_out_leaves_single_rows_in_train() -> None:
    train, dev = hold_out(made(["rare", *"aaaa"]), 0.9, seed=0, by="label")
    assert (sizes(train), sizes(dev)) == ({"rare": 1, "a": 1}, {"a": 3})
    train, dev = hold_out(made(list("abcd")), 0.5, seed=0, by="label")
    assert (len(train), len(dev)) == (2, 2)


@given(tables, st.integers(2, 5), seeds)
def test_folds_deal_each_class_in_turn(rows: list[Row], k: int, seed: int) -> None:
    if len(rows) < k:
        return
    parted = folds(rows, k, seed, by="label")
    single = [row for row in rows if sizes(rows)[row.fields["label"]] == 1]
    left = single if len(rows) - len(single) >= k else []
    assert all(sorted(places(train + dev)) == places(rows) for train, dev in parted)
    assert sorted(place for _, dev in parted for place in places(dev)) == sorted(
        set(places(rows)) - set(places(left))
    )
    for name in sizes(rows):
        counts = [sizes(dev)[name] for _, dev in parted]
        assert max(counts) - min(counts) <= 1
        assert sizes(rows)[name] == 1 or max(counts) < sizes(rows)[name]  # some are in train


def test_hold_out_depends_on_the_seed() -> None:
    rows = made(["a"] * 50)
    assert len({tuple(places(hold_out(rows, 0.2, seed)[1])) for seed in range(5)}) == 5


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10, float("nan")])
def test_hold_out_refuses_a_share(share: float) -> None:
    with pytest.raises(UserError, match="is no share to hold out; choose between 0 and 1"):
        hold_out(made(["a"] * 3), share, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_hold_out_needs_two_rows(count: int) -> None:
    with pytest.raises(UserError, match=rf"{count} rows? cannot be parted"):
        hold_out(made(["a"] * count), 0.5, 0)


def test_missing_class_field_is_named_with_its_line() -> None:
    rows = [*made(["a", "b"]), Row({"text": "x", "labl": "a"}, "a.jsonl:3")]
    line = (
        "a.jsonl:3: missing field 'label'; did you mean 'labl'? (known: text, labl); "
        "name its column with `label_field`"
    )
    for action in (lambda: hold_out(rows, 0.5, 0, "label"), lambda: per_class(rows, 1, 0, "label")):
        with pytest.raises(UserError) as caught:
            action()
        assert str(caught.value) == line


@given(tables, st.integers(1, 5), seeds)
def test_per_class_takes_k_of_each(rows: list[Row], k: int, seed: int) -> None:
    least = min(sizes(rows).values())
    if least < k:
        with pytest.raises(UserError, match=rf"has {least} rows?, but {k} per class"):
            per_class(rows, k, seed, by="label")
        return
    chosen = per_class(rows, k, seed, by="label")
    assert sizes(chosen) == dict.fromkeys(sizes(rows), k)
    assert len(set(places(chosen))) == len(chosen)
    order = places(shuffled(rows, seed))
    assert [order.index(place) for place in places(chosen)] == sorted(
        order.index(place) for place in places(chosen)
    )


def test_per_class_names_the_class() -> None:
    with pytest.raises(UserError) as caught:
        per_class(made(list("aaab")), 2, 0, by="label")
    assert str(caught.value) == (
        "a.jsonl: class 'b' has 1 row, but 2 per class are asked for; "
        "choose 1 or fewer, or add rows"
    )
    with pytest.raises(UserError, match="0 rows per class asked for; choose 1 or more"):
        per_class(made(["a"]), 0, 0, by="label")


def test_classes_may_be_numbers_or_truths() -> None:
    rows = [Row({"label": value}, f"a:{n}") for n, value in enumerate([0, 1, True, 0, 1, True])]
    assert Counter(str(r.fields["label"]) for r in per_class(rows, 2, 0, "label")) == (
        {"0": 2, "1": 2, "True": 2}
    )


def test_digest_is_golden() -> None:
    # printf '{"a":1,"text":"\\u00e9"}\n{}\n' | sha256sum
    rows = [Row({"text": "é", "a": 1}, "x:1"), Row({}, "x:2")]
    assert digest(rows) == "de74977a53a3cfe9a8dd023141c5299dc2bfa27ded16544ffc7b5d14e5a27b53"


@given(tables)
def test_digest_sees_fields_and_order_only(rows: list[Row]) -> None:
    moved = [Row(dict(reversed(row.fields.items())), "elsewhere:1") for row in rows]
    assert digest(moved) == digest(rows)
    assert digest(rows[::-1]) != digest(rows)
    assert digest(rows[:-1]) != digest(rows)


def test_digest_takes_what_json_does_not() -> None:
    odd = [Row({"text": "\ud83d", "raw": b"x"}, "x:1")]
    assert len(digest(odd)) == 64


def test_drawn_is_all_or_the_first_or_of_each_class() -> None:
    rows = made(["a", "b"] * 5)
    assert draw(rows, None, None, 0, "label") == rows
    assert draw(rows, 4, None, 3, "label") == first(rows, 4, 3)
    assert draw(rows, None, 2, 3, "label") == per_class(rows, 2, 3, "label")
    with pytest.raises(UserError, match=r"`rows` and `per_label` both"):
        draw(rows, 4, 2, 0, "label")
    with pytest.raises(UserError, match=r"`per_label`: rows of this task have no single label"):
        draw(rows, None, 2, 0, None)


# Several tasks -----------------------------------------------------------------------------------


def test_an_epoch_is_shared_out_by_the_temperature() -> None:
    assert tempered([300, 100], 1.0) == [300, 100]
    assert tempered([300, 100], 1e9) == [200, 200]
    assert tempered([900, 100], 2.0) == [750, 250]  # square roots: 3 to 1
    assert tempered([100_000, 1], 0.1) == [100_001, 1]  # at least one row
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match=r"`mixing=.*`: give a temperature above 0"):
            tempered([1, 2], wrong)


def test_the_rows_of_one_task_come_in_the_order_they_always_did() -> None:
    """The order that runs of one task have, and go on in after a stop, by its own definition."""
    for epoch in range(3):
        order = list(range(10))
        random.Random(f"4/{epoch}").shuffle(order)
        assert epoch_order([0] * 10, {0: 10}, 4, epoch) == tuple(order)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_every_task_goes_through_its_rows_pass_by_pass(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    tasks = [task for task, size in enumerate(sizes) for _ in range(size)]
    counts = {t: data.draw(st.integers(1, 30)) for t in range(len(sizes))}
    seen: dict[int, list[int]] = {t: [] for t in counts}
    for epoch in range(4):
        order = epoch_order(tasks, counts, seed, epoch)
        assert order == epoch_order(tasks, counts, seed, epoch)
        assert Counter(tasks[row] for row in order) == counts
        for row in order:
            seen[tasks[row]].append(row)
    for task, rows in seen.items():
        own = {row for row, owner in enumerate(tasks) if owner == task}
        for start in range(0, len(rows) - len(own) + 1, len(own)):
            assert set(rows[start : start + len(own)]) == own


def test_every_batch_has_its_share_of_each_task() -> None:
    tasks = [0] * 30 + [1] * 10
    order = epoch_order(tasks, {0: 30, 1: 10}, 0, 0)
    for start in range(0, 40, 8):
        assert sum(tasks[row] for row in order[start : start + 8]) == 2


def test_others_are_as_many_of_each_class_and_none_twice() -> None:
    given = [Row({"text": f"t {n}", "label": "ab"[n % 2]}, f"f:{n}") for n in range(12)]
    taken = draw(given, None, 2, 0, "label")
    dev = others(given, taken, 2, 0, "label")
    assert dev is not None
    assert Counter(row.fields["label"] for row in dev) == {"a": 2, "b": 2}
    assert not {row.where for row in dev} & {row.where for row in taken}
    assert others(given, taken, 2, 0, "label") == dev
    assert others(given, draw(given, None, 4, 0, "label"), 4, 0, "label") is None
    assert others(given, taken, None, 0, "label") is None
