"""Compiled layers: the same loss and gradient, one body for all layers and all lengths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters

from families import CAUSAL, UNREACHED, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.injection import KV, Injection

pytestmark = pytest.mark.filterwarnings("default")  # of the compiler's own modules

BATCHES = (
    ((23, 51, 140, 9, 77), (88, 12), (5, 133, 64)),
    ((23, 51, 140, 9, 77, 31, 105, 7, 9), (88, 12, 47, 1)),
    ((5, 6, 7), (8, 9, 10), (11, 12, 13), (14, 15, 16)),
)


@pytest.fixture
def base() -> Iterator[Backbone]:
    made = backbone(CAUSAL[0])
    if made.compilable is not None:
        pytest.skip(made.compilable)
    torch.compiler.reset()
    counters.clear()
    yield made
    made.compiling(False)
    torch.compiler.reset()


def gradients(
    base: Backbone, leaves: list[Tensor], rows: tuple[tuple[int, ...], ...]
) -> list[Tensor]:
    soft, *kv = leaves
    pairs = zip(base.sites, kv[::2], kv[1::2], strict=True)
    injection = Injection(soft, 2, {s: KV(k, v) for s, k, v in pairs}, positions=3)
    asked = [Example(row, len(row), ((),), ((0, -1),)) for row in rows]
    logits = base.logits(base.states(asked, injection))
    loss = F.cross_entropy(logits, torch.arange(len(rows)) + 3)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.slow
def test_one_compiled_body_serves_all_layers_and_lengths(base: Backbone) -> None:
    noise = torch.Generator().manual_seed(0)
    shapes = [(2, base.width)]
    for site in base.sites.values():
        shapes += [(site.heads, 3, site.key_width), (site.heads, 3, site.value_width)]
    leaves = [torch.randn(*shape, generator=noise).requires_grad_() for shape in shapes]
    plain = [gradients(base, leaves, rows) for rows in BATCHES]
    base.compiling(True)
    for rows, expected in zip(BATCHES, plain, strict=True):
        for one, other in zip(gradients(base, leaves, rows), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    base.compiling(False)
    for one, other in zip(gradients(base, leaves, BATCHES[0]), plain[0], strict=True):
        assert torch.equal(one, other)
    assert counters["stats"]["unique_graphs"] == 1


def test_what_cannot_be_compiled_says_why() -> None:
    reason = backbone(UNREACHED[0]).compilable
    assert reason is not None
    assert "no list of layers" in reason
