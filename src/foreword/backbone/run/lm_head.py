"""The LM head: scores of the vocabulary, or of a part of it, from last hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoEModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import ModelOutput

from foreword.backbone.inside.agreement import agree
from foreword.backbone.inside.hooks import own_passes
from foreword.backbone.inside.views import head, held_by, output_embeddings


class LMHead:
    """The head of a model, run as the model's own code; for a few tokens on their rows alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._narrow: tuple[tuple[int, ...], nn.Linear] | None = None

    def over(self, model: PreTrainedModel) -> LMHead:
        """Return the LM head of the same model under other weights."""
        made = LMHead(model)
        made.__dict__.update({n: getattr(self, n) for n in ("_answer", "_narrowable")})
        return made

    def scores(self, states: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        """Return the scores of vocabulary tokens: (N, width) -> (N, tokens), all for None."""
        if tokens is not None and self._narrowable:
            return head(self.model, states, self._answer, self._rows(tuple(tokens)))
        scores = head(self.model, states, self._answer)
        return scores if tokens is None else scores[:, list(tokens)]

    @torch.no_grad()
    def inputs(self, states: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the inputs of the output embeddings for last states, and their weight matrix.

        (N, width) -> (N, inner), (vocabulary, inner). Some models transform or scale the states
        first, and their own code does it here. None where scores are no product of the two.
        """
        output = output_embeddings(self.model)
        weight = getattr(output, "weight", None)
        if output is None or not isinstance(weight, Tensor) or weight.dim() != 2:
            return None
        seen: list[tuple[Tensor, Tensor]] = []
        handle = output.register_forward_hook(
            own_passes(lambda module, given, scores: seen.append((given[0][0], scores[0])))
        )
        try:
            head(self.model, states, self._answer)
        finally:
            handle.remove()
        if len(seen) != 1:
            return None
        (inner, scores), bias = seen[0], getattr(output, "bias", None)
        linear = inner.shape[-1] == weight.shape[1] and weight.is_floating_point()
        if not linear or not agree(F.linear(inner, weight.to(inner.dtype), bias), scores):
            return None
        return inner, weight.detach()

    def _rows(self, tokens: tuple[int, ...]) -> nn.Linear:
        """The output embeddings of these tokens; kept, since a task asks for the same ones.

        Not where the weights are trained: each pass differentiates a graph of its own. Threads may
        ask for different tokens at a time, so that what is kept is looked at once.
        """
        whole = cast(nn.Linear, output_embeddings(self.model))
        kept = self._narrow
        if kept is None or kept[0] != tokens or whole.weight.requires_grad:
            index = torch.tensor(tokens, device=whole.weight.device)
            made = _Wide(whole.in_features, len(tokens), bias=False, device="meta")
            # Past the check for a Parameter: where the weights are trained, these have a graph.
            made._parameters["weight"] = cast(nn.Parameter, _at_least_float32(whole.weight[index]))
            if whole.bias is not None:
                made._parameters["bias"] = cast(nn.Parameter, _at_least_float32(whole.bias[index]))
            kept = self._narrow = tokens, made
        return kept[1]

    @cached_property
    def _narrowable(self) -> bool:
        """Whether a few rows of the output embeddings score as all do. Tried on two tokens."""
        output = output_embeddings(self.model)
        if type(output) is not nn.Linear or not held_by(self.model, output):
            return False
        if self.model.config.is_encoder_decoder:  # some add a bias for the whole vocabulary
            return False
        states = output.weight[[3, 1]].detach()
        with torch.no_grad():
            some = head(self.model, states, self._answer, self._rows((4, 2)))
            return agree(head(self.model, states, self._answer)[:, [4, 2]], some)

    @cached_property
    def _answer(self) -> type[ModelOutput]:
        """The class in which the base model returns its states."""
        two = self.model.config.is_encoder_decoder
        base = self.model.base_model
        if two and base is self.model:
            return MoEModelOutputWithPastAndCrossAttentions
        ids = torch.tensor([[3, 1]], device=self.model.device)
        with torch.no_grad():
            return type(base(input_ids=ids, **({"decoder_input_ids": ids} if two else {})))


@contextmanager
def head_reads_whole(model: PreTrainedModel) -> Iterator[None]:
    """Let the LM head read states that lie side by side in memory.

    Of a slice, which is what is scored behind a row, torch makes a product a row: of float32 three
    times as slow, and of half types with a copy of the head's weights for each.
    """
    module = output_embeddings(model)
    if module is None:
        yield
        return

    def lay(_: object, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].contiguous(), *given[1:])

    hook = module.register_forward_pre_hook(own_passes(lay))
    try:
        yield
    finally:
        hook.remove()


class _Wide(nn.Linear):
    """Scores of a few tokens in float32 at least, also where a model computes in a half type.

    What two scores differ by is often less than a half type tells apart: of scores near 100, as
    GPT-2 has them, bfloat16 knows the halves.
    """

    def forward(self, states: Tensor) -> Tensor:
        """Score the states: (..., inner) -> (..., tokens)."""
        return super().forward(_at_least_float32(states))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
