"""Translate: one field of a row into another; BLEU and chrF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.language import ROWS, code, language_of_fields
from foreword.tasks.generate import field_wording
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask

LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
"""Names of the languages that a field may be called after."""


@dataclass(frozen=True)
class Translate(TextTask):
    """The fields that a translation is from and into, and how it is decoded.

    Where no template is given, one is made that calls fields which are language codes (``en``,
    ``de``) by the language's name. ``language``, by which BLEU cuts words, is then that of
    ``target_field``. A row's ``references``, where it has them, are compared with as well. A text
    of more than ``max_length`` tokens is cut on the side ``truncate``.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    source_field: str | None = setting(None, help="the field that is translated")
    target_field: str | None = setting(None, help="the field that holds the translation")
    language: str | None = setting(
        None, help="language code of the rows, such as zh, for templates and scores; else found"
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(stop=("\n",)))

    text_setting: ClassVar[str] = "source_field"
    answer_setting: ClassVar[str] = "target_field"

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Translate:
        """Return the task with fields, language and a template, where none are given."""
        source, target = source_and_target(
            self.source_field, self.target_field, rows[0], FIELD_NAMES
        )
        language = self.language
        if language is None:
            texts = [{target: row.fields.get(target)} for row in rows[:ROWS]]
            language = target if target in LANGUAGES else language_of_fields(texts)
        called = [LANGUAGES.get(name, name.capitalize()) for name in (source, target)]
        if (source, target) == FIELD_NAMES[0]:
            called = ["Text", "Translation"]
        template = self.template or f"{called[0]}: {{{source}}}\n{called[1]}:"
        return replace(
            self, template=template, source_field=source, target_field=target, language=language
        )

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone; template and fields must be known by now."""
        target = self.target_field or "completion"
        if self.language is not None:
            code(self.language)
        instruction = "Translate the text below.\n\n"
        wording = field_wording(target, ("bleu", "chrf"), "bleu", instruction, self.language)
        return Generator(self, backbone, wording)


FIELD_NAMES = (("prompt", "completion"),)


def source_and_target(
    source: str | None, target: str | None, row: Row, usual: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    """Return the fields from which and into which a row goes, given or usual.

    Raises UserError where neither is, and for one field that is to be both.
    """
    if source is not None and source == target:
        raise UserError(
            f"`source_field` and `target_field` are both '{source}'; give two fields of the rows"
        )
    for one, other in usual:
        if source in (None, one) and target in (None, other) and one in row.fields:
            return one, other
    if source is None or target is None:
        missing = "`source_field`" if source is None else "`target_field`"
        raise UserError(
            f"{row.where}: which field is read, and which is written? give {missing}, one of its "
            f"fields ({', '.join(row.fields)})"
        )
    return source, target
