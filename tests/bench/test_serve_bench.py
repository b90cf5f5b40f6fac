"""The benchmark of serving, on a tiny model: all sides run, and ratios are of their times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benches import open_bench
from families import CAUSAL, backbone, tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported"),
]


def test_all_sides_write_the_same_number_of_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = open_bench("serve_generate")
    backbone(CAUSAL[0]).model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    bench.generate(
        model=str(tmp_path),
        prompts=4,
        requests=6,
        new=3,
        rounds=2,
        adapters=4,
        threads=1,
        as_json=True,
    )
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 18
    assert found["counts"]["tokens_written"] == 2 * 2 * 18
    assert {name: len(own) for name, own in found["seconds"].items()} == {
        "engine": 2,
        "no prompt": 2,
        "floor": 2,
        "PEFT": 1,
    }
    seconds = found["seconds"]
    assert found["ratios"]["floor"] == pytest.approx(
        [f / e for f, e in zip(seconds["floor"], seconds["engine"], strict=True)]
    )
