"""Compression: a short prefix is trained to stand in for a long text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.shared import backbone_of
from foreword.compression.distil import Distillation
from foreword.compression.self_study import SelfStudy, ask_questions
from foreword.data.folder import TEST
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import hold_out
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.files import file_to_write
from foreword.injection import NOTHING, Injection
from foreword.methods.cartridge import Cartridge, check_length, text_ids
from foreword.metrics.generation import generation
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import Generator
from foreword.terminal import usual_reporter
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt

TEMPLATE = "\n\nQuestion: {prompt}\nAnswer:"
DECODING = Decoding(max_new_tokens=48, stop=("\n",))
ROOM = 128
"""Tokens left for a question and its answer after the text, at least."""

HELD, DEV = 0.15, 0.1
"""Fractions of the questions held out for the report, and to choose the best state."""

TIMINGS = 3


@dataclass(frozen=True)
class Compressed:
    """A cartridge, and how close it comes to its text.

    ``report`` has, on questions that were held back: ``kl`` and ``top1``, the divergence from the
    full text in nats per token, and how often both predict the same next token; ``kl_truncated``
    and ``top1_truncated`` are those of the text cut to as many positions, ``kl_none`` and
    ``top1_none`` those without the text. ``answers``, ``answers_truncated`` and ``answers_full``
    are ROUGE-L of the answers, with ``intervals``, against the ``reference``: the given answers,
    or else those under the full text. ``bytes`` and ``bytes_full`` are the sizes of the keys and
    values, ``first_token_seconds`` and ``first_token_seconds_full`` the time to the first token of
    an answer. ``tokens`` of text are compressed to ``length`` positions.
    """

    prompt: Prompt
    report: dict[str, Any]


def compress(
    backbone: Backbone | str | Path,
    method: Cartridge,
    out: str | Path,
    *,
    task: Generate | None = None,
    study: SelfStudy | None = None,
    questions: Rows | None = None,
    test: Rows | None = None,
    training: Training | None = None,
    resume: bool = False,
    report: Reporter | None = None,
) -> Compressed:
    """Tune a cartridge to answer as the model does after the whole text; write it to ``out``.

    It learns from questions that the model asks itself (self_study.py), kept beside ``out``, or
    from ``questions``: rows of the task, with or without answers. The report is on questions that
    are held out, or on those of ``test``. ``resume`` continues a run that was stopped.

    Raises UserError for an ``out`` that is no file, a model that cannot hold a text as keys and
    values, a text that is too short or too long, and too few questions; Interrupted after Ctrl-C.
    """
    report = usual_reporter() if report is None else report
    backbone, training = backbone_of(backbone), training or Training()
    target, text = Path(out), Path(method.text or "")
    file_to_write(target)
    task = task or Generate(TEMPLATE, decoding=DECODING)
    bound = task.bind(backbone)
    if not bound.fields:
        raise UserError(
            f"template {task.template!r} has no field for a question; write one, such as {{prompt}}"
        )
    ids = text_ids(backbone, text)
    check_length(text, ids, method.length)
    full = _prefill(backbone, ids, text)
    if questions is not None:
        rows = _read_questions(bound, task, questions, full, report)
    else:
        kept = target.with_name(f"{target.name.removesuffix('.safetensors')}.questions.jsonl")
        study = replace(study or SelfStudy(), seed=training.seed)
        rows = ask_questions(bound, task.completion_field, ids, full, study, kept, report)
    if test is None:
        rows, held = _hold_out(rows, training.seed)
    else:
        held = _read_questions(bound, task, test, full, report, TEST)
    with report.bar("reading", len(rows) + len(held)) as progress:
        distilled = Distillation(bound, full, [*rows, *held], progress)
    learned, dev = hold_out(rows, DEV, training.seed)
    prompt = tune_prompt(
        backbone,
        task,
        method,
        learned,
        dev,
        training=training,
        out=target,
        resume=resume,
        report=report,
        objective=lambda bound: distilled,
    )
    measures: dict[str, Any] = {"tokens": len(ids), "length": method.length}
    measures["ratio"] = round(len(ids) / method.length, 2)
    measures["questions"] = {"train": len(learned), "dev": len(dev), "test": len(held)}
    truncated = _prefill(backbone, ids[: method.length], text)
    first = backbone.text.around[0]
    none = _prefill(backbone, first, text) if first else NOTHING
    for name, each in (("", prompt.injection), ("_truncated", truncated), ("_none", none)):
        with report.bar("comparing", len(held)) as progress:
            found = distilled.agreement(each, held, progress)
        measures |= {f"{key}{name}": round(value, 4) for key, value in found.items()}
    given = test if test is not None else questions
    measures["reference"] = "full text" if given is None else "given"
    parts = {"answers": prompt.injection, "answers_truncated": truncated, "answers_full": full}
    measures |= _score_answers(bound, held, parts, report)
    measures |= _measure_costs(bound, ids, held[0], prompt.injection, full)
    prompt = replace(prompt, scores={**prompt.scores, "compress": measures})
    prompt.save(target)
    return Compressed(prompt, measures)


def _prefill(backbone: Backbone, ids: Sequence[int], text: Path) -> Injection:
    """Return the keys and values of the ids, which begin with the tokenizer's first tokens.

    Raises UserError if the model has none, or the ids leave no room for a question.
    """
    room = backbone.longest - ROOM
    if len(ids) > room:
        raise UserError(
            f"{text}: has {len(ids)} tokens, and {backbone.name} reads {backbone.longest} with the "
            f"question; cut it into files of at most {room}, and join their cartridges with "
            "foreword compose --how concat"
        )
    found = backbone.prefill(NOTHING, ids, len(ids) + ROOM)
    if found is None:
        raise UserError(
            f"{backbone.name} cannot hold a text of {len(ids)} tokens as keys and values: "
            "compress needs a causal model whose attention reaches all of them"
        )
    return replace(found, bos=len(backbone.text.around[0]))


def _read_questions(
    bound: Generator,
    task: Generate,
    questions: Rows,
    full: Injection,
    report: Reporter,
    split: Sequence[str] | None = None,
) -> list[Row]:
    """Read questions; those without an answer get the model's own after the full text."""
    rows = as_rows(questions, split=split, targets=False, fields=bound.pair)
    bound.check(rows, answers=False)
    field = task.completion_field
    lacking = [row for row in rows if row.fields.get(field) in (None, "")]
    answered = [row for row in rows if row.fields.get(field) not in (None, "")]
    if lacking:
        with report.bar("answering", len(lacking)) as progress:
            found = bound.predict(lacking, full, progress=progress)
        pairs = zip(lacking, found, strict=True)
        answered += [Row({**r.fields, field: a["text"]}, r.where) for r, a in pairs if a["text"]]
    bound.check(answered, answers=True)
    return answered


def _hold_out(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Hold questions out for the report; raises UserError if there are too few."""
    if len(rows) < 10:
        raise UserError(
            f"there are {len(rows)} questions with an answer, and compress needs 10 to learn and "
            "to be scored; raise `count`, or give more with `questions=F`"
        )
    return hold_out(rows, HELD, seed)


def _score_answers(
    bound: Generator, rows: Sequence[Row], parts: Mapping[str, Injection], report: Reporter
) -> dict[str, Any]:
    """Return ROUGE-L of the answers under each injection, and the intervals."""
    made: dict[str, Any] = {}
    intervals = {}
    for name, injection in parts.items():
        with report.bar("answering", len(rows)) as progress:
            found = bound.predict(rows, injection, progress=progress)
        scores = generation(
            [str(answer["text"]) for answer in found], [[bound.completion(row)] for row in rows]
        )
        made[name], intervals[name] = scores["rouge_l"], scores["intervals"]["rouge_l"]
    return {**made, "intervals": intervals}


def _measure_costs(
    bound: Generator, ids: Sequence[int], row: Row, cartridge: Injection, full: Injection
) -> dict[str, Any]:
    """Return the sizes of the keys and values, and the times to the first token of an answer."""
    backbone = bound.backbone
    question = [bound.dev_example(row, room_for(backbone, full)).example]

    def seconds(text: Sequence[int], injection: Injection) -> float:
        began = time.perf_counter()
        if text:
            read = backbone.prefill(NOTHING, text, len(text) + ROOM)
            assert read is not None, "it was read before"
            injection = replace(read, bos=injection.bos)
        states_of(backbone, injection, question)
        return time.perf_counter() - began

    return {
        "bytes": _size(cartridge),
        "bytes_full": _size(full),
        "first_token_seconds": round(median(seconds((), cartridge) for _ in range(TIMINGS)), 4),
        "first_token_seconds_full": round(median(seconds(ids, full) for _ in range(TIMINGS)), 4),
    }


def _size(injection: Injection) -> int:
    return sum(tensor.numel() * tensor.element_size() for _, tensor in injection.tensors())
