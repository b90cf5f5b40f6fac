"""One reading of rows: check, train, eval, predict and Python read the same of the same file."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foreword.cli.continual import _rows
from foreword.cli.multitask import _member
from foreword.cli.reading import Reading, Table
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.shapes import canonical
from foreword.errors import UserError
from foreword.evaluation.answer_columns import answer_rows
from foreword.prompt.predict import rows_of
from foreword.tasks.generate import Generate
from toys import rows as toy_rows

Cli = Callable[..., Any]

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": 'it\'s "so"'}]
SQUAD = {
    "title": "t",
    "paragraphs": [
        {"context": "a film", "qas": [{"question": "q", "answers": [{"text": "film"}]}] * 2}
    ],
}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import datasets

    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["bad", "good"])
    )
    file = io.BytesIO()
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    return file.getvalue()


AWKWARD: dict[str, Callable[[], bytes]] = {
    "semicolons.csv": lambda: b'text;label\r\nHello, you;1,5\r\n"a;b";x\r\n',
    "spaces.csv": lambda: b'text, label\n"a, b", "p"\nc, q\n',
    "numbers.csv": lambda: b"text,label\n01,1.50\nNA,null\n2024-01-01,true\n",
    "quote.tsv": lambda: b'text\tlabel\n"so he said\tx\nfine\ty\nbye"\tx\n',
    "lines.csv": lambda: b'text,label\n"Hi,\nyou",x\n" n ", y \n',
    "lists.csv": lambda: b"text,labels,label\na,\"['x', 'y']\",b\n",
    "western.csv": lambda: "text;label\nViele Grüße aus dem Süden;ja\n".encode("windows-1252"),
    "marked.csv": lambda: "text,label\nä,ö\n".encode("utf-16"),
    "rows.jsonl.gz": lambda: gzip.compress(
        b'{"text": 1.0, "label": true}\n\n{"text": "b", "label": null}\n'
    ),
    "odd.jsonl": lambda: '{"text": "a\u2028b\\u0000", "label": "-1", "x": {"y": [1]}}\n'.encode(),
    "chat.jsonl": lambda: (json.dumps({"messages": CHAT}) + "\n").encode(),
    "chat.csv": lambda: ('id,messages\n1,"' + repr(CHAT).replace('"', '""') + '"\n').encode(),
    "sharegpt.json": lambda: json.dumps(
        [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
    ).encode(),
    "alpaca.json": lambda: json.dumps(
        {"data": [{"instruction": "Say", "input": "", "output": "it"}]}
    ).encode(),
    "squad.json": lambda: json.dumps({"version": "2", "data": [SQUAD]}).encode(),
    "labels.parquet": lambda: parquet([{"text": "a", "label": 1}, {"text": "b", "label": -1}]),
}

REFUSED: dict[str, bytes] = {
    "cells.csv": b"text,label\na,b,c\n",
    "twice.jsonl": b'{"text": "a", "text": "b", "label": "x"}\n',
    "broken.jsonl": b'{"text": "a", "label": "x"}\n{"text":\n',
    "empty.csv": b"\n",
    "header.csv": b"text,text\na,b\n",
    "latin.jsonl": b'{"text": "\xe4", "label": "x"}\n',
    "chat.jsonl": b'{"messages": []}\n',
    "chat.csv": b"messages\n\"[{'role': 'user', 'content': 'a' ...]\"\n",
    "short.json": b'{"rows": []}',
}


class Seen:
    """What `predict` is asked to answer."""

    def __init__(self) -> None:
        self.rows: Sequence[Row] = ()
        self.bound: Any = SimpleNamespace(check=lambda rows, answers: None)

    def answers(self, rows: Sequence[Row], progress: Any = None) -> list[Any]:
        self.rows = rows
        return [{} for _ in rows]


def by_predict(path: Path) -> list[Row]:
    seen = Seen()
    answer_rows(seen, list(Table().iterate(str(path), ["test"], _raise)))  # type: ignore[arg-type]
    return list(seen.rows)


def _raise(error: UserError) -> None:
    raise error


def by_multitask(path: Path) -> Sequence[Row]:
    names = ("dev", "test", "rows", "per_label", "dev_rows", "columns", "delimiter", "encoding")
    plain = {"train": str(path), "skip_bad": False, **dict.fromkeys(names)}
    made: Any = SimpleNamespace(plain=plain, task=Generate(), training=SimpleNamespace(seed=0))
    return as_rows(_member("one", made).train)


DOORS: dict[str, Callable[[Path], Sequence[Row]]] = {
    "data check": lambda path: canonical(Table().read(str(path)))[1],
    "train, eval": lambda path: as_rows(Reading().rows(str(path))),
    "with --skip-bad": lambda path: as_rows(Reading(skip_bad=True).rows(str(path))),
    "predict": by_predict,
    "Python, a path": as_rows,
    "Python, predict": lambda path: rows_of(path, Seen().bound),
    "multitask": by_multitask,
    "continual, replay": lambda path: _rows(str(path)),
    "compress, augment": lambda path: as_rows(str(path), targets=False),
    "a folder": lambda path: as_rows(path.parent),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_every_door_reads_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(AWKWARD[name]())
    read = {door: list(through(path)) for door, through in DOORS.items()}
    expected = read["Python, a path"]
    assert expected
    for door, rows in read.items():
        assert [dict(row.fields) for row in rows] == [dict(row.fields) for row in expected], door
        assert [row.where for row in rows] == [row.where for row in expected], door
    again = as_rows([row.fields for row in expected])  # dicts of Python
    assert [dict(row.fields) for row in again] == [dict(row.fields) for row in expected]


@pytest.mark.parametrize("name", REFUSED)
def test_every_door_refuses_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(REFUSED[name])
    said = {}
    for door, through in DOORS.items():
        if door == "with --skip-bad" and name == "broken.jsonl":
            continue
        with pytest.raises(UserError) as caught:
            through(path)
        said[door] = str(caught.value)
        assert said[door].startswith(f"{path}:")
    assert len(set(said.values())) == 1, said


def test_from_an_awkward_file_to_its_answers(world: Any, cli: Cli, tmp_path: Path) -> None:
    """What the commands count and write is what was read."""
    data, out = tmp_path / "a.csv", tmp_path / "p.safetensors"
    texts = [f'"{row.fields["text"]}, ""x""", "{row.fields["label"]}"' for row in toy_rows(24)]
    data.write_text("\n".join(["text, label", *texts, ""]), "utf-8")
    read = as_rows(data)
    assert {row.fields["label"] for row in read} == {"good", "bad"}
    checked = cli("data", "check", data, "--json").json["splits"][str(data)]
    assert checked["labels"] == {"bad": 12, "good": 12}
    flags = ["--train", str(data), "--dev", str(data), "--epochs", "1"]
    made = cli(*world.train(out, *flags))
    assert made.status == 0, made.err
    scored = cli("eval", out, "--data", data, "--json").json
    assert (scored["rows"], set(scored["per_class"])) == (24, {"good", "bad"})
    answered = tmp_path / "b.jsonl"
    assert cli("predict", out, "--data", data, "--out", answered).status == 0
    lines = [json.loads(line) for line in answered.read_text("utf-8").splitlines()]
    assert [(each["text"], each["label"]) for each in lines] == [
        (row.fields["text"], row.fields["label"]) for row in read
    ]
