"""Explanations against what is known: in a model made by hand, who carries the answer is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from handmade import LAYERS, ROWS, TASK, backbone, bound, prefix, prompt, soft, word

from foreword.backbone.decode import Decoding, decode
from foreword.data.row import Row
from foreword.explanation.ablation import importance
from foreword.explanation.attribution import attribute
from foreword.explanation.explain import explain
from foreword.explanation.explanation import Contribution, Measured
from foreword.explanation.heads import attention_on_prompt
from foreword.explanation.inspect_states import inspect, patched
from foreword.explanation.judge import Judge
from foreword.explanation.lens import probabilities_by_layer
from foreword.injection import Injection
from foreword.reporter import SILENT


def without(injection: Injection) -> tuple[Measured, dict[str, Measured]]:
    judge = Judge.of(bound(), ROWS, injection)
    found, _ = importance(judge, Judge.of(bound().zero_shot(), ROWS), SILENT)
    assert found is not None
    pieces = [*found.tokens, *found.layers, *found.sides]
    return found.prompt, {each.name: each for each in pieces}


def test_the_virtual_token_that_carries_the_answer_is_found() -> None:
    whole, pieces = without(soft(place=2))
    assert whole.score == 100
    losses = {name: each.loss for name, each in pieces.items() if name.startswith("token")}
    assert max(losses, key=losses.__getitem__) == "token 2"
    assert losses["token 2"] == pytest.approx(0.6931, abs=1e-4)  # neither word was read
    assert all(loss <= whole.loss + 1e-6 for name, loss in losses.items() if name != "token 2")


def test_the_layer_and_the_position_that_carry_the_answer_are_found() -> None:
    whole, pieces = without(prefix(layer=1, place=3))
    nothing = pytest.approx(0.6931, abs=1e-4)
    assert all(pieces[name].loss == nothing for name in ("layer 1", "position 3", "keys only"))
    rest = [f"position {n}" for n in range(3)] + ["layer 0", "layer 2", "values only"]
    assert all(pieces[name].loss < 0.2 for name in rest)
    assert pieces["values only"].loss == pytest.approx(whole.loss, abs=1e-6)  # keys were even


def test_keys_alone_carry_the_answer_where_values_are_alike() -> None:
    """Two values, "good" and "bad", and a key of the first that every query prefers."""
    injection = prefix(layer=0, place=0, length=2)
    site = next(iter(injection.kv))
    values = torch.stack([word("good", 3.0), word("bad", 3.0)])[None]
    injection = replace(injection, kv={site: replace(injection.kv[site], values=values)})
    whole, pieces = without(injection)
    assert pieces["values only"].loss == whole.loss == pytest.approx(0.6931, abs=1e-4)
    assert pieces["position 1"].loss < 0.5 < pieces["position 0"].loss


def test_the_input_token_that_carries_the_answer_is_found() -> None:
    row = Row({"text": "the film was good it"}, "row")
    found = attribute(bound(), row, Injection(), SILENT)
    assert found.answer == "good"
    assert max(found.tokens, key=lambda each: each.value).token == "good"
    assert [each.token for each in found.tokens] == ["the", "film", "was", "good", "it", ":"]


@pytest.mark.parametrize("injection", [soft(place=1), prefix(layer=2, place=1)])
def test_the_virtual_token_that_carries_the_answer_is_attributed(injection: Injection) -> None:
    found = attribute(bound(), ROWS[0], injection, SILENT)
    most = max([*found.tokens, *found.virtual], key=lambda each: each.value)
    assert most.token.split()[1] == "1"
    assert most.value > 0.4
    others = [each.value for each in found.virtual if each != most]
    assert all(abs(value) < most.value / 4 for value in others)


def test_the_layer_from_which_on_the_answer_is_there_is_seen() -> None:
    found = probabilities_by_layer(bound(), ROWS[0], prefix(layer=1, place=0))
    assert found.labels == ("good", "bad")
    first, second, last = (row[0] for row in found.prompt)
    assert first == pytest.approx(0.5, abs=1e-6)
    assert min(second, last) > 0.9
    assert [row[0] for row in found.untouched] == pytest.approx([0.5] * LAYERS, abs=1e-6)


@pytest.mark.parametrize("injection", [soft(place=1), prefix(layer=2, place=1)])
def test_attention_in_equal_shares_is_measured_so(injection: Injection) -> None:
    """Token t of a row sees the 4 of the prompt, and t + 1 of its own."""
    shares = [4 / (4 + t) for row in ROWS for t in range(1, len(row.fields["text"].split()) + 2)]
    found = attention_on_prompt(Judge.of(bound(), ROWS, injection), SILENT)
    assert [each.name for each in found] == [f"layer {n}" for n in range(LAYERS)]
    for each in found:
        assert each.heads == pytest.approx([sum(shares) / len(shares)], abs=1e-6)


def test_inspecting_recovers_the_word_that_a_prompt_is_made_of() -> None:
    made_of = Injection(embeds=torch.stack([word("bad", 4.0)] * 3), leading=3)
    found = list(inspect(backbone(), made_of, 1, 0))
    assert {each.source for each in found} >= {"layer 0 put into layer 0"}
    assert all(each.text.split()[0] == "bad" for each in found)
    for layer in (0, 1, 2):
        ids, under = patched(backbone(), word("good", 4.0)[None], layer)
        (text,) = decode(backbone(), [ids], under, Decoding(max_new_tokens=1))
        assert text.strip() == "good"


@pytest.mark.slow
def test_words_that_do_what_the_prompt_does_recover_its_gain() -> None:
    rows = [Row({**r.fields, "label": "bad"}, f"row {n}") for n, r in enumerate(ROWS * 3)]
    words = explain(prompt(soft(place=0, name="bad")), rows, parts=["words"], report=SILENT).words
    assert words is not None
    assert words.prompt.score == 100
    assert [each.kind for each in words.texts[-3:]] == ["nearest", "control", "control"]
    assert words.texts[-3].text == "bad the the the"
    assert words.best is not None
    assert "bad" in words.best.text.split()
    assert words.best.gain is not None
    assert words.best.gain == pytest.approx(1, abs=0.01)
    assert words.texts[-3].gain == pytest.approx(1, abs=0.01)  # the very words
    assert words.texts[-1].gain == pytest.approx(0, abs=0.01)  # of words that say neither


def test_what_cannot_be_shown_is_left_out_with_the_reason() -> None:
    found = explain(prompt(prefix(0, 0)), ROWS, report=SILENT)
    assert found.left_out == {
        "words: inspect": "keys and values have no hidden states that could be put elsewhere",
        "words: searched": "there are too few rows; give 12 or more",
        "words: nearest": "keys and values are no embeddings, to which tokens could be near",
    }
    alone = explain(prompt(soft(0)), text="the film", report=SILENT)
    assert set(alone.left_out) == {"importance", "attention", "words"}
    assert alone.attribution is not None
    assert alone.attribution.virtual[0] == max(
        alone.attribution.virtual, key=lambda each: each.value
    )
    assert isinstance(alone.attribution.tokens[0], Contribution)


def test_virtual_tokens_inside_a_template_are_found_too() -> None:
    task = replace(TASK, template="the [soft:3] {text} :")
    injection = replace(soft(place=1, length=3), leading=0)
    own = bound(task)
    found, left_out = importance(
        Judge.of(own, ROWS, injection), Judge.of(own.zero_shot(), ROWS), SILENT
    )
    assert found is not None
    assert max(found.tokens, key=lambda each: each.loss).name == "token 1"
    assert found.layers == ()
    assert "importance: layers" in left_out
