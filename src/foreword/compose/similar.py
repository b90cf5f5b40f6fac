"""Similarity of prompts, after SPoT: which tasks are close, told from what was tuned for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.injection import KV, Injection, Patch

if TYPE_CHECKING:
    from foreword.prompt.prompt import Prompt

Array = np.ndarray[Any, np.dtype[np.float64]]


def similarity(one: Prompt | Injection, other: Prompt | Injection) -> float | None:
    """Return how alike two prompts of one backbone are, from -1 to 1; None where nothing can say.

    Virtual tokens: the cosine of the mean ones (Vu et al. 2022, arXiv:2110.07904, section 4.1,
    "cosine similarity of average tokens"). Keys and values: over the modules that both act on,
    the mean of the cosines of mean keys and of mean values. Patches: the cosine of the low-rank
    products ``up @ down`` of the modules that both act on (of ``up`` where there is no ``down``),
    with those that are not of one shape left out; activations and biases are not looked at.
    Prompts that share several of these have the mean. Heads and whole weights are not compared.
    """
    given = (each if isinstance(each, Injection) else each.injection for each in (one, other))
    own, others = map(essence, given)
    found = [_embeds(own, others), _kv(own, others), _patches(own, others)]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


class Essence(Injection):
    """What :func:`similarity` needs of an injection, and no more: means, and patches."""

    @cached_property
    def squares(self) -> dict[str, float]:
        """By module, the inner product of its patches with themselves, which all pairs need."""
        return {module: _product(own, own) for module, own in self.patches.items()}


def essence(injection: Injection) -> Essence:
    """Return the essence of an injection; one that is an essence already as it is."""
    if isinstance(injection, Essence):
        return injection
    embeds = None if injection.embeds is None else _mean(injection.embeds, 0)[None]
    kv = {
        site: KV(_mean(own.keys, 1)[:, None], _mean(own.values, 1)[:, None])
        for site, own in injection.kv.items()
    }
    return Essence(embeds=embeds, kv=kv, patches=injection.patches)


def _array(tensor: Any) -> Array:
    """Return a tensor of torch, or an array, as an array of double precision."""
    own = tensor.numpy(force=True) if hasattr(tensor, "numpy") else tensor
    return np.asarray(own, np.float64)


def _mean(tensor: Any, axis: int) -> Any:
    return _array(tensor).mean(axis)


def _cosine(one: Array, other: Array) -> float | None:
    """Return the cosine of two arrays as vectors; None for other sizes, and for zeros."""
    if one.shape != other.shape or not one.any() or not other.any():
        return None
    first, second = one.ravel(), other.ravel()
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _embeds(one: Injection, other: Injection) -> float | None:
    if one.embeds is None or other.embeds is None:
        return None
    return _cosine(_mean(one.embeds, 0), _mean(other.embeds, 0))


def _kv(one: Injection, other: Injection) -> float | None:
    found = []
    for site in (site for site in one.kv if site in other.kv):
        mine, theirs = one.kv[site], other.kv[site]
        found.append(_cosine(_mean(mine.keys, 1), _mean(theirs.keys, 1)))
        found.append(_cosine(_mean(mine.values, 1), _mean(theirs.values, 1)))
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def _patches(one: Essence, other: Essence) -> float | None:
    across, own, others = 0.0, 0.0, 0.0
    for module in (module for module in one.patches if module in other.patches):
        mine, theirs = one.patches[module], other.patches[module]
        if len({*_shapes(mine), *_shapes(theirs)}) > 1:
            continue
        across += _product(mine, theirs)
        own += one.squares[module]
        others += other.squares[module]
    return across / math.sqrt(own * others) if own > 0 and others > 0 else None


def _shapes(patches: tuple[Patch, ...]) -> Iterator[tuple[str, bool, int, int]]:
    """Yield what patches must share to be compared: above all the shape of ``up @ down``."""
    return ((p.adds_to, p.down is None, len(p.up), p.inputs) for p in patches)


def _product(one: tuple[Patch, ...], other: tuple[Patch, ...]) -> float:
    """Return the inner product of the sums of ``up @ down``, which are not built.

    ``<U D, U' D'> = sum((U^T U') * (D D'^T))``, of matrices (r, r').
    """
    total = 0.0
    for mine in one:
        for theirs in other:
            ups = _matrix(mine.up).T @ _matrix(theirs.up)
            if mine.down is not None and theirs.down is not None:
                ups = ups * (_array(mine.down) @ _array(theirs.down).T)
            total += float(ups.sum())
    return total


def _matrix(up: Any) -> Array:
    return _array(up).reshape(len(up), -1)
