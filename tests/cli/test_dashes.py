"""Values and texts that begin with a dash are read as what they are, or refused with a way out."""

from __future__ import annotations

from typing import Any

import pytest
from test_mistakes import refused

from foreword.cli.commands import app
from foreword.cli.dashes import with_dashes

DASHES: dict[str, tuple[list[str], list[str]]] = {
    "a label": (["train", "--labels", "-1=bad"], ["train", "--labels=-1=bad"]),
    "among labels": (
        ["train", "--labels", "1=good", "-1=bad", "0=fair", "--epochs", "3"],
        ["train", "--labels", "1=good", "--labels=-1=bad", "0=fair", "--epochs", "3"],
    ),
    "a template": (
        ["train", "--template", "- {text}", "--json"],
        ["train", "--template=- {text}", "--json"],
    ),
    "several stops": (
        ["train", "--stop", "-", "--stop", "--- x"],
        ["train", "--stop=-", "--stop=--- x"],
    ),
    "standard input": (["predict", "P", "--data", "-"], ["predict", "--data=-", "--", "P"]),
    "a text": (["predict", "P", "-5 degrees"], ["predict", "--", "P", "-5 degrees"]),
    "a text between flags": (
        ["predict", "P", "--min-probability", "0.5", "-5 degrees", "--json", "warm"],
        ["predict", "--min-probability", "0.5", "--json", "--", "P", "-5 degrees", "warm"],
    ),
    "texts behind dashes already": (
        ["predict", "P", "-1 degree", "--", "-x"],
        ["predict", "--", "P", "-1 degree", "-x"],
    ),
    "anchors": (
        ["train", "--anchors", "-1", "bad=-2", "--lr", "-1"],
        ["train", "--anchors=-1", "bad=-2", "--lr=-1"],
    ),
    "columns": (["eval", "P", "--columns", "-t=x"], ["eval", "P", "--columns", "-t=x"]),
    "files": (["data", "check", "-", "--json"], ["data", "check", "--json", "--", "-"]),
    "a flag that there is not": (["predict", "P", "-json"], ["predict", "P", "-json"]),
}


@pytest.mark.parametrize("case", DASHES)
def test_values_and_texts_may_begin_with_a_dash(case: str) -> None:
    given, meant = DASHES[case]
    assert with_dashes(app, given) == meant


def test_what_begins_with_a_dash_arrives() -> None:
    given = ["train", "--labels", "1=good", "-1=bad", "--template", "- {text}", "--stop", "-"]
    _, bound, _ = app.parse_args(with_dashes(app, given), exit_on_error=False, print_error=False)
    flags = bound.arguments["flags"]
    assert flags.labels == ["1=good", "-1=bad"]
    assert (flags.template, flags.stop) == ("- {text}", ["-"])
    given = ["predict", "P", "warm", "-5 degrees", "--json"]
    _, bound, _ = app.parse_args(with_dashes(app, given), exit_on_error=False, print_error=False)
    assert bound.arguments["texts"] == ["warm", "-5 degrees"]


def test_what_looks_like_a_flag_is_refused_with_a_way_out(cli: Any) -> None:
    for given in (["predict", "P", "-json"], ["train", "--labels", "a", "-x=bad"]):
        refused(
            cli(*given),
            f"Unknown option: {given[-1].partition('=')[0]}",
            "a value that begins with a dash is joined to its flag by =, and a text stands behind",
        )


def test_a_text_that_begins_with_a_dash_is_answered(world: Any, cli: Any) -> None:
    answers = cli("predict", world.path("p.safetensors"), "-5 film", "--json").json["predictions"]
    (same,) = cli("predict", world.path("p.safetensors"), "--json", "--", "-5 film").json[
        "predictions"
    ]
    assert answers == [same]
    assert answers[0]["text"] == "-5 film"
