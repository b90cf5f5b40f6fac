"""The label tree in tensors, against the same sums step by step; what many labels cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from foreword.backbone.attention.masks import ancestors
from foreword.backbone.example import Example
from foreword.tasks.labels.label_tree import LabelTree
from foreword.tasks.labels.verbalizer import Cloze, TokenPath

END, VOCABULARY = 9, 10
PATHS = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple),
    min_size=2,
    max_size=12,
    unique=True,
)


def owned(paths: Sequence[TokenPath], labels: int) -> list[tuple[int, TokenPath]]:
    """Words of labels by turns: each label has one, some have several."""
    return [(number % labels, path) for number, path in enumerate(paths)]


def by_steps(tree: LabelTree, table: Tensor) -> Tensor:
    """Log-probabilities of labels, one sum a word: (rows, nodes, tokens) -> (rows, labels)."""
    found = []
    for row in table:
        mass: list[list[Tensor]] = [[] for _ in range(tree.labels)]
        for label, path in tree.words:
            log = torch.zeros(())
            for size, token in enumerate(path):
                if path[:size] not in tree.nodes:
                    continue
                scores = row[tree.nodes.index(path[:size])]
                if tree.tokens is not None:
                    children = tree.children[path[:size]]
                    scores = scores[[tree.tokens.index(child) for child in children]]
                    token = children.index(token)
                log = log + scores.log_softmax(0)[token]
            mass[label].append(log)
        found.append(torch.stack([torch.logsumexp(torch.stack(own), 0) for own in mass]))
    return torch.stack(found).log_softmax(1)


def example(tree: LabelTree, label: int | None = None) -> Example:
    plan = tree.everything if label is None else tree.by_label[label]
    return Example((0,), 1, plan.branches, plan.targets, plan.answers)


@given(PATHS, st.integers(2, 4), st.booleans(), st.integers(0, 99))
def test_scores_and_losses_are_those_taken_word_by_word(
    paths: list[TokenPath], labels: int, vocabulary: bool, seed: int
) -> None:
    labels = min(labels, len(paths))
    tree = LabelTree.grow(owned(paths, labels), labels, END, vocabulary=vocabulary)
    width = VOCABULARY if tree.tokens is None else len(tree.tokens)
    made = torch.Generator().manual_seed(seed)
    table = torch.randn(3, len(tree.nodes), width, generator=made, requires_grad=True)
    scores = tree.scores(table.flatten(0, 1), [example(tree)] * 3)
    expected = by_steps(tree, table)
    torch.testing.assert_close(scores, expected)
    weights = torch.randn(scores.shape, generator=made)
    _same_gradient(table, (scores * weights).sum(), (expected * weights).sum())
    if vocabulary:
        return  # the scores of the labels are then normalized, the losses are not
    golds = [number % labels for number in range(3)]
    rows = [example(tree, gold) for gold in golds]
    logits = torch.cat([table[n, list(row.answers)] for n, row in enumerate(rows)])
    losses = tree.losses(logits, rows, golds)
    right = -torch.stack([expected[n, gold] for n, gold in enumerate(golds)])
    torch.testing.assert_close(losses, right)
    _same_gradient(table, losses.sum(), right.sum())


def _same_gradient(table: Tensor, one: Tensor, other: Tensor) -> None:
    found, expected = (
        torch.autograd.grad(each, table, retain_graph=True)[0] for each in (one, other)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@given(PATHS, st.integers(0, 99))
def test_words_of_a_cloze_are_means_over_their_masks(paths: list[TokenPath], seed: int) -> None:
    cloze = Cloze(tuple(owned(paths, 2)), 2, END)
    places = len(cloze.everything.targets)
    table = torch.randn(2, places, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    found = cloze.scores(table.flatten(0, 1), [example(cloze)] * 2)  # type: ignore[arg-type]
    first = {size: sum(s for s in cloze.sizes if s < size) for size in cloze.sizes}
    for row, scores in zip(table.log_softmax(2), found, strict=True):
        mass = [0.0, 0.0]
        for label, path in cloze.words:
            logs = [float(row[first[len(path)] + n, token]) for n, token in enumerate(path)]
            mass[label] += math.exp(sum(logs) / len(logs))
        torch.testing.assert_close(scores, torch.tensor(mass).log().log_softmax(0))


@pytest.mark.parametrize("vocabulary", [False, True])
def test_every_node_of_a_plan_is_where_its_branches_lead(vocabulary: bool) -> None:
    paths: list[TokenPath] = [(1, 2, 3), (1, 2, 4), (1, 5), (6,), (1,)]
    tree = LabelTree.grow(owned(paths, 5), 5, END, vocabulary=vocabulary)
    assert (1, END) in [path for _, path in tree.words]  # closed, for others go on
    for plan in (tree.everything, *tree.by_label):
        read = [plan.branches[b][: j + 1] for b, j in plan.targets]
        assert read == [tree.nodes[node] for node in plan.answers]
        assert not any(
            one != other and other[: len(one)] == one
            for one in plan.branches
            for other in plan.branches
        )


class Operations(TorchDispatchMode):
    """Counts the operations of torch."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return function(*args, **kwargs or {})


def test_a_thousand_labels_take_as_many_operations_as_ten() -> None:
    def operations(count: int) -> int:
        paths = [(number % 10, 10 + number // 10) for number in range(count)]
        tree = LabelTree.grow(list(enumerate(paths)), count, END, vocabulary=False)
        assert tree.tokens is not None
        logits = torch.randn(2 * len(tree.nodes), len(tree.tokens))
        tree.scores(logits, [example(tree)] * 2)  # which lays the tree out
        with Operations() as counted:
            tree.scores(logits, [example(tree)] * 2)
        return counted.count

    assert operations(1000) <= operations(10) + 20


@given(st.lists(st.lists(st.integers(0, 8), max_size=8), min_size=1, max_size=3), st.data())
def test_a_token_sees_itself_and_its_ancestors(
    choices: list[list[int]], data: st.DataObject
) -> None:
    trees = []
    for own in choices:  # a chain, then tokens that hang on any before them
        chain = data.draw(st.integers(0, 4))
        more = [choice % (chain + n + 1) - 1 for n, choice in enumerate(own)]
        trees.append([*range(-1, chain - 1), *more])
    length = max(map(len, trees)) + 1
    seen = ancestors(trees, length)
    for parents, mask in zip(trees, seen[:, 0].tolist(), strict=True):
        for token in range(length):
            above, at = {token}, token
            while at < len(parents) and parents[at] >= 0:
                at = parents[at]
                above.add(at)
            assert {n for n, sees in enumerate(mask[token]) if sees} == above
