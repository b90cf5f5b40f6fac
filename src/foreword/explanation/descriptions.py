"""The prompt in words: candidates from everywhere, each run as a plain-text prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.explanation.candidates import Candidate, asked, controls, nearest
from foreword.explanation.explanation import UNFAITHFUL, Description, Descriptions, Measured
from foreword.explanation.inspect_states import inspect
from foreword.explanation.judge import Judge
from foreword.explanation.search_words import search_words
from foreword.injection import Injection
from foreword.reporter import Reporter
from foreword.tasks.base import Bound
from foreword.tasks.plain_text import with_text

SEARCHED = 16
"""Rows by which words are searched; no description is scored on them."""

LEAST = 4
"""Rows that are left to score descriptions on, at the least, or nothing is searched."""


def describe(
    bound: Bound,
    rows: Sequence[Row],
    injection: Injection,
    report: Reporter,
    *,
    samples: int = 2,
    seed: int = 0,
) -> tuple[Descriptions, dict[str, str]]:
    """Describe a prompt, and run every description as a plain-text prompt.

    Returns the descriptions, and the kinds that are left out with the reason.
    """
    backbone, left_out = bound.backbone, dict[str, str]()
    held = min(SEARCHED, len(rows) // 3)
    searched, scored = rows[:held], rows[held:]
    if held < LEAST:
        searched, scored = [], rows
    found: list[Candidate] = []

    def gather(kind: str, candidates: Callable[[], Iterable[Candidate]]) -> None:
        try:
            found.extend(candidates())
        except UserError as error:
            left_out[f"words: {kind}"] = str(error)

    def search() -> list[Candidate]:
        if not searched:
            raise UserError(f"there are too few rows; give {3 * LEAST} or more")
        return [search_words(bound, searched, injection, report)]

    gather("inspect", lambda: inspect(backbone, injection, samples, seed))
    gather("asked", lambda: asked(bound, injection, samples, seed))
    gather("searched", search)
    gather("nearest", lambda: [nearest(backbone, injection)])
    found = _each_once([*found, *controls(bound.task.language)])
    with report.bar("descriptions", (len(found) + 2) * len(scored)) as progress:
        prompt = Judge.of(bound, scored, injection).measure("prompt", progress=progress)
        bare = Judge.of(bound.zero_shot(), scored).measure("untouched", progress=progress)
        texts = []
        for each in found:
            try:
                judge = Judge.of(with_text(bound, each.text), scored)
            except UserError:  # too long for the model beside some row
                continue
            texts.append(
                _described(each, judge.measure(each.text, progress=progress), prompt, bare)
            )
    last = dict(zip(UNFAITHFUL, (1, 2), strict=True))
    texts.sort(key=lambda each: (last.get(each.kind, 0), each.loss))
    return Descriptions(bound.metric, len(scored), prompt, bare, tuple(texts)), left_out


def _each_once(found: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates with some text, each text once; what is not faithful may say the same."""
    kept: dict[tuple[bool, str], Candidate] = {}
    for each in found:
        text = " ".join(each.text.split())
        if text:
            key = each.kind in UNFAITHFUL, text.lower()
            kept.setdefault(key, Candidate(text, each.kind, each.source))
    return list(kept.values())


def _described(
    candidate: Candidate, found: Measured, prompt: Measured, bare: Measured
) -> Description:
    gained = bare.loss - prompt.loss
    gain = (bare.loss - found.loss) / gained if gained > 0 else None
    return Description(
        candidate.text, candidate.kind, candidate.source, found.score, found.loss, gain
    )
