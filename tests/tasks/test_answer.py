"""Questions about passages: windows, the likeliest answer, and rows that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.answer import Answer
from foreword.tasks.gold import answers_of
from foreword.tasks.texts.generator import Generator
from foreword.tasks.texts.windows import windows
from quick import first
from toys import get

LONG = " ".join(["it was a film"] * 12 + ["bad 0123"] + ["and a film"] * 12)
WRITING = Decoding(max_new_tokens=4)


def bound(name: str = "llama", **more: Any) -> Generator:
    task = Answer(template="{context} ? {question} :", **{"decoding": WRITING, **more})
    return task.bind(get(name))


def row(context: str, *answers: str) -> Row:
    return Row({"context": context, "question": "a film", "answers": list(answers)}, "F:1")


# Windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", first(1, [7, 1, 3]))
def test_windows_overlap_and_lose_nothing(stride: int) -> None:
    text = get().text
    ids = text.ids(LONG)
    size = 7
    found = [text.ids(part) for part in windows(text, LONG, size, stride)]
    assert [text.decode(ids[n * stride : n * stride + size]) for n in range(len(found))] == windows(
        text, LONG, size, stride
    )
    assert found[-1][-1] == ids[-1]
    parts = windows(text, LONG, size, stride)
    for start in range(len(ids) - (size - stride) + 1):
        run = text.decode(ids[start : start + size - stride]).strip()
        assert any(run in part for part in parts)


def test_a_text_that_fits_is_its_own_window() -> None:
    size = len(get().text.ids(LONG))
    assert windows(get().text, LONG, size, 3) == [LONG]
    assert len(windows(get().text, LONG, size - 1, 3)) == 2


def test_what_is_learned_is_the_first_window_with_an_answer() -> None:
    task = bound(max_length=60, stride=10, decoding=Decoding(max_new_tokens=12))
    parts = task.windows(row(LONG, "bad 0123"), 512)
    holding = [part for part in parts if "bad 0123" in part.fields["context"]]
    assert 1 < len(holding) < len(parts)
    item = task.train_example(row(LONG, "nowhere", "bad 0123"), 512)
    shown = get().text.decode(list(item.example.ids))
    assert shown == f"{holding[0].fields['context']} ? a film :"
    assert len(item.example.ids) <= 60
    assert not item.truncated
    assert item.windows == len(parts)
    assert list(item.example.answers) == [*get().text.ids(" bad 0123"), 1]


def test_a_short_passage_is_read_whole() -> None:
    short = row("it was bad", "bad")
    assert bound().windows(short, 512) == [short]
    item = bound().train_example(short, 512)
    assert get().text.decode(list(item.example.ids)) == "it was bad ? a film :"
    assert not item.truncated


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_likeliest_answer_of_all_windows_is_given(name: str) -> None:
    task, base = bound(name, max_length=60, stride=20), get(name)
    rows = [row(LONG, "bad"), row("it was bad", "bad"), row(LONG[40:], "bad")]
    heard: list[int] = []
    found = task.predict(rows, NOTHING, progress=heard.append)
    assert sum(heard) == 3
    assert [answer["windows"] > 1 for answer in found] == [True, False, True]
    assert task.score(rows, found, 0)["windowed"] == 2
    for one, answer in zip(rows, found, strict=True):
        parts = task.windows(one, 512)
        assert len(parts) > 1 or one is rows[1]
        best, chance = "", -float("inf")
        for part in parts:
            alone = bound(name, max_length=512).predict([part], NOTHING)[0]["text"]
            if not alone:
                continue
            said = Row({**part.fields, "answers": [alone]}, "F:1")
            item = bound(name, max_length=512).train_example(said, 512)
            ((_, logits),) = infer(base, NOTHING, [item.example])
            mean, weight = task.dev_counts(logits, [item])
            if mean / weight > chance:
                best, chance = alone, mean / weight
        assert answer["text"] == best


def test_a_question_that_leaves_no_room_is_named() -> None:
    with pytest.raises(UserError, match=r"F:1: the rest of the row leaves .* raise `max_length`"):
        bound(max_length=16).train_example(row(LONG, "bad"), 512)


# Rows -----------------------------------------------------------------------------------------


def test_answers_may_be_written_in_three_ways() -> None:
    for given in (["bad", "film"], {"text": ["bad", "film"], "answer_start": [7, 0]}):
        assert answers_of(Row({"answers": given}, "F:1")) == ["bad", "film"]
    assert answers_of(Row({"answers": "bad"}, "F:1")) == ["bad"]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"context": " ", "answers": ["bad"]}, 'F:1: field "context" is empty'),
        ({"context": "it was bad", "answers": ["good"]}, "F:1: the answer 'good' is not in the"),
        ({"context": "it was bad", "answers": []}, 'F:1: field "answers" is empty'),
        ({"context": "it was bad", "answers": [" "]}, 'F:1: field "answers" is empty'),
        ({"context": "it was bad", "answers": [7]}, 'F:1: field "answers" is a list, expected'),
        ({"context": "it was bad", "answers": [7]}, "it holds a number; write that as text"),
        (
            {"context": "it was bad", "answers": None},
            'F:1: field "answers" is null, expected a list of texts',
        ),
        (
            {"context": "it was bad", "answer": "bad"},
            "F:1: missing field 'answers'; did you mean 'answer'",
        ),
        ({"context": "it was bad", "answers": ["bad"], "question": ""}, 'field "question" is'),
        ({"answers": ["bad"]}, "F:1: no field 'context'"),
    ],
)
def test_bad_rows_are_named(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound().check([Row({"question": "a film", **fields}, "F:1")], answers=True)


def test_questions_alone_may_be_asked() -> None:
    asked = Row({"context": "it was bad", "question": "a film"}, "F:1")
    bound().check([asked], answers=False)
    assert bound().predict([asked], NOTHING)[0].keys() == {"text", "cut", "windows"}


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match="`stride=0`"):
        bound(stride=0)
    with pytest.raises(UserError, match=r"has no \{context\}"):
        Answer(template="{question}:").bind(get())
    with pytest.raises(UserError, match="is a masked model"):
        bound("bert")
    completed = Answer().complete([row("a", "a")], get())
    assert completed.template == "{context}\nQuestion: {question}\nAnswer:"


def test_scores_are_over_all_answers() -> None:
    rows = [row("it was bad", "bad", "was bad"), row("a good film", "good")]
    found = bound().score(rows, [{"text": "was bad."}, {"text": "the film"}], seed=0)
    assert (found["exact_match"], found["f1"], bound().headline) == (50.0, 50.0, "f1")
