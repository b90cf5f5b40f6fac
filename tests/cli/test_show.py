"""Tables fit a terminal of 80 columns, whatever stands in them, and show it as it is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from foreword.display import console, tables
from foreword.display.facts import facts
from foreword.metrics.classification import classification
from foreword.metrics.generation import generation
from foreword.metrics.titles import title

names = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"]), min_size=1, max_size=40
    ),
    min_size=2,
    max_size=9,
    unique=True,
)


def rendered(table: Table, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    console.out().print(table)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    return text


def classified(labels: list[str]) -> dict[str, Any]:
    gold = labels * 3
    guess = [*labels, *labels[1:], labels[0], *labels[::-1]]
    return classification(gold, guess, labels)


LONG = [f"a_rather_long_label_of_a_customer_{i}_{'x' * 30}" for i in range(6)]


@pytest.mark.parametrize("labels", [["no", "yes"], LONG, [*LONG, "a", "b"]], ids=len)
def test_tables_of_a_classification(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = classified(labels)
    result["baselines"] = {
        "zero-shot": classified(labels),
        "demonstrations": {**classified(labels), "shots": 4},
    }
    text = rendered(tables.scores(result, "prompt"), capsys)
    assert "4 demonstrations in context" in text
    low, high = result["intervals"]["accuracy"]
    assert f"{result['accuracy']:.1f} ({low:.1f}-{high:.1f})" in text
    text = rendered(tables.per_class(result), capsys)
    assert text.count(f"{result['per_class'][labels[0]]['f1']:.1f}") >= 1
    rendered(tables.confusion(result), capsys)


def test_the_table_of_a_generation(capsys: pytest.CaptureFixture[str]) -> None:
    result = generation(["a film", "it was"], [["a film"], ["it is"]])
    entry = {**result, "shots": 4}
    text = rendered(
        tables.scores({**result, "baselines": {"demonstrations": entry}}, "prompt"), capsys
    )
    for name in ("exact match", "BLEU", "chrF", "ROUGE-L"):
        assert name in " ".join(text.split())


def test_scores_without_a_title_are_shown_by_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (title("hit_1"), title("ece"), title("my_score")) == (
        "hit@1",
        "calibration error",
        "my score",
    )
    result = {"my_score": 12.34, "intervals": {"my_score": (10, 20)}}
    text = rendered(tables.scores(result, "prompt"), capsys)
    assert text.split() == ["my", "score", "prompt", "12.3", "(10.0-20.0)"]


def test_a_small_confusion_matrix_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    result = classification(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    lines = [line.split() for line in rendered(tables.confusion(result), capsys).splitlines()]
    assert lines[1:] == [["a", "1", "1"], ["b", "0", "1"]]


def test_of_many_labels_the_most_frequent_confusions_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = [f"l{i}" for i in range(8)]
    gold, guess = ["l0"] * 3 + ["l1"] * 2 + labels, ["l1"] * 3 + ["l2"] * 2 + labels
    text = rendered(tables.confusion(classification(gold, guess, labels)), capsys)
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["l0", "l1", "3"],
        ["l1", "l2", "2"],
    ]


def test_facts_are_aligned_lines_without_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "file": "p.safetensors",
        "scores": {
            "dev": {"log_likelihood": -5.0541, "rows": 8},
            "test": {
                "accuracy": 62.5,
                "ece": 3.1,
                "rows": 16,
                "intervals": {"accuracy": [50, 75], "ece": [2, 4]},
                "zero-shot": {"accuracy": 25.0, "rows": 16},
            },
        },
        "method": {
            "name": "lora+head",
            "methods": [{"rank": 2}, {"shots": 4, "upper": None}],
            "training": {"epochs": 2, "checkpointing": False},
        },
        "task": {
            "name": "classify",
            "template": "{text}\n:",
            "labels": {"bad": [" bad"], "good": [" good", " fine"]},
            "shown": [],
        },
        "data": {"train": {"rows": 24, "sha256": "776f9975a064721651e96709"}},
    }
    lines = rendered(facts(told), capsys).splitlines()
    column = lines[0].index("p.safetensors")
    assert all(line[column - 2 : column] == "  " for line in lines if line.strip())
    assert [re.sub(r"(?<=\S) {2,}", " | ", line.rstrip()) for line in lines] == [
        "file | p.safetensors",
        "",
        "scores",
        "  dev | log likelihood -5.0541 on 8 rows",
        "  test | accuracy 62.5 (50.0-75.0) on 16 rows",
        "  test, zero-shot | accuracy 25 on 16 rows",
        "",
        "method | lora+head",
        "methods 1",
        "  rank | 2",
        "methods 2",
        "  shots | 4",
        "training",
        "  epochs | 2",
        "  checkpointing | false",
        "",
        "task | classify",
        r"  template | {text}\n:",
        "  labels | bad, good=good,fine",
        "",
        "data",
        "  train | rows 24, sha256 776f9975a064",
    ]


@pytest.mark.parametrize(
    "value", ["[bold]x[/bold]", "[soft:2]{text} [mask]", ":smile:", "[/]", "https://a.b/c"]
)
def test_text_is_shown_as_it_is(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as markup, which would hide or break it, nor as pictures."""
    assert value in rendered(facts({"template": value}), capsys)
    assert value in rendered(tables.per_class(classified([value, "b"])), capsys)
    assert value[:12] in rendered(tables.confusion(classified([value, "b"])), capsys)
    console.line(value)
    assert capsys.readouterr().out == f"{value}\n"
    console.say(value)
    assert capsys.readouterr().err == f"{value}\n"


@pytest.mark.slow
@given(labels=names)
def test_any_labels_make_tables(labels: list[str]) -> None:
    result = classified(labels)
    for table in (
        tables.per_class(result),
        tables.confusion(result),
        tables.scores(result, "prompt"),
    ):
        screen = console.out()
        with screen.capture() as shown:
            screen.print(table)
        assert all(screen.measure(line).maximum <= 80 for line in shown.get().splitlines())


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a/path/" + "long/" * 40
    console.line(path)
    console.say(path)
    assert capsys.readouterr() == (f"{path}\n", f"{path}\n")
