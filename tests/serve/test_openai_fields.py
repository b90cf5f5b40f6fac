"""Fields of OpenAI's two routes: each does what it says, or is refused by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from openai import OpenAI

import char_model
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.request import Sampling
from serve.serving import WRITE, in_thread, prompt_of, prompts

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
ASKED: dict[str, dict[str, Any]] = {
    TEXT: {"model": "write", "prompt": "hello"},
    CHAT: {"model": "talk", "messages": [{"role": "user", "content": "hello"}]},
}


class Here:
    """A server in a thread of this process, and what it serves."""

    def __init__(self, url: str, folder: Path, backbone: Backbone, own: dict[str, Prompt]) -> None:
        self.folder, self.backbone, self.prompts = folder, backbone, own
        self.http = httpx2.Client(base_url=url, timeout=60)
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def texts(self, **body: Any) -> list[str]:
        found = self.client.completions.create(**{**ASKED[TEXT], **body})
        return [each.text for each in found.choices]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder: Path = tmp_path_factory.mktemp("fields")
    backbone = Backbone.load(char_model.save(folder / "model"))
    own = prompts(backbone)
    for name, prompt in own.items():
        prompt.save(folder / f"{name}.safetensors")
    with in_thread(folder, backbone) as url:
        made = Here(url, folder, backbone, own)
        yield made
        made.http.close()
        made.client.close()


def test_token_ids_are_read_as_they_are(here: Here) -> None:
    ids = here.backbone.text.ids("hello:")
    (right,) = here.texts()
    assert here.texts(prompt=ids) == [right]
    other = here.backbone.text.ids("it was:")
    assert here.texts(prompt=[ids, other], n=2) == [right] * 2 + here.texts(prompt="it was") * 2
    bare = here.texts(model="model", prompt="hello:", max_tokens=4)
    assert here.texts(model="model", prompt=ids, max_tokens=4) == bare


def test_texts_that_end_an_answer_are_added_to_the_prompt_s_own(here: Here) -> None:
    usual = WRITE.decoding
    (text,) = here.texts(max_tokens=12)
    own, other = text[5], text[2]
    made = replace(WRITE, decoding=replace(usual, max_new_tokens=12, stop=(own,)))
    prompt_of(here.backbone, made, here.prompts["write"].injection).save(
        here.folder / "ends.safetensors"
    )
    short = text[: text.index(own)].strip()
    for stop in (None, [], "~", ["~"]):
        assert here.texts(model="ends", stop=stop) == [short]
    assert here.texts(model="ends", stop=other) == [text[: text.index(other)].strip()]


def test_an_echo_is_the_text_before_the_answer(here: Here) -> None:
    (right,) = here.texts()
    assert here.texts(echo=True, n=2) == [f"hello{right}"] * 2
    ids = here.backbone.text.ids("hello:")
    assert here.texts(prompt=[ids], echo=True) == [f"hello:{right}"]
    parts = here.client.completions.create(**ASKED[TEXT], echo=True, stream=True)  # type: ignore[call-overload]
    assert "".join(part.choices[0].text for part in parts) == f"hello{right}"


def test_an_echo_tells_how_likely_its_text_is(here: Here) -> None:
    """As lm-evaluation-harness asks: the tokens of a text, and of what follows, in one list."""
    base, prompt = here.backbone, here.prompts["write"]
    ids = tuple(base.text.ids("hello:"))
    asked = {"model": "write", "prompt": [ids], "echo": True, "logprobs": 2, "max_tokens": 3}
    for injection, more in ((prompt.injection, {}), (NOTHING, {"model": "model"})):
        made = here.client.completions.create(**{**asked, **more}).choices[0]
        told: Any = made.logprobs
        with torch.no_grad():
            row = Example(ids[:1], 1, (ids[1:],), tuple((0, n - 1) for n in range(len(ids) - 1)))
            logs = base.logits(base.states([row], injection)).log_softmax(1)
        expected = logs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        count = len(ids)
        assert told.token_logprobs[0] is told.top_logprobs[0] is None
        assert told.token_logprobs[1:count] == pytest.approx(expected, abs=1e-4)
        for top, row_logs in zip(told.top_logprobs[1:count], logs, strict=True):
            assert max(top.values()) == pytest.approx(float(row_logs.max()), abs=1e-4)
        assert "".join(told.tokens[:count]) == "hello:"
        assert told.text_offset[:count] == list(range(count))
        assert told.text_offset[count] == count
        assert len(told.tokens) == count + 3
        assert made.text.startswith("hello:")
        parts = [*here.client.completions.create(**{**asked, **more}, stream=True)]
        own = [each for part in parts for each in part.choices[0].logprobs.token_logprobs]
        assert own[1:] == pytest.approx(told.token_logprobs[1:], abs=1e-4)
        assert "".join(part.choices[0].text for part in parts) == made.text
    plain = here.client.completions.create(**{**asked, "model": "model", "prompt": "hello:"})
    assert plain.choices[0].logprobs.tokens[-7:] == told.tokens[-7:]


def test_draws_differ_unless_a_seed_says_otherwise(here: Here) -> None:
    how = {"temperature": 2.0, "max_tokens": 12}
    assert len({here.texts(**how)[0] for _ in range(3)}) == 3
    several = {**how, "prompt": ["hello", "hello", "it was"], "n": 2}
    found = here.texts(**several, seed=5)
    assert len(set(found)) == 6
    assert here.texts(**several, seed=5) == found
    assert here.texts(**how, seed=5) == found[:1]
    assert here.texts(**how, prompt="it was", seed=5) == found[4:5]
    assert not {here.texts(**how, seed=seed)[0] for seed in range(6, 10)} & {*found}
    assert here.texts(n=2) == here.texts(temperature=0) * 2 == here.texts(temperature=1e-40) * 2


def test_vllms_repetition_penalty_is_that_of_the_settings(here: Here) -> None:
    how = {"model": "write", "max_tokens": 24}
    body = {**ASKED[TEXT], **how, "repetition_penalty": 1.8, "top_k": -1, "min_p": 0.0}
    found = here.http.post(TEXT, json=body).json()["choices"][0]["text"]
    free = here.http.post(TEXT, json={**ASKED[TEXT], **how}).json()["choices"][0]["text"]
    prompt = here.prompts["write"]
    asked = ASKED[TEXT]["prompt"]
    assert found == prompt.predict(asked, max_new_tokens=24, repetition_penalty=1.8) != free


def test_what_was_answered_can_be_sent_back_though_it_is_empty(here: Here) -> None:
    chat: Any = here.client.chat.completions.create
    end = {str(here.backbone.ends[0]): 100}
    ask = [{"role": "user", "content": "hello"}]
    for model in ("talk", "model"):
        said = chat(model=model, messages=ask, logit_bias=end).choices[0].message
        assert said.content == ""
        tool = {"role": "tool", "tool_call_id": "1", "content": ""}
        turns = [*ask, said.model_dump(exclude_none=True), *ask, tool]
        assert chat(model=model, messages=turns, max_tokens=2).choices[0].message.content
    silent = {**ASKED[CHAT], "messages": [{"role": "user", "content": ""}]}
    assert here.http.post(CHAT, json=silent).json()["error"]["param"] == "messages[0].content"


def test_scores_are_shifted_as_openai_says(here: Here) -> None:
    """By what OpenAI's page on penalties has: bias, and c * frequency + (c > 0) * presence."""
    base, row = here.backbone, tuple(here.backbone.text.ids("hello hello:"))
    how = Sampling(
        max_new_tokens=24,
        logit_bias=((5, 1.5), (7, -100.0), (5, 0.25)),
        presence_penalty=0.4,
        frequency_penalty=1.1,
    )
    said: list[int] = []
    while len(said) < how.max_new_tokens:
        with torch.no_grad():
            example = Example((*row, *said), len(row) + len(said), ((),), ((0, -1),))
            scores = base.logits(base.states([example]))[0].double()
        scores[5] += 1.75
        scores[7] -= 100
        for token, count in Counter(said).items():
            scores[token] -= 0.4 + 1.1 * count
        token = int(scores.argmax())
        if token in base.ends:
            break
        said.append(token)
    with Engine(base) as engine:
        shifted, plain = engine.generate(row, None, how), Sampling(max_new_tokens=24)
        free = engine.generate(row, None, plain).result(20)
        assert list(shifted.result(20).tokens) == said
        assert said != list(free.tokens)
        with pytest.raises(UserError, match="the token 9999 is none of the"):
            engine.generate(row, None, Sampling(logit_bias=((9999, 1.0),)))
    for wrong in ({"presence_penalty": 3.0}, {"logit_bias": ((5, 101.0),)}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Sampling(**wrong).check()  # type: ignore[arg-type]


def test_they_are_openai_s_names_in_requests(here: Here) -> None:
    (free,) = here.texts(max_tokens=12)
    token = str(here.backbone.text.ids("q")[0])
    assert here.texts(logit_bias={token: 100}, max_tokens=3) == ["qqq"]
    assert here.texts(logit_bias={token: -100}, max_tokens=12) == [free]
    once = here.texts(logit_bias={token: 4}, frequency_penalty=2, max_tokens=12)[0]
    assert once.count("q") < here.texts(logit_bias={token: 4}, max_tokens=12)[0].count("q")
    chat: Any = here.client.chat.completions.create
    one = chat(**ASKED[CHAT], max_completion_tokens=3).choices[0]
    assert one == chat(**ASKED[CHAT], max_tokens=3, user="me", seed=1).choices[0]
    assert one.finish_reason == "length"
    opened = chat(**ASKED[CHAT], response_format={"type": "json_object"}).choices[0]
    assert opened.message.content.startswith("{")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (TEXT, {"suffix": "a"}, "suffix"),
    (TEXT, {"best_of": 3}, "best_of"),
    (TEXT, {"echo": True, "logprobs": 1}, "echo"),  # a template puts more around the text
    (TEXT, {"prompt": {}}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": [1, "a"]}, "prompt[1]"),
    (TEXT, {"prompt": ["a", ""]}, "prompt[1]"),
    (TEXT, {"prompt": ["a", "b", 3]}, "prompt[2]"),
    (TEXT, {"prompt": [[5], "a"]}, "prompt[1]"),
    (TEXT, {"prompt": [[5], []]}, "prompt[1]"),
    (TEXT, {"prompt": [-1]}, "prompt[0]"),
    (TEXT, {"prompt": [10**6]}, "prompt"),
    (TEXT, {"prompt": [5] * 2000}, "prompt"),
    (TEXT, {"max_completion_tokens": 5}, "max_completion_tokens"),
    (TEXT, {"tools": []}, "tools"),
    (TEXT, {"logprobs": 6}, "logprobs"),
    (CHAT, {"echo": True}, "echo"),
    (CHAT, {"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
    (CHAT, {"modalities": ["audio"]}, "modalities"),
    (CHAT, {"web_search_options": {}}, "web_search_options"),
    (CHAT, {"store": True}, "store"),
    (CHAT, {"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
    (CHAT, {"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
    *(
        (path, body, param)
        for path in (TEXT, CHAT)
        for body, param in (
            ({"presence_penalty": 3}, "presence_penalty"),
            ({"repetition_penalty": 0}, "repetition_penalty"),
            ({"top_k": 5}, "top_k"),
            ({"logit_bias": {"5": 101}}, "logit_bias"),
            ({"logit_bias": {"999999": 1}}, "logit_bias"),
            ({"stop": [1]}, "stop[0]"),
            ({"stop": ["a"] * 17}, "stop"),
            ({"n": 0}, "n"),
            ({"stream_options": {"include_usage": True}}, "stream_options"),
        )
    ),
]


def test_what_is_not_there_is_refused_by_its_name(here: Here) -> None:
    for path, body, param in REFUSED:
        found = here.http.post(path, json={**ASKED[path], **body})
        assert found.status_code == 400, (body, found.text)
        error = found.json()["error"]
        assert error["param"] == param, (body, error)
        named = param.split("[")[0].split(".")[0]
        assert named in error["message"] or error["code"] == "context_length_exceeded", error


def test_what_is_too_long_says_what_it_is_longer_than(here: Here) -> None:
    """The model has room for 1024 tokens, the prefixes leave 3 fewer; one prompt reads 512."""
    long = [{"role": "user", "content": "a" * 600}]
    for path, body, said in (
        (TEXT, {"prompt": "a" * 600}, "512 tokens that the prompt reads; shorten it"),
        (CHAT, {"messages": long, "max_tokens": 700}, "321 tokens that are read; shorten it, or"),
        (CHAT, {"max_tokens": 1020}, "1 tokens that are read; shorten it, or ask for fewer"),
        (TEXT, {"prompt": [5] * 600, "max_tokens": 700}, "321 tokens that are read; shorten it,"),
    ):
        found = here.http.post(path, json={**ASKED[path], **body})
        error = found.json()["error"]
        assert (found.status_code, error["code"]) == (400, "context_length_exceeded"), error
        assert f"longer than the {said}" in error["message"], error
        assert error["param"] == ("prompt" if path == TEXT else "messages")


def test_pictures_and_sounds_are_refused_as_what_they_are(here: Here) -> None:
    for part in (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "a"}},
    ):
        content = [{"type": "text", "text": "what is this?"}, part]
        body = {**ASKED[CHAT], "messages": [{"role": "user", "content": content}]}
        found = here.http.post(CHAT, json=body)
        error = found.json()["error"]
        assert (found.status_code, error["param"]) == (400, "messages[0].content[1].type")
        assert f"texts alone, and no '{part['type']}'" in error["message"]


def test_fields_that_ask_for_nothing_are_left_out(here: Here) -> None:
    """Clients send all that they know, empty: the answer is the same."""
    assert here.texts(user="me", suffix="", best_of=1) == here.texts()
    for field, value in (
        *((name, None) for name in ("moderation", "prompt_cache_options", "prediction", "audio")),
        ("prompt_cache_retention", None),
        ("prompt_cache_retention", "24h"),
        ("prompt_cache_key", "a"),
        ("store", False),
        ("metadata", {"a": "b"}),
        ("service_tier", "auto"),
    ):
        found = here.http.post(CHAT, json={**ASKED[CHAT], field: value, "max_tokens": 1})
        assert found.status_code == 200, (field, found.text)


def test_an_unknown_prompt_is_answered_with_those_that_are_like_it(here: Here) -> None:
    for model, near in (("wriet", "'write'"), ("modle", "'model'"), ("write+takl", "'talk'")):
        found = here.http.post(TEXT, json={**ASKED[TEXT], "model": model})
        assert found.status_code == 404
        assert f"did you mean {near}" in found.json()["error"]["message"]
    far = here.http.post(TEXT, json={**ASKED[TEXT], "model": "zzzz"})
    assert far.json()["error"]["message"] == "there is no prompt 'zzzz'"
    other = here.http.get(TEXT)
    assert other.json()["error"]["message"] == f"{TEXT} knows no GET"
