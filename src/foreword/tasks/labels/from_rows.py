"""What a task learns from its training rows: demonstrations and label words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.reporter import SILENT, Reporter
from foreword.tasks.labels.autoprompt import autoprompt
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import LabelTask
from foreword.tasks.labels.search import Progress, refine_label_words, search_label_words
from foreword.tasks.templates.demonstrations import Choice, draw_pool
from foreword.tasks.templates.template import Template


class ShowingTask(LabelTask):
    """A label task whose template may show training rows; those that were drawn are ``shown``."""

    label_field: str = "label"
    demos: Choice = "balanced"
    shown: Sequence[Mapping[str, str]] | None = None

    @abstractmethod
    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone."""

    def fill_from_rows(
        self, backbone: Backbone, rows: Sequence[Row], seed: int, report: Reporter = SILENT
    ) -> Self:
        """Return the task with demonstrations drawn, if its template shows some.

        Raises UserError for rows that cannot be used, or are too few.
        """
        demos = Template.parse(self.template or "").demos
        if demos is None and self.demos != "balanced":
            raise UserError(
                f"`demos={self.demos}`: the template has no {{demos:N}}; give it a place"
            )
        if demos is None or self.shown is not None:
            return self
        bound = self.bind(backbone)
        bound.check(rows, answers=True)
        drawn = draw_pool(bound, [bound.key(r) for r in rows], rows, demos.count, self.demos, seed)
        names = dict.fromkeys((*bound.fields, *bound.labelling.needs, self.label_field))
        shown = [{name: str(row.fields[name]) for name in names} for row in drawn]
        return replace(self, shown=shown)  # type: ignore[type-var]


Words = Callable[[Classifier, Sequence[Row], Progress], Mapping[str, Sequence[str]]]
SEARCHES: Mapping[str, tuple[Words, int]] = {
    "search": (search_label_words, 2),
    "refine": (refine_label_words, 1),
    "autoprompt": (autoprompt, 1),
}
"""How label words are chosen by the training rows, and how often these are read."""


def choose_label_words(
    bound: Classifier, search: str, rows: Sequence[Row], report: Reporter
) -> Mapping[str, Sequence[str]]:
    """Return each label's words by one of ``SEARCHES``, and report them."""
    if bound.backbone.is_encoder:
        raise UserError(
            f"`verbalizer={search}` chooses among the words that a model predicts, and "
            f"{bound.backbone.name} is an encoder, which predicts none; leave it out"
        )
    bound.check(rows, answers=True)
    choose, passes = SEARCHES[search]
    with report.bar("choosing label words", passes * len(rows)) as progress:
        words = choose(bound, rows, progress)
    listed = "; ".join(f"{label} ={','.join(own)}" for label, own in words.items())
    report.line(f"label words: {listed}")
    return words
