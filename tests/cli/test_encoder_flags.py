"""Encoders by the command line: how a model is opened, and what is said of a wrong way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import World
from foreword.evaluation.runs import Model
from foreword.prompt.prompt import Prompt

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def tuned(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prompt on a masked model that is opened as an encoder."""
    from foreword.cli.main import run

    out = str(tmp_path_factory.mktemp("encoder") / "p.safetensors")
    flags = ["--model", world.path("masked"), "--architecture", "encoder", "--pooling", "cls"]
    assert run([*world.train(out, *flags, "--template", "{text}"), "--method", "prefix+head"]) == 0
    return out


def test_flags_say_how_a_model_is_opened_and_a_prompt_keeps_it(
    tuned: str, world: World, cli: Cli
) -> None:
    about = Prompt.load(tuned).backbone
    assert (about["architecture"], about["pooling"]) == ("encoder", "cls")
    assert cli("predict", tuned, "a good film").status == 0
    assert cli("predict", tuned, "a good film", "--pooling", "cls").status == 0
    other = cli("predict", tuned, "a good film", "--pooling", "mean")
    assert "was tuned with --pooling cls, and this model is opened with --pooling mean" in other.err
    found = cli("eval", tuned, "--data", world.path("test.jsonl"), "--baselines", "--json")
    assert found.json["baselines"].keys() == {"zero-shot"}
    assert "an encoder reads none" in found.err


def test_few_rows_are_all_learned_and_the_dev_score_says_when_it_was_taken(
    world: World, cli: Cli, tmp_path: Path
) -> None:
    encoder = ("--model", world.path("masked"), "--architecture", "encoder")
    given = [*encoder, "--train", world.path("train.jsonl"), "--epochs", "1", "--lr", "1e-3"]
    made = cli("train", *given, "--out", str(tmp_path / "p.safetensors"), "--template", "{text}")
    assert made.status == 0
    assert "rows: lora+head, since it scores best on an encoder and few rows" in made.err
    assert "training once more, on all" in made.err
    assert ", before it learned these; " in made.out
    found = cli("eval", str(tmp_path / "p.safetensors"), "--data", world.path("train.jsonl"))
    rows = len(Path(world.path("train.jsonl")).read_text("utf-8").splitlines())
    assert f"warning: {rows} of {rows} of these rows are in train too" in found.out + found.err
    off = cli("train", *given, "--out", str(tmp_path / "q.safetensors"), "--refit", "off")
    assert ", before it learned these" not in off.out
    wrong = cli("train", *given, "--out", str(tmp_path / "r.safetensors"), "--refit", "twice")
    assert (wrong.status, "refit" in wrong.err, "on" in wrong.err) == (2, True, True)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ("--pooling", "max"),
            "unknown pooling 'max': known are: auto, mean, weightedmean, cls, last",
        ),
        (("--pooling", "mean"), "predicts tokens and pools nothing; leave it out, or give --arch"),
        (("--architecture", "encodr"), "unknown architecture 'encodr': did you mean 'encoder'?"),
        (("--architecture", "encoder", "--task", "generate"), "is an encoder"),
    ],
)
def test_a_wrong_way_is_one_line_in_training_and_in_a_check(
    flags: tuple[str, ...], line: str, world: World, cli: Cli, tmp_path: Path
) -> None:
    trained = cli(*world.train(tmp_path / "q.safetensors", *flags))
    assert trained.status == 2
    assert line in trained.err
    model = ("--model", world.path("model"), "--template", "{text} :")
    task = () if "--task" in flags else ("--task", "classify")
    checked = cli("data", "check", world.path("train.jsonl"), *task, *model, *flags)
    assert checked.status == 2
    assert line in checked.err


def test_a_check_without_a_model_has_no_pooling(world: World, cli: Cli) -> None:
    found = cli("data", "check", world.path("train.jsonl"), "--pooling", "mean")
    assert "--pooling says how a model is opened; give --model too" in found.err


def test_a_record_of_a_comparison_from_before_is_still_the_same_run() -> None:
    before = {"name": "m", "dtype": "auto", "device": "auto", "quantize": None}
    assert Model("m").about() == before
    assert Model("m", pooling="cls").about() == {**before, "pooling": "cls"}
