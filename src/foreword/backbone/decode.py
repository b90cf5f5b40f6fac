"""Decoding: transformers' own ``generate``, over a view of the model under an injection."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.views import generating_view
from foreword.backbone.run.encoder_decoder import decoder_start, encode
from foreword.backbone.run.inputs import model_inputs, with_leading
from foreword.config.settings import setting
from foreword.errors import UserError
from foreword.injection import Injection, Mixture


@dataclass(frozen=True)
class Decoding:
    """How completions are chosen: greedy, beams (``beams`` > 1), or sampling (``temperature`` > 0).

    ``stop`` strings end a completion and are not part of it.
    """

    max_new_tokens: int = setting(64, help="most tokens of a completion", panel="decoding")
    beams: int = setting(1, help="beams of beam search; 1 is greedy", panel="decoding")
    temperature: float = setting(
        0.0, help="sampling temperature; 0 takes the likeliest token", panel="decoding"
    )
    top_p: float = setting(
        1.0, help="sample among the likeliest tokens that hold this probability", panel="decoding"
    )
    repetition_penalty: float = setting(1.0, help="above 1 discourages repeating", panel="decoding")
    stop: tuple[str, ...] = setting((), help="texts that end a completion", panel="decoding")
    seed: int = setting(0, help="seed of rows, starts and order")

    def check(self) -> None:
        """Raise UserError for values out of range."""
        for name, low in (("max_new_tokens", 1), ("beams", 1), ("temperature", 0)):
            if getattr(self, name) < low:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.repetition_penalty <= 0:
            raise UserError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0")


def decode(
    backbone: Backbone,
    rows: Sequence[Sequence[int]],
    injection: Injection | Mixture,
    decoding: Decoding,
) -> list[str]:
    """Continue each row of token ids and return the completions as text.

    Raises UserError on masked models, which do not continue text.
    """
    decoding.check()
    if not backbone.can_generate:
        raise UserError(f"{backbone.name} is a masked model and cannot generate; use a causal one")
    mixture = Mixture.of(injection, len(rows))
    if len(kinds := mixture.groups_by_change()) > 1:
        found_by: dict[int, str] = {}
        for own in kinds:
            texts = decode(backbone, [rows[i] for i in own], mixture.of_rows(own), decoding)
            found_by.update(zip(own, texts, strict=True))
        return [found_by[i] for i in range(len(rows))]
    ready = prepare(backbone.with_changes(mixture), rows, mixture, decoding)
    model: Any = ready.model
    here = backbone.device
    with torch.no_grad(), torch.random.fork_rng([here] if here.type == "cuda" else []):
        torch.manual_seed(decoding.seed)
        found = model.generate(
            **ready.inputs,
            generation_config=config(backbone, decoding),
            tokenizer=backbone.text.tokenizer if decoding.stop else None,
        )
    return [
        cut_at_stop(backbone.text.decode(until_end(ids, backbone.ends)), decoding.stop)
        for ids in found[:, ready.skipped :].tolist()
    ]


@dataclass(frozen=True, eq=False)
class Ready:
    """A view of the model under an injection, and the inputs of its ``generate``.

    The first ``skipped`` tokens that it returns are of the row and not of its completion.
    """

    model: PreTrainedModel
    inputs: Mapping[str, Any]
    skipped: int


@torch.no_grad()
def prepare(
    backbone: Backbone, rows: Sequence[Sequence[int]], mixture: Mixture, decoding: Decoding
) -> Ready:
    """Lay rows out for ``generate``, on a backbone that is under the mixture."""
    context, _ = backbone.pass_context(mixture)
    used = context if backbone.sites else None
    inputs: dict[str, Any]
    if backbone.has_two_stacks:
        encoded, mask = encode(backbone, rows, mixture, context)
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=encoded),
            "attention_mask": mask,
        }
        skipped, start = 1, torch.zeros(len(rows), 1, dtype=torch.long)
    else:
        inputs, start = _pad_left(backbone, rows, mixture)
        skipped = 0 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1]
    if used is not None and used.rows is not None:
        used = replace(used, rows=used.rows.repeat_interleave(decoding.beams))
    start = start.repeat_interleave(decoding.beams, 0).to(backbone.device)
    return Ready(generating_view(backbone.model, used, start), inputs, skipped)


def _pad_left(
    backbone: Backbone, rows: Sequence[Sequence[int]], mixture: Mixture
) -> tuple[dict[str, Tensor], Tensor]:
    """Pad on the left, as decoding needs it; return inputs and each row's first position (B, 1)."""
    rows, _ = with_leading(backbone, rows, mixture)
    longest = max(map(len, rows))
    ids = [[backbone.pad] * (longest - len(row)) + row for row in rows]
    parts = torch.tensor(list(mixture.rows))[:, None]
    inputs = model_inputs(backbone, torch.tensor(ids), parts, mixture)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    start = torch.tensor([[mixture.parts[row].positions] for row in mixture.rows])
    return {**inputs, "attention_mask": mask.to(backbone.device)}, start


def config(backbone: Backbone, decoding: Decoding) -> GenerationConfig:
    """Return transformers' settings of a decoding."""
    ends = backbone.ends
    sampling: dict[str, Any] = {"do_sample": decoding.temperature > 0}
    if decoding.temperature > 0:
        sampling |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.beams,
        repetition_penalty=decoding.repetition_penalty,
        stop_strings=list(decoding.stop) or None,
        eos_token_id=list(ends) or None,
        pad_token_id=ends[0] if ends else backbone.pad,
        decoder_start_token_id=decoder_start(backbone) if backbone.has_two_stacks else None,
        **sampling,
    )


def until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the tokens before the first that ends them."""
    return list(itertools.takewhile(lambda token: token not in ends, ids))


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return a completion without the first text that ends it, and what follows that."""
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text
