"""An Injection is a value: named tensors in and out, and a Mixture spreads it over rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foreword.injection import KV, NOTHING, ClassHead, Injection, Mixture, Patch

SITES = st.lists(
    # names that end like the suffixes are the ones that a careless split would confuse
    st.sampled_from(["h.0.attn", "h.1.attn", "decoder.keys", "values", "kv.keys", "a.embeds"]),
    unique=True,
)
MODULES = st.lists(st.sampled_from(["h", "h.0", "h.0.0", "h.1.down", "up.keys"]), unique=True)


HEADS = {
    "none": None,
    "linear": ClassHead(torch.randn(2, 4), torch.randn(2)),
    "cosine": ClassHead(torch.randn(2, 4), torch.randn(2), torch.tensor(20.0)),
}


def injections() -> st.SearchStrategy[Injection]:
    def made(
        sites: list[str],
        embeds: int | None,
        leading: int,
        positions: int,
        patched: list[str],
        weighted: list[str],
        headed: str,
    ) -> Injection:
        full = Patch(*(torch.randn(4, 2), torch.randn(2, 3)), *(torch.randn(n) for n in (2, 4, 4)))
        plain = Patch(torch.randn(4, 1), torch.randn(1, 3), reads="h.0.attn", activation="tanh")
        scale = Patch(torch.randn(4), adds_to="input")
        return Injection(
            embeds=None if embeds is None else torch.randn(embeds, 4),
            leading=leading,
            kv={site: KV(torch.randn(2, 3, 4), torch.randn(2, 3, 5)) for site in sites},
            positions=positions,
            patches={
                module: (plain, full, scale)[n % 2 : 2 + n % 2] for n, module in enumerate(patched)
            },
            weights={name: torch.randn(2) for name in weighted},
            head=HEADS[headed],
        )

    return st.builds(
        made,
        SITES,
        st.none() | st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 9),
        MODULES,
        SITES,
        st.sampled_from(list(HEADS)),
    )


@given(injections())
def test_tensors_and_from_tensors_are_inverse(injection: Injection) -> None:
    named = dict(injection.tensors())
    again = Injection.from_tensors(named, injection.settings())
    assert list(again.tensors()) == list(injection.tensors())
    assert list(again.kv) == list(injection.kv)
    assert again.settings() == injection.settings()


@given(injections())
def test_map_changes_every_tensor_and_nothing_else(injection: Injection) -> None:
    def doubled(tensor: Tensor) -> Tensor:
        return 2 * tensor

    mapped = injection.map(doubled)
    before, after = dict(injection.tensors()), dict(mapped.tensors())
    assert list(before) == list(after)
    assert all(torch.equal(after[name], 2 * before[name]) for name in before)
    assert mapped.settings() == injection.settings()


def test_nothing_holds_no_tensor() -> None:
    assert list(NOTHING.tensors()) == []
    assert (NOTHING.leading, NOTHING.positions) == (0, 0)


def test_a_mixture_spreads_one_injection_and_keeps_a_mixture() -> None:
    one = Mixture.of(NOTHING, 3)
    assert one.parts == (NOTHING,)
    assert list(one.rows) == [0, 0, 0]
    assert Mixture.of(one, 7) is one


def lora(*, reads: str = "h.0", seed: int = 0, positions: int = 0) -> Injection:
    drawn = torch.Generator().manual_seed(seed)
    down, up = torch.randn(2, 4, generator=drawn), torch.randn(3, 2, generator=drawn)
    return Injection(patches={"h.0": (Patch(down, up, reads=reads),)}, positions=positions)


def test_rows_are_grouped_by_the_values_of_the_changes() -> None:
    once, again = lora(), lora(positions=3)  # as of one file that was loaded twice
    mixture = Mixture((once, NOTHING, lora(seed=1), again, lora(reads="h.1")), [0, 1, 2, 3, 4, 0])
    assert mixture.groups_by_change() == [[0, 3, 5], [1], [2], [4]]
    assert lora().map(lambda t: t.double()).changes_like(once) is False


def test_changes_that_are_trained_apart_are_never_one_group() -> None:
    one, other = (lora().map(lambda t: t.clone().requires_grad_()) for _ in range(2))
    assert Mixture((one, other, one), [0, 1, 2]).groups_by_change() == [[0, 2], [1]]


def test_the_changes_of_many_parts_are_gathered_once_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Injection] = []
    changes = Injection.changes

    def counted(own: Injection) -> Iterator[tuple[str, Tensor]]:
        asked.append(own)
        return changes(own)

    monkeypatch.setattr(Injection, "changes", counted)
    parts = tuple(lora(seed=seed) for seed in range(6))
    mixture = Mixture(parts, range(6))
    for _ in range(2):
        assert mixture.groups_by_change() == [[n] for n in range(6)]
    assert asked == list(parts)
