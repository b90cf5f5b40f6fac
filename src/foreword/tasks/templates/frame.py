"""Frames: text with virtual tokens in front of a template, such as ``Please [soft:10].``"""

from __future__ import annotations

from foreword.errors import UserError
from foreword.tasks.templates.template import Template, VirtualTokens


def framed(template: str, frame: str) -> str:
    """Return a template behind a frame, which is text around virtual tokens.

    Where the template begins with a message, the frame begins this message. Raises UserError for a
    frame without virtual tokens, or with anything else but text.

    >>> framed("Review: {text}", "Please [soft:10].")
    'Please [soft:10]. Review: {text}'
    >>> framed("[user]{text}", "Please [soft:10].")
    '[user]Please [soft:10]. {text}'
    """
    parts = Template.parse(frame).parts
    if not any(isinstance(part, VirtualTokens) for part in parts):
        raise UserError(
            f"`frame={frame}`: holds no virtual tokens; write some, as in 'Please [soft:10].'"
        )
    if not all(isinstance(part, str | VirtualTokens) for part in parts):
        raise UserError(f"`frame={frame}`: give text and [soft:N] alone; fields are the template's")
    start = next((r for r in ("[system]", "[user]") if template.startswith(r)), "")
    rest = template[len(start) :]
    between = "" if frame[-1:].isspace() or rest[:1].isspace() else " "
    return f"{start}{frame}{between}{rest}"
