"""Templates with demonstrations, verbalizers and calibration from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World

Cli = Callable[..., Answer]
ROWS = [
    {"text": f"{text} {n}", "label": label}
    for n in range(4)
    for text, label in (("a good film", "good"), ("it was bad", "bad"))
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def training(world: World, file: Path, *more: str) -> list[str]:
    out = file.with_name("p.safetensors")
    return [
        *("train", "--model", str(world.path("model")), "--train", str(file), "--dev", str(file)),
        *("--epochs", "1", "--out", str(out), *more),
    ]


def test_all_of_it_stands_in_the_prompt_file(world: World, cli: Cli, file: Path) -> None:
    template = "say it \\n{demos:2}{text} :"
    more = ("--template", template, "--demos", "nearest", "--calibration", "pmi")
    made = cli(*training(world, file, *more, "--verbalizer", "search", "--method", "soft"))
    assert made.status == 0, made.err
    assert "label words: " in made.err
    out = file.with_name("p.safetensors")
    held = cli("info", out, "--json").json["task"]
    assert held["verbalizer"] == "manual"
    assert len(held["shown"]) == len(ROWS)
    assert all(len(words) == 1 for words in held["labels"].values())
    file.unlink()
    found = cli("predict", out, "a good film", "--json").json["predictions"][0]
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("start", ["words", "prototypes"])
def test_heads_begin_as_they_are_told(world: World, cli: Cli, file: Path, start: str) -> None:
    made = cli(*training(world, file, "--method", "soft+head", "--head-start", start, "--json"))
    assert made.status == 0, made.err
    assert made.json["config"]["method"]["methods"][1]["head_start"] == start


def test_rows_to_show_may_be_given(world: World, cli: Cli, file: Path) -> None:
    own = file.with_name("own.jsonl")
    own.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]), "utf-8")
    template = ("--template", "{demos:2}{text} :")
    made = cli(*training(world, file, *template, "--shown", str(own), "--json"))
    assert made.status == 0, made.err
    assert made.json["config"]["task"]["shown"] == ROWS[:2]
    own.write_text(json.dumps(ROWS[0]) + "\n", "utf-8")
    found = cli(*training(world, file, *template, "--shown", str(own)))
    assert found.status == 2
    assert "1 row is there to show" in found.err


def test_words_of_autoprompt_stand_in_the_prompt_file(world: World, cli: Cli, file: Path) -> None:
    made = cli(*training(world, file, "--verbalizer", "autoprompt", "--method", "soft"))
    assert made.status == 0, made.err
    held = cli("info", file.with_name("p.safetensors"), "--json").json["task"]
    assert held["verbalizer"] == "manual"
    words = [word for own in held["labels"].values() for word in own]
    assert len(set(words)) == len(words) >= 2
    assert all(word in made.err.split("label words: ")[1].splitlines()[0] for word in words)


def test_relations_are_shown_and_calibrated(world: World, cli: Cli, file: Path) -> None:
    pairs = [("film", "was"), ("bad", "it"), ("and", "good")]
    rows = [
        {"text": f"{a} {b} {n}", "head": a, "tail": b, "label": label}
        for n, (a, b) in enumerate(pairs * 2)
        for label in ("Other", "A(e1,e2)")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    flags = ["--task", "relate", "--template", "{demos:2}{text} : {head} {tail}", "--json"]
    more = ["--demos", "nearest", "--calibration", "pmi", "--method", "soft"]
    made = cli(*training(world, file, *flags, *more))
    assert made.status == 0, made.err
    task = made.json["config"]["task"]
    assert (task["calibration"], task["demos"], len(task["shown"])) == ("pmi", "nearest", 6)
    own = file.with_name("own.jsonl")
    own.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]), "utf-8")
    given = cli(*training(world, file, *flags, "--shown", str(own)))
    assert given.status == 0, given.err
    assert given.json["config"]["task"]["shown"] == rows[:3]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.yaml", "good: good, film\nbad: [bad, it, film]\n"),
        ("w.json", '{"good": ["good", "film"], "bad": ["bad", "it", "film"]}'),
        ("w.txt", "good: good, film, good\nbad: bad,it, film\n"),
    ],
)
def test_a_file_of_label_words(world: World, cli: Cli, file: Path, name: str, text: str) -> None:
    words = file.with_name(name)
    words.write_text(text, "utf-8")
    made = cli(*training(world, file, "--labels", f"@{words}", "--json"))
    assert made.status == 0, made.err
    assert made.json["config"]["task"]["labels"] == {"good": [" good"], "bad": [" bad", " it"]}
    refined = cli(
        *training(world, file, "--labels", f"@{words}", "--verbalizer", "refine", "--json")
    )
    kept = refined.json["config"]["task"]["labels"]
    assert sum(map(len, kept.values())) < 3


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--verbalizer", "serach"], "search"),
        (["--calibration", "pmj"], "pmi"),
        (["--demos", "nearest"], "the template has no {demos:N}"),
        (["--template", "{demos:0}{text}"], "cannot read {demos:0}"),
        (["--template", "{demos:four}{text}"], "write {demos:4}"),
        (["--template", "{demos:2}{demos:2}{text}"], "stands twice"),
        (["--template", "{demos:9}{text} :"], "10 training rows of different texts"),
        (["--template", "{demos:2}{txt} :"], "rows.jsonl:1: no field 'txt'"),
        (["--method", "soft", "--head-start", "words"], "--head-start is no setting"),
        (["--method", "head", "--head-start", "word"], "words"),
        (["--labels", "@none.yaml"], "none.yaml: cannot be read"),
        (["--shown", "none.jsonl", "--template", "{demos:2}{text} :"], "none.jsonl"),
        (["--task", "generate", "--shown", "W"], "--shown is no setting"),
        (["--task", "generate", "--template", "{demos:2}{text}"], "other tasks have none"),
    ],
)
def test_mistakes(world: World, cli: Cli, file: Path, flags: list[str], why: str) -> None:
    found = cli(*training(world, file, *flags))
    assert (found.status, len(found.err.splitlines()[-1:])) == (2, 1), found.err
    assert why in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("good: [good\nbad: bad\n", ":2: cannot be read"),
        ("good", "is no list of label words"),
        ("good: true\nbad: bad\n", "put true, false and numbers in quotes"),
        ("good: 3\nbad: bad\n", "write label: word, word"),
        ("good: [3]\nbad: bad\n", "put it in quotes"),
        (
            "good: fine\ngood: bad\n",
            ":2: cannot be read (key 'good' is there twice",
        ),
        ("[" * 1200, "is nested too deeply"),
        ("good: bad\nbad: bad\n", "label 'good' has no word of its own"),
        ("good: good\n", "at least two labels"),
        ("good: good\nbed: bad\n", "unknown label 'bad'"),
    ],
)
def test_label_words_that_cannot_be_used(
    world: World, cli: Cli, file: Path, text: str, why: str
) -> None:
    words = file.with_name("w.yaml")
    words.write_text(text, "utf-8")
    found = cli(*training(world, file, "--labels", f"@{words}"))
    assert found.status == 2, found.err
    assert why in found.err
