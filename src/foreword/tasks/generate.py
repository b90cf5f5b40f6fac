"""Generate: a completion for a prompt; the loss is taken on the completion alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.data.shapes import references_of, require
from foreword.errors import UserError, meant
from foreword.metrics.generation import generation
from foreword.tasks.phrases import language_for
from foreword.tasks.templates.layout import Side
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.spec import TextTask, Wording


@dataclass(frozen=True)
class Generate(TextTask):
    """A template for the prompt, the field that holds the completion, and how to decode.

    Rows of ``messages`` are read through the tokenizer's chat template: the last message is the
    completion. Prompts of more than ``max_length`` tokens lose text on the side ``truncate``,
    completions of more than ``decoding.max_new_tokens`` at their end. Of each field, or message
    that the assistant has not said, the first ``input_window`` tokens are read.
    ``label_smoothing`` spreads that share of each target evenly over the vocabulary (Szegedy et
    al. 2016, arXiv:1512.00567).
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    prompt_field: str = setting(
        "prompt", help="the field that {prompt} reads in the template", optional=True
    )
    completion_field: str = setting("completion", help="the field that holds the completion")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("left", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    decoding: Decoding = field(default_factory=Decoding)

    text_setting: ClassVar[str] = "prompt_field"
    answer_setting: ClassVar[str] = "completion_field"

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Generate:
        """Return the task with a template for the rows, where none is given."""
        field, language = self.prompt_field, language_for(self.language, rows)
        if self.template is not None:
            template = self.template.replace("{prompt}", f"{{{field}}}")
            return replace(self, template=template, language=language)
        if "messages" in rows[0].fields:
            return replace(self, template="{messages}", language=language)
        if field in rows[0].fields:
            return replace(self, template=f"{{{field}}}\n", language=language)
        raise UserError(
            f"{rows[0].where}: no field '{field}' or 'messages'{meant(field, rows[0].fields)}; "
            "name the field that is read with `prompt_field`, or say how a row reads with "
            f"`template`, from its fields ({', '.join(rows[0].fields)})",
            field=field,
        )

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone; the template must be known by now."""

        def spoken(row: Row) -> bool:
            return "{messages}" in (self.template or "") and isinstance(
                row.fields["messages"], list
            )

        def answer(row: Row) -> str:
            if spoken(row):
                return str(row.fields["messages"][-1]["content"])
            return str(row.fields[self.completion_field])

        def check(row: Row, answers: bool) -> None:
            if answers and not spoken(row):
                require([row], [self.completion_field])

        wording = Wording(
            answer=answer,
            references=lambda row: references(row, answer(row)),
            measure=lambda texts, own, seed: generation(
                texts, own, language=self.language, seed=seed
            ),
            headline="bleu",
            check=check,
        )
        return Generator(self, backbone, wording)


def field_wording(
    target: str, scores: Sequence[str], headline: str, instruction: str, language: str | None = None
) -> Wording:
    """Return the wording of a task whose gold answer is in one field of a row."""
    return Wording(
        answer=lambda row: str(row.fields[target]),
        references=lambda row: references(row, str(row.fields[target])),
        measure=lambda texts, own, seed: generation(
            texts, own, scores=scores, language=language, seed=seed
        ),
        headline=headline,
        instruction=instruction,
        check=lambda row, answers: check_target(row, target) if answers else None,
    )


def references(row: Row, answer: str) -> list[str]:
    """Return a row's ``references``, or its answer if it has none.

    Raises UserError, ``FILE:LINE: ...``, unless they are a list of texts.
    """
    given = references_of(row)
    return [answer] if given is None else given


def check_target(row: Row, target: str) -> None:
    """Raise UserError for a row whose answer, or references, cannot be learned and compared."""
    require([row], [target])
    references(row, "")
