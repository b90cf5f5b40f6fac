"""What a training holds in memory, by its shapes: found on a few tokens, and true for many.

A pass of B rows of T tokens holds ``fixed + B * (row + token * T + square * T * T)`` bytes, on any
model, under any injection: four tiny passes, in which every tensor is counted, say the four
numbers. So nothing here knows a layer or a method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, Example
from foreword.backbone.inside.views import output_embeddings
from foreword.backbone.run.gradient_checkpointing import layers_that_recompute
from foreword.engine.tracked import Tracked, is_wrapped
from foreword.injection import Injection, Mixture
from foreword.machine import is_mapped

LIBRARIES = 480 * 10**6
"""Bytes of Python, torch, transformers and what they need, on a CPU."""

SCIENCE = 100 * 10**6
"""Bytes of scikit-learn and SciPy, by which heads on an encoder start."""

AROUND = 2**16
"""Bytes of a mapped file that Linux takes into memory where one of them is read."""

PIECE = 1000
"""Bytes of a tokenizer for each piece of its vocabulary."""

COMPILER = 400 * 10**6
"""Bytes that ``torch.compile`` takes in this process."""

KEPT = 6
"""Float32 numbers beside each one that is trained: itself, its gradient, two moments of AdamW, the
best so far, and one while a step is taken."""

STEP = 4
"""Tokens of the shortest row that is tried."""


@dataclass(frozen=True)
class Curve:
    """Bytes of a pass, a polynomial in its rows and their tokens."""

    fixed: float
    row: float
    token: float
    square: float

    def of(self, tokens: float, longest: int) -> float:
        """Return the bytes of a pass of so many tokens, in rows of ``longest`` tokens."""
        each = self.row + self.token * longest + self.square * longest**2
        return self.fixed + tokens / longest * each

    def tokens(self, size: float, longest: int) -> int:
        """Return how many tokens, in rows of ``longest``, hold no more than ``size`` bytes."""
        each = self.row + self.token * longest + self.square * longest**2
        return int((size - self.fixed) / each * longest) if each > 0 else 10**9

    def plus(self, other: Curve, share: float = 1.0) -> Curve:
        """Return the sum of this curve and a share of another."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Curve(*(one + share * two for one, two in pairs))

    @staticmethod
    def fitted(found: Callable[[int, int], float]) -> Curve:
        """Return the curve through what ``found`` gives for a few numbers of rows and tokens."""
        t = STEP
        one, two, three = found(1, t), found(1, 2 * t), found(1, 3 * t)
        fixed = 2 * one - found(2, t)
        first, second, third = one - fixed, two - fixed, three - fixed
        square = max(0.0, (third - 2 * second + first) / (2 * t * t))
        token = (third - first) / (2 * t) - 4 * square * t
        return Curve(fixed, first - token * t - square * t * t, token, square)


@dataclass(frozen=True)
class Footprint:
    """The bytes of a training: ``resident`` throughout, and beside them those of a pass.

    A pass holds ``kept`` when it has been run, and at most ``most`` while it is differentiated.
    The loss of a target takes ``target`` bytes.
    """

    resident: float
    kept: Curve
    most: Curve
    target: float

    def peak(self, tokens: float, longest: int, targets: int) -> float:
        """Return the most bytes with passes of so many tokens, and so many targets at a time."""
        loss = self.kept.of(tokens, longest) + targets * self.target
        return self.resident + max(self.most.of(tokens, longest), loss)


def resident_bytes(backbone: Backbone, trained: int, pieces: int = 0) -> float:
    """Return what stands in memory besides passes, where ``trained`` numbers are trained.

    Of input embeddings that lie in a file, and are not the output embeddings too, only those of the
    ``pieces`` of the vocabulary that the rows are made of are counted, each with what is around it.
    """
    weights: dict[int, int] = {}
    for tensor in (*backbone.model.parameters(), *backbone.model.buffers()):
        for part in _parts(tensor):
            weights[part.data_ptr()] = part.nbytes
    read: Any = getattr(backbone.model.get_input_embeddings(), "weight", None)
    written = getattr(output_embeddings(backbone.model), "weight", None)
    if read is not None and read is not written and is_mapped(read.data_ptr()):
        weights[read.data_ptr()] = min(read.nbytes, AROUND * pieces)
    libraries = LIBRARIES + PIECE * backbone.vocabulary if backbone.device.type == "cpu" else 0
    libraries += SCIENCE if libraries and backbone.is_encoder else 0
    return sum(weights.values()) + libraries + 4 * KEPT * trained


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return what a tensor is made of: itself, or the parts of a quantized one."""
    if not is_wrapped(tensor):
        return [tensor]
    held = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])  # type: ignore[attr-defined]
    return [part for each in held for part in _parts(each)]


def footprint(
    backbone: Backbone,
    outline: Injection | Mixture,
    trained: int,
    *,
    recompute: bool,
    pieces: int = 0,
) -> Footprint:
    """Measure what a training under an injection like ``outline`` holds, on a few tokens.

    With ``recompute`` the layers recompute their activations; ``trained`` and ``pieces`` are those
    of :func:`resident_bytes`. Raises UserError where layers cannot recompute.
    """
    part = outline.parts[0] if isinstance(outline, Mixture) else outline
    injection = part.map(lambda tensor: torch.zeros_like(tensor).contiguous().requires_grad_())
    view = backbone.with_changes(injection)
    view.check_runs()
    known = [*backbone.model.parameters(), *backbone.model.buffers()]
    leaves = [tensor for _, tensor in injection.tensors()]
    known += leaves
    for leaf in leaves:  # gradients stay; they are counted apart, since they would hide the rest
        leaf.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]

    def curves(*, forward_alone: bool = False) -> tuple[Curve, Curve]:
        @cache
        def run(rows: int, length: int) -> tuple[int, int]:
            examples = [_row(backbone, length)] * rows
            with Tracked(known) as tracked:
                states = view.states(examples, injection)
                kept = tracked.now
                if states.requires_grad and not forward_alone:
                    torch.autograd.backward(states, torch.ones_like(states))
                del states
            return kept, tracked.peak

        run(1, STEP)  # what a first pass keeps for those after it is not counted
        run.cache_clear()
        kept = Curve.fitted(lambda rows, length: run(rows, length)[0])
        return kept, Curve.fitted(lambda rows, length: run(rows, length)[1])

    kept, most = curves()
    if recompute:
        layers = len(layers_that_recompute(backbone.model))
        backbone.checkpointing(True)
        try:
            outside, _ = curves(forward_alone=True)
        finally:
            backbone.checkpointing(False)
        # Beside what is kept one layer stands whole, with what goes back through it.
        kept, most = outside, outside.plus(most).plus(kept, 1 / layers - 1)
    resident = resident_bytes(backbone, trained, pieces) + sum(leaf.nbytes for leaf in leaves)
    return Footprint(resident, kept, most, _target_bytes(view, known))


def _forget(leaf: Tensor) -> None:
    leaf.grad = None


def _row(backbone: Backbone, length: int) -> Example:
    """Return a row of so many tokens; with two stacks half of them are the decoder's."""
    ids = tuple(3 + n % 2 for n in range(length))
    if backbone.has_two_stacks:
        half = length // 2
        return Example(ids[:half], half, (ids[half:],), ((0, 0),))
    target = (0, POOLED) if backbone.is_encoder else (0, -1)
    return Example(ids, length, ((),), (target,))


def _target_bytes(view: Backbone, known: list[Tensor]) -> float:
    """Return the bytes that the cross-entropy of a target takes, forward and backward."""

    def run(targets: int) -> int:
        states = torch.zeros(targets, view.state_width, device=view.device, dtype=view.dtype)
        answers = torch.zeros(targets, dtype=torch.long, device=view.device)
        with Tracked([*known, states, answers]) as tracked:
            logits = view.logits(states.requires_grad_())
            loss = F.cross_entropy(logits.float(), answers)
            torch.autograd.backward(loss)
        peak: int = tracked.peak
        return peak

    run(1)
    return (run(4) - run(2)) / 2
