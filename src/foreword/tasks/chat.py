"""Chat: the assistant's turns of conversations, and only those, are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.row import Row, kind
from foreword.data.shapes import require
from foreword.errors import UserError
from foreword.metrics.generation import generation
from foreword.tasks.generate import references
from foreword.tasks.phrases import language_for
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask, Wording


@dataclass(frozen=True)
class Chat(TextTask):
    """Rows of ``messages``, read through the model's chat template.

    ``turns`` says which of the assistant's turns are learned: the last one, or all of them in
    one pass. What is written and scored is the last. A conversation of more than ``max_length``
    tokens loses its first turns.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    turns: Literal["last", "all"] = setting(
        "last", help="which of the assistant's turns are learned: last or all"
    )
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(1024, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("left", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(max_new_tokens=128))

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Chat:
        """Return the task with the messages as its template, where none is given."""
        language = language_for(self.language, rows)
        return replace(self, template=self.template or "{messages}", language=language)

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone; raises UserError for a template without messages."""
        if "{messages}" not in (self.template or ""):
            raise UserError(f"template {self.template!r} has no {{messages}}; put them in")
        return Generator(
            self,
            backbone,
            Wording(
                answer=_last,
                references=lambda row: references(row, _last(row)),
                measure=lambda texts, own, seed: generation(
                    texts,
                    own,
                    scores=("bleu", "chrf", "rouge_l"),
                    language=self.language,
                    seed=seed,
                ),
                headline="bleu",
                check=_check,
                every_turn=self.turns == "all",
            ),
        )


def _last(row: Row) -> str:
    return str(row.fields["messages"][-1]["content"])


def _check(row: Row, answers: bool) -> None:
    messages = row.fields["messages"]
    if answers and isinstance(messages, str):
        require([row], ["messages"])
        raise UserError(
            f'{row.where}: field "messages" is {kind(messages)}, expected a list of '
            '{"role": ..., "content": ...}; write it as one'
        )
