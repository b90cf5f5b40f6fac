"""A method that starts from a prompt at hand, in place of the start that it is configured with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.methods.base import Method
from foreword.methods.parts.several import Several, join_methods
from foreword.prompt.prompt import Prompt
from foreword.prompt.tensors import check_fit
from foreword.training.provenance import about_backbone


def has_start(method: Method) -> bool:
    """Whether any part of a method has a start, which a prompt may be."""
    return any(hasattr(part, "start") for part in _parts(method))


def _parts(method: Method) -> list[Any]:
    return list(method.methods) if isinstance(method, Several) else [method]


def started_from(prompt: Prompt, method: Method, backbone: Backbone, place: Path) -> Method | None:
    """Return the method with a prompt as its start; None where it cannot be.

    A copy in ``place`` says that it is of this backbone, which its shapes allow. What has no start,
    such as LoRA, begins as it would.
    """
    if not has_start(method):
        return None
    try:
        check_fit(prompt.where, prompt.injection, backbone)
    except UserError:
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    replace(prompt, backbone=about_backbone(backbone)).save(place)
    return join_methods(
        [
            replace(part, start=str(place), start_text=None) if hasattr(part, "start") else part
            for part in _parts(method)
        ]
    )
