"""Similarity is the cosine that numpy gives of what is written out in full."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from composed import drawn
from foreword.compose import similar
from foreword.compose.similar import essence, similarity
from foreword.injection import KV, ClassHead, Injection, Patch


def cosine(one: Any, other: Any) -> float:
    a, b = (np.asarray(x, dtype=np.float64).ravel() for x in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def soft(seed: int, length: int = 3) -> Injection:
    return Injection(embeds=drawn(length, 8, seed=seed), leading=length)


def prefix(seed: int, length: int, *sites: str) -> Injection:
    kv = {
        site: KV(drawn(2, length, 4, seed=seed + n), drawn(2, length, 3, seed=-seed - n))
        for n, site in enumerate(sites, 10)
    }
    return Injection(kv=kv, positions=length)


def lora(seed: int, rank: int, *modules: str) -> Injection:
    patches = {
        m: (Patch(drawn(6, rank, seed=seed - n), drawn(rank, 5, seed=seed + n), reads=m),)
        for n, m in enumerate(modules, 20)
    }
    return Injection(patches=patches)


def test_virtual_tokens_are_compared_by_their_mean() -> None:
    one, other = soft(1), soft(2, length=5)
    expected = cosine(one.embeds.mean(0), other.embeds.mean(0))  # type: ignore[union-attr]
    assert similarity(one, other) == pytest.approx(expected)


def test_keys_and_values_are_compared_by_module() -> None:
    one, other = prefix(1, 3, "a", "b", "c"), prefix(2, 5, "b", "c", "d")
    expected = np.mean(
        [
            cosine(getattr(one.kv[s], part).mean(1), getattr(other.kv[s], part).mean(1))
            for s in ("b", "c")
            for part in ("keys", "values")
        ]
    )
    assert similarity(one, other) == pytest.approx(float(expected))


def test_patches_are_compared_by_their_products_without_building_them() -> None:
    one, other = lora(1, 2, "a", "b"), lora(2, 4, "b", "a", "c")
    two = lora(3, 1, "a")
    one = Injection(patches={**one.patches, "a": (*one.patches["a"], *two.patches["a"])})
    built = [
        np.concatenate([sum(p.up @ p.down for p in own.patches[m]).ravel() for m in ("a", "b")])  # type: ignore[union-attr]
        for own in (one, other)
    ]
    assert similarity(one, other) == pytest.approx(cosine(*built))


def test_vectors_are_compared_by_themselves_and_only_with_vectors() -> None:
    def rescaled(seed: int, *modules: str) -> Injection:
        return Injection(
            patches={
                m: (Patch(drawn(6, seed=seed + n), adds_to="input"),) for n, m in enumerate(modules)
            }
        )

    one, other = rescaled(1, "a", "b"), rescaled(5, "b", "a", "c")
    vectors = [np.concatenate([own.patches[m][0].up for m in "ab"]) for own in (one, other)]
    assert similarity(one, other) == pytest.approx(cosine(*vectors))
    assert similarity(one, lora(1, 2, "a")) is None
    output = Injection(patches={"a": (Patch(drawn(6)),)})
    assert similarity(one, output) is None


def test_several_kinds_have_the_mean() -> None:
    one, other = soft(1).joined(prefix(1, 3, "a")), soft(2).joined(prefix(2, 3, "a"))
    parts = similarity(soft(1), soft(2)), similarity(prefix(1, 3, "a"), prefix(2, 3, "a"))
    assert None not in parts
    assert similarity(one, other) == pytest.approx(sum(parts) / 2)  # type: ignore[arg-type]


HEAD = Injection(head=ClassHead(drawn(2, 8), drawn(2)))
ZERO = Injection(patches={"a": (Patch(drawn(6, 2) * 0, drawn(2, 5), reads="a"),)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (soft(1), prefix(1, 3, "a")),
        (prefix(1, 3, "a"), prefix(1, 3, "b")),
        (lora(1, 2, "a"), lora(1, 2, "b")),
        (HEAD, HEAD),
        (Injection(weights={"w": drawn(3)}), Injection(weights={"w": drawn(3)})),
        (soft(1), Injection(embeds=drawn(3, 9))),
        (ZERO, lora(1, 2, "a")),
        (Injection(), Injection()),
    ],
)
def test_what_shares_nothing_has_no_similarity(one: Injection, other: Injection) -> None:
    assert similarity(one, other) is None
    assert similarity(other, one) is None


@given(seed=st.integers(1, 50), scale=st.floats(0.01, 100))
def test_it_is_symmetric_bounded_and_blind_to_size(seed: int, scale: float) -> None:
    for make in (soft, lambda s: prefix(s, 2, "a", "b"), lambda s: lora(s, 2, "a", "b")):
        one, other = make(seed), make(seed + 100)
        found = similarity(one, other)
        assert found is not None
        assert -1 <= found <= 1
        assert similarity(other, one) == pytest.approx(found)
        assert similarity(one, one) == pytest.approx(1)
        assert similarity(one.map(lambda t: t * scale), other) == pytest.approx(found, abs=1e-5)


def test_a_prompt_s_own_products_are_made_once_for_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, product = [], similar._product

    def counted(one: tuple[Patch, ...], other: tuple[Patch, ...]) -> float:
        made.append(one is other)
        return product(one, other)

    monkeypatch.setattr(similar, "_product", counted)
    all_of_them = [essence(lora(seed, 2, "a", "b")) for seed in range(4)]
    for one, other in itertools.combinations(all_of_them, 2):
        similarity(one, other)
    assert (made.count(True), made.count(False)) == (4 * 2, 6 * 2)


def test_the_essence_is_small_and_says_the_same() -> None:
    one = soft(1).joined(prefix(1, 7, "a", "b")).joined(lora(1, 2, "m")).joined(HEAD)
    other = soft(2).joined(prefix(2, 4, "b", "c")).joined(lora(2, 3, "m"))
    assert similarity(essence(one), essence(other)) == pytest.approx(similarity(one, other))
    assert essence(one).head is None
    assert {own.keys.shape[1] for own in essence(one).kv.values()} == {1}
