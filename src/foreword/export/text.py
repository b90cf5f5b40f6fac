"""Export: the best hard prompt of a prompt, as a template that any tool can fill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from foreword.errors import UserError
from foreword.files import write_whole
from foreword.prompt.prompt import Prompt
from foreword.tasks.plain_text import with_text
from foreword.tasks.templates.template import Field, Slot, Template


@dataclass(frozen=True)
class Text:
    """The text that may stand in a prompt's place, in the template of its rows."""

    suffix: ClassVar[str] = ".txt"

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write the template; raises UserError for a prompt that no text was found for."""
        if path.exists():
            raise UserError(f"{path}: already exists; name a new file")
        text = prompt.data.get("text")
        if not isinstance(text, str):
            raise UserError(
                f"{prompt.where}: holds no text that may stand in its place; "
                "`foreword explain P --data F --save-text Q` looks for one, and Q can be written"
            )
        bound = prompt.bound
        mask = bound.backbone.text.tokenizer.mask_token if bound.backbone.fills_masks else ""
        filled = format_string(with_text(bound, text).template, mask or "")
        return write_whole(path, filled.encode())


def format_string(template: Template, mask: str = "") -> str:
    """Return a template as ``str.format`` fills it: fields as ``{name}``, other braces doubled.

    ``mask`` stands in the place of the answer. Raises UserError for demonstrations, which are
    chosen row by row.
    """
    if template.demos is not None:
        raise UserError(
            f"template {template.source!r}: shows demonstrations, and a text has none to choose "
            "from; tune the prompt without them"
        )
    pieces = []
    for part in template.parts:
        if isinstance(part, Field):
            pieces.append(f"{{{part.name}}}")
        elif isinstance(part, str):
            pieces.append(part.replace("{", "{{").replace("}", "}}"))
        elif isinstance(part, Slot):
            pieces.append(mask)
    return "".join(pieces).rstrip(" ")
