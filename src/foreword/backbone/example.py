"""What a backbone is asked to run: token ids, continuations, and the places to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from foreword.injection import Injection, Mixture

POOLED: Final = -(2**31)
"""The token of a target that names a whole row: an encoder's pooled state of it."""


@dataclass(frozen=True)
class Example:
    """One row of data as tokens, with the places whose next-token scores are wanted.

    ``ids`` are the row's tokens; ids from the vocabulary size up are virtual tokens. Each of
    ``branches`` stands at ``slot``: on a causal model a continuation of the row (``slot`` is its
    end), on a masked model the mask tokens that fill the hole, on an encoder-decoder what the
    decoder reads after its start token. All branches share the row's pass where the model
    permits it. A target ``(b, j)`` names token j of branch b, and j = -1 the token before it.
    On an encoder j = ``POOLED`` names the pooled state of the row with branch b alone.
    ``answers`` holds, target by target, what the task expects there; the backbone ignores it.
    The first ``bos`` tokens are the special ones with which the tokenizer of a causal model begins
    a text.
    """

    ids: tuple[int, ...]
    slot: int
    branches: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[int, int], ...]
    answers: tuple[int, ...] = ()
    bos: int = 0

    @property
    def length(self) -> int:
        """Tokens in the row with the tree of its branches, what a pass over a tree costs."""
        return len(self.ids) + len(tree_of(self.branches).tokens)

    def after(self, lead: int) -> Example:
        """Return the example without its first ``lead`` tokens, which were run elsewhere."""
        return replace(self, ids=self.ids[lead:], slot=self.slot - lead)


def behind(examples: Sequence[Example], injection: Injection | Mixture) -> list[Example]:
    """Return examples as rows that follow an injection, so that a text begins once.

    Where the injection begins with the tokenizer's special tokens, its rows go without theirs; one
    that has no other token keeps them, since there must be something to read.
    """
    mixture = Mixture.of(injection, len(examples))
    return [
        replace(example.after(example.bos), bos=0)
        if mixture.parts[part].bos and len(example.ids) > example.bos
        else example
        for example, part in zip(examples, mixture.rows, strict=True)
    ]


def common_lead(examples: Iterable[Example]) -> tuple[int, ...]:
    """Return the longest run of tokens with which every example starts.

    At least one token of each row is left, since its scores may be wanted. A pooled state is of
    all tokens, so that no lead can be left out.
    """
    listed = list(examples)
    rows = [example.ids for example in listed]
    if not rows or any(j == POOLED for example in listed for _, j in example.targets):
        return ()
    low, high = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    size = 0
    while size < limit and low[size] == high[size]:
        size += 1
    return low[:size]


@dataclass(frozen=True)
class Tree:
    """Branches merged where they begin alike, so that each beginning is run once.

    ``parents`` are places among ``tokens``, -1 for what the branches stand behind. ``places`` has
    a tuple for each branch: where its tokens are.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)  # the branches of a task's rows are often the same
def tree_of(branches: tuple[tuple[int, ...], ...]) -> Tree:
    """Return the tree of some branches."""
    tokens, parents, places = list[int](), list[int](), list[tuple[int, ...]]()
    at: dict[tuple[int, int], int] = {}  # parent, token -> place
    for branch in branches:
        own, parent = list[int](), -1
        for token in branch:
            if (parent, token) not in at:
                at[parent, token] = len(tokens)
                tokens.append(token)
                parents.append(parent)
            parent = at[parent, token]
            own.append(parent)
        places.append(tuple(own))
    return Tree(tuple(tokens), tuple(parents), tuple(places))


@dataclass(frozen=True)
class Line:
    """A sequence to run: tokens, and each one's parent where the tokens form a tree."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...] | None = None


def lines(example: Example, *, tree: bool) -> tuple[list[Line], list[tuple[int, int]]]:
    """Lay an example out as sequences; return them and each target as (line, token).

    With ``tree`` the branches are merged into one tree of tokens after the row, so that each
    shared beginning is run once; else, and where a pooled state is wanted, every branch makes a
    sequence of its own.
    """
    head, tail = example.ids[: example.slot], example.ids[example.slot :]
    if not tree or len(example.branches) == 1 or any(j == POOLED for _, j in example.targets):
        whole = [Line((*head, *branch, *tail)) for branch in example.branches]
        return whole, [(b, j if j == POOLED else len(head) + j) for b, j in example.targets]
    made, size = tree_of(example.branches), len(head)
    parents = (*range(-1, size - 1), *(size + parent for parent in made.parents))
    places = [(0, size + (made.places[b][j] if j >= 0 else -1)) for b, j in example.targets]
    return [Line((*head, *made.tokens), parents)], places


@dataclass(frozen=True)
class Batch:
    """Examples laid out as lines: which lines each one owns, and its targets as (line, token)."""

    lines: tuple[Line, ...]
    owned: tuple[range, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def owners(self) -> list[int]:
        """The example of each line."""
        return [example for example, own in enumerate(self.owned) for _ in own]


def batch(examples: Sequence[Example], *, tree: bool) -> Batch:
    """Lay examples out one after the other, as :func:`lines` does each."""
    made: list[Line] = []
    owned: list[range] = []
    places: list[tuple[int, int]] = []
    for example in examples:
        own, found = lines(example, tree=tree)
        places += [(len(made) + line, token) for line, token in found]
        owned.append(range(len(made), len(made) + len(own)))
        made += own
    return Batch(tuple(made), tuple(owned), tuple(places))


def depths(parents: Sequence[int]) -> list[int]:
    """Return each token's distance from the root, its position in the text it stands for."""
    found: list[int] = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return found
