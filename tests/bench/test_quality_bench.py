"""Time to quality on a tiny model: records are resumed, scores are PEFT's own, ratios are right."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from families import CAUSAL, backbone, tokenizer
from toys import rows, write

BENCH = Path(__file__).parent.parent.parent / "bench"
PRESETS = {
    "fast": {"method": "prefix", "upper": 0.5, "shots": 2, "epochs": 1, "batch_size": 8},
    "best": {"method": "soft", "length": 4, "epochs": 3, "rate": 0.05, "patience": 1},
}

# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama, rows of two classes and of completions, and presets."""
    made = tmp_path_factory.mktemp("quality")
    tiny = backbone(CAUSAL[0], initializer_range=0.2)  # so that scores depend on the prompt
    tiny.model.save_pretrained(made / "model")
    tokenizer().save_pretrained(made / "model")
    write(made / "train.jsonl", rows(40))
    write(made / "dev.jsonl", rows(20, 100))
    for name in ("train", "dev"):
        lines = (made / f"{name}.jsonl").read_text().replace('"text"', '"prompt"')
        (made / f"{name}-tldr.jsonl").write_text(lines)
    (made / "presets.json").write_text(json.dumps(PRESETS))
    return made


def flags(folder: Path, out: Path) -> list[str]:
    files = ["--sst2", str(folder / "train.jsonl"), str(folder / "dev.jsonl")]
    sizes = ["--rows", "32", "--dev-rows", "12", "--epochs", "2", "--seeds", "1", "--scores", "2"]
    names = ["--model", str(folder / "model"), "--presets", str(folder / "presets.json")]
    return [*files, *sizes, *names, "--threads", "1", "--out", str(out)]


# The whole ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_kept_and_resumed(
    folder: Path, tmp_path: Path, bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "quality.jsonl"
    arguments = [*flags(folder, out), "--systems", "fast,peft-soft"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "quality.py"), *arguments, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "tldr: left out; give its rows with --tldr TRAIN DEV" in done.stderr
    result = json.loads(done.stdout)
    soft, fast = (result["sst2"][name] for name in ("peft-soft", "fast"))
    assert soft["ratio"] == [1.0]
    if fast["ratio"] != [None]:
        assert fast["ratio"][0] == pytest.approx(soft["seconds"][0] / fast["seconds"][0])

    lines = out.read_text().splitlines()
    first, second = map(json.loads, lines)
    assert [first["system"], second["system"]] == ["peft-soft", "fast"]  # whatever was asked first
    assert [point[1] for point in first["curve"]] == [0, 1, 2, 3, 4]
    assert [point[1] for point in second["curve"]] == [0, 2, 4]
    assert second["settings"]["own"] == PRESETS["fast"]
    seconds = [point[0] for point in first["curve"]]
    assert seconds == sorted(seconds)
    assert first["wall"] > seconds[-1]
    assert first["versions"]["peft"].startswith("0.21.")

    # What a kill has left of the last line is run again; what is whole is not.
    out.write_text(f"{lines[0]}\n{lines[1][:50]}")
    assert bench("quality").main(arguments) == 0
    assert capsys.readouterr().err.count("already") == 1
    again = out.read_text().splitlines()
    assert again[0] == lines[0]
    assert json.loads(again[2])["settings"] == second["settings"]
    assert bench("quality").main(["--report-only", "--out", str(out)]) == 0
    assert out.read_text().splitlines() == again
    assert "seconds to peft-soft's best" in capsys.readouterr().out


# Scores -------------------------------------------------------------------------------------------


def begun(bench: Any, folder: Path, system: str, race: str) -> Any:
    """One of PEFT's systems after two steps and the scores between them."""
    tasks, quality = bench("quality_tasks"), bench("quality")
    end = "-tldr.jsonl" if race == "tldr" else ".jsonl"
    files = {race: (folder / f"train{end}", folder / f"dev{end}")}
    setting = quality.Setting(str(folder / "model"), 1, 1, files, {})
    small = {"rows": 16, "dev_rows": 12, "batch": 8}
    chosen = bench("dataclasses").replace(tasks.RACES[race], **small)
    made, attention, drawn = quality._load(chosen, 0, setting)
    assert attention == "sdpa"
    run = bench("quality_peft").PeftRun(system, made, attention, chosen, drawn, 0)
    run.begin()
    scores = [run.score()]
    for group in run.optimizer.param_groups:
        group["initial_lr"] = 0.1  # so that two steps are seen
    run.schedule.base_lrs = [0.1]
    run.step()
    run.step()
    assert made.model.config._attn_implementation == "sdpa"  # PEFT's steps are PEFT's
    return run, [*scores, run.score()]


@torch.no_grad()
def logits(run: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """PEFT's own scores where each token of an answer is due."""
    ids = torch.tensor([[*prompt, *answer]])
    found = run.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return found[-len(answer) - 1 : -1]


@pytest.mark.parametrize("system", ["peft-soft", "peft-prefix", "peft-lora"])
def test_the_score_is_what_peft_itself_scores(bench: Any, folder: Path, system: str) -> None:
    run, scores = begun(bench, folder, system, "tldr")
    assert abs(scores[0] - scores[1]) > 1e-3
    total = count = 0.0
    for item in run.judge.items:
        answer = item.example.answers
        found = logits(run, item.example.ids, answer).log_softmax(1)
        total += float(found[range(len(answer)), list(answer)].sum())
        count += len(answer)
    assert scores[1] == pytest.approx(total / count, abs=1e-5)

    run, scores = begun(bench, folder, system, "sst2")
    verbalizer = run.bound.verbalizer
    words = [path for _, path in verbalizer.words]
    right = 0
    for item in run.judge.items:
        best = max(words, key=lambda w: whole(run, item.example.ids, w, verbalizer))
        right += words.index(best) == item.gold
    assert scores[1] == pytest.approx(100 * right / len(run.judge.items))


def whole(run: Any, prompt: tuple[int, ...], word: tuple[int, ...], verbalizer: Any) -> float:
    """A word's log-probability where the model is held to the tree of the labels' words."""
    found = logits(run, prompt, word)
    total = 0.0
    for place, token in enumerate(word):
        own = list(verbalizer.children[word[:place]])
        total += float(found[place][own].log_softmax(0)[own.index(token)])
    return total


def test_labels_of_a_batch_are_the_answers_alone(bench: Any) -> None:
    batch = bench("quality_peft").collated([([5, 6, 7], [8]), ([5], [9, 1])], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 8], [-100, 9, 1, -100]]


# Curves -------------------------------------------------------------------------------------------


class Scripted:
    """A run with given scores. By its clock a step takes a second, and scoring a hundred."""

    steps, per_epoch = 8, 8

    def __init__(self, scores: list[float], last: int = 8) -> None:
        self.scores, self.done, self.last = scores, 0, last
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    @property
    def over(self) -> bool:
        return self.done >= self.last

    def begin(self) -> None:
        pass

    def step(self) -> None:
        self.now += 1
        self.done += 1

    def score(self) -> float:
        self.now += 100
        return self.scores[self.done]

    def close(self) -> None:
        pass


def test_scoring_stops_the_clock(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bench("quality_trace")
    trace = module.trace
    scores = [float(n) for n in range(9)]
    heard: list[Any] = []
    run = Scripted(scores)
    monkeypatch.setattr(module.time, "perf_counter", run.clock)
    curve = trace(run, 4, None, lambda point, steps: heard.append((point, steps)))
    assert [(point.step, point.score) for point in curve] == [(n, n) for n in (0, 2, 4, 6, 8)]
    assert [point.seconds for point in curve] == [0, 2, 4, 6, 8]
    monkeypatch.undo()
    assert heard == [(point, 8) for point in curve]
    assert [point.step for point in trace(Scripted(scores), 3)] == [0, 3, 6, 8]
    assert [point.step for point in trace(Scripted(scores), 4, 3.5)] == [0, 2, 4]
    assert [point.step for point in trace(Scripted(scores, 6), 4)] == [0, 2, 4, 6]
    with pytest.raises(bench("foreword.errors").UserError, match="score is nan after step 2"):
        trace(Scripted([0.0, 0.0, float("nan")]), 4)


def record(system: str, seed: int, curve: list[list[float]], rate: float = 0.1) -> dict[str, Any]:
    settings = {"common": {"rate": rate}}
    return {"task": "sst2", "system": system, "seed": seed, "settings": settings, "curve": curve}


def test_ratios_and_what_was_not_reached(bench: Any) -> None:
    report = bench("quality_report")
    records = [
        record("fast", 0, [[1.0, 0, 99.0]], rate=0.2),  # other settings: not compared
        record("peft-soft", 0, [[0.0, 0, 50.0], [40.0, 4, 87.0], [80.0, 8, 86.0], [120, 9, 87.0]]),
        record("fast", 0, [[1.0, 0, 60.0], [5.0, 4, 70.0]]),
        record("fast", 0, [[2.0, 0, 60.0], [10.0, 4, 88.0], [20.0, 8, 85.0]]),  # run again
        record("peft-soft", 1, [[0.0, 0, 50.0], [60.0, 4, 80.0]]),
        record("fast", 1, [[2.0, 0, 60.0], [10.0, 4, 79.75]]),
        record("peft-soft", 2, [[0.0, 0, 50.0], [50.0, 4, 80.0]]),
        record("fast", 2, [[2.5, 0, 80.0]]),
        record("best", 3, [[2.5, 0, 80.0]]),  # a seed that nothing is compared with
    ]
    found = report.summary(records)["sst2"]
    assert found["peft-soft"]["seconds"] == [40.0, 60.0, 50.0]
    assert found["peft-soft"]["ratio"] == [1.0, 1.0, 1.0]
    assert found["fast"] == {
        "seeds": [0, 1, 2],
        "best": [88.0, 79.75, 80.0],
        "seconds": [10.0, None, 2.5],
        "ratio": [4.0, None, 20.0],
        "median": {"best": 80.0, "seconds": 10.0, "ratio": 4.0},
    }
    assert found["best"] == {"seeds": [3], "best": [80.0], "seconds": [None], "ratio": [None]}
    (table,) = report.race_tables({"sst2": found})
    cells = [list(column.cells) for column in table.columns]
    assert cells[0][::3] == ["peft-soft", "fast", "best"]
    assert cells[3][3:6] == ["79.75", "not reached", "not reached"]
    assert cells[-1][3:6] == ["80.00", "10.0", "4.00"]
    never = [record("peft-soft", s, [[1, 0, 9]]) for s in (0, 1)]
    never += [record("fast", s, [[1, 0, 8]]) for s in (0, 1)]
    assert report.summary(never)["sst2"]["fast"]["median"]["ratio"] is None


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--systems", "peft-sfot"], "--systems peft-sfot: unknown; did you mean 'peft-soft'?"),
        (["--systems", "balanced"], "--systems balanced: unknown; known are: "),
        (["--systems", "odd"], "preset 'odd': 'colour' is no setting of its method"),
        (["--rows", "0"], "--rows is 0; it must be at least 1"),
        (["--rows", "41", "--systems", "peft-soft"], "41 rows asked for; choose from 1 to 40"),
        (["--presets", "no.json"], "no.json: cannot be read"),
        (["--report-only"], "holds no run"),
        (["--pears", "1"], "--pears"),
    ],
)
def test_a_mistake_is_one_line(
    bench: Any,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    line: str,
) -> None:
    presets = tmp_path / "presets.json"
    presets.write_text(json.dumps({**PRESETS, "odd": {"colour": "red"}}))
    start = flags(folder, tmp_path / "out.jsonl")
    for name in ("--rows", "--presets"):
        if name in given:
            at = start.index(name)
            del start[at : at + 2]
    if "--presets" not in given:
        start[start.index("--presets") + 1] = str(presets)
    assert bench("quality").main([*start, *given]) == 2
    written = capsys.readouterr().err.splitlines()
    assert written[-1].startswith("bench: ")
    assert line in written[-1]
