"""How a row becomes tokens, and what a graph gives an answer: plain values that scripts read."""

from __future__ import annotations

from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.tasks.base import Bound
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import Labelling
from foreword.tasks.labels.one_label import OneLabel
from foreword.tasks.labels.regression import Regression
from foreword.tasks.labels.similar_pair import SimilarPair
from foreword.tasks.multilabel import ManyLabels
from foreword.tasks.score import Anchors
from foreword.tasks.templates.layout import virtual_count
from foreword.tasks.templates.template import Field, Slot, Template, VirtualTokens
from foreword.tasks.texts.generator import Generator

PADDING, ANSWER = -1, -2
"""What stands in rows of token ids behind their end, and where a masked model's answer goes."""


def cannot(reason: str) -> UserError:
    """Return the refusal of a prompt, for a reason."""
    return UserError(f"the prompt cannot become an ONNX graph: {reason}")


def reading_of(bound: Bound, most: int, behind: bool) -> dict[str, Any]:
    """Return how a row of fields is laid out as tokens, at ``most`` so many.

    ``behind`` says that a row goes without the tokenizer's first tokens, which the prompt begins
    with. A row is ``head`` and its pieces, which lose ``first`` where they begin with it, but for
    a row of nothing else. Raises UserError for what the runtime's tokenizer alone cannot do.
    """
    backbone = bound.backbone
    if bound.template.demos is not None:
        raise cannot("its template shows rows at {demos:N}; tune it with a template without them")
    if bound.task.input_window is not None:
        raise cannot("it reads the first tokens of a field alone; tune it without `input_window`")
    if "messages" in bound.fields:
        raise cannot(
            "its rows are conversations; tune it with a template of fields, such as "
            "'[user]{text}[assistant]'"
        )
    if not backbone.text.tokenizer.is_fast:
        raise cannot(
            "its tokenizer is a slow one; save the model's folder with a fast tokenizer "
            "(`AutoTokenizer.from_pretrained(...).save_pretrained(...)`)"
        )
    first, last = backbone.text.around
    chat = bound.template.chat and backbone.is_causal and not backbone.is_encoder
    pieces = _pieces(backbone, bound.template)
    if backbone.is_encoder or not backbone.is_causal:
        pieces.append({"ids": list(last)})
    return {
        "fields": list(bound.fields),
        "pieces": pieces,
        "first": [] if chat and not behind else list(first),
        "head": [] if chat or behind else list(first),
        "limit": most - (len(first) if behind else 0),
        "vocabulary": backbone.vocabulary,
    }


def _pieces(backbone: Backbone, template: Template) -> list[dict[str, Any]]:
    """Return a template as texts and token ids, in order.

    The ids are those of virtual tokens, and the place of a masked model's answer. A text loses the
    characters ``end`` at its end.
    """
    made: list[dict[str, Any]] = []
    virtual = backbone.vocabulary
    parts = template.parts if Slot() in template.parts else (*template.parts, Slot())
    for part in parts:
        if isinstance(part, Slot):
            if made and "text" in made[-1]:
                made[-1]["end"] = " "
            made.append({"ids": [ANSWER] if backbone.fills_masks else []})
        elif isinstance(part, VirtualTokens):
            size = virtual_count(backbone, part)
            made.append({"ids": list(range(virtual, virtual + size))})
            virtual += size
        else:
            if not made or "text" not in made[-1]:
                made.append({"text": [], "end": ""})
            assert isinstance(part, str | Field)
            made[-1]["text"].append(part if isinstance(part, str) else _field(part))
    return made


def _field(part: Field) -> dict[str, Any]:
    return {"field": part.name, "left": part.left, "right": part.right}


def labels_of(bound: Classifier) -> dict[str, Any]:
    """Return what the numbers that a label graph gives stand for.

    Raises UserError for tasks whose answers are more than one row of numbers.
    """
    labelling = bound.labelling
    if isinstance(labelling, ManyLabels):
        limits = dict(zip(labelling.labels, labelling.thresholds, strict=True))
        return {"answer": "labels", "numbers": list(labelling.labels), "thresholds": limits}
    if isinstance(bound, SimilarPair | Regression):
        raise cannot("its score is read off two texts, or a regression; tune it with anchors")
    own = type(labelling)
    if own.as_text is not Labelling.as_text or bound.slot_template.parts:
        raise cannot(
            "its task reads more of a row than a text; classify, multilabel, score and generate "
            "can be exported"
        )
    if isinstance(labelling, Anchors):
        return {"answer": "score", "numbers": ["score"]}
    if isinstance(labelling, OneLabel):
        return {"answer": "label", "numbers": list(labelling.names)}
    raise cannot("its answers are no labels of whole rows")


def texts_of(bound: Generator) -> dict[str, Any]:
    """Return how a text is written, greedily, and where it ends."""
    if bound.backbone.has_two_stacks:
        raise cannot("it writes with an encoder-decoder; tune it on a causal model")
    decoding, chat = bound.decoding(""), bound.backbone.text.chat
    if decoding.json_schema is not None:
        raise cannot("its answers obey a JSON schema; leave `json_schema` out")
    return {
        "max_new_tokens": decoding.max_new_tokens,
        "stop": list(decoding.stop),
        "ends": list(bound.backbone.ends),
        "opening": chat.opening.strip() if chat is not None else "",
    }
