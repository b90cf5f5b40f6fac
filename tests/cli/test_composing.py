"""compose and library as people use them, and the mistakes that they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.compose.ensemble import Ensemble, load_prompt
from foreword.compose.merge import average, concatenate
from foreword.prompt.prompt import Prompt

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def made(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prompts: two soft ones, LoRA, one of another model, and one that writes."""
    from foreword.cli.main import run

    folder = tmp_path_factory.mktemp("prompts")
    soft = ["--method", "soft", "--length", "3", "--lr", "0.1"]
    runs = {
        "one": [*soft, "--seed", "1"],
        "two": [*soft, "--start", "vocabulary", "--seed", "2"],
        "lora": ["--method", "lora", "--rank", "2"],
        "other": [*soft, "--model", world.path("other")],
        "writes": [*soft, "--task", "generate", "--max-new-tokens", "3"],
        "beams": [*soft, "--task", "generate", "--max-new-tokens", "3", "--beams", "2"],
        "labels": [*soft, "--labels", "good", "bad", "fine"],
        "writes2": ["--method", "lora", "--task", "generate", "--max-new-tokens", "3"],
    }
    for name, flags in runs.items():
        assert run(world.train(folder / f"{name}.safetensors", *flags)) == 0
    return folder


def files(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}.safetensors" for name in names]


def fits(text: str) -> None:
    assert text.strip()
    assert max(map(len, text.splitlines())) <= 80, text


# compose ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_concat_and_average_write_what_the_library_makes(
    made: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.backbone.backbone import Backbone

    parts = files(made, "one", "two")
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    loaded = [Prompt.load(path) for path in parts]
    for flags, expected in (
        (["--how", "concat"], concatenate(loaded)),
        (["--how", "average", "--weights", "0.25", "0.75"], average(loaded, (0.25, 0.75))),
    ):
        out = tmp_path / "sub" / "made.safetensors"
        answer = cli("compose", *parts, *flags, "--out", out)
        assert answer.status == 0, answer.err
        assert answer.out.startswith(f"{out}: {flags[1]} of 2 prompts, ")
        read = Prompt.load(out)
        assert torch.equal(read.injection.embeds, expected.injection.embeds)  # type: ignore[arg-type]
        assert read.method == expected.method


def test_an_ensemble_without_weights_or_dev_rows_says_that_weights_are_equal(
    made: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "e.safetensors"
    answer = cli("compose", *files(made, "one", "lora"), "--how", "ensemble", "--out", out)
    assert answer.status == 0, answer.err
    assert "no --weights, and no --dev to fit them by: all weights are equal" in answer.err
    found = load_prompt(out)
    assert isinstance(found, Ensemble)
    assert found.weights == (0.5, 0.5)


def test_weights_are_fitted_and_all_are_scored(
    world: Any, made: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "e.safetensors"
    parts = files(made, "one", "two", "lora")
    arguments = ["compose", *parts, "--how", "ensemble", "--dev", world.path("dev.jsonl")]
    arguments += ["--test", world.path("test.jsonl"), "--out", out]
    answer = cli(*arguments, "--json")
    assert answer.status == 0, answer.err
    result = answer.json
    assert [part["file"] for part in result["parts"]] == [str(path) for path in parts]
    assert sum(part["weight"] for part in result["parts"]) == pytest.approx(1)
    alone = [part["dev"]["accuracy"] for part in result["parts"]]
    assert result["dev"]["accuracy"] >= max(alone)
    assert result["dev"]["rows"] == 8
    for part in (*result["parts"], result):
        low, high = part["test"]["intervals"]["accuracy"]
        assert low <= part["test"]["accuracy"] <= high
        assert part["test"]["rows"] == 12
        assert "confusion" not in part["test"]
    found = load_prompt(out)
    assert isinstance(found, Ensemble)
    assert found.scores == {"dev": result["dev"], "test": result["test"]}
    answer = cli(*arguments)
    fits("\n".join(answer.out.splitlines()[1:]))
    assert "weight  dev accuracy" in answer.out
    assert "test accuracy" in answer.out
    left = [
        str(path) for path, part in zip(parts, result["parts"], strict=True) if not part["weight"]
    ]
    if left:
        assert f"left out of the ensemble: {', '.join(left)}" in answer.err


def test_merged_prompts_are_scored_beside_their_parts(
    world: Any, made: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "c.safetensors"
    answer = cli(
        *("compose", *files(made, "one", "two"), "--how", "concat", "--out", out, "--json"),
        *("--dev", world.path("dev.jsonl"), "--dev-rows", "4", "--test", world.path("test.jsonl")),
    )
    assert answer.status == 0, answer.err
    result = answer.json
    assert result["dev"]["rows"] == 4
    assert "weight" not in result["parts"][0]
    again = cli("eval", out, "--data", world.path("test.jsonl"), "--json").json
    assert again["accuracy"] == result["test"]["accuracy"]
    assert Prompt.load(out).scores.keys() == {"dev", "test"}


def test_completions_are_fused(world: Any, made: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    answer = cli(
        *(
            "compose",
            *files(made, "writes", "writes2"),
            "--how",
            "ensemble",
            "--out",
            out,
            "--json",
        ),
        *("--dev", world.path("dev.jsonl"), "--test", world.path("test.jsonl")),
    )
    assert answer.status == 0, answer.err
    result = answer.json
    assert result["dev"].keys() == {"log-likelihood", "rows"}
    assert "bleu" in result["test"]
    answer = cli("predict", out, "a film", "--json")
    assert isinstance(answer.json["predictions"][0]["answer"], str)


def test_an_ensemble_is_used_as_a_prompt_is(
    world: Any, made: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "e.safetensors"
    parts = files(made, "one", "lora")
    flags = ["--how", "ensemble", "--weights", "0.4", "0.6"]
    assert cli("compose", *parts, *flags, "--out", out).status == 0
    assert cli("eval", out, "--data", world.path("test.jsonl"), "--baselines").status == 0
    lines = cli("predict", out, "a film", "it was bad").out.splitlines()
    assert len(lines) == 2
    assert all("%)" in line for line in lines)
    answer = cli("info", out)
    fits(answer.out)
    for part in ("weights", "0.4, 0.6", "prompt 2", "lora"):
        assert part in answer.out
    result = cli("info", out, "--json").json
    assert result["tensors"]["members.0.embeds"] == [3, 32]
    refused = cli("export", out, tmp_path / "peft")
    assert refused.status == 2
    assert "is an ensemble of several prompts" in refused.err


MISTAKES: dict[str, tuple[list[str], list[str], str]] = {
    "one alone": (["one"], ["--how", "concat"], "1 prompt cannot be composed; give 2 or more"),
    "another model": (["one", "other"], ["--how", "average"], "prompt 2 was tuned on"),
    "another task": (["one", "writes"], ["--how", "ensemble"], "prompt 2 is for task generate"),
    "other labels": (
        ["one", "labels"],
        ["--how", "ensemble"],
        "prompt 2 has the labels bad, fine,",
    ),
    "methods that do not mix": (["one", "lora"], ["--how", "average"], "which prompt 2 lacks"),
    "too few weights": (
        ["one", "two"],
        ["--how", "ensemble", "--weights", "1"],
        "1 weight (1) for 2 prompts",
    ),
    "a wrong sum": (
        ["one", "two"],
        ["--how", "average", "--weights", "0.5", "0.6"],
        "weights 0.5 0.6 add up to 1.1; give weights that add up to 1",
    ),
    "weights of concat": (
        ["one", "two"],
        ["--how", "concat", "--weights", "0.5", "0.5"],
        "--weights are for average and ensemble",
    ),
    "another way": (["one", "two"], ["--how", "sum"], "sum"),
    "no way": (["one", "two"], [], "--how"),
    "beams": (["writes", "beams"], ["--how", "ensemble"], "prompt 2 decodes with beams 2"),
    "a file that is not there": (["one", "none"], ["--how", "concat"], "cannot be read"),
    "rows that are not there": (
        ["one", "two"],
        ["--how", "ensemble", "--dev", "none.jsonl"],
        "none.jsonl: no such file",
    ),
    "test rows of another label": (
        ["one", "two"],
        ["--how", "concat", "--test", "{d}/wrong.jsonl"],
        "wrong.jsonl:1: unknown label 'godo'",
    ),
    "dev rows of another label": (
        ["one", "two"],
        ["--how", "ensemble", "--dev", "{d}/wrong.jsonl"],
        "wrong.jsonl:1: unknown label 'godo'",
    ),
    "more dev rows than there are": (
        ["one", "two"],
        ["--how", "ensemble", "--dev", "{d}/wrong.jsonl", "--dev-rows", "9"],
        "9 rows asked for",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, made: Path, cli: Cli, tmp_path: Path
) -> None:
    names, flags, what = MISTAKES[mistake]
    (tmp_path / "wrong.jsonl").write_text('{"text": "a film", "label": "godo"}\n')
    given = [flag.replace("{d}", str(tmp_path)) for flag in flags]
    answer = cli(
        "compose", *files(made, *names), *given, "--out", tmp_path / "out" / "x.safetensors"
    )
    assert answer.status == 2, answer.out
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert answer.err.splitlines()[-1].startswith("foreword: ")
    assert what in answer.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_part_of_weight_0_is_left_out_of_a_mean_by_that_name(
    made: Path, cli: Cli, tmp_path: Path
) -> None:
    one, two = files(made, "one", "two")
    weights = ("--weights", "0", "1", "--how", "average")
    answer = cli("compose", one, two, *weights, "--out", tmp_path / "mean.safetensors")
    assert answer.status == 0, answer.err
    assert f"weight 0, and so left out of the average: {one}\n" in answer.err


def test_a_prompt_that_is_composed_is_not_written_over(
    made: Path, cli: Cli, tmp_path: Path
) -> None:
    one = tmp_path / "one.safetensors"
    one.write_bytes(before := (made / "one.safetensors").read_bytes())
    answer = cli("compose", one, made / "two.safetensors", "--how", "concat", "--out", one)
    assert answer.status == 2
    assert answer.err == f"foreword: --out {one}: is one of the prompts; name another file\n"
    assert one.read_bytes() == before


def test_a_folder_in_place_of_the_file_is_refused_before_anything_is_run(
    made: Path, cli: Cli, tmp_path: Path
) -> None:
    answer = cli("compose", *files(made, "one", "two"), "--how", "concat", "--out", tmp_path)
    assert answer.status == 2
    assert "is a folder; name the file to write" in answer.err


# library ------------------------------------------------------------------------------------------


def test_the_library_is_a_table(made: Path, cli: Cli) -> None:
    answer = cli("library", made)
    assert answer.status == 0, answer.err
    fits(answer.out)
    for part in ("one", "two", "lora", "other", "classify", "generate", "nearest", "bad, good"):
        assert part in answer.out
    result = cli("library", made, "--json").json
    assert [Path(entry["file"]).stem for entry in result["prompts"]] == sorted(
        path.stem for path in made.glob("*.safetensors")
    )
    one = next(entry for entry in result["prompts"] if entry["file"] == "one.safetensors")
    assert one["labels"] == ["bad", "good"]
    assert one["scores"]["dev"].keys() == {"accuracy"}
    assert -1 <= one["nearest"]["similarity"] <= 1
    assert one["bytes"] == (made / "one.safetensors").stat().st_size
    assert result["strays"] == []


def test_what_is_no_prompt_is_named(made: Path, cli: Cli, tmp_path: Path) -> None:
    for path in files(made, "one", "two"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bad.safetensors").write_bytes(b"no prompt at all")
    answer = cli("library", tmp_path)
    assert answer.status == 0
    assert "no prompt: bad.safetensors: " in answer.err
    assert cli("library", tmp_path, "--json").json["strays"][0]["file"] == "bad.safetensors"


def test_match_and_like(made: Path, cli: Cli) -> None:
    found = cli("library", made, "--match", "GENERATE", "--json").json["prompts"]
    assert [entry["file"] for entry in found] == [
        "beams.safetensors",
        "writes.safetensors",
        "writes2.safetensors",
    ]
    found = cli("library", made, "--like", made / "two.safetensors", "--json").json["prompts"]
    assert found[0]["file"] == "two.safetensors"
    assert found[0]["like"] == pytest.approx(1)
    answer = cli("library", made, "--like", made / "two.safetensors")
    assert answer.out.splitlines()[0].rstrip().endswith("like")
    fits(answer.out)


def test_the_heat_map_and_its_page(made: Path, cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "sub" / "library.html"
    answer = cli("library", made, "--similarity", "--html", page)
    assert answer.status == 0, answer.err
    fits(answer.out)
    values = cli("library", made, "--similarity", "--json").json["similarity"]
    number = next(v for v in values[0] if v is not None)
    assert f"{number:.2f}" in answer.out.split("similarity")[1]
    text = page.read_text("utf-8")
    assert f"{number:.2f}" in text
    assert "background-color: #" in text
    for foreign in ("http:", "https:", "src=", "@import", "<script", "<link"):
        assert foreign not in text


def test_many_prompts_have_a_heat_map_of_several_parts(
    made: Path, cli: Cli, tmp_path: Path
) -> None:
    for n in range(14):
        (tmp_path / f"{n:02}.safetensors").write_bytes(files(made, "one")[0].read_bytes())
    answer = cli("library", tmp_path, "--similarity")
    fits(answer.out)
    assert answer.out.count("1.00") >= 14 * 13


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["{d}/none"], "none: no such folder"),
        (["{m}/one.safetensors"], "one.safetensors: is a file, not a folder"),
        (["{d}"], "holds no prompt files"),
        (["{m}", "--match", "nothing has this"], "no prompt in"),
        (["{m}", "--like", "{d}/x.safetensors"], "cannot be read"),
    ],
)
def test_a_mistaken_library_is_one_line(
    arguments: list[str], what: str, made: Path, cli: Cli, tmp_path: Path
) -> None:
    given = [a.replace("{d}", str(tmp_path)).replace("{m}", str(made)) for a in arguments]
    answer = cli("library", *given)
    assert answer.status == 2
    assert answer.out == ""
    assert what in answer.err.splitlines()[-1]


# attempt ------------------------------------------------------------------------------------------


def test_attempt_is_trained_by_its_command(
    world: Any, made: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "a.safetensors"
    sources = ["--sources", *files(made, "one", "two")]
    answer = cli(*world.train(out, "--method", "attempt", *sources, "--bottleneck", "4"))
    assert answer.status == 0, answer.err
    assert Prompt.load(out).method["sources"] == [str(path) for path in sources[1:]]
    refused = cli(*world.train(out, "--method", "attempt"))
    assert refused.status == 2
    assert "--sources is missing" in refused.err


def test_json_is_one_object(made: Path, cli: Cli) -> None:
    text = cli("library", made, "--json").out
    assert text.count("\n") == 1
    assert isinstance(json.loads(text), dict)
