"""Generation: losses against transformers' own, and what the model is asked to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from families import CAUSAL, MASKED, SEQ2SEQ, UNREACHED, backbone, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.tasks.generate import Generate
from foreword.tasks.texts.generator import Generator
from plain import twin

FAMILIES = {f.name: f for f in [CAUSAL[0], CAUSAL[12], *SEQ2SEQ, UNREACHED[0], MASKED[0]]}
SPEAKING = ["llama", "gpt2", "t5", "bart", "marian", "bloom"]
END = 1
ROWS = [
    Row({"prompt": "a good film", "completion": "it was good"}, "F:1"),
    Row({"prompt": "bad", "completion": "a bad film and bad"}, "F:2"),
    Row({"prompt": "it was a film : ", "completion": " bad"}, "F:3"),
]


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


@cache
def plain(name: str) -> PreTrainedModel:
    return twin(get(name))


def bound(name: str, template: str = "Say {prompt}:", **more: Any) -> Generator:
    return Generate(**{"template": template, **more}).bind(get(name))


def losses(task: Generator, rows: Sequence[Row], injection: Injection = NOTHING) -> Tensor:
    items = [task.train_example(row, task.backbone.longest) for row in rows]
    found = torch.zeros(len(items))
    for group, logits in infer(task.backbone, injection, [i.example for i in items], 60):
        found[group] = task.losses(logits, [items[i] for i in group])
    return found


# Losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEAKING)
def test_losses_equal_transformers_on_labels(name: str) -> None:
    task, tokens = bound(name), get(name).text.ids
    items = [task.train_example(row, 512) for row in ROWS]
    for row, item, found in zip(ROWS, items, losses(task, ROWS), strict=True):
        prompt, said = tokens(f"Say {row.fields['prompt']}:"), row.fields["completion"].strip(" ")
        answer = [
            *tokens(said if name in ("t5", "bart", "marian") else f" {said}"),
            1,
        ]
        if name in ("t5", "bart", "marian"):
            out = plain(name)(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer]))
        else:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            out = plain(name)(input_ids=torch.tensor([prompt + answer]), labels=labels)
        assert task.units(item) == len(answer)
        torch.testing.assert_close(found / task.units(item), out.loss, rtol=1e-5, atol=1e-5)


def test_the_judgement_is_the_summed_log_likelihood() -> None:
    task = bound("llama")
    items = [task.dev_example(row, 512) for row in ROWS]
    ((group, logits),) = infer(task.backbone, NOTHING, [i.example for i in items], 10_000)
    score, weight = task.dev_counts(logits, [items[i] for i in group])
    assert score == pytest.approx(-float(losses(task, ROWS).sum()), rel=1e-5)
    assert weight == sum(map(task.units, items))


def test_a_completion_that_is_cut_does_not_end() -> None:
    words = get("llama").text.ids(" a bad film and bad")
    whole = bound("llama", decoding=Decoding(max_new_tokens=len(words)))
    item = whole.train_example(ROWS[1], 512)
    assert list(item.example.answers) == [*words, END]
    assert not item.truncated
    short = bound("llama", decoding=Decoding(max_new_tokens=3))
    item = short.train_example(ROWS[1], 512)
    assert list(item.example.answers) == words[:3]
    assert item.truncated


def test_a_long_prompt_loses_its_beginning_and_says_so() -> None:
    task = bound("llama", max_length=9)
    row = Row({"prompt": " ".join(["film", "good", "bad"] * 5), "completion": "a"}, "F")
    item = task.train_example(row, 512)
    assert item.truncated
    assert len(item.example.ids) <= 9
    text = get("llama").text.decode(list(item.example.ids))
    assert text.startswith("Say ")
    assert text.endswith("film good bad:")


def test_a_decoder_writes_in_a_room_of_its_own() -> None:
    base = backbone(FAMILIES["bart"], max_position_embeddings=32)
    row = Row({"prompt": "film " * 9, "completion": "a"}, "F")
    own, over = (
        Generate(template="{prompt}", decoding=Decoding(max_new_tokens=most)).bind(base)
        for most in (32, 33)
    )
    assert not own.train_example(row, 32).truncated
    with pytest.raises(UserError, match="there is no room"):
        over.train_example(row, 32)


def test_a_decoder_answers_from_its_tokenizers_first_tokens() -> None:
    base = backbone(FAMILIES["bart"])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(
        single="<mask> $A <end>", special_tokens=[("<mask>", 2), ("<end>", 1)]
    )
    base.text = Text(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    item = Generate(template="{prompt}").bind(base).train_example(ROWS[0], 512)
    assert list(item.example.answers) == inner.encode("it was good").ids


# Completions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEAKING)
def test_predictions_go_on_from_the_filled_template(name: str) -> None:
    decoding = Decoding(max_new_tokens=6)
    found = bound(name, decoding=decoding).predict(ROWS, NOTHING)
    for row, answer in zip(ROWS, found, strict=True):
        ids = get(name).text.ids(f"Say {row.fields['prompt']}:")
        (expected,) = decode(get(name), [ids], NOTHING, decoding)
        assert answer == {"text": expected.strip(), "cut": False}


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_rows_of_a_mixture_are_completed_as_alone(name: str) -> None:
    base, task = get(name), bound(name, decoding=Decoding(max_new_tokens=6, beams=2))
    with torch.no_grad():
        parts = (NOTHING, Injection(embeds=5 * base.embed(range(20, 29)), leading=9))
        mixed = task.predict(ROWS, Mixture(parts, (1, 0, 1)))
        alone = [task.predict([r], parts[o])[0] for r, o in zip(ROWS, (1, 0, 1), strict=True)]
    assert mixed == alone


def test_what_all_rows_begin_with_is_read_once_and_changes_nothing() -> None:
    decoding = Decoding(max_new_tokens=6)
    template = "a good film and a bad film and it was good : {prompt}"
    task = bound("llama", template, decoding=decoding)
    found = task.predict(ROWS, NOTHING)
    for row, answer in zip(ROWS, found, strict=True):
        ids = get("llama").text.ids(template.replace("{prompt}", row.fields["prompt"]).rstrip(" "))
        assert answer["text"] == decode(get("llama"), [ids], NOTHING, decoding)[0].strip()


def test_after_demonstrations_a_blank_line_ends_the_completion() -> None:
    task = bound("llama")
    assert task.decoding("").stop == ()
    assert task.decoding("x").stop == ("\n\n",)


def test_scores_compare_with_all_references() -> None:
    rows = [
        Row({"prompt": "x", "completion": "a b c", "references": ["d e f", "a b c"]}, "F:1"),
        Row({"prompt": "y", "completion": "g h i"}, "F:2"),
    ]
    right = bound("llama").score(rows, [{"text": "d e f"}, {"text": "g h i"}], seed=0)
    half = bound("llama").score(rows, [{"text": "d e f"}, {"text": "zzz"}], seed=0)
    assert right["exact_match"] == 100.0
    assert half["exact_match"] == 50.0


def test_demonstrations_read_as_prompt_and_completion() -> None:
    assert bound("llama").demonstration(ROWS[0]) == "Say a good film: it was good\n\n"
    assert bound("llama", "{prompt}\n").demonstration(ROWS[0]) == "a good film\nit was good\n\n"
    soft = bound("llama", "[soft:2]{prompt}:")
    assert soft.demonstration(ROWS[2]) == "it was a film : : bad\n\n"
    assert (soft.virtual, soft.without_prompt().virtual) == (2, 0)


# Chat -----------------------------------------------------------------------------------------

CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "user", "content": "good film?"},
    {"role": "assistant", "content": "bad film"},
]


def chatting(*, first: bool) -> Generator:
    """A backbone whose tokenizer has a chat template, and may put <mask> before every text."""
    base = backbone(FAMILIES["llama"])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    if first:
        inner.post_processor = processors.TemplateProcessing(
            single="<mask> $A", special_tokens=[("<mask>", 2)]
        )
    base.text = Text(
        PreTrainedTokenizerFast(
            tokenizer_object=inner,
            eos_token="<end>",
            bos_token="<mask>",
            chat_template=CHAT if first else CHAT.replace("{{ bos_token }}", ""),
        )
    )
    return Generate(template="{messages}", max_length=64).bind(base)


@pytest.mark.parametrize("first", [True, False])
def test_a_chat_is_read_through_the_tokenizers_template(first: bool) -> None:
    task = chatting(first=first)
    row = Row({"messages": TALK}, "F:1")
    item = task.train_example(row, 512)
    expected = task.backbone.text.tokenizer.apply_chat_template(
        TALK[:1], add_generation_prompt=True, return_dict=False
    )
    assert list(item.example.ids) == list(expected)
    assert expected.count(2) == int(first)
    text = task.backbone.text
    assert list(item.example.answers) == [*text.continuation("assistant>", "bad film"), END]
    asked = Row({"messages": TALK[:1]}, "F:1")
    assert task._fill_row(asked, 512).ids == item.example.ids
    plainly = Row({"messages": "good film?"}, "F:1")
    assert task._fill_row(plainly, 512).ids == item.example.ids


def test_without_a_chat_template_turns_are_named() -> None:
    task = bound("llama", "{messages}")
    item = task.train_example(Row({"messages": TALK}, "F:1"), 512)
    assert list(item.example.ids) == get("llama").text.ids("User: good film?\nAssistant:")


@pytest.mark.parametrize(
    ("messages", "answers", "what"),
    [
        ([], False, 'F:1: field "messages" is an empty list'),
        ([{"role": "user"}], False, "F:1: messages.0. is not an object"),
        ([{"role": "usr", "content": "x"}], False, "did you mean 'user'"),
        (TALK[:1], True, "F:1: field \"messages\" ends with 'user'"),
        (7, False, 'F:1: field "messages" is'),
    ],
)
def test_bad_messages_are_named(messages: Any, answers: bool, what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound("llama", "{messages}").check([Row({"messages": messages}, "F:1")], answers=answers)


# What is refused, and found -------------------------------------------------------------------


def test_masked_models_and_missing_templates_are_refused() -> None:
    with pytest.raises(UserError, match=r"is a masked model and cannot generate"):
        bound("bert")
    with pytest.raises(UserError, match=r"needs a template"):
        Generate().bind(get("llama"))
    with pytest.raises(UserError, match=r"beams is 0"):
        bound("llama", decoding=Decoding(beams=0))


@pytest.mark.parametrize(
    ("fields", "answers", "what"),
    [
        ({"prmpt": "x"}, False, "F:1: no field 'prompt'.*did you mean 'prmpt'"),
        ({"prompt": ""}, False, 'F:1: field "prompt" is empty'),
        ({"prompt": "x"}, True, "F:1: missing field 'completion'"),
        ({"prompt": "x", "completion": " "}, True, 'F:1: field "completion" is empty'),
    ],
)
def test_bad_rows_are_named(fields: dict[str, Any], answers: bool, what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound("llama").check([Row(fields, "F:1")], answers=answers)


def test_a_template_is_found_for_the_rows_shape() -> None:
    base = get("llama")

    def found(fields: dict[str, Any]) -> str | None:
        return Generate().complete([Row(fields, "F:1")], base).template

    assert found({"messages": TALK}) == "{messages}"
    assert found({"prompt": "x", "completion": "y"}) == "{prompt}\n"
    assert Generate(template="{a}").complete([], base).template == "{a}"
    with pytest.raises(UserError, match=r"F:1: no field 'prompt' or 'messages'"):
        found({"body": "x"})
