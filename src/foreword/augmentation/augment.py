"""Augmentation: new rows for a classification, written by a model and filtered by a prompt.

PromDA (Wang et al. 2022, ACL, "PromDA: Prompt-based Data Augmentation for Low-Resource NLU Tasks"):
a prompt is tuned to write a row's text from its label and keywords; what it writes is kept if a
classifier tuned on the same rows gives it the label asked for (consistency filtering).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foreword.augmentation.rounds import Augment, plan_rounds, select_kept
from foreword.augmentation.writer import tune_writer, write_texts
from foreword.augmentation.writer_rows import make_requests, reverse_rows
from foreword.backbone.backbone import Backbone
from foreword.config.values import hash_of, plain
from foreword.data.clean import mended
from foreword.data.duplicates import same_text
from foreword.data.kept import read_kept
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import file_of
from foreword.data.shapes import require
from foreword.data.write import check_apart, check_writable, write_rows
from foreword.errors import UserError
from foreword.files import write_jsonl
from foreword.methods.base import Method
from foreword.methods.prefix import Prefix
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.terminal import usual_reporter
from foreword.training.settings import Training


@dataclass(frozen=True)
class Augmented:
    """How many texts were ``sampled``, ``dropped`` by the reason, and ``kept`` by label.

    ``out`` is the file of the new rows.
    """

    out: str
    sampled: int
    dropped: Mapping[str, int]
    kept: Mapping[str, int]


DROPPED = ("empty", "known", "repeated", "another label")
"""Why a text is dropped: empty, among the given rows, sampled before, or classified otherwise."""


def augment(
    prompt: Prompt,
    train: Rows,
    out: str | Path,
    settings: Augment | None = None,
    *,
    known: Rows = (),
    writer: Backbone | None = None,
    method: Method | None = None,
    training: Training | None = None,
    resume: bool = False,
    report: Reporter | None = None,
) -> Augmented:
    """Write new rows to ``out``, and return how many texts were sampled, dropped and kept.

    ``prompt`` is a classifier with one field, tuned on ``train``. Texts that occur in ``train`` or
    ``known`` are dropped. ``writer`` is the model that writes, by default the prompt's own. The
    writer's prompt, and every sampled text with why it was dropped, are kept beside ``out``, so
    that a run that was stopped continues.

    Raises UserError for another prompt, a model that cannot generate, a label without a row, files
    that hold other rows, and if no text is kept.
    """
    report = usual_reporter() if report is None else report
    settings = settings or Augment()
    settings.check()
    target, (bound, label_field) = Path(out), classifier_of(prompt)
    check_writable(target)
    check_apart(target, *(each for each in (train, known) if isinstance(each, str | Path)))
    field = bound.fields[0]
    train = as_rows(train, fields=bound.pair)
    known = as_rows(known, targets=False, name="known row", fields=bound.pair)
    bound.check(train, answers=True)
    require(known, [field])
    said = {label: own[0].strip() for label, own in bound.words.items()}
    wanted = settings.wanted(bound.labels)
    unseen = set(+wanted) - {str(row.fields[label_field]) for row in train}
    if unseen and settings.keywords:
        raise UserError(
            f"{file_of(train)}no row has the label '{min(unseen)}', so that there are no keywords "
            "for its texts; add one, or give `keywords=0`"
        )
    kept = path_beside(target, ".samples.jsonl")
    found = read_kept(kept, "text that a model has sampled")
    rows = reverse_rows(train, field, label_field, said, settings.keywords)
    generator = tune_writer(
        writer or bound.backbone,
        rows,
        path_beside(target, ".writer.safetensors"),
        settings,
        method or Prefix(),
        training or Training(epochs=5, seed=settings.seed),
        resume,
        report,
    )
    seen = {same_text(str(row.fields[field])) for row in (*train, *known)}
    run = hash_of([plain(settings), sorted(seen), generator.metadata(), prompt.metadata()])
    found = [each for each in found if each["run"] == run]
    if found:
        report.line(f"{kept}: {len(found)} texts are there already")
    with report.bar("writing", settings.count) as move:
        move(len(select_kept(found, wanted)))
        for number, asked in plan_rounds(found, wanted, settings):
            before = len(select_kept(found, wanted))
            seed = f"{settings.seed}/{number}"
            requests = make_requests(rows, asked, said, settings.keywords, seed)
            with report.bar("texts of a round", len(requests)) as progress:
                written = write_texts(generator, requests, settings.decoding(number), progress)
            texts = [str(mended(text)).strip() for text in written]
            past = {same_text(str(each["text"])) for each in found}
            for text, label, why in filter_texts(prompt, asked, texts, seen, past):
                new = {"text": text, "label": label, "dropped": why, "round": number, "run": run}
                found.append(new)
            write_jsonl(kept, found)
            move(len(select_kept(found, wanted)) - before)
    made = select_kept(found, wanted)
    if not made:
        raise UserError(
            f"{kept}: of {len(found)} sampled texts none was kept, which says why; raise `tries`, "
            "or give a prompt that is surer of its labels"
        )
    write_rows(target, [{field: each["text"], label_field: each["label"]} for each in made])
    dropped = {why: sum(each["dropped"] == why for each in found) for why in DROPPED}
    return Augmented(
        out=str(target),
        sampled=len(found),
        dropped={**dropped, "not needed": len(found) - sum(dropped.values()) - len(made)},
        kept={label: sum(each["label"] == label for each in made) for label in bound.labels},
    )


def classifier_of(prompt: Prompt) -> tuple[Classifier, str]:
    """Return the classifier of a prompt, and the field of its labels.

    Raises UserError for another task, or several fields.
    """
    bound, task = prompt.bound, prompt.task
    if not (isinstance(bound, Classifier) and isinstance(task, Classify)):
        raise UserError("augment writes rows for a classification; the prompt is of another task")
    if len(bound.fields) != 1:
        raise UserError(
            "augment writes rows of one field, and the prompt's template has "
            f"{', '.join(bound.fields) or 'none'}; give a prompt of one"
        )
    return bound, task.label_field


def filter_texts(
    prompt: Prompt, asked: Sequence[str], texts: Sequence[str], seen: set[str], past: set[str]
) -> Iterator[tuple[str, str, str | None]]:
    """Yield each text with the label asked for and why it is dropped, None if it is kept.

    ``seen`` holds the texts of the given rows, and ``past`` those sampled so far; the texts are
    added to ``past``.
    """
    (field,) = prompt.bound.fields
    rows = [Row({field: text}, f"text {n}") for n, text in enumerate(texts, 1) if text]
    answers = iter(prompt.answers(rows) if rows else ())
    for label, text in zip(asked, texts, strict=True):
        found = next(answers)["label"] if text else None
        key = same_text(text)
        reasons = (not text, key in seen, key in past, found != label)
        past.add(key)
        yield text, label, next((w for w, yes in zip(DROPPED, reasons, strict=True) if yes), None)


def path_beside(out: Path, end: str) -> Path:
    """Return the path of a file beside the new rows, with another ending."""
    return out.with_name(f"{out.stem}{end}")
