"""The attention function against its definition, written out over batch, head, query and key."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from foreword.backbone.attention.interface import PassContext, attention
from foreword.backbone.attention.masked import Prefixes, ScoreTransform
from foreword.backbone.attention.slots import _part
from quick import first

BATCH, HEADS, KEYS, VALUES = 3, 4, 8, 6


class Module(nn.Module):
    """What the function reads of a module: its grouping, and whether it is causal."""

    def __init__(self, groups: int, *, is_causal: bool) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = is_causal


@dataclass(frozen=True)
class Case:
    """One call: ``prefixes`` has a list of (keys, values) for each row."""

    query: Tensor  # (B, Hq, T, D)
    key: Tensor  # (B, H, S, D)
    value: Tensor  # (B, H, S, D')
    causal: bool = False
    mask: Tensor | None = None
    scaling: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    bias: Tensor | None = None
    prefixes: Prefixes | None = None
    rows: tuple[int, ...] | None = None

    def run(self) -> Tensor:
        module = Module(self.query.shape[1] // self.key.shape[1], is_causal=self.causal)
        rows = None if self.rows is None else torch.tensor(self.rows)
        kv = {} if self.prefixes is None else {module: self.prefixes}
        extra = {} if self.softcap is None else {"softcap": self.softcap}
        out, weights = attention(
            module,
            self.query,
            self.key,
            self.value,
            self.mask,
            scaling=self.scaling,
            s_aux=self.sinks,
            position_bias=self.bias,
            foreword=PassContext(kv, rows),
            **extra,
        )
        assert weights is None
        return out


def case(heads: int = 2, *, queries: int = 3, keys: int = 3, seed: int = 0) -> Case:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return Case(
        normal(BATCH, HEADS, queries, KEYS),
        normal(BATCH, heads, keys, KEYS),
        normal(BATCH, heads, keys, VALUES),
    )


def prefixes(parts: int, length: int, heads: int, sizes: tuple[int, ...] | None) -> Prefixes:
    random = torch.Generator().manual_seed(1)
    keys = torch.randn(parts, heads, length, KEYS, generator=random, dtype=torch.float64)
    values = torch.randn(parts, heads, length, VALUES, generator=random, dtype=torch.float64)
    if sizes is None:
        return Prefixes(keys, values, None)
    visible = torch.arange(length)[None] < torch.tensor(sizes)[:, None]
    return Prefixes(keys, values, visible)


def by_definition(case: Case) -> Tensor:
    """softmax over the prefix and the seen tokens (and the sink) of cap(q.k * scale) + bias."""
    batch, heads, queries, width = case.query.shape
    groups, own = heads // case.key.shape[1], case.key.shape[2]
    scale = width**-0.5 if case.scaling is None else case.scaling
    out = torch.zeros(batch, queries, heads, case.value.shape[3], dtype=torch.float64)

    def score(q: Tensor, k: Tensor) -> float:
        raw = sum(float(a) * float(b) for a, b in zip(q, k, strict=True)) * scale
        return raw if case.softcap is None else case.softcap * math.tanh(raw / case.softcap)

    def at(table: Tensor, b: int, h: int, t: int, s: int) -> Tensor:
        return table[b % table.shape[0], h % table.shape[1], t % table.shape[2], s]

    for b, h, t in product(range(batch), range(heads), range(queries)):
        q, kv = case.query[b, h, t], h // groups
        scores: list[float] = []
        values: list[Tensor] = []
        if case.prefixes is not None:
            r = 0 if case.rows is None else case.rows[b]
            for p in range(case.prefixes.keys.shape[2]):
                if case.prefixes.visible is None or bool(case.prefixes.visible[r, p]):
                    scores.append(score(q, case.prefixes.keys[r, kv, p]))
                    values.append(case.prefixes.values[r, kv, p])
        for s in range(own):
            extra = 0.0 if case.bias is None else float(at(case.bias, b, h, t, s))
            if case.mask is not None and case.mask.dtype == torch.bool:
                if not bool(at(case.mask, b, h, t, s)):
                    continue
            elif case.mask is not None:
                extra += float(at(case.mask, b, h, t, s))
            elif case.causal and queries > 1 and s > t:
                continue
            scores.append(score(q, case.key[b, kv, s]) + extra)
            values.append(case.value[b, kv, s])
        sink = [] if case.sinks is None else [float(case.sinks[h])]
        top = max(scores + sink)
        total = sum(math.exp(x - top) for x in scores + sink)
        for x, value in zip(scores, values, strict=True):
            out[b, t, h] += math.exp(x - top) / total * value
    return out


LOWEST = torch.finfo(torch.float64).min
PADDED = (torch.arange(3)[None] < torch.tensor([3, 1, 2])[:, None])[:, None, None]  # (B, 1, 1, S)
PATTERN = torch.ones(3, 3, dtype=torch.bool).tril()[None, None] & PADDED  # (B, 1, T, S)
BY_HEAD = torch.eye(3, dtype=torch.bool) | (torch.arange(36) % 5 > 1).view(1, HEADS, 3, 3)
MASKS = {
    "causal": (True, None),
    "open": (False, None),
    "padded": (False, PADDED.expand(-1, -1, 3, -1)),
    "padded, causal": (True, PATTERN),
    "one for all rows": (True, PATTERN[:1]),
    "by head": (True, BY_HEAD),
    "additive": (True, torch.zeros(BATCH, 1, 3, 3).double().masked_fill(~PATTERN, LOWEST)),
    "additive, graded": (False, torch.linspace(-2, 2, 36).double().view(1, HEADS, 3, 3)),
}
PREFIXES = {
    "no prefix": (None, None, None),
    "one for all": (1, None, None),
    "one for all, by row": (1, None, (0, 0, 0)),
    "by row, equal": (2, None, (1, 0, 1)),
    "by row, ragged": (3, (4, 0, 2), (2, 1, 0)),
    "one, partly visible": (1, (2,), None),
}
WAYS = {
    "plain": {},
    "scaled": {"scaling": 0.7},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0]).double()},
    "softcap and sinks": {"softcap": 1.5, "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0]).double()},
}
BIAS = torch.sin(torch.arange(36.0)).double().view(1, HEADS, 3, 3)


def bound(case: Case) -> float:
    # the explicit way takes its softmax in float32, as transformers' eager attention does
    return 1e-12 if case.softcap is None and case.sinks is None else 1e-6


def check(case: Case) -> None:
    """With gradients, and without: one prefix of all rows is then not copied for each."""
    expected = by_definition(case)
    torch.testing.assert_close(case.run(), expected, rtol=0, atol=bound(case))
    with torch.no_grad():
        torch.testing.assert_close(case.run(), expected, rtol=0, atol=bound(case))


@pytest.mark.parametrize("heads", first(1, [2, 4, 1]))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mask", MASKS)
def test_equals_the_definition(mask: str, prefix: str, way: str, heads: int) -> None:
    causal, given = MASKS[mask]
    parts, sizes, rows = PREFIXES[prefix]
    before = None if parts is None else prefixes(parts, 4, heads, sizes)
    made = replace(case(heads), causal=causal, mask=given, prefixes=before, rows=rows, **WAYS[way])
    check(made)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mask", MASKS)
def test_a_position_bias_is_added_to_the_own_tokens_alone(mask: str, prefix: str) -> None:
    causal, given = MASKS[mask]
    parts, sizes, rows = PREFIXES[prefix]
    before = None if parts is None else prefixes(parts, 4, HEADS, sizes)
    check(replace(case(HEADS), causal=causal, mask=given, prefixes=before, rows=rows, bias=BIAS))


@pytest.mark.parametrize("heads", [4, 2])
def test_a_prefix_of_no_positions_is_none(heads: int) -> None:
    check(replace(case(heads), causal=True, prefixes=prefixes(1, 0, heads, None)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("heads", [4, 2])
def test_one_query_reads_all_keys_so_far_as_in_decoding(heads: int, prefix: str, way: str) -> None:
    parts, sizes, rows = PREFIXES[prefix]
    before = None if parts is None else prefixes(parts, 4, heads, sizes)
    one = replace(case(heads, queries=1, keys=5), causal=True, prefixes=before, rows=rows)
    check(replace(one, **WAYS[way]))
    padded = torch.arange(5)[None] < torch.tensor([5, 2, 4])[:, None]
    check(replace(one, mask=padded[:, None, None], **WAYS[way]))
    check(replace(one, bias=torch.arange(20.0).double().view(1, 4, 1, 5) / 7, **WAYS[way]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_keys_beyond_the_queries_without_a_mask_are_unwritten_slots(prefix: str, way: str) -> None:
    """As transformers means it: a first pass over a static cache, whose further slots are empty."""
    parts, sizes, rows = PREFIXES[prefix]
    before = None if parts is None else prefixes(parts, 4, 2, sizes)
    for queries in (None, 2):
        drawn = case(2, keys=6) if queries is None else case(2, queries=queries, keys=6)
        check(replace(drawn, causal=True, prefixes=before, rows=rows, **WAYS[way]))


def test_what_is_not_visible_has_no_influence_and_no_gradient() -> None:
    before = prefixes(2, 4, 2, (4, 1))
    made = replace(case(), causal=True, prefixes=before, rows=(1, 1, 0))
    huge = Prefixes(before.keys.clone(), before.values.clone(), before.visible)
    huge.keys[1, :, 1:], huge.values[1, :, 1:] = 1e6, 1e6
    huge.keys.requires_grad_(), huge.values.requires_grad_()
    out = replace(made, prefixes=huge).run()
    torch.testing.assert_close(out, made.run(), rtol=0, atol=1e-12)
    out.sum().backward()
    for leaf in (huge.keys, huge.values):
        assert leaf.grad is not None
        assert not leaf.grad[1, :, 1:].any()
        assert leaf.grad[1, :, 0].any()


@pytest.mark.parametrize("way", ["plain", "softcap"])
def test_gradients_of_prefixes_equal_finite_differences(way: str) -> None:
    before = prefixes(2, 2, 2, (2, 1))
    made = replace(case(), causal=True, rows=(1, 0, 1), **WAYS[way])

    def run(keys: Tensor, values: Tensor) -> Tensor:
        return replace(made, prefixes=Prefixes(keys, values, before.visible)).run()

    leaves = before.keys.requires_grad_(), before.values.requires_grad_()
    if way == "plain":
        assert torch.autograd.gradcheck(run, leaves)
    else:  # a softmax in float32 wants a wider step
        assert torch.autograd.gradcheck(run, leaves, eps=1e-2, atol=1e-3, nondet_tol=1e-7)


def test_only_the_named_module_sees_a_prefix() -> None:
    made = case()
    other = Module(2, is_causal=True)
    elsewhere = PassContext({other: prefixes(1, 4, 2, None)})
    here = Module(2, is_causal=True)
    out, _ = attention(here, made.query, made.key, made.value, None, foreword=elsewhere)
    alone, _ = attention(here, made.query, made.key, made.value, None)
    assert torch.equal(out, alone)


def test_the_recorder_gets_every_call_as_it_came() -> None:
    heard: list[tuple[object, ...]] = []
    carried = PassContext(record=lambda *call: heard.append(call))
    made, module = case(), Module(2, is_causal=True)
    call = (module, made.query, made.key, made.value)
    attention(*call, None, sliding_window=7, foreword=carried)
    attention(*call, None, softcap=1.0, foreword=carried)
    assert [[id(item) for item in one] for one in heard] == [
        [id(item) for item in (*call, 7)],
        [id(item) for item in (*call, None)],
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("mask", [None, PADDED.expand(-1, -1, 3, -1)], ids=["causal", "padded"])
def test_half_types_go_back_as_their_numbers_would_in_float64(
    mask: Tensor | None, before: bool, bias: bool, dtype: torch.dtype
) -> None:
    exact = replace(case(), causal=True, mask=mask)
    if before:
        exact = replace(exact, prefixes=prefixes(1, 5, 2, None))
    if bias:
        noise = torch.Generator().manual_seed(2)
        table = torch.randn(1, HEADS, 3, 3, generator=noise, dtype=torch.float64)
        exact = replace(exact, bias=table)

    def gradients(of: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        leaves = [  # the same numbers in both types
            tensor.to(dtype).to(of).requires_grad_()
            for tensor in (exact.query, exact.key, exact.value)
        ]
        given = replace(exact, query=leaves[0], key=leaves[1], value=leaves[2])
        if (seen := exact.prefixes) is not None:
            own = [tensor.to(dtype).to(of).requires_grad_() for tensor in (seen.keys, seen.values)]
            given = replace(given, prefixes=Prefixes(own[0], own[1], None))
            leaves += own
        if exact.bias is not None:
            given = replace(given, bias=exact.bias.to(dtype).to(of))
        out = given.run()
        assert out.dtype == of
        return out.detach(), list(torch.autograd.grad(out.square().sum(), leaves))

    found, back = gradients(dtype)
    expected, forth = gradients(torch.float64)
    for one, other in zip([found, *back], [expected, *forth], strict=True):
        near = 6 * torch.finfo(dtype).eps * float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=near)


LARGE = torch.full((BATCH, HEADS, 1, 64), 60.0, dtype=torch.float16)  # 230,400 with itself


@pytest.mark.parametrize("sinks", [None, torch.zeros(HEADS)], ids=["plain", "sinks"])
@pytest.mark.parametrize("before", [False, True])
@torch.no_grad()
def test_products_of_queries_and_keys_may_be_more_than_float16_holds(
    before: bool, sinks: Tensor | None
) -> None:
    """Keys with large biases make such products; their scores, an eighth of them, are in reach."""
    ones = torch.ones_like(LARGE)
    seen = Prefixes(LARGE[:1], 3 * ones[:1], None) if before else None
    found = Case(LARGE, LARGE, ones, causal=True, prefixes=seen, sinks=sinks).run()
    assert torch.equal(found, torch.full((BATCH, 1, HEADS, 64), 2.0 if before else 1.0).half())


@torch.no_grad()
def test_products_over_slots_may_be_more_than_float16_holds() -> None:
    """With values of another size than keys, which the kernel does not take."""
    values = torch.ones(BATCH, HEADS, 1, VALUES, dtype=torch.float16)
    found, scores = _part(LARGE, LARGE, values, None, 0.125, ScoreTransform())
    assert torch.equal(found, values)
    assert torch.equal(scores, torch.full((BATCH, HEADS, 1), 28800.0))
