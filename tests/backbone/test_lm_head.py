"""The LM head and what is found by hooks, whoever else runs the model at the same time."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import torch

from families import CAUSAL, family_model
from foreword.backbone.inside.layer_parts import find_layer_parts
from foreword.backbone.inside.projections import find_projections
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


@pytest.mark.parametrize("part", ["k_proj", "embed_tokens", "lm_head"])
def test_what_hooks_find_is_not_of_another_threads_pass(part: str) -> None:
    base = get()
    model: Any = base.model
    module = next(m for name, m in model.named_modules() if name.endswith(part))
    states = torch.linspace(-1, 1, 2 * model.config.hidden_size).view(2, -1)

    def found() -> Any:
        projections = find_projections(model, base.sites)
        inputs = base.lm_head_inputs(states)
        assert inputs is not None
        named = [(each.module, each.channels.tolist()) for each in projections]
        return find_layer_parts(model, base.sites), named, inputs[0].tolist()

    def run_beside(*call: Any) -> None:
        if not others:
            others.append(Thread(target=model, args=(torch.tensor([[3, 4, 5]]),)))
            others[0].start()
            others[0].join()
            others.clear()

    expected, others = found(), list[Thread]()
    handle = module.register_forward_pre_hook(run_beside)
    try:
        assert found() == expected
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_few_scores_keep_what_they_differ_by_in_half_types(dtype: torch.dtype) -> None:
    model = family_model(CAUSAL[0], dtype=dtype)
    table: Any = model.get_output_embeddings()
    table.weight.data.fill_(0.75)
    table.weight.data[4, 0] += 2**-7  # both types hold these weights, and neither of the scores
    states = torch.full((1, 32), 4.0, dtype=dtype, requires_grad=True)
    found = LMHead(model).scores(states, (2, 4))
    assert found.tolist() == [[96.0, 96.0 + 2**-5]]
    (back,) = torch.autograd.grad(found[0, 1], states)
    assert back.dtype == dtype
    assert torch.equal(back[0], table.weight[4])
