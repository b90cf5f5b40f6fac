"""Examples as sequences: shared beginnings, trees of branches and where their targets stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreword.backbone.example import Example, common_lead, depths, lines

TOKENS = st.lists(st.integers(0, 2), max_size=4).map(tuple)  # few tokens: beginnings coincide


@st.composite
def examples(draw: st.DrawFn, *, tail: bool) -> Example:
    ids = draw(TOKENS.filter(len))
    slot = draw(st.integers(1, len(ids))) if tail else len(ids)
    branches = tuple(draw(st.lists(TOKENS, min_size=1, max_size=5)))
    places = [(b, j) for b, branch in enumerate(branches) for j in range(-1, len(branch))]
    return Example(ids, slot, branches, tuple(draw(st.lists(st.sampled_from(places), max_size=8))))


def read(parents: tuple[int, ...], tokens: tuple[int, ...], place: int) -> tuple[int, ...]:
    """The text that a token of a tree ends: itself and its ancestors, from the root."""
    path: list[int] = []
    while place >= 0:
        path.append(tokens[place])
        place = parents[place]
    return tuple(reversed(path))


@given(st.lists(TOKENS.filter(len), max_size=4))
def test_common_lead_is_the_longest_beginning_that_leaves_each_row_a_token(
    rows: list[tuple[int, ...]],
) -> None:
    lead = common_lead(Example(row, len(row), ((),), ()) for row in rows)
    size = len(lead)
    assert all(row[:size] == lead and len(row) > size for row in rows)
    if rows:
        exhausted = min(map(len, rows)) == size + 1
        assert exhausted or len({row[size] for row in rows}) > 1


@given(examples(tail=True))
def test_without_a_tree_each_branch_is_a_line_of_its_own(example: Example) -> None:
    made, places = lines(example, tree=False)
    head, tail = example.ids[: example.slot], example.ids[example.slot :]
    assert [line.tokens for line in made] == [(*head, *b, *tail) for b in example.branches]
    assert all(line.parents is None for line in made)
    assert len(places) == len(example.targets)
    for (branch, j), (line, token) in zip(example.targets, places, strict=True):
        assert line == branch
        assert made[line].tokens[: token + 1] == (*head, *example.branches[branch][: j + 1])


@given(examples(tail=False))
def test_a_tree_spells_every_branch_and_runs_each_beginning_once(example: Example) -> None:
    made, places = lines(example, tree=True)
    (line,) = made
    parents = line.parents if line.parents is not None else tuple(range(-1, len(line.tokens) - 1))
    assert all(parent < token for token, parent in enumerate(parents))
    beginnings = {b[:n] for b in example.branches for n in range(1, len(b) + 1)}
    assert len(line.tokens) == len(example.ids) + len(beginnings)
    assert len(places) == len(example.targets)
    for (branch, j), (number, token) in zip(example.targets, places, strict=True):
        spelled = (*example.ids, *example.branches[branch][: j + 1])
        assert number == 0
        assert read(parents, line.tokens, token) == spelled
        assert depths(parents)[token] == len(spelled) - 1


@given(st.lists(st.integers(0, 100), max_size=12))
def test_depths_count_the_steps_to_the_root(choices: list[int]) -> None:
    parents = tuple(choice % (token + 1) - 1 for token, choice in enumerate(choices))
    tokens = tuple(range(len(parents)))
    assert depths(parents) == [len(read(parents, tokens, token)) - 1 for token in tokens]


@given(examples(tail=True), st.integers(0, 4))
def test_after_drops_the_lead_and_keeps_the_rest(example: Example, lead: int) -> None:
    lead = min(lead, example.slot)
    rest = example.after(lead)
    assert rest.ids == example.ids[lead:]
    assert rest.ids[: rest.slot] == example.ids[lead : example.slot]
    assert (rest.branches, rest.targets) == (example.branches, example.targets)
    assert rest.length == example.length - lead
