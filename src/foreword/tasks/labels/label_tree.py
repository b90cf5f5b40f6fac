"""The label tree: label words read token by token, and the scores of labels that follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.tasks.labels.verbalizer import Plan, Pool, TokenPath


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
        begun = _beginnings(path for _, path in words)
        for label, path in words:
            longer = path in begun
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
    def _by_label(self) -> tuple[tuple[tuple[tuple[int, int], ...], ...], ...]:
        """For each label, the steps of its words."""
        found: list[list[tuple[tuple[int, int], ...]]] = [[] for _ in range(self.labels)]
        for (label, _), steps in zip(self.words, self.steps, strict=True):
            found[label].append(steps)
        return tuple(tuple(own) for own in found)

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """For each label, the plan that reads only the nodes of its words, for training."""
        return tuple(
            self._plan(sorted({node for steps in own for node, _ in steps}))
            for own in self._by_label
        )

    def _plan(self, wanted: Sequence[int]) -> Plan:
        paths = [self.nodes[node] for node in wanted]
        begun = _beginnings(paths)
        branches = tuple(path for path in paths if path not in begun)
        first: dict[TokenPath, int] = {}
        for number, branch in enumerate(branches):
            for size in range(len(branch) + 1):
                first.setdefault(branch[:size], number)
        targets = tuple((first[path], len(path) - 1) for path in paths)
        return Plan(branches, targets, tuple(wanted))

    @cached_property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens whose logits are read, None for the whole vocabulary."""
        if self.vocabulary:
            return None
        return tuple(sorted({token for node in self.nodes for token in self.children[node]}))

    @cached_property
    def _columns(self) -> tuple[Tensor, ...]:
        """For each node, the columns of its children among the logits."""
        asked = None if self.tokens is None else {t: n for n, t in enumerate(self.tokens)}
        return tuple(
            torch.tensor([t if asked is None else asked[t] for t in self.children[node]])
            for node in self.nodes
        )

    def _log_softmax(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Log-probabilities of the children in these columns: (..., tokens) -> (..., children).

        Nodes that have as many children may stand side by side: (N, nodes, tokens) and
        (nodes, children) -> (N, nodes, children).
        """
        assert self.tokens is None or logits.shape[-1] == len(self.tokens), "other tokens' scores"
        index = columns.to(logits.device).expand(*logits.shape[:-1], -1)
        if self.vocabulary:
            return F.log_softmax(logits.float(), -1).gather(-1, index)
        return F.log_softmax(logits.gather(-1, index).float(), -1)

    @cached_property
    def _groups(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Nodes that have as many children, and the columns of these: (nodes,), (nodes, children).

        Over the whole vocabulary each node is alone, since its scores are as many.
        """
        groups: dict[int, list[int]] = {}
        for node, columns in enumerate(self._columns):
            groups.setdefault(node if self.vocabulary else len(columns), []).append(node)
        return tuple(
            (torch.tensor(own), torch.stack([self._columns[node] for node in own]))
            for own in groups.values()
        )

    @cached_property
    def _paths(self) -> Tensor:
        """Each word's steps among those of all groups side by side: (words, longest).

        What a shorter word lacks is the place behind the last, which is certain.
        """
        first: dict[int, int] = {}
        size = 0
        for nodes, columns in self._groups:
            for node in nodes.tolist():
                first[node] = size
                size += columns.shape[1]
        paths = [[first[node] + child for node, child in own] for own in self.steps]
        longest = max(map(len, paths))
        return torch.tensor([[*path, *[size] * (longest - len(path))] for path in paths])

    @cached_property
    def _pool(self) -> Pool:
        return Pool(tuple(label for label, _ in self.words), self.labels)

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows * nodes, tokens) -> (rows, labels).

        The examples carry the plan ``everything``.
        """
        table = logits.view(-1, len(self.nodes), logits.shape[1])
        here = logits.device
        steps = [
            self._log_softmax(table.index_select(1, nodes.to(here)), columns).flatten(1)
            for nodes, columns in self._groups
        ]
        side = torch.cat([*steps, steps[0].new_zeros(table.shape[0], 1)], 1)  # (rows, steps + 1)
        words = table.new_zeros(table.shape[0], len(self.words))
        for places in self._paths.T:
            words = words + side.index_select(1, places.to(here))
        return F.log_softmax(self._pool.over_words(words), 1)

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
            own = self._by_label[label]
            for path in own:
                for node, child in path:
                    asked.setdefault(node, []).append((places[node], child, word))
                word += 1
            counts.append(len(own))
        scores = torch.zeros(word, device=logits.device)
        for node, wanted in asked.items():
            at, child, owner = torch.tensor(wanted, device=logits.device).T
            steps = self._log_softmax(logits[at], self._columns[node]).gather(1, child[:, None])
            scores = scores.index_add(0, owner, steps[:, 0])
        if max(counts) == 1:
            return -scores
        return torch.stack([-torch.logsumexp(part, 0) for part in torch.split(scores, counts)])


def _beginnings(paths: Iterable[TokenPath]) -> set[TokenPath]:
    """Return whatever one of the paths begins with, and is longer than."""
    return {path[:size] for path in paths for size in range(len(path))}
