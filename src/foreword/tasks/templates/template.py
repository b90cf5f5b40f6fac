"""Templates: text with fields, virtual tokens and the place of the answer; parsed, never run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from foreword.errors import UserError, nearest


@dataclass(frozen=True)
class Field:
    """``{name}``: the text of a row's field.

    ``left`` and ``right``: a chat template strips the message that begins, or ends, with it.
    """

    name: str
    left: bool = False
    right: bool = False

    def read(self, value: str) -> str:
        """Return a row's text as it stands in the template."""
        value = value.lstrip() if self.left else value
        return value.rstrip() if self.right else value


@dataclass(frozen=True)
class VirtualTokens:
    """``[soft:5]`` or ``[soft:"It was"]``: virtual tokens, started from the text where given."""

    size: int | None
    text: str | None


@dataclass(frozen=True)
class Slot:
    """``[mask]``: the position of the answer."""


@dataclass(frozen=True)
class Demos:
    """``{demos:4}``: rows with their answers, as the rest of the template shows them."""

    count: int

    @property
    def name(self) -> str:
        """The key of its text among the texts that fill a template; no field has this name."""
        return f"demos:{self.count}"


ROLES = ("system", "user", "assistant")
"""The roles of messages."""


@dataclass(frozen=True)
class Role:
    """``[user]``: what follows, up to the next role, is a message of this role."""

    name: str


Piece = str | Field | VirtualTokens | Slot | Demos | Role


def literal(text: str) -> str:
    """Return a text as a template writes it, its braces and brackets doubled."""
    return re.sub(r"[{}\[\]]", lambda found: found[0] * 2, text)


_TOKEN = re.compile(
    r"(?P<escape>\{\{|\}\}|\[\[|\]\])"
    r"|\{(?P<field>[^{}\[\]]*)\}"
    r"|\[soft:(?:(?P<size>[0-9]{1,6})|\"(?P<start>[^\"]*)\")\]"
    r"|(?P<mask>\[mask\])"
    r"|\[(?P<role>system|user|assistant)\]"
    r"|(?P<stray>[{}\[\]])"
)


@dataclass(frozen=True)
class Template:
    """The parts of a template, in order; literal text is a plain string.

    ``demo`` are the parts of a demonstration, and ``after`` is the text after it. If ``close``, no
    space separates the answer from the text on its left; if ``chat``, the text begins as the
    chat template writes it, with special tokens of its own. ``answer`` says how the chat template
    writes an answer that is the assistant's turn. These depend on roles, which stay in ``parts``
    until a model's chat template resolves them (chat_roles.py).
    """

    source: str
    parts: tuple[Piece, ...]
    demo: tuple[Piece, ...] | None = None
    after: str = "\n\n"
    close: bool = False
    chat: bool = False
    answer: Field | None = None

    @staticmethod
    def parse(source: str) -> Template:
        """Read ``{field}``, ``[mask]``, ``[soft:5]``, ``[soft:"text"]``; ``{{ }} [[ ]]`` escape.

        ``{demos:4}`` is the place of four demonstrations, ``[user]`` begins a message.

        Raises UserError, with the column, for a stray brace or bracket, a field without a
        name, an unknown word in brackets, zero virtual tokens or demonstrations, or a second
        ``[mask]`` or ``{demos:N}``.
        """
        parts: list[Piece] = []
        literal = ""
        at = 0
        for match in _TOKEN.finditer(source):
            literal += source[at : match.start()]
            at = match.end()
            if match["escape"]:
                literal += match["escape"][0]
                continue
            if match["stray"]:
                raise UserError(_stray(source, match.start()))
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_special(source, match))
        literal += source[at:]
        if literal:
            parts.append(literal)
        if sum(isinstance(part, Slot) for part in parts) > 1:
            raise UserError(f"template {source!r}: [mask] stands twice; one answer, one place")
        if sum(isinstance(part, Demos) for part in parts) > 1:
            raise UserError(f"template {source!r}: {{demos:N}} stands twice; give all in one place")
        return Template(source, tuple(parts))

    @cached_property
    def demos(self) -> Demos | None:
        """The position of demonstrations, None if there are none."""
        return next((part for part in self.parts if isinstance(part, Demos)), None)

    def shown(self) -> Template:
        """Return the template of a demonstration: all that follows ``{demos:N}``."""
        if self.demo is not None:
            return replace(self, parts=self.demo)
        if self.demos is None:
            return self
        return replace(self, parts=self.parts[self.parts.index(self.demos) + 1 :])

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, each once."""
        return tuple(dict.fromkeys(p.name for p in self.parts if isinstance(p, Field)))

    @cached_property
    def soft(self) -> tuple[VirtualTokens, ...]:
        """The runs of virtual tokens, in order."""
        return tuple(part for part in self.parts if isinstance(part, VirtualTokens))

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The roles that no chat template has resolved yet."""
        return tuple(part for part in self.parts if isinstance(part, Role))

    def without_virtual_tokens(self) -> Template:
        """Return the template without its virtual tokens."""
        kept = tuple(part for part in self.parts if not isinstance(part, VirtualTokens))
        return replace(self, parts=kept)

    def fill(self, values: Mapping[str, str]) -> list[str | VirtualTokens | Slot]:
        """Replace fields by a row's texts, and merge neighbouring texts.

        The text of demonstrations has the name of their part; without it there are none.
        """
        filled: list[str | VirtualTokens | Slot] = []
        for part in self.parts:
            assert not isinstance(part, Role), "roles are to be made text first"
            if isinstance(part, Demos):
                piece: str | VirtualTokens | Slot = values.get(part.name, "")
            else:
                piece = part.read(values[part.name]) if isinstance(part, Field) else part
            if isinstance(piece, str) and filled and isinstance(filled[-1], str):
                filled[-1] += piece
            else:
                filled.append(piece)
        return filled

    def check(self, known: Mapping[str, object], where: str, *, shows: bool = False) -> None:
        """Raise UserError if a row lacks a field, or the task cannot show demonstrations."""
        if self.demos is not None and not shows:
            raise UserError(
                f"template {self.source!r}: there are no rows to show at {{{self.demos.name}}}; "
                "classify and relate draw them from their training rows, other tasks have none"
            )
        for name in self.fields:
            if name not in known:
                raise UserError(
                    f"{where}: no field '{name}', which the template asks for; "
                    f"{nearest(name, known)}; rename its column, or name it with "
                    f"`columns={name}=COLUMN`",
                    field=name,
                )


def with_demos_at_most(source: str, count: int) -> str:
    """Return a template with at most so many rows at ``{demos:N}``; with none, without that place.

    >>> with_demos_at_most("{demos:4}{text} is", 2), with_demos_at_most("{demos:4}{text} is", 0)
    ('{demos:2}{text} is', '{text} is')
    """
    demos = Template.parse(source).demos
    if demos is None or demos.count <= count:
        return source
    fields = (match for match in _TOKEN.finditer(source) if match["field"] is not None)
    place = next(match for match in fields if _special(source, match) == demos)
    less = f"{{demos:{count}}}" if count else ""
    return f"{source[: place.start()]}{less}{source[place.end() :]}"


def _special(source: str, match: re.Match[str]) -> Piece:
    place = f"template {source!r}, column {match.start() + 1}"
    if match["mask"]:
        return Slot()
    if match["role"]:
        return Role(match["role"])
    if match["field"] is not None:
        name = match["field"].strip()
        if not name:
            raise UserError(f"{place}: a field without a name; write {{{{ for a plain brace")
        if name.partition(":")[0] != "demos" or ":" not in name:
            return Field(name)
        count = name.partition(":")[2].strip()
        if not re.fullmatch(r"[1-9][0-9]{0,3}", count):
            raise UserError(f"{place}: cannot read {{{name}}}; write {{demos:4}} for four rows")
        return Demos(int(count))
    size = None if match["size"] is None else int(match["size"])
    if size == 0 or match["start"] == "":
        raise UserError(f"{place}: zero virtual tokens; give at least one")
    return VirtualTokens(size, match["start"])


def _stray(source: str, at: int) -> str:
    sign = source[at]
    place = f"template {source!r}, column {at + 1}"
    if sign == "[" and (word := re.match(r"\[([^\[\]{}]*)\]", source[at:])):
        if word[1].startswith("soft"):
            return f'{place}: cannot read [{word[1]}]; write [soft:5] or [soft:"some text"]'
        known = nearest(word[1].split(":")[0], ["mask", "soft", *ROLES])
        return f"{place}: unknown [{word[1]}]; {known}; write [[ and ]] for plain brackets"
    return f"{place}: a stray '{sign}'; write {sign * 2} for a plain one"
