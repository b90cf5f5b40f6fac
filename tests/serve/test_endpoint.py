"""Rows that a server answers, for `foreword predict --endpoint` and in Python."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import TALK, in_thread, prefix, prompt_of, prompts

import char_model
import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.cli.main import run
from foreword.errors import UserError
from foreword.prompt.endpoint import ServedPrompt
from foreword.prompt.prompt import Prompt
from foreword.tasks.rank import Rank
from foreword.tasks.relate import Relate
from foreword.tasks.tag import Tag

TEXTS = ["a good film", "b", "so it was"]
ROUNDED = 2e-6
"""Probabilities are rounded to six digits on both sides, after sums in another order."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Backbone]]:
    base = tmp_path_factory.mktemp("served")
    model = Backbone.load(char_model.save(base / "model"))
    (base / "prompts").mkdir()
    for name, prompt in prompts(model).items():
        prompt.save(base / "prompts" / f"{name}.safetensors")
    with in_thread(base / "prompts", model) as url:
        yield url, base, model


def test_rows_are_answered_there_as_here(served: tuple[str, Path, Backbone]) -> None:
    url, base, model = served
    outline = Backbone.outline(str(base / "model"))
    for name, own in prompts(model).items():
        there = ServedPrompt.of_prompt(
            Prompt.load(base / "prompts" / f"{name}.safetensors"),
            f"{url}/v1/",
            name,
            model=str(base / "model"),
            key=None,
        )
        assert there.bound.backbone.vocabulary == outline.vocabulary
        text = [{"role": "user", "content": "a"}] if name == "talk" else "a good film"
        fields = dict.fromkeys(own.bound.fields, text)
        rows = [fw.Row(fields, "row 1")] * 2
        for mine, theirs in zip(own.answers(rows), there.answers(rows), strict=True):
            chances = mine.pop("probabilities", {})
            assert theirs.pop("probabilities", {}) == pytest.approx(chances, abs=ROUNDED)
            assert theirs == mine


TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
MORE = {
    "rank": (
        Rank(template="{history}\n", catalogue=("blue", "red")),
        {"history": "a", "candidates": ["x", "y", "z"], "answer": "x"},
    ),
    "talk": (TALK, {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}),
    "tag": (
        Tag("{tokens}", "\n{predicate} {left}{word}:", {"a": " a", "b": " b"}),
        {"tokens": ["hi", "you"], "predicate": "you"},
    ),
    "relate": (
        Relate("{text} is", {"a": " a", "b": " b"}),
        {"text": "hi you", "head": "hi", "tail": "you"},
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_all_that_an_answer_depends_on_is_sent_and_no_more(
    name: str, served: tuple[str, Path, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base, model = served
    task, fields = MORE[name]
    path = prompt_of(model, task, prefix(model, 1)).save(base / f"{name}.safetensors")
    there = ServedPrompt.of_prompt(
        Prompt.load(path), "http://there", name, model=str(base / "model"), key=None
    )
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        ServedPrompt, "_asked", lambda self, body, count: sent.extend(body["inputs"]) or [{}]
    )
    there.answers([fw.Row({**fields, "name": "of a customer"}, "row 1")])
    assert sent == [{key: value for key, value in fields.items() if key != "answer"}]


def test_how_texts_are_written_is_the_servers(served: tuple[str, Path, Backbone]) -> None:
    url, base, _ = served
    own = Prompt.load(base / "prompts" / "write.safetensors")
    there = ServedPrompt.of_prompt(own, url, "write", model=str(base / "model"), key=None)
    with pytest.raises(UserError, match=r"as the prompt was tuned; leave out `max_new_tokens`"):
        there.predict("a", max_new_tokens=2)


def test_the_command_answers_at_a_server(
    served: tuple[str, Path, Backbone], capsys: pytest.CaptureFixture[str]
) -> None:
    url, base, _ = served
    command = ["predict", str(base / "prompts" / "sort.safetensors"), *TEXTS]
    command += ["--model", str(base / "model"), "--json"]
    assert run(command) == 0
    here = json.loads(capsys.readouterr().out)["predictions"]
    assert run([*command, "--endpoint", url]) == 0
    there = json.loads(capsys.readouterr().out)["predictions"]
    assert [each["label"] for each in there] == [each["label"] for each in here]
    for mine, theirs in zip(here, there, strict=True):
        assert theirs["probability"] == pytest.approx(mine["probability"], abs=ROUNDED)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--endpoint", "nowhere"], "give an address"),
        (["--endpoint", "http://127.0.0.1:9"], "does not answer"),
        (["--endpoint", "URL", "--json-schema", "x"], "leave out --json-schema"),
    ],
)
def test_what_is_no_server_of_the_prompt_is_a_line(
    served: tuple[str, Path, Backbone],
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, base, _ = served
    command = ["predict", str(base / "prompts" / "sort.safetensors"), "a"]
    command += ["--model", str(base / "model")]
    assert run([*command, *(url if word == "URL" else word for word in more)]) == 2
    assert said in capsys.readouterr().err


def test_a_prompt_that_the_server_has_not_is_named(served: tuple[str, Path, Backbone]) -> None:
    url, base, _ = served
    own = Prompt.load(base / "prompts" / "sort.safetensors")
    there = ServedPrompt.of_prompt(own, url, "nobody", model=str(base / "model"), key=None)
    with pytest.raises(UserError, match=r"no prompt 'nobody'.*\(404\)"):
        there.answers([fw.Row({"text": "a"}, "row 1")])


@pytest.mark.parametrize(
    "body", ["[]", "{", '{"predictions": []}', '{"predictions": [{"text": "a"}]}', "null"]
)
def test_answers_of_another_kind_are_no_answers(
    served: tuple[str, Path, Backbone], body: str
) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    _, base, _ = served
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        own = Prompt.load(base / "prompts" / "sort.safetensors")
        url = f"http://127.0.0.1:{server.server_port}"
        there = ServedPrompt.of_prompt(own, url, "sort", model=str(base / "model"), key="k")
        with pytest.raises(UserError, match="answer"):
            there.answers([fw.Row({"text": "a"}, "row 1")])
        thread.join()
