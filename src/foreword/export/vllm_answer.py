"""How a row is laid out for vLLM and how its answer is read, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreword.backbone.chat_template import ChatTemplate
from foreword.injection import Injection
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.label_tree import LabelTree
from foreword.tasks.templates.layout import room_for
from foreword.tasks.templates.template import Demos, Field, Piece, Slot
from foreword.tasks.texts.generator import Generator

MESSAGES = "messages"


def row_of(bound: Bound, parts: Sequence[Piece], injection: Injection) -> dict[str, Any]:
    """Return how a row becomes tokens behind a prefix.

    ``pieces`` are texts, and fields as ``[name, left, right]``, stripped on these sides. ``first``
    are the tokens that begin a text: put in front where ``begins`` says so, taken off where the
    prefix has them. Raises ValueError for a layout that only Foreword knows.
    """
    if bound.task.input_window is not None:
        raise ValueError("it reads the first tokens of each field alone (input_window)")
    pieces: list[Any] = []
    for part in parts:
        if isinstance(part, Demos):
            raise ValueError("its template shows rows, and not the same ones to each row")
        if isinstance(part, Field):
            pieces.append([part.name, part.left, part.right])
        elif not isinstance(part, Slot):
            pieces.append(part)
    chat = [each[0] for each in pieces if isinstance(each, list)] == [MESSAGES]
    if chat and len(pieces) > 1:
        raise ValueError("its template has texts around {messages}")
    template = bound.backbone.text.chat
    if chat and (template is None or not template.asks or template.opening.strip()):
        raise ValueError("the model has no chat template that vLLM and Foreword write alike")
    if chat and template is not None and _asking(template).endswith(" "):
        raise ValueError("the model's chat template ends with a space, which vLLM reads too")
    first, prefixed = bound.backbone.text.around[0], len(parts) < len(bound.template.parts)
    return {
        "pieces": pieces,
        "fields": list(bound.fields),
        "first": list(first),
        "begins": not (bound.template.chat or prefixed or injection.bos),
        "drops_first": bool(injection.bos),
        "tokens": _most(bound, injection),
    }


def _asking(template: ChatTemplate) -> str:
    """Return a conversation as text, up to where the assistant answers."""
    return template.render([{"role": "user", "content": "a"}], ask=True)


def answer_of(bound: Bound) -> dict[str, Any]:
    """Return how an answer is read; raises ValueError for one that vLLM cannot give."""
    if isinstance(bound, Generator):
        return _text(bound)
    if not isinstance(bound, Classifier) or not isinstance(bound.task, Classify):
        raise ValueError("its task gives neither one label nor a text")
    return _labels(bound)


def _text(bound: Generator) -> dict[str, Any]:
    decoding = bound.task.decoding
    for name, usual in (("beams", 1), ("repetition_penalty", 1.0), ("json_schema", None)):
        if getattr(decoding, name) != usual:
            raise ValueError(
                f"it writes with `{name}={getattr(decoding, name)}`, which vLLM does otherwise; "
                f"export it with `{name}={usual}` (Prompt.decoding)"
            )
    chat = bound.backbone.text.chat
    return {
        "kind": "text",
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
        "stop": list(decoding.stop),
        "stop_token_ids": list(bound.backbone.ends),
        "opening": "" if chat is None else chat.opening.strip(),
    }


def _labels(bound: Classifier) -> dict[str, Any]:
    tree = bound.verbalizer
    if not isinstance(tree, LabelTree):
        raise ValueError("its labels are scored otherwise than by label words")
    if bound.aids.calibration != "none":
        raise ValueError("its answers are corrected by those to blank rows (`calibration`)")
    return {
        "kind": "labels",
        "labels": list(bound.labels),
        "nodes": [list(path) for path in tree.nodes],
        "children": [list(tree.children[path]) for path in tree.nodes],
        "words": [
            [label, [list(step) for step in steps]]
            for (label, _), steps in zip(tree.words, tree.steps, strict=True)
        ],
        "vocabulary": tree.vocabulary,
    }


def _most(bound: Bound, injection: Injection) -> int:
    """Return the most tokens that a row may have without being cut."""
    room = room_for(bound.backbone, injection)
    if isinstance(bound, Generator):
        room -= bound.task.decoding.max_new_tokens
    elif isinstance(bound, Classifier):
        room -= max(map(len, bound.verbalizer.everything.branches), default=0)
    return bound.limit(room)
