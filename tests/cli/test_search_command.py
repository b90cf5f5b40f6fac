"""``foreword search``: a prompt, its trials, a table, and one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import foreword.prompt_search.trial as of_trial
from conftest import Answer, World
from foreword.prompt.prompt import Prompt
from foreword.training.interrupt import Interrupted

Cli = Callable[..., Answer]


@pytest.fixture
def ask(world: World, tmp_path: Path, cli: Cli) -> Cli:
    """Search among heads, but for the flags that are given."""
    usual = {
        "--train": world.path("train.jsonl"),
        "--dev": world.path("dev.jsonl"),
        "--model": world.path("model"),
        "--template": "{text} :",
        "--methods": "head",
        "--epochs": "1",
        "--out": str(tmp_path / "p.safetensors"),
    }

    def call(*more: str) -> Answer:
        kept = [word for flag in usual if flag not in more for word in (flag, usual[flag])]
        return cli("search", *kept, *more)

    return call


def test_it_writes_the_best_prompt_and_all_trials(ask: Cli, tmp_path: Path) -> None:
    answer = ask("--lr", "1e-9,0.01", "--head-start", "random", "--trials", "3")
    assert answer.status == 0, answer.err
    kept = json.loads((tmp_path / "p.search.json").read_text())
    assert {each["settings"]["rate"] for each in kept["trials"]} == {1e-9, 0.01}
    assert all(each["settings"]["head_start"] == "random" for each in kept["trials"])
    assert (
        Prompt.load(tmp_path / "p.safetensors").scores["dev"]["accuracy"] == kept["best"]["score"]
    )
    assert all(len(line) <= 80 for line in answer.out.splitlines() if str(tmp_path) not in line)
    assert "rows held back, which no trial has seen" in answer.out
    assert "trial 0: head, head start random, epochs 1, rate 1e-09, batch size 8: " in answer.err
    again = ask("--trials", "3")
    assert again.status == 2
    assert "a study 'p' is there already; --resume goes on with it" in again.err


def test_models_are_looked_at_and_the_page_shows_it_all(
    ask: Cli, world: World, tmp_path: Path
) -> None:
    given = ("--models", world.path("model"), str(tmp_path / "none"), "--head-start", "random")
    answer = ask(*given, "--lr", "1e-9,0.01,0.02", "--trials", "9")
    assert answer.status == 0, answer.err
    assert "left out" in answer.out
    page = (tmp_path / "p.search.html").read_text()
    kept = json.loads((tmp_path / "p.search.json").read_text())
    # over time, against bytes and milliseconds, and importances where scores differ
    assert page.count("<svg") == 3 + bool(kept["importances"])
    assert 'src="http' not in page
    assert "Content-Security-Policy" in page
    assert all(each["milliseconds"] for each in kept["trials"] if not each["reason"])
    one, other = kept["models"]
    assert one["probe"] is not None
    assert other["reason"]


def test_json_is_what_the_file_holds(ask: Cli, world: World, tmp_path: Path) -> None:
    answer = ask("--trials", "1", "--test", world.path("test.jsonl"), "--refit", "--json")
    assert answer.status == 0, answer.err
    kept = json.loads((tmp_path / "p.search.json").read_text())
    assert answer.json == {"out": str(tmp_path / "p.safetensors"), **kept}
    assert kept["rows"]["train"] == 24
    assert kept["rows"]["held"] == 12


def test_label_words_that_are_asked_for_are_not_searched(ask: Cli) -> None:
    words = ("--methods", "soft", "--length", "2", "--verbalizer", "manual", "--trials", "1")
    made = ask(*words, "--json").json["space"]["methods"]["soft"]
    assert made["verbalizer"] == ["manual"]


def test_a_run_file_fixes_settings_and_flags_win(ask: Cli, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: soft\npreset: fast\nlength: 3\nbatch-size: 4\n")
    given = ("--config", str(file), "--methods", "head,soft", "--batch-size", "12,8")
    answer = ask(*given, "--trials", "1", "--epochs", "2", "--json")
    assert answer.status == 0, answer.err
    space = answer.json["space"]
    assert space["methods"]["soft"]["length"] == [3]
    assert space["methods"].keys() == {"head", "soft"}  # of the flag
    assert space["shared"] == {"epochs": [2], "batch_size": [12, 8]}


def test_ctrl_c_says_how_to_go_on(ask: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def stop(*arguments: object, **more: object) -> Prompt:
            raise Interrupted("stopped at step 1 of 3")

        patched.setattr(of_trial, "tune_prompt", stop)
        answer = ask("--trials", "2")
    assert answer.status == 130
    assert answer.err.strip().endswith("the same command with --resume goes on")
    answer = ask("--trials", "2", "--resume", "--json")
    assert answer.status == 0, answer.err
    assert [each["state"] for each in answer.json["trials"]] == ["failed", "complete"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--minutes 0", "--minutes 0: give more than 0"),
        ("--trials 0", "--trials 0: give 1 or more"),
        ("--epochs 1,x", "--epochs x: expected a whole number"),
        ("--methods ,", "--methods names none"),
        ("--methods haed", "--methods haed: unknown 'haed'; did you mean 'head'?"),
        ("--rank 2", "--rank is no setting of the methods head"),
        ("--storage sqlite:////nowhere/x.db", "--storage sqlite:////nowhere/x.db: cannot be used"),
        ("--join /nowhere/x.jsonl", "--join /nowhere/x.jsonl: there is no such file"),
        ("--join x --storage y", "--join and --storage both name a storage"),
        ("--task score --verbalizer search", "--verbalizer"),
        ("--hard --trials 3", "--hard has no --methods; leave it out"),
        ("--verbalizer search,find", "--verbalizer find: unknown"),
    ],
)
def test_wrong_input_is_one_line(words: str, said: str, ask: Cli) -> None:
    answer = ask(*words.split())
    assert answer.status == 2
    assert said in answer.err
    told = [line for line in answer.err.splitlines() if line.startswith("foreword: ")]
    assert len(told) == 1
