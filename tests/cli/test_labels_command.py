"""``foreword labels``: shown, added and removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone.backbone import Backbone
from toys import get, toy_run

Cli = Callable[..., Any]


def test_the_commands(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "load", lambda name, **_: get())
    first, second = tmp_path / "p.safetensors", tmp_path / "q.safetensors"
    toy_run(None).save(first)
    added = cli("labels", "add", first, "it", "--word", "it", "--out", second)
    assert added.out == f"{second}: label 'it' added by its words; 3 labels\n", added.err
    assert cli("labels", second).out.split() == ["bad", "bad", "good", "good", "it", "it"]
    shown = cli("labels", second, "--json").json
    assert shown["labels"] == {"good": [" good"], "bad": [" bad"], "it": [" it"]}
    assert shown["changes"] == [{"added": "it", "by": "its words"}]
    gone = cli("labels", "remove", second, "bad", "--out", second, "--json").json
    assert gone["labels"] == ["good", "it"]
    wrong = cli("labels", "add", first, "it", "--description", "x", "--out", second)
    assert wrong.status == 2
    assert "by its name or by --word" in wrong.err
