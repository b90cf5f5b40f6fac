"""Self-study: a model asks questions about parts of a text, and answers them after all of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.compression.read_ahead import read_ahead
from foreword.config.settings import setting
from foreword.config.values import hash_of, plain
from foreword.data.kept import read_kept
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.files import write_jsonl
from foreword.injection import Injection
from foreword.metrics.language import language_of
from foreword.reporter import Reporter
from foreword.tasks.texts.generator import Generator

OPENINGS = ("", " What", " How", " When", " Who", " Why", " Which", " Where", " Is", " Can")
"""How questions begin, in turn, for variety."""

OPENINGS_IN_CHINESE = (
    "",
    "什么",
    "怎么",
    "什么时候",
    "谁",
    "为什么",
    "哪",
    "在哪里",
    "是不是",
    "可以",
)
"""Those about a Chinese text."""

AT_ONCE = 32
"""Questions answered at once; the file is written after each such group."""


@dataclass(frozen=True)
class SelfStudy:
    """Self-study (Eyuboglu et al. 2025, arXiv:2506.06266, section 4).

    ``count`` questions in all, each sampled at ``temperature`` after a part of the text of
    ``part`` tokens, and at most ``words`` tokens long. The answers are decoded as the task decodes,
    after the whole text.
    """

    count: int = setting(160, help="questions that the model asks itself, where none are given")
    part: int = setting(256, help="tokens of the text before a question")
    words: int = setting(32, help="most tokens of a question")
    temperature: float = setting(0.8, help="sampling temperature of the questions")
    seed: int = setting(0, help="seed of the questions")

    def check(self) -> None:
        """Raise UserError for numbers that cannot be."""
        for name in ("count", "part", "words"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}={getattr(self, name)}`: give 1 or more")


def ask_questions(
    bound: Generator,
    answer: str,
    ids: Sequence[int],
    whole: Injection,
    study: SelfStudy,
    kept: Path,
    report: Reporter,
) -> list[Row]:
    """Return questions about the text with their answers, as rows of the task.

    ``answer`` is the field for the model's answer under ``whole``, the keys and values of the
    text's tokens ``ids``. The file ``kept`` is written after each part, and what it holds is not
    done again.

    Raises UserError for a template that does not have exactly one field, for the question, and for
    a file ``kept`` of other rows.
    """
    study.check()
    before, field, after = _split_template(bound)
    about = {"ids": list(ids), "study": plain(study), "task": plain(bound.task)}
    about["model"] = bound.backbone.fingerprint
    run = hash_of(about)
    found = read_kept(kept, "question that a model has asked itself")
    found = [row for row in found if row["run"] == run]
    parts = _split_text(ids, study.part)
    if found:
        report.line(f"{kept}: {len(found)} questions are there already")
    openings = itertools.cycle(openings_about(bound.backbone.text.decode(list(ids))))
    shares = [list(itertools.islice(openings, n)) for n in _spread(study.count, len(parts))]
    done = {row["part"] for row in found}
    with report.bar("asking", study.count) as move:
        for number, (part, starts) in enumerate(zip(parts, shares, strict=True)):
            if number not in done and starts:
                seed = study.seed * 1_000_003 + number
                made = _ask(bound.backbone, part, before, after, starts, study, seed)
                known = {row[field].casefold() for row in found}
                fresh = {text.casefold(): text for text in made if text}
                found += [
                    {field: text, "part": number, "run": run}
                    for low, text in fresh.items()
                    if low not in known
                ]
                write_jsonl(kept, found)
            move(len(starts))
    with report.bar("answering", len(found)) as move:
        for start in range(0, len(found), AT_ONCE):
            group = found[start : start + AT_ONCE]
            lacking = [row for row in group if answer not in row]
            rows = [Row({field: row[field]}, f"{kept}: {row[field]}") for row in lacking]
            for row, said in zip(lacking, bound.predict(rows, whole), strict=True):
                row[answer] = said["text"]
            if lacking:
                write_jsonl(kept, found)
            move(len(group))
    return [Row(row, f"{kept}:{n}") for n, row in enumerate(found, 1) if row[answer]]


def openings_about(text: str) -> Sequence[str]:
    """Return how questions about a text begin: in Chinese if it is Chinese, else in English."""
    return OPENINGS_IN_CHINESE if language_of(text) == "zh" else OPENINGS


def _split_template(bound: Generator) -> tuple[str, str, str]:
    """Return the template's text before its one field, the field, and the text after it."""
    filled = bound.template.fill(dict.fromkeys(bound.fields, "\0"))
    pieces = "".join(piece for piece in filled if isinstance(piece, str)).split("\0")
    if len(bound.fields) != 1 or len(pieces) != 2 or bound.virtual:
        raise UserError(
            f"template {bound.template.source!r}: questions need one field to stand in; "
            "give such a template, or questions of your own with `questions=F`"
        )
    before = pieces[0].removeprefix(bound.backbone.text.first) if bound.template.chat else pieces[0]
    return before.rstrip(" "), bound.fields[0], pieces[1]


def _split_text(ids: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split the text's tokens into parts of about equal size."""
    number = max(1, round(len(ids) / size))
    ends = [len(ids) * n // number for n in range(number + 1)]
    return [ids[start:end] for start, end in itertools.pairwise(ends)]


def _spread(count: int, parts: int) -> list[int]:
    """Spread questions over parts.

    >>> _spread(7, 3)
    [3, 2, 2]
    """
    return [count // parts + (n < count % parts) for n in range(parts)]


def _ask(
    backbone: Backbone,
    part: Sequence[int],
    before: str,
    after: str,
    openings: Sequence[str],
    study: SelfStudy,
    seed: int,
) -> list[str]:
    """Sample a question after a part of the text for each opening."""
    # The part's last token is read with each row, so that no row is empty.
    rows = [[part[-1], *backbone.text.ids(before + opening)] for opening in openings]
    stop = tuple(dict.fromkeys(["\n", *([after.strip(" ")] if after.strip() else [])]))
    held = read_ahead(backbone, part[:-1], max(map(len, rows)) + study.words)
    assert held is not None, "the whole text could be read ahead, so that a part can"
    texts = decode(
        backbone,
        rows,
        held,
        Decoding(study.words, temperature=study.temperature, top_p=0.95, stop=stop),
        lead=part[:-1],
        seeds=[row_seed(seed, (n,)) for n in range(len(rows))],  # openings come again
    )
    return [(opening + text).strip() for opening, text in zip(openings, texts, strict=True)]
