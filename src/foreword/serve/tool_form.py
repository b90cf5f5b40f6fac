"""How an answer calls tools: as the model's chat template writes it, or in a plain form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.backbone.chat_template import MARK, ChatTemplate, ChatTemplateError
from foreword.backbone.tokenizer import Text

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ToolForm:
    """Calls of tools as text: ``begin`` NAME ``between`` ARGUMENTS ``last``.

    Further calls are ``again`` NAME ``between`` ARGUMENTS before the ``last``; None where a turn
    has one call. A ``native`` form is that of the chat template, which writes tools and calls.
    """

    begin: str
    between: str
    again: str | None
    last: str
    native: bool = True


PLAIN = ToolForm(
    begin='<tool_call>\n{"name": "',
    between='", "arguments": ',
    again='}\n</tool_call>\n<tool_call>\n{"name": "',
    last="}\n</tool_call>",
    native=False,
)

INSTRUCTION = """You may call these functions:
{tools}
To call one, answer with its name and arguments:
<tool_call>
{{"name": "NAME", "arguments": {{...}}}}
</tool_call>"""
"""What a system message says of tools in the plain form; ``tools`` are JSON, a line each."""

RESULT = "<tool_response>\n{}\n</tool_response>"
"""What a tool has said, in the plain form, as a turn of the user's."""

ASKED = ({"role": "user", "content": "a"},)
TOOL = {
    "type": "function",
    "function": {
        "name": MARK.format("tool"),
        "description": "a",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}
NAME = MARK.format("name")
ARGUMENT = MARK.format("argument")
HEARD = MARK.format("heard")
CALL_ID = "abcdefghi"  # of nine letters, as some templates demand
ARGUMENTS = re.compile(rf'\{{\s*"{ARGUMENT}"\s*:\s*"{ARGUMENT}"\s*\}}')


def form_of(text: Text) -> ToolForm:
    """Return how answers of a model call tools: natively where all of it can be found out."""
    try:
        found = None if text.chat is None else _native(text.chat, text.turn_mark)
    except ChatTemplateError:
        found = None
    return found or PLAIN


def _native(chat: ChatTemplate, mark: str | None) -> ToolForm | None:
    asking = chat.before_answer(ASKED, [TOOL])
    if asking == chat.before_answer(ASKED):
        return None  # tools are not written
    one = _turn(chat, asking, 1)
    if one is None or len(one) != 3:
        return None
    heard = {"role": "tool", "content": HEARD, "tool_call_id": CALL_ID, "name": NAME}
    if HEARD not in chat.render([*ASKED, _calls(1), heard], ask=True, tools=[TOOL]):
        return None
    begin, between, rest = one
    last = (rest.partition(mark)[0] if mark else rest).rstrip()
    if not begin.strip() or not between or not last:
        return None
    try:
        two = _turn(chat, asking, 2)
    except ChatTemplateError:
        two = None
    again = two[2] if two is not None and len(two) == 5 else None
    return ToolForm(begin, between, again, last)


def _turn(chat: ChatTemplate, asking: str, count: int) -> list[str] | None:
    """Return what a turn of ``count`` calls has around the names and the arguments."""
    whole = chat.render([*ASKED, _calls(count)], ask=False, tools=[TOOL])
    if not whole.startswith(asking) or CALL_ID in whole:
        return None
    own = ARGUMENTS.sub(ARGUMENT, whole[len(asking) :].removeprefix(chat.opening))
    return re.split(f"{NAME}|{ARGUMENT}", own)


def _calls(count: int) -> dict[str, Any]:
    function = {"name": NAME, "arguments": {ARGUMENT: ARGUMENT}}
    call = {"id": CALL_ID, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call] * count}


def plain_messages(messages: Messages, tools: Sequence[Any], chat: ChatTemplate | None) -> Messages:
    """Return messages in which tools, calls and what tools have said are plain text."""
    made: list[dict[str, Any]] = []
    heard = False  # whether the last turn is what a tool has said
    for each in messages:
        turn = {k: v for k, v in each.items() if k not in ("tool_calls", "tool_call_id", "name")}
        if calls := each.get("tool_calls"):
            turn["content"] = "\n".join(filter(None, [turn["content"], *map(_written, calls)]))
        told = each["role"] == "tool"
        if told:
            turn |= {"role": "user", "content": RESULT.format(turn["content"])}
        if heard and turn["role"] == "user":
            made[-1]["content"] += f"\n{turn['content']}"
        else:
            made.append(turn)
        heard = told
    return _instructed(made, tools, chat) if tools else made


def _written(call: Mapping[str, Any]) -> str:
    own = call["function"]
    arguments = own["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return f"{PLAIN.begin}{own['name']}{PLAIN.between}{arguments}{PLAIN.last}"


def _instructed(
    messages: list[dict[str, Any]], tools: Sequence[Any], chat: ChatTemplate | None
) -> Messages:
    """Say of tools in the system message, or in the first one where there can be none."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    said = INSTRUCTION.format(tools=lines)
    first = messages[0]
    if first["role"] != "system":
        system = {"role": "system", "content": said}
        if chat is None or _takes(chat, [system, *messages], said):
            return [system, *messages]
        return [{**first, "content": f"{said}\n\n{first['content']}"}, *messages[1:]]
    return [{**first, "content": f"{first['content']}\n\n{said}".strip()}, *messages[1:]]


def _takes(chat: ChatTemplate, messages: Messages, said: str) -> bool:
    try:
        return said.strip() in chat.before_answer(messages)
    except ChatTemplateError:
        return False
