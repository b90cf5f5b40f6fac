"""Filled templates: a row as token ids, truncated if it is too long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import begins_with, reading
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.tasks.templates.template import Slot, Template, VirtualTokens
from foreword.tasks.words import UNSPACED

Side = Literal["left", "right"]


@dataclass(frozen=True)
class FilledTemplate:
    """The tokens of a filled template.

    ``slot`` is the index of the answer. ``left`` is the literal text right before it, after which
    the answer is tokenized; a space at its end belongs to the answer. ``truncated`` tells whether
    a field was shortened or a demonstration left out. ``bos`` is as in ``Example``.
    """

    ids: tuple[int, ...]
    slot: int
    left: str
    truncated: bool
    bos: int = 0


class NoRoomError(UserError):
    """Nothing of a row fits beside the text of its template."""


def fill_template(
    backbone: Backbone,
    template: Template,
    values: Mapping[str, str],
    *,
    room: int,
    side: Side,
    where: str,
    before: str = "",
    demos: Sequence[str] = (),
    compose: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda values: values,
    spared: Collection[str] = (),
) -> FilledTemplate:
    """Fill a template and tokenize it into at most ``room`` tokens.

    A row that is too long loses demonstrations, from the first on, and then text on ``side`` of
    its longest value until it fits; those that are ``spared`` come last. ``compose`` makes fields
    of the values. ``before`` goes in front, after the tokenizer's special tokens.
    Raises NoRoomError if the template alone takes more than ``room``, and UserError if there is
    nothing to read.
    """
    texts, shown = dict(values), list(demos)
    truncated = False
    while True:
        filling = dict(compose(texts))
        if template.demos is not None:
            filling[template.demos.name] = "".join(shown)
        with reading(where):
            filled = _once(backbone, template, filling, before, truncated)
        if not (filled.ids or backbone.fills_masks):
            if truncated:
                raise NoRoomError(
                    f"{where}: there is no room for any token of the row; raise `max_length`"
                )
            raise UserError(
                f"{where}: the row has no tokens, and the template no text of its own; add some, "
                "such as 'Label:'"
            )
        excess = len(filled.ids) - room
        if excess <= 0:
            return filled
        if shown:
            shown, truncated = shown[1:], True
            continue
        tokens = {name: backbone.text.ids(text) for name, text in texts.items()}
        longest = max(
            tokens,
            key=lambda name: (bool(tokens[name]) and name not in spared, len(tokens[name])),
            default=None,
        )
        if longest is None or not tokens[longest]:
            raise NoRoomError(
                f"{where}: the template alone takes {len(filled.ids)} tokens and there is room for "
                f"{room}; shorten it, or raise `max_length`"
            )
        kept = max(0, len(tokens[longest]) - excess)
        cut = backbone.text.beginning if side == "right" else backbone.text.ending
        shorter = cut(texts[longest], kept)
        if len(shorter) >= len(texts[longest]):  # decoding need not give the text back exactly
            shorter = texts[longest][:-1] if side == "right" else texts[longest][1:]
        texts[longest] = shorter
        truncated = True


def field_texts(
    backbone: Backbone, row: Row, fields: Sequence[str], window: int | None
) -> dict[str, str]:
    """Return a row's fields as texts, truncated to their first ``window`` tokens."""
    texts = {name: str(row.fields[name]) for name in fields}
    with reading(row.where):
        return {name: first_tokens(backbone, text, window) for name, text in texts.items()}


def first_tokens(backbone: Backbone, text: str, window: int | None) -> str:
    """Return the first ``window`` tokens of a text; raises UserError for a window below 1."""
    if window is not None and window < 1:
        raise UserError(f"`input_window={window}`: give 1 or more tokens, or leave it out")
    return text if window is None else backbone.text.beginning(text, window)


def _once(
    backbone: Backbone, template: Template, texts: Mapping[str, str], before: str, truncated: bool
) -> FilledTemplate:
    pieces = template.fill(texts)
    chat = template.chat and backbone.is_causal and not (before or backbone.is_encoder)
    if before and template.chat and pieces and isinstance(pieces[0], str):
        pieces[0] = pieces[0].removeprefix(backbone.text.first)
    if before:
        if pieces and isinstance(pieces[0], str):
            pieces[0] = before + pieces[0]
        else:
            pieces.insert(0, before)
    if not any(isinstance(piece, Slot) for piece in pieces):
        pieces.append(Slot())
    first, last = backbone.text.around
    ids = [] if chat else list(first)
    slot, left, virtual = 0, "", backbone.vocabulary
    for index, piece in enumerate(pieces):
        if isinstance(piece, Slot):
            slot = len(ids)
            continue
        if isinstance(piece, VirtualTokens):
            size = virtual_count(backbone, piece)
            ids += range(virtual, virtual + size)
            virtual += size
            left = ""
            continue
        if index + 1 < len(pieces) and isinstance(pieces[index + 1], Slot):
            left = piece
            piece = piece.rstrip(" ")
        own = backbone.text.ids(piece)
        ids += own[len(first) :] if index == 0 and ids and begins_with(own, first) else own
    if backbone.has_two_stacks:
        slot = len(ids)
    if backbone.is_encoder or not backbone.is_causal:
        ids += last
    elif slot != len(ids):
        raise UserError(
            f"template {template.source!r}: text after [mask] is never seen by a causal model; "
            "put [mask] at the end, or use a masked model"
        )
    bos = len(first) if backbone.is_causal and begins_with(ids, first) else 0
    return FilledTemplate(tuple(ids), slot, left, truncated, bos)


def virtual_count(backbone: Backbone, soft: VirtualTokens) -> int:
    """Return the number of virtual tokens of a run in a template."""
    if soft.size is not None:
        return soft.size
    return len(backbone.text.ids(soft.text or ""))


def with_space(left: str, answer: str) -> str:
    """Return the answer with a space in front if ``left`` does not end in one.

    Chinese and Japanese get none.
    """
    if not left or left[-1].isspace() or answer[:1].isspace():
        return answer
    return answer if UNSPACED.search(left[-1] + answer[:1]) else f" {answer}"


def answer_ids(backbone: Backbone, left: str, answer: str, *, inside: bool = False) -> list[int]:
    """Tokenize an answer as it follows ``left``, as the tokenizer would in running text.

    A space at the end of ``left`` moves to the answer, as tokenizers expect it. The decoder of an
    encoder-decoder begins a new text, with the tokenizer's first tokens, unless ``left`` is
    ``inside`` what the decoder reads.
    """
    if backbone.has_two_stacks and not inside:
        return [*backbone.text.around[0], *backbone.text.ids(answer.lstrip(" "))]
    if left.endswith(" "):
        left, answer = left.rstrip(" "), " " + answer.lstrip(" ")
    elif left[-1:].isspace():
        answer = answer.lstrip(" ")
    return backbone.text.continuation(left[-12:], answer)


def room_for(backbone: Backbone, injection: Injection | Mixture) -> int:
    """Return the number of tokens that an injection leaves for a row."""
    parts = injection.parts if isinstance(injection, Mixture) else (injection,)
    return backbone.longest - max(part.positions + part.leading for part in parts)


def room_beside(backbone: Backbone, room: int, written: int) -> int:
    """Return the number of tokens of ``room`` that are a row's where so many are written after it.

    A decoder writes in a room of its own, if that is large enough.
    """
    apart = backbone.has_two_stacks and written <= backbone.longest
    return room if apart else room - written
