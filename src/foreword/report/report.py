"""The report on prompts: measured section by section, and written as one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape
from pathlib import Path
from typing import Any, Literal

from foreword.data.folder import DEV
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.display.tables import short
from foreword.errors import UserError
from foreword.explanation.explain import check_classes, explain
from foreword.explanation.explanation import Explanation
from foreword.files import check_place, write_whole
from foreword.grammar import counted
from foreword.metrics.titles import title
from foreword.prompt.prompt import Prompt
from foreword.report.answers import KeptAnswers
from foreword.report.changes import Changes, measure_changes
from foreword.report.cost import Cost, measure_cost
from foreword.report.making import Making, describe_making
from foreword.report.page.figures import check_matplotlib
from foreword.report.page.html import page
from foreword.report.quality import Quality, measure_quality, verdict
from foreword.report.robustness import Robustness, Shifted, measure_robustness, measure_shifted
from foreword.report.side_by_side import SideBySide, compare_subjects
from foreword.report.subject import Subject
from foreword.reporter import Reporter
from foreword.tasks.registry import name_of
from foreword.terminal import usual_reporter

Section = Literal["quality", "changes", "explanation", "cost", "making"]

TITLES: Mapping[Section, str] = {
    "quality": "Is it good?",
    "changes": "What changed?",
    "explanation": "What did it learn?",
    "cost": "What does it cost, what does it break?",
    "making": "How was it made?",
}
"""The sections in their order, and what they are called."""

USUAL: tuple[Section, ...] = ("quality", "changes", "cost", "making")
"""The sections that are quick: all but the explanation."""


EXPLAINED = 64
"""Rows at most by which a prompt is explained."""


@dataclass(frozen=True)
class Chapter:
    """What a report says of one prompt on one set of rows; None of a section not asked for."""

    name: str
    about: str
    quality: Quality | None = None
    changes: Changes | None = None
    robustness: Robustness | None = None
    shifted: Shifted | None = None
    explanation: Explanation | None = None
    cost: Cost | None = None
    making: Making | None = None

    @property
    def verdict(self) -> str | None:
        """One sentence on whether it is good."""
        return None if self.quality is None else verdict(self.quality)

    @property
    def contents(self) -> list[tuple[str, int, str]]:
        """The sections that there are: name, number and title."""
        return [
            (name, number, said)
            for number, (name, said) in enumerate(TITLES.items(), 1)
            if getattr(self, name) is not None
        ]

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """A few numbers to begin with."""
        made = []
        if self.quality is not None:
            digits = 1 if self.quality.percent else 2
            made.append((f"{self.quality.tuned.score:.{digits}f}", title(self.quality.metric)))
            if (bare := self.quality.of("untouched")) is not None:
                made.append((f"{bare.score:.{digits}f}", "untouched model"))
        if self.cost is not None:
            made.append((short(self.cost.bytes, 1024, (" B", " KiB", " MiB", " GiB")), "file"))
            made.append((f"{self.cost.milliseconds:.0f} ms", "a request"))
        return made


@dataclass(frozen=True)
class Seconds:
    """How long a report took: asking models, and everything else."""

    scoring: float
    rest: float


@dataclass(frozen=True)
class Report:
    """A page on one prompt or several; in a notebook it shows itself."""

    title: str
    chapters: Sequence[Chapter]
    side_by_side: SideBySide | None = None
    seconds: Seconds | None = None
    made: str = field(default_factory=lambda: date.today().isoformat())

    def to_html(self) -> str:
        """Return the page: one HTML file that needs nothing from elsewhere."""
        return page(self)

    def save(self, path: str | Path) -> Path:
        """Write the page; raises UserError where that cannot be done."""
        return write_whole(Path(path), self.to_html().encode())

    def _repr_html_(self) -> str:
        shown = escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{shown}" style="width:100%;height:48rem;border:0"></iframe>'


def report_on(
    prompts: Prompt | Mapping[str, Prompt],
    data: Rows,
    *,
    train: Rows | None = None,
    others: Mapping[str, Rows] | None = None,
    shifted: Rows | None = None,
    sections: Sequence[Section] = USUAL,
    out: str | Path | None = None,
    answers: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
    report: Reporter | None = None,
) -> Report:
    """Look at a prompt, or at several by their names, on rows with their answers.

    ``train`` are the rows that it was tuned on: a baseline learns from them, and they show what
    was learned by heart. ``others`` are further sets of rows by name: every prompt is scored on
    all that it can be. ``shifted`` are rows from elsewhere, or from later. ``sections`` are those
    of ``TITLES``; "explanation" may take minutes. With ``out`` the page is written there. Answers
    are kept in memory and, with ``answers``, in that file, so that nothing is asked for twice.
    ``names`` are what data sets are called: "data", "train" and "shifted". ``report`` hears how it
    goes.

    Raises UserError for rows that a prompt cannot be scored on, such as those of another task.
    """
    report = usual_reporter() if report is None else report
    check_matplotlib()
    if out is not None:
        check_place(Path(out))
    if unknown := {*sections} - {*TITLES}:
        raise UserError(f"`sections={min(unknown)}`: give some of {', '.join(TITLES)}")
    began = time.monotonic()
    called = {"data": "these rows", "train": "TRAIN", "shifted": "other rows", **(names or {})}
    given = {"prompt": prompts} if isinstance(prompts, Prompt) else dict(prompts)
    if not given:
        raise UserError("there is no prompt to report on; give one")
    kept = KeptAnswers(None if answers is None else Path(answers))
    pair = next(iter(given.values())).task.pair
    sets = {called["data"]: _read(data, called["data"], pair)}
    sets |= {name: _read(rows, name, pair) for name, rows in (others or {}).items()}
    learned = None if train is None else _read(train, called["train"], pair, None)
    elsewhere = None if shifted is None else _read(shifted, called["shifted"], pair)
    subjects = [
        _subject(name, prompt, sets, learned, kept, seed, report) for name, prompt in given.items()
    ]
    if elsewhere is not None:
        subjects[0].bound.check(elsewhere, answers=True)
    chapters = [_chapter(each, sets, elsewhere, sections, called) for each in subjects]
    side = None
    if len(given) > 1 or len(sets) > 1:
        side = compare_subjects(subjects, sets)
    rest = time.monotonic() - began - kept.seconds
    said = " and ".join(given) if len(given) < 4 else f"{len(given)} prompts"
    made = Report(said, chapters, side, Seconds(kept.seconds, rest))
    if out is not None:
        made.save(out)
    return made


def _read(
    rows: Rows, name: str, pair: tuple[str, str], split: Sequence[str] | None = DEV
) -> list[Row]:
    """Read rows; raises UserError where there are none."""
    found = as_rows(rows, split=split, fields=pair)
    if not found:
        raise UserError(f"{name}: there are no rows; give one or more")
    return found


def _subject(
    name: str,
    prompt: Prompt,
    sets: Mapping[str, Sequence[Row]],
    train: Sequence[Row] | None,
    kept: KeptAnswers,
    seed: int,
    report: Reporter,
) -> Subject:
    """Set a prompt on the first data set that it can be scored on."""
    errors = []
    for data, rows in sets.items():
        try:
            prompt.bound.check(rows, answers=True)
        except UserError as error:
            errors.append(error)
            continue
        check_classes(prompt.bound, data, rows)
        if train is not None and data == next(iter(sets)):
            prompt.bound.check(train, answers=True)
        own = train if data == next(iter(sets)) else None
        return Subject(name, prompt, data, rows, own, kept, seed, report)
    raise errors[0]


def _chapter(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    elsewhere: Sequence[Row] | None,
    sections: Sequence[Section],
    called: Mapping[str, str],
) -> Chapter:
    backbone = Path(subject.prompt.backbone["name"]).name
    method, kind = subject.prompt.method.get("name", "?"), name_of(subject.prompt.task)
    rows = f"{counted(len(subject.rows), 'row')} of {Path(subject.data).name}"
    about = f"{method} for {kind} on {backbone} · {rows}"
    found: dict[str, Any] = {}
    if "quality" in sections:
        found["quality"] = measure_quality(subject)
    if "changes" in sections:
        found["changes"] = measure_changes(subject)
        found["robustness"] = measure_robustness(subject)
        if elsewhere is not None:
            found["shifted"] = measure_shifted(subject, elsewhere, called["shifted"])
    if "explanation" in sections:
        how: Any = {"rows": EXPLAINED, "seed": subject.seed, "report": subject.report}
        found["explanation"] = explain(subject.prompt, subject.rows, **how)
    if "cost" in sections:
        others = {name: rows for name, rows in sets.items() if name != subject.data}
        found["cost"] = measure_cost(subject, others)
    if "making" in sections:
        found["making"] = describe_making(subject, called)
    return Chapter(subject.name, about, **found)
