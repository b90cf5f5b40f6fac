"""A real server on loopback, asked by OpenAI's own client, and by clients that mean no good."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.backbone.decode import Decoding, decode
from foreword.data.row import Row
from foreword.injection import NOTHING
from foreword.serve.http.schemas import NEUTRAL
from processes import until
from serve.serving import ADMIN, KEY, TALK, WRITE, Served, prefix, prompt_of, served

HI = [{"role": "user", "content": "hello"}]
LIMITS = ["--queue", "6", "--max-tokens", "200", "--max-body", "4096", "--max-seconds", "60"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    heard = ["--feedback", str(tmp_path_factory.mktemp("heard"))]
    with served(tmp_path_factory.mktemp("served"), *LIMITS, *heard) as made:
        yield made


def alone(server: Served, text: str, tokens: int = 8) -> str:
    """What the model alone writes after a text."""
    ids = server.backbone.text.ids(text)
    from foreword.injection import NOTHING

    return decode(server.backbone, [ids], NOTHING, Decoding(max_new_tokens=tokens))[0]


# Answers ------------------------------------------------------------------------------------------


def test_models_are_the_base_and_all_prompts(server: Served) -> None:
    found = {each.id: each for each in server.client().models.list()}
    assert list(found) == ["model", *sorted(server.prompts)]
    extra = found["write"].model_extra or {}
    assert (extra["root"], extra["parent"]) == ("model", "model")
    assert (found["model"].model_extra or {})["parent"] is None
    assert server.client().models.retrieve("write").id == "write"


def test_completions_are_those_of_predict(server: Served) -> None:
    client = server.client()
    for name in ("write", "soft"):
        for text in ("hello", "a longer text, it was 12 words"):
            made = client.completions.create(model=name, prompt=text)
            assert made.choices[0].text == server.prompts[name].predict(text)
            assert made.model == f"{name}@1"
            assert made.usage is not None
            assert made.usage.prompt_tokens == len(server.backbone.text.ids(f"{text}:"))
            assert made.usage.total_tokens == made.usage.prompt_tokens + 8
    made = client.completions.create(model="model", prompt="hello", max_tokens=8)
    assert made.choices[0].text == alone(server, "hello")
    assert made.choices[0].finish_reason == "length"
    several = client.completions.create(model="write", prompt=["hello", "it was"], n=2)
    assert [each.index for each in several.choices] == [0, 1, 2, 3]
    right = server.prompts["write"].predict(["hello", "hello", "it was", "it was"])
    assert [each.text for each in several.choices] == right


def test_chats_are_read_by_the_prompt_s_own_template(server: Served) -> None:
    client = server.client()
    right = server.prompts["talk"].predict({"messages": HI})
    made = client.chat.completions.create(model="talk", messages=HI)  # type: ignore[arg-type]
    assert made.choices[0].message.content == right
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert client.chat.completions.create(model="talk", messages=parts).choices == made.choices
    bare = client.chat.completions.create(model="model", messages=HI, max_tokens=8)  # type: ignore[arg-type]
    row = Row({"messages": HI}, "row")
    (own,) = TALK.bind(server.backbone).predict([row], NOTHING)
    assert bare.choices[0].message.content == own["text"]


def test_streams_hold_the_same_text(server: Served) -> None:
    client = server.client()
    whole = client.completions.create(model="write", prompt="hello", max_tokens=40)
    usage = {"include_usage": True}
    parts = list(
        client.completions.create(
            model="write",
            prompt="hello",
            max_tokens=40,
            stream=True,
            stream_options=usage,  # type: ignore[call-overload]
        )
    )
    texts = [part.choices[0].text for part in parts if part.choices]
    assert "".join(texts) == whole.choices[0].text
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "length"
    assert parts[-1].usage == whole.usage
    said = client.chat.completions.create(model="talk", messages=HI, n=2, stream=True)  # type: ignore[call-overload]
    made = {0: "", 1: ""}
    for part in said:
        made[part.choices[0].index] += part.choices[0].delta.content or ""
    assert made[0] == made[1] == server.prompts["talk"].predict({"messages": HI})


def test_settings_of_sampling_are_the_request_s_own(server: Served) -> None:
    client = server.client()

    def ask(**settings: Any) -> str:
        return client.completions.create(model="write", prompt="hello", **settings).choices[0].text

    draws = {ask(temperature=1.0, seed=seed) for seed in range(4)}
    assert len(draws) > 1
    assert ask(temperature=1.0, seed=1) == ask(temperature=1.0, seed=1)
    assert ask(temperature=1.0, seed=1, top_p=1e-9) == ask()
    text = ask(max_tokens=12)
    assert ask(max_tokens=12, stop=text[5]) == text[: text.index(text[5])].strip()
    assert ask(max_tokens=12, stop=["~", text[5]]) == text[: text.index(text[5])].strip()


def test_predictions_are_those_of_the_prompt_s_task(server: Served) -> None:
    http = server.http()

    def ask(model: str, inputs: Any, **more: Any) -> list[dict[str, Any]]:
        found = http.post("/v1/predict", json={"model": model, "inputs": inputs, **more})
        assert found.status_code == 200, found.text
        return found.json()["predictions"]  # type: ignore[no-any-return]

    texts = ["hello", "it was", "12"]
    right = server.prompts["sort"].predict(texts, probabilities=True)
    found = ask("sort", texts)
    for each, own in zip(found, right, strict=True):
        assert each["probabilities"] == pytest.approx(own, abs=1e-5)
        assert each["label"] == max(own, key=own.get)
        assert each["probability"] == max(each["probabilities"].values())
    sure = sum(sorted(each["probability"] for each in found)[:2]) / 2
    blank = ask("sort", texts, min_probability=sure)
    assert [each["label"] is None for each in blank] == [e["probability"] < sure for e in found]
    (pair,) = ask("pair", {"text_a": "it", "text_b": "it"})
    assert pair["label"] == server.prompts["pair"].predict({"text_a": "it", "text_b": "it"})
    assert ask("write", "hello") == [{"answer": server.prompts["write"].predict("hello")}]


def test_prompts_are_joined_by_plus(server: Served) -> None:
    from foreword.compose.merge import concatenate

    own = concatenate([server.prompts["write"], server.prompts["soft"]])
    made = server.client().completions.create(model="write+soft", prompt="hello")
    assert (made.model, made.choices[0].text) == ("write@1+soft@1", own.predict("hello"))


def test_requests_of_all_kinds_at_once_are_answered_as_alone(server: Served) -> None:
    client = server.client()
    jobs = [(name, text) for name in ("write", "soft") for text in ("hello", "it was", "1 2 3")]
    right = [server.prompts[name].predict(text) for name, text in jobs]

    def ask(job: tuple[str, str]) -> str:
        return client.completions.create(model=job[0], prompt=job[1]).choices[0].text

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, jobs)) == right


# Refusals -----------------------------------------------------------------------------------------

OK = {"model": "write", "prompt": "hello"}
CHAT = {"model": "talk", "messages": HI}
TEXT, CHATS, PREDICT = "/v1/completions", "/v1/chat/completions", "/v1/predict"
WRONG: list[tuple[str, Any, int, str | None]] = [
    (TEXT, {**OK, "model": "nix"}, 404, "model"),
    (TEXT, {**OK, "model": "write@7"}, 404, "model"),
    (TEXT, {**OK, "model": "../write"}, 404, "model"),
    (TEXT, {**OK, "model": "sort"}, 400, "model"),
    (CHATS, {**CHAT, "model": "sort"}, 400, "model"),
    (TEXT, {**OK, "model": "write+sort"}, 400, "model"),
    (TEXT, {**OK, "prompt": ""}, 400, "prompt"),
    (TEXT, {**OK, "prompt": "hello " * 600}, 400, "prompt"),
    (TEXT, {**OK, "prompt": []}, 400, None),
    (TEXT, {**OK, "prompt": 7}, 400, None),
    (TEXT, {"model": "write"}, 400, "prompt"),
    (TEXT, {**OK, "temperature": "hot"}, 400, "temperature"),
    (TEXT, {**OK, "temperature": -1}, 400, "temperature"),
    (TEXT, {**OK, "temperature": True}, 400, "temperature"),
    (TEXT, {**OK, "top_p": 0}, 400, "top_p"),
    (TEXT, {**OK, "max_tokens": 0}, 400, "max_tokens"),
    (TEXT, {**OK, "max_tokens": 201}, 400, "max_tokens"),
    (TEXT, {**OK, "max_tokens": 10**40}, 400, "max_tokens"),
    (TEXT, {**OK, "seed": 2**70}, 400, "seed"),
    (TEXT, {**OK, "n": 99}, 400, "n"),
    (TEXT, {**OK, "stop": [""]}, 400, None),
    (TEXT, {**OK, "stream_options": {"include_usage": True}}, 400, "stream_options"),
    (TEXT, {**OK, "unheard_of": 1}, 400, "unheard_of"),
    (TEXT, [], 400, None),
    (TEXT, "text", 400, None),
    (CHATS, {**CHAT, "messages": []}, 400, "messages"),
    (CHATS, {**CHAT, "messages": [{"role": "king", "content": "a"}]}, 400, "messages[0].role"),
    (CHATS, {**CHAT, "messages": [{"role": "user"}]}, 400, "messages[0].content"),
    (CHATS, {**CHAT, "messages": [{"role": "user", "content": "a " * 900}]}, 400, "messages"),
    (CHATS, {**CHAT, "messages": [*HI, {"role": "assistant", "content": "a"}]}, 400, "messages"),
    (CHATS, {**CHAT, "top_logprobs": 3}, 400, "top_logprobs"),
    (PREDICT, {"model": "sort", "inputs": []}, 400, None),
    (PREDICT, {"model": "sort", "inputs": [""]}, 400, "inputs[0]"),
    (PREDICT, {"model": "sort", "inputs": ["a", {"txt": "b"}]}, 400, "inputs[1].text"),
    (PREDICT, {"model": "pair", "inputs": ["a"]}, 400, "inputs[0]"),
    (PREDICT, {"model": "sort", "inputs": ["a"], "min_probability": 2}, 400, None),
    (PREDICT, {"model": "sort", "inputs": ["a"], "min_probability": "auto"}, 400, None),
    (PREDICT, {"model": "write", "inputs": ["a"], "min_probability": 0.5}, 400, None),
    (PREDICT, {"model": "model", "inputs": ["a"]}, 400, "model"),
    ("/v1/nothing", {}, 404, None),
    ("/v1/models", {}, 405, None),
]


def test_wrong_requests_are_refused_with_the_field(server: Served) -> None:
    http = server.http()
    for path, body, status, param in WRONG:
        found = http.post(path, json=body)
        assert found.status_code == status, (path, body, found.text)
        error = found.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if param is not None:
            assert error["param"] == param, (body, error)
        assert str(server.folder) not in found.text
    said = http.post(TEXT, json={**OK, "model": "sort"}).json()["error"]["message"]
    assert said.endswith("task is classify; ask /v1/predict")


def test_what_is_not_supported_is_named_not_passed_over(server: Served) -> None:
    client = server.client()
    asks: dict[str, Any] = {
        "reasoning_effort": "high",
        "functions": [{"name": "f"}],
    }
    for name, value in asks.items():
        with pytest.raises(openai.BadRequestError, match=f"`{name}` is not supported yet"):
            client.chat.completions.create(model="talk", messages=HI, **{name: value})  # type: ignore[call-overload]
    nothing = {name: values[0] for name, values in NEUTRAL.items()}
    found = server.http().post(CHATS, json={**CHAT, **nothing, "user": "me", "metadata": {}})
    assert found.status_code == 200, found.text


SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["it", "was"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["talk", "model"])
def test_answers_obey_a_json_schema(server: Served, model: str) -> None:
    asked: Any = {"type": "json_schema", "json_schema": {"name": "said", "schema": SCHEMA}}
    create: Any = server.client().chat.completions.create
    found = create(model=model, messages=HI, response_format=asked, max_tokens=60)
    said = json.loads(found.choices[0].message.content)
    assert said["a"] in ("it", "was")
    assert set(said) == {"a", "b"}
    assert found.choices[0].finish_reason == "stop"
    streamed = create(model=model, messages=HI, response_format=asked, max_tokens=60, stream=True)
    pieces = [piece.choices[0].delta.content or "" for piece in streamed]
    assert json.loads("".join(pieces)) == said
    free = create(model=model, messages=HI, max_tokens=8).choices[0].message.content
    text = create(model=model, messages=HI, max_tokens=8, response_format={"type": "text"})
    assert text.choices[0].message.content == free
    opened = create(model=model, messages=HI, max_tokens=8, response_format={"type": "json_object"})
    assert opened.choices[0].message.content.startswith("{")


def test_a_schema_that_cannot_be_followed_is_refused(server: Served) -> None:
    for wrong in ({"type": "json_schema"}, {"type": "text", "json_schema": {"name": "a"}}):
        found = server.http().post(CHATS, json={**CHAT, "response_format": wrong})
        assert (found.status_code, "response_format" in found.text) == (400, True), found.text
    unknown = {"name": "a", "schema": {"type": "objekt"}}
    body = {**CHAT, "response_format": {"type": "json_schema", "json_schema": unknown}}
    found = server.http().post(CHATS, json=body)
    assert found.status_code == 400
    assert "Invalid type: objekt" in found.json()["error"]["message"]
    assert found.json()["error"]["param"] == "response_format"


BYTES = {
    b"{": "json_invalid",
    b'{"model": "write", "prompt": NaN}': "json_invalid",
    b'{"model": "write", "prompt": 1e999}': "json_invalid",
    b'{"model": "write", "prompt": "\\ud800"}': "json_invalid",
    b'{"model": "\xff"}': "json_invalid",
    b"[" * 3000: "json_invalid",
    b"": None,
    b"null": None,
    b"[1]": None,
    b"5": None,
    b'"text"': None,
}


def test_what_is_not_json_is_refused(server: Served) -> None:
    http = server.http()
    for content, code in BYTES.items():
        found = http.post(TEXT, content=content, headers={"Content-Type": "application/json"})
        assert found.status_code == 400, (content, found.text)
        error = found.json()["error"]
        assert code is None or error["code"] == code
        assert error["message"].startswith(("the body ", "prompt: no number is so"))
    found = http.post(TEXT, content=json.dumps(OK))
    assert found.status_code == 400
    assert "Content-Type: application/json" in found.json()["error"]["message"]


def test_keys_open_what_they_are_for(server: Served) -> None:
    for key in (None, "wrong", KEY[:-1]):
        found = server.http(key).post(TEXT, json=OK)
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.http(key).get("/v1/models").status_code == 401
    for key in (None, "wrong", KEY):
        assert server.http(key).get("/v1/prompts").status_code == 401
        assert server.http(key).delete("/v1/prompts/write").status_code == 401
    assert server.http(ADMIN).get("/v1/models").status_code == 200
    assert server.http(None).get("/health").json() == {"status": "ok"}
    assert server.http(None).get("/metrics").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()


def test_bodies_and_queues_are_limited(server: Served) -> None:
    http = server.http()
    assert http.post(TEXT, json={**OK, "prompt": "a" * 5000}).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(9):
            yield b" " * 1000

    found = http.post(TEXT, content=parts(), headers={"Content-Type": "application/json"})
    assert (found.status_code, found.json()["error"]["code"]) == (413, "body_too_large")
    with ThreadPoolExecutor(8) as pool:
        asks = [{**OK, "max_tokens": 200, "seed": n} for n in range(16)]
        found = list(pool.map(lambda body: server.http().post(TEXT, json=body), asks))
    statuses = {each.status_code for each in found}
    assert statuses <= {200, 429}
    for each in found:
        if each.status_code == 429:
            assert each.headers["Retry-After"]
            assert each.json()["error"]["type"] == "rate_limit_error"
    slow = server.client().completions.create(**OK, max_tokens=200, stream=True)  # type: ignore[call-overload]
    with pytest.raises(openai.RateLimitError):
        server.client().completions.create(**OK, n=6)  # type: ignore[call-overload]
    slow.close()
    until(lambda: server.metric("foreword_requests_admitted") == 0)
    assert server.metric("foreword_requests_turned_away_total") >= 1


# Clients that leave, and prompts that go ----------------------------------------------------------


def raw(server: Served, body: dict[str, Any]) -> socket.socket:
    """Send a request without reading the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)))
    content = json.dumps(body)
    made.sendall(
        f"POST {TEXT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
    )
    return made


def test_who_leaves_is_not_written_for(server: Served) -> None:
    before = server.metric("foreword_requests_cancelled_total")
    for stream in (True, False):
        connection = raw(server, {**OK, "max_tokens": 200, "stream": stream})
        if stream:
            connection.recv(20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    until(lambda: server.metric("foreword_requests_admitted") == 0)
    assert server.metric("foreword_requests_cancelled_total") >= before
    made = server.client().completions.create(model="write", prompt="hello")
    assert made.choices[0].text == server.prompts["write"].predict("hello")


def test_a_slow_reader_stops_no_one(server: Served) -> None:
    slow = raw(server, {**OK, "max_tokens": 100, "stream": True})
    made = server.client().completions.create(model="write", prompt="hello")
    assert made.choices[0].text == server.prompts["write"].predict("hello")
    slow.settimeout(30)
    held = b""
    while b"[DONE]" not in held:
        held += slow.recv(7)
    slow.close()


def test_prompts_come_change_and_go_while_they_are_used(server: Served, tmp_path: Path) -> None:
    admin, client = server.http(ADMIN), server.client()
    made = {s: prompt_of(server.backbone, WRITE, prefix(server.backbone, s)) for s in (11, 12)}
    files = {s: made[s].save(tmp_path / f"{s}.safetensors").read_bytes() for s in made}
    right = {s: made[s].predict("hello") for s in made}
    assert right[11] != right[12]
    binary = {"Content-Type": "application/octet-stream"}

    def upload(content: bytes, name: str = "come") -> Any:
        return admin.post("/v1/prompts", params={"name": name}, content=content, headers=binary)

    def ask(model: str = "come") -> str:
        return client.completions.create(model=model, prompt="hello").choices[0].text

    found = upload(files[11])
    assert (found.status_code, found.json()["version"]) == (201, 1)
    assert ask() == right[11]
    begun = client.completions.create(model="come", prompt="hello", max_tokens=60, stream=True)
    first = next(iter(begun)).choices[0].text
    assert upload(files[12]).json()["version"] == 2
    assert (ask(), ask("come@1"), ask("come@2")) == (right[12], right[11], right[12])
    for bad in (files[11][:500], b"pickle", struct.pack("<Q", 2**62) + b"{", b""):
        assert upload(bad).status_code == 400
    for name in ("../come", "", "a/b", "model", "a" * 200):
        refused = upload(files[11], name)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "name")
    assert ask() == right[12]
    rolled = admin.post("/v1/prompts/come/rollback").json()
    assert (rolled["version"], rolled["content_of"]) == (3, 1)
    assert ask() == right[11]
    about = admin.get("/v1/prompts/come").json()
    assert (about["version"], about["versions"], about["refused"]) == (3, [1, 2, 3], None)
    assert admin.delete("/v1/prompts/come").json()["deleted"] is True
    whole = made[11].predict("hello", max_new_tokens=60)
    assert first + "".join(each.choices[0].text for each in begun) == whole
    for path in ("/v1/prompts/come", "/v1/prompts/..%2fmodel", "/v1/prompts/%00"):
        assert admin.delete(path).status_code == 404
    with pytest.raises(openai.NotFoundError):
        ask()
    (server.folder / "by-hand.safetensors").write_bytes(files[12])
    assert ask("by-hand") == right[12]
    named = {"name": "named", "file": "by-hand.safetensors"}
    assert admin.post("/v1/prompts", json=named).json()["version"] == 1
    assert ask("named") == right[12]
    for wrong in ({"name": "x", "file": "../model/config.json"}, {"name": "x"}, [], {"file": 1}):
        assert admin.post("/v1/prompts", json=wrong).status_code == 400
    (server.folder / "by-hand.safetensors").write_bytes(files[12][:600])
    assert ask("by-hand") == right[12]
    for name in ("named", "by-hand"):
        assert admin.delete(f"/v1/prompts/{name}").status_code == 200
    (server.folder / "broken.safetensors").write_bytes(files[12][:600])
    with pytest.raises(openai.UnprocessableEntityError, match="cut off"):
        ask("broken")
    (server.folder / "broken.safetensors").unlink()


def test_the_log_and_the_metrics_hold_no_text_and_no_name(server: Served) -> None:
    found = server.http().post(
        TEXT, json={**OK, "prompt": "secretword"}, headers={"X-Request-Id": "asked-by-me"}
    )
    assert found.headers["X-Request-Id"] == "asked-by-me"
    until(lambda: "asked-by-me" in server.log())
    lines = [json.loads(each) for each in server.log().splitlines() if each.startswith("{")]
    (line,) = [each for each in lines if each["request"] == "asked-by-me"]
    assert (line["status"], line["route"], line["written"]) == (200, TEXT, 8)
    metrics = server.http().get("/metrics").text
    for text in (server.log(), metrics):
        assert "secretword" not in text
        assert KEY not in text
    assert 'prompt="write' not in metrics
    assert all(each["event"] == "request" for each in lines), "no fault was logged"


def test_the_page_on_serving_says_what_is_so(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Python and its curl, on this server's prompts."""
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
    first, called, own = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    asked = first + called
    here = asked.replace("http://127.0.0.1:8000", server.url).replace('"bot"', '"talk"')
    exec(here.replace('"none"', f'"{KEY}"').replace("print(", "made = str(") + "\nclient.close()")
    sent = json.loads(re.findall(r"-d '(.*?)'", page)[0].replace("support", "sort"))
    found = server.http().post(PREDICT, json=sent)
    assert found.json()["predictions"][0].keys() == {"label", "probability", "probabilities"}
    monkeypatch.setattr("foreword.load", lambda name: server.backbone)
    exec(own.replace("mood.safetensors", str(server.folder / "sort.safetensors")))
    assert "'label': " in capsys.readouterr().out
    for path in re.findall(r"`(?:GET|POST|DELETE) (/v1/[\w/]+)", page):
        assert server.http().get(path.replace("/N", "/write")).status_code != 404, path


def test_the_last_answer_is_given_when_the_server_is_asked_to_end(server: Served) -> None:
    """It ends the server of this file, so it comes last."""
    client, made = server.client(), list[str]()
    right = server.prompts["write"].predict("hello", max_new_tokens=200)

    def ask() -> None:
        for each in client.completions.create(**OK, max_tokens=200, stream=True):  # type: ignore[call-overload]
            made.append(each.choices[0].text)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: server.metric("foreword_requests_admitted") == 1 or made)
    server.process.terminate()
    thread.join()
    server.process.join(60)
    assert "".join(made) == right
    assert server.process.exitcode == 0
    assert server.log().endswith("all that was asked is answered\n")
