"""Answer: a question about a passage, answered in the passage's words; exact match and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.answers import answers as measured
from foreword.metrics.answers import matches
from foreword.metrics.language import code
from foreword.tasks.gold import answers_of, check_in_passage, found_in
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask, Wording


@dataclass(frozen=True)
class Answer(TextTask):
    """Rows of ``context``, ``question`` and ``answers``, as SQuAD has them.

    A passage that is too long for ``max_length`` is read in windows, each ``stride`` tokens after
    the one before. What is learned is the first window that holds an answer; of the answers to all
    windows the likeliest is given, by the mean log-probability of its tokens. ``language``
    (such as "zh") says how answers are compared.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    language: str | None = setting(
        None, help="language code of the rows, such as zh, for templates and scores; else found"
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    stride: int = setting(128, help="tokens from one window of a long passage to the next")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(max_new_tokens=32, stop=("\n",)))

    def check_answer(self, row: Row) -> None:
        """Raise UserError for a row without an answer in its passage."""
        _check(row, True)

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Answer:
        """Return the task with a language and a template, where none is given."""
        language, template = language_for(self.language, rows), self.template
        if template is None:
            template = phrase_in(language, "{context}\nQuestion: {question}\nAnswer:")
        return replace(self, template=template, language=language)

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone.

        Raises UserError for a stride below 1, no language, and a template without the passage.
        """
        if self.stride < 1:
            raise UserError(f"`stride={self.stride}`: give tokens from window to window, 1 or more")
        if self.language is not None:
            code(self.language)
        if "{context}" not in (self.template or ""):
            raise UserError(f"template {self.template!r} has no {{context}}; put the passage in")
        return Generator(
            self,
            backbone,
            Wording(
                answer=lambda row: (found_in(row) or answers_of(row))[0],
                references=answers_of,
                measure=lambda texts, own, seed: measured(
                    texts, own, language=self.language, seed=seed
                ),
                headline="f1",
                matches=lambda text, own: matches(text, own, self.language),
                instruction="Answer the question in words of the text.\n\n",
                check=_check,
                windowed="context",
                stride=self.stride,
                holds=lambda row: bool(found_in(row)),
            ),
        )


def _check(row: Row, answers: bool) -> None:
    if answers:
        check_in_passage(row)
