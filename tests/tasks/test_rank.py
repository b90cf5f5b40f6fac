"""Rankings: scores by hand, candidates of rows and of a catalogue, and learning to choose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import language
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.rank import Rank
from foreword.tasks.texts.ranker import CANDIDATES_AT_ONCE, Ranker, answer_from
from foreword.training.settings import Training
from foreword.training.tune import tune
from plain import twin
from quick import first
from toys import get

CANDIDATES = ["a good film", "bad", "it was a bad film", "a good"]
ROWS = [
    Row({"history": "it was", "candidates": CANDIDATES, "answer": "bad"}, "F:1"),
    Row({"history": ["a film", "and"], "candidates": CANDIDATES[:2], "answer": 0}, "F:2"),
    Row({"history": "bad", "candidates": CANDIDATES[1:], "answer": ["a good", "bad"]}, "F:3"),
]


def bound(name: str = "llama", **more: Any) -> Ranker:
    return Rank(**{"template": "{history} :", **more}).bind(get(name))


def by_hand(task: Ranker, row: Row) -> list[float]:
    """Each candidate's score from a pass of its own over the whole text."""
    base, found = task.backbone, []
    history = row.fields["history"]
    text = history if isinstance(history, str) else "\n".join(history)
    start = base.text.ids(f"{text} :")
    for candidate in row.fields["candidates"]:
        if base.architecture == "encoder-decoder":
            said = base.text.ids(candidate)
            labels = torch.tensor([said])
            logits = twin(base)(input_ids=torch.tensor([start]), labels=labels).logits[0]
        else:
            said = base.text.ids(f" {candidate}")
            whole = torch.tensor([[*start, *said]])
            logits = twin(base)(input_ids=whole).logits[0, len(start) - 1 : -1]
        each = logits.log_softmax(1)[range(len(said)), said]
        found.append(float(each.mean() if task.task.normalize == "mean" else each.sum()))
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_scores_are_those_of_whole_texts(name: str, normalize: str) -> None:
    task = bound(name, normalize=normalize)
    found = task.predict(ROWS, NOTHING)
    items = [task.train_example(row, 512) for row in ROWS]
    losses = {}
    for group, logits in infer(get(name), NOTHING, [item.example for item in items]):
        own = task.losses(logits, [items[i] for i in group])
        losses.update(zip(group, own.tolist(), strict=True))
    for number, (row, answer) in enumerate(zip(ROWS, found, strict=True)):
        expected = dict(zip(row.fields["candidates"], by_hand(task, row), strict=True))
        assert answer["ranking"] == sorted(expected, key=lambda text: -expected[text])
        assert answer["best"] == answer["ranking"][0]
        assert answer["scores"] == pytest.approx(
            [expected[text] for text in answer["ranking"]], abs=1e-4
        )
        scores = torch.tensor(list(expected.values()))
        right = sorted(task.candidates(row).right)
        chosen = scores.softmax(0)[right].sum()
        assert losses[number] == pytest.approx(-float(chosen.log()), abs=1e-4)


def test_scores_that_hardly_differ_are_ranked_alike_by_every_measure() -> None:
    task, row = bound(), ROWS[0]
    answer = answer_from(CANDIDATES, [-2.0, -1.0000001, -3.0, -1.0000003], False)
    assert task.is_right(row, answer["best"])
    assert task.score([row], [answer], 0)["hit_1"] == 100


def test_many_candidates_are_ranked_in_parts() -> None:
    many = [f"film {n}" for n in range(2 * CANDIDATES_AT_ONCE + 5)]
    row = Row({"history": "it was", "candidates": many, "answer": "film 3"}, "F:1")
    heard: list[int] = []
    task = bound()
    (found,) = task.predict([row], NOTHING, progress=heard.append)
    assert sum(heard) == 1
    assert sorted(found["ranking"]) == sorted(many)
    few = Row({"history": "it was", "candidates": many[60:66], "answer": "film 60"}, "F:1")
    (alone,) = task.predict([few], NOTHING)
    order = [text for text in found["ranking"] if text in many[60:66]]
    assert alone["ranking"] == order


def test_rows_of_a_mixture_are_ranked_as_alone() -> None:
    base, task = get(), bound()
    with torch.no_grad():
        parts = (NOTHING, Injection(embeds=5 * base.embed(range(20, 29)), leading=9))
        mixed = task.predict(ROWS, Mixture(parts, (1, 0, 1)))
        alone = [task.predict([r], parts[o])[0] for r, o in zip(ROWS, (1, 0, 1), strict=True)]
    for one, other in zip(mixed, alone, strict=True):
        assert one["ranking"] == other["ranking"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


# A catalogue ----------------------------------------------------------------------------------

PLAIN = [Row({"history": f"it was {n}", "answer": f"film {n % 7}"}, f"F:{n}") for n in range(1, 15)]


def test_a_catalogue_is_made_of_the_rows_answers() -> None:
    task = Rank(negatives=3).complete(PLAIN, get())
    assert task.template == "{history}\n"
    assert task.catalogue == tuple(f"film {n}" for n in range(7))
    made = task.bind(get())
    for row in PLAIN:
        listed = made.candidates(row)
        assert listed == made.candidates(Row(row.fields, "elsewhere"))
        assert len(listed.texts) == 4 == len(set(listed.texts))
        assert [listed.texts[n] for n in listed.right] == [row.fields["answer"]]
    places = [next(iter(made.candidates(row).right)) for row in PLAIN]
    assert len(set(places)) > 1  # the right one does not always stand at one place
    other = Rank(negatives=3, catalogue=task.catalogue, template="{history}", seed=1).bind(get())
    assert any(set(other.candidates(r).texts) != set(made.candidates(r).texts) for r in PLAIN)
    asked = made.candidates(Row({"history": "it was"}, "F:1"))
    assert (asked.texts, asked.right) == (task.catalogue, frozenset())
    assert made.predict([Row({"history": "it was"}, "F:1")], NOTHING)[0]["best"] in asked.texts


@pytest.mark.parametrize("answer", [1, 1.0, "1", "1.0", ["1"], "[1]"])
def test_an_index_is_read_as_tables_hold_it(answer: Any) -> None:
    row = Row({"history": "it was", "candidates": ["a good film", "bad"], "answer": answer})
    assert bound().gold_answer(row) == "bad"
    digits = Row({"history": "it was", "candidates": ["2", "0", "1"], "answer": "1"})
    assert bound().gold_answer(digits) == "1"


def test_rows_with_candidates_need_no_catalogue() -> None:
    assert Rank().complete(ROWS, get()).catalogue is None


# Learning -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "rate"),
    first(1, [(Soft(length=5, start="vocabulary"), 0.1), (Prefix(start="random"), 0.1)]),
)
def test_the_choice_is_learned(method: Any, rate: float) -> None:
    """No row says what is chosen: the colour opposite to the first, among six."""

    def rows(n: int, seed: int) -> list[Row]:
        return [
            Row(
                {
                    "history": row.fields["text"],
                    "candidates": language.COLOURS,
                    "answer": row.fields["label"],
                },
                row.where,
            )
            for row in language.rows(n, seed)
        ]

    base = language.taught("llama", 300)
    task = Rank(template="{history} :")
    before = task.bind(base)
    held = rows(60, 9)
    untouched = before.score(held, before.predict(held, NOTHING), 0)
    made = tune(
        base,
        task,
        method,
        rows(64, 1),
        rows(60, 2),
        training=Training(epochs=40, batch_size=16, rate=rate, patience=15),
    )
    found = before.score(held, made.answers(held), 0)
    assert untouched["hit_1"] < 40
    assert found["hit_1"] >= 90
    assert found["mrr"] >= 95


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"candidates": ["a"], "answer": "a"}, r"F:1: 1 candidate to choose from"),
        ({"candidates": ["a", "b", "a"], "answer": "a"}, "F:1: the candidate 'a' is there twice"),
        ({"candidates": ["a", "b"], "answer": "c"}, "F:1: the answer 'c' is not among the cand"),
        ({"candidates": ["a", "b"], "answer": 2}, "F:1: answer 2 is no index of 2 candidates"),
        ({"candidates": ["a", "b"]}, "F:1: missing field 'answer'"),
        ({"candidates": ["a", " "], "answer": "a"}, 'F:1: field "candidates" is a list, expected'),
        ({"candidates": "a", "answer": "a"}, 'F:1: field "candidates" is text, expected a list'),
        ({"candidates": 7, "answer": "a"}, 'F:1: field "candidates" is a number, expected a list'),
        ({"candidates": ["a", "b"], "answer": "2"}, "F:1: answer 2 is no index of 2 candidates"),
        ({"candidates": ["a", "b"], "answer": 0.5}, "F:1: the answer 0.5 is not among the cand"),
        ({"candidates": ["a", "b"], "answer": True}, "F:1: the answer True is not among the cand"),
        ({"answer": "a"}, "F:1: missing field 'candidates'"),
        ({"history": "", "candidates": ["a", "b"], "answer": "a"}, 'field "history" is empty'),
        ({"history": [], "candidates": ["a", "b"], "answer": "a"}, 'field "history" is empty'),
        ({"history": [1], "candidates": ["a", "b"], "answer": "a"}, 'field "history" is a list'),
    ],
)
def test_bad_rows_are_named(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound().check([Row({"history": "it was", **fields}, "F:1")], answers=True)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match="is a masked model, which has no likelihood"):
        bound("bert")
    with pytest.raises(UserError, match="`negatives=0`"):
        bound(negatives=0)
    with pytest.raises(UserError, match="no classes for a head"):
        bound().with_head()
    with pytest.raises(UserError, match="F:1: no field 'history'; say how a row reads"):
        Rank().complete([Row({"text": "x"}, "F:1")], get())
    one = Rank(template="{history}", catalogue=("a",)).bind(get())
    with pytest.raises(UserError, match="the catalogue has nothing but its answer"):
        one.check([Row({"history": "x", "answer": "a"}, "F:1")], answers=True)


def test_a_history_is_cut_so_that_the_longest_candidate_fits() -> None:
    task = bound()
    row = Row({"history": "it was " * 60, "candidates": ["a", "a film " * 12], "answer": 0}, "F:1")
    room = 80
    example = task.dev_example(row, room).example
    assert len(example.ids) > 20
    assert len(example.ids) + max(map(len, example.branches)) <= room
