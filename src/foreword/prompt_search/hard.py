"""Hard prompts: texts that stand in front of rows, and work in any tool.

Two ways lead to them. Words are exchanged by the gradient, some at random among the promising ones,
as long as the loss that is run falls (AutoPrompt, Shin et al. 2020, arXiv:2010.15980; GCG, Zou et
al. 2023, arXiv:2307.15043); how likely the model finds the text counts too. And a soft prompt is
tuned and put into words (explanation/). All are scored as texts on the dev rows.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.data.sample import stratified
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.explanation.candidates import Candidate, asked, nearest
from foreword.explanation.inspect_states import inspect
from foreword.explanation.judge import Judge
from foreword.explanation.search_words import exchanges
from foreword.files import check_place
from foreword.grammar import counted
from foreword.injection import NOTHING
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.judged import Judged
from foreword.prompt_search.parts import part_rows
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.plain_text import with_text
from foreword.tasks.templates.layout import room_for
from foreword.training.interrupt import Enough
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt

MINUTES = 10.0
LENGTH = 8
"""Tokens of a text that is searched."""

ROWS = 16
"""Training rows by which words are exchanged."""

PROPOSED, TRIED = 48, 8
"""Exchanges that the gradient proposes in a round, and those of them whose loss is run."""

PATIENCE = 12
"""Rounds without a better text after which the search ends."""

FLUENCY = 0.05
"""What a nat of the text's own tokens counts beside a nat of a row's answer."""

TUNING, SEARCHING = 0.35, 0.8
"""The shares of the time when the soft prompt is tuned, and when the search by gradient ends."""


@dataclass(frozen=True)
class HardText:
    """A text, where it comes from, its dev score and mean loss, and its nats a token."""

    text: str
    source: str
    score: float
    loss: float
    nats: float | None


@dataclass(frozen=True)
class HardPrompt:
    """What was found: ``texts``, the best first, and the ``prompt`` that holds the best one.

    ``held`` is its score on ``held_rows`` rows by which nothing was chosen, ``untouched`` that of
    the model without a text, and ``soft`` the dev score of the soft prompt.
    """

    prompt: Prompt
    metric: str
    texts: Sequence[HardText]
    held: float
    untouched: float
    held_rows: int
    soft: float

    @property
    def text(self) -> str:
        """The best text."""
        return self.texts[0].text

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them."""
        return {
            "text": self.text,
            "metric": self.metric,
            "held_back": {"score": self.held, "untouched": self.untouched, "rows": self.held_rows},
            "soft": self.soft,
            "texts": [asdict(each) for each in self.texts],
        }


def search_hard(
    backbone: Backbone,
    task: Task,
    train: Sequence[Row],
    dev: Sequence[Row] | None = None,
    test: Sequence[Row] | None = None,
    *,
    length: int = LENGTH,
    minutes: float | None = None,
    training: Training | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    report: Reporter = SILENT,
) -> HardPrompt:
    """Search a text of about ``length`` tokens for ``minutes``; the file ``out`` holds it.

    Rows are parted as by a search, of few rows after the first fold. Raises UserError for wrong
    input, and where the task has no place for a text.
    """
    began = time.monotonic()
    whole = 60 * (MINUTES if minutes is None else minutes)
    if out is not None:
        check_place(Path(out))
    if length < 1:
        raise UserError(f"`length={length}`: give 1 or more")
    task = task.complete(train, backbone)
    parts = part_rows(train, dev, test, seed, task.class_field)
    tuned, judged = parts.folds[0]
    task = task.fill_from_rows(backbone, tuned, seed, report)
    bound = task.bind(backbone)
    for rows in (train, judged, parts.held):
        bound.check(rows, answers=True)
    method = Soft(length=length, start="text")
    heard = Judged(lambda step, value: None, began + TUNING * whole, lambda: None)
    how = training or Training(batch_size=8, seed=seed)
    report.line(f"a soft prompt of {length} tokens is tuned, to be put into words")
    try:
        prompt = tune_prompt(backbone, task, method, tuned, judged, training=how, report=heard)
    except Enough:
        raise UserError("the time was up before anything was tuned; give more `minutes`") from None
    found = {bound.instruction().strip(): "the task's own words"}
    for each in _in_words(bound, prompt, seed):
        found.setdefault(" ".join(each.text.split()), each.source)
    found.pop("", None)
    report.line(f"it says {len(found) - 1} texts; words are exchanged by the gradient")
    chosen = [tuned[n] for n in stratified([bound.class_of(r) for r in tuned], ROWS, seed)]
    start = backbone.text.ids(bound.instruction())
    ids = (start * length)[:length] or backbone.text.ids("it")
    until = began + SEARCHING * whole
    found.setdefault(_by_gradient(bound, chosen, ids, until, seed, report), "by gradient")
    report.line(f"{len(found)} texts are scored on {counted(len(judged), 'dev row')}")
    texts = []
    for text, source in found.items():
        try:
            measured = Judge.of(with_text(bound, text), judged).measure(text)
        except UserError:  # too long for the model beside some row
            continue
        nats = nats_of(backbone, backbone.text.ids(text))
        texts.append(HardText(text, source, measured.score, measured.loss, nats))
    if not texts:
        raise UserError("no text leaves room for the rows; give shorter rows or a larger model")
    texts.sort(key=lambda each: (-each.score, each.loss))
    held = Judge.of(with_text(bound, texts[0].text), parts.held).measure("held back")
    untouched = Judge.of(bound.zero_shot(), parts.held).measure("untouched")
    prompt = prompt.with_text(texts[0].text)
    if out is not None:
        prompt.save(Path(out))
    soft = float(prompt.scores["dev"][bound.metric])
    count = len(parts.held)
    return HardPrompt(prompt, bound.metric, texts, held.score, untouched.score, count, soft)


def _in_words(bound: Bound, prompt: Prompt, seed: int) -> Iterator[Candidate]:
    """Yield what a soft prompt says, asked in several ways."""
    ways: tuple[Any, ...] = (
        lambda: [nearest(bound.backbone, prompt.injection)],
        lambda: inspect(bound.backbone, prompt.injection, 1, seed),
        lambda: asked(prompt.bound, prompt.injection, 1, seed),
    )
    for way in ways:
        try:
            texts: Iterable[Candidate] = list(way())
        except UserError:  # of a model that writes no texts
            continue
        yield from texts


def _by_gradient(
    bound: Bound, rows: Sequence[Row], ids: list[int], until: float, seed: int, report: Reporter
) -> str:
    """Return the text whose loss on the rows, and own unlikeliness, is the least that was found."""
    backbone, bare = bound.backbone, bound.zero_shot()
    room = room_for(backbone, NOTHING) - len(ids)
    items = [bare.train_example(row, room) for row in rows]
    chance = random.Random(seed)

    def cost(tokens: Sequence[int]) -> float:
        try:
            judge = Judge.of(with_text(bound, backbone.text.decode(list(tokens))), rows)
        except UserError:
            return math.inf
        return judge.measure("").loss + FLUENCY * (nats_of(backbone, tokens) or 0.0)

    best, worse, rounds = cost(ids), 0, 0
    while worse < PATIENCE and time.monotonic() < until:
        proposed = exchanges(bare, items, ids, PROPOSED)
        tried = chance.sample(proposed, min(TRIED, len(proposed)))
        costs = []
        for other in tried:
            costs.append((cost(other), other))
            if time.monotonic() > until:
                break
        least, other = min(costs, default=(math.inf, ids))
        worse, rounds = worse + 1, rounds + 1
        if least < best:
            best, ids, worse = least, other, 0
    report.line(f"words were exchanged in {rounds} rounds; the loss is {best:.3f}")
    return str(backbone.text.decode(ids)).strip()


def nats_of(backbone: Backbone, tokens: Sequence[int]) -> float | None:
    """Return the mean surprise of a causal model at a text's tokens; None on another model."""
    if not backbone.can_generate or backbone.has_two_stacks or not tokens:
        return None
    first = backbone.text.around[0] or tuple(backbone.text.ids("\n"))
    targets = tuple((0, place - 1) for place in range(len(tokens)))
    example = Example(tuple(first), len(first), (tuple(tokens),), targets)
    ((_, logits),) = infer(backbone, NOTHING, [example])
    chosen = logits.float().log_softmax(1).cpu()
    return -float(chosen[torch.arange(len(tokens)), torch.tensor(list(tokens))].mean())
