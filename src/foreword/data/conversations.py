"""Conversations: the ways in which the world writes them, as one list of turns.

A turn is `{"role": ..., "content": ...}`, with what a chat template may read beside it
(`TEMPLATE_KEYS`) and, where the row says so, `weight` 0: its words are not learned.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

from foreword.data.lists import listed
from foreword.data.row import Row, kind
from foreword.data.text_fields import check_text, check_unicode
from foreword.errors import UserError, nearest

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
"""Roles as OpenAI's and ShareGPT's rows name them, and what they are called here."""

TEMPLATE_KEYS = ("tool_calls", "name", "reasoning_content", "thinking")
"""What a turn may hold for the chat template to write; refused where the template does not."""

_UNREAD = {
    "function_call": 'write it as "tool_calls"',
    "refusal": "write it as the content",
    "reasoning": 'write it as "reasoning_content"',
    "images": "text alone is read; remove it, or the row",
    "videos": "text alone is read; remove it, or the row",
    "audio": "text alone is read; remove it, or the row",
}
_WEIGHTS = {"weight": True, "train": True, "training": True, "loss": True, "mask": False}
"""Keys that say whether a turn is learned, and which truth says that it is."""

_TEXT_PARTS = ("text", "input_text", "output_text")


def conversation(row: Row, field: str, *, targets: bool) -> dict[str, Any]:
    """Return a row's conversation as ``messages``, and its ``tools`` where it has some.

    Raises UserError, ``FILE:LINE: ...``, for turns that cannot be read, for an instruction that
    would not be followed, and with ``targets`` for a conversation that the assistant does not end.
    Where a conversation is to be answered, the assistant and tools may have said nothing before.
    """
    turns = listed(row, field)
    if not isinstance(turns, list) or not turns:
        found = "an empty list" if turns == [] else kind(turns)
        who, what = ("from", "value") if field == "conversations" else ("role", "content")
        raise UserError(
            f'{row.where}: field "{field}" is {found}, expected a list of '
            f'{{"{who}": ..., "{what}": ...}}; fill it or remove the row',
            field=field,
        )
    silent = ("system",) if targets or not _asks(turns[-1]) else ("system", "assistant", "tool")
    messages = [_turn(row, field, f"{field}[{n}]", turn, silent) for n, turn in enumerate(turns)]
    messages = [*_system(row, field, messages), *messages]
    _check_row(row)
    if targets and messages[-1]["role"] != "assistant":
        last = turns[-1].get("role", turns[-1].get("from"))
        raise UserError(
            f'{row.where}: field "{field}" ends with {last!r}, but the last turn is '
            "what is learned; end with the assistant's, or remove the row",
            field=field,
        )
    tools = _tools(row)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def is_turns(value: Any) -> TypeGuard[list[Any]]:
    """Whether the value of a field is turns of a conversation, and no text."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and "role" in each for each in value)
    )


def _asks(turn: Any) -> bool:
    """Whether a turn is one that the assistant answers."""
    role = turn.get("role", turn.get("from")) if isinstance(turn, Mapping) else None
    return ROLES.get(str(role)) in ("user", "tool")


def _turn(row: Row, field: str, name: str, turn: Any, silent: Collection[str]) -> dict[str, Any]:
    """Return a turn as `role` and `content`, with what else of it is read.

    The content of ``silent`` roles may be empty.
    """

    def wrong(what: str) -> UserError:
        return UserError(f"{row.where}: {name}{what}", field=field)

    pairs = (("role", "content"), ("from", "value"))
    if field == "conversations":
        pairs = (pairs[1], pairs[0])
    who, what = next((p for p in pairs if isinstance(turn, Mapping) and p[0] in turn), pairs[0])
    calls = turn.get("tool_calls") if isinstance(turn, Mapping) else None
    if not isinstance(turn, Mapping) or who not in turn or not (what in turn or calls):
        raise wrong(f' is not an object with "{who}" and "{what}"; write it so')
    role = ROLES.get(turn[who]) if isinstance(turn[who], str) else None
    if role is None:
        usual = ("system", "human", "gpt") if who == "from" else ("system", "user", "assistant")
        raise wrong(f' has the unknown "{who}" {turn[who]!r}; {nearest(str(turn[who]), usual)}')
    for key, mend in _UNREAD.items():
        if turn.get(key) not in (None, [], "", {}):
            raise wrong(f".{key} is not read; {mend}")
    if calls and role != "assistant":
        raise wrong(f".tool_calls: these are the assistant's, and the turn is {turn[who]!r}'s")
    if calls and not (isinstance(calls, list) and all(isinstance(c, Mapping) for c in calls)):
        raise wrong(".tool_calls is not a list of objects; write it so")
    content = _content(row, field, f"{name}.{what}", turn.get(what))
    if content is None and calls:
        content = ""
    _check_content(row, field, f"{name}.{what}", content, blank=role in silent or bool(calls))
    made: dict[str, Any] = {"role": role, "content": content}
    made |= {key: turn[key] for key in TEMPLATE_KEYS if turn.get(key) not in (None, [], "")}
    if calls:
        made["tool_calls"] = [_call(each) for each in calls]
    if role == "tool" and turn.get("tool_call_id") is not None:
        made["tool_call_id"] = turn["tool_call_id"]
    if not _learned(turn, role, wrong):
        made["weight"] = 0
    return made


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool call with its arguments as an object, which chat templates write as JSON."""
    function = call.get("function")
    own = function if isinstance(function, Mapping) else call
    arguments = own.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return dict(call)
        own = {**own, "arguments": arguments}
    return {**call, "function": dict(own)} if isinstance(function, Mapping) else dict(own)


def _learned(turn: Mapping[str, Any], role: str, wrong: Any) -> bool:
    """Whether a turn's words may be learned, as far as it says so itself."""
    said = {}
    for key, yes in _WEIGHTS.items():
        value = turn.get(key)
        if value is None:
            continue
        if value not in (0, 1) or not isinstance(value, bool | int | float):
            raise wrong(f".{key} is {value!r}; 0 and 1 are read")
        said[key] = bool(value) == yes
    if len(set(said.values())) > 1:
        raise wrong(f" has {' and '.join(said)}, which contradict each other; leave one out")
    key, learned = next(iter(said.items()), ("", True))
    if said and learned and role != "assistant":
        raise wrong(f".{key}: only the assistant's words are learned; leave it out")
    return learned


def _content(row: Row, field: str, name: str, content: Any) -> Any:
    """Return a content of text parts as one text, a line each; any other as it is."""
    if not isinstance(content, list):
        return content
    texts = []
    for index, part in enumerate(content):
        own = part if isinstance(part, str) else None
        if isinstance(part, Mapping):
            of = part.get("type", "text" if "text" in part else None)
            if of not in _TEXT_PARTS:
                raise UserError(
                    f"{row.where}: {name}[{index}] is of type {of!r}, and text alone is read; "
                    "remove it, or the row",
                    field=field,
                )
            own = part.get("text")
        if not isinstance(own, str):
            raise UserError(
                f'{row.where}: {name}[{index}] is not {{"type": "text", "text": ...}}; write it so',
                field=field,
            )
        texts.append(own)
    return "\n".join(texts)


def _check_content(row: Row, field: str, name: str, content: Any, *, blank: bool) -> None:
    if not isinstance(content, str):
        raise UserError(
            f"{row.where}: {name} is {kind(content)}, expected text; write it as one string",
            field=field,
        )
    if blank:  # data sets leave system turns empty
        check_unicode(row, name, content)
    else:
        check_text(row, name, content)


def _system(row: Row, field: str, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turn that the row's `system`, beside its turns, stands for."""
    system = row.fields.get("system")
    if system is None or (isinstance(system, str) and not system.strip()):
        return []
    content = _content(row, "system", "system", system)
    _check_content(row, "system", "system", content, blank=True)
    if messages[0]["role"] == "system":
        if messages[0]["content"] == content:
            return []
        raise UserError(
            f'{row.where}: the row has a system message in "{field}" and another in "system"; '
            "leave one out",
            field="system",
        )
    return [{"role": "system", "content": content}]


def _check_row(row: Row) -> None:
    """Raise UserError for what a row asks of its learning, beside its turns, and does not get."""
    for key in ("train_on_input", "train_on_inputs", "train_on_prompt"):
        if row.fields.get(key) not in (None, False, 0):
            raise UserError(
                f"{row.where}: {key} is {row.fields[key]!r}, and only the assistant's words are "
                "learned; leave it out",
                field=key,
            )
    if row.fields.get("functions"):
        raise UserError(
            f'{row.where}: field "functions" is not read; write them as "tools"', field="functions"
        )


def _tools(row: Row) -> list[Any]:
    """Return the row's tools, which a table holds as text."""
    tools = listed(row, "tools") if "tools" in row.fields else None
    if tools in (None, []) or (isinstance(tools, str) and not tools.strip()):
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UserError(
            f'{row.where}: field "tools" is {kind(tools)}, expected a list of '
            "objects; write it so, or leave it out",
            field="tools",
        )
    return tools
