"""Starts, soft prompts and prefixes: where they begin, and what they refuse."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from chat_templates import chat_backbone
from families import CAUSAL, MASKED, SEQ2SEQ, backbone, by_mechanism, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.methods.base import Method
from foreword.methods.head import Head
from foreword.methods.ia3 import IA3
from foreword.methods.parts.prefixes import PrefixKV, Reparameterized
from foreword.methods.parts.starts import start_ids
from foreword.methods.prefix import Prefix
from foreword.methods.registry import METHODS, name_of
from foreword.methods.soft import Soft
from foreword.reporter import SILENT
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.templates.demonstrations import choose_demonstrations, labels_not_shown
from foreword.training.prepare import prepare
from foreword.training.settings import Training

FAMILIES = {f.name: f for f in [*CAUSAL, MASKED[0], *SEQ2SEQ]}
LABELS = {"good": " good", "bad": (" bad", " a bad film"), "fine": " good film"}
ROWS = [
    Row({"text": f"film {n}", "label": label, "completion": "it was"}, f"F:{n}")
    for n, label in enumerate(["good"] * 6 + ["bad"] * 2 + ["fine"])
]


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def bound(name: str = "llama", template: str = "{text}\nMood:") -> Classifier:
    return Classify(template=template, labels=LABELS).bind(get(name))


def ids(text: str) -> list[int]:
    return get("llama").text.ids(text)


def start(kind: str, length: int | None = None, **more: Any) -> list[int]:
    given = {"text": None, "shots": 4, "seed": 0, "task": bound(), "rows": ROWS, **more}
    return start_ids(kind, length=length, **given)[0]


# Starts ---------------------------------------------------------------------------------------


def test_vocabulary_draws_plain_tokens() -> None:
    found = start("vocabulary", 500)
    assert len(found) == 500
    assert not {0, 1, 2} & set(found)
    assert max(found) < min(get("llama").vocabulary, len(tokenizer()))
    assert found == start("vocabulary", 500) != start("vocabulary", 500, seed=1)
    assert len(start("vocabulary")) == 20


def test_text_is_what_is_given_or_the_tasks_own_description() -> None:
    assert start("text", text="it was good") == ids("it was good")
    assert start("text") == ids(bound().instruction())
    assert "good, bad or good film" in bound().instruction()


def test_labels_are_the_words_of_all_labels() -> None:
    assert start("labels") == ids(" good bad a bad film good film")
    with pytest.raises(UserError, match=r"'labels' needs a task with labels"):
        start("labels", task=Generate(template="{text}").bind(get("llama")))


def test_a_length_keeps_the_end_of_the_text_repeated() -> None:
    words = ids("it was good")
    assert start("text", 2, text="it was good") == words[-2:]
    size = 2 * len(words) + 1
    assert start("text", size, text="it was good") == (words * 3)[-size:]


@pytest.mark.parametrize("length", [1, 2, 4, 5, 6, 13, None])
def test_the_first_token_stands_in_front_of_a_start_alone(length: int | None) -> None:
    """However often the text is repeated or cut, as long as a token of it is left."""
    base = chat_backbone("llama3")
    task, words = bound().changed(backbone=base), base.text.ids("it was good")
    found = start("text", length, text="it was good", task=task)
    bos, size = base.text.around[0], length or len(words) + 1
    if size > 1:
        assert found[:1] == list(bos)
        assert found[1:] == (words * 9)[-size + 1 :]
    else:
        assert found == words[-1:]


def test_demonstrations_are_rows_with_their_answers_from_every_class() -> None:
    text = get("llama").text.decode(start("demonstrations", shots=3))
    shown = text.split("\n\n")
    assert shown[-1] == ""
    assert sorted(one.split("\nMood: ")[1] for one in shown[:-1]) == ["bad", "good", "good film"]
    for one in shown[:-1]:
        film, word = one.split("\nMood: ")
        label = next(name for name, words in LABELS.items() if f" {word}" in words)
        assert {"text": film, "label": label}.items() <= ROWS[int(film.split()[1])].fields.items()


def test_classes_take_turns_until_they_run_out() -> None:
    labels = [row.fields["label"] for row in choose_demonstrations(bound(), ROWS, 6, 0)]
    assert sorted(labels) == ["bad", "bad", "fine", "good", "good", "good"]
    every = choose_demonstrations(bound(), ROWS, 9, 0)
    assert sorted(row.where for row in every) == sorted(row.where for row in ROWS)
    seeds = {tuple(r.where for r in choose_demonstrations(bound(), ROWS, 3, s)) for s in range(5)}
    assert len(seeds) > 1


def many_labels(count: int, words: int = 1) -> tuple[Any, list[Row]]:
    """A task of several labels, and two rows of each."""
    labels = {f"l{n}": f" {'it ' * n}good" for n in range(count)}
    task = Classify(template="{text} :", labels=labels)
    made = [Row({"text": "film " * words + str(n), "label": f"l{n % count}"}, f"F:{n}")
            for n in range(2 * count)]  # fmt: skip
    return task.bind(backbone(FAMILIES["llama"])), made


@pytest.mark.parametrize(
    ("count", "words", "shown", "missing"),
    [(3, 1, 4, 0), (6, 1, 6, 0), (6, 100, 4, 2), (9, 1, 9, 0)],
)
def test_a_start_shows_each_label_once_if_that_is_short(
    count: int, words: int, shown: int, missing: int
) -> None:
    task, data = many_labels(count, words)
    chosen = choose_demonstrations(task, data, None, 0)
    assert len(chosen) == shown
    assert len({row.fields["label"] for row in chosen}) == min(count, shown)
    notes = labels_not_shown(task, data, chosen)
    assert len(notes) == bool(missing)
    assert Prefix().build(task, data, 0).notes == notes


def test_a_start_that_is_asked_for_says_what_it_leaves_out() -> None:
    task, data = many_labels(6)
    assert Prefix(shots=4).build(task, data, 0).notes == [
        "the start's 4 demonstrations show 4 of the 6 labels, 2 are not shown; `shots=6` shows "
        "each once"
    ]
    assert list(Prefix(shots=6).build(task, data, 0).notes) == []
    assert list(Prefix(start="text").build(task, data, 0).notes) == []


@pytest.mark.parametrize("shots", [0, -1, 10])
def test_too_many_or_no_demonstrations_are_refused(shots: int) -> None:
    with pytest.raises(UserError, match=f"{shots} demonstrations asked for, and there are 9 rows"):
        choose_demonstrations(bound(), ROWS, shots, 0)


def test_text_starts_with_the_tokenizers_first_tokens() -> None:
    base = backbone(FAMILIES["llama"])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(
        single="<mask> $A", special_tokens=[("<mask>", 2)]
    )
    base.text = Text(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    task = Classify(template="{text}", labels=LABELS).bind(base)
    assert start("text", text="it was", task=task) == [2, *ids("it was")]
    with pytest.raises(UserError, match=r"the text is empty"):
        start("text", text="", task=task)


@pytest.mark.parametrize("method", [Soft, Prefix])
def test_wrong_starts_are_refused(method: type[Soft] | type[Prefix]) -> None:
    with pytest.raises(UserError, match=r"unknown start 'demos'"):
        method(start="demos").build(bound(), ROWS, 0)
    with pytest.raises(UserError, match=r"a starting text is given but the start is 'labels'"):
        method(start="labels", start_text="x").build(bound(), ROWS, 0)
    with pytest.raises(UserError, match=r"the text is empty"):
        method(start="text", start_text="éé").build(bound(), ROWS, 0)


# Soft prompts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vocabulary", "text", "labels", "demonstrations"])
def test_a_soft_prompt_starts_as_the_embeddings_of_real_tokens(kind: str) -> None:
    made = Soft(length=7, start=kind).build(bound(), ROWS, 3)()
    expected = get("llama").embed(start(kind, 7, seed=3))
    assert made.embeds is not None
    assert torch.equal(made.embeds, expected)
    assert (made.leading, made.positions, dict(made.kv)) == (7, 0, {})


def test_a_random_soft_prompt_has_the_spread_of_the_vocabulary() -> None:
    made = Soft(length=400, start="random").build(bound(), ROWS, 0)
    spread = get("llama").model.get_input_embeddings().weight.std()
    assert float(made.embeds.detach().std() / spread) == pytest.approx(1, rel=0.05)
    assert not torch.equal(
        made.embeds, Soft(length=400, start="random").build(bound(), ROWS, 1).embeds
    )


def test_a_soft_prompt_in_the_template_starts_from_its_own_text() -> None:
    task = bound(template='[soft:"it was"]{text}[soft:2]:')
    made = Soft(start="labels").build(task, ROWS, 0)
    size = len(ids("it was"))
    assert made.leading == 0
    assert len(made.embeds) == size + 2 == task.virtual
    assert torch.equal(made.embeds[:size], get("llama").embed(ids("it was")))
    assert torch.equal(made.embeds[size:], get("llama").embed(start("labels", 2, task=task)))
    with_length = Soft(length=size + 2, start="labels").build(task, ROWS, 0)
    assert torch.equal(with_length.embeds, made.embeds)


def test_a_soft_prompt_of_text_in_the_template_scores_as_the_text() -> None:
    soft = bound(template='film[soft:" it was"] {text}\nMood:')
    text = bound(template="film it was {text}\nMood:")
    injection = Soft().build(soft, ROWS, 0)()
    found = soft.predict(ROWS[:3], injection.map(torch.Tensor.detach))
    expected = text.predict(ROWS[:3], NOTHING)
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-4)


def test_lengths_that_do_not_fit_are_refused() -> None:
    longest = get("llama").longest
    for length in (0, -1, longest):
        with pytest.raises(UserError, match=f"^{length} virtual tokens; give from 1 to"):
            Soft(length=length).build(bound(), ROWS, 0)
    with pytest.raises(UserError, match=r"`length=4`, but the template places 5 virtual tokens"):
        Soft(length=4).build(bound(template="[soft:2]{text}[soft:3]:"), ROWS, 0)
    with pytest.raises(UserError, match=r"999999 virtual tokens; give from 1 to"):
        Soft().build(bound(template="[soft:999999]{text}"), ROWS, 0)


# Prefixes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism([f.name for f in CAUSAL]))
def test_a_prefix_of_demonstrations_begins_as_the_demonstrations_in_front(name: str) -> None:
    task = bound(name)
    shown = "".join(map(task.demonstration, choose_demonstrations(task, ROWS, 3, 0)))
    injection = Prefix(shots=3).build(task, ROWS, 0)()
    plainly = bound(name, shown + "{text}\nMood:")
    for row in ROWS[:3]:
        ((_, found),) = infer(get(name), injection, [task.dev_example(row, 400).example])
        ((_, expected),) = infer(get(name), NOTHING, [plainly.dev_example(row, 400).example])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert injection.positions == len(ids(shown))


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "bart"])
def test_a_prefix_stands_in_every_attention_from_its_first_layer_up(name: str) -> None:
    base = get(name)
    task = bound(name, "{text} [mask]" if name == "bert" else "{text}:")
    for first in range(3):
        made = Prefix(length=4, start="text", first_layer=first).build(task, ROWS, 0)()
        assert set(made.kv) == {n for n, s in base.sites.items() if s.layer >= first}
        assert {s.role for n, s in base.sites.items() if n in made.kv} == {
            s.role for s in base.sites.values()
        }
        assert all(kv.keys.shape[1] == kv.values.shape[1] == 4 for kv in made.kv.values())
        assert made.positions == (4 if name == "llama" else 0)


def test_a_random_prefix_has_the_spread_of_what_the_model_reads() -> None:
    made = Prefix(length=200, start="random").build(bound(), ROWS, 0)()
    like = get("llama").kv(ids(bound().instruction()))
    for site, kv in made.kv.items():
        assert float(kv.keys.detach().std() / like[site].keys.std()) == pytest.approx(1, rel=0.1)
        assert float(kv.values.detach().std() / like[site].values.std()) == pytest.approx(
            1, rel=0.1
        )
    assert (
        len(next(iter(Prefix(start="random").build(bound(), ROWS, 0)().kv.values())).keys[0]) == 20
    )


def test_each_channel_of_a_random_prefix_has_the_mean_of_what_the_model_reads() -> None:
    made = Prefix(length=400, start="random").build(bound(), ROWS, 0)()
    like = get("llama").kv(ids(bound().instruction()))
    for site, kv in made.kv.items():
        for ours, theirs in ((kv.keys, like[site].keys), (kv.values, like[site].values)):
            spread, mean = torch.std_mean(theirs, 1, correction=0)
            within = 5 * spread / 400**0.5 + 1e-6
            assert bool(((ours.detach().mean(1) - mean).abs() <= within).all())


def test_a_reparameterized_prefix_begins_as_the_plain_one_and_moves_through_its_mlp() -> None:
    plain = Prefix(shots=2).build(bound(), ROWS, 0)
    made = Prefix(shots=2, reparameterize=6).build(bound(), ROWS, 0)
    assert isinstance(plain, PrefixKV)
    assert isinstance(made, Reparameterized)
    first = dict(made().tensors())
    for name, tensor in plain().tensors():
        assert torch.equal(first[name], tensor)
    assert not any("prefix" in n for n, p in made.named_parameters() if p.requires_grad)
    with torch.no_grad():
        made.outer.normal_()
    hidden = torch.tanh(made.embedding @ made.inner.T)  # (P, hidden)
    row = 0
    for (name, start_), (_, moved) in zip(plain().tensors(), made().tensors(), strict=True):
        heads, length, width = start_.shape
        for head in range(heads):
            weights = made.outer[row : row + width]  # (D, hidden)
            torch.testing.assert_close(moved[head], start_[head] + hidden @ weights.T, msg=name)
            row += width
        assert moved.shape == (heads, length, width)
    assert row == len(made.outer)


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (Prefix(first_layer=3), "`first_layer=3`: the model has layers 0 to 2"),
        (Prefix(first_layer=-1), "`first_layer=-1`"),
        (Prefix(length=0), "`length=0`: give from 1 to"),
        (Prefix(length=10**6), "`length=1000000`: give from 1 to"),
        (Prefix(reparameterize=0), "`reparameterize=0`: give a width of at least 1"),
        (Prefix(shots=10), "10 demonstrations asked for"),
    ],
)
def test_prefixes_that_cannot_be_are_refused(method: Prefix, what: str) -> None:
    with pytest.raises(UserError, match=what):
        method.build(bound(), ROWS, 0)


def test_a_prefix_has_no_place_in_a_template() -> None:
    with pytest.raises(UserError, match=r"the template places virtual tokens, .* `method=soft`"):
        Prefix().build(bound(template="[soft:2]{text}:"), ROWS, 0)


@pytest.mark.parametrize("method", [IA3(), Head(), Prefix()])
def test_virtual_tokens_of_a_template_need_a_method_that_has_some(method: Method) -> None:
    task = Classify(template="[soft:2]{text}:", labels=LABELS)
    line = r"virtual tokens, which .*; use `method=soft` or ptuning, or leave \[soft:...\] out of"
    with pytest.raises(UserError, match=line):
        prepare(get("llama"), task, method, ROWS, ROWS, Training(), SILENT)


def test_text_beyond_the_models_positions_is_refused_with_its_length() -> None:
    base = backbone(FAMILIES["llama"], max_position_embeddings=40)
    task: Bound = Classify(template="{text}:", labels=LABELS).bind(base)
    size = len(base.text.ids("good film" * 30))
    with pytest.raises(UserError, match=f"the start's text has {size} tokens and the model 40"):
        Prefix(start="text", start_text="good film" * 30).build(task, ROWS, 0)


def test_methods_are_known_by_name() -> None:
    assert [name_of(kind()) for kind in METHODS.values()] == list(METHODS)
