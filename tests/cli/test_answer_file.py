"""Many rows through predict: written as they come, and gone on with after a stop."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.data.read import read_rows
from foreword.evaluation import answer_file
from processes import PATIENCE, process
from quick import first
from toys import doomed_answers, rows, write

Cli = Callable[..., Any]
N = 11


@pytest.fixture(autouse=True)
def _four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_file, "AT_ONCE", 4)


@pytest.fixture(params=["csv", "jsonl"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = write(tmp_path / "big.jsonl", rows(N))
    if request.param == "jsonl":
        return file
    made = ["text,n", *(f'"{row.fields["text"]}",{n}' for n, row in enumerate(rows(N)))]
    table = tmp_path / "big.csv"
    table.write_text("\n".join(made) + "\n")
    return table


def command(world: Any, data: Path, out: Path, *more: str) -> list[Any]:
    return ["predict", world.path("p.safetensors"), "--data", data, "--out", out, *more]


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come when so many parts are answered."""
    answer = answer_file.answer_rows
    left = [parts]

    def counted(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return answer(*args, **options)

    monkeypatch.setattr(answer_file, "answer_rows", counted)


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_what_is_stopped_ends_in_the_same_bytes(
    parts: int, world: Any, cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "new" / "out.csv"
    assert cli(*command(world, data, whole)).status == 0
    partial = out.with_name("out.csv.partial")
    with monkeypatch.context() as patched:
        stop_after(parts, patched)
        stopped = cli(*command(world, data, out))
    assert stopped.status == 130
    assert f"{partial} keeps what is answered" in stopped.err
    assert not out.exists()
    assert len(partial.read_text().splitlines()) == 1 + 4 * parts
    again = cli(*command(world, data, out))
    assert again.status == 0, again.err
    assert (f"{4 * parts} of {N} rows are answered already" in again.err) == bool(parts)
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()
    assert [row.fields["text"] for row in read_rows(out)] == [r.fields["text"] for r in rows(N)]


@pytest.mark.parametrize("row", first(1, [6, 1, 5, N]))
def test_a_process_that_is_killed_is_gone_on_with_to_the_same_bytes(
    row: int, world: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert cli(*command(world, data, whole)).status == 0
    asked = command(world, data, out)
    killed = process(doomed_answers, list(map(str, asked)), answer_file.AT_ONCE, row)
    killed.join(PATIENCE)
    assert killed.exitcode == -signal.SIGKILL
    done = (row - 1) // 4 * 4
    partial = out.with_name("out.csv.partial")
    assert len(partial.read_bytes().splitlines()) == 1 + done
    assert not out.exists()
    again = cli(*asked)
    assert again.status == 0, again.err
    assert (f"{done} of {N} rows are answered already" in again.err) == bool(done)
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize("torn", [1, 30, 300])
def test_a_part_that_is_torn_is_answered_again(
    torn: int, world: Any, cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert cli(*command(world, data, whole)).status == 0
    with monkeypatch.context() as patched:
        stop_after(2, patched)
        cli(*command(world, data, out))
    partial = out.with_name("out.jsonl.partial")
    partial.write_bytes(
        partial.read_bytes()[:-torn]
    )  # as a kill in the middle of a write leaves it
    assert cli(*command(world, data, out)).status == 0
    assert out.read_bytes() == whole.read_bytes()


def test_rows_of_a_named_pipe_are_read_once(world: Any, cli: Cli, tmp_path: Path) -> None:
    piped, out, done = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", threading.Event()
    left = [write(tmp_path / "file.jsonl", rows(N)).read_bytes()]
    os.mkfifo(piped)

    def feed() -> None:
        """Give the rows to the first reader, and nothing to any other."""
        while not done.is_set():
            piped.write_bytes(left.pop() if left else b"")

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    answer = cli(*command(world, piped, out))
    done.set()
    while feeder.is_alive():
        os.close(os.open(piped, os.O_RDONLY | os.O_NONBLOCK))
        feeder.join(0.01)
    assert answer.status == 0, answer.err
    assert len(out.read_text().splitlines()) == N


def test_two_runs_do_not_write_to_one_file(
    world: Any, cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out, seen = tmp_path / "whole.csv", tmp_path / "out.csv", list[Any]()
    assert cli(*command(world, data, whole)).status == 0
    answer = answer_file.answer_rows

    def meet(*args: Any, **options: Any) -> Any:
        if not seen:
            seen.append(None)
            seen.append(cli(*command(world, data, out)))
        return answer(*args, **options)

    monkeypatch.setattr(answer_file, "answer_rows", meet)
    assert cli(*command(world, data, out)).status == 0
    _, second = seen
    assert second.status == 2
    assert f"{out}.partial: another run writes its answers there; wait for its end" in second.err
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.glob("out.csv*")) == [out]


def test_answers_to_other_questions_are_not_gone_on_with(
    world: Any, cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        cli(*command(world, data, out))
    kept = out.with_name("out.csv.partial").read_bytes()
    other = tmp_path / f"other{data.suffix}"
    other.write_bytes(data.read_bytes().replace(b"film", b"cake"))
    asked = command(world, data, out)
    for changed in (
        ["predict", world.path("soft.safetensors"), *asked[2:]],
        command(world, other, out),
        command(world, data, out, "--min-probability", "0.6"),
        command(world, data, out, "--quantize", "int8"),
    ):
        answer = cli(*changed)
        assert answer.status == 2
        assert "holds answers to other rows, of another prompt or with other settings" in answer.err
        assert out.with_name("out.csv.partial").read_bytes() == kept


def test_bad_rows_keep_their_places(world: Any, cli: Cli, tmp_path: Path) -> None:
    data, out = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    given = [dict(row.fields) for row in rows(N)]
    given[5]["text"] = " "
    lines = [json.dumps(each) for each in given]
    lines.insert(2, "{")
    data.write_text("\n".join(lines))
    answer = cli(*command(world, data, out, "--skip-bad", "--json"))
    assert answer.status == 0, answer.err
    read = [json.loads(line) for line in out.read_text().splitlines()]
    assert read == answer.json["predictions"]
    assert [each["text"] for each in read] == [each["text"] for each in given]
    assert [n for n, each in enumerate(read) if each["predicted_label"] is None] == [5]
    assert len(answer.json["skipped"]) == 2
    assert cli(*command(world, data, out)).status == 2


def test_json_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    """In each encoding, and with each end of lines, as a whole text is read."""
    texts = ["é film", "it\u2028was", "a"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for end in ("\n", "\r\n"):
            file = tmp_path / "f.jsonl"
            file.write_bytes(end.join(["", *lines]).encode(encoding))
            found = read_rows(file)
            assert [row.fields["text"] for row in found] == texts
            assert [row.where for row in found] == [f"{file}:{n}" for n in (2, 3, 4)]
