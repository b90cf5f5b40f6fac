"""Answer: a question about a passage, answered in the passage's words; exact match and F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.lists import parsed
from foreword.data.row import Row, kind
from foreword.data.shapes import require
from foreword.errors import UserError, nearest
from foreword.metrics.answers import answers as measured
from foreword.metrics.answers import matches
from foreword.metrics.words import code
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask, Wording


@dataclass(frozen=True)
class Answer(TextTask):
    """Rows of ``context``, ``question`` and ``answers``, as SQuAD has them.

    A passage that is too long for ``max_length`` is read in windows, each ``stride`` tokens after
    the one before. What is learned is the first window that holds an answer; of the answers to all
    windows the likeliest is given, by the mean log-probability of its tokens. ``language``
    (such as "zh") says how answers are compared; else their own script does.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    language: str | None = setting(
        None, help="language code, by which texts are split into words for scores; else guessed"
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
        """Return the task with a template, where none is given."""
        if self.template is not None:
            return self
        return replace(self, template="{context}\nQuestion: {question}\nAnswer:")

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


def answers_of(row: Row) -> list[str]:
    """Return a row's answers: a list of texts, or one text; or SQuAD's objects with a ``text``.

    Raises UserError, ``FILE:LINE: ...``, where there are none.
    """
    if "answers" not in row.fields:
        hint = nearest("answers", row.fields)
        raise UserError(f"{row.where}: missing field 'answers'; {hint}")
    given = row.fields["answers"]
    written = parsed(given) if isinstance(given, str) else None
    if isinstance(written, Mapping) or (written and not isinstance(written[0], int | float)):
        given = written
    given = given.get("text") if isinstance(given, Mapping) else given
    answers = [given] if isinstance(given, str) else given
    if isinstance(answers, list):
        answers = [each.get("text") if isinstance(each, Mapping) else each for each in answers]
    listed = answers if isinstance(answers, list | tuple) else ()
    wrong = "write it as one" if listed is not answers else ""
    for each in listed:
        if not isinstance(each, str):
            wrong = f"it holds {kind(each)}; write that as text"
    if wrong:
        raise UserError(
            f'{row.where}: field "answers" is {kind(row.fields["answers"])}, expected a list of '
            f"texts; {wrong}"
        )
    kept = [each for each in listed if each.strip()]
    if not kept:
        raise UserError(f'{row.where}: field "answers" is empty; fill it or remove the row')
    return kept


def found_in(row: Row) -> list[str]:
    """Return the answers of a row that occur in its passage."""
    return [each for each in answers_of(row) if each in str(row.fields["context"])]


def _check(row: Row, answers: bool) -> None:
    if not answers:
        return
    require([row], ["context"])
    if not found_in(row):
        raise UserError(
            f"{row.where}: the answer {answers_of(row)[0]!r} is not in the passage; mend the row, "
            "or use `task=generate`"
        )
