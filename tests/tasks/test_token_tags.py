"""Tags on encoders, by the states of words: against plain transformers models, and learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import foreword as fw
from families import ENCODERS, backbone
from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.reporter import SILENT
from foreword.tasks.labels.token_tags import TokenTagger
from foreword.tasks.states import states_of_rows
from plain import twin

ROWS = [
    fw.Row({"tokens": ["a", "good", "film"], "tags": ["D", "J", "N"]}, "F:1"),
    fw.Row({"tokens": ["it", "was", "bad", "."], "tags": ["P", "V", "J", "X"]}, "F:2"),
    fw.Row({"tokens": "a bad film", "tags": "D J N"}, "F:3"),
]


def get(name: str = "bert-encoder") -> Backbone:
    return backbone(next(family for family in ENCODERS if family.name == name))


def bound(base: Backbone, **more: Any) -> TokenTagger:
    made = fw.Tag(**more).complete(ROWS, base).bind(base)
    assert type(made) is TokenTagger
    return made


@pytest.mark.parametrize("name", ["bert-encoder", "qwen3-encoder"])
def test_a_word_is_read_off_its_last_token(name: str) -> None:
    base = get(name)
    task = bound(base, template="film: {tokens}.")
    _, found = states_of_rows(task.with_head(), ROWS, NOTHING)
    for row, states in zip(ROWS, found, strict=True):
        words = row.fields["tokens"]
        words = words.split() if isinstance(words, str) else words
        ids = base.text.ids("film:")
        ends = []
        for word in words:  # the tokenizer of the tests reads word by word
            ids += base.text.ids(f" {word}")
            ends.append(len(ids) - 1)
        whole = base.text.ids("film: " + " ".join(words) + ".")
        with torch.no_grad():
            expected = twin(base)(torch.tensor([whole])).last_hidden_state[0]
        if words[-1] == ".":  # which follows its word at once
            continue
        torch.testing.assert_close(states, expected[ends], rtol=1e-4, atol=1e-5)


def test_a_head_that_begins_as_a_regression_tags_the_rows_it_was_fitted_to() -> None:
    base = get()
    task = bound(base)
    head = fw.Head(head_start="logistic").build(task, ROWS, 0)()
    found = [each["tags"] for each in task.with_head().predict(ROWS, head)]
    assert found[0] == ["D", "J", "N"]
    assert sum(map(len, found)) == 10


def test_a_prompt_with_a_head_is_tuned_and_kept(tmp_path: Path) -> None:
    base = get()
    prompt = fw.tune(
        base, "tag", "prefix+head", ROWS, ROWS, start="zero", length=2, epochs=1, report=SILENT
    )
    again = fw.Prompt.load(prompt.save(tmp_path / "p.safetensors"), base)
    texts = ["a film", "it was good"]
    assert again.predict(texts) == prompt.predict(texts)
    assert [len(tags) for tags in prompt.predict(texts)] == [2, 3]
    assert len(prompt.bound.zero_shot().predict(ROWS, NOTHING)[1]["tags"]) == 4  # by names
    with pytest.raises(UserError, match="its head takes no further tag"):
        prompt.add_label("Z", rows=ROWS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"word_template": "{word}:"}, "`word_template`: bert-encoder is an encoder"),
        ({"template": "{tokens} {tokens}"}, r"reads the words themselves, in {tokens} with plain"),
        ({"template": "[soft:2]{tokens}"}, r"reads the words themselves, in {tokens} with plain"),
        ({"max_length": 2}, "F:1: too long for 2 tokens; part the row in two"),
    ],
)
def test_what_cannot_be_read_is_one_line(settings: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        bound(get(), **settings).predict(ROWS, NOTHING)
    with pytest.raises(UserError, match=said):
        bound(get(), **settings).check(ROWS, answers=True)
    with pytest.raises(UserError, match="an encoder, which reads no text before a row"):
        bound(get()).predict(ROWS, NOTHING, before="a film")


def test_a_tokenizer_that_tells_no_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = get()
    monkeypatch.setattr(type(base.text.tokenizer), "is_fast", False)
    with pytest.raises(UserError, match="does not tell where a token stands; save the folder"):
        bound(base).predict(ROWS, NOTHING)
