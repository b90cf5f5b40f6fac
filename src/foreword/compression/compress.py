"""Compression: a short prefix is trained to stand in for a long text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.shared import backbone_of
from foreword.compression.distil import Distillation
from foreword.compression.measures import InFront, Measures, Questions
from foreword.compression.read_ahead import read_ahead
from foreword.compression.self_study import SelfStudy, ask_questions
from foreword.config.settings import in_code
from foreword.data.folder import TEST
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import file_of, hold_out
from foreword.data.write import check_apart
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.files import beside, check_place_of_tensors
from foreword.grammar import counted
from foreword.injection import NOTHING, Injection
from foreword.methods.cartridge import Cartridge, check_length, text_ids
from foreword.metrics.generation import generation
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import Generator
from foreword.terminal import usual_reporter
from foreword.training.configure import method_from
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
    """A cartridge, and how close it comes to its text, on questions that were held back."""

    prompt: Prompt
    report: Measures


def compress(
    backbone: Backbone | str | Path,
    method: Cartridge | str,
    out: str | Path,
    *,
    task: Generate | None = None,
    study: SelfStudy | None = None,
    questions: Rows | None = None,
    test: Rows | None = None,
    training: Training | None = None,
    resume: bool = False,
    report: Reporter | None = None,
    **settings: Any,
) -> Compressed:
    """Tune a cartridge to answer as the model does after the whole text; write it to ``out``.

    A ``method`` that is named takes ``settings``: ``compress(model, "cartridge", out, text=FILE,
    length=256)``.

    It learns from questions that the model asks itself (self_study.py), kept beside ``out``, or
    from ``questions``: rows of the task, with or without answers. The report is on questions that
    are held out, or on those of ``test``. ``resume`` continues a run that was stopped.

    Raises UserError for an ``out`` that is no file, a model that cannot hold a text as keys and
    values, a text that is too short or too long, and too few questions; Interrupted after Ctrl-C.
    """
    report = usual_reporter() if report is None else report
    method = _method(method, in_code(settings))
    backbone, training = backbone_of(backbone), training or Training()
    target, text = Path(out), Path(method.text or "")
    check_place_of_tensors(target)
    task = task or Generate(TEMPLATE, decoding=DECODING)
    bound = task.bind(backbone)
    if not bound.fields:
        raise UserError(
            f"template {task.template!r} has no field for a question; write one, such as {{prompt}}"
        )
    given = None if questions is None else _read_questions(bound, questions)
    asked = None if test is None else _read_questions(bound, test, TEST)
    ids = text_ids(backbone, text)
    check_length(text, ids, method.length)
    full = _prefill(backbone, ids, text)
    answer = task.completion_field
    if given is not None:
        rows = _answered(bound, answer, given, full, report)
    else:
        kept = beside(target, "questions.jsonl")
        check_apart(kept, test if isinstance(test, str | Path) else None)
        study = study or SelfStudy(seed=training.seed)
        rows = ask_questions(bound, answer, ids, full, study, kept, report)
    if asked is not None:
        held = _answered(bound, answer, asked, full, report)
    else:
        rows, held = _hold_out(rows, training.seed)
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
    own = prompt.injection
    truncated = _prefill(backbone, ids[: method.length], text)
    first = backbone.text.around[0]
    none = _prefill(backbone, first, text) if first else NOTHING
    near = [_agreement(distilled, each, held, report) for each in (own, truncated, none)]
    said = [_score_answers(bound, held, each, report) for each in (own, truncated, full)]
    costs = [
        _measure_costs(bound, (), own, held[0]),
        _measure_costs(bound, ids, full, held[0]),
    ]
    scored = given if asked is None else asked
    measures = Measures(
        tokens=len(ids),
        length=method.length,
        questions=Questions(len(learned), len(dev), len(held)),
        reference="given" if scored and not _lacking(scored, answer) else "full text",
        cartridge=InFront(**near[0], **said[0], **costs[0]),
        truncated=InFront(**near[1], **said[1]),
        none=InFront(**near[2]),
        full=InFront(**said[2], **costs[1]),
    )
    prompt = replace(prompt, scores={**prompt.scores, "compress": measures.to_dict()})
    prompt.save(target)
    return Compressed(prompt, measures)


def _method(method: Cartridge | str, settings: dict[str, Any]) -> Cartridge:
    """Return the method, one that is named with its settings; raises UserError for any other."""
    made = method_from(method, settings, "settings") if isinstance(method, str) else method
    if not isinstance(made, Cartridge):
        raise UserError(f"`method={method}`: a text is compressed by `method=cartridge`")
    if left := settings.keys() - {"rate"}:  # which is left, as a training has it too
        raise UserError(f"`{min(left)}` is no setting of the method; leave it out")
    return replace(made, rate=settings["rate"]) if "rate" in settings else made


def _agreement(
    distilled: Distillation, injection: Injection, rows: Sequence[Row], report: Reporter
) -> dict[str, Any]:
    """Return the divergence from the full text, and how often both go on alike."""
    with report.bar("comparing", len(rows)) as progress:
        found = distilled.agreement(injection, rows, progress)
    return {name: round(value, 4) for name, value in found.items()}


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
    found = read_ahead(backbone, ids, ROOM)
    if found is None:
        raise UserError(
            f"{backbone.name} cannot hold a text of {len(ids)} tokens as keys and values: "
            "compress needs a causal model whose attention reaches all of them"
        )
    return replace(found, bos=len(backbone.text.around[0]))


def _read_questions(
    bound: Generator, questions: Rows, split: Sequence[str] | None = None
) -> list[Row]:
    """Read rows of questions, with or without answers."""
    rows = as_rows(questions, split=split, targets=False, fields=bound.pair)
    bound.check(rows, answers=False)
    return rows


def _lacking(rows: Sequence[Row], answer: str) -> list[Row]:
    return [row for row in rows if row.fields.get(answer) in (None, "")]


def _answered(
    bound: Generator, answer: str, rows: Sequence[Row], full: Injection, report: Reporter
) -> list[Row]:
    """Give questions without an answer the model's own after the full text.

    Raises UserError where none of them has one then.
    """
    lacking = _lacking(rows, answer)
    answered = [row for row in rows if row.fields.get(answer) not in (None, "")]
    if lacking:
        with report.bar("answering", len(lacking)) as progress:
            found = bound.predict(lacking, full, progress=progress)
        pairs = zip(lacking, found, strict=True)
        answered += [Row({**r.fields, answer: a["text"]}, r.where) for r, a in pairs if a["text"]]
    if not answered:
        raise UserError(
            f"{file_of(rows)}the model answers none of the {counted(len(rows), 'question')} with "
            f"a word; give them answers, in the field {answer!r}"
        )
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
    bound: Generator, rows: Sequence[Row], injection: Injection, report: Reporter
) -> dict[str, Any]:
    """Return ROUGE-L of the answers under an injection, and its interval."""
    with report.bar("answering", len(rows)) as progress:
        found = bound.predict(rows, injection, progress=progress)
    scores = generation(
        [str(answer["text"]) for answer in found], [[bound.completion(row)] for row in rows]
    )
    return {"answers": scores["rouge_l"], "interval": tuple(scores["intervals"]["rouge_l"])}


def _measure_costs(
    bound: Generator, text: Sequence[int], injection: Injection, row: Row
) -> dict[str, Any]:
    """Return the size of the keys and values, and the time to the first token of an answer.

    The time to read a ``text`` into them is part of it, where there is one.
    """
    backbone = bound.backbone
    question = [bound.dev_example(row, room_for(backbone, injection)).example]

    def seconds() -> float:
        began, held = time.perf_counter(), injection
        if text:
            read = read_ahead(backbone, text, ROOM)
            assert read is not None, "it was read before"
            held = replace(read, bos=injection.bos)
        states_of(backbone, held, question)
        return time.perf_counter() - began

    took = median(seconds() for _ in range(TIMINGS))
    return {"bytes": _size(injection), "first_token_seconds": round(took, 4)}


def _size(injection: Injection) -> int:
    return sum(tensor.numel() * tensor.element_size() for _, tensor in injection.tensors())
