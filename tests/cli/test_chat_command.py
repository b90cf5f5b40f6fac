"""``foreword chat`` and ``predict --interactive``: a line in, a line out, turns that are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import char_model
from foreword.backbone.backbone import Backbone
from foreword.cli.main import run
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.talk import Talk
from foreword.serve.texts import TooLongError
from serve.serving import prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("chat")
    backbone = Backbone.load(char_model.save(base / "model"))
    for name, prompt in prompts(backbone).items():
        prompt.save(base / f"{name}.safetensors")
    return base


class Session:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self.monkeypatch, self.capsys, self.folder = monkeypatch, capsys, folder

    def __call__(self, words: Sequence[str], *lines: str, status: int = 0) -> tuple[list[str], str]:
        self.monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert run([*words, "--model", str(self.folder / "model")]) == status
        printed = self.capsys.readouterr()
        return printed.out.splitlines(), printed.err

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.safetensors")


def test_a_line_that_is_too_long_leaves_the_turns_as_they_are(folder: Path) -> None:
    with Engine(Backbone.load(str(folder / "model"))) as engine:
        talk = Talk(engine, settings={"max_new_tokens": 2})
        said = ["".join(talk.say(text)) for text in ("hello", "how are you")]
        before = list(talk.messages)
        assert len(before) == 2 * sum(map(bool, said)) > 0
        with pytest.raises(TooLongError):
            talk.say("a" * 5000)
        talk.settings["max_new_tokens"] = 10**6
        with pytest.raises(TooLongError):
            talk.say("a")
        assert (talk.messages, talk.forgotten) == (before, 0)


@pytest.fixture
def session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Session:
    return Session(monkeypatch, capsys, folder)


def tuned(session: Session, name: str) -> Prompt:
    return Prompt.load(session.file(name), Backbone.load(str(session.folder / "model")))


def test_turns_are_kept_until_they_are_reset(session: Session, tmp_path: Path) -> None:
    kept = tmp_path / "new" / "talk.jsonl"
    lines = ["hello", "it was", f"/save {kept}", "/reset", "hello", f"/save {kept}", "/exit", "no"]
    out, err = session(["chat", session.file("talk")], *lines)
    prompt = tuned(session, "talk")
    first = {"role": "user", "content": "hello"}
    one = prompt.predict({"messages": [first]})
    turns = [first, {"role": "assistant", "content": one}, {"role": "user", "content": "it was"}]
    two = prompt.predict({"messages": turns})
    assert out == [text.replace("\n", "\\n") for text in (one, two, one)]
    rows = [json.loads(line)["messages"] for line in kept.read_text("utf-8").splitlines()]
    assert [len(row) for row in rows] == [4, 2]
    assert rows[0] == [*turns, {"role": "assistant", "content": two}]
    assert "the conversation begins anew" in err


def test_the_model_alone_talks_too(session: Session) -> None:
    (plain,), _ = session(["chat", "--max-new-tokens", "5"], "hello")
    (told,), _ = session(["chat", "--max-new-tokens", "5", "--system", "be brief"], "hello")
    assert 0 < len(plain.replace("\\n", "\n")) <= 5
    assert told != plain
    draws = {
        session(["chat", "--temperature", "1", "--seed", str(n)], "hello")[0][0] for n in range(3)
    }
    assert len(draws) > 1


def test_mistakes_are_lines_and_it_goes_on(session: Session) -> None:
    out, err = session(
        ["chat", session.file("talk")], "/nothing", "/save", "/save a.jsonl", "word " * 999, "hello"
    )
    assert out[0] == ""  # the line that is too long
    assert len(out) == 2
    for said in ("/nothing: unknown; /reset", "needs the name", "nothing has been said", "longer"):
        assert said in err
    for name in ("sort", "pair"):
        _, err = session(["chat", session.file(name)], "a", status=2)
        assert "task is classify; `foreword predict` answers by it" in err
        assert len(err.splitlines()) == 1


def test_bytes_that_are_no_text_are_a_mistake_and_it_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["chat", session.file("talk")],
        ["predict", session.file("sort"), "--interactive"],
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\nhello\n"), "utf-8"))
        assert run([*words, "--model", str(session.folder / "model")]) == 0
        printed = capsys.readouterr()
        first, second = printed.out.splitlines()
        assert (first, bool(second)) == ("", True)
        assert printed.err.count("the line is not UTF-8 text") == 1


def test_what_is_advised_is_what_a_talk_can_do(session: Session) -> None:
    _, err = session(["chat", "--max-new-tokens", "99999"], "hello")
    assert "foreword: --max-new-tokens is 99999" in err
    _, err = session(["predict", session.file("pair"), "--interactive"], '{"text_a": "a"}')
    assert "no field 'text_b'" in err
    assert "columns" not in err
    assert "`" not in err


def test_first_turns_are_left_out_where_there_is_no_room(session: Session) -> None:
    said = "a word " * 60
    out, err = session(["chat", session.file("talk")], said, said, said, said)
    assert len(out) == 4
    assert all(out)
    assert "the first 2 turns do not fit any more and are left out" in err


def test_predict_answers_line_after_line(session: Session) -> None:
    out, _ = session(["predict", session.file("write"), "--interactive"], "hello", "", "/reset")
    right = tuned(session, "write").predict(["hello", "/reset"])
    assert out == [text.replace("\n", "\\n") for text in right]
    out, _ = session(["predict", session.file("sort"), "--interactive"], "fine", "it was")
    own = tuned(session, "sort").predict(["fine", "it was"])
    assert [line.split()[0] for line in out] == own
    row = json.dumps({"text_a": "a", "text_b": "b"})
    out, err = session(["predict", session.file("pair"), "--interactive"], row, "a", "{no")
    assert out[0].split()[0] == tuned(session, "pair").predict({"text_a": "a", "text_b": "b"})
    assert out[1:] == ["", ""]
    assert "2 fields" in err
    assert "not JSON" in err
    words = ["predict", session.file("sort"), "--interactive", "--min-probability", "1"]
    out, _ = session(words, "fine")
    assert out[0].startswith("-  (unsure: ")
    _, err = session(["predict", session.file("sort"), "a", "--interactive"], status=2)
    assert "leave out texts" in err
