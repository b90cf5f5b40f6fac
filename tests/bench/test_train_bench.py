"""The step benchmark on a tiny model: the sides agree, a wrong prompt is found, JSON is whole."""

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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from families import CAUSAL, GQA, Family, backbone

ROOT = Path(__file__).parent.parent.parent
BENCH = ROOT / "bench"
LLAMA = CAUSAL[0]

# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama, in whose tokenizer the labels are one token each."""
    folder = tmp_path_factory.mktemp("model")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<end>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["a positive film and a negative film"] * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
    tokenizer.save_pretrained(folder)
    family = Family(LLAMA.name, LLAMA.architecture, {**GQA, "vocab_size": 400})
    tiny = backbone(family, initializer_range=0.2)  # so that losses depend on the prompt
    tiny.model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def meanings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a generation task, completions of different lengths."""
    path = tmp_path_factory.mktemp("rows") / "e2e.jsonl"
    rows = [
        {"prompt": f"name[film {n}]", "completion": "a good film" + " indeed" * (n % 3)}
        for n in range(16)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def setting(bench: Any, model: Path, meanings: Path) -> Any:
    files = {"sst2": bench("train_cases").REVIEWS, "e2e": meanings}
    return bench("train_setting").Setting(str(model), "cpu", "float32", files, 0, 1, 1, "off")


@pytest.mark.slow
def test_the_json_has_ratios_and_what_was_compared(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--model", str(model), "--device", "cpu", "--pairs", "1", "--compile", "off"]
    flags += ["--cases", "soft-20", "prefix-20", "e2e-prefix-20", "--no-memory", "--json"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "train.py"), *flags, "--out", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["ratios"]) == {"soft-20", "prefix-20"}
    assert "e2e-prefix-20: left out" in done.stderr
    for name, case in result["cases"].items():
        assert case["agreement"]["asserted"]
        assert case["agreement"]["loss"] <= 1e-4
        assert case["agreement"]["gradient"] <= 1e-3
        (pair,) = case["pairs"]
        assert result["ratios"][name] == pytest.approx(pair["peft"] / pair["foreword"])
        assert 0 < case["floor"]["share"] < 1
    assert {"cpu", "cores", "date", "command", "torch", "peft"} <= set(result["machine"])
    assert json.loads(out.read_text("utf-8")) == result


def test_completions_agree_to_their_end_token(bench: Any, model: Path, meanings: Path) -> None:
    case = bench("train_cases").CASES["e2e-prefix-20"]
    measure = bench("train_measure")
    table = measure.lay(case, setting(bench, model, meanings), "float32")
    assert len(measure.agreed(case, table)) == len(table.floors) == 2
    labels = table.theirs.batches[0]["labels"]
    assert (labels == 1).sum(1).tolist() == [1] * case.batch  # <end>
    assert int((labels != -100).sum()) == table.floors[0].targets


def test_long_rows_are_long(bench: Any, model: Path, meanings: Path) -> None:
    cases, told = bench("train_cases"), setting(bench, model, meanings)
    case, on = cases.CASES["prefix-100-long"], told.backbone()
    rows = cases.rows_for(case, told.files, told.batches, told.seed, on.text)
    bound = case.task.bind(on)
    sizes = [bound.train_example(row, 512).example.length for row in rows]
    assert len(sizes) == 64
    assert 64 <= min(sizes) < 100 < 200 < max(sizes) <= 256


@pytest.mark.parametrize("name", ["soft-20", "prefix-20"])
def test_a_wrong_prompt_is_found(bench: Any, model: Path, meanings: Path, name: str) -> None:
    case = bench("train_cases").CASES[name]
    agreement = bench("train_agreement")
    table = bench("train_measure").lay(case, setting(bench, model, meanings), "float32")
    ours, theirs = table.ours.read(0), table.theirs.read(0)
    agreement.compare(name, ours, theirs)
    with torch.no_grad():
        table.theirs.weight[0] += 0.5
    with pytest.raises(agreement.Disagreement, match="differ by"):
        agreement.compare(name, ours, table.theirs.read(0))


def test_each_half_of_a_reading_is_compared(bench: Any) -> None:
    agreement = bench("train_agreement")
    right = agreement.Reading(0.5, torch.tensor([3.0, 4.0]))
    near = agreement.Reading(0.50005, torch.tensor([3.0, 4.004]))
    assert agreement.compare("here", near, right).gradient == pytest.approx(8e-4, rel=1e-3)
    for wrong, word in (
        (agreement.Reading(0.5002, right.gradient), "losses"),
        (agreement.Reading(float("nan"), right.gradient), "losses"),
        (agreement.Reading(0.5, torch.tensor([3.0, 4.01])), "gradients"),
        (agreement.Reading(0.5, torch.tensor([3.0, float("nan")])), "gradients"),
    ):
        with pytest.raises(agreement.Disagreement, match=f"^here: the {word} differ"):
            agreement.compare("here", wrong, right)


@pytest.mark.parametrize("side", ["foreword", "peft"])
def test_the_memory_of_a_side(
    bench: Any, model: Path, meanings: Path, tmp_path: Path, side: str
) -> None:
    case, memory = bench("train_cases").CASES["prefix-20"], bench("train_memory")
    told = setting(bench, model, meanings)
    table = bench("train_measure").lay(case, told, "float32")
    given = tmp_path / "given.safetensors"
    memory.keep(given, table.ours.prompt(), table.theirs.batches)
    held = memory.worker(side, case, told, given)
    assert 50 < held["loaded"] <= held["peak"] < 5000


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--cases", "sfot-20"], "--cases sfot-20: unknown; did you mean 'soft-20'?"),
        (["--pairs", "0"], "--pairs is 0; it must be at least 1"),
        (["--sst2", "no.jsonl"], "no.jsonl: no such file or folder"),
        (["--pears", "1"], "--pears"),
    ],
)
def test_a_mistake_is_one_line(
    bench: Any, model: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    threads = torch.get_num_threads()
    status = bench("train").main(
        ["--model", str(model), "--device", "cpu", "--threads", str(threads), *flags]
    )
    assert status == 2
    written = capsys.readouterr().err.splitlines()
    assert written[-1].startswith("bench: ")
    assert line in written[-1]
