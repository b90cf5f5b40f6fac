"""Conversations: what is learned of them, token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from families import CAUSAL, SEQ2SEQ, backbone, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.chat import Chat
from foreword.tasks.texts.conversation import without_first_turns
from foreword.tasks.texts.generator import Generator

END = 1
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% generation %}{{ m.content }}<end>"
    "{% endgeneration %}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
FORGETFUL = "{% for m in messages[-2:] %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>"
STRICT = "{{ raise_exception('roles must alternate') }}"
TALK = [
    {"role": "system", "content": "it was a film"},
    {"role": "user", "content": "good film?"},
    {"role": "assistant", "content": "bad film"},
    {"role": "user", "content": "and a good one?"},
    {"role": "assistant", "content": "bad and a film"},
]


def speaking(template: str | None, name: str = "llama") -> Backbone:
    families = {f.name: f for f in [*CAUSAL, *SEQ2SEQ]}
    base = backbone(families[name])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    base.text = Text(
        PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", chat_template=template)
    )
    return base


def bound(template: str | None = TEMPLATE, **more: Any) -> Generator:
    made = Chat(**{"template": "{messages}", **more})
    return made.bind(speaking(template))


def learned(task: Generator, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The tokens of an example in order, and the places of those that are learned."""
    item = task.train_example(Row({"messages": messages}, "F:1"), 512)
    (branch,) = item.example.branches
    whole = [*item.example.ids, *branch]
    places = [len(item.example.ids) + j + 1 for _, j in item.example.targets]
    for place, token in zip(places, item.example.answers, strict=True):
        assert place == len(whole) or whole[place] == token
    assert item.gold == len(places) == task.units(item)
    return [*whole, item.example.answers[-1]], places


def test_the_first_token_stands_once_where_the_template_writes_it_too() -> None:
    base = speaking(None)
    inner = base.text.tokenizer.backend_tokenizer
    inner.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", END)]
    )
    base.text = Text(
        PreTrainedTokenizerFast(
            tokenizer_object=inner,
            bos_token="<end>",
            chat_template="{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
        )
    )
    task = Chat(template="{messages}").bind(base)
    item = task.train_example(Row({"messages": TALK[1:3]}, "F:1"), 512)
    assert item.example.ids[0] == END
    assert item.example.ids.count(END) == 1


def test_all_turns_are_those_that_transformers_marks() -> None:
    task = bound(turns="all")
    ids, places = learned(task, TALK)
    marked = task.backbone.text.tokenizer.apply_chat_template(
        TALK, return_assistant_tokens_mask=True, return_dict=True
    )
    expected = list(marked["input_ids"])
    said = [n for n, mark in enumerate(marked["assistant_masks"]) if mark]
    assert ids == expected[: len(ids)]
    assert len(ids) == said[-1] + 1
    assert places == said


def test_the_last_turn_alone_by_default() -> None:
    ids, places = learned(bound(), TALK)
    every, said = learned(bound(turns="all"), TALK)
    assert ids == every
    assert places == said[-len(places) :]
    text = bound().backbone.text
    assert text.decode([ids[place] for place in places]) == "bad and a film"


def test_without_a_template_no_other_role_is_learned() -> None:
    task = bound(None, turns="all")
    ids, places = learned(task, TALK)
    text = task.backbone.text
    assert text.decode(ids) == (
        "System: it was a film\nUser: good film?\nAssistant: bad film\n"
        "User: and a good one?\nAssistant: bad and a film"
    )
    assert text.decode([ids[place] for place in places]) == " bad film bad and a film"
    assert ids[-1] == END


def test_the_loss_of_all_turns_is_the_sum_over_their_tokens() -> None:
    """Each learned token's log-probability after all that stands before it, one pass a token."""
    task = bound(turns="all")
    ids, places = learned(task, TALK)
    item = task.train_example(Row({"messages": TALK}, "F:1"), 512)
    ((_, logits),) = infer(task.backbone, NOTHING, [item.example])
    found = float(task.losses(logits, [item])[0])
    total = 0.0
    for place in places:
        model: Any = task.backbone.model
        scores = model(torch.tensor([ids[:place]])).logits[0, -1]
        total -= float(scores.log_softmax(0)[ids[place]])
    assert found == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("turns", ["last", "all"])
def test_a_long_conversation_loses_its_first_turns(turns: str) -> None:
    short = [TALK[0], *TALK[3:]]
    size = len(learned(bound(turns=turns), short)[0])
    task = bound(turns=turns, max_length=size + 6, decoding=Decoding(max_new_tokens=24))
    item = task.train_example(Row({"messages": TALK}, "F:1"), size + 24)
    assert item.truncated
    kept = bound(turns=turns).train_example(Row({"messages": short}, "F:1"), 512)
    assert item.example == kept.example
    assert without_first_turns(short) is None
    alone = bound(turns=turns, max_length=12).train_example(Row({"messages": short}, "F:1"), 512)
    assert alone.truncated


def test_what_is_asked_is_the_conversation_without_its_end() -> None:
    task = bound(decoding=Decoding(max_new_tokens=3))
    row = Row({"messages": TALK}, "F:1")
    asked = Row({"messages": TALK[:-1]}, "F:1")
    assert task.predict([row], NOTHING) == task.predict([asked], NOTHING)
    found = task.score([row], [{"text": "bad and a film"}], seed=0)
    assert set(found["intervals"]) == {"bleu", "chrf", "rouge_l"}
    assert found["rouge_l"] == 100


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (FORGETFUL, r"F:1: the model's chat template does not leave earlier turns .* `turns` last"),
        (STRICT, r"F:1: .* does not take these messages \(roles must alternate\)"),
    ],
)
def test_templates_that_do_not_serve_are_named(template: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound(template, turns="all").train_example(Row({"messages": TALK}, "F:1"), 512)


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ("good film?", 'F:1: field "messages" is text, expected a list'),
        ([{"role": "bot", "content": "x"}], "F:1: messages.0. has the unknown .role. 'bot'"),
        (TALK[:-1], "ends with 'user'"),
        ([], "is an empty list"),
    ],
)
def test_bad_rows_are_named(messages: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound().check([Row({"messages": messages}, "F:1")], answers=True)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"has no \{messages\}"):
        Chat(template="{prompt}").bind(speaking(TEMPLATE))
    with pytest.raises(UserError, match="learns one turn; use `turns` last"):
        Chat(template="{messages}", turns="all").bind(speaking(TEMPLATE, "t5"))
