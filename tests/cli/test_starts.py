"""P-tuning, deep prompts, context tuning and starts from prompts, by their commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.prompt.tensors import opened

Cli = Callable[..., Any]

RUNS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "ptuning": (
        ["--length", "3", "--encoder", "mlp", "--hidden", "4"],
        {"encoder": "mlp", "hidden": 4, "length": 3},
    ),
    "deep": (["--length", "3", "--attends", "decoder"], {"attends": ["decoder"]}),
    "deep+head": (["--length", "3"], {}),
    "context": (
        ["--shots", "2", "--leave-one-out=false", "--token-dropout", "0.2", "--choice", "first"],
        {"shots": 2, "leave_one_out": False, "token_dropout": 0.2, "choice": "first"},
    ),
    "prefix": (["--start", "{w}/p.safetensors"], {}),
    "soft": (["--start", "{w}"], {}),
}


@pytest.mark.parametrize("method", RUNS)
def test_a_method_is_trained_and_used(method: str, world: Any, cli: Cli, tmp_path: Path) -> None:
    flags, expected = RUNS[method]
    out = tmp_path / "out.safetensors"
    given = [flag.replace("{w}", str(world.folder)) for flag in flags]
    answer = cli(*world.train(out, "--method", method, *given))
    assert answer.status == 0, answer.err
    meta, _ = opened(out)
    assert meta["method"]["name"] == method
    assert expected.items() <= meta["method"].items()
    if method == "soft":
        assert (
            f"starting from {world.path('soft.safetensors')}: of 1 prompt that fits" in answer.err
        )
    answer = cli("predict", out, "a good film", "--model", world.path("model"), "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "attention there is not": (["--method", "deep", "--attends", "cross"], "no such attention"),
    "encoder there is not": (["--method", "ptuning", "--encoder", "gru"], "gru"),
    "width zero": (["--method", "ptuning", "--hidden", "0"], "--hidden 0: give a width"),
    "choice there is not": (["--method", "context", "--choice", "best"], "best"),
    "shots beyond the rows": (["--method", "context", "--shots", "99"], "99 demonstrations asked"),
    "dropout of all": (["--method", "context", "--token-dropout", "1"], "--token-dropout 1: give"),
    "virtual tokens of a context": (
        ["--method", "context", "--shots", "2", "--template", "[soft:2]{text}"],
        "the template places virtual tokens",
    ),
    "a start of another kind": (
        ["--method", "soft", "--start", "{w}/p.safetensors"],
        "holds no virtual tokens to start from",
    ),
    "a start of another model": (
        ["--model", "{w}/other", "--start", "{w}/p.safetensors"],
        "was tuned on",
    ),
    "a start that is not there": (["--start", "{w}/none.safetensors"], "unknown start"),
    "a start of another length": (
        ["--method", "soft", "--length", "3", "--start", "{w}/soft.safetensors"],
        "and 3 are asked for",
    ),
    "an empty library": (["--start", "{d}"], "holds no prompt files"),
    "a length of a context": (["--method", "context", "--length", "3"], "--length is no setting"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, world: Any, cli: Cli, tmp_path: Path
) -> None:
    flags, what = MISTAKES[mistake]
    given = [f.replace("{w}", str(world.folder)).replace("{d}", str(tmp_path)) for f in flags]
    answer = cli(*world.train(tmp_path / "out" / "p.safetensors", *given))
    assert answer.status == 2
    assert "Traceback" not in answer.err
    assert what in answer.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
