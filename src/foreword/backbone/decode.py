"""Decoding: transformers' own ``generate``, over a view of the model under an injection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import MoEModelOutput

from foreword.backbone.backbone import Backbone
from foreword.backbone.decoding_rules import (
    DrawsByRow,
    RepetitionPenalty,
    StopTexts,
    cut_at_stop,
    row_seed,
    until_end,
)
from foreword.backbone.inside.views import generating_view
from foreword.backbone.json_rule import FollowsSchema, JsonIsWhole, JsonSchema, check_json_schema
from foreword.backbone.run.encoder_decoder import decoder_start, encode
from foreword.backbone.run.inputs import reader, with_leading
from foreword.backbone.run.lm_head import head_reads_whole
from foreword.config.settings import FILE, setting
from foreword.errors import UserError
from foreword.injection import Injection, Mixture

COLD = 1e-5
"""The temperature below which the likeliest token is taken: scores over less overflow."""


@dataclass(frozen=True)
class Decoding:
    """How completions are chosen: greedy, beams (``beams`` > 1), or sampling (``temperature`` > 0).

    This is all that decides: of the model's ``generation_config`` only the tokens that end a text
    are taken. A row is answered alike alone and in any batch. ``repetition_penalty`` counts the
    tokens of the row as the model reads it, each once, and those written so far; virtual tokens
    and learned keys and values are no text. ``stop`` strings end a completion and are not part of
    it; they are looked for in the completion alone. With ``json_schema``, the text of a JSON
    schema, a completion is JSON that obeys it, unless ``max_new_tokens`` cut it off. The draws of
    sampling follow from ``seed`` and the tokens of the row, so that rows that read alike are
    answered alike.
    """

    max_new_tokens: int = setting(64, help="most tokens of a completion", panel="decoding")
    beams: int = setting(1, help="beams of beam search; 1 is greedy", panel="decoding")
    temperature: float = setting(
        0.0, help="sampling temperature; 0 takes the likeliest token", panel="decoding"
    )
    top_p: float = setting(
        1.0, help="sample among the likeliest tokens that hold this probability", panel="decoding"
    )
    repetition_penalty: float = setting(
        1.0, help="above 1 discourages tokens that the row and its answer have", panel="decoding"
    )
    stop: tuple[str, ...] = setting((), help="texts that end a completion", panel="decoding")
    seed: int = setting(0, help="seed of rows, starts and order")
    json_schema: str | None = setting(
        None,
        help="a file with the JSON schema that completions obey",
        panel="decoding",
        values=FILE,
        optional=True,
    )

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, and not the likeliest ones taken."""
        return self.temperature >= COLD

    def check(self) -> None:
        """Raise UserError for values out of range."""
        for name, low in (("max_new_tokens", 1), ("beams", 1), ("temperature", 0)):
            if getattr(self, name) < low:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        for name in ("temperature", "repetition_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}; it must be a finite number")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.repetition_penalty <= 0:
            raise UserError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0")
        if "" in self.stop:
            raise UserError("a stop text is empty, and every completion would be; leave it out")
        if self.json_schema is not None:
            check_json_schema(self.json_schema)
            if self.beams > 1:
                raise UserError("`json_schema` goes without beams; leave one of the two out")


def decode(
    backbone: Backbone,
    rows: Sequence[Sequence[int]],
    injection: Injection | Mixture,
    decoding: Decoding,
    *,
    lead: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
) -> list[str]:
    """Continue each row of token ids and return the completions as text.

    ``lead`` are tokens of every row that the injection has read already. ``seeds`` are those of
    the rows' draws, by default made of ``decoding.seed`` and the row.

    Raises UserError on masked models, which do not continue text, and on encoder-decoders that do
    not run as others do.
    """
    found = continuations(backbone, rows, injection, decoding, lead=lead, seeds=seeds)
    return [completion(backbone, ids, decoding.stop) for ids in found]


def continuations(
    backbone: Backbone,
    rows: Sequence[Sequence[int]],
    injection: Injection | Mixture,
    decoding: Decoding,
    *,
    lead: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
    rules: Sequence[LogitsProcessor] = (),
) -> list[list[int]]:
    """Return the tokens that :func:`decode` makes texts of, padded behind the end of each.

    ``rules`` change the scores of each next token after all others; they need rows that run in one
    pass.
    """
    decoding.check()
    if not backbone.can_generate:
        raise UserError(f"{backbone.name} is a masked model and cannot generate; use a causal one")
    if seeds is None:
        seeds = [row_seed(decoding.seed, (*lead, *row)) for row in rows]
    mixture = Mixture.of(injection, len(rows))
    if len(groups := batches(backbone, rows, mixture)) > 1:
        assert not rules, "they need rows that run in one pass"
        found_by: dict[int, list[int]] = {}
        for own in groups:
            some = [rows[i] for i in own]
            part, drawn = mixture.of_rows(own), [seeds[i] for i in own]
            written = continuations(backbone, some, part, decoding, lead=lead, seeds=drawn)
            found_by.update(zip(own, written, strict=True))
        return [found_by[i] for i in range(len(rows))]
    ready = _prepare(backbone.with_changes(mixture), rows, mixture, decoding)
    scorers = LogitsProcessorList()
    if decoding.repetition_penalty != 1:
        # A decoder writes a text of its own, and what it starts with is counted as generate does.
        read = [() if backbone.has_two_stacks else (*lead, *row) for row in rows]
        skipped = 0 if backbone.has_two_stacks else ready.skipped
        scorers.append(RepetitionPenalty(decoding.repetition_penalty, read, skipped))
    stops = StoppingCriteriaList()
    if decoding.stop:
        stops.append(StopTexts(backbone.text, decoding.stop, ready.skipped))
    if decoding.json_schema is not None:
        schema = JsonSchema(decoding.json_schema, backbone.text.tokenizer, backbone.ends)
        writers = [schema.begin() for _ in rows]
        scorers.append(FollowsSchema(writers))
        stops = StoppingCriteriaList([JsonIsWhole(writers, stops)])
    scorers.extend(rules)
    model: Any = ready.model
    draws = DrawsByRow(seeds, backbone.device) if decoding.draws else nullcontext()
    with torch.no_grad(), draws, head_reads_whole(model):
        found = model.generate(
            **ready.inputs,
            generation_config=_config(backbone, decoding),
            logits_processor=scorers,
            stopping_criteria=stops,
        )
    said: list[list[int]] = found[:, ready.skipped :].tolist()
    return said


def batches(backbone: Backbone, rows: Sequence[Sequence[int]], mixture: Mixture) -> list[list[int]]:
    """Part rows by their numbers into batches in which each is continued as it is alone.

    Raises UserError on encoder-decoders that do not run as others do.
    """
    if backbone.has_two_stacks:
        backbone.check_runs()
    made: list[list[int]] = []
    for own in mixture.groups_by_change():
        sizes = {len(rows[n]) + mixture.parts[mixture.rows[n]].leading for n in own}
        unpadded = len(sizes) == 1 and not backbone.has_two_stacks
        if len(own) == 1 or unpadded or backbone.can_decode_together:
            made.append(list(own))
        else:
            made += [[n] for n in own]
    return made


def completion(backbone: Backbone, ids: Sequence[int], stop: Sequence[str]) -> str:
    """Return the text of a completion's tokens, up to the first token or text that ends it."""
    return cut_at_stop(_text(backbone, until_end(ids, backbone.ends)), stop)


def _text(backbone: Backbone, ids: list[int]) -> str:
    """Return tokens as text, without a last character that is not whole where that spoils others.

    Tokenizers that write characters as bytes read those of one run all or not at all.
    """
    said = backbone.text.decode(ids)
    for cut in range(1, 4) if said.endswith("\ufffd") else ():
        whole = backbone.text.decode(ids[:-cut])
        if not whole.endswith("\ufffd"):
            return said if said.startswith(whole) else whole
    return said


@dataclass(frozen=True, eq=False)
class _Ready:
    """A view of the model under an injection, and the inputs of its ``generate``.

    The first ``skipped`` tokens that it returns are of the row and not of its completion.
    """

    model: PreTrainedModel
    inputs: Mapping[str, Any]
    skipped: int


@torch.no_grad()
def _prepare(
    backbone: Backbone, rows: Sequence[Sequence[int]], mixture: Mixture, decoding: Decoding
) -> _Ready:
    """Lay rows out for ``generate``, on a backbone that is under the mixture."""
    context, offsets = backbone.pass_context(mixture)
    used = context if backbone.sites else None
    if used is not None and used.rows is not None:
        used = replace(used, rows=used.rows.repeat_interleave(decoding.beams))
    if backbone.has_two_stacks:
        encoded, mask = encode(backbone, rows, mixture, context)
        view = generating_view(backbone.model, used)
        output = MoEModelOutput(last_hidden_state=encoded)  # some ask for its router
        return _Ready(view, {"encoder_outputs": output, "attention_mask": mask}, 1)
    rows, _ = with_leading(backbone, rows, mixture)
    longest = max(map(len, rows))
    ids = torch.tensor([[backbone.pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    parts = torch.tensor(list(mixture.rows))[:, None]
    start = torch.tensor(offsets)[:, None]
    view = generating_view(
        backbone.model,
        used,
        start.repeat_interleave(decoding.beams, 0).to(backbone.device),
        reader(backbone, parts.repeat_interleave(decoding.beams, 0), mixture),
    )
    inputs = {"input_ids": ids.to(backbone.device), "attention_mask": mask.to(backbone.device)}
    return _Ready(view, inputs, longest)


def _config(backbone: Backbone, decoding: Decoding) -> GenerationConfig:
    """Return transformers' settings of a decoding."""
    ends = backbone.ends
    sampling: dict[str, Any] = {"do_sample": decoding.draws}
    if decoding.draws:
        sampling |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.beams,
        eos_token_id=list(ends) or None,
        # What has a score and no embedding could not be read again.
        suppress_tokens=list(range(backbone.vocabulary, backbone.scored)) or None,
        pad_token_id=ends[0] if ends else backbone.pad,
        decoder_start_token_id=decoder_start(backbone) if backbone.has_two_stacks else None,
        **sampling,
    )
