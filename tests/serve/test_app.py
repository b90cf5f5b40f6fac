"""The app without a server: while the model is loaded, when that fails, and what it promises."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

import char_model
from foreword.backbone.backbone import Backbone
from foreword.cli.main import run
from foreword.cli.serve import _keys
from foreword.errors import UserError
from foreword.serve.http.app import make_app
from foreword.serve.http.errors import place
from foreword.serve.http.generation import Generation, Said, Usage
from foreword.serve.http.guard import Guard, Passage
from foreword.serve.http.limits import Access, Keys, Limits
from foreword.serve.http.metrics import Metrics
from foreword.serve.http.server import address, bound_socket
from foreword.serve.http.service import Service
from foreword.serve.request import Piece
from foreword.serve.texts import Trimmed, Untouched
from processes import until


def got(service: Service, *paths: str) -> list[httpx2.Response]:
    """Ask an app, without starting it."""

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=make_app(service, log=None))
        async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_it_is_not_well_until_the_model_is_loaded(tmp_path: Path) -> None:
    go = threading.Event()
    model = char_model.save(tmp_path / "model")

    def load() -> Backbone:
        go.wait()
        return Backbone.load(model)

    service = Service(tmp_path, load)
    service.start()
    for found in got(service, "/health", "/v1/models"):
        assert found.status_code == 503
        assert found.headers["Retry-After"]
    go.set()
    until(lambda: service.state == "ready")
    health, models = got(service, "/health", "/v1/models")
    assert (health.status_code, models.json()["data"][0]["id"]) == (200, "model")
    service.close()
    assert [each.status_code for each in got(service, "/health", "/v1/models")] == [503, 503]


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    service = Service(
        tmp_path, lambda: Backbone.load(str(tmp_path / "none")), when_failed=failures.append
    )
    service.start()
    until(lambda: failures)
    assert isinstance(failures[0], UserError)
    (health,) = got(service, "/health")
    assert (health.status_code, health.json()) == (503, {"status": "failed"})


def test_routes_that_change_prompts_are_there_for_an_admin_key_alone(tmp_path: Path) -> None:
    def described(access: Access) -> dict[str, Any]:
        service = Service(tmp_path, lambda: None, access=access)  # type: ignore[arg-type, return-value]
        (found,) = got(service, "/openapi.json")
        return found.json()["paths"]  # type: ignore[no-any-return]

    usual = {"/health", "/metrics", "/v1/models", "/v1/models/{name}", "/v1/completions"}
    usual |= {"/v1/chat/completions", "/v1/predict"}
    assert set(described(Access())) == usual
    more = {"/v1/prompts", "/v1/prompts/{name}", "/v1/prompts/{name}/rollback"}
    assert set(described(Access(admin_keys=Keys(["a"])))) == usual | more


def test_errors_are_described_in_the_form_that_they_have(tmp_path: Path) -> None:
    service = Service(tmp_path, lambda: None, access=Access(admin_keys=Keys(["a"])))  # type: ignore[arg-type, return-value]
    described, refused = got(service, "/openapi.json", "/v1/nothing")
    paths, known = described.json()["paths"], described.json()["components"]["schemas"]
    routes = [route for path in paths.values() for route in path.values()]
    assert routes
    form = {"$ref": "#/components/schemas/ErrorBody"}
    for route in routes:
        assert "422" not in route["responses"]
        assert route["responses"]["4XX"]["content"]["application/json"]["schema"] == form
    assert set(known["ErrorBody"]["properties"]) == set(refused.json())
    assert set(known["ErrorDetail"]["properties"]) == set(refused.json()["error"])


def test_a_key_fits_whole(tmp_path: Path) -> None:
    keys = Keys(["one", "other"])
    assert [keys.fit(key) for key in ("one", "other", "on", "one ", "", "\ud800")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert not Keys()
    with pytest.raises(UserError, match="a key has a letter that no header"):
        Keys(["one", "clé"])


@pytest.mark.parametrize("opening", ["", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize(
    "text", ["", " ", "a", " a b \n", "<think>\n\n</think>\n\n a ", "<thin", "<think>\n a"]
)
def test_a_stream_is_trimmed_as_the_whole_answer_is(text: str, opening: str) -> None:
    whole = text.strip().removeprefix(opening.strip()).strip()
    for size in (1, 2, 5, 100):
        trimmed, made = Trimmed(opening), ""
        for start in range(0, len(text), size):
            made += trimmed.add(text[start : start + size])
            assert whole.startswith(made)
        assert made + trimmed.add("", last=True) == whole


def test_metrics_name_no_prompt_that_is_not_there(tmp_path: Path) -> None:
    def load() -> Backbone:
        raise AssertionError("it is not started")

    service = Service(tmp_path, load, name_prompts=True)
    guard = Guard(make_app(service, log=None), service, None)
    for name, status in (("write@1", 200), ("nonsense", 404)):
        guard._note({"method": "POST"}, Passage("1", about={"model": name}, status=status))
    named = service.metrics.text().decode()
    assert 'prompt="write@1",' in named or 'prompt="write@1"}' in named
    assert "nonsense" not in named


def test_a_token_s_time_is_that_of_its_own_choice() -> None:
    metrics = Metrics()
    own: Any = object.__new__(Generation)
    own.asked, own.usage = [None, None], Usage(0, 12)  # five tokens each after the first
    own.service, own.passage = SimpleNamespace(metrics=metrics), SimpleNamespace(about={})
    own._note(1.0, 2.0)
    assert b"foreword_time_per_token_seconds_sum 0.2\n" in metrics.text()


def test_what_is_held_back_is_told_when_time_is_over() -> None:
    own: Any = object.__new__(Generation)

    async def said() -> list[Said]:
        own.heard, own.deadline = asyncio.Queue(), time.monotonic() + 0.2
        own.heard.put_nowait((0, Piece("one", (1,))))
        rest = Piece(" STO", (2,), finish="cancelled")  # the beginning of a text that ends it
        own.tickets = [SimpleNamespace(cancel=lambda: own.heard.put_nowait((0, rest)))]
        return [each async for each in own.pieces()]

    own.asked, own.usage = [SimpleNamespace(trimmed=Untouched, rule=None)], Usage(0)
    own.service = SimpleNamespace(metrics=Metrics())
    own.passage = SimpleNamespace(about={}, since=0.0)
    assert asyncio.run(said()) == [Said(0, "one"), Said(0, " STO", finish="length")]
    assert own.usage.written == 2


def test_a_port_in_use_is_one_line() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = int(address(taken).rsplit(":", 1)[1])
        with pytest.raises(UserError, match=f"`port={port}`: cannot listen"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen"):
        bound_socket("127.0.0.1", 99999)
    with pytest.raises(UserError, match="cannot listen"):
        bound_socket("no.such.host.invalid", 0)


def test_limits_are_above_nothing() -> None:
    with pytest.raises(UserError, match="`queue=0`"):
        Limits(queue=0).check()
    with pytest.raises(UserError, match="`seconds=inf`"):
        Limits(seconds=math.inf).check()
    assert place(["a", 1, "b", "\ud800"]) == "a[1].b"


def test_a_file_of_keys_may_begin_with_the_mark_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\r\ntwo\r\n", "utf-8-sig")
    assert _keys(None, file, "NO_SUCH_VARIABLE") == ["one", "two"]


def test_mistakes_of_the_command_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("\n")
    for words, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path), "--queue", "0"], "--queue"),
        ([str(tmp_path), "--keep", "-1"], "--keep"),
        ([str(tmp_path), "--prompt-memory", "0"], "--prompt-memory"),
        ([str(tmp_path), "--prompt-memory", "inf"], "--prompt-memory inf"),
        ([str(tmp_path), "--api-key", ""], "a key is empty"),
        ([str(tmp_path), "--api-key-file", str(keys)], "holds no key"),
        ([str(tmp_path), "--port", "99999"], "--port"),
        ([str(tmp_path), "--learn"], "--learn needs rows to learn from"),
        ([str(tmp_path), "--learn-config", "none.yaml"], "none.yaml: no such file"),
        ([str(tmp_path), "--feedback-days", "3"], "of no use without --feedback"),
        ([str(tmp_path), "--feedback", str(keys)], "no feedback can be written there"),
        ([str(tmp_path), "--learn-every", "0"], "--learn-every 0"),
        ([str(tmp_path), "--learn-roll-back"], "of no use without --learn"),
    ):
        assert run(["serve", *words]) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line, line
    monkeypatch.setattr("foreword.cli.serve.find_spec", lambda name: None)
    assert run(["serve", str(tmp_path)]) == 2
    assert "pip install 'foreword[serve]'" in capsys.readouterr().err
