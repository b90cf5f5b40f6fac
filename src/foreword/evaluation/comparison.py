"""Comparing methods by name, on rows from whatever holds them; and what comes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import in_code, settings_of
from foreword.config.values import typed
from foreword.data.rows import TAKEN, Rows, as_rows
from foreword.data.sample import hold_out
from foreword.display import comparison as report_of
from foreword.errors import UserError, nearest
from foreword.evaluation.compare import compare_runs
from foreword.evaluation.records import Record, read_records, summarise
from foreword.evaluation.runs import (
    UNTRAINED,
    Data,
    Model,
    Run,
    Untrained,
    ZeroShot,
    distinct,
)
from foreword.html import html_table
from foreword.methods.base import Method
from foreword.methods.registry import AUTO, METHODS
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Task
from foreword.tasks.registry import TASKS
from foreword.terminal import Terminal, usual_reporter
from foreword.training.configure import WHERE, make_task, method_from, take, training_from
from foreword.training.settings import Training

Comparable = Method | Untrained

ALONE = {
    "seed": "`seeds` says how many runs there are, with seeds from it up",
    "headline": "all entries are compared by the same score",
}
"""Settings that cannot be swept, and why."""

NUMBERS = {"rows": int | None, "per_label": int | None, "seeds": int}


@dataclass(frozen=True)
class Entry:
    """A method in a comparison, with the mean of its seeds.

    ``settings`` are those in which the entries differ. ``interval`` is the mean of the seeds' 95%
    bootstrap intervals, ``spread`` the standard deviation of their scores, None for one seed.
    ``parameters`` are the trained numbers, ``bytes`` the size of the file, ``seconds`` the time of
    tuning, ``peak_mib`` the most memory. Where all runs failed, ``error`` says why, and the others
    are None.
    """

    method: str
    settings: Mapping[str, Any]
    score: float | None
    interval: tuple[float, float] | None
    spread: float | None
    parameters: int | None
    bytes: int | None
    seconds: float | None
    peak_mib: float | None
    error: str | None
    seeds: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Methods beside each other: ``headline`` names the score, ``entries`` are in the order asked.

    ``plain`` are the entries as plain values.
    """

    headline: str | None
    entries: Sequence[Entry]
    plain: Sequence[Record]

    @staticmethod
    def of(records: Sequence[Record]) -> Comparison:
        """Summarise the records of runs."""
        found = summarise(records)
        entries = [
            Entry(
                method=each["method"],
                settings=each["varied"],
                score=each["score"],
                interval=None if each["interval"] is None else tuple(each["interval"]),
                spread=each["spread"],
                parameters=each["parameters"],
                bytes=each["bytes"],
                seconds=each["seconds"],
                peak_mib=each["peak_mib"],
                error=each.get("error"),
                seeds=each["seeds"],
            )
            for each in found
        ]
        headline = next((each["headline"] for each in found if each["score"] is not None), None)
        return Comparison(headline, entries, found)

    @property
    def best(self) -> Entry | None:
        """The entry with the highest score; None where nothing could run."""
        scored = [(each.score, each) for each in self.entries if each.score is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def __getitem__(self, method: str) -> Entry:
        found = [each for each in self.entries if each.method == method]
        if not found:
            names = [each.method for each in self.entries]
            raise UserError(f"no method '{method}' was compared; {nearest(method, names)}")
        return found[0]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{each.method} {'failed' if each.score is None else format(each.score, '.2f')}"
            for each in self.entries
        )
        return f"Comparison({self.headline}: {scores})"

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        header, rows, _ = report_of.cells(self.plain, self.headline or "score")
        return html_table(header, rows)

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a row for each entry."""
        import pandas

        header, rows = report_of.numbers(self.plain, self.headline or "score")
        return pandas.DataFrame(rows, columns=header)

    def to_text(self, kind: Literal["csv", "latex", "markdown"]) -> str:
        """Return the table as text of this kind."""
        return report_of.written(self.plain, self.headline or "score", kind)


def compare(
    model: str | Path = "smollm2",
    methods: Sequence[str] | Mapping[str, Comparable] = ("zero-shot", "auto"),
    train: Rows | None = None,
    test: Rows | None = None,
    dev: Rows | None = None,
    *,
    task: Task | str = "classify",
    text: str | None = None,
    label: str | None = None,
    rows: int | None = None,
    per_label: int | None = None,
    seeds: int = 1,
    out: str | Path = "out/compare.jsonl",
    report: Reporter | None = None,
    **settings: Any,
) -> Comparison:
    """Tune and score methods on the same rows, each run in a process of its own.

    ``methods`` are names (``"zero-shot"``, ``"demonstrations"``, ``"probe"``, ``"soft"``,
    ``"prefix+lora"``), or configurations by the names that they shall have. ``train``, ``test`` and
    ``dev`` are whatever holds rows; without ``test`` a fifth of the training rows is held out for
    it. ``rows`` or ``per_label`` take so many of them for training, anew for each of the ``seeds``.
    The others are as in :func:`tune`; a setting goes to every method that has it, and one whose
    value is a list is swept: ``length=[1, 5, 20]``.

    A run that has ended is a line of ``out`` and is not done again. In a script that defines
    methods or tasks of its own the call stands below ``if __name__ == "__main__":``.

    Raises UserError for wrong settings and rows; a method that cannot run says why in its entry.
    """
    if isinstance(model, Backbone):
        raise UserError(
            "`model` is a backbone, and each run opens its own in a process; give its name"
        )
    if train is None:
        raise UserError(f"there are no rows to train on; give `train`: {TAKEN}")
    typed(NUMBERS, {"rows": rows, "per_label": per_label, "seeds": seeds}, WHERE)
    if seeds < 1:
        raise UserError(f"`seeds={seeds}`: give 1 or more")
    if isinstance(methods, str):
        methods = [name.strip() for name in methods.split(",")]
    if not isinstance(methods, Collection) or not methods:
        raise UserError(f"`methods={methods}`: name one or more, such as ['zero-shot', 'prefix']")
    read_records(Path(out))  # what is wrong with it is said before the first run
    report = usual_reporter() if report is None else report
    combinations = list(_grid(in_code(settings)))
    chosen = [_configured(task, methods, given, text, label) for given in combinations]
    first_task, _, training = chosen[0]
    pair, seed = first_task.pair, training.seed
    given_rows = as_rows(train, fields=pair)
    if test is None:
        by = first_task.class_field
        labelled = by is not None and all(by in row.fields for row in given_rows)
        given_rows, test = hold_out(given_rows, 0.2, seed, by=by if labelled else None)
        report.line(
            f"no test rows given: {len(test)} of the training rows are held out for scoring"
        )
    data = Data(given_rows, test, dev, rows, per_label, task=first_task)
    for name, found in (("train", data.train), ("test", data.test), ("dev", data.dev)):
        if found is not None and not found:
            raise UserError(f"`{name}` holds no rows; give one or more")
    runs = [
        Run(name, own[name], replace(how, seed=number), Model(str(model)), its_task, data)
        for number in range(seed, seed + seeds)
        for name in chosen[0][1]
        for its_task, own, how in chosen
        if number == seed or not isinstance(own[name], ZeroShot)  # which no seed changes
    ]
    hears = Reporter if report is SILENT else Terminal
    return Comparison.of(compare_runs(distinct(runs), out, report, hears))


def _grid(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each combination of the values of settings that have several.

    Raises UserError for a setting that cannot have several, and for one without a value.
    """
    values = {
        name: list(value) if isinstance(value, list | tuple) and not _is_list(name) else [value]
        for name, value in settings.items()
    }
    for name, several in values.items():
        if name in ALONE and isinstance(settings[name], list | tuple):
            raise UserError(f"`{name}={settings[name]}`: give one value; {ALONE[name]}")
        if not several:
            raise UserError(f"`{name}=[]`: there is no value in it; give one or more")
    for each in product(*values.values()):
        yield dict(zip(values, each, strict=True))


def _is_list(name: str) -> bool:
    """Whether a setting is a list itself, as labels are."""
    named = [reg.settings(each) for reg in (TASKS, METHODS) for each in reg]
    own = [*named, settings_of(Decoding)]
    return any(each.name == name and each.flag == list[str] for one in own for each in one)


def _configured(
    task: Task | str,
    methods: Sequence[str] | Mapping[str, Comparable],
    given: dict[str, Any],
    text: str | None,
    label: str | None,
) -> tuple[Task, dict[str, Comparable], Training]:
    """Return the task, the methods by name, and the training that settings make."""
    made_task = make_task(task, given, text, label)
    training = training_from(left := dict(given), WHERE)
    made, taken = methods_from(methods, given)
    unknown = left.keys() - taken
    if unknown:
        name = min(unknown)
        known = sorted({each.name for own in made.values() for each in settings_of(type(own))})
        raise UserError(
            f"`{name}` is no setting of {type(made_task).__name__} or of any of the methods "
            f"{', '.join(made)}; {nearest(name, known)}"
        )
    return made_task, made, training


def methods_from(
    methods: Sequence[str] | Mapping[str, Comparable], given: Mapping[str, Any]
) -> tuple[dict[str, Comparable], set[str]]:
    """Return what a comparison calls methods, by name, and which settings they have taken.

    Raises UserError for an unknown name.
    """
    if isinstance(methods, Mapping):
        return dict(methods), set()
    made: dict[str, Comparable] = {}
    taken: set[str] = set()
    for name in methods:
        own = dict(given)
        made[name] = _comparable(name, own)
        taken |= given.keys() - own.keys()
    return made, taken


def _comparable(name: str, given: dict[str, Any]) -> Comparable:
    """Make what a comparison calls a method, taking its settings out of ``given``."""
    if name in UNTRAINED:
        made: Untrained = take(UNTRAINED[name], given, WHERE)
        return made
    for part in name.split("+") if name != AUTO else ():
        if part not in METHODS:
            known = [*UNTRAINED, AUTO, *METHODS]
            raise UserError(f"`methods={name}`: unknown '{part}'; {nearest(part, known)}")
    return method_from(name, given, WHERE)
