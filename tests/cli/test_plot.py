"""``foreword plot``: a run's curves as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World

Cli = Callable[..., Answer]


def test_the_curves_of_a_run(world: World, cli: Cli, tmp_path: Path) -> None:
    answer = cli("plot", world.path("p.safetensors"), "--out", tmp_path / "p.svg", "--json")
    assert answer.status == 0, answer.err
    assert answer.json["steps"] == 6
    assert list(answer.json["scores"]) == ["accuracy"]
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


def test_a_picture_stands_beside_its_log(world: World, cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "run.log.jsonl"
    log.write_text(Path(world.path("p.log.jsonl")).read_text() + '{"step": 7, "lo')
    answer = cli("plot", log)
    assert answer.out == f"{tmp_path}/run.png: 6 steps\n"
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, (), "x.log.jsonl: cannot be read (No such file or directory)"),
        ("text, label\n", (), "x.log.jsonl: is no log of a run; give NAME.log.jsonl"),
        ("", (), "x.log.jsonl: is no log of a run"),
        ("[1]\n", (), "x.log.jsonl: is no log of a run"),
        ('{"config": {}, "steps": 3}\n', (), "x.log.jsonl: no step is done yet"),
        ("", ("--out", "x.gif"), "x.gif: a picture is a file that ends in .png, .svg, .pdf"),
    ],
)
def test_mistakes(
    content: str | None, more: tuple[str, ...], message: str, cli: Cli, tmp_path: Path
) -> None:
    log = tmp_path / "x.log.jsonl"
    if content is not None:
        log.write_text(content)
    answer = cli("plot", log, *more)
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
