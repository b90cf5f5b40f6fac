"""Tools in OpenAI's API: those of a body, and the calls of an answer, whole or in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foreword.serve.http.messages import NamedTool
from foreword.serve.http.schemas import ChatBody

if TYPE_CHECKING:
    from foreword.serve.tool_reader import CallPiece
    from foreword.serve.tool_rule import Tools


def tools_of(body: ChatBody) -> Tools | None:
    """Return the tools that a body lets an answer call; None where there are none.

    Raises UserError for tools that cannot be called, or chosen among.
    """
    from foreword.serve.tool_rule import Tools, check_tools

    choice = body.tool_choice
    named = choice.function.name if isinstance(choice, NamedTool) else None
    functions = [{"type": "function", "function": t.function.plain()} for t in body.tools or []]
    made = Tools(
        functions,
        "auto" if choice in (None, "auto", "none") else "required",
        body.parallel_tool_calls is not False and named is None,
        named,
    )
    check_tools(made)
    return made if functions and choice != "none" else None


def call_piece(piece: CallPiece) -> dict[str, Any]:
    """Return a part of a call as a stream has it."""
    function = {"name": piece.name, "arguments": piece.arguments}
    if piece.name is None:
        return {"index": piece.number, "function": {"arguments": piece.arguments}}
    return {"index": piece.number, "id": piece.id, "type": "function", "function": function}


def whole_calls(pieces: Sequence[CallPiece]) -> list[dict[str, Any]]:
    """Join the pieces of an answer's calls."""
    made: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.name is None:
            made[piece.number]["function"]["arguments"] += piece.arguments
        else:
            made.append({k: v for k, v in call_piece(piece).items() if k != "index"})
    return made
