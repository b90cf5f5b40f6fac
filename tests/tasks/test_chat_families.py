"""Conversations on the chat templates of well-known families, to the token."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_templates import CHATS, chat_backbone
from families import backbone as tiny
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.texts.generator import Generator
from toys import FAMILIES


def user(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def system(text: Any) -> dict[str, Any]:
    return {"role": "system", "content": text}


SAYS = system("Say so.")
TALK = [user(" it was? "), assistant("good film "), user("so 😀\n"), assistant("bad 你好")]
CALL = {"type": "function", "function": {"name": "film", "arguments": {"a": 1}}}


def row(messages: list[Any], **more: Any) -> Row:
    ends = messages[-1]["role"] == "assistant"
    (made,) = as_rows([{"messages": messages, **more}], targets=ends)
    return made


def bound(name: str, **more: Any) -> Generator:
    return Chat(template="{messages}", **more).bind(chat_backbone(name))


def written(name: str, messages: list[Any], *, asks: bool = False, **more: Any) -> list[int]:
    """The ids of transformers' own ``apply_chat_template``."""
    found = chat_backbone(name).text.tokenizer.apply_chat_template(
        messages, add_generation_prompt=asks, return_dict=True, **more
    )
    return list(found["input_ids"])


def learned(task: Generator, given: Row, room: int = 4096) -> tuple[list[int], list[int]]:
    """The tokens of an example in order, and the places of those that are learned."""
    example = task.train_example(given, room).example
    (branch,) = example.branches
    whole = [*example.ids, *branch, example.answers[-1]]
    places = [len(example.ids) + j + 1 for _, j in example.targets]
    assert [whole[place] for place in places] == list(example.answers)
    return whole, places


def turns(name: str, messages: list[Any]) -> list[range]:
    """The places of the assistant's turns and their ends, by a plain diff of growing talks."""
    found = []
    end = chat_backbone(name).text.tokenizer.convert_tokens_to_ids(CHATS[name].turn)
    whole = written(name, messages)
    for n, turn in enumerate(messages):
        if turn["role"] == "assistant":
            start = len(written(name, messages[:n], asks=True))
            assert whole[:start] == written(name, messages[:n], asks=True)
            found.append(range(start, whole.index(end, start) + 1))
    return found


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("says", [False, True])
def test_every_turn_is_learned_with_its_end(name: str, says: bool) -> None:
    if says and not CHATS[name].system:
        with pytest.raises(UserError, match=r"row 1: .*take these messages .System role not supp"):
            bound(name).train_example(row([SAYS, *TALK]), 4096)
        return
    messages = [*([SAYS] if says else []), *TALK]
    own, whole = turns(name, messages), written(name, messages)
    ids, places = learned(bound(name, turns="all"), row(messages))
    assert places == [place for each in own for place in each]
    assert ids == whole[: len(ids)]
    assert len(ids) == own[-1].stop
    last = learned(bound(name), row(messages))
    assert last == (ids, list(own[-1]))


@pytest.mark.parametrize("name", CHATS)
def test_what_is_asked_are_the_tokens_of_transformers(name: str) -> None:
    given = bound(name).decoding_inputs([row(TALK), row(TALK[:3]), row(TALK[:2])], NOTHING)
    first = written(name, TALK[:3], asks=True)
    lead = len(first) - len(given.ids[0])  # what all rows share is read ahead
    assert [list(ids) for ids in given.ids] == [
        first[lead:],
        first[lead:],
        written(name, TALK[:1], asks=True)[lead:],
    ]


@pytest.mark.parametrize("name", CHATS)
def test_roles_strip_what_the_chat_template_strips(name: str) -> None:
    """Rows with spaces at the ends of fields, and of the template's own messages."""
    base = chat_backbone(name)
    fields = {"text": "\n it was ", "more": " a film \n", "label": "good", "completion": "good "}
    for template, content in (
        ("[user]{text}", "\n it was "),
        ("[user] {text}: {more}", " \n it was :  a film \n"),
        ("[user]see {text} \n", "see \n it was  \n"),
    ):
        want = written(name, [user(content)], asks=True)
        words = {"good": " good", "bad": " bad"}
        task = Classify(template=template, labels=words).bind(base)
        assert list(task.dev_example(Row(fields, "F:1"), 4096).example.ids) == want
        writes = Generate(template=template).bind(base)
        item = writes.train_example(Row(fields, "F:1"), 4096)
        assert list(item.example.ids) == want
        if name != "qwen3":  # which writes empty thoughts before an answer
            whole = written(name, [user(content), assistant("good ")])
            ids, places = learned(writes, Row(fields, "F:1"))
            assert ids == whole[: len(ids)]
            assert places == list(turns(name, [user(content), assistant("good ")])[0])


@pytest.mark.parametrize("name", ["qwen2", "llama3", "phi3"])
def test_the_assistant_may_begin(name: str) -> None:
    """A greeting is learned after nothing, or after the system message; alone too."""
    greets = [assistant("it was"), *TALK]
    whole = written(name, greets)
    ids, places = learned(bound(name, turns="all"), row(greets))
    assert ids == whole[: len(ids)]
    said = [whole[place] for place in places]
    own = chat_backbone(name).text
    ends = [n for n, token in enumerate(said) if token == own.turn_end[-1]]
    assert len(ends) == 3
    assert own.decode(said[: ends[0]]).strip() == "it was"
    for how in ("all", "last"):
        alone, spoken = learned(bound(name, turns=how), row([assistant("it was")]))
        assert alone == written(name, [assistant("it was")])[: len(alone)]
        assert own.decode([alone[n] for n in spoken]).strip() == "it was"
    task = bound(name, decoding=Decoding(max_new_tokens=2))
    rows = [row(greets), row([assistant("it was")])]
    assert len(task.predict(rows, NOTHING)) == 2
    assert [items for items, _ in infer(task.backbone, NOTHING, [])] == []


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_template_that_refuses_a_beginning_says_so(name: str) -> None:
    given = row([user("a"), user("b"), assistant("c")])
    with pytest.raises(UserError, match=r"row 1: .* not take these messages .*must alternate"):
        bound(name).train_example(given, 4096)


@pytest.mark.parametrize("name", CHATS)
def test_a_turn_of_weight_0_is_no_target(name: str) -> None:
    messages = [*TALK[:1], assistant("good film ", weight=0), *TALK[2:]]
    plain, places = learned(bound(name, turns="all"), row(TALK))
    ids, fewer = learned(bound(name, turns="all"), row(messages))
    assert ids == plain
    assert fewer == list(turns(name, TALK)[1])
    assert places != fewer
    first = [*TALK[:3], assistant("bad 你好", weight=0)]
    ids, fewer = learned(bound(name, turns="all"), row(first))
    assert fewer == list(turns(name, TALK)[0])
    assert ids == written(name, TALK)[: len(ids)]


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
def test_other_words_for_weight(key: str) -> None:
    for no in (0, False, 0.0):
        given = row([*TALK[:3], assistant("bad", **{key: no})])
        with pytest.raises(
            UserError,
            match=r"row 1: nothing is left to learn, since the last turn has weight 0; .*turns",
        ):
            bound("qwen2").check([given], answers=True)
        bound("qwen2", turns="all").check([given], answers=True)
        with pytest.raises(
            UserError,
            match=r"row 1: .* since every turn of the assistant has weight 0; remove the row$",
        ):
            bound("qwen2", turns="all").check(
                [row([user("a"), assistant("b", **{key: no})])], answers=True
            )
    for yes in (1, True, None):
        bound("qwen2").check([row([user("a"), assistant("b", **{key: yes})])], answers=True)
    masked = row([user("a"), assistant("b", mask=True), user("c"), assistant("d", mask=False)])
    assert [turn.get("weight") for turn in masked.fields["messages"]] == [None, 0, None, None]


LONG = "The sky is a colour 😀 天空是蓝色的 and it was good. " * 12


def kept_whole(name: str, cut: list[int], uncut: list[int]) -> bool:
    """Whether tokens are some of the others, in their order, with all special ones among them."""
    special = {*chat_backbone(name).text.tokenizer.all_special_ids}
    rest = iter(uncut)
    marks = [[token for token in ids if token in special] for ids in (cut, uncut)]
    return all(token in rest for token in cut) and marks[0] == marks[1]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CHATS)
def test_a_cut_row_keeps_the_chat_markup(name: str, side: Any) -> None:
    """It is the uncut row less tokens of its longest message, at every length, in use too."""
    says = [SAYS] if CHATS[name].system else []
    messages = [*says, user(LONG), assistant("blue")]
    want = written(name, messages[:-1], asks=True)
    bare = len(written(name, [*says, user(".")], asks=True))
    for size in (bare + 12, bare + 61, len(want) - 1):
        task = bound(name, max_length=size, truncate=side, decoding=Decoding(max_new_tokens=9))
        item = task.train_example(row(messages), 4096)
        assert item.truncated
        assert size - 40 < len(item.example.ids) <= size
        assert kept_whole(name, list(item.example.ids), want)
        (asked,) = task.decoding_inputs([row(messages)], NOTHING).ids
        assert list(asked) == list(item.example.ids)[-len(asked) :]
        own = chat_backbone(name).text
        text = own.tokenizer.decode(item.example.ids)
        assert ("Say so." in text) == bool(says)
        assert own.turn_end[-1] == item.example.answers[-1]
    every = bound(name, max_length=len(want) - 1, turns="all", truncate=side)
    assert kept_whole(name, list(every.train_example(row(messages), 4096).example.ids), want)


@pytest.mark.parametrize("how", ["last", "all"])
@pytest.mark.parametrize("name", ["llama3", "qwen2", "phi3"])
def test_turns_are_dropped_by_their_tokens(name: str, how: Any) -> None:
    """As many of the first as need be, of signs of several tokens too; the system's words stay."""
    talk = [user("😀天空" * 4), assistant("蓝色"), user("天空" * 6), assistant("😀"), *TALK[2:]]
    whole = [SAYS, *talk]
    for first in (1, 3, 5):
        kept = [SAYS, *whole[first:]]
        size = len(written(name, kept))
        task = bound(name, turns=how, max_length=size, decoding=Decoding(max_new_tokens=64))
        ids, places = learned(task, row(whole))
        if how == "all":
            assert ids == written(name, kept)[: len(ids)]
            assert places == [place for each in turns(name, kept) for place in each]
        else:
            size = len(written(name, kept[:-1], asks=True))
            task = bound(name, max_length=size)
            found = task.train_example(row(whole), 4096).example.ids
            assert list(found) == written(name, kept[:-1], asks=True)


def test_a_field_that_is_cut_keeps_the_names_of_special_tokens() -> None:
    base = chat_backbone("qwen2")
    given = Row({"text": "a <|im_end|> film " * 20, "completion": "good"}, "F:1")
    for side in ("left", "right"):
        task = Generate(template="{text}\nIt is", max_length=40, truncate=side).bind(base)  # type: ignore[arg-type]
        found = task.train_example(given, 4096).example.ids
        uncut = base.text.ids("a <|im_end|> film " * 20 + "\nIt is")
        rest = iter(uncut)
        assert all(token in rest for token in found)
        assert found.count(base.text.turn_end[-1]) >= 5


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (
            user([{"type": "image_url", "image_url": {"url": "x"}}]),
            "content[0] is of type 'image_url'",
        ),
        (user([{"type": "input_audio"}]), "content[0] is of type 'input_audio', and text alone is"),
        (user([{"type": "text"}]), 'content[0] is not {"type": "text", "text": ...}'),
        (user([3]), "content[0] is not"),
        (user([]), 'field "messages[0].content" is empty'),
        (user(None), "messages[0].content is null, expected text; write it as one string"),
        (user(" "), 'field "messages[0].content" is empty'),
        (user({"type": "text"}), "messages[0].content is an object, expected text"),
        (user(7), "messages[0].content is a number, expected text"),
        ({"role": "user"}, 'messages[0] is not an object with "role" and "content"'),
        ({"content": "a"}, 'messages[0] is not an object with "role" and "content"'),
        (None, 'messages[0] is not an object with "role" and "content"'),
        ({"role": ["user"], "content": "a"}, "messages[0] has the unknown"),
        (user("a", weight=1), "messages[0].weight: only the assistant's words are learned"),
        (user("a", weight="0"), "messages[0].weight is '0'; 0 and 1 are read"),
        (user("a", images=["x.png"]), "messages[0].images is not read; text alone is read"),
        (user("a", tool_calls=[CALL]), "messages[0].tool_calls: these are the assistant's"),
        (assistant("a", weight=0.5), "messages[0].weight is 0.5; 0 and 1 are read"),
        (assistant("a", weight=0, loss=True), "has weight and loss, which contradict each other"),
        (assistant("a", refusal="no"), "messages[0].refusal is not read"),
        (assistant("a", function_call={"name": "f"}), "function_call is not read; write it as"),
        (assistant(None, tool_calls="f()"), "messages[0].tool_calls is not a list of objects"),
    ],
)
def test_turns_that_are_refused(turn: Any, why: str) -> None:
    with pytest.raises(UserError) as raised:
        as_rows([{"messages": [turn, user("a"), assistant("b")]}])
    assert str(raised.value).startswith("row 1: ")
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("role", ["assistant", "tool"])
def test_a_turn_may_be_empty_before_one_that_is_to_be_answered(role: str) -> None:
    turns = [user("a"), {"role": role, "content": ""}, user("b")]
    (read,) = as_rows([{"messages": turns}], targets=False)
    assert read.fields["messages"] == turns
    for learned in (False, True):  # whether as rows to train on, or to look at
        with pytest.raises(UserError, match=r'field "messages\[1\].content" is empty'):
            as_rows([{"messages": [*turns, assistant("c")]}], targets=learned)
    with pytest.raises(UserError, match=r'field "messages\[0\].content" is empty'):
        as_rows([{"messages": [user(""), *turns]}], targets=False)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"train_on_input": True}, "train_on_input is True, and only the assistant's words are"),
        ({"train_on_inputs": 1}, "train_on_inputs is 1"),
        ({"functions": [{"name": "f"}]}, 'field "functions" is not read; write them as "tools"'),
        ({"tools": "f()"}, 'field "tools" is text, expected a list of objects'),
        ({"tools": {"a": 1}}, 'field "tools" is an object, expected a list of objects'),
        ({"system": 3}, "system is a number, expected text"),
    ],
)
def test_rows_that_are_refused(more: Any, why: str) -> None:
    with pytest.raises(UserError, match=r"^row 1: ") as raised:
        row([user("a"), assistant("b")], **more)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        (
            {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
            "a\nb",
        ),
        ({"messages": [user([{"type": "input_text", "text": "a"}])]}, "a"),
        ({"messages": [user(["a"])]}, "a"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "a"),
        ({"conversations": [user("a")]}, "a"),
        ({"conversations": [{"from": "user", "value": "a"}]}, "a"),
        ({"messages": [{"from": "human", "value": "a"}]}, "a"),
        ({"messages": [user("a", weight=None, name=None, tool_calls=None)], "tools": None}, "a"),
        ({"messages": [user("a", id=3, time="now")], "tools": [], "train_on_input": False}, "a"),
    ],
)
def test_ways_to_write_a_turn(rows: Any, same: str) -> None:
    (made,) = as_rows([rows], targets=False)
    assert made.fields["messages"] == [user(same)]


def test_a_system_message_beside_the_turns() -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (made,) = as_rows([{"system": "Say so.", "conversations": talk}])
    assert made.fields["messages"] == [SAYS, user("a"), assistant("b")]
    assert as_rows([made]) == [made]
    (made,) = as_rows(
        [{"system": " ", "messages": [{"role": "developer", "content": "x"}, user("a")]}],
        targets=False,
    )
    assert made.fields["messages"] == [system("x"), user("a")]
    with pytest.raises(UserError, match='row 1: the row has a system message in "messages" and an'):
        row([system("x"), user("a"), assistant("b")], system="y")


def test_a_prompt_and_a_completion_of_turns_are_one_conversation() -> None:
    given = {"prompt": [SAYS, user("a")], "completion": [assistant("b")], "id": 3}
    (made,) = as_rows([given])
    assert made.fields == {"messages": [SAYS, user("a"), assistant("b")], "id": 3}
    (made,) = as_rows([{"prompt": [user("a")]}], targets=False)
    assert made.fields == {"messages": [user("a")]}


def test_tool_calls_and_tools_are_written_and_learned() -> None:
    tools = [{"type": "function", "function": {"name": "film", "parameters": {}}}]
    text = {"type": "function", "function": {"name": "film", "arguments": '{"a": 1}'}}
    talk = [user("it?"), assistant(None, tool_calls=[text]), {"role": "tool", "content": "bad"}]
    plain = [user("it?"), assistant("", tool_calls=[CALL]), talk[2], assistant("so bad")]
    whole = written("qwen2", plain, tools=tools)
    for form in (tools, str(tools).replace("'", '"')):
        made = row([*talk, assistant("so bad")], tools=form)
        assert made.fields["messages"][1]["tool_calls"] == [CALL]
        ids, places = learned(bound("qwen2", turns="all"), made)
        assert ids == whole[: len(ids)]
        base = chat_backbone("qwen2").text
        assert base.tokenizer.decode([ids[n] for n in places]) == (
            "<tool_call>film</tool_call><|im_end|>so bad<|im_end|>"
        )
    last = row(talk[:2])
    ids, places = learned(bound("qwen2"), last)
    assert base.decode([ids[n] for n in places]) == "<tool_call>film</tool_call>"
    task = bound("qwen2")
    assert task.gold_answer(last) == "<tool_call>film</tool_call>"
    assert task.is_right(last, "<tool_call>film</tool_call>")


@pytest.mark.parametrize(
    ("name", "messages", "more", "why"),
    [
        ("llama3", [user("a", name="Ann"), assistant("b")], {}, "does not write messages[0].name"),
        (
            "llama3",
            [user("a"), assistant("", tool_calls=[CALL])],
            {},
            "write messages[1].tool_calls",
        ),
        ("llama3", [user("a"), assistant("b", reasoning_content="c")], {}, "[1].reasoning_content"),
        ("llama3", [user("a"), assistant("b")], {"tools": [CALL]}, 'not write the row\'s "tools"'),
        (
            "mistral",
            [user("a"), assistant("b"), SAYS, assistant("c")],
            {},
            "leaves out what the system",
        ),
    ],
)
def test_what_a_template_does_not_write_is_refused(
    name: str, messages: Any, more: Any, why: str
) -> None:
    for how in ("last", "all"):
        with pytest.raises(UserError, match=r"^row 1: the model's chat template ") as raised:
            bound(name, turns=how).train_example(row(messages, **more), 4096)
        assert why in str(raised.value)


def test_without_a_chat_template_none_is_said_to_refuse() -> None:
    base = tiny(FAMILIES["llama"])
    task = Chat(template="{messages}").bind(base)
    for odd, what in (
        (row([user("a"), assistant("", tool_calls=[CALL])]), "messages[1].tool_calls"),
        (row([user("a", name="Ann"), assistant("b")]), "messages[0].name"),
        (row([user("a"), assistant("b")], tools=[CALL]), 'the row\'s "tools"'),
    ):
        with pytest.raises(UserError) as raised:
            task.train_example(odd, 512)
        assert f"row 1: {what} is for a chat template, which the model's tokenizer lacks" in str(
            raised.value
        )


def test_thoughts_are_learned_as_the_template_writes_them() -> None:
    """Beside the content or in it: transformers writes both the same way, and so does a row."""
    talk = [user("it?"), assistant("bad", reasoning_content="so"), user("so?"), assistant("good")]
    whole = written("qwen3", talk)
    for how in ("last", "all"):
        ids, places = learned(bound("qwen3", turns=how), row(talk))
        assert ids == whole[: len(ids)]
    for turn in (talk[1], assistant("<think>\nso\n</think>\n\nbad")):
        ids, places = learned(bound("qwen3"), row([talk[0], turn]))
        said = chat_backbone("qwen3").text.tokenizer.decode([ids[n] for n in places])
        assert said == "<think>\nso\n</think>\n\nbad<|im_end|>"


def test_empty_thoughts_are_no_part_of_an_answer() -> None:
    task = bound("qwen3")
    assert task.answer_of("<think>\n\n</think>\n\nbad ") == "bad"
    assert task.answer_of("<think>\nso\n</think>\n\nbad") == "<think>\nso\n</think>\n\nbad"
    assert bound("llama3").answer_of(" bad\n") == "bad"


BROKEN = {
    "{{ messages[0].content + 1 }}": "can only concatenate str",
    "{{ messages[7].content.x }}": "has no element 7",
    "{{ 1 / 0 }}": "division by zero",
    "{% for m in messages %}": "",
    "{{ raise_exception('first\nsecond') }}": "first second",
    "{{ nothing() }}": "'nothing' is undefined",
}


@pytest.mark.parametrize("template", BROKEN)
def test_a_template_that_fails_in_its_own_way_is_one_line(template: str) -> None:
    base = chat_backbone("qwen2")
    tokenizer = deepcopy(base.text.tokenizer)
    tokenizer.chat_template = template
    own = Backbone(base.model, tokenizer, architecture="causal", name="broken")
    for how in ("last", "all"):
        task = Chat(template="{messages}", turns=how).bind(own)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="row 1: the model's chat template does not") as raised:
            task.train_example(row(TALK), 4096)
        assert BROKEN[template] in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="chat template does not take these roles"):
        Generate(template="[user]{text}").bind(own)
    assert own.ends


ODD = st.one_of(
    st.sampled_from([None, 0, 1, True, "", " ", "a", "so 😀", "<|im_end|>", [], {}, 1.5, [CALL]]),
    st.lists(st.sampled_from(["a", {"type": "text", "text": "b"}, {"type": "image"}, None])),
)
ODD_TURN = st.one_of(
    ODD,
    st.dictionaries(
        st.sampled_from(
            ["role", "content", "from", "value", "weight", "loss", "tool_calls", "name"]
        ),
        ODD | st.sampled_from(["user", "assistant", "system", "tool"]),
    ),
    st.builds(
        lambda role, content, more: {"role": role, "content": content, **more},
        st.sampled_from(["user", "assistant", "system", "tool", "developer"]),
        st.text(max_size=6) | ODD,
        st.dictionaries(st.sampled_from(["weight", "name", "reasoning_content"]), ODD, max_size=1),
    ),
)
PLAIN_TURN = st.sampled_from([user("so? "), user("😀"), assistant("bad"), assistant("a", weight=0)])


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(CHATS)),
    st.sampled_from(["messages", "conversations"]),
    st.lists(PLAIN_TURN | PLAIN_TURN | PLAIN_TURN | ODD_TURN, max_size=4),
    st.dictionaries(st.sampled_from(["tools", "system", "functions"]), ODD, max_size=1),
    st.sampled_from(["last", "all"]),
)
def test_every_conversation_is_learned_or_refused_in_one_line(
    name: str, field: str, talk: list[Any], more: dict[str, Any], how: Any
) -> None:
    """What is learned is a beginning of what transformers writes, and is read the same twice."""
    refusal = ""
    try:
        (made,) = as_rows([{field: [*talk, assistant("good")], **more}])
        task = bound(name, turns=how)
        task.check([made], answers=True)
        ids, places = learned(task, made)
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("row 1: ")
        assert "\n" not in refusal
        return
    assert as_rows([made]) == [made]
    messages, tools = made.fields["messages"], made.fields.get("tools")
    whole = written(name, messages, tools=tools)
    asked = written(name, messages[:-1], asks=True, tools=tools) if messages[1:] else []
    if how == "all" or whole[: len(asked)] == asked:
        assert ids == whole[: len(ids)]
    else:  # the last turn changes those before it, so that it is asked for otherwise
        assert ids[: len(asked)] == asked
    assert ids[-1] == chat_backbone(name).text.turn_end[-1]
    assert places[-1] == len(ids) - 1
