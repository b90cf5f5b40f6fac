"""Rank: the candidates for a history in the order of their likelihood, or of their likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError
from foreword.tasks.phrases import language_for
from foreword.tasks.templates.layout import Side
from foreword.tasks.templates.template import literal
from foreword.tasks.texts.ranker import Ranker, Ranking
from foreword.tasks.texts.similar_ranker import SimilarRanker


@dataclass(frozen=True)
class Rank(Ranking):
    """Rows of a history, ``candidates`` (a list of texts) and ``answer``, the right one of them.

    A candidate's score is the log-probability of its tokens after the history, their mean or
    their sum (``normalize``; the mean does not favour short texts: Brown et al. 2020,
    arXiv:2005.14165, section 2.4). What is learned is the choice among the candidates: a softmax
    over their scores (Cao et al. 2007, ListNet's top-one probability). An answer may be a text, an
    index from 0, or a list of either. A history that is a list is joined by new lines. On an
    encoder a candidate's score is how alike it and the history are (texts/similar_ranker.py).

    Rows without candidates choose from a ``catalogue``, which is made of the training rows' answers
    and kept with the prompt: among their answer and ``negatives`` others of it, which the row
    and ``seed`` decide, or, where a row has no answer, among all of it.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    negatives: int = setting(9, help="candidates drawn beside the answer, for rows that have none")
    normalize: Literal["mean", "sum"] = setting(
        "mean", help="a candidate's score: the mean or the sum over its tokens"
    )
    catalogue: Sequence[str] | None = setting(
        None, help="texts to choose from where rows have no candidates; else the rows' answers"
    )
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("left", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    seed: int = setting(0, help="seed of rows, starts and order")

    takes_lists: ClassVar[bool] = True

    def check_answer(self, row: Row) -> None:
        """Raise UserError for a row that adds its answer to the catalogue, and has none."""
        if self.catalogue is None and "candidates" not in row.fields:
            require([row], ["answer"])

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Rank:
        """Return the task with a template, and a catalogue if the rows have no candidates."""
        template = self.template
        if template is None:
            if "history" not in rows[0].fields:
                raise UserError(
                    f"{rows[0].where}: no field 'history'; say how a row reads with `template`, "
                    f"from its fields ({', '.join(rows[0].fields)})"
                )
            pooling = backbone.pooling
            template = "{history}\n" if pooling is None else literal(pooling.prompt) + "{history}"
        catalogue = self.catalogue
        if catalogue is None and "candidates" not in rows[0].fields:
            require(rows, ["answer"])
            catalogue = tuple(sorted({str(row.fields["answer"]) for row in rows}))
        language = language_for(self.language, rows)
        return replace(self, template=template, catalogue=catalogue, language=language)

    def bind(self, backbone: Backbone) -> Ranker:
        """Return the task on a backbone; the template must be known by now."""
        return (SimilarRanker if backbone.is_encoder else Ranker)(self, backbone)
