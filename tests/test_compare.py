"""Comparisons: what is done once stays done, failures lose nothing, and numbers are each run's."""

from __future__ import annotations

import json
import os
import signal
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

import foreword.evaluation.compare
from foreword.backbone.backbone import Backbone
from foreword.data.sample import first
from foreword.errors import UserError
from foreword.evaluation.compare import compare_runs, perform, run_apart
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.records import Record, append_record, read_records, summarise
from foreword.evaluation.runs import Data, Demonstrations, Model, Run, ZeroShot
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.score import Score
from foreword.training.settings import Training
from foreword.training.tune import tune
from processes import PATIENCE, left_over, process, until
from toys import TASK, Lines, get, rows, write

TRAINING = Training(epochs=1, batch_size=8)
DATA = Data(rows(24), rows(10, 200, "test.jsonl"), rows(6, 100, "dev.jsonl"), 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    get().model.save_pretrained(folder)
    get().text.tokenizer.save_pretrained(folder)
    return Model(str(folder))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Do runs in this process, and give the names of those that were done."""
    done: list[str] = []

    def do(run: Run, folder: Path, hears: Any) -> Record:
        done.append(f"{run.name}/{run.training.seed}")
        try:
            return perform(run, tmp_path)
        except UserError as error:
            return {"error": str(error)}

    monkeypatch.setattr(foreword.evaluation.compare, "run_apart", do)
    return done


def runs(model: Model, seeds: int = 1, **changes: Any) -> list[Run]:
    methods = {"zero-shot": ZeroShot(), "shown": Demonstrations(2), "soft": Soft(length=3)}
    return [
        replace(Run(name, method, replace(TRAINING, seed=seed), model, TASK, DATA), **changes)
        for seed in range(seeds)
        for name, method in methods.items()
    ]


# One run -----------------------------------------------------------------------------------------


def test_a_run_is_tuning_and_scoring(model: Model, tmp_path: Path) -> None:
    run = replace(runs(model)[2], training=replace(TRAINING, seed=3))
    found = perform(run, tmp_path)
    base = Backbone.load(model.name)
    prompt = tune(
        base, TASK, Soft(length=3), first(DATA.train, 12, 3), DATA.dev, training=run.training
    )
    scores = evaluate(prompt, DATA.test, seed=3)
    assert found["headline"] == "accuracy"
    assert found["score"] == scores["accuracy"]
    assert found["interval"] == scores["intervals"]["accuracy"]
    assert found["scores"]["macro_f1"] == scores["macro_f1"]
    assert found["parameters"] == 3 * 32
    assert found["bytes"] == prompt.save(tmp_path / "own.safetensors").stat().st_size
    assert found["seconds"] > 0
    assert found["peak_mib"] > 10
    assert json.loads(json.dumps(found)) == found


def test_the_untrained_model_is_the_baseline_of_eval(model: Model, tmp_path: Path) -> None:
    zero, shown, _ = runs(model)
    prompt = tune(get(), TASK, Soft(length=3), DATA.train, DATA.dev, training=TRAINING)
    expected = evaluate(prompt, DATA.test, baselines=True)["baselines"]
    found = perform(zero, tmp_path)
    assert found["score"] == expected["zero-shot"]["accuracy"]
    assert (found["parameters"], found["bytes"], found["seconds"]) == (0, 0, 0)
    four = replace(shown, method=Demonstrations(4), data=replace(DATA, rows=None))
    assert perform(four, tmp_path)["score"] == expected["demonstrations"]["accuracy"]


def test_all_rows_give_the_labels_though_few_are_trained_on(model: Model, tmp_path: Path) -> None:
    data = replace(DATA, rows=1)
    run = Run("zero-shot", ZeroShot(), TRAINING, model, replace(TASK, labels=None), data)
    assert perform(run, tmp_path)["scores"]["rows"] == 10


def test_scores_are_compared_by_pearson(model: Model, tmp_path: Path) -> None:
    numbered = [
        replace(row, fields={**row.fields, "label": n % 6}) for n, row in enumerate(DATA.train)
    ]
    run = Run("zero-shot", ZeroShot(), TRAINING, model, Score(), Data(numbered, numbered))
    found = perform(run, tmp_path)
    assert (found["headline"], found["score"]) == ("pearson", found["scores"]["pearson"])


def test_rows_of_any_kind_make_the_same_comparison(tmp_path: Path) -> None:
    dicts = [dict(row.fields) for row in rows(24)]
    held = pandas.DataFrame([dict(row.fields) for row in rows(10, 200)])
    given = Data(dicts, held, write(tmp_path / "dev.jsonl", rows(6, 100)), 12)
    assert given.about() == DATA.about()


# Many runs ---------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(model: Model, here: list[str], tmp_path: Path) -> None:
    out, said = tmp_path / "c.jsonl", list[str]()
    before = compare_runs(runs(model), out, Lines(said))
    assert here == ["zero-shot/0", "shown/0", "soft/0"]
    assert [line.partition(":")[0] for line in said] == [
        f"{name}, seed 0" for name in ("zero-shot", "shown", "soft") for _ in range(2)
    ]
    assert "left" in said[1]
    assert "left" not in said[-1]
    here.clear()
    assert compare_runs(runs(model), out, Lines(said)) == before == read_records(out)
    assert here == []
    assert said[-1] == f"{out}: 3 of 3 runs are done already"
    assert len(compare_runs(runs(model, 2), out)) == 6
    assert here == ["zero-shot/1", "shown/1", "soft/1"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"training": replace(TRAINING, epochs=2)}, ["soft/0"]),
        ({"data": replace(DATA, dev=rows(7, 100))}, ["zero-shot/0", "shown/0", "soft/0"]),
        ({"task": replace(TASK, max_length=9)}, ["zero-shot/0", "shown/0", "soft/0"]),
    ],
)
def test_a_run_of_other_settings_or_rows_is_another(
    change: dict[str, Any], again: list[str], model: Model, here: list[str], tmp_path: Path
) -> None:
    compare_runs(runs(model), tmp_path / "c.jsonl")
    here.clear()
    compare_runs(runs(model, **change), tmp_path / "c.jsonl")
    assert here == again


def test_one_that_fails_loses_no_other_and_is_tried_again(
    model: Model, here: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "c.jsonl"
    asked = [*runs(model), Run("deep", Prefix(first_layer=9), TRAINING, model, TASK, DATA)]
    asked.insert(0, asked.pop())
    found = compare_runs(asked, out)
    assert [record["method"] for record in found] == ["deep", "zero-shot", "shown", "soft"]
    assert "layer" in found[0]["error"]
    assert all("score" in record for record in found[1:])
    here.clear()
    compare_runs(asked, out)
    assert here == ["deep/0"]
    assert len(read_records(out)) == 5


def test_ctrl_c_says_what_is_kept(
    model: Model, here: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    do = foreword.evaluation.compare.run_apart

    def stopped(run: Run, folder: Path, hears: Any) -> Record:
        if run.name == "soft":
            raise KeyboardInterrupt
        return do(run, folder, hears)

    monkeypatch.setattr(foreword.evaluation.compare, "run_apart", stopped)
    with pytest.raises(KeyboardInterrupt, match="2 of 3 runs done; the same command goes on"):
        compare_runs(runs(model), tmp_path / "c.jsonl")
    assert [record["method"] for record in read_records(tmp_path / "c.jsonl")] == [
        "zero-shot",
        "shown",
    ]


# A process of its own -----------------------------------------------------------------------------


class Doomed(Prefix):
    """A method that kills its process."""

    registered_name = "doomed"

    def build(self, *_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_is_killed_says_so(model: Model, tmp_path: Path) -> None:
    run = Run("prefix", Doomed(), TRAINING, model, TASK, DATA)
    assert "killed" in run_apart(run, tmp_path)["error"]


class Endless(Prefix):
    """A method that writes down in which process it trains, and then trains for long."""

    registered_name = "endless"

    def build(self, *given: Any) -> Any:
        Path(os.environ[SIGN]).write_text(str(os.getpid()))
        return super().build(*given)


SIGN = "FOREWORD_TEST_SIGN"


def compare_endlessly(run: Run, out: Path) -> None:
    os.environ[SIGN] = str(out.with_name("sign"))
    try:
        compare_runs([run], out)
    except KeyboardInterrupt as error:
        out.with_name("said").write_text(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_too(
    number: signal.Signals, model: Model, tmp_path: Path
) -> None:
    run = Run("prefix", Endless(), replace(TRAINING, epochs=1_000_000), model, TASK, DATA)
    child, sign = process(compare_endlessly, run, tmp_path / "c.jsonl"), tmp_path / "sign"
    until(lambda: sign.exists() and sign.read_text(), ended=lambda: not child.is_alive())
    worker = int(sign.read_text())
    assert worker in left_over()
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(PATIENCE)
    until(lambda: worker not in left_over())
    assert not list(tmp_path.glob(".compare.*"))
    if number == signal.SIGINT:
        assert child.exitcode == 0
        assert "0 of 1 runs done" in (tmp_path / "said").read_text()


# Records -----------------------------------------------------------------------------------------


def record(method: str, seed: int, score: float | None = None, **more: Any) -> Record:
    found = {"key": f"{method}{seed}", "method": method, "seed": seed}
    if score is None:
        return {**found, "error": "no", **more}
    numbers = {"parameters": 7, "bytes": 9, "seconds": score / 10, "peak_mib": score * 2}
    return {
        **found, "headline": "accuracy", "score": score, "interval": [score - 3, score + 2],
        "scores": {}, **numbers, **more,
    }  # fmt: skip


def test_the_summary_is_of_means(tmp_path: Path) -> None:
    given = [record("soft", 0, 80.0), record("none", 0), record("soft", 1, 90.0)]
    soft, none = summarise([*given, record("soft", 2)])
    assert (soft["score"], soft["interval"], soft["seconds"]) == (85, [82, 87], 8.5)
    assert soft["spread"] == pytest.approx(statistics.stdev([80, 90]), abs=1e-4)
    assert (soft["peak_mib"], soft["parameters"], soft["bytes"], soft["error"]) == (180, 7, 9, "no")
    assert [each["seed"] for each in soft["seeds"]] == [0, 1, 2]
    assert (none["score"], none["interval"], none["spread"], none["error"]) == (
        None,
        None,
        None,
        "no",
    )
    assert summarise([given[0]])[0]["spread"] is None
    assert "error" not in summarise([given[0]])[0]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    append_record(out, record("soft", 0, 80.0))
    whole = out.read_text()
    out.write_text(whole + whole[:40])
    assert len(read_records(out)) == 1
    append_record(out, record("soft", 1, 80.0))
    assert [each["seed"] for each in read_records(out)] == [0, 1]


@pytest.mark.parametrize("content", ['{"text": "film"}\n', "film\n", "[1]\n", "film"])
def test_another_file_is_not_written_to(content: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text(content)
    with pytest.raises(UserError, match=r"rows.jsonl:1: is no record"):
        read_records(out)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_records(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        append_record(tmp_path, {})
