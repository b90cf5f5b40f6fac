"""Lockstep: several prompts write one completion, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, completion, config, prepare
from foreword.backbone.decoding_rules import StopTexts
from foreword.compose.fusion import Floats, Poll
from foreword.engine.passes import LOGITS, buckets, infer
from foreword.errors import UserError
from foreword.injection import Mixture
from foreword.prompt.prompt import Prompt
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import ROWS_TOKENS, DecodingInputs, Generator
from foreword.tasks.texts.spec import TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextFusion:
    """Each next token has the probability ``p(t) ~ prod_i p_i(t)^w_i`` over the vocabulary.

    Greedy decoding, in which all members go on from the same token. Beside a prompt this fuses
    its scores with those of a tuned model (LoRA, full). Weights are judged by the mean
    log-likelihood of the tokens of given completions.
    """

    metric = "log-likelihood"
    most = 100  # each asks for a softmax over the vocabulary at every token

    def check(self, members: Sequence[Prompt]) -> None:
        """Raise UserError for decoding that is not greedy, or differs between members."""
        own = [cast(TextTask, member.task).decoding for member in members]
        plain = Decoding()
        for number, decoding in enumerate(own, 1):
            for name in ("beams", "temperature", "repetition_penalty"):
                if getattr(decoding, name) != getattr(plain, name):
                    raise UserError(
                        f"prompt {number} decodes with {name} {getattr(decoding, name):g}; an "
                        "ensemble decodes greedily: tune its members without"
                    )
            if decoding.json_schema is not None:
                raise UserError(
                    f"prompt {number} decodes with json_schema; an ensemble decodes freely: tune "
                    "its members without"
                )
            for name in ("max_new_tokens", "stop"):
                if getattr(decoding, name) != getattr(own[0], name):
                    raise UserError(
                        f"prompt {number} decodes with {name} {getattr(decoding, name)}, and "
                        f"prompt 1 with {getattr(own[0], name)}; an ensemble needs the same"
                    )

    def answers(self, poll: Poll, weights: Sequence[float]) -> list[dict[str, Any]]:
        """Return a completion for each row."""
        members, rows = poll.members, poll.rows
        bounds = _bounds(members)
        backbone, decoding = bounds[0].backbone, bounds[0].task.decoding
        inputs = [
            b.decoding_inputs(rows, m.injection) for b, m in zip(bounds, members, strict=True)
        ]
        more = decoding.max_new_tokens
        sizes = [sum(len(each.ids[i]) + more for each in inputs) for i in range(len(rows))]
        found: list[dict[str, Any]] = [{} for _ in rows]
        for group in buckets(sizes, ROWS_TOKENS):
            texts = continued(backbone, inputs, weights, group, decoding)
            for i, text in zip(group, texts, strict=True):
                found[i] = {
                    "text": bounds[0].answer_of(text),
                    "cut": any(each.truncated[i] for each in inputs),
                }
            if poll.progress is not None:
                poll.progress(len(group))
        return found

    def judge(self, poll: Poll, candidates: Floats) -> tuple[Floats, Floats]:
        """Return the mean log-likelihood of the completions' tokens, twice."""
        members, rows = poll.members, poll.rows
        bounds = _bounds(members)
        backbone = bounds[0].backbone
        items = []
        for bound, member in zip(bounds, members, strict=True):
            bound.check(rows, answers=True)
            room = room_for(backbone, member.injection)
            items.append([bound.dev_example(row, room) for row in rows])
        for row, *own in zip(rows, *items, strict=True):
            if any(item.example.answers != own[0].example.answers for item in own):
                raise UserError(
                    f"{row.where}: the prompts' templates end otherwise, so that its completion "
                    "is of other tokens in each; an ensemble needs templates of one ending"
                )
        limit = LOGITS.get(backbone.device.type, LOGITS["cuda"]) // backbone.vocabulary
        total = np.zeros(len(candidates))
        for group in buckets([item.gold for item in items[0]], max(1, limit), padded=False):
            own = [[each[i] for i in group] for each in items]
            total += _likelihoods(backbone, members, own, candidates)
            if poll.progress is not None:
                poll.progress(len(group))
        mean = total / sum(item.gold for item in items[0])
        return mean, mean


def _bounds(members: Sequence[Prompt]) -> list[Generator]:
    made = [member.bound for member in members]
    return [bound for bound in made if isinstance(bound, Generator)]


@torch.no_grad()
def _likelihoods(
    backbone: Backbone,
    members: Sequence[Prompt],
    items: Sequence[Sequence[Encoded]],  # (members, rows)
    candidates: Floats,
) -> Floats:
    """Return the log-likelihood of a few rows' completions, summed, by each candidate: (C,)."""
    parts = tuple(member.injection for member in members)
    count = len(items[0])
    examples = [item.example for own in items for item in own]
    mixture = Mixture(parts, [part for part in range(len(parts)) for _ in range(count)])
    scores: dict[int, Tensor] = {}
    for group, logits in infer(backbone, mixture, examples):
        sizes = [len(examples[i].targets) for i in group]
        scores |= zip(group, torch.split(logits, sizes), strict=True)
    logs = torch.stack(
        [
            torch.cat([scores.pop(part * count + i) for i in range(count)]).float().log_softmax(1)
            for part in range(len(parts))
        ]
    )  # (members, tokens, vocabulary)
    gold = torch.tensor([t for item in items[0] for t in item.example.answers], device=logs.device)
    found = []
    for weights in candidates:
        fused = torch.tensordot(logs.new_tensor(weights), logs, 1)
        found.append(-float(F.cross_entropy(fused, gold, reduction="sum")))
    return np.array(found)


@torch.no_grad()
def continued(
    backbone: Backbone,
    inputs: Sequence[DecodingInputs],
    weights: Sequence[float],
    rows: Sequence[int],
    decoding: Decoding,
) -> list[str]:
    """Continue rows greedily by the members' fused scores, and return the completions as text.

    Members that change the model alike are run in one batch, with one cache.
    """
    parts = tuple(each.injection.parts[0] for each in inputs)
    every = [member for member in range(len(inputs)) for _ in rows]
    mixture = Mixture(parts, every)
    ids = [each.ids[i] for each in inputs for i in rows]
    groups = [
        _Group.begin(backbone, [ids[i] for i in own], mixture.of_rows(own), decoding)
        for own in mixture.groups_by_change()
    ]
    owners = [
        [every[i] for i in own][:: len(rows)] for own in mixture.groups_by_change()
    ]  # members
    stops = StopTexts(backbone.text, decoding.stop, 0) if decoding.stop else None
    last = torch.tensor(backbone.ends, dtype=torch.long, device=backbone.device)
    pad = config(backbone, decoding).pad_token_id
    going = torch.ones(len(rows), dtype=torch.bool, device=backbone.device)
    said: list[Tensor] = []
    for _ in range(decoding.max_new_tokens):
        fused = torch.zeros((), device=backbone.device)
        for group, own in zip(groups, owners, strict=True):
            logs = group.scores().view(len(own), len(rows), -1)
            fused = fused + torch.tensordot(logs.new_tensor([weights[m] for m in own]), logs, 1)
        tokens = fused[:, : backbone.vocabulary].argmax(1).where(going, pad)  # (rows,)
        said.append(tokens)
        for group, own in zip(groups, owners, strict=True):
            group.say(tokens.repeat(len(own)))
        going = going & ~torch.isin(tokens, last)
        if stops is not None:
            going = going & ~stops(torch.stack(said, 1), None)
        if not going.any():
            break
    return [completion(backbone, own, decoding.stop) for own in torch.stack(said, 1).tolist()]


class _Group:
    """Rows under one change of the model: what has been read and said, and the model's cache."""

    def __init__(self, model: Any, ids: Tensor, more: dict[str, Any]) -> None:
        self.model, self.ids, self.more = model, ids, more
        self.first = True

    @staticmethod
    def begin(
        backbone: Backbone, rows: Sequence[Sequence[int]], mixture: Mixture, decoding: Decoding
    ) -> _Group:
        """Let the model's own ``generate`` make all ready for its first token."""
        ready = prepare(backbone.with_changes(mixture), rows, mixture, decoding)
        model: Any = ready.model
        made: _Group = model.generate(
            **ready.inputs, generation_config=config(backbone, decoding), custom_generate=_begun
        )
        return made

    def scores(self) -> Tensor:
        """Return log-probabilities of the next token: (B, vocabulary)."""
        again = {} if self.first else {"next_sequence_length": 1 if self._caches else None}
        inputs = self.model.prepare_inputs_for_generation(
            self.ids, is_first_iteration=self.first, **again, **self.more
        )
        found = self.model(**inputs, return_dict=True)
        self.more = self.model._update_model_kwargs_for_generation(
            found, self.more, is_encoder_decoder=self.model.config.is_encoder_decoder
        )
        self.first = False
        return F.log_softmax(found.logits[:, -1].float(), 1)

    @property
    def _caches(self) -> bool:
        return bool(self.more.get("use_cache"))

    def say(self, tokens: Tensor) -> None:
        """Go on from these tokens: (B,)."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)


def _begun(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **more: Any,
) -> _Group:
    """Take what ``generate`` has prepared, in place of its loop."""
    return _Group(model, input_ids, more)
