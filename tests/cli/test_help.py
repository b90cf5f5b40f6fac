"""What a person who asks is shown: a few flags in panels, or all; and what a shell completes."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from foreword.cli.commands import COMMANDS, app
from foreword.cli.flags import FLAGS
from foreword.cli.main import BEGIN
from foreword.cli.whole import read_whole
from foreword.cli.words import flag
from foreword.export.registry import EXPORTS

Cli = Callable[..., Any]


def flags(text: str) -> list[str]:
    """The flags that a page lists, in its order."""
    return re.findall(r"^│[ *]+(?:[A-Z]+ )?(--[a-z0-9-]+)", text, re.MULTILINE)


def titles(text: str) -> list[str]:
    return re.findall(r"╭─ (.*?) ─", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_screen_and_is_no_error(command: str, cli: Cli) -> None:
    for which in ("--help", "--help-all"):
        answer = cli(*command.split(), which)
        assert (answer.status, answer.err) == (0, "")
        assert answer.out.startswith(f"Usage: foreword {command} ")
        assert ("--json" in flags(answer.out)) is (command not in ("chat", "serve"))
        assert max(map(len, answer.out.splitlines())) <= 80
        assert "default: False" not in answer.out


def test_train_shows_the_few_settings_that_matter(cli: Cli) -> None:
    shown = cli("train", "--help").out
    assert len(shown.splitlines()) <= 66  # pages of paper, and a tall terminal
    assert 18 <= len(flags(shown)) <= 26
    assert titles(shown) == ["Data", "Task", "Model", "Method", "Training", "Output"]
    named = {"--train", "--dev", "--template", "--label-field", "--method", "--epochs", "--out"}
    assert named < {*flags(shown)}
    assert "positions of the prefix" in shown
    assert "foreword train --help-all" in shown


def test_all_settings_are_shown_where_all_are_asked_for(cli: Cli) -> None:
    few, shown = cli("train", "--help").out, cli("train", "--help-all").out
    assert {flag(name) for name in FLAGS} < {*flags(shown)}
    assert len(flags(shown)) == len({*flags(shown)})
    left = len(flags(shown)) - len(flags(few))
    assert f"{left} more: foreword train --help-all" in few
    assert {"Task generate", "Decoding", "Method lora"} < {*titles(shown)}


def test_settings_of_one_task_and_one_method(cli: Cli) -> None:
    """All of them, as they are there, and none of the others."""
    shown = cli("train", "--task", "answer", "--method=lora", "--help").out
    assert {"Task answer", "Decoding", "Method lora"} < {*titles(shown)}
    assert {"--stride", "--beams", "--rank", "--epochs"} < {*flags(shown)}
    assert not {"--labels", "--first-layer", "--start"} & {*flags(shown)}
    assert "tokens of a completion [default: 32]" in shown
    assert "own [default: 0.001]" in shown
    both = cli("compare", "--methods", "zero-shot,soft,prefix+lora", "--help").out
    assert {"Method", "Method prefix", "Method lora"} < {*titles(both)}
    assert "Method soft" not in titles(both)  # prefix has all that soft has
    wrong = cli("train", "--method", "lroa", "--help")
    assert wrong.status == 2
    assert "--method lroa: unknown; did you mean 'lora'?" in wrong.err


def test_import_and_export_show_their_own_settings(cli: Cli) -> None:
    imported = {*flags(cli("import", "--help-all").out)}
    assert {"--path", "--out", "--format", "--task", "--template", "--model"} < imported
    assert not imported & {"--train", "--method", "--epochs", "--length", "--lr", "--config"}
    exported = flags(cli("export", "--help").out)
    own = [
        "--out",
        "--to",
        "--gguf",
        "--cache-type",
        "--flash-attention",
        "--mlx-dtype",
        "--kind",
        "--data",
        "--rows",
    ]
    assert exported == [*own, "--model", "--force", "--json"]


def test_the_list_of_commands_says_what_each_does(cli: Cli) -> None:
    shown = cli("--help").out
    for command, (_, about) in COMMANDS.items():
        assert " " in command or re.search(rf"│ {command} +{re.escape(about)}", shown)
    assert "--install-completion" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_who_has_nothing_is_shown_three_lines_that_work(cli: Cli) -> None:
    answer = cli()
    assert (answer.status, answer.out) == (0, f"{BEGIN}\n")
    assert BEGIN in (Path(__file__).parents[2] / "docs" / "first-minute.md").read_text("utf-8")
    lines = [line.split("(")[0].split() for line in BEGIN.splitlines() if line.startswith("  ")]
    assert [line[:2] for line in lines] == [
        ["foreword", name] for name in ("demo", "predict", "info", "train")
    ]
    default = app["demo"].assemble_argument_collection()
    assert str(default[0].field_info.default) == lines[1][2] == lines[2][2]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_of_whole_numbers_takes_no_other(command: str) -> None:
    """Cyclopts alone rounds them: "--rows 1.5" was 2 rows."""
    found = app
    for word in command.split():
        found = found[word]
    for each in found.assemble_argument_collection():
        if int in {each.hint, *get_args(each.hint)}:
            assert each.parameter.converter is read_whole, each.name


MISTAKES = {
    "explain p --rows 1.5": '--rows: unable to convert "1.5" into int',
    "serve d --port 80.5": '--port: unable to convert "80.5" into int',
    "eval p": "--data is missing (rows with their answers); see foreword eval --help",
    "eval p --dat x": "Did you mean --data instead of --dat? See foreword eval --help",
    "eval": "PROMPT is missing (a prompt file); see foreword eval --help",
    "info a b": "'b' is one word too many; see foreword info --help",
    "train --epochs": "--epochs needs a value (passes over the training rows; else 4, or",
    "train --trian x": "Unknown option: --trian. Did you mean --train? See foreword train --help",
    "trian": "trian: unknown command; did you mean 'train'?",
    "data chek x": "data chek: unknown command; did you mean 'check'? (known: check, clean",
    "import a b --format nope": f"--format nope: unknown; known are: {', '.join(EXPORTS)}",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistaken_command_is_one_line(words: str, cli: Cli) -> None:
    answer = cli(*shlex.split(words))
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("foreword: ")
    assert answer.err.count("\n") == 1
    assert MISTAKES[words] in answer.err


COMPLETED = {
    "foreword co": ["compare", "compress", "compose"],
    "foreword data ": ["check", "clean", "split"],
    "foreword train --temp": ["--template", "--temperature"],
    "foreword train --preset ": ["fast", "balanced", "best"],
    "foreword train --method pre": ["prefix"],
    "foreword train --schedule co": ["cosine", "constant"],
    "foreword train --device c": ["cpu", "cuda"],
    "foreword eval p --quantize ": ["bfloat16", "int8", "int4"],
    "foreword train --train ro": ["rows.jsonl"],
    "foreword export p o --to ": [*EXPORTS],
    "foreword compose --how e": ["ensemble"],
}


def test_bash_completes_commands_flags_values_and_files(tmp_path: Path) -> None:
    """The script is made once, and runs without Python."""
    script = tmp_path / "foreword.bash"
    script.write_text(app.generate_completion(shell="bash"), "utf-8")
    (tmp_path / "rows.jsonl").touch()
    asked = "\n".join(f"ask {shlex.join(words.split(' '))}" for words in COMPLETED)
    ask = 'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _foreword; '
    ended = subprocess.run(
        ["bash", "-c", f'. {script}\n{ask} echo "${{COMPREPLY[*]}}"; }}\n{asked}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [sorted(line.split()) for line in ended.stdout.splitlines()]
    assert answers == [sorted(words) for words in COMPLETED.values()]
    assert ended.stderr == ""
