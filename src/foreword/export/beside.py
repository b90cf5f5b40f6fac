"""Rows answered by another program and by Foreword: how many alike, and how far apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.decode import completion, continuations
from foreword.backbone.decoding_rules import cut_at_stop, until_end
from foreword.backbone.example import Example, behind
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.export.base import NotVerified, Verified
from foreword.prompt.prompt import Prompt
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.registry import name_of
from foreword.tasks.texts.generator import Generator


class Reader(ABC):
    """Another program, with a prompt and the tokens of a row behind it."""

    def __init__(self) -> None:
        self._read: list[int] = []

    def scores(self, ids: Sequence[int]) -> Tensor:
        """Return the scores of the token that follows a row's tokens: (vocabulary,).

        What the row has in common with what was read before it is not read again.
        """
        same = 0
        while same < min(len(ids) - 1, len(self._read)) and ids[same] == self._read[same]:
            same += 1
        self.forget(same)
        self._read = list(ids)
        return self.go_on(list(ids[same:]))

    @abstractmethod
    def forget(self, kept: int) -> None:
        """Forget all behind the prompt but the first ``kept`` tokens."""

    @abstractmethod
    def go_on(self, ids: list[int]) -> Tensor:
        """Read on, and return the scores of the next token: (vocabulary,)."""


@torch.no_grad()
def compare(
    prompt: Prompt, rows: Sequence[Row], reader: Reader, runtime: str
) -> Verified | NotVerified:
    """Answer rows with both: labels by the scores of their words, texts greedily.

    The difference is the largest between probabilities of labels, or of next tokens.
    """
    bound = prompt.bound
    if isinstance(bound, Classifier):
        pairs = [_labels(bound, prompt, row, reader) for row in rows]
    elif isinstance(bound, Generator):
        pairs = [_texts(bound, prompt, row, reader) for row in rows]
    else:
        return NotVerified(f"answers of a task of kind {name_of(prompt.task)} are not compared")
    equal = sum(same for same, _ in pairs) / len(pairs)
    return Verified(runtime, len(rows), equal, max(apart for _, apart in pairs))


def _labels(bound: Classifier, prompt: Prompt, row: Row, reader: Reader) -> tuple[bool, float]:
    """Return whether a row gets the same labels, and how far their probabilities are apart."""
    examples, _, _ = bound.examples_of([row], prompt.injection)
    ((_, ours),) = infer(bound.backbone, prompt.injection, examples, tokens=bound.tokens)
    example = behind(examples, prompt.injection)[0]
    read = torch.stack(
        [reader.scores((*example.ids, *example.branches[b][: j + 1])) for b, j in example.targets]
    )
    theirs = read if bound.tokens is None else read[:, list(bound.tokens)]
    both = [bound.scores(logits.cpu().float(), [example]) for logits in (ours, theirs)]
    answers = [bound.answer_of(scores)[bound.answer] for scores in both]
    return answers[0] == answers[1], float((both[0].exp() - both[1].exp()).abs().max())


def _texts(bound: Generator, prompt: Prompt, row: Row, reader: Reader) -> tuple[bool, float]:
    """Return whether a row is continued alike, and how far the tokens' probabilities are apart.

    Probabilities are those after each token that the other program wrote.
    """
    backbone, injection = bound.backbone, prompt.injection
    usual = replace(bound.decoding(""), beams=1, temperature=0.0, repetition_penalty=1.0)
    greedy = replace(usual, json_schema=None)
    example = bound.lay_out([row], injection)[0][0]
    (ours,) = continuations(backbone, [example.ids], injection, greedy)
    written: list[int] = []
    theirs: list[Tensor] = []
    while len(written) < greedy.max_new_tokens:
        theirs.append(reader.scores((*example.ids, *written)))
        written.append(int(theirs[-1][: backbone.vocabulary].argmax()))
        said = backbone.text.decode(until_end(written, backbone.ends))
        if written[-1] in backbone.ends or cut_at_stop(said, greedy.stop) != said:
            break
    whole = Example(
        example.ids,
        len(example.ids),
        (tuple(written[:-1]),),
        tuple((0, j) for j in range(-1, len(written) - 1)),
    )
    scored = torch.cat([logits for _, logits in infer(backbone, injection, [whole])])
    probabilities = [F.softmax(s.cpu().float(), 1) for s in (scored, torch.stack(theirs))]
    width = min(p.shape[1] for p in probabilities)
    apart = (probabilities[0][:, :width] - probabilities[1][:, :width]).abs().max()
    texts = [completion(backbone, ids, greedy.stop) for ids in (ours, written)]
    return texts[0] == texts[1], float(apart)
