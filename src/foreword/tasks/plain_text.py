"""A text in the prompt's place: the untouched model reads it with each row."""

from __future__ import annotations

from dataclasses import replace

from foreword.tasks.base import Bound
from foreword.tasks.templates.template import Field, Piece, VirtualTokens


def with_text(bound: Bound, text: str) -> Bound:
    """Return the task for the model alone, with a text in its template where the prompt stood.

    That is in the place of the template's first virtual tokens, and else in front of the template,
    on a line of its own; in a template of messages, right before its first field.
    """
    template = bound.template
    parts: list[Piece] = list(template.parts)
    places = [n for n, part in enumerate(parts) if isinstance(part, VirtualTokens)]
    if places:
        parts[places[0]] = text
        parts = [part for part in parts if not isinstance(part, VirtualTokens)]
    else:
        fields = [n for n, part in enumerate(parts) if isinstance(part, Field)]
        place = fields[0] if template.chat and fields else 0
        parts.insert(place, f"{text.rstrip()}\n")
    return bound.zero_shot().changed(template=replace(template, parts=tuple(parts)))
