"""Tiny models of transformers' architectures beside their own code: what is said of each."""

from __future__ import annotations

import json

import pytest
import torch

from benches import open_bench

bench = open_bench("architectures")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models be tried here, where no other thread of the tests is copied by a fork."""
    monkeypatch.setattr(bench, "results", lambda kind, names: (bench.tried(kind, n) for n in names))


@pytest.mark.usefixtures("in_this_process")
def test_types_are_told_by_what_came_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["llama", "mamba", "bloom", "cpmant", "blt"])
    assert capsys.readouterr().out.splitlines()[5:] == [
        "exact, a prefix, packed (1): llama",
        "exact, no prefix, padded (2): mamba, bloom",
        "not built (1): blt",
        "refused (1): cpmant",
    ]


@pytest.mark.usefixtures("in_this_process")
def test_a_model_that_is_run_otherwise_is_not_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = bench.Trial.own

    def other(self: object, row: object, said: object = ()) -> torch.Tensor:
        scores: torch.Tensor = real(self, row, said)
        return scores * 1.001

    monkeypatch.setattr(bench.Trial, "own", other)
    bench.main(["bert", "--kind", "masked", "--json"])
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["type"] == "bert"
    assert not bench.is_exact(found)
    assert bench.summary([found]) == "NOT EXACT, a prefix, padded (1): bert"
