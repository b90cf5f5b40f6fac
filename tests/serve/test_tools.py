"""Answers that call tools: in the form of the chat template or a plain one, under a grammar."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import httpx2
import openai
import pytest
import torch
from openai import OpenAI

import char_model
from chat_templates import chat_backbone, chat_tokenizer
from families import CAUSAL, family_model
from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.serve.engine import Engine
from foreword.serve.texts import TextRequests
from foreword.serve.tool_form import PLAIN, ToolForm, form_of
from foreword.serve.tool_rule import ToolRule, Tools, check_tools
from serve.serving import TALK, WRITE, in_thread, prefix, prompt_of

TURNS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}CALLS<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = {
    "hermes": (
        "{% for c in m.tool_calls or [] %}{{ '\n' if not loop.first or m.content }}"
        '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
        "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}"
    ),
    "llama3.1": (
        "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}"
        "{{ raise_exception('one call at once') }}{% endif %}"
        '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
        "{{ m.tool_calls[0].function.arguments | tojson }}}{% endif %}"
    ),
    "mistral": (
        "{% if m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
        '{{ ", " if not loop.first }}{"name": "{{ c.function.name }}", "arguments": '
        "{{ c.function.arguments | tojson }}}{% endfor %}]{% endif %}"
    ),
    "python": "{% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor %}",
}
HERMES = ToolForm(PLAIN.begin, PLAIN.between, PLAIN.again, PLAIN.last)
FORMS = {
    "hermes": HERMES,
    "qwen": HERMES,
    "llama3.1": ToolForm('{"name": "', '", "parameters": ', None, "}"),
    "mistral": ToolForm('[TOOL_CALLS] [{"name": "', '", "arguments": ', '}, {"name": "', "}]"),
    "python": PLAIN,  # of which no JSON can be read
    "qwen3": PLAIN,  # writes no tools
    "gemma": PLAIN,  # and has no system messages
}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "now",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"enum": ["C", "F"]}, "days": {"enum": [1, 2]}},
        "required": ["unit", "days"],
        "additionalProperties": False,
    },
}
MAIL: dict[str, Any] = {
    "name": "mail",
    "description": "",
    "parameters": {
        "type": "object",
        "properties": {"to": {"enum": ["me", "you"]}},
        "required": ["to"],
        "additionalProperties": False,
    },
}
FUNCTIONS = [{"type": "function", "function": each} for each in (WEATHER, MAIL)]
HI = [{"role": "user", "content": "hello"}]


@cache
def calling(name: str) -> Backbone:
    """A tiny model whose chat template writes calls in one of the forms."""
    if name not in (*CALLS, "qwen"):
        return chat_backbone(name)
    tokenizer = copy.deepcopy(chat_tokenizer("qwen2"))
    tokenizer.chat_template = TURNS.replace("CALLS", CALLS["hermes" if name == "qwen" else name])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]"]})
    if name == "qwen":  # tokens that are no special ones, and yet no text to llguidance
        tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    llama = next(family for family in CAUSAL if family.name == "llama")
    eos = tokenizer.eos_token_id
    sizes = {"vocab_size": len(tokenizer), "bos_token_id": eos, "eos_token_id": eos}
    return Backbone(family_model(llama, **sizes), tokenizer, architecture="causal", name=name)


def obeys(name: str, arguments: str) -> bool:
    """Whether the arguments of a call are those of its function."""
    said = json.loads(arguments)
    if name == "weather":
        return bool(said.keys() == {"unit", "days"} and said["unit"] in "CF" and said["days"] < 3)
    return name == "mail" and said in ({"to": "me"}, {"to": "you"})


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_calls_is_found_in_the_chat_template(name: str) -> None:
    assert form_of(calling(name).text) == FORMS[name]


@pytest.mark.parametrize("name", ["hermes", "qwen", "llama3.1", "mistral", "gemma"])
def test_calls_are_written_as_the_chat_template_writes_them(name: str) -> None:
    base = calling(name)
    texts = TextRequests(base)
    tools = Tools(FUNCTIONS, "required", parallel=name == "hermes")
    asked = texts.chat(None, HI, {"max_new_tokens": 90}, 200, tools)
    read = base.text.tokenizer.decode(asked.ids)
    assert "weather" in read
    assert ("You may call" in read) is not FORMS[name].native
    assert asked.rule is not None
    with Engine(base) as engine:
        written = engine.generate(asked.ids, None, asked.sampling, grammar=asked.rule.begin())
        text, finish = written.result(20).text, written.result().finish
    for size in (1, 3, 1000):
        reader, said, calls = asked.rule.reader(), "", dict[int, list[str]]()
        for start in range(0, len(text) + size, size):
            more, pieces = reader.add(text[start : start + size], last=start >= len(text))
            said += more
            for piece in pieces:
                calls.setdefault(piece.number, [piece.name or "", ""])[1] += piece.arguments
        assert said.strip() == ""
        assert calls
        whole = list(calls.values())[: None if finish == "stop" else -1]
        assert all(obeys(*each) for each in whole)
    assert name == "hermes" or (len(calls), finish) == (1, "stop")


@pytest.mark.parametrize("name", ["hermes", "qwen", "llama3.1", "mistral", "gemma"])
def test_text_may_stand_before_calls_that_are_not_asked_for(name: str) -> None:
    base, form = calling(name), FORMS[name]
    rule, text = ToolRule(Tools(FUNCTIONS), form, base), base.text
    call = f'{form.begin}mail{form.between}{{"to": "me"}}{form.last}'
    before = "I look:\n"
    end = base.ends[0]

    def follows(said: str, rule: ToolRule = rule) -> bool:
        """Whether all tokens of a text are allowed, and the end behind them."""
        state, ids = rule.begin(), [*text.ids(said), end]
        for place, token in enumerate(ids):
            if state.allow(torch.zeros(base.vocabulary))[token] != 0:
                return False
            if state.accept(token):
                return place >= len(ids) - 2
        return False

    assert follows("good and bad { < [\n")
    assert follows("<think>\ngood\n</think>\n")
    assert follows("<think>\ngood\n</think>\n" + call)
    assert follows(before + call)
    assert not follows(before + call.replace("mail", "post"))
    assert not follows(before + call.replace('"me"', '"us"'))
    assert not follows(call + " and")
    held = ToolRule(Tools(FUNCTIONS), form, base, '{"enum": ["good"]}')
    assert follows('"good"', held)
    assert follows(call, held)
    assert not follows("good", held)
    reader = rule.reader()
    said, calls = reader.add(text.without_special(before + call), last=True)
    assert said.strip() == before.strip()
    assert (calls[0].name, calls[1].arguments) == ("mail", '{"to": "me"}')


def test_what_tools_have_said_is_read_in_the_plain_form() -> None:
    function = {"name": "mail", "arguments": {"to": "me"}}
    talk = [
        {"role": "user", "content": "a film"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": function}]},
        {"role": "tool", "content": "sent", "tool_call_id": "1"},
        {"role": "tool", "content": "twice", "tool_call_id": "2"},
    ]
    base = calling("gemma")
    ids = TextRequests(base).chat(None, talk, {"max_new_tokens": 4}, 9, Tools(FUNCTIONS)).ids
    read = base.text.tokenizer.decode(ids)
    assert read.startswith("<bos><start_of_turn>user\nYou may call these functions:\n{")
    assert read.endswith(
        "a film<end_of_turn>\n<start_of_turn>model\n<tool_call>\n"
        '{"name": "mail", "arguments": {"to": "me"}}\n</tool_call><end_of_turn>\n'
        "<start_of_turn>user\n<tool_response>\nsent\n</tool_response>\n<tool_response>\ntwice\n"
        "</tool_response><end_of_turn>\n<start_of_turn>model\n"
    )


def test_tools_that_cannot_be_called_are_refused() -> None:
    scalar = {"name": "a", "parameters": {"type": "string"}}
    for tools, said in (
        (Tools([FUNCTIONS[0]] * 2), "two have the name 'weather'"),
        (Tools([{"function": scalar}]), "takes an object"),
        (Tools([], "required"), "there are no `tools`"),
        (Tools(FUNCTIONS, "required", named="post"), "no function 'post'"),
    ):
        with pytest.raises(UserError, match=said):
            check_tools(tools)


# OpenAI's client ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tools")
    backbone = Backbone.load(char_model.save(folder / "model"))
    prompt_of(backbone, TALK, prefix(backbone, 3)).save(folder / "talk.safetensors")
    prompt_of(backbone, WRITE, prefix(backbone, 1)).save(folder / "write.safetensors")
    with in_thread(folder, backbone) as made:
        yield made


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object", "properties": {}}])
def test_a_function_that_names_no_parameters_is_called_without_arguments(
    url: str, parameters: dict[str, Any] | None
) -> None:
    function = {"name": "now"} if parameters is None else {"name": "now", "parameters": parameters}
    quote = char_model.CHARACTERS.index('"')
    with httpx2.Client(base_url=url, timeout=60) as client:
        asked = {
            "model": "talk",
            "logit_bias": {str(quote): 100},  # a model that wants to name an argument
            "messages": HI,
            "max_tokens": 80,
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        }
        (choice,) = client.post("/v1/chat/completions", json=asked).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "now", "arguments": "{}"}
    assert choice["finish_reason"] == "tool_calls"


def test_a_required_call_that_is_cut_off_gives_no_text(url: str) -> None:
    with httpx2.Client(base_url=url, timeout=60) as client:
        for most in range(1, 25):
            asked = {"model": "talk", "messages": HI, "max_tokens": most, "tools": FUNCTIONS}
            found = client.post("/v1/chat/completions", json={**asked, "tool_choice": "required"})
            (choice,) = found.json()["choices"]
            assert choice["finish_reason"] == "length"
            assert not choice["message"]["content"], most


@pytest.mark.slow
def test_openai_s_client_is_answered_with_calls_in_any_mix(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    create: Any = client.chat.completions.create
    few, most = {"max_tokens": 8}, {"max_tokens": 80}
    mail = {"type": "function", "function": {"name": "mail"}}
    kinds: list[dict[str, Any]] = [
        {"tools": FUNCTIONS, "tool_choice": "required", "parallel_tool_calls": False, **most},
        {"tools": FUNCTIONS, "tool_choice": mail, **most},
        {"tools": FUNCTIONS, "tool_choice": "none", **few},
        {"tools": FUNCTIONS, **few},
        few,
    ]
    jobs = [{"messages": HI, **kind, "model": m} for kind in kinds for m in ("talk", "model")]

    def ask(job: dict[str, Any]) -> Any:
        return create(**job).choices[0]

    alone = [ask(job) for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        beside = list(pool.map(ask, jobs))
    for job, one, other in zip(jobs, alone, beside, strict=True):
        called = [(c.function.name, c.function.arguments) for c in one.message.tool_calls or []]
        again = [(c.function.name, c.function.arguments) for c in other.message.tool_calls or []]
        assert (one.message.content, called) == (other.message.content, again)
        if job.get("tool_choice") in ("required", mail):
            ((name, arguments),) = called
            assert one.finish_reason == "tool_calls"
            assert one.message.content is None
            assert obeys(name, arguments)
            assert job["tool_choice"] == "required" or name == "mail"
            parts = [part.choices[0] for part in create(**job, stream=True)]
            deltas = [c for part in parts for c in part.delta.tool_calls or []]
            assert deltas[0].function.name == name
            assert deltas[0].id
            assert "".join(each.function.arguments for each in deltas) == arguments
            assert parts[-1].finish_reason == "tool_calls"
            assert not any(part.delta.content for part in parts)
    for none, nothing in zip(alone[4:6], alone[8:10], strict=True):
        assert none.message == nothing.message
    calls = alone[0].message.model_dump(exclude_none=True)
    told = {"role": "tool", "tool_call_id": calls["tool_calls"][0]["id"], "content": "done"}
    for model in ("talk", "model"):
        after = create(model=model, messages=[*HI, calls, told], tools=FUNCTIONS, max_tokens=8)
        assert after.choices[0].finish_reason == "length"
    client.close()


def function(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type"),
    ({"tools": [FUNCTIONS[0]] * 2}, "tools"),
    ({"tools": [function("a", type="objekt")]}, "tools"),
    ({"tools": [function("a", properties={"b": {"type": "objekt"}})]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, "tool_choice"),
    ({"functions": [WEATHER]}, ""),
]


def test_wrong_tools_are_refused_with_the_field(url: str) -> None:
    with httpx2.Client(base_url=url, timeout=60) as client:
        for body, param in WRONG:
            given = {"model": "talk", "messages": HI, **body}
            found = client.post("/v1/chat/completions", json=given)
            assert found.status_code == 400, (body, found.text)
            assert (found.json()["error"]["param"] or "").startswith(param), found.text
        for turn in ({"role": "user", "tool_calls": [{"function": {"name": "a"}}]},
                     {"role": "tool"}, {"role": "assistant", "content": None}):  # fmt: skip
            given = {"model": "talk", "messages": [turn, *HI]}
            found = client.post("/v1/chat/completions", json=given)
            assert found.status_code == 400, found.text
            assert found.json()["error"]["param"].startswith("messages[0]"), found.text
    bare = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="`functions` is not supported"):
        bare.chat.completions.create(model="talk", messages=HI, functions=[WEATHER])  # type: ignore[call-overload]
    bare.close()
