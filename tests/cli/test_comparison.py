"""``foreword compare``: one table of what each method comes to, filled run by run."""

from __future__ import annotations

import csv
import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import foreword.evaluation.compare
from conftest import Answer, World
from foreword.cli.compare import Shared
from foreword.cli.settings import compared
from foreword.cli.sweep import grid
from foreword.display import comparison, console
from foreword.errors import UserError
from foreword.evaluation.compare import perform
from foreword.evaluation.records import Record, read_records, summarise
from foreword.evaluation.runs import Demonstrations, Run, ZeroShot
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.reporter import Reporter
from foreword.training.settings import Training
from quick import first
from toys import rows, write

Cli = Callable[..., Answer]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Do runs in this process, and give the names of those that were done."""
    done: list[str] = []

    def do(run: Run, folder: Path, hears: Callable[[], Reporter]) -> Record:
        done.append(f"{run.name}/{run.training.seed}")
        try:
            return perform(run, tmp_path, hears())
        except UserError as error:
            return {"error": str(error)}

    monkeypatch.setattr(foreword.evaluation.compare, "run_apart", do)
    # this process has held what other tests needed
    monkeypatch.setattr(foreword.evaluation.compare, "_peak", lambda backbone: 300 * 2**20)
    return done


def command(world: World, out: Path, *more: Any) -> list[str]:
    """The arguments of a short comparison, but for the flags that are given."""
    usual = {
        "--methods": "zero-shot,soft",
        "--model": world.path("model"),
        "--data": world.path("train.jsonl"),
        "--dev": world.path("dev.jsonl"),
        "--test": world.path("test.jsonl"),
        "--template": "{text} :",
        "--epochs": "1",
        "--batch-size": "8",
        "--out": str(out),
    }
    kept = [word for flag in usual if flag not in more for word in (flag, usual[flag])]
    return ["compare", *kept, *map(str, more)]


# What it shows -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_in_processes_of_their_own(world: World, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    answer = cli(*command(world, out, "--methods", "zero-shot", "--json"))
    assert answer.status == 0, answer.err
    (method,) = answer.json["methods"]
    expected = cli("eval", world.path("p.safetensors"), "--model", world.path("model"), "--data",
                   world.path("test.jsonl"), "--baselines", "--json").json  # fmt: skip
    assert method["score"] == expected["baselines"]["zero-shot"]["accuracy"]
    assert method["peak_mib"] > 10
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_what_a_run_notes_names_flags(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    more = ("--methods", "prefix", "--shots", "1")
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 0, answer.err
    assert "1 are not shown; --shots 2 shows each once" in answer.err
    assert "`" not in answer.err


def test_the_object_on_stdout(world: World, cli: Cli, here: list[str], tmp_path: Path) -> None:
    more = ("--methods", "zero-shot,soft,demonstrations", "--seeds", 2, "--seed", 5, "--json")
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 0, answer.err
    assert here == ["zero-shot/5", "soft/5", "demonstrations/5", "soft/6", "demonstrations/6"]
    assert answer.json["task"] == "classify"
    assert answer.json["headline"] == "accuracy"
    assert answer.json["data"]["test"] == world.path("test.jsonl")
    zero, soft, shown = answer.json["methods"]
    named = [each["method"] for each in (zero, soft, shown)]
    assert named == ["zero-shot", "soft", "demonstrations"]
    assert [each["seed"] for each in soft["seeds"]] == [5, 6]
    assert soft["score"] == pytest.approx(sum(each["score"] for each in soft["seeds"]) / 2)
    assert zero["spread"] is None
    assert soft["spread"] is not None
    assert soft["parameters"] > 0 == zero["parameters"] == shown["parameters"]
    low, high = soft["interval"]
    assert low <= soft["score"] <= high
    assert {"bytes", "seconds", "peak_mib"} <= soft.keys()
    assert "error" not in soft


def test_the_same_command_again_runs_nothing(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    arguments = command(world, tmp_path / "c.jsonl", "--json")
    one = cli(*arguments)
    assert here == ["zero-shot/0", "soft/0"]
    other = cli(*arguments)
    assert len(here) == 2
    assert other.json == one.json
    assert "2 of 2 runs are done already" in other.err


def test_the_table(world: World, cli: Cli, here: list[str], tmp_path: Path) -> None:
    answer = cli(*command(world, tmp_path / "c.jsonl", "--seeds", 2, "--rows", 12))
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert all(len(line) <= 80 for line in lines), answer.out
    assert lines[0].startswith("12 training rows, 12 test rows")
    for word in ("method", "accuracy", "±", "trained", "file", "seconds", "peak"):
        assert word in lines[2]
    assert lines[3].startswith("zero-shot")
    assert " 0 " in lines[3]
    assert lines[4].startswith("soft")
    assert "KiB" in lines[4]
    assert "MiB" in lines[4]


def test_a_wide_table_still_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        {
            "key": f"{seed}", "method": "prefix+lora+adapter", "seed": seed, "headline": "pearson",
            "score": -5.25 - seed, "interval": [-12.5, 10.25], "scores": {},
            "parameters": 134_515_008, "bytes": 538_060_032, "seconds": 123_456.0,
            "peak_mib": 81_234.5,
        }
        for seed in (0, 1)
    ]  # fmt: skip
    console.out().print(comparison.methods(summarise(found), "pearson"))
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    for part in ("-5.8 (-12.5 to 10.2)", "0.7", "135M", "513 MiB", "123456", "79 GiB"):
        assert part in text


def sweep(world: World, out: Path, *more: Any) -> list[str]:
    return command(
        world, out, "--methods", "zero-shot,soft", "--length", "2,4", "--epochs", 1, *more
    )


@pytest.mark.slow
def test_a_sweep_shows_what_differs_and_runs_nothing_twice(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    plot = tmp_path / "front.svg"
    arguments = sweep(world, tmp_path / "c.jsonl", "--shots", "3,5", "--plot", plot)
    answer = cli(*arguments)
    assert answer.status == 0, answer.err
    assert here == ["zero-shot/0", *["soft/0"] * 4]
    lines = answer.out.splitlines()
    assert lines[1].split()[:4] == ["method", "length", "shots", "accuracy"]
    assert [line.split()[:3] for line in lines[3:]] == [
        ["soft", length, shots] for length in "24" for shots in "35"
    ]
    assert lines[2].split()[0] == "zero-shot"
    assert all(len(line) <= 80 for line in lines), answer.out
    assert plot.read_text().startswith("<?xml")
    more = cli(*sweep(world, tmp_path / "c.jsonl", "--shots", "3,5,6", "--json"))
    assert len(here) == 7
    entries = more.json["methods"]
    assert entries[0]["varied"] == {}
    assert entries[1]["varied"] == {"length": 2, "shots": 3}
    assert any(entry["front"] for entry in entries)


@pytest.mark.slow
def test_the_example_makes_a_table_and_a_picture(
    world: World,
    here: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = (
        "--length",
        "1,2",
        "--epochs",
        "1",
        "--rows",
        "20",
        "--dev-rows",
        "4",
        "--test-rows",
        "8",
    )
    words = ["sweep.py", "--model", world.path("model"), "--out", str(tmp_path), *few]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / "sweep.py"), run_name="__main__")
    assert ended.value.code == 0
    assert here == ["zero-shot/0", "soft/0", "soft/0", "prefix/0", "prefix/0"]
    table = (tmp_path / "table.tex").read_text().splitlines()
    assert table[2].startswith("method & length & accuracy & trained & file & seconds & peak")
    assert [line.split(" & ")[:2] for line in table[4:-2]] == [
        ["zero-shot", ""], ["soft", "1"], ["soft", "2"], ["prefix", "1"], ["prefix", "2"],
    ]  # fmt: skip
    assert (tmp_path / "front.pdf").read_bytes().startswith(b"%PDF")
    assert "table.tex and " in capsys.readouterr().out


def test_of_one_method_only_the_settings_are_shown(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    more = ("--methods", "soft", "--rows", "8,12", "--table")
    answer = cli(*command(world, tmp_path / "c.jsonl", *more, "markdown"))
    assert answer.out.splitlines()[0].startswith("| rows | accuracy | trained |")
    assert answer.out.splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert "8 or 12 training rows, 12 test rows" in answer.err
    again = cli(*command(world, tmp_path / "c.jsonl", *more, "csv"))
    read = list(csv.DictReader(io.StringIO(again.out)))
    assert [row["rows"] for row in read] == ["8", "12"]
    assert [float(row["accuracy"]) for row in read] == [
        record["score"] for record in read_records(tmp_path / "c.jsonl")
    ]
    tabular = cli(*command(world, tmp_path / "c.jsonl", *more, "latex")).out
    assert tabular.startswith("\\begin{tabular}{lrrrrr}\n\\toprule\nrows & accuracy & trained")
    assert tabular.endswith("\\bottomrule\n\\end{tabular}\n")


def test_a_method_that_cannot_run_says_why(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    more = ("--methods", "prefix,zero-shot", "--first-layer", "9")
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 0, answer.err
    assert any(line.split() == ["prefix", "failed"] for line in answer.out.splitlines())
    assert "prefix: " in answer.out.splitlines()[-1]
    assert "layer" in answer.out.splitlines()[-1]
    again = cli(*command(world, tmp_path / "c.jsonl", *more, "--json"))
    assert here == ["prefix/0", "zero-shot/0", "prefix/0"]
    assert again.json["methods"][0]["score"] is None
    assert "layer" in again.json["methods"][0]["error"]


def test_where_none_can_run_the_status_is_2(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    more = ("--methods", "prefix", "--first-layer", "9")
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 2
    assert answer.err.splitlines()[-1] == "foreword: none of the methods could run"
    assert "layer" in answer.out


@pytest.mark.parametrize(
    ("flag", "given", "message"),
    first(1, [
        ("--data", '{"text": "a film", "label": "good"}\n{"text": "it", "label": null}\n',
         'd.jsonl:2: field "label" is empty'),
        ("--test", '{"text": "", "label": "good"}\n', 'd.jsonl:1: field "text" is empty'),
        ("--dev", '{"text": "it", "label": "godo"}\n', "d.jsonl:1: unknown label 'godo'"),
    ]),
)  # fmt: skip
def test_a_row_that_no_method_can_use_ends_it(
    world: World,
    cli: Cli,
    tmp_path: Path,
    flag: str,
    given: str,
    message: str,
) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(given, "utf-8")
    answer = cli(*command(world, tmp_path / "c.jsonl", flag, file, "--json"))
    assert answer.status == 2, answer.err
    assert answer.out == ""
    assert message in answer.err.splitlines()[-1]
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["d.jsonl"]


def test_the_folder_of_the_runs_is_made(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "runs" / "c.jsonl"
    answer = cli(*command(world, out, "--methods", "zero-shot", "--json"))
    assert answer.status == 0, answer.err
    assert [path.name for path in out.parent.iterdir()] == ["c.jsonl"]


def test_a_folder_that_cannot_be_made_is_named(world: World, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = cli(*command(world, tmp_path / "file" / "c.jsonl", "--methods", "zero-shot"))
    assert answer.status == 2, answer.err
    assert answer.err.splitlines()[-1].endswith("choose another --out")


def test_rows_are_held_out_where_there_are_none_to_score(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    arguments = command(world, tmp_path / "c.jsonl", "--methods", "zero-shot", "--json")
    at = arguments.index("--test")
    answer = cli(*arguments[:at], *arguments[at + 2 :])
    assert "no test rows given: 5 of the training rows are held out for scoring" in answer.err
    assert answer.json["methods"][0]["seeds"][0]["scores"]["rows"] == 5


def test_numbers_are_compared_by_pearson(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "numbers.jsonl"
    given = [{"text": row.fields["text"], "label": n % 5} for n, row in enumerate(rows(20))]
    file.write_text("".join(json.dumps(fields) + "\n" for fields in given))
    more = ("--task", "score", "--methods", "soft", "--data", file, "--dev", file, "--test", file)
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 0, answer.err
    assert "Pearson" in answer.out


def test_ctrl_c_is_one_line(
    world: World, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(run: Run, folder: Path, hears: Any) -> Record:
        raise KeyboardInterrupt

    monkeypatch.setattr(foreword.evaluation.compare, "run_apart", stopped)
    answer = cli(*command(world, tmp_path / "c.jsonl"))
    assert answer.status == 130
    last = answer.err.splitlines()[-1]
    assert last == "foreword: stopped with 0 of 2 runs done; the same command goes on"


# Settings ----------------------------------------------------------------------------------------


def test_a_setting_goes_to_the_methods_that_have_it() -> None:
    given = {"length": 3, "shots": 2, "rate": 0.5, "seed": 4, "first_layer": 1}
    made = compared(given, ["zero-shot", "demonstrations", "soft", "prefix", "soft+prefix"])
    assert made.methods["zero-shot"] == ZeroShot()
    assert made.methods["demonstrations"] == Demonstrations(2)
    assert made.methods["soft"] == Soft(length=3, shots=2)
    assert made.methods["prefix"] == Prefix(length=3, shots=2, first_layer=1)
    assert list(made.methods) == ["zero-shot", "demonstrations", "soft", "prefix", "soft+prefix"]
    assert made.training == Training(rate=0.5, seed=4)


def test_values_with_commas_are_combined_and_texts_are_whole() -> None:
    flags = Shared(length=["1,5", "20"], rate=["1e-3, 0.01"], gate="false,true", epochs=["2"],
                   template=["{text}, is it", "{text}\\n"], labels=["a=x,y", "b"], seed=4,
                   start=["text,labels"], calibration=["none"])  # fmt: skip
    found = list(grid(flags))
    assert len(found) == 3 * 2 * 2 * 2 * 2
    assert found[0] == {
        "length": 1, "rate": 0.001, "gate": False, "epochs": 2, "template": "{text}, is it",
        "labels": ["a=x,y", "b"], "seed": 4, "start": "text", "calibration": "none",
    }  # fmt: skip
    assert {each["template"] for each in found} == {"{text}, is it", "{text}\n"}
    assert [each["length"] for each in grid(Shared(length=["5,1,5"]))] == [5, 1]
    assert list(grid(Shared(gate=True))) == [{"gate": True}]
    assert list(grid(Shared())) == [{}]


def test_the_path_of_a_model_may_hold_a_comma(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert [each["model"] for each in grid(Shared(model=[str(folder), "x,y"]))] == [
        str(folder), "x", "y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "soft", "--length", "1,x"), "--length x: expected a whole number"),
        (("--methods", "soft", "--lr", "1e-3,"), "--lr : expected a number"),
        (("--schedule", "linear,cosin"), "--schedule cosin: unknown; did you mean 'cosine'"),
        (("--methods", "prefix", "--gate=yes,on"), "--gate on: expected true or false"),
        (("--seed", "1,2"), "--seed"),
        (("--table", "latex", "--json"), "--table and --json both say"),
        (("--plot", "front.gif"), "front.gif: a picture is a file that ends in .png, .svg, .pdf"),
        (("--methods", "sfot"), "--methods sfot: unknown 'sfot'; did you mean 'soft'"),
        (("--methods", "soft+zero"), "unknown 'zero'"),
        (("--methods", ""), "unknown ''"),
        (("--seeds", "0"), "--seeds 0: give 1 or more"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--test", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--dev", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--rows", "999"), "999 rows asked for"),
        (("--test-rows", "0"), "0 rows asked for"),
        (("--first-layer", "1"), "--first-layer is no setting of task classify with any of the"),
        (("--beams", "2"), "--beams is no setting"),
        (("--epochs", "0"), "epochs"),
        (("--out", "."), "is a folder"),
        (("--task", "sort"), "--task sort: unknown"),
        (("--method", "soft"), "--method"),
    ],
)
def test_mistakes_are_told_before_any_run(
    more: tuple[str, ...],
    message: str,
    world: World,
    cli: Cli,
    here: list[str],
    tmp_path: Path,
) -> None:
    answer = cli(*command(world, tmp_path / "c.jsonl", *more))
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert here == []
    assert not (tmp_path / "c.jsonl").exists()


def test_a_file_of_something_else_is_left_alone(
    world: World, cli: Cli, here: list[str], tmp_path: Path
) -> None:
    out = write(tmp_path / "rows.jsonl", rows(3))
    before = out.read_bytes()
    answer = cli(*command(world, out))
    assert answer.status == 2
    assert "rows.jsonl:1: is no record of a run" in answer.err
    assert out.read_bytes() == before
