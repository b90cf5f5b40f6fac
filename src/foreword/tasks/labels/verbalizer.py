"""Verbalizers: label words as tokens, and the scores that a model gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.errors import UserError

TokenPath = tuple[int, ...]


def normalize(labels: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return each label's words as a tuple.

    Raises UserError for fewer than two labels, a label without words, and shared words.
    """
    words = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in labels.items()}
    if len(words) < 2:
        raise UserError(
            f"a classification needs at least two labels, got {list(words)}; give rows of others, "
            "or name them with `labels`"
        )
    owners: dict[str, str] = {}
    for label, own in words.items():
        if not own or not all(word.strip() for word in own):
            raise UserError(f"label '{label}' has no word; give it one")
        for word in own:
            if owners.setdefault(word.strip(), label) != label:
                raise UserError(
                    f"labels '{owners[word.strip()]}' and '{label}' share the word '{word}'; "
                    "the model could not tell them apart"
                )
    return words


def token_paths(
    words: Mapping[str, Sequence[str]], spell: Callable[[str], TokenPath]
) -> list[tuple[int, TokenPath]]:
    """Return the label index and the tokens of each word.

    Raises UserError for a word without tokens, or with those of another label's word.
    """
    labels, owners = list(words), dict[TokenPath, int]()
    for number, label in enumerate(labels):
        for word in words[label]:
            path = spell(word)
            if not path:
                raise UserError(f"label '{label}': the tokenizer drops its word {word!r}")
            other = labels[owners.setdefault(path, number)]
            if other != label:
                raise UserError(
                    f"labels '{other}' and '{label}' have words of the same tokens; "
                    "choose other words"
                )
    return [(number, path) for path, number in owners.items()]


@dataclass(frozen=True)
class Plan:
    """Branches to run after a row, the targets to read, and the node of each target."""

    branches: tuple[TokenPath, ...]
    targets: tuple[tuple[int, int], ...]
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Cloze:
    """Label words in the hole of a masked model, as many mask tokens as a word has tokens.

    A word's score is the mean log-probability of its tokens (Schick and Schuetze 2021, PET); a
    pass is run for each number of tokens that occurs. A label's score sums over its words, and
    a softmax over labels follows.
    """

    words: tuple[tuple[int, TokenPath], ...]
    labels: int
    mask: int
    tokens = None  # the scores of the whole vocabulary are read

    @cached_property
    def _pool(self) -> Pool:
        return Pool(tuple(label for label, _ in self.words), self.labels)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of tokens that words have."""
        return tuple(sorted({len(path) for _, path in self.words}))

    @cached_property
    def everything(self) -> Plan:
        """The plan that reads every mask of every size."""
        targets = tuple((b, j) for b, size in enumerate(self.sizes) for j in range(size))
        return Plan(tuple((self.mask,) * size for size in self.sizes), targets, ())

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """The same plan for all labels: their scores depend on one another."""
        return (self.everything,) * self.labels

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows * places, vocabulary) -> (rows, labels)."""
        table = F.log_softmax(logits.float(), 1).view(-1, sum(self.sizes), logits.shape[1])
        first = {size: sum(self.sizes[:n]) for n, size in enumerate(self.sizes)}
        # The words of each size side by side, (rows, words of it, size), then in their own order.
        order, means = [], []
        for size in self.sizes:
            own = [n for n, (_, path) in enumerate(self.words) if len(path) == size]
            tokens = torch.tensor([self.words[n][1] for n in own], device=table.device)
            places = torch.arange(first[size], first[size] + size, device=table.device)
            means.append(table[:, places, tokens].mean(2))
            order += own
        words = torch.cat(means, 1)[:, torch.tensor(order).argsort().to(table.device)]
        return F.log_softmax(self._pool.over_words(words), 1)

    def losses(self, logits: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        target = torch.tensor(list(gold), device=logits.device)
        return F.nll_loss(self.scores(logits, examples), target, reduction="none")


@dataclass(frozen=True)
class Pool:
    """Which label each word is one of; the labels' probabilities are sums over their words."""

    owners: tuple[int, ...]
    labels: int

    @cached_property
    def _by_count(self) -> tuple[Tensor, list[Tensor]]:
        """Where each label is among those sorted by their number of words; the words of these."""
        words: dict[int, list[int]] = {label: [] for label in range(self.labels)}
        for word, label in enumerate(self.owners):
            words[label].append(word)
        counts: dict[int, list[int]] = {}
        for label, own in words.items():
            counts.setdefault(len(own), []).append(label)
        order = torch.tensor([label for own in counts.values() for label in own])
        return order.argsort(), [
            torch.tensor([words[label] for label in own]) for own in counts.values()
        ]

    def over_words(self, words: Tensor) -> Tensor:
        """Sum the probabilities of each label's words: (rows, words) -> (rows, labels), in logs."""
        order, groups = self._by_count
        here = words.device
        sums = [torch.logsumexp(words[:, own.to(here)], 2) for own in groups]
        return torch.cat(sums, 1).index_select(1, order.to(here))
