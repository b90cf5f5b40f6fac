"""What is checked of a row before the engine takes it."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.serve.request import Sampling
from foreword.tasks.templates.layout import room_beside, room_for


def check_row(
    backbone: Backbone, ids: Sequence[int], injection: Injection, sampling: Sampling
) -> None:
    """Raise UserError for a row that has no tokens, unknown ones, or more than there is room for.

    And for settings out of range, and a model that does not continue text.
    """
    sampling.check()
    if not backbone.can_generate:
        raise UserError(f"{backbone.name} predicts no next token; use a causal model")
    if not ids:
        raise UserError("the row has no tokens; give one or more")
    most = backbone.vocabulary + (0 if injection.embeds is None else len(injection.embeds))
    for token in (min(ids), max(ids)):
        if not 0 <= token < most:
            raise UserError(f"the row has the token {token}; ids go from 0 to {most - 1}")
    words = backbone.vocabulary
    if unknown := [token for token, _ in sampling.logit_bias if not 0 <= token < words]:
        raise UserError(f"`logit_bias`: the token {unknown[0]} is none of the {words}")
    room = room_for(backbone, injection)
    if len(ids) > room_beside(backbone, room, sampling.max_new_tokens):
        raise UserError(
            f"a row of {len(ids)} tokens and {sampling.max_new_tokens} new ones "
            f"(`max_new_tokens`) is longer than the {room} that the model has room for; "
            "shorten one of them"
        )
