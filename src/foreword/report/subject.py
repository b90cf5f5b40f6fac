"""What a report is about: a prompt on rows, and the answers of everything that stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foreword.data.duplicates import marked, marks, with_marks
from foreword.data.row import Row
from foreword.data.sample import digest, first
from foreword.evaluation.evaluate import compare_answers
from foreword.evaluation.evaluation import Evaluation
from foreword.injection import NOTHING, Injection
from foreword.prompt.prompt import Prompt
from foreword.report.answers import Answer, KeptAnswers, system_of
from foreword.report.left_out import LeftOut
from foreword.report.row_scores import RowScores, row_scores
from foreword.reporter import Reporter
from foreword.tasks.base import Bound
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.labels.probe import LinearProbe


@dataclass(frozen=True, eq=False)
class Subject:
    """A prompt called ``name``, with the ``rows`` of the data set ``data`` that it is looked at on.

    ``train`` are the rows that it was tuned on, where they are known. Evaluations are made when
    they are first asked for, of ``answers`` that are kept.
    """

    name: str
    prompt: Prompt
    data: str
    rows: Sequence[Row]
    train: Sequence[Row] | None
    answers: KeptAnswers
    seed: int
    report: Reporter

    @property
    def bound(self) -> Bound:
        """The prompt's task on its backbone."""
        return self.prompt.bound

    @property
    def is_label_task(self) -> bool:
        """Whether answers are labels, or numbers between two labels."""
        return isinstance(self.bound, LabelExamples)

    # Evaluations -------------------------------------------------------------------------------

    @cached_property
    def tuned(self) -> Evaluation:
        """The prompt on its rows."""
        return self.evaluate(self.rows, self.name)

    @cached_property
    def untouched(self) -> Evaluation:
        """The model without the prompt, on the same rows."""
        return self.evaluate_untouched(self.rows)

    @cached_property
    def trained(self) -> Evaluation | LeftOut:
        """The prompt on the rows that it was tuned on, on as many of them as there are others."""
        if self.train is None:
            return LeftOut("no score on training rows: they were not given (train)")
        own = self.training_rows
        most = max(len(self.rows), 50)
        chosen = own if len(own) <= most else first(own, most, self.seed)
        return self.evaluate(chosen, f"{self.name}, training rows")

    @cached_property
    def training_rows(self) -> Sequence[Row]:
        """Those of ``train`` that the prompt was tuned on, or all where that cannot be told."""
        assert self.train is not None
        known = self.prompt.data.get("marks")
        own = self.train if known is None else with_marks(self.train, self.bound.fields, known)
        return own or self.train

    @cached_property
    def in_train(self) -> int | None:
        """How many of the rows have a text of the training rows; None where these are unknown."""
        known = self.prompt.data.get("marks")
        if self.train is not None:
            known = marks(self.training_rows, self.bound.fields)
        return None if known is None else marked(self.rows, self.bound.fields, known)

    @cached_property
    def demonstrated(self) -> Evaluation | LeftOut:
        """The model without the prompt, behind the training rows that its file remembers."""
        texts = self.prompt.data.get("demonstrations") or []
        if self.bound.backbone.is_encoder:
            return LeftOut("no demonstrations in context: an encoder reads none")
        if not texts:
            why = "its file was written without texts of its rows"
            why = why if self.prompt.data.get("no_texts") else "the prompt keeps none"
            return LeftOut(f"no demonstrations in context: {why}")
        bound, before = self.bound.zero_shot(), "".join(texts)
        found = self._evaluate(bound, NOTHING, self.rows, "demonstrations", before)
        return found.with_plain(shots=len(texts))

    @cached_property
    def probed(self) -> Evaluation | LeftOut:
        """A linear model on the untouched model's states of the training rows."""
        bound = self.bound
        if not isinstance(bound, LabelExamples):
            return LeftOut("no linear probe: answers are no labels")
        if self.train is None:
            return LeftOut("no linear probe: the training rows were not given (train)")
        learned = self.training_rows

        def answer(rows: Sequence[Row]) -> list[Answer]:
            with self.report.bar("probe", len(learned) + len(rows)) as progress:
                fitted = LinearProbe.fit(bound, learned, progress)
                found = fitted.predict(rows, progress)
            return [{**each, "probe": fitted.name} for each in found]

        system = system_of(bound, NOTHING, "probe", digest(learned))
        found = self.answers.ask(system, self.rows, answer)
        made = compare_answers(bound, self.rows, found, self.seed)
        return made.with_plain(model=found[0]["probe"])

    def evaluate(self, rows: Sequence[Row], name: str, bound: Bound | None = None) -> Evaluation:
        """Score the prompt on rows, by default with its own task."""
        return self._evaluate(bound or self.bound, self.prompt.injection, rows, name)

    def evaluate_untouched(self, rows: Sequence[Row]) -> Evaluation:
        """Score the model without the prompt on rows."""
        return self._evaluate(self.bound.zero_shot(), NOTHING, rows, "untouched model")

    def _evaluate(
        self, bound: Bound, injection: Injection, rows: Sequence[Row], name: str, before: str = ""
    ) -> Evaluation:
        def answer(asked: Sequence[Row]) -> list[Answer]:
            with self.report.bar(name, len(asked)) as progress:
                return bound.predict(asked, injection, before=before, progress=progress)

        found = self.answers.ask(system_of(bound, injection, before), rows, answer)
        return compare_answers(bound, rows, found, self.seed)

    # Rows --------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> RowScores:
        """One number for each row that the prompt answered."""
        return row_scores(self.tuned.rows)

    @cached_property
    def scores_before(self) -> RowScores:
        """One number for each row that the untouched model answered."""
        return row_scores(self.untouched.rows)

    @property
    def file(self) -> Path | None:
        """The file of the prompt, where it was read from one."""
        path = Path(self.prompt.where)
        return path if path.is_file() else None

    def about(self) -> dict[str, Any]:
        """Return its name, data and number of rows as plain values."""
        return {"prompt": self.name, "data": self.data, "rows": len(self.rows)}
