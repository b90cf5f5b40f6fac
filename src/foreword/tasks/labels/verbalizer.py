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
class LabelTree:
    """All label words as one tree of tokens, read from left to right.

    The score of a word is the probability that the model, held to the tree, spells it: at each
    node where words part, a softmax over the tokens that go on. A tail that only one word has is
    certain and costs nothing, so long words are not punished for their length. A word that is
    the beginning of another is closed by the end-of-text token. A label's probability is the sum
    over its words, and those of all labels add up to one.

    With ``vocabulary`` the softmax runs over the whole vocabulary at every token instead
    (training then also teaches the model to stay within the tree).
    """

    words: tuple[tuple[int, TokenPath], ...]  # (label, tokens)
    labels: int
    vocabulary: bool

    @staticmethod
    def grow(
        words: Sequence[tuple[int, TokenPath]], labels: int, end: int | None, *, vocabulary: bool
    ) -> LabelTree:
        """Build the tree; ``end`` closes a word that another one continues."""
        closed: dict[TokenPath, int] = {}
        paths = [path for _, path in words]
        for label, path in words:
            longer = any(len(p) > len(path) and p[: len(path)] == path for p in paths)
            if longer and end is None:
                raise UserError(
                    "one label's word is the beginning of another's, and the tokenizer has no "
                    "end-of-text token to tell them apart; choose other words"
                )
            whole = (*path, end) if longer and end is not None else path
            if closed.setdefault(whole, label) != label:
                raise UserError("two labels have words of the same tokens; choose other words")
        return LabelTree(tuple((lb, p) for p, lb in closed.items()), labels, vocabulary)

    @cached_property
    def children(self) -> dict[TokenPath, tuple[int, ...]]:
        """The tokens that continue each prefix of a word."""
        children: dict[TokenPath, dict[int, None]] = {}
        for _, path in self.words:
            for size, token in enumerate(path):
                children.setdefault(path[:size], {})[token] = None
        return {path: tuple(tokens) for path, tokens in children.items()}

    @cached_property
    def nodes(self) -> tuple[TokenPath, ...]:
        """The prefixes whose scores are needed: those where words diverge, or all of them."""
        return tuple(p for p, c in self.children.items() if self.vocabulary or len(c) > 1)

    @cached_property
    def steps(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each word, the (node, child) pairs whose log-probabilities add up to its score."""
        index = {path: n for n, path in enumerate(self.nodes)}
        return tuple(
            tuple(
                (index[path[:size]], self.children[path[:size]].index(token))
                for size, token in enumerate(path)
                if path[:size] in index
            )
            for _, path in self.words
        )

    @cached_property
    def everything(self) -> Plan:
        """The plan that reads all nodes, for predicting."""
        return self._plan(range(len(self.nodes)))

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """For each label, the plan that reads only the nodes of its words, for training."""
        return tuple(
            self._plan(
                sorted(
                    {
                        node
                        for (owner, _), steps in zip(self.words, self.steps, strict=True)
                        if owner == label
                        for node, _ in steps
                    }
                )
            )
            for label in range(self.labels)
        )

    def _plan(self, wanted: Sequence[int]) -> Plan:
        paths = [self.nodes[node] for node in wanted]
        branches = tuple(
            p for p in paths if not any(len(q) > len(p) and q[: len(p)] == p for q in paths)
        )
        targets = tuple(
            next((b, len(p) - 1) for b, q in enumerate(branches) if q[: len(p)] == p) for p in paths
        )
        return Plan(branches, targets, tuple(wanted))

    @cached_property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens whose logits are read, None for the whole vocabulary."""
        if self.vocabulary:
            return None
        return tuple(sorted({token for node in self.nodes for token in self.children[node]}))

    def _steps(self, logits: Tensor, node: int) -> Tensor:
        """Log-probabilities of a node's children: (N, tokens) -> (N, children)."""
        own = self.children[self.nodes[node]]
        if self.tokens is None:
            return F.log_softmax(logits.float(), 1)[:, list(own)]
        assert logits.shape[1] == len(self.tokens), "scores of other tokens than were asked for"
        columns = [self.tokens.index(token) for token in own]
        return F.log_softmax(logits[:, columns].float(), 1)

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows * nodes, tokens) -> (rows, labels).

        The examples carry the plan ``everything``.
        """
        table = logits.view(len(examples), len(self.nodes), -1)
        steps = [self._steps(table[:, node], node) for node in range(len(self.nodes))]
        words = torch.stack(
            [
                sum((steps[n][:, c] for n, c in own), table.new_zeros(len(table)))
                for own in self.steps
            ],
            1,
        )  # (rows, words)
        scores = _pooled(words, [label for label, _ in self.words], self.labels)
        return F.log_softmax(scores, 1)

    def losses(self, logits: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,).

        The examples carry the plan of their label in ``by_label``.
        """
        asked: dict[int, list[tuple[int, int, int]]] = {}  # node -> (place, child, word)
        counts: list[int] = []
        place, word = 0, 0
        for example, label in zip(examples, gold, strict=True):
            places = {node: place + n for n, node in enumerate(example.answers)}
            place += len(example.answers)
            own = [
                path for (lb, _), path in zip(self.words, self.steps, strict=True) if lb == label
            ]
            for path in own:
                for node, child in path:
                    asked.setdefault(node, []).append((places[node], child, word))
                word += 1
            counts.append(len(own))
        scores = torch.zeros(word, device=logits.device)
        for node, wanted in asked.items():
            at, child, owner = torch.tensor(wanted, device=logits.device).T
            steps = self._steps(logits[at], node).gather(1, child[:, None])[:, 0]
            scores = scores.index_add(0, owner, steps)
        if max(counts) == 1:
            return -scores
        return torch.stack([-torch.logsumexp(part, 0) for part in torch.split(scores, counts)])


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
        table = F.log_softmax(logits.float(), 1).view(len(examples), -1, logits.shape[1])
        first = {size: sum(self.sizes[:n]) for n, size in enumerate(self.sizes)}
        words = torch.stack(
            [
                table[:, range(first[len(p)], first[len(p)] + len(p)), list(p)].mean(1)
                for _, p in self.words
            ],
            1,
        )
        return F.log_softmax(_pooled(words, [label for label, _ in self.words], self.labels), 1)

    def losses(self, logits: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        target = torch.tensor(list(gold), device=logits.device)
        return F.nll_loss(self.scores(logits, examples), target, reduction="none")


def _pooled(words: Tensor, owners: Sequence[int], labels: int) -> Tensor:
    """Sum the probabilities of each label's words: (rows, words) -> (rows, labels), in logs."""
    columns = [
        torch.logsumexp(words[:, [n for n, owner in enumerate(owners) if owner == label]], 1)
        for label in range(labels)
    ]
    return torch.stack(columns, 1)
