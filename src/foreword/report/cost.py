"""What does it cost, and what does it break? Size, time, and what the model says of other texts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.data.row import Row
from foreword.data.sample import first
from foreword.evaluation.request_time import rows_to_time, time_in_turn
from foreword.injection import NOTHING, Injection
from foreword.report.left_out import LeftOut
from foreword.report.perplexity import Perplexity, measure_perplexity, plain_texts, questions
from foreword.report.subject import Subject

OTHERS = 30
"""Rows of another task whose texts are scored."""


@dataclass(frozen=True)
class Cost:
    """Size and time: bytes of the file, positions in front of a row, milliseconds a request.

    ``tokens`` is the median length of a row without the prompt, in tokens.
    """

    bytes: int
    numbers: int
    positions: int
    tokens: int
    milliseconds: float
    milliseconds_bare: float
    requests: int
    perplexities: Sequence[Perplexity] | LeftOut


def measure_cost(subject: Subject, others: Mapping[str, Sequence[Row]]) -> Cost:
    """Measure a prompt's size, its time beside the bare model, and what it does to other texts.

    ``others`` are rows of other tasks, by the names of their data.
    """
    bound, injection = subject.bound, subject.prompt.injection
    numbers = sum(tensor.numel() for _, tensor in injection.tensors())
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in injection.tensors())
    rows = rows_to_time(bound, subject.rows)
    lengths = [len(bound.backbone.text.ids(bound.text_of(row))) for row in subject.rows]
    frozen = bound.zero_shot()
    with subject.report.bar("time of a request", 2 * len(rows)) as progress:
        tuned, bare = time_in_turn(
            [
                lambda row: bound.predict([row], injection),
                lambda row: frozen.predict([row], NOTHING),
            ],
            rows,
            progress,
        )
    return Cost(
        bytes=size if subject.file is None else subject.file.stat().st_size,
        numbers=numbers,
        positions=positions(injection),
        tokens=int(statistics.median(lengths)),
        milliseconds=tuned,
        milliseconds_bare=bare,
        requests=len(rows),
        perplexities=_perplexities(subject, others),
    )


def positions(injection: Injection) -> int:
    """Return how many more places a row's tokens see: virtual tokens, or keys and values."""
    tokens = 0 if injection.embeds is None else len(injection.embeds)
    held = max((kv.keys.shape[1] for kv in injection.kv.values()), default=0)
    return max(injection.positions, held) + tokens


def _perplexities(
    subject: Subject, others: Mapping[str, Sequence[Row]]
) -> Sequence[Perplexity] | LeftOut:
    backbone, injection = subject.bound.backbone, subject.prompt.injection
    if backbone.is_encoder:
        return LeftOut("no perplexity: an encoder predicts no words")
    if injection.embeds is not None and len(injection.embeds) > injection.leading:
        return LeftOut(
            "no perplexity: its virtual tokens stand inside the template, which plain text has not"
        )
    texts = {"plain prose": plain_texts(), "answers to everyday questions": questions()}
    for name, rows in others.items():
        chosen = list(rows) if len(rows) <= OTHERS else first(rows, OTHERS, subject.seed)
        texts[f"rows of {name}"] = [("", _said(row)) for row in chosen]
    with subject.report.bar("perplexity", len(texts)) as progress:
        found = []
        for name, pairs in texts.items():
            found.append(measure_perplexity(backbone, injection, pairs, name))
            progress(1)
    return [each for each in found if each.tokens]


def _said(row: Row) -> str:
    return "\n".join(str(value) for value in row.fields.values() if isinstance(value, str))
