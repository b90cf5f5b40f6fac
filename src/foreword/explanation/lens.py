"""The logit lens: labels' probabilities as each layer would decode them.

What stands behind a layer is taken through the model's own last norm and head, as if no layer
followed (nostalgebraist 2020; Geva et al. 2022, arXiv:2203.14680).
"""

from __future__ import annotations

from foreword.backbone.example import behind
from foreword.data.row import Row
from foreword.engine.climb import climb
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.explanation.explanation import LayerProbabilities
from foreword.explanation.pieces import placed
from foreword.injection import NOTHING, Injection
from foreword.tasks.base import Bound
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import room_for


def probabilities_by_layer(bound: Bound, row: Row, injection: Injection) -> LayerProbabilities:
    """Decode each layer for a row, with the prompt and without; raises UserError if it cannot."""
    backbone = bound.backbone
    label = bound.task.label_field
    if not isinstance(bound, Classifier) or label is None:
        raise UserError(f"a task of kind {name_of(bound.task)} has no single label")
    if backbone.has_two_stacks:
        raise UserError("the layers of a decoder that reads an encoder cannot be left out")
    if backbone.is_encoder:
        raise UserError("an encoder's head reads pooled states of its last layer")
    row = Row({**row.fields, label: bound.labels[0]}, row.where)  # of which nothing is read
    prompted = _decoded(bound, row, injection)
    untouched = _decoded(bound.zero_shot(), row, NOTHING)
    return LayerProbabilities(
        text=bound.text_of(row),
        labels=tuple(bound.labels),
        names=tuple(f"layer {n}" for n in range(len(prompted))),
        prompt=prompted,
        untouched=untouched,
    )


def _decoded(bound: Classifier, row: Row, injection: Injection) -> tuple[tuple[float, ...], ...]:
    """Return the labels' probabilities behind each layer: (layers, labels)."""
    backbone = bound.backbone
    item = bound.dev_example(row, room_for(backbone, injection))
    examples, injection = placed(backbone, behind([item.example], injection), injection)
    view = backbone.with_changes(injection)
    longest = max(example.length for example in examples)
    if view.stack is None or not backbone.can_skip_lower_layers(longest):
        raise UserError(f"the layers of {type(backbone.model).__name__} cannot be run apart")
    found = []
    last = len(view.stack.layers)
    for given in climb(view, injection, examples):
        behind_all = type(given)(last, given.lead, given.rows)
        ((_, logits),) = infer(backbone, injection, examples, tokens=bound.tokens, given=behind_all)
        scores = bound.scores(logits, examples)
        if len(scores) != 1:
            raise UserError("the input has several places that are labelled")
        found.append(tuple(scores[0].exp().tolist()))
    return tuple(found)
