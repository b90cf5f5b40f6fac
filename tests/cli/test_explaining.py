"""``foreword explain``: in the terminal, as JSON, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World
from foreword.explanation.explanation import Explanation

Cli = Callable[..., Answer]


def test_an_input_is_explained(world: World, cli: Cli) -> None:
    asked = ("explain", world.path("soft.safetensors"), "--text", "it was a good film")
    answer = cli(*asked)
    assert answer.status == 0, answer.err
    assert "convergence delta" in answer.out
    assert "Probabilities as each layer would decode them" in answer.out
    assert "importance: needs rows with their answers" in answer.out
    assert max(map(len, answer.out.splitlines()[1:])) <= 80
    found = Explanation.from_dict(cli(*asked, "--json").json)
    assert found.attribution is not None
    assert found.attribution.text == "it was a good film"
    assert "<table>" in found._repr_html_()


def test_tables_say_what_they_leave_out(world: World, cli: Cli) -> None:
    asked = ("explain", world.path("soft.safetensors"), "--data", world.path("dev.jsonl"))
    answer = cli(*asked, "--rows", "4")
    assert answer.status == 0, answer.err
    found = Explanation.from_dict(cli(*asked, "--rows", "4", "--json").json)
    assert found.importance
    assert found.attribution
    count = len(found.importance.tokens)
    added = len([*found.attribution.tokens, *found.attribution.virtual])
    assert count > 10
    assert added > 20
    for shown, of in ((10, count), (20, added)):
        assert f"\n({shown} of {of} shown; --json has all)" in answer.out
    assert answer.out.count("shown; --json") == 2 + (
        len([text for text in found.words.texts if text.is_faithful]) > 10 if found.words else 0
    )


def test_an_input_that_is_empty_is_refused(world: World, cli: Cli) -> None:
    answer = cli("explain", world.path("soft.safetensors"), "--text", "")
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert 'the text: field "text" is empty' in answer.err


def test_rows_explain_a_prompt(world: World, cli: Cli) -> None:
    asked = (
        "explain",
        world.path("p.safetensors"),
        "--data",
        world.path("dev.jsonl"),
        "--rows",
        "4",
    )
    answer = cli(*asked)
    assert answer.status == 0, answer.err
    for title in ("Importance: without", "Attention on the prompt", "In words: as plain text"):
        assert title in answer.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.jsonl: the file is empty; write at least one row"),
        ('{"text": "it was", "label": "blue"}\n', "x.jsonl:1: unknown label 'blue'"),
        ('{"text": "it was", "label": "good"}\n' * 3, "all 3 rows have the label 'good'"),
        ('{"prompt": "it was", "completion": "blue"}\n', "x.jsonl:1: no field 'text'"),
    ],
)
def test_rows_that_cannot_be_used_are_one_line(
    world: World, cli: Cli, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    answer = cli("explain", world.path("p.safetensors"), "--data", tmp_path / "x.jsonl")
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_another_model_and_nothing_to_explain_by_are_refused(world: World, cli: Cli) -> None:
    nothing = cli("explain", world.path("p.safetensors"))
    assert nothing.status == 2
    assert "give --data, --text or both" in nothing.err
    other = cli(
        "explain", world.path("p.safetensors"), "--text", "it", "--model", world.path("other")
    )
    assert other.status == 2
    assert "was tuned on" in other.err


def test_the_best_text_is_kept_in_a_prompt_file(world: World, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "q.safetensors"
    data = ("--data", world.path("dev.jsonl"), "--rows", "6")
    answer = cli("explain", world.path("p.safetensors"), *data, "--save-text", out, "--json")
    assert answer.status == 0, answer.err
    texts = answer.json["words"]["texts"]
    least = min(t["loss"] for t in texts if t["kind"] == "control")
    kinds = ("nearest", "control")
    faithful = [t for t in texts if t["kind"] not in kinds and (t["gain"] or 0) > 0]
    faithful = [t for t in faithful if t["loss"] < least]
    if faithful:
        assert answer.json["saved"] == min(faithful, key=lambda t: t["loss"])["text"]
        assert cli("info", out, "--json").json["data"]["text"] == answer.json["saved"]
        assert cli("predict", out, "it was a good film").status == 0
    else:
        assert answer.json["saved"] is None
        assert "is not written" in answer.err
        assert not out.exists()


def test_a_text_is_chosen_by_rows(world: World, cli: Cli, tmp_path: Path) -> None:
    asked = ("--text", "it was", "--save-text", tmp_path / "q.safetensors")
    answer = cli("explain", world.path("p.safetensors"), *asked)
    assert answer.status == 2
    assert "--save-text needs rows to choose the text by; give --data" in answer.err
