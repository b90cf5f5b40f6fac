"""What goes wrong on purpose: readers, files, names, headers and schemas; the server lives on."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

import char_model
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.serve.engine import Engine
from foreword.serve.http.limits import Access, Keys, Limits
from foreword.tasks.generate import Generate
from processes import until
from serve.serving import ADMIN, WRITE, in_thread, prefix, prompt_of, prompts
from serve.test_prompt_folder import DAMAGES, damaged

TEXT, CHAT, PROMPTS = "/v1/completions", "/v1/chat/completions", "/v1/prompts"
BINARY = {"Content-Type": "application/octet-stream"}
LIMITS = Limits(patience=0.5, upload=2**20, inputs=20)


class Here:
    """A server in a thread of this process, and what it serves."""

    def __init__(
        self, url: str, folder: Path, backbone: Backbone, lines: list[dict[str, Any]]
    ) -> None:
        self.url, self.folder, self.backbone, self.lines = url, folder, backbone, lines
        headers = {"Authorization": f"Bearer {ADMIN}"}
        self.http = httpx2.Client(base_url=url, timeout=60, headers=headers)
        self.right = prompts(backbone)["write"].predict("hello")

    def ask(self, model: str = "write") -> str:
        found = self.http.post(TEXT, json={"model": model, "prompt": "hello"})
        assert found.status_code == 200, found.text
        return str(found.json()["choices"][0]["text"])

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith((f"{name} ", f"{name}{{")))

    def connect(self, receives: int = 2**16) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        made.settimeout(30)
        host, port = self.url.removeprefix("http://").split(":")
        made.connect((host, int(port)))
        return made


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    base = tmp_path_factory.mktemp("faults")
    folder = base / "prompts"
    folder.mkdir()
    backbone = Backbone.load(char_model.save(base / "model"))
    for name, prompt in prompts(backbone).items():
        prompt.save(folder / f"{name}.safetensors")
    access = Access(admin_keys=Keys([ADMIN]))
    lines: list[dict[str, Any]] = []

    def log(**line: Any) -> None:
        lines.append(line)

    with in_thread(folder, backbone, log=log, limits=LIMITS, access=access) as url:
        made = Here(url, folder, backbone, lines)
        yield made
        assert made.ask() == made.right, "the server lives on"
        assert {line["event"] for line in lines} == {"request"}, "and has no fault"
        made.http.close()


# Readers ------------------------------------------------------------------------------------------


def test_who_never_reads_is_given_up_and_stops_no_one(here: Here) -> None:
    before = here.metric("foreword_requests_cancelled_total")
    body = json.dumps(
        {"model": "write", "prompt": "hello", "stream": True, "n": 8, "max_tokens": 200,
         "logprobs": 5, "temperature": 1}
    )  # fmt: skip
    with here.connect(receives=2048) as deaf:
        deaf.sendall(
            f"POST {TEXT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        until(lambda: here.metric("foreword_requests_admitted") == 8)
        assert here.ask() == here.right
        until(lambda: here.metric("foreword_requests_admitted") == 0)
        assert here.metric("foreword_requests_cancelled_total") == before + 1
        (line,) = [line for line in here.lines if line.get("left")]
        assert (line["status"], line["error"]) == (200, "too slow")
        time.sleep(2 * LIMITS.patience)  # and the system has cut its connection off
        held, cut = 0, False
        while not cut:
            try:
                held += len(deaf.recv(4096))
            except ConnectionResetError:
                cut = True
        assert held < 2**17


def test_what_a_client_that_left_has_asked_for_is_given_up_and_counted_until_then(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Generate(template="{prompt}:", decoding=Decoding(max_new_tokens=5000))
    prompt_of(here.backbone, task, prefix(here.backbone, 1)).save(here.folder / "long.safetensors")
    asked: list[tuple[Any, threading.Event]] = []
    answered: Future[Any] = Future()
    answered.set_running_or_notify_cancel()

    def answer(self: Engine, prompt: Any, rows: Any, *, cancelled: threading.Event) -> Any:
        asked.append((prompt, cancelled))
        return answered

    monkeypatch.setattr(Engine, "answer", answer)
    with here.connect() as own:
        body = json.dumps({"model": "long", "inputs": "hello"})
        own.sendall(
            "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        until(lambda: asked)
        ((prompt, cancelled),) = asked
        assert not cancelled.is_set()
    until(cancelled.is_set)
    assert here.metric("foreword_requests_admitted") == 1
    answered.set_exception(CancelledError())
    assert here.metric("foreword_requests_admitted") == 0
    assert prompt.task.decoding.max_new_tokens == LIMITS.tokens
    (here.folder / "long.safetensors").unlink()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 4611686018427387904\r\n\r\n{", b"413"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{", b"400"),
        (b"Content-Length: -1\r\n\r\n{", b"400"),
        (b"X-A: " + b"a" * 2**20 + b"\r\n\r\n", b"400"),
        (b"".join(b"X-%d: a\r\n" % n for n in range(20000)) + b"\r\n", b"400"),
        (b"Authorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"\0\r\n\r\n", b"400"),
    ],
    ids=["2^62", "digits", "negative", "long", "many", "bytes", "zero"],
)
def test_headers_that_no_client_sends(here: Here, head: bytes, status: bytes) -> None:
    with here.connect() as own:
        start = f"POST {TEXT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
        try:
            own.sendall(start + head)
        except ConnectionError:  # it was answered before the end
            return
        assert own.recv(100).split()[1] == status
    assert here.ask() == here.right


@pytest.mark.parametrize("said", [b"", b"POST /v1/completions HTTP/1.1\r\nX-A: "])
def test_who_says_nothing_is_left(here: Here, said: bytes) -> None:
    with here.connect() as own:
        own.sendall(said)
        assert own.recv(100) == b""
    with here.connect() as own:
        own.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert own.recv(1).startswith(b"H")
        own.sendall(said)  # behind the answer
        while own.recv(1000):
            pass


def test_a_completion_has_no_more_texts_than_a_request_may_have(here: Here) -> None:
    for body in ({"prompt": ["a"] * 21}, {"prompt": [[5]] * 3, "n": 7}):
        found = here.http.post(TEXT, json={"model": "write", **body})
        assert found.status_code == 400
        assert found.json()["error"]["param"] == "prompt"
        assert "at most 20 texts" in found.text


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DAMAGES)
def test_an_upload_that_is_damaged_is_refused_and_the_old_version_stays(
    here: Here, tmp_path: Path, how: str
) -> None:
    made = prompt_of(here.backbone, WRITE, prefix(here.backbone, 1)).save(
        tmp_path / "p.safetensors"
    )
    damaged(made, how)
    content = made.read_bytes()
    found = here.http.post(PROMPTS, params={"name": "write"}, content=content, headers=BINARY)
    assert found.status_code == 400, found.text
    assert re.search(DAMAGES[how], found.text)
    assert str(here.folder) not in found.text
    about = here.http.get(f"{PROMPTS}/write").json()
    assert (about["version"], about["refused"]) == (1, None)
    assert here.ask() == here.right


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing(here: Here) -> None:
    for path, kind in ((f"{PROMPTS}?name=half", "octet-stream"), (TEXT, "json")):
        count = len(here.lines)
        with here.connect() as own:
            own.sendall(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\n"
                f"Content-Type: application/{kind}\r\nContent-Length: 1000\r\n\r\nhalf".encode()
            )
            time.sleep(0.1)
        until(lambda count=count: len(here.lines) > count)  # type: ignore[misc]
        line = here.lines[count]
        assert (line["event"], line["status"]) == ("request", 499), line
    assert not [path for path in (here.folder / ".versions").iterdir() if "new" in path.name]


def test_an_upload_may_not_be_too_large(here: Here) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(5):
            yield b"\0" * 2**18

    for content in (b"\0" * (2**20 + 1), parts()):
        found = here.http.post(PROMPTS, params={"name": "big"}, content=content, headers=BINARY)
        assert (found.status_code, found.json()["error"]["code"]) == (413, "body_too_large")
    assert not [path for path in (here.folder / ".versions").iterdir() if "new" in path.name]


def test_a_file_that_is_written_over_and_over_is_served_whole_or_not_at_all(
    here: Here, tmp_path: Path
) -> None:
    path, contents, right = here.folder / "changing.safetensors", [], set[str]()
    for seed in (21, 22, 23):
        made = prompt_of(here.backbone, WRITE, prefix(here.backbone, seed))
        contents.append(made.save(tmp_path / "one.safetensors").read_bytes())
        right.add(made.predict("hello"))
    path.write_bytes(contents[0])
    assert here.ask("changing") in right
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            content = contents[turn % 3]
            with path.open("wb") as file:  # not as `save` does it: half of it can be seen
                file.write(content[: len(content) // 2])
                file.flush()
                time.sleep(0.002)
                file.write(content[len(content) // 2 :])
            turn += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = {here.ask("changing") for _ in range(12)}
    finally:
        done.set()
        writer.join()
    assert found <= right
    path.write_bytes(contents[1])
    assert here.ask("changing") in right
    assert here.http.delete(f"{PROMPTS}/changing").status_code == 200


# Names --------------------------------------------------------------------------------------------

OUTSIDE = ("../outside", "/etc/passwd", "a\0", ".versions")
ENCODED = (*(quote(name, safe="") for name in OUTSIDE), "%2e%2e%2foutside", "%ed%a0%80")


def test_names_are_no_paths_on_any_route(here: Here) -> None:
    outside = here.folder.parent / "outside.safetensors"
    outside.write_bytes((here.folder / "write.safetensors").read_bytes())
    before = sorted(str(path) for path in here.folder.parent.rglob("*"))
    http = here.http
    for name in ENCODED:
        for found in (
            http.get(f"/v1/models/{name}"),
            http.get(f"{PROMPTS}/{name}"),
            http.delete(f"{PROMPTS}/{name}"),
            http.post(f"{PROMPTS}/{name}/rollback"),
        ):
            assert found.status_code in (404, 405), (name, found.request.url, found.text)
    for name in (
        "../outside",
        "/etc/passwd",
        "..\\outside",
        "a\0",
        ".versions",
        "write/../../outside",
    ):
        body = {"model": name, "prompt": "hello"}
        assert http.post(TEXT, json=body).status_code == 404
        assert http.post("/v1/predict", json={"model": name, "inputs": ["a"]}).status_code == 404
        named = {"name": name, "file": "write.safetensors"}
        assert http.post(PROMPTS, json=named).status_code == 400
        found = http.post(PROMPTS, params={"name": name}, content=b"a", headers=BINARY)
        assert found.status_code == 400
        away = {"name": "away", "file": f"{name}.safetensors"}
        assert http.post(PROMPTS, json=away).status_code == 400
    assert sorted(str(path) for path in here.folder.parent.rglob("*")) == before
    outside.unlink()


# Schemas ------------------------------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        made = {"type": "object", "properties": {"a": made}, "required": ["a"]}
    return made


SCHEMAS: list[tuple[dict[str, Any], str | None]] = [
    ({"$ref": "#"}, "no text obeys it"),
    ({"$ref": "#/$defs/none"}, "does not exist"),
    ({"$ref": "http://127.0.0.1:1/none"}, "cannot be followed"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable"),
    ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ({"not": {}}, "Unimplemented"),
    ({"type": "string", "pattern": "^(a{1,1000}){1,1000}$"}, None),
    ({"enum": [f"x{n}" for n in range(2000)]}, None),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 10**9}, None),
    (nested(40), None),
]


def test_schemas_that_cannot_be_followed_are_the_client_s_fault(here: Here) -> None:
    for schema, said in SCHEMAS:
        for stream in (False, True)[: 1 if said is None else 2]:
            kind = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
            turns = [{"role": "user", "content": "hello"}]
            body = {"model": "talk", "messages": turns, "response_format": kind, "stream": stream}
            found = here.http.post(CHAT, json=body)
            assert found.status_code < 500, found.text
            if said is None:
                assert found.status_code == 200, found.text
                assert '"error"' not in found.text
            else:
                assert said in found.text
                assert '{"error":' in found.text
                assert found.status_code == 400 or stream
    assert here.ask() == here.right
