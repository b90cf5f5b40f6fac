"""Roles in a template: messages as the model's chat template writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foreword.backbone.chat_template import MARK, ChatTemplateError, Messages
from foreword.backbone.tokenizer import Text
from foreword.errors import UserError
from foreword.tasks.templates.template import Demos, Field, Piece, Role, Slot, Template
from foreword.tasks.texts.conversation import lines

_MARKS = re.compile("\ue000([0-9]+)\ue001")


@dataclass
class _Turn:
    """A message of a template: its role and its parts."""

    role: str
    parts: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class _SplitText:
    """Messages as text, split at the parts that are no text; there is one text more than parts."""

    texts: tuple[str, ...]
    between: tuple[Piece, ...]

    def upto(self, end: int) -> tuple[Piece, ...]:
        """Return the first ``end`` parts with the text around them."""
        return _interleave(self.texts[: end + 1], self.between[:end])

    def of(self, start: int, end: int) -> tuple[Piece, ...]:
        """Return the parts from ``start`` up to ``end`` with the text between them."""
        return _interleave(("", *self.texts[start + 1 : end]), self.between[start:end])


def resolve_roles(template: Template, text: Text) -> Template:
    """Return a template with the text that a chat template puts around messages for its roles.

    The tokenizer's chat template says it, or lines that name each role. The answer stands in the
    last message, which is the assistant's. Demonstrations are turns too. Raises UserError for roles
    that cannot be read so, and for messages that the chat template does not take.
    """
    if not template.roles:
        return template
    turns, shown = _turns(template)
    *before, answer = turns
    _check(template, text, before)
    plain = _split(template, text, before)
    plain_lines, start = text.chat is None, [*answer.parts]
    close = (
        not plain_lines
        and isinstance(start[0], Slot)
        and not _writes_space(template, text, turns, plain)
    )
    how: dict[str, Any] = {"close": close}
    if plain_lines:
        if isinstance(start[0], str | Field):
            start.insert(0, " ")
        ending = "\n\n"
    else:
        left, right = _stripped(text, turns)[-1]
        start = [*_read_stripped(start, left, False)]
        ending = text.after_turn
        how |= {"chat": True, "answer": Field("", left and isinstance(start[0], Slot), right)}
    count = len(plain.between)
    if shown is None or template.demos is None:
        parts = (*plain.upto(count), *start)
        return replace(template, parts=_merge_texts(parts), after=ending, **how)
    head = sum(not isinstance(part, str) for turn in turns[:shown] for part in turn.parts)
    demo, after = _demonstration(template, text, turns, shown, plain)
    final = (*plain.of(head, count), plain.texts[count], *start)
    parts = (*plain.upto(head), template.demos, *final)
    return replace(template, parts=_merge_texts(parts), demo=demo, after=after, **how)


def _writes_space(
    template: Template, text: Text, turns: Sequence[_Turn], plain: _SplitText
) -> bool:
    """Whether the chat template writes a space between asking for an answer and the answer."""
    try:
        whole = _split(template, text, turns)
    except UserError:  # where no message may follow, nothing tells
        return False
    return whole.texts[len(plain.between)] == f"{plain.texts[-1]} "


def _turns(template: Template) -> tuple[list[_Turn], int | None]:
    """Return a template's messages, and the number of them before its demonstrations."""

    def wrong(what: str) -> UserError:
        return UserError(f"template {template.source!r}: {what}")

    turns: list[_Turn] = []
    shown: int | None = None
    for part in template.parts:
        if isinstance(part, Role):
            if part.name == "system" and turns:
                raise wrong("[system] is not the first message; put it in front")
            if shown == len(turns) and part.name != "user":
                raise wrong("{demos:N} shows turns; put it right before [user]")
            turns.append(_Turn(part.name))
        elif isinstance(part, Demos):
            shown = len(turns)
        elif isinstance(part, str) and not part.strip() and (not turns or shown == len(turns)):
            continue
        elif shown == len(turns):
            raise wrong("{demos:N} shows turns; put it right before [user]")
        elif not turns:
            raise wrong(f"there is text before [{template.roles[0].name}]; put it in a message")
        else:
            turns[-1].parts.append(part)
    if shown == len(turns):
        raise wrong("{demos:N} shows turns; put it right before [user]")
    place = next((n for n, turn in enumerate(turns) if Slot() in turn.parts), None)
    if place is not None and turns[place].role != "assistant":
        raise wrong(f"[mask] stands in a [{turns[place].role}] message; put it in [assistant]")
    if place is not None and place + 1 < len(turns):
        raise wrong(f"[{turns[place + 1].role}] follows the answer's message; let that be the last")
    if turns[-1].role != "assistant":
        turns.append(_Turn("assistant"))
    if len(turns) == 1:
        raise wrong("there is no message before [assistant]; begin with [user]")
    if place is None:
        turns[-1].parts.append(Slot())
    return turns, shown


def _check(template: Template, text: Text, turns: Sequence[_Turn]) -> None:
    """Raise UserError where the chat template refuses the roles, or leaves a message out."""
    messages = [{"role": t.role, "content": MARK.format(n)} for n, t in enumerate(turns)]
    where = f"template {template.source!r}: the model's chat template"
    try:
        written = _MARKS.findall(_written(text, messages))
    except ChatTemplateError as error:
        if turns and turns[0].role == "system" and _takes(text, messages[1:]):
            raise UserError(
                f"{where} takes no system message ({error}); put its text in [user]"
            ) from None
        raise UserError(
            f"{where} does not take these roles ({error}); mend them and their order"
        ) from None
    for number, turn in enumerate(turns):
        if str(number) not in written:
            raise UserError(f"{where} leaves out what stands in [{turn.role}]; put it elsewhere")


def _takes(text: Text, messages: Messages) -> bool:
    try:
        _written(text, messages)
    except ChatTemplateError:
        return False
    return True


def _split(template: Template, text: Text, turns: Sequence[_Turn]) -> _SplitText:
    """Render messages with marks for the parts that are no text, and split at the marks."""
    between: list[Piece] = []
    messages = []
    for turn, (left, right) in zip(turns, _stripped(text, turns), strict=True):
        content = ""
        for part in _read_stripped(turn.parts, left, right):
            if isinstance(part, str):
                content += part
                continue
            content += MARK.format(len(between))
            between.append(part)
        messages.append({"role": turn.role, "content": content})
    try:
        pieces = _MARKS.split(_written(text, messages))
    except ChatTemplateError as error:
        raise UserError(
            f"template {template.source!r}: the model's chat template does not take these messages "
            f"({error}); mend them"
        ) from None
    if pieces[1::2] != [str(n) for n in range(len(between))]:
        raise UserError(
            f"template {template.source!r}: the model's chat template does not write these "
            "messages one after the other, as they are; leave out the roles"
        )
    return _SplitText(tuple(pieces[::2]), tuple(between))


def _written(text: Text, messages: Messages) -> str:
    """Return messages as the text that an answer follows."""
    return lines(messages) if text.chat is None else text.chat.before_answer(messages)


def _stripped(text: Text, turns: Sequence[_Turn]) -> list[tuple[bool, bool]]:
    """Whether the chat template strips each message of space on its left, and on its right."""
    nothing = [(False, False)] * len(turns)
    if text.chat is None:
        return nothing
    texts = []
    for form in ("{}", " {}", "{} "):
        messages = [
            {"role": turn.role, "content": form.format(MARK.format(n))}
            for n, turn in enumerate(turns)
        ]
        try:
            pieces = _MARKS.split(text.chat.render(messages, ask=False))
        except ChatTemplateError:
            return nothing
        if pieces[1::2] != [str(n) for n in range(len(turns))]:
            return nothing
        texts.append(pieces[::2])
    plain, left, right = texts
    return [(left[n] == plain[n], right[n + 1] == plain[n + 1]) for n in range(len(turns))]


def _read_stripped(parts: Sequence[Piece], left: bool, right: bool) -> list[Piece]:
    """Return a message's parts with the fields at its ends stripped as its text is."""
    made = list(parts)
    for on, places in ((left, range(len(made))), (right, range(len(made) - 1, -1, -1))):
        for place in places if on else ():
            part = made[place]
            if isinstance(part, str):
                made[place] = part.lstrip() if places.step > 0 else part.rstrip()
                if made[place]:
                    break
                continue
            if isinstance(part, Field):
                ahead = places.step > 0
                made[place] = Field(part.name, part.left or ahead, part.right or not ahead)
            break
    return made


def _demonstration(
    template: Template, text: Text, turns: Sequence[_Turn], shown: int, plain: _SplitText
) -> tuple[tuple[Piece, ...], str]:
    """Return the parts of a demonstration, from its first field to its answer, and what follows.

    They are read from two demonstrations before a row: the text around both must be the same, and
    the same as without demonstrations.
    """
    head, own = turns[:shown], turns[shown:]
    before, size, asks = (
        sum(not isinstance(part, str) for turn in some for part in turn.parts)
        for some in (head, own, own[:-1])
    )
    if not asks:
        raise UserError(
            f"template {template.source!r}: no field follows {{demos:N}}; put one in [user]"
        )
    truncated = _split(template, text, [*head, *own, *own, *own[:-1]])
    second, last = before + size, before + 2 * size
    alike = (
        truncated.texts[: before + 1] == plain.texts[: before + 1]
        and truncated.texts[before + 1 : second] == truncated.texts[second + 1 : last]
        and truncated.texts[second] == truncated.texts[last]
        and truncated.texts[last + 1 :] == plain.texts[before + 1 :]
    )
    if not alike:
        raise UserError(
            f"template {template.source!r}: the model's chat template does not write all turns "
            "alike; leave out {demos:N}, or the roles"
        )
    demo = truncated.of(before, second)
    if text.tokenizer.chat_template is None and isinstance(own[-1].parts[0], Slot):
        demo = (*demo[:-2], str(demo[-2]).rstrip(" "), *demo[-1:])  # a word brings its own space
    return demo, truncated.texts[second]


def _interleave(texts: Sequence[str], between: Sequence[Piece]) -> tuple[Piece, ...]:
    """Return texts and parts in turn, from the first text on."""
    pieces: list[Piece] = []
    for number, piece in enumerate(texts):
        pieces += [piece, *between[number : number + 1]]
    return tuple(part for part in pieces if part != "")


def _merge_texts(parts: Sequence[Piece]) -> tuple[Piece, ...]:
    """Return parts with neighbouring texts merged."""
    merged: list[Piece] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return tuple(merged)
