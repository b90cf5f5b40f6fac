"""The first tokens of each field: no more of them, no fewer, and no broken character."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate, over_windows
from foreword.injection import NOTHING
from foreword.methods.soft import Soft
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.score import Score
from foreword.tasks.templates.layout import field_texts
from foreword.training.settings import Training
from foreword.training.tune import tune
from toys import get, rows

TEXTS = ["the film was good and so it is fine", "unbelievably  odd,\tno?", "a"]


def first(backbone: Backbone, text: str, window: int | None) -> str:
    return field_texts(backbone, Row({"text": text}, "f:1"), ["text"], window)["text"]


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("text", TEXTS)
def test_exactly_the_first_tokens_are_kept(family: str, text: str) -> None:
    base = get(family)
    whole = base.text.ids(text)
    for window in range(1, len(whole) + 2):
        kept = first(base, text, window)
        assert text.startswith(kept)
        assert base.text.ids(kept) == whole[:window]
    assert first(base, text, None) == text


def bytes_alone() -> Text:
    """A tokenizer that has merged no bytes but those of one word: a sign takes up to four."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=262, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["größe größe"], trainer)
    return Text(PreTrainedTokenizerFast(tokenizer_object=made))


def test_characters_of_several_tokens_are_whole_or_absent() -> None:
    tokens, text = bytes_alone(), "größe 你好 🎬🎬 नमस्ते"
    whole = tokens.ids(text)
    assert len(whole) > len(text)
    for window in range(1, len(whole) + 1):
        kept = tokens.beginning(text, window)
        assert text.startswith(kept)
        ids = tokens.ids(kept)
        assert ids == whole[: len(ids)]
        assert len(ids) <= window < len(ids) + 4
        assert kept == text or len(tokens.ids(text[: len(kept) + 1])) > window


TASKS: dict[str, Task] = {
    "classify": Classify("{text_a} and {text_b} :", {"good": " good", "bad": " bad"}),
    "score": Score("{text_a} and {text_b} :", anchors={" 1": 1.0, " 2": 2.0}),
    "generate": Generate("{text_a} and {text_b} :"),
}


@pytest.mark.parametrize("name", TASKS)
def test_each_field_of_a_pair_has_its_own_and_the_template_all(name: str) -> None:
    long = {"text_a": "the film was good", "text_b": "and so it is fine"}
    base, task = get(), TASKS[name]
    short = {field: base.text.beginning(text, 2) for field, text in long.items()}
    assert "".join(short.values()) not in ("", "".join(long.values()))
    answer = {"label": 1 if name == "score" else "good", "completion": "yes"}
    windowed = type(task)(**{**vars(task), "input_window": 2}).bind(base)
    given, cut = (Row({**texts, **answer}, "f:1") for texts in (long, short))
    plain = task.bind(base)
    assert windowed.train_example(given, 200).example == plain.train_example(cut, 200).example
    assert windowed.dev_example(given, 200).example == plain.dev_example(cut, 200).example
    assert windowed.demonstration(given) == plain.demonstration(cut)
    assert windowed.predict([given], NOTHING) == plain.predict([cut], NOTHING)


def test_each_message_of_a_chat_has_its_own() -> None:
    def row(*said: str) -> Row:
        turns = zip(("user", "assistant", "user", "assistant"), said, strict=True)
        return Row({"messages": [{"role": r, "content": text} for r, text in turns]}, "f:1")

    base = get()
    windowed = Generate("{messages}", input_window=2).bind(base)
    plain = Generate("{messages}").bind(base)
    given = row("the film was good", "so it is", "and was it fine", "it was a good film")
    asked, _, again, _ = (base.text.beginning(m["content"], 2) for m in given.fields["messages"])
    cut = row(asked, "so it is", again, "it was a good film")  # what the assistant says is whole
    assert windowed.train_example(given, 200).example == plain.train_example(cut, 200).example


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_a_prompt_keeps_its_window_and_the_curve_ends_at_all(family: str, tmp_path: Any) -> None:
    base = get(family)
    mask = " [mask]" if base.architecture == "masked" else ""
    task = Classify(f"{{text}} :{mask}", {"good": " good", "bad": " bad"}, input_window=3)
    made = tune(
        base,
        task,
        Soft(length=2),
        rows(8),
        rows(4, 50),
        training=Training(epochs=1),
        out=tmp_path / "p.safetensors",
    )
    kept = type(made).load(tmp_path / "p.safetensors", base)
    assert vars(kept.task)["input_window"] == 3
    told = over_windows(kept, rows(12), [3, 50, None])
    assert (told.metric, told.rows) == ("accuracy", 12)
    within, beyond, whole = told.points
    assert [each.window for each in told.points] == [3, 50, None]
    assert within.scores.score == evaluate(kept, rows(12)).score
    assert dict(beyond.scores) == dict(whole.scores)
    plain = told.to_dict()
    assert plain["curve"][0] == {"window": 3, **within.scores.without_tables()}


def test_a_window_of_nothing_is_a_mistake() -> None:
    task = Classify("{text} :", {"good": " good", "bad": " bad"}, input_window=0)
    with pytest.raises(UserError, match="`input_window=0`: give 1 or more tokens"):
        task.bind(get()).train_example(rows(1)[0], 100)
