"""Lockstep: several prompts write one completion, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError, Lock
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, completion, continuations
from foreword.compose.fusion import Floats, Poll
from foreword.engine.groups import buckets
from foreword.engine.passes import LOGITS, infer
from foreword.errors import UserError
from foreword.injection import Mixture
from foreword.prompt.prompt import Prompt
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import ROWS_TOKENS, DecodingInputs, Generator
from foreword.tasks.texts.spec import TextTask

Written = TypeVar("Written")


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


def continued(
    backbone: Backbone,
    inputs: Sequence[DecodingInputs],
    weights: Sequence[float],
    rows: Sequence[int],
    decoding: Decoding,
) -> list[str]:
    """Continue rows greedily by the members' fused scores, and return the completions as text.

    Members that change the model alike are run in one batch, with one cache; the others in step.
    """
    alone = not backbone.can_decode_together
    if alone and len(rows) > 1:
        return [continued(backbone, inputs, weights, [row], decoding)[0] for row in rows]
    mixture = Mixture(
        tuple(each.injection.parts[0] for each in inputs),
        [member for member in range(len(inputs)) for _ in rows],
    )
    ids = [each.ids[i] for each in inputs for i in rows]
    passes = [[n] for n in range(len(ids))] if alone else mixture.groups_by_change()
    vote = Vote(len(passes))

    def write(number: int) -> list[list[int]]:
        own = passes[number]
        members = [mixture.rows[n] for n in own[:: len(rows)]]
        rule = Voice(vote, number, [weights[member] for member in members])
        part = mixture.of_rows(own)
        return continuations(backbone, [ids[n] for n in own], part, decoding, rules=[rule])

    said = vote.in_step(write)[0][: len(rows)]
    return [completion(backbone, own, decoding.stop) for own in said]


class Vote:
    """The fused scores of rows' next tokens, taken over several passes that are run in step.

    One of them works at a time, and all go on once each has told its part.
    """

    def __init__(self, passes: int) -> None:
        self.parts: list[Tensor | None] = [None] * passes
        self.fused = torch.zeros(())
        self._all, self._turn = Barrier(passes, self._count), Lock()

    def _count(self) -> None:
        self.fused = torch.stack([part for part in self.parts if part is not None]).sum(0)

    def taken(self, number: int, part: Tensor) -> Tensor:
        """Tell a pass's own part, (rows, vocabulary), and return the sum of all."""
        self.parts[number] = part
        self._turn.release()
        try:
            self._all.wait()
        finally:
            self._turn.acquire()
        return self.fused

    def in_step(self, write: Callable[[int], Written]) -> list[Written]:
        """Run all passes, each by its number; what goes wrong in one ends all."""

        def run(number: int) -> Written:
            with self._turn:
                try:
                    return write(number)
                except BaseException:  # of any kind: the other parts wait for this one
                    self._all.abort()
                    raise

        if len(self.parts) == 1:
            return [run(0)]
        with ThreadPoolExecutor(len(self.parts)) as pool:
            found = [pool.submit(run, number) for number in range(len(self.parts))]
        wrong = [error for each in found if (error := each.exception()) is not None]
        for error in sorted(wrong, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error
        return [each.result() for each in found]


class Voice(LogitsProcessor):
    """Gives all members of a pass the fused scores of their rows."""

    def __init__(self, vote: Vote, number: int, weights: Sequence[float]) -> None:
        self.vote, self.number, self.weights = vote, number, weights

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Fuse scores: (members * rows, vocabulary)."""
        # Of a token that is left out a weight of 0 makes no number.
        logs = F.log_softmax(scores.float(), 1).clamp_min(torch.finfo(torch.float32).min)
        parts = logs.view(len(self.weights), -1, logs.shape[1])
        own = torch.tensordot(logs.new_tensor(self.weights), parts, 1)
        return self.vote.taken(self.number, own).repeat(len(self.weights), 1)
