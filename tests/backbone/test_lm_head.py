"""The LM head: the scores that are asked for, whoever else asks at the same time."""

from __future__ import annotations

from typing import Any

import torch

from foreword.backbone.run.lm_head import LMHead
from toys import get


class Shared(LMHead):
    """One that another thread asks for the token 9 whenever this one has looked or kept."""

    other: Any = None
    kept: Any = None

    @property
    def _narrow(self) -> Any:
        found, self.kept = self.kept, self.other or self.kept
        return found

    @_narrow.setter
    def _narrow(self, made: Any) -> None:
        self.kept = self.other or made


def test_threads_that_ask_for_different_tokens_get_their_own() -> None:
    model = get().model
    states = torch.linspace(-1, 1, 2 * model.config.hidden_size).view(2, -1)
    head = Shared(model)
    every = head.scores(states)
    torch.testing.assert_close(head.scores(states, (9,)), every[:, [9]])
    head.other = head.kept
    for tokens in ((4, 2, 7), (9,), (4, 2, 7)):
        torch.testing.assert_close(head.scores(states, tokens), every[:, list(tokens)])
