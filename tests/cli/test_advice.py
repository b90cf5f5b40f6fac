"""What an error advises is what the command that ends with it can do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_mistakes import refused

from foreword.cli.advice import flags_of, with_flags
from foreword.cli.commands import app
from foreword.tasks.score import Score
from toys import rows, toy_run, write

FLAGS_OF_TRAIN = flags_of(app, ["train"])


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("`length=0`: give 1 or more", "--length 0: give 1 or more"),
        ("leave out `max_length`, or `rate`", "leave out --max-length, or --lr"),
        ("`stop=a b`: no", "--stop a b: no"),
        ("rows.jsonl:3: unknown label '`good`'", "rows.jsonl:3: unknown label '`good`'"),
        ("template '{a} `b' and `C`", "template '{a} `b' and `C`"),
        (
            "unknown label 'call `rate` now'; give `rate`",
            "unknown label 'call `rate` now'; give --lr",
        ),
    ],
)
def test_settings_in_errors_of_the_library_are_flags_here(error: str, shown: str) -> None:
    assert with_flags(error) == shown
    assert with_flags(error, FLAGS_OF_TRAIN) == shown


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("F:1: 9 is high; mend the row, or widen `low` and `high`", "F:1: 9 is high; mend the row"),
        ("F:1: 9 is high; widen `low`, or mend the row", "F:1: 9 is high; mend the row"),
        ("F:1: too long; raise `max_length`; or part it", "F:1: too long; part it"),
        (
            "F:1: no 'label'; name its column with `label_field`",
            "F:1: no 'label'; name its column with --columns label=COLUMN",
        ),
        ("F:1: cut; use `turns` last", "F:1: cut; use --turns of foreword train last"),
        (
            "was tuned on x; load that model, or use `force` to try anyway",
            "was tuned on x; load that model, or use --force to try anyway",
        ),
    ],
)
def test_of_the_ways_to_mend_an_error_those_stay_that_the_command_can_go(
    error: str, shown: str
) -> None:
    assert with_flags(error, flags_of(app, ["eval", "p", "--data", "f"]), "label") == shown


def test_a_score_out_of_range_is_told_by_what_eval_can_do(
    world: Any, cli: Any, tmp_path: Path
) -> None:
    """The range is the prompt's, so that only the row can be mended; in a training both can."""
    path, data = tmp_path / "p.safetensors", tmp_path / "f.jsonl"
    given = [replace(row, fields={**row.fields, "label": n % 3}) for n, row in enumerate(rows(6))]
    toy_run(path, task=Score(template="{text} :"), train=given, dev=given)
    data.write_text(json.dumps({"text": "a film", "label": 9}))
    why = f"{data}:1: 9 is outside the range of 0 to 2; mend the row"
    leave = "or leave such rows out with --skip-bad"
    command = ["eval", path, "--data", data, "--model", world.path("model"), "--force"]
    assert refused(cli(*command)).endswith(f"{why}, {leave}")
    more = ["--task", "score", "--low", "0", "--high", "2", "--dev", str(data)]
    trained = cli(
        *world.train(tmp_path / "q", "--train", write(tmp_path / "t.jsonl", given), *more)
    )
    assert refused(trained).endswith(f"{why}, or widen --low and --high, {leave}")


def test_an_unknown_label_is_told_by_what_eval_can_do(world: Any, cli: Any, tmp_path: Path) -> None:
    data = tmp_path / "f.jsonl"
    data.write_text(json.dumps({"text": "a film", "label": "godo"}))
    line = refused(cli("eval", world.path("p.safetensors"), "--data", data))
    assert line.endswith(
        "unknown label 'godo'; did you mean 'good'? (known: bad, good); mend the row, "
        "or leave such rows out with --skip-bad"
    )
