"""Mistakes that people make: each is one line that says what, where and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone.backbone import Backbone
from foreword.cli import info
from foreword.prompt.prompt import Prompt
from foreword.training import tune as training_module

Cli = Callable[..., Any]
Make = Callable[[Any, Path], list[Any]]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(answer: Any, *parts: str) -> str:
    """Check status, the one line and its parts; return it."""
    assert answer.status == 2, answer.err
    lines = answer.err.splitlines()
    assert [line.startswith("foreword: ") for line in lines].count(True) == 1, answer.err
    assert lines[-1].startswith("foreword: ")
    assert "Traceback" not in answer.err
    assert answer.out == ""
    for part in parts:
        assert part in lines[-1], lines[-1]
    return str(lines[-1])


def text(path: Path, content: str) -> Path:
    path.write_text(content, "utf-8")
    return path


def pipe(path: Path) -> Path:
    if not path.exists():
        os.mkfifo(path)
    return path


def train(*flags: str) -> Make:
    """A training with flags; ``{d}`` in them is the test's own folder."""
    return lambda world, folder: world.train(
        folder / "out" / "p.safetensors", *(flag.replace("{d}", str(folder)) for flag in flags)
    )


def with_file(name: str, content: str, *flags: str) -> Make:
    def make(world: Any, folder: Path) -> list[Any]:
        text(folder / name, content)
        return train(*flags)(world, folder)

    return make


GOOD = '{"text": "a film", "label": "good"}\n{"text": "a bad film", "label": "bad"}\n'
BAD_ROW = GOOD + '{"text": "it", "label"\n'
UNKNOWN = GOOD + '{"text": "it", "label": "godo"}\n'
EMPTY = GOOD + '{"text": "  ", "label": "good"}\n'
NO_FIELD = GOOD + '{"txet": "it", "label": "good"}\n'
NEWLINE = GOOD + '{"text": "it", "label": "two\\nlines"}\n'

TRAIN: dict[str, tuple[Make, list[str]]] = {
    "no such file": (train("--train", "{d}/tarin.jsonl"), ["tarin.jsonl: no such file"]),
    "not JSON": (
        with_file("t.jsonl", BAD_ROW, "--train", "{d}/t.jsonl"),
        ["t.jsonl:3: not valid JSON at column", "write one object a line"],
    ),
    "unknown label in dev": (
        with_file("d.jsonl", UNKNOWN, "--dev", "{d}/d.jsonl"),
        ["d.jsonl:3: unknown label 'godo'; did you mean 'good'?"],
    ),
    "unknown label in test": (
        with_file("d.jsonl", UNKNOWN, "--test", "{d}/d.jsonl"),
        ["d.jsonl:3: unknown label 'godo'; did you mean 'good'?"],
    ),
    "a label of two lines": (
        with_file("d.jsonl", NEWLINE, "--dev", "{d}/d.jsonl"),
        ["d.jsonl:3: unknown label 'two lines'"],
    ),
    "empty text": (
        with_file("t.jsonl", EMPTY, "--train", "{d}/t.jsonl"),
        ['t.jsonl:3: field "text" is empty'],
    ),
    "missing field": (
        with_file("t.jsonl", NO_FIELD, "--train", "{d}/t.jsonl"),
        ["t.jsonl:3: missing field 'text'; did you mean 'txet'?"],
    ),
    "one label alone": (
        with_file("t.jsonl", '{"text": "a", "label": "x"}\n', "--train", "{d}/t.jsonl"),
        ["at least two labels", "give rows of others"],
    ),
    "too few rows": (
        train("--rows", "99"),
        ["train.jsonl: 99 rows asked for; choose from 1 to 24"],
    ),
    "no rows at all": (train("--rows", "0"), ["0 rows asked for"]),
    "unknown flag": (train("--lenght", "3"), ["--lenght"]),
    "wrong type": (train("--epochs", "three"), ["--epochs", "three"]),
    "no whole number": (train("--epochs", "1.5"), ['--epochs: unable to convert "1.5" into int']),
    "wrong type of a number": (train("--lr", "fast"), ["--lr", "fast"]),
    "flag twice": (train("--seed", "1", "--seed", "2"), ["--seed"]),
    "flag without a value": (train("--seed"), ["--seed"]),
    "unknown method": (
        train("--method", "prefix+sfot"),
        ["--method prefix+sfot: unknown 'sfot'; did you mean 'soft'?"],
    ),
    "method twice": (train("--method", "soft+soft"), ["'soft' stands twice"]),
    "two prefixes": (
        train("--method", "prefix+deep"),
        ["cannot stand together", "keys and values"],
    ),
    "head of a generation": (
        train("--task", "generate", "--method", "head", "--template", "{text}"),
        ["no classes to score"],
    ),
    "rank of LoRA": (train("--method", "lora", "--rank", "0"), ["--rank 0: give at least 1"]),
    "bottleneck": (
        train("--method", "adapter", "--bottleneck", "9999"),
        ["--bottleneck 9999: give from 1 to"],
    ),
    "unknown task": (train("--task", "clasify"), ["did you mean 'classify'?"]),
    "unknown start": (train("--start", "demos"), ["demos", "demonstrations"]),
    "unknown start of soft": (train("--method", "soft", "--start", "lables"), ["labels"]),
    "unknown schedule": (train("--schedule", "cosin"), ["cosin"]),
    "first layer of soft": (
        train("--method", "soft", "--first-layer", "1"),
        ["--first-layer is no setting of task classify with method soft"],
    ),
    "beams of a classification": (train("--beams", "2"), ["--beams is no setting"]),
    "length zero": (train("--length", "0"), ["--length 0"]),
    "length zero of soft": (train("--method", "soft", "--length", "0"), ["0 virtual tokens"]),
    "length negative": (train("--length", "-3"), ["--length -3"]),
    "length beyond the model": (train("--length", "99999"), ["--length 99999: give from 1 to"]),
    "length beyond the model of soft": (
        train("--method", "soft", "--length", "99999"),
        ["99999 virtual tokens; give from 1 to"],
    ),
    "first layer beyond the model": (
        train("--first-layer", "3"),
        ["--first-layer 3: the model has layers 0 to 2"],
    ),
    "more shots than rows": (train("--shots", "99"), ["99 demonstrations asked for", "--shots"]),
    "text without its start": (train("--start-text", "x"), ["use start 'text'"]),
    "unknown field": (
        train("--template", "{txet} :"),
        ["train.jsonl:1: no field 'txet', which the template asks for; did you mean 'text'?"],
    ),
    "stray bracket": (train("--template", "{text} ["), ["column 8: a stray '['"]),
    "stray brace": (train("--template", "{text :"), ["column 1: a stray '{'"]),
    "unknown bracket": (train("--template", "{text} [maks]"), ["did you mean 'mask'?"]),
    "mask in the middle": (
        train("--template", "{text} [mask] so it is"),
        ["text after [mask] is never seen by a causal model"],
    ),
    "two masks": (train("--template", "[mask] {text} [mask]"), ["[mask] stands twice"]),
    "soft in a template of a prefix": (
        train("--template", "[soft:2]{text}", "--method", "prefix"),
        ["--method soft"],
    ),
    "frame of no virtual tokens": (train("--frame", "Please."), ["--frame Please.", "no virtual"]),
    "template too long": (
        train("--template", "{text} so it was :", "--max-length", "2"),
        ["raise --max-length"],
    ),
    "unknown model": (
        train("--model", "./nothing-here"),
        ["cannot load './nothing-here': no such folder or file"],
    ),
    "hub without a network": (
        train("--model", "someone/something"),
        ["someone/something", "smollm2"],
    ),
    "unknown dtype": (train("--dtype", "float31"), ["unknown dtype 'float31'", "float32"]),
    "unknown device": (train("--device", "gpu"), ["unknown device 'gpu'", "cpu"]),
    "generation by a masked model": (
        lambda world, folder: world.train(
            folder / "out" / "p.safetensors",
            *("--task", "generate", "--model", world.path("masked")),
        ),
        ["is a masked model and cannot generate"],
    ),
    "no mask for a masked model": (
        lambda world, folder: world.train(
            folder / "out" / "p.safetensors", "--model", world.path("masked")
        ),
        ["has no [mask]"],
    ),
    "labels without words": (train("--labels", "good=", "bad"), ["--labels 'good='"]),
    "labels without a name": (train("--labels", "=x", "bad"), ["--labels '=x'"]),
    "labels twice": (train("--labels", "good", "good"), ["--labels names 'good' twice"]),
    "labels that share a word": (train("--labels", "good=x", "bad=x"), ["share the word"]),
    "labels that are not the rows'": (train("--labels", "good", "fine"), ["unknown label 'bad'"]),
    "columns malformed": (train("--columns", "text"), ["--columns 'text': write field=column"]),
    "columns unknown": (train("--columns", "text=sentence"), ["no column 'sentence'"]),
    "a run file that is not there": (train("--config", "{d}/run.yaml"), ["cannot be read"]),
    "unknown key in YAML": (
        with_file("run.yaml", "epoch: 3\n", "--config", "{d}/run.yaml"),
        ["run.yaml: unknown setting 'epoch'; did you mean 'epochs'?"],
    ),
    "unknown key in TOML": (
        with_file("run.toml", "lenght = 3\n", "--config", "{d}/run.toml"),
        ["run.toml: unknown setting 'lenght'; did you mean 'length'?"],
    ),
    "broken YAML": (
        with_file("run.yaml", "a: [1\nb: 2", "--config", "{d}/run.yaml"),
        ["run.yaml:2: cannot be read (expected ',' or ']'"],
    ),
    "a key that stands twice in YAML": (
        with_file("run.yaml", "epochs: 3\nepochs: 4\n", "--config", "{d}/run.yaml"),
        ["run.yaml:2: cannot be read (key 'epochs' is there twice; leave one out)"],
    ),
    "thousands of brackets in YAML": (
        with_file("run.yaml", "[" * 1200, "--config", "{d}/run.yaml"),
        ["run.yaml: is nested too deeply"],
    ),
    "broken TOML": (with_file("run.toml", "a = \n", "--config", "{d}/run.toml"), ["run.toml: "]),
    "a list for a run file": (
        with_file("r.yaml", "- 1\n", "--config", "{d}/r.yaml"),
        ["a mapping"],
    ),
    "wrong type in YAML": (
        with_file("run.yaml", "warmup: soon\n", "--config", "{d}/run.yaml"),
        ["setting 'warmup' is 'soon', expected a number"],
    ),
    "wrong type of a plain setting": (
        with_file("run.yaml", "rows: true\n", "--config", "{d}/run.yaml"),
        ["setting 'rows' is True, expected a whole number"],
    ),
    "text for a list": (
        with_file("run.yaml", "report_to: wandb\n", "--config", "{d}/run.yaml"),
        ["setting 'report_to' is 'wandb', expected a list"],
    ),
    "labels that YAML takes for true and false": (
        with_file("run.yaml", "labels: [true, false]\n", "--config", "{d}/run.yaml"),
        ["labels hold True", "put it in quotes"],
    ),
    "unknown tracker": (
        train("--report-to", "wandbb"),
        ["--report-to wandbb: unknown", "did you mean 'wandb'"],
    ),
    "seed below zero": (train("--seed", "-1"), ["--seed -1: give 0 or more"]),
    "seed too large for torch": (
        train("--method", "lora", "--seed", "9223372036854775808"),
        ["--seed 9223372036854775808: give 0 or more, and less than 9223372036854775808"],
    ),
    "seed too large for torch in YAML": (
        with_file("run.yaml", "seed: 9223372036854775808\n", "--config", "{d}/run.yaml"),
        ["seed is 9223372036854775808; it must be at least 0, and less than"],
    ),
    "seed below zero in YAML": (
        with_file("run.yaml", "seed: -1\n", "--config", "{d}/run.yaml"),
        ["seed is -1; it must be at least 0"],
    ),
    "a template without a field": (
        train("--template", "none"),
        ["template 'none' reads no field of a row; write one in braces"],
    ),
    "columns twice": (
        train("--columns", "text=text", "text=label"),
        ["--columns names 'text' twice"],
    ),
    "a model of a long name": (train("--model", "m" * 300), ["mmm': not a hub id"]),
    "a model of a long path": (train("--model", f"./{'m' * 300}"), ["no such folder or file"]),
    "epochs zero": (train("--epochs", "0"), ["epochs is 0; it must be at least 1"]),
    "rate zero": (train("--lr", "0"), ["the learning rate is 0"]),
    "warmup of more than all": (train("--warmup", "2"), ["warmup is 2"]),
}


@pytest.mark.parametrize("mistake", TRAIN)
def test_a_mistake_in_training_is_one_line_and_nothing_is_written(
    mistake: str, world: Any, cli: Cli, tmp_path: Path
) -> None:
    make, parts = TRAIN[mistake]
    arguments = make(world, tmp_path)
    before = snapshot(tmp_path)
    refused(cli(*arguments), *parts)
    assert snapshot(tmp_path) == before


def test_what_is_missing_is_named(world: Any, cli: Cli, tmp_path: Path) -> None:
    refused(
        cli("train", "--model", world.path("model"), "--out", tmp_path / "p"), "--train is missing"
    )
    refused(cli("train", "--train", world.path("train.jsonl")), "--out is missing")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(
        cli(*world.train(tmp_path / "out" / "p", "--report-to", "wandb")),
        "--report-to wandb needs its library: pip install 'foreword[wandb]'",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bad_place_to_write_is_told_and_the_former_file_stays(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(cli(*world.train(tmp_path)), "is a folder")
    former = text(tmp_path / "former", "kept")
    refused(cli(*world.train(former / "p.safetensors")), "cannot be written")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    refused(cli(*world.train(former)), "0.0 MiB are free")
    assert snapshot(tmp_path) == {"former": b"kept"}


def test_resuming_another_run_is_refused(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.safetensors"

    def lost(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Prompt, "save", lost)
        answer = cli(*world.train(out))
    assert answer.status == 130
    assert answer.err.splitlines()[-1] == "foreword: interrupted"
    before = snapshot(tmp_path)
    refused(cli(*world.train(out, "--seed", "1", "--resume")), "other data, model or settings")
    assert snapshot(tmp_path) == before
    checkpoint = training_module.checkpoint.path_for(out)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    refused(cli(*world.train(out, "--resume")), "damaged checkpoint")


# The other commands -------------------------------------------------------------------------------


def damaged(world: Any, folder: Path) -> Path:
    path = folder / "damaged.safetensors"
    path.write_bytes(Path(world.path("p.safetensors")).read_bytes()[:-10])
    return path


OTHERS: dict[str, tuple[Make, list[str]]] = {
    "no command of that name": (lambda w, d: ["trian"], ["trian"]),
    "a number for a command": (lambda w, d: ["-5"], ["-5: unknown command"]),
    "a number for a command of rows": (lambda w, d: ["data", "-1"], ["data -1: unknown command"]),
    "eval with a seed below zero": (
        lambda w, d: ["eval", w.path("p.safetensors"), "--data", "none", "--seed", "-1"],
        ["--seed -1: give 0 or more"],
    ),
    "predict without texts": (
        lambda w, d: ["predict", w.path("p.safetensors")],
        ["give texts to answer, or --data F"],
    ),
    "predict with texts and rows": (
        lambda w, d: ["predict", w.path("p.safetensors"), "a", "--data", w.path("test.jsonl")],
        ["give texts to answer, or --data F"],
    ),
    "predict a file of rows as a text": (
        lambda w, d: ["predict", w.path("p.safetensors"), w.path("test.jsonl")],
        ["test.jsonl: is a file of rows, not a text; give it with --data "],
    ),
    "train with a flag of a column spelled wrongly": (
        lambda w, d: w.train(d / "p.safetensors", "--txet-field", "a"),
        ["Unknown option: --txet-field. Did you mean --text-field?"],
    ),
    "eval with the flag of train that names a column": (
        lambda w, d: ["eval", w.path("p.safetensors"), "--data", "d", "--text-field", "a"],
        ["Unknown option: --text-field; name the column of a field with --columns FIELD=COLUMN"],
    ),
    "predict an empty text": (
        lambda w, d: ["predict", w.path("p.safetensors"), " "],
        ['input 1: field "text" is empty'],
    ),
    "predict rows without the field": (
        lambda w, d: [
            *("predict", w.path("p.safetensors"), "--out", d / "o.csv"),
            *("--data", text(d / "t.jsonl", '{"txet": "a"}')),
        ],
        ["t.jsonl:1: no field 'text'", "did you mean 'txet'?"],
    ),
    "predict into a folder": (
        lambda w, d: [
            "predict",
            w.path("p.safetensors"),
            "--data",
            w.path("test.jsonl"),
            "--out",
            d,
        ],
        ["is a folder; name the file to write in it"],
    ),
    "predict into a device": (
        lambda w, d: [
            *("predict", w.path("p.safetensors"), "--data", w.path("test.jsonl")),
            *("--out", pipe(d / "o.csv")),
        ],
        ["o.csv: is a device or a pipe, not a file"],
    ),
    "eval with errors into a device": (
        lambda w, d: [
            *("eval", w.path("p.safetensors"), "--data", w.path("test.jsonl")),
            *("--errors", pipe(d / "o.csv")),
        ],
        ["o.csv: is a device or a pipe, not a file"],
    ),
    "a page of a library into a device": (
        lambda w, d: ["library", w.folder, "--html", pipe(d / "o.html")],
        ["o.html: is a device or a pipe, not a file"],
    ),
    "a prompt that is not there": (
        lambda w, d: ["predict", d / "none.safetensors", "a"],
        ["none.safetensors: cannot be read"],
    ),
    "eval of a damaged prompt": (
        lambda w, d: ["eval", damaged(w, d), "--data", w.path("test.jsonl")],
        ["damaged.safetensors: is cut off or damaged"],
    ),
    "eval of something else": (
        lambda w, d: ["eval", text(d / "x", "hello, world"), "--data", w.path("test.jsonl")],
        ["is not a safetensors file"],
    ),
    "eval of a model": (
        lambda w, d: ["eval", w.path("model/model.safetensors"), "--data", w.path("test.jsonl")],
        ["no Foreword prompt"],
    ),
    "eval without data": (lambda w, d: ["eval", w.path("p.safetensors")], ["--data"]),
    "eval without rows": (
        lambda w, d: ["eval", w.path("p.safetensors"), "--data", d / "no.jsonl"],
        ["no such file"],
    ),
    "eval of rows without labels": (
        lambda w, d: [
            *("eval", w.path("p.safetensors"), "--data", text(d / "t.jsonl", '{"text": "a"}')),
        ],
        ["t.jsonl:1: missing field 'label'"],
    ),
    "eval on another model": (
        lambda w, d: [
            *("eval", w.path("p.safetensors"), "--data", w.path("test.jsonl")),
            *("--model", w.path("other")),
        ],
        ["was tuned on", "or use --force"],
    ),
    "eval on a model of another kind": (
        lambda w, d: [
            *("eval", w.path("p.safetensors"), "--data", w.path("test.jsonl")),
            *("--model", w.path("masked"), "--force"),
        ],
        ["has no attention module"],
    ),
    "info of a folder": (lambda w, d: ["info", d], ["is a folder, not a prompt"]),
    "info of a text": (lambda w, d: ["info", text(d / "x", "")], ["is not a safetensors file"]),
    "export to a folder that exists": (
        lambda w, d: ["export", w.path("p.safetensors"), text(d / "x", "kept").parent],
        ["already exists; name a new folder"],
    ),
    "export to something else": (
        lambda w, d: ["export", w.path("p.safetensors"), d / "e", "--to", "pfet"],
        ["--to pfet: unknown; did you mean 'peft'?"],
    ),
    "export as another kind": (
        lambda w, d: ["export", w.path("p.safetensors"), d / "e", "--kind", "PROMPT_TUNING"],
        ["kind 'PROMPT_TUNING': this prompt can become PREFIX_TUNING or CARTRIDGE"],
    ),
    "import of nothing": (
        lambda w, d: [
            *("import", d / "none", "--model", w.path("model"), "--out", d / "o"),
            *("--template", "{text}", "--labels", "a", "b"),
        ],
        ["none: is no folder"],
    ),
    "import without a template": (
        lambda w, d: ["import", d, "--model", w.path("model"), "--out", d / "o"],
        ["--template is missing: ", " does not say it; give that of the task"],
    ),
    "import without labels": (
        lambda w, d: ["import", d, "--out", d / "o", "--template", "{text}"],
        ["--labels is missing: "],
    ),
    "import without out": (lambda w, d: ["import", d], ["OUT is missing"]),
    "import with a setting of training": (
        lambda w, d: ["import", d, "--out", d / "o", "--train", "x"],
        ["Unknown option: --train"],
    ),
    "import with a setting of a method": (
        lambda w, d: ["import", d, "--out", d / "o", "--length", "3"],
        ["Unknown option: --length"],
    ),
}


@pytest.mark.parametrize("mistake", OTHERS)
def test_a_mistake_in_another_command_is_one_line_and_nothing_is_written(
    mistake: str, world: Any, cli: Cli, tmp_path: Path
) -> None:
    make, parts = OTHERS[mistake]
    arguments = make(world, tmp_path)
    before = snapshot(tmp_path)
    line = refused(cli(*arguments), *parts)
    assert cli(*arguments, "--json").err.splitlines()[-1] == line  # and nothing on stdout
    assert snapshot(tmp_path) == before


NOWHERE: dict[str, Callable[[Any], list[str]]] = {
    "compose": lambda w: ["compose", *[w.path("p.safetensors")] * 2, "--how", "concat"],
    "labels add": lambda w: ["labels", "add", w.path("p.safetensors"), "new"],
    "labels remove": lambda w: ["labels", "remove", w.path("p.safetensors"), "good"],
    "compress": lambda w: ["compress", "--text", w.path("train.jsonl"), "--model", w.path("model")],
    "eval": lambda w: ["eval", w.path("p.safetensors"), "--data", w.path("test.jsonl")],
}


@pytest.mark.parametrize("command", NOWHERE)
def test_where_nothing_can_be_written_no_work_is_done(
    command: str, world: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("it is worked before the place is tried")

    monkeypatch.setattr(Prompt, "load", work)
    monkeypatch.setattr(Backbone, "load", work)
    refused(cli(*NOWHERE[command](world), "--out", "/dev/null/q"), "/dev/null/q: cannot be written")


ONTO: dict[str, Callable[[Any, Path], list[Any]]] = {
    "train": lambda w, rows: w.train(rows, "--train", rows),
    "search": lambda w, rows: [
        *("search", "--train", rows, "--model", w.path("model"), "--out", rows),
    ],
    "eval --out": lambda w, rows: ["eval", w.path("p.safetensors"), "--data", rows, "--out", rows],
    "eval": lambda w, rows: ["eval", w.path("p.safetensors"), "--data", rows, "--errors", rows],
    "eval --train": lambda w, rows: [
        *("eval", w.path("p.safetensors"), "--data", w.path("test.jsonl")),
        *("--train", rows, "--errors", rows),
    ],
    "predict": lambda w, rows: ["predict", w.path("p.safetensors"), "--data", rows, "--out", rows],
    "report": lambda w, rows: [
        *("report", w.path("p.safetensors"), "--data", rows, "--answers", rows),
        *("--out", rows.with_suffix(".html")),
    ],
    "compress": lambda w, rows: [
        *("compress", "--text", rows, "--model", w.path("model"), "--out", rows),
    ],
    "prune": lambda w, rows: ["prune", w.path("p.safetensors"), "--data", rows, "--out", rows],
    "compose": lambda w, rows: [
        *("compose", *[w.path("p.safetensors")] * 2, "--how", "ensemble"),
        *("--dev", rows, "--out", rows),
    ],
    "import": lambda w, rows: [
        *("import", rows.parent, rows, "--model", w.path("model")),
        *("--template", "{text} :", "--labels", "good", "bad"),
    ],
    "library": lambda w, rows: ["library", w.path("prompts"), "--html", rows],
    "eval of a folder": lambda w, rows: [
        *("eval", w.path("p.safetensors"), "--data", rows.parent, "--errors", rows),
    ],
    "predict of a folder": lambda w, rows: [
        *("predict", w.path("p.safetensors"), "--data", rows.parent, "--out", rows),
    ],
    "clean of a folder": lambda w, rows: ["data", "clean", rows.parent, "--out", rows, "--force"],
}


@pytest.mark.parametrize("command", ONTO)
def test_rows_are_not_written_over(command: str, world: Any, cli: Cli, tmp_path: Path) -> None:
    rows = text(tmp_path / "rows.jsonl", GOOD * 4)
    line = refused(cli(*ONTO[command](world, rows)), "rows.jsonl: ")
    known = ("holds the rows that are read", "is no prompt file", "is no name of a page")
    assert any(each in line for each in known)
    assert snapshot(tmp_path) == {"rows.jsonl": (GOOD * 4).encode()}


def test_a_prompt_takes_the_place_of_an_older_one_or_of_an_empty_file(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    out = text(tmp_path / "new", "")
    for method in ("soft", "prefix"):
        assert cli(*world.train(out, "--method", method)).status == 0
        assert Prompt.load(out).method["name"] == method


def test_before_the_model_is_loaded_the_line_is_all_there_is(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    for flags in (["--method", "sfot"], ["--rows", "99"], ["--report-to", "x"]):
        assert cli(*world.train(tmp_path / "p", *flags)).err.count("\n") == 1


def test_a_bug_is_told_as_one_with_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(info, "read_file", broken)
    answer = cli("info", "p.safetensors")
    assert answer.status == 1
    assert "Traceback" in answer.err
    assert "ZeroDivisionError" in answer.err
    assert "this is a bug in Foreword" in answer.err.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(world: Any, cli: Cli, tmp_path: Path) -> None:
    path = text(tmp_path / "t.jsonl", GOOD)
    path.chmod(0)
    refused(cli(*world.train(tmp_path / "p", "--train", path)), "t.jsonl: cannot be read")


@pytest.mark.parametrize(
    "command",
    [
        lambda w, name: w.train("o.safetensors", "--start", name),
        lambda w, name: ["library", name],
        lambda w, name: ["data", "split", w.path("train.jsonl"), "--out", name],
        lambda w, name: ["export", w.path("p.safetensors"), name, "--to", "vllm"],
    ],
    ids=["start", "library", "split", "export"],
)
def test_a_text_in_place_of_a_file_is_told_in_one_line(
    command: Callable[[Any, str], list[str]], world: Any, cli: Cli
) -> None:
    line = refused(cli(*command(world, "no file has so long a name " * 10)))
    assert len(line) < 500


def test_flags_of_the_model_are_never_passed_over(world: Any, cli: Cli, tmp_path: Path) -> None:
    words = ("export", world.path("p.safetensors"), tmp_path / "peft", "--device", "nonsense")
    refused(cli(*words), "nonsense")
    assert not (tmp_path / "peft").exists()


def test_rows_to_try_an_export_are_checked_before_it_is_written(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    rows = text(tmp_path / "rows.jsonl", '{"txt": "a"}\n')
    words = ("export", world.path("p.safetensors"), tmp_path / "v.safetensors", "--to", "vllm")
    refused(cli(*words, "--data", rows), "rows.jsonl:1: ")
    assert not (tmp_path / "v.safetensors").exists()
