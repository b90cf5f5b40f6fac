"""Answers: rows by a prompt's own task, whose passes and completions the engine's loop runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foreword.compose.ensemble import Ensemble
from foreword.data.row import Row
from foreword.injection import Injection, Mixture
from foreword.prompt.answerer import Answerer
from foreword.prompt.familiar import Familiar
from foreword.prompt.prompt import Prompt
from foreword.serve.request import Sampling, Ticket
from foreword.serve.states import ReadingBackbone
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.progress import report_by_row
from foreword.tasks.texts.generator import Generator

Begin = Callable[[Sequence[int], Injection, Sampling], Ticket]
Progress = Callable[[int], None]


def answers(
    backbone: ReadingBackbone,
    begin: Begin,
    prompt: Answerer,
    rows: Sequence[Row],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Answer rows as ``prompt.answers`` does; ``begin`` makes a request of one to continue."""
    if isinstance(prompt, Ensemble):  # whose members write texts in lockstep, beside the loop
        own = backbone.own
        united = prompt if prompt.members[0].on is own else prompt.on_backbone(own)
        return united.answers(rows, progress=progress, on=backbone)
    assert isinstance(prompt, Prompt)
    here = prompt if prompt.on is backbone.own else prompt.on_backbone(backbone.own)
    bound = here.bound.changed(backbone=backbone)
    if (kept := prompt.data.get("states")) is not None and isinstance(bound, Classifier):
        return _with_distances(bound, Familiar.read(kept), prompt, rows, progress)
    if isinstance(bound, Generator):
        bound = bound.changed(decode_rows=partial(_decode_rows, bound, begin))
    return bound.predict(rows, prompt.injection, progress=progress)


def _with_distances(
    bound: Classifier,
    familiar: Familiar,
    prompt: Prompt,
    rows: Sequence[Row],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Answer rows, and say of each whether it is ``unlike`` those that the prompt fits."""
    states: dict[int, Tensor] = {}
    found = bound.changed(hear=states.__setitem__).predict(
        rows, prompt.injection, progress=progress
    )
    if not found:
        return []
    distances = familiar.distances(torch.stack([states[n].cpu() for n in range(len(rows))]))
    unlike = (distances > familiar.furthest).tolist()
    return [{**each, "unlike": far} for each, far in zip(found, unlike, strict=True)]


def _decode_rows(
    bound: Generator,
    begin: Begin,
    rows: Sequence[Row],
    injection: Injection | Mixture,
    before: str,
    owners: Sequence[int],
    progress: Progress | None,
) -> tuple[list[str], list[bool]]:
    """Decode rows as ``Generator.decode_rows`` does, each as a request."""
    examples, truncated = bound.lay_out(rows, injection, before=before)
    mixture, decoding = Mixture.of(injection, len(rows)), bound.decoding(before)
    how = Sampling(**{field.name: getattr(decoding, field.name) for field in fields(decoding)})
    tickets = [
        begin(example.ids, mixture.parts[part], how)
        for example, part in zip(examples, mixture.rows, strict=True)
    ]
    report, texts = report_by_row(progress, owners), []
    for number, ticket in enumerate(tickets):
        texts.append(bound.answer_of(ticket.result().text))
        report([number])
    return texts, truncated
