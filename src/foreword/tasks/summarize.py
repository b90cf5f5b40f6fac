"""Summarize: a short text for a long one; ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.tasks.generate import field_wording
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask
from foreword.tasks.translate import source_and_target


@dataclass(frozen=True)
class Summarize(TextTask):
    """The fields that hold a text and its summary, and how one is decoded.

    A row's ``references``, where it has them, are compared with as well. A text of more than
    ``max_length`` tokens is cut on the side ``truncate``.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    source_field: str | None = setting(None, help="the field that is summarized")
    target_field: str | None = setting(None, help="the field that holds the summary")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(1024, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(stop=("\n",)))

    text_setting: ClassVar[str] = "source_field"
    answer_setting: ClassVar[str] = "target_field"

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Summarize:
        """Return the task with fields and a template, where none are given."""
        source, target = source_and_target(
            self.source_field, self.target_field, rows[0], FIELD_NAMES
        )
        language = language_for(self.language, rows)
        template = self.template or f"{{{source}}}\n{phrase_in(language, 'TL;DR:')}"
        return replace(
            self, template=template, source_field=source, target_field=target, language=language
        )

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone; template and fields must be known by now."""
        target = self.target_field or "summary"
        scores = ("rouge_1", "rouge_2", "rouge_l")
        instruction = "Summarize the text below.\n\n"
        wording = field_wording(target, scores, "rouge_l", instruction, self.language)
        return Generator(self, backbone, wording)


FIELD_NAMES = (
    ("text", "summary"),
    ("document", "summary"),
    ("article", "highlights"),
    ("prompt", "completion"),
)
"""Usual field names of a text and its summary."""
