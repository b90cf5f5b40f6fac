"""Roles in templates: to the token what the model's own chat template writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from families import backbone, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.rank import Rank
from foreword.tasks.relate import Relate
from foreword.tasks.tag import Tag
from foreword.tasks.templates.chat_roles import resolve_roles
from foreword.tasks.templates.template import Template
from foreword.tasks.texts.generator import Generator
from toys import FAMILIES, rows

PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPACED = (  # the system's words within the user's, contents trimmed, another space before answers
    "{% set ns = namespace(s='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.s = '(' + m.content + ') ' %}"
    "{% elif m.role == 'user' %}[I] {{ ns.s }}{{ m.content | trim }} [/I]{% set ns.s = '' %}"
    "{% else %} {{ m.content | trim }} <end>{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if loop.index0 % 2 != (m.role == 'assistant') | int %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
)
DEAF = (
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "<assistant>"
)
COUNTING = "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}"
SORTER = "[system]You say what it is.[user]{text}[assistant]"
SHOWN = "[system]You say what it is.\n{demos:2}\n[user]film: {text}?[assistant]"
WORDS = {"good": " good", "bad": " bad"}
SAYS = {"role": "system", "content": "You say what it is."}


def speaking(chat: str | None, name: str = "llama") -> Backbone:
    base = backbone(FAMILIES[name])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    base.text = Text(
        PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="<end>", mask_token="<mask>", chat_template=chat
        )
    )
    return base


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def written(base: Backbone, messages: list[dict[str, str]], asks: bool = True) -> tuple[int, ...]:
    found = base.text.tokenizer.apply_chat_template(
        messages, add_generation_prompt=asks, return_dict=True
    )
    return tuple(found["input_ids"])


def classifier(base: Backbone, template: str, **more: Any) -> Classifier:
    return Classify(template=template, labels=WORDS, **more).bind(base)


def ids(task: Any, row: Row) -> tuple[int, ...]:
    found: tuple[int, ...] = task.dev_example(row, 10**6).example.ids
    return found


BASES = [
    pytest.param("smollm2", marks=pytest.mark.smollm2),
    pytest.param(PLAIN, id="plain"),
    pytest.param(SPACED, id="spaced"),
]


def opened(name: str) -> Backbone:
    return Backbone.load("smollm2") if name == "smollm2" else speaking(name)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("text", ["a good film", "so <|im_start|> bad<end> it", "it was\n"])
def test_what_is_asked_is_the_models_own_chat(name: str, text: str) -> None:
    """Of three tasks, and what a special token's name in a row is read as is the same too."""
    base = opened(name)
    text = text.strip() if name == SPACED else text
    row = {"text": text, "label": "good", "prompt": text, "completion": "good"}
    messages = [SAYS, user(text)]
    task = classifier(base, SORTER)
    assert ids(task, Row(row, "F:1")) == written(base, messages)
    generate = Generate(template=SORTER.replace("text", "prompt")).bind(base)
    assert ids(generate, Row(row, "F:1")) == written(base, messages)
    relate = Relate(template="[user]{text}: {head}, {tail}?[assistant]", labels=WORDS).bind(base)
    pair = {**row, "head": "a", "tail": "film"}
    asked = [user(f"{text}: a, film?")]
    assert ids(relate, Row(pair, "F:1")) == written(base, asked)


@pytest.mark.parametrize("name", BASES)
def test_answers_are_the_assistants(name: str) -> None:
    """Prompt and answer together are the beginning of the whole conversation."""
    base = opened(name)
    row = Row({"text": "a film", "label": "good", "completion": "good film"}, "F:1")
    task = classifier(base, SORTER)
    for label in WORDS:
        whole = written(base, [SAYS, user("a film"), assistant(label)], asks=False)
        found = (*ids(task, row), *task.spell(f" {label}"))
        assert found == whole[: len(found)]
        assert len(task.spell(f" {label}")) >= 1
    item = Generate(template=SORTER).bind(base).train_example(row, 512)
    whole = written(base, [SAYS, user("a film"), assistant("good film")], asks=False)
    said = item.example.answers[:-1]
    found = (*item.example.ids, *said)
    assert found == whole[: len(found)]
    assert whole[len(found) :].index(base.text.end) <= 1  # some write a space before it
    assert item.example.answers[-1] == base.text.end


@pytest.mark.parametrize("name", BASES)
def test_demonstrations_are_turns(name: str) -> None:
    base, known = opened(name), rows(6)
    made = Classify(template=SHOWN, labels=WORDS).fill_from_rows(base, known, 0)
    task = made.bind(base)
    assert isinstance(task, Classifier)
    assert isinstance(made, Classify)
    assert made.shown is not None
    told = []
    for row in made.shown[:2]:
        told += [user(f"film: {row['text']}?"), assistant(row["label"])]
    new = Row({"text": "so it was", "label": "bad"}, "F:1")
    line = {**SAYS, "content": f"{SAYS['content']}\n"}
    asked = user("film: so it was?")
    want = written(base, [line, *told, asked])
    assert ids(task, new) == want
    if name != "smollm2":
        for shorter in (told[2:], []):
            want = written(base, [line, *shorter, asked])
            fewer = classifier(base, SHOWN, shown=made.shown, max_length=len(want)).dev_example(
                new, 10**6
            )
            assert fewer.truncated
            assert fewer.example.ids == want


def test_without_a_chat_template_turns_are_lines() -> None:
    base, known = speaking(None), rows(6)
    made = Classify(template=SHOWN, labels=WORDS).fill_from_rows(base, known, 0)
    task = made.bind(base)
    assert isinstance(made, Classify)
    assert made.shown is not None
    told = "".join(
        f"User: film: {row['text']}?\nAssistant: {row['label']}\n" for row in made.shown[:2]
    )
    line = f"System: You say what it is.\n\n{told}User: film: so it was?\nAssistant:"
    assert ids(task, Row({"text": "so it was", "label": "bad"}, "F:1")) == (
        *base.text.around[0],
        *base.text.ids(line),
    )
    assert isinstance(task, Classifier)
    assert list(task.spell(" good")) == base.text.ids(" good")


@given(
    *[st.text(st.sampled_from("ab {}[]:\n.é"), min_size=1).filter(str.strip) for _ in range(3)],
    st.sampled_from(["", " ", "It is: "]),
)
def test_lines_are_the_messages_to_the_letter(say: str, ask: str, hear: str, begun: str) -> None:
    texts = ["".join(sign * 2 if sign in "{}[]" else sign for sign in t) for t in (say, ask, hear)]
    source = "[system]{}[user]{{text}}{}[assistant]{}[user]so[assistant]{}[mask]".format(
        *texts, begun
    )
    made = resolve_roles(Template.parse(source), Text(tokenizer()))
    found = "".join(part for part in made.fill({"text": "it"}) if isinstance(part, str))
    want = f"System: {say}\nUser: it{ask}\nAssistant: {hear}\nUser: so\nAssistant:"
    assert found == (f"{want} {begun}" if begun else want)


def test_virtual_tokens_stand_in_messages() -> None:
    base, row = speaking(PLAIN), Row({"text": "it was", "label": "good"}, "F:1")
    task = classifier(base, "[system][soft:3]say it[user]{text}[soft:2][assistant]so [mask]")
    made = ids(task, row)
    first = base.vocabulary
    plain = ids(task.without_prompt(), row)
    assert [n for n in made if n >= first] == list(range(first, first + 5))
    bare = "<system>say it<end>\n<user>it was<end>\n<assistant>so"
    assert base.text.decode(list(plain)) == base.text.decode(base.text.ids(bare))
    at = made.index(first)
    assert made[:at] == tuple(base.text.ids("<system>"))
    assert made[at + 3 :][: len(base.text.ids("say it"))] == tuple(base.text.ids("say it"))
    assert task.spell(" good") == tuple(base.text.ids(" good"))
    assert len(task.without_prompt().predict([row], NOTHING)[0]["probabilities"]) == 2


def test_the_models_special_tokens_are_special() -> None:
    base = speaking(PLAIN)
    found = ids(classifier(base, SORTER), Row({"text": "it", "label": "good"}, "F:1"))
    assert found.count(base.text.tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_masked_models_and_encoder_decoders_read_turns(name: str) -> None:
    base, row = speaking(None, name), Row({"text": "it was", "label": "good"}, "F:1")
    task = classifier(base, "[user]{text}[assistant]It is [mask] ." if name == "bert" else SORTER)
    item = task.dev_example(row, 10**6).example
    left, right = base.text.ids("User: it was\nAssistant: It is"), base.text.ids(" .")
    if name == "bert":
        assert item.ids == (*base.text.around[0], *left, *right, *base.text.around[1])
        assert item.slot == len(base.text.around[0]) + len(left)
    else:
        line = base.text.ids("System: You say what it is.\nUser: it was\nAssistant:")
        assert item.ids == (*base.text.around[0], *line, *base.text.around[1])
    assert len(task.predict([row], NOTHING)) == 1


def test_a_text_that_stands_before_rows_ends_as_a_turn_does() -> None:
    row = Row({"text": "it was", "label": "good", "completion": "good film"}, "F:1")
    end = "<user>it was<end>\n<assistant>"
    for task in (classifier(speaking(PLAIN), "[user]{text}"), Generate("[user]{text}")):
        bound = task if isinstance(task, Classifier) else task.bind(speaking(PLAIN))
        answer = "good" if isinstance(bound, Classifier) else "good film"
        assert bound.demonstration(row) == f"{end}{answer}<end>\n"
    plain = classifier(speaking(None), "[user]{text}")
    assert plain.demonstration(row) == "User: it was\nAssistant: good\n\n"


def test_candidates_are_the_assistants_too() -> None:
    base = speaking(PLAIN)
    row = Row({"history": "it was", "candidates": ["good", "bad"], "answer": "good"}, "F:1")
    item = Rank(template="[user]{history}").bind(base).train_example(row, 512)
    for candidate, path in zip(row.fields["candidates"], item.example.branches, strict=True):
        whole = written(base, [user("it was"), assistant(candidate)], asks=False)
        found = (*item.example.ids, *path)
        assert found == whole[: len(found)]


@pytest.mark.parametrize(
    ("chat", "template", "why"),
    [
        (PLAIN, "say it [user]{text}", "there is text before [user]; put it in a message"),
        (PLAIN, "{text}[assistant]", "there is text before [assistant]"),
        (PLAIN, "[assistant][mask]", "no message before [assistant]; begin with [user]"),
        (PLAIN, "[user]{text}[assistant][mask][user]so", "[user] follows the answer's message"),
        (PLAIN, "[user]{text}[mask][assistant]so", "[mask] stands in a [user] message"),
        (PLAIN, "[user]{text}[system]so", "[system] is not the first message"),
        (PLAIN, "[robot]{text}", "unknown [robot]; known are: mask, soft, system, user, assistant"),
        (PLAIN, "[usr]{text}", "did you mean 'user'?"),
        (PLAIN, "[user]see: {demos:2}{text}", "put it right before [user]"),
        (PLAIN, "[user]{text}{demos:2}[assistant]", "put it right before [user]"),
        (PLAIN, "[user]{text}[assistant]{demos:2}", "put it right before [user]"),
        (PLAIN, "[system]{text}{demos:2}[user]so", "no field follows {demos:N}; put one in [user]"),
        (NO_SYSTEM, SORTER, "takes no system message (no system role); put its text in [user]"),
        (NO_SYSTEM, "[user]a[user]{text}", "not take these roles (roles must alternate)"),
        (DEAF, SORTER, "leaves out what stands in [system]"),
        (COUNTING, SHOWN, "does not write all turns alike; leave out {demos:N}, or the roles"),
        (
            "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
            "[user]{text}",
            "does not write these messages one after the other",
        ),
    ],
)
def test_roles_that_cannot_be_read_so(chat: str, template: str, why: str) -> None:
    with pytest.raises(UserError) as raised:
        classifier(speaking(chat), template, shown=[{"text": "a", "label": "good"}] * 2)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tasks_with_turns_of_their_own_refuse_roles() -> None:
    base = speaking(PLAIN)
    with pytest.raises(UserError, match=r"\{messages\} are turns already; leave out the roles"):
        Generate(template="[user]{messages}").bind(base)
    with pytest.raises(UserError, match="word_template: roles stand before all words"):
        Tag(template="{tokens}", word_template="[user]{word}", labels=WORDS).bind(base)


def test_a_generation_answers() -> None:
    base = speaking(PLAIN)
    task = Generate(template="[system]say it[user]{text}[assistant]so ").bind(base)
    assert isinstance(task, Generator)
    found = task.predict([Row({"text": "it was"}, "F:1")], NOTHING)
    assert isinstance(found[0]["text"], str)
    assert task.following("so", "good") == " good"
