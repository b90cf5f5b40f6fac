"""Demonstrations: rows with their answers, shown before the row to answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.grammar import counted, is_are
from foreword.injection import NOTHING
from foreword.reporter import Reporter
from foreword.tasks.base import Bound

USUAL = 4
"""Demonstrations where nothing says how many."""

MOST_CLASSES = 32
"""Classes up to which each may have a demonstration without being asked for."""

MOST_TOKENS = 512
"""Tokens that these demonstrations may take: every step reads past as many positions."""

Choice = Literal["balanced", "random", "nearest"]

POOL_ROWS = 512
"""The most rows that a prompt file keeps to choose the nearest from."""

EMBEDDED_TOKENS = 256
"""Tokens of a row that its embedding is computed from."""


@dataclass(frozen=True)
class DemonstrationPool:
    """The demonstrations to choose from: their texts, by the key of their row.

    With ``nearest`` a row is shown the most similar ones, the most similar last (Liu et al. 2022,
    arXiv:2101.06804); otherwise all rows are shown the same. No row is shown itself, nor one with
    its text: the next in order takes its place. The pool is embedded once, when first needed.
    """

    backbone: Backbone
    texts: Mapping[str, str]
    count: int
    nearest: bool

    def before(self, rows: Sequence[str]) -> list[list[str]]:
        """Return the demonstrations for each row."""
        orders = self._most_similar(rows) if self.nearest else [range(len(self.texts))] * len(rows)
        keys, texts = list(self.texts), list(self.texts.values())
        shown = []
        for row, order in zip(rows, orders, strict=True):
            chosen = [n for n in order if keys[n] != row][: self.count]
            shown.append([texts[n] for n in (chosen[::-1] if self.nearest else chosen)])
        return shown

    def embed(self, report: Reporter) -> None:
        """Embed the pool now, where the nearest are shown; ``report`` counts its rows."""
        if self.nearest and "_pool" not in vars(self):
            with report.bar("reading demonstrations", len(self.texts)) as progress:
                vars(self)["_pool"] = self._embedded(progress)

    @cached_property
    def _pool(self) -> tuple[Tensor, Tensor]:
        """The rows as centred unit vectors, (N, width), and their mean before centring."""
        return self._embedded(lambda rows: None)

    def _embedded(self, progress: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        states = mean_states(self.backbone, list(self.texts), progress)
        mean = states.mean(0)
        return F.normalize(states - mean, dim=1), mean

    def _most_similar(self, rows: Sequence[str]) -> list[list[int]]:
        """Order the pool by cosine similarity of centred mean hidden states."""
        pool, mean = self._pool
        index = {key: n for n, key in enumerate(self.texts)}
        vectors = {row: pool[index[row]] for row in rows if row in index}
        if missing := list(dict.fromkeys(row for row in rows if row not in index)):
            states = F.normalize(mean_states(self.backbone, missing) - mean, dim=1)
            vectors |= dict(zip(missing, states, strict=True))
        return [(-(pool @ vectors[row])).argsort(stable=True).tolist() for row in rows]


def mean_states(
    backbone: Backbone, texts: Sequence[str], progress: Callable[[int], None] = lambda rows: None
) -> Tensor:
    """Return the mean last hidden state of each text's tokens in the frozen model: (N, width).

    Of an encoder-decoder it is the decoder's first state, after the encoder has read the text.
    """
    first, last = backbone.text.around
    examples = []
    for text in texts:
        own = backbone.text.ids(text)[:EMBEDDED_TOKENS] or backbone.text.ids(" .")
        if backbone.has_two_stacks:
            ids = (*first, *own, *last)
            examples.append(Example(ids, len(ids), ((),), ((0, -1),)))
            continue
        head, rest = (*first, own[0]), tuple(own[1:])
        targets = tuple((0, n - 1) for n in range(len(own)))
        examples.append(Example((*head, *last), len(head), (rest,), targets))
    all_states = states_of(backbone, NOTHING, examples, progress)
    return torch.stack([states.float().mean(0) for states in all_states])


def draw_pool(
    bound: Bound, keys: Sequence[str], rows: Sequence[Row], count: int, choice: Choice, seed: int
) -> list[Row]:
    """Choose the rows of a pool for ``count`` demonstrations, no text twice.

    There is one to spare, for a row that is in the pool itself; for "nearest" up to ``POOL_ROWS``.
    Raises UserError if there are too few.
    """
    first: dict[str, Row] = {}
    for key, row in zip(keys, rows, strict=True):
        first.setdefault(key, row)
    known = list(first.values())
    if len(known) <= count:
        raise UserError(
            f"{{demos:{count}}} needs {count + 1} training rows of different texts, one being to "
            f"spare, and there are {len(known)}; show fewer, or give more rows"
        )
    if choice == "random":
        return random.Random(seed).sample(known, count + 1)
    wanted = min(POOL_ROWS, len(known)) if choice == "nearest" else count + 1
    return choose_demonstrations(bound, known, wanted, seed)


def check_shots(shots: int, rows: Sequence[Row]) -> None:
    """Raise UserError for more demonstrations than rows, or fewer than one."""
    if not 1 <= shots <= len(rows):
        raise UserError(
            f"{counted(shots, 'demonstration')} asked for, and there {is_are(len(rows))} "
            f"{counted(len(rows), 'row')}; give from 1 to that many with `shots`"
        )


def choose_demonstrations(
    task: Bound, rows: Sequence[Row], shots: int | None, seed: int
) -> list[Row]:
    """Choose rows at random, class by class in turn if there are classes.

    Without ``shots`` they are ``USUAL``, or one of each class where there are more classes and
    these take no more than ``MOST_TOKENS``. Raises UserError for more shots than rows.
    """
    if shots is None:
        shots = min(USUAL, len(rows))
        classes = len({task.class_of(row) for row in rows})
        if USUAL < classes <= MOST_CLASSES:
            each = choose_demonstrations(task, rows, classes, seed)
            size = len(task.backbone.text.ids("".join(map(task.demonstration, each))))
            if size <= min(MOST_TOKENS, task.backbone.longest // 2):
                return each
    check_shots(shots, rows)
    chance = random.Random(seed)
    groups: dict[str | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(task.class_of(row), []).append(row)
    queues = [chance.sample(groups[name], len(groups[name])) for name in sorted(groups, key=str)]
    chance.shuffle(queues)
    chosen: list[Row] = []
    while len(chosen) < shots:
        for queue in queues:
            if queue and len(chosen) < shots:
                chosen.append(queue.pop())
    return chosen


def labels_not_shown(task: Bound, rows: Sequence[Row], shown: Sequence[Row]) -> list[str]:
    """Return a line that says how many labels no demonstration shows, if any."""
    classes = {task.class_of(row) for row in rows}
    missing = len(classes - {task.class_of(row) for row in shown})
    if not missing:
        return []
    return [
        f"the start's {len(shown)} demonstrations show {len(classes) - missing} of the "
        f"{len(classes)} labels, {missing} are not shown; `shots={len(classes)}` shows each once"
    ]
