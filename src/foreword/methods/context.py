"""Context tuning: a prefix that starts as demonstrations, and hides from each row its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import PastWindow
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.data.sample import shuffled
from foreword.errors import UserError, nearest
from foreword.injection import KV, Injection, Mixture
from foreword.methods.base import Trainable
from foreword.methods.parts.prefixes import (
    PAST_WINDOW,
    PrefixKV,
    check_past_window,
    check_template,
    read_kv,
)
from foreword.tasks.base import Bound
from foreword.tasks.templates.demonstrations import check_shots, choose_demonstrations

Selection = Literal["balanced", "random", "first"]

USUAL = 16
"""Demonstrations of a context, where nothing else is asked for."""


@dataclass(frozen=True)
class Context:
    """Context tuning of keys and values (CT-KV; Lu et al. 2025, arXiv:2507.04221).

    The prefix starts as the keys and values of ``shots`` demonstrations, read in one pass, and is
    trained. With ``leave_one_out`` a training row does not see the positions of its own
    demonstration, so that it cannot copy the answer; later demonstrations may still have read it,
    as in the paper. ``token_dropout`` is the probability with which each position is left out of
    a step. The prompt file holds all positions. ``choice`` says which rows are shown: balanced
    over the classes, at random, or the first.
    """

    shots: int | None = setting(
        None, help="demonstrations that make the context; else 16, or all if there are fewer"
    )
    choice: Selection = setting(
        "balanced", help="which rows a context shows: balanced over the classes, random, or first"
    )
    leave_one_out: bool = setting(
        True, help="hide from a training row its own demonstration; =false turns it off"
    )
    token_dropout: float = setting(
        0.05, help="probability of leaving out a position of the context in a step"
    )
    rate: float = setting(5e-3, help="learning rate")
    past_window: PastWindow = setting("hidden", help=PAST_WINDOW)

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Context:
        """Return the method with a number of demonstrations."""
        return replace(self, shots=self._count(rows))

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> ShownDemonstrations:
        """Read the demonstrations; raises UserError where the model cannot hold them."""
        if not 0 <= self.token_dropout < 1:
            raise UserError(
                f"`token_dropout={self.token_dropout:g}`: give a probability, from 0 to below 1"
            )
        sites = task.backbone.need_sites()
        if any(site.recurrent for site in sites):
            raise UserError(
                f"`method=context`: {task.backbone.name} keeps one state of all that it has read, "
                "of which no demonstration can be left out; use `method=prefix`"
            )
        check_template(task)
        past = check_past_window(self.past_window)
        shown = [task.demonstration(row) for row in self._chosen(task, rows, seed)]
        pieces = _tokens(task.backbone, shown)
        kv = read_kv(task.backbone, list(itertools.chain(*pieces)), sites)
        prefix = PrefixKV.on(task.backbone, kv, len(pieces[0]), past_window=past)
        owners = [n - 1 for n, piece in enumerate(pieces) for _ in piece]
        hidden: Sequence[tuple[int, ...]] = [()] * len(rows)
        if self.leave_one_out:
            places: dict[str, tuple[int, ...]] = {}
            for number, text in enumerate(shown):
                places[text] = (*places.get(text, ()), number)
            hidden = [places.get(task.demonstration(row), ()) for row in rows]
        return ShownDemonstrations(prefix, torch.tensor(owners), hidden, self.token_dropout)

    def _count(self, rows: Sequence[Row]) -> int:
        return min(USUAL, len(rows)) if self.shots is None else self.shots

    def _chosen(self, task: Bound, rows: Sequence[Row], seed: int) -> Sequence[Row]:
        shots = self._count(rows)
        check_shots(shots, rows)
        if self.choice == "balanced":
            return choose_demonstrations(task, rows, shots, seed)
        if self.choice not in get_args(Selection):
            known = nearest(str(self.choice), get_args(Selection))
            raise UserError(f"`choice={self.choice}`: unknown; {known}")
        return (rows if self.choice == "first" else shuffled(rows, seed))[:shots]


def _tokens(backbone: Backbone, shown: Sequence[str]) -> list[list[int]]:
    """Return the tokenizer's first tokens, and then each demonstration's as it follows the last.

    Raises UserError where they leave no room in the model's positions for a row of their size.
    """
    pieces = [list(backbone.text.around[0])]
    for before, text in itertools.pairwise(["", *shown]):
        pieces.append(backbone.text.continuation(before[-12:], text))
    ends = list(itertools.accumulate(map(len, pieces)))
    room = backbone.longest - max(map(len, pieces))
    if ends[-1] > room:
        fit = sum(end <= room for end in ends[1:])
        raise UserError(
            f"{len(shown)} demonstrations take {ends[-1]} tokens, and the model has "
            f"{backbone.longest} positions; with room for a row {fit} fit"
            + (f": give `shots={fit}`" if fit else ", so take `method=soft`")
        )
    return pieces


class ShownDemonstrations(Trainable):
    """A prefix of which each position belongs to a demonstration, or to none (-1).

    ``hidden`` holds for each row that may be shown the demonstrations that it does not see.
    """

    def __init__(
        self,
        prefix: PrefixKV,
        owners: Tensor,  # (P,)
        hidden: Sequence[tuple[int, ...]],
        dropout: float,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.owners = owners
        self.hidden = hidden
        self.dropout = dropout

    def forward(self) -> Injection:
        """Return all positions."""
        made: Injection = self.prefix()
        return made

    def training_on(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return for each row the positions that it sees in this step.

        Keys keep the positions that they were read at, and rows begin where they do later. Rows
        that hide the same share one part; a batch that hides nothing is no mixture.
        """
        drawn = torch.rand(len(self.owners), generator=chance)
        drawn[self.owners < 0] = 1.0  # the tokenizer's first tokens are seen in every step
        own = [self.hidden[row] if row < len(self.hidden) else () for row in rows]
        kinds = list(dict.fromkeys(own))
        whole = self()
        parts = tuple(_seen(whole, self._places(drawn, kind)) for kind in kinds)
        if len(parts) == 1:
            return parts[0]
        return Mixture(parts, [kinds.index(kind) for kind in own])

    def _places(self, drawn: Tensor, hidden: tuple[int, ...]) -> Tensor:
        """Return which positions are seen, (P,) bool: at least one of those that are not hidden."""
        visible = ~torch.isin(self.owners, torch.tensor(hidden, dtype=torch.long))
        seen = visible & (drawn >= self.dropout)
        if not seen.any():
            seen[drawn.where(visible, -1).argmax()] = bool(visible.any())
        return seen


def _seen(whole: Injection, places: Tensor) -> Injection:
    """Return the injection with these positions of its keys and values; itself with all."""
    if bool(places.all()):
        return whole

    def kept(tensor: Tensor) -> Tensor:
        own = places[-tensor.shape[1] :]  # of a sliding window the last ones alone
        return tensor.index_select(1, own.nonzero()[:, 0].to(tensor.device))

    kv = {site: KV(kept(own.keys), kept(own.values)) for site, own in whole.kv.items()}
    return replace(whole, kv=kv)
