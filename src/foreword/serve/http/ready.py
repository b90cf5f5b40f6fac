"""A model that is loaded, and what answers on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.prompt.answerer import Answerer
    from foreword.serve.engine import Engine
    from foreword.serve.prompts import PromptFolder
    from foreword.serve.texts import TextRequests


@dataclass(frozen=True)
class Ready:
    """A model that is loaded, and what answers on it."""

    name: str
    backbone: Backbone
    prompts: PromptFolder
    engine: Engine
    texts: TextRequests

    def prompt(self, asked: str) -> tuple[str, Answerer | None]:
        """Return the whole name of what is asked for, and the prompt; None is the model alone."""
        if asked == self.name:
            return self.name, None
        try:
            return self.prompts.open(asked)
        except UserError as error:
            error.field = error.field or "model"
            raise
