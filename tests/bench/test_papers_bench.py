"""The papers' tables on tiny tasks: runs that are stopped go on, and finished ones are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benches import open_bench
from families import CAUSAL, MASKED, Family, backbone, tokenizer
from foreword.data.row import Row
from foreword.metrics.generation import generation
from foreword.prompt.prompt import Prompt

papers = open_bench("papers")
papers_e2e = open_bench("papers_e2e")
papers_published = open_bench("papers_published")
papers_superglue = open_bench("papers_superglue")


def model(folder: Path, family: Family) -> str:
    backbone(family, initializer_range=0.2).model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def test_e2e_is_resumed_recorded_and_set_beside_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = model(tmp_path / "tiny", CAUSAL[0])
    own = [{"prompt": f"film {n % 7}", "completion": "it was a film"} for n in range(8)]
    write(tmp_path / "train.jsonl", own)
    write(tmp_path / "dev.jsonl", own[:3])
    write(tmp_path / "test.jsonl", [{**r, "references": ["it was", "a film"]} for r in own[:5]])
    monkeypatch.setattr(papers_e2e, "AT_ONCE", 2)
    monkeypatch.setitem(papers_e2e.SETTINGS, "prefix", {"length": 3, "start": "random"})
    out, written = tmp_path / "records.jsonl", []
    plain = Prompt.answers

    def answers(self: Prompt, rows: Any, **how: Any) -> Any:
        if len(written) == 2:
            written.append(0)
            raise KeyboardInterrupt  # while the test set is being written
        written.append(len(rows))
        return plain(self, rows, **how)

    monkeypatch.setattr(Prompt, "answers", answers)

    def run() -> None:
        papers.e2e(
            tmp_path, model=name, methods="prefix", epochs=1, batch=4, beams=2,
            work=tmp_path / "work", out=out,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not out.exists()
    run()
    assert written == [2, 2, 0, 1], "what was written before is not written again"
    (record,) = map(json.loads, out.read_text("utf-8").splitlines())
    assert (record["table"], record["model"], record["method"]) == ("e2e", "tiny", "prefix")
    assert record["settings"] == {"epochs": 1, "batch": 4, "beams": 2, "dtype": "float32"}
    assert (record["train_rows"], record["rows"]) == (8, 5)
    run()
    assert len(out.read_text("utf-8").splitlines()) == 1
    table = capsys.readouterr().out
    assert f"| prefix, tiny | {record['bleu']:.1f} (" in table
    assert "| prefix, GPT-2 Medium, 355M (Li and Liang 2021) | 69.7 | | published |" in table


def test_official_bleu_does_not_tell_capitals_apart() -> None:
    rows = [Row({"references": ["The pub is cheap, near the river.", "A cheap pub."]}, "r:1")]
    found = papers_e2e.official_scores(["the PUB is cheap, near the river."], rows)
    assert found["bleu"] == 100
    assert found["cased"]["bleu"] == 72.6  # (7/9 * 6/8 * 5/7 * 4/6) ** (1 / 4)
    part = papers_e2e.official_scores(["a cheap pub near the river"], rows)["bleu"]
    low = generation(["a cheap pub near the river"], [["the pub is cheap, near the river.",
                     "a cheap pub."]], scores=("bleu",))  # fmt: skip
    assert part == low["bleu"]


def test_a_task_of_superglue_is_scored_on_its_validation_rows(tmp_path: Path) -> None:
    name = model(tmp_path / "tiny", MASKED[0])
    rows = [
        {
            "premise": "a film",
            "hypothesis": "it was",
            "label": ("entailment", "not_entailment")[n % 2],
        }
        for n in range(8)
    ]
    for part in ("train", "val"):
        write(tmp_path / f"{part}.jsonl", rows)
    out = tmp_path / "records.jsonl"
    papers.superglue(
        data=[f"rte={tmp_path}"], model=name, methods="prefix+head", epochs=1, batch=4, length=2,
        work=tmp_path / "work", out=out,
    )  # fmt: skip
    (record,) = map(json.loads, out.read_text("utf-8").splitlines())
    assert (record["table"], record["rows"], record["accuracy"]) == ("rte", 8, 50.0)
    with pytest.raises(papers.UserError, match="--data rta=x: give TASK=FOLDER; did you mean"):
        papers.superglue(data=["rta=x"], model=name)
    with pytest.raises(papers.UserError, match="no such file; give the folder of the E2E"):
        papers.e2e(tmp_path / "none", model=name)
