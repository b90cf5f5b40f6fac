"""Packing, and joint attention over it, against dense attention by its definition in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foreword.backbone.attention.masks import ancestors
from foreword.backbone.attention.packing import pack, packed_order
from foreword.backbone.attention.shared_prefix import joint_attention, joint_attention_backward

CPU = torch.device("cpu")
Sizes = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(lambda s: sorted(s, reverse=True))


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: tuple[Tensor, Tensor],
    lead: int,
    sizes: Sequence[int],
    trees: Sequence[Sequence[int]] | None,
    scale: float,
) -> Tensor:
    """Attend with one mask over all tokens: those before, the lead, and a row's own past."""
    total, first, groups = len(q), before[0].shape[1], q.shape[1] // k.shape[1]
    seen = torch.zeros(total, first + total, dtype=torch.bool)
    seen[:, :first] = True
    seen[:lead, first : first + lead] = torch.ones(lead, lead).tril().bool()
    seen[lead:, first : first + lead] = True
    at = lead
    for row, size in enumerate(sizes):
        own = torch.ones(size, size).tril().bool()
        if trees is not None:
            own = ancestors([trees[row]], size)[0, 0]
        seen[at : at + size, first + at : first + at + size] = own
        at += size
    keys = torch.cat([before[0], k.transpose(0, 1)], 1).repeat_interleave(groups, 0)
    values = torch.cat([before[1], v.transpose(0, 1)], 1).repeat_interleave(groups, 0)
    scores = (q.transpose(0, 1) @ keys.transpose(1, 2)) * scale
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).transpose(0, 1)


@settings(deadline=None, max_examples=60)
@given(
    sizes=Sizes,
    lead=st.integers(0, 9),
    first=st.integers(0, 9),
    heads=st.sampled_from([(2, 2), (6, 2), (4, 1)]),
    branching=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_joint_attention_equals_dense_attention(
    sizes: list[int], lead: int, first: int, heads: tuple[int, int], branching: bool, seed: int
) -> None:
    noise = torch.Generator().manual_seed(seed)
    total = lead + sum(sizes)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64).requires_grad_()

    queries, own = heads
    q, k, v = draw(total, queries, 8), draw(total, own, 8), draw(total, own, 8)
    before = draw(own, first, 8), draw(own, first, 8)
    trees = None
    if branching:
        trees = [
            [-1, *(int(torch.randint(0, n, (1,), generator=noise)) for n in range(1, size))]
            for size in sizes
        ]
    packing = pack(sizes, lead, trees, CPU, torch.float64)
    tensors = packing.plan, packing.places, packing.sources, packing.masks
    found, lse = joint_attention(q, k, v, *before, packing.lead, *tensors, 0.3)
    expected = dense(q, k, v, before, lead, sizes, trees, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert lse.shape == (total, queries)
    weights = torch.randn(expected.shape, generator=noise, dtype=torch.float64)
    leaves = [q, k, v, *before]
    ours = torch.autograd.grad((found * weights).sum(), leaves)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("branching", [False, True])
def test_half_types_go_back_as_their_numbers_would_in_float32(
    dtype: torch.dtype, branching: bool
) -> None:
    sizes, lead = [5, 3, 1], 2
    noise = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise).to(dtype).requires_grad_()

    leaves = [draw(11, 4, 8), draw(11, 2, 8), draw(11, 2, 8), draw(2, 3, 8), draw(2, 3, 8)]
    weights = torch.randn(11, 4, 8, generator=noise)
    trees = [[-1, 0, 0, 1, 2], [-1, 0, 0], [-1]] if branching else None

    def gradients(inputs: list[Tensor]) -> list[Tensor]:
        packing = pack(sizes, lead, trees, CPU, inputs[0].dtype)
        tensors = packing.plan, packing.places, packing.sources, packing.masks
        found, _ = joint_attention(*inputs, packing.lead, *tensors, 0.3)
        assert found.dtype == inputs[0].dtype
        return list(torch.autograd.grad((found * weights.to(found.dtype)).sum(), inputs))

    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    for one, other in zip(gradients(leaves), gradients(wide), strict=True):
        assert one.dtype == dtype
        near = 4 * torch.finfo(dtype).eps * float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=near)


@pytest.mark.parametrize("turned", [False, True], ids=["as made", "a view of others"])
def test_joint_attention_is_a_sound_operator(turned: bool) -> None:
    """Compiled layers count on the shapes and strides that both operators promise."""
    packing = pack([4, 3, 1], 2, None, CPU, torch.float32)
    made = [torch.randn(10, h, 8, requires_grad=True) for h in (4, 2, 2)]
    before = [torch.randn(3, 2, 8).transpose(0, 1) for _ in range(2)]
    made += [(each if turned else each.contiguous()).requires_grad_() for each in before]
    rest = (packing.lead, packing.plan, packing.places, packing.sources, packing.masks, 0.3)
    torch.library.opcheck(joint_attention, (*made, *rest))
    given = [each.detach() for each in made]
    found = [torch.ones(10, 4, 8), *given, *joint_attention(*given, *rest)]
    torch.library.opcheck(joint_attention_backward, (*found, *rest))


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30), lead=st.integers(0, 5))
def test_every_token_stands_in_one_place(sizes: list[int], lead: int) -> None:
    order = packed_order(sizes)
    ranked = [sizes[row] for row in order]
    assert ranked == sorted(sizes, reverse=True)
    packing = pack(ranked, lead, None, CPU, torch.float32)
    tokens = torch.arange(lead + sum(sizes))
    seen: list[int] = []
    padded = 0
    for block in packing.blocks():
        rows = block.spread_zero(tokens + 1)
        assert rows.shape == (block.rows, block.length)
        filled = block.spread(tokens + 1)
        assert torch.equal(filled, torch.where(rows > 0, rows, rows.amax(1, keepdim=True)))
        assert torch.equal(block.collect(rows), tokens[block.start : block.stop] + 1)
        seen += tokens[block.start : block.stop].tolist()
        padded += rows.numel()
        for row in rows.tolist():
            size = sum(token > 0 for token in row)
            assert row[size:] == [0] * (block.length - size)
            assert row[:size] == list(range(row[0], row[0] + size))  # a row, whole and in order
    assert seen == tokens.tolist()
    assert padded <= lead + 1.5 * sum(sizes)
