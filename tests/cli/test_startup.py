"""What is imported: looking, reading files and asking for help need none of the large libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import foreword
from foreword.cli.commands import COMMANDS

LARGE = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "accelerate",
    "huggingface_hub",
    "sacrebleu",
    "yaml",
    "rich.progress",
)

SCRIPT = """
import contextlib, io, json, sys
found = {}
def note(name, status=0):
    assert status == 0, (name, status)
    found[name] = sorted(set(sys.argv[2].split()) & sys.modules.keys())
import pytest

import foreword
note("import foreword")
dir(foreword)
note("dir(foreword)")
from foreword.cli.main import run
note("the command line")
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        status = run(arguments)
    note(" ".join(arguments), status)
print(json.dumps(found))
"""


def imported(commands: list[list[str]]) -> dict[str, list[str]]:
    """Run commands in one fresh process; return which large modules there were after each."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), " ".join(LARGE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def test_no_large_library_is_imported_to_look_at_things(tmp_path: Path) -> None:
    """One process runs all of them; what one imports shows in all that follow."""
    prompts = Path(__file__).parent.parent / "prompts_0_1"
    rows = tmp_path / "rows.jsonl"
    lines = [{"text": f"text {n}", "label": "ab"[n % 2], "number": n} for n in range(40)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    looks = [
        ["--version"],
        ["--help"],
        *([*command.split(), flag] for command in COMMANDS for flag in ("--help", "--help-all")),
        ["train", "--task", "generate", "--method", "prefix+lora", "--help"],
        [],
        *(
            ["info", str(file), *more]
            for file in prompts.glob("*.safetensors")
            for more in ([], ["--json"])
        ),
        ["library", str(prompts), "--similarity"],
        ["data", "check", str(rows)],
        ["data", "check", str(rows), "--task", "classify", "--template", "{text}"],
        ["data", "check", str(rows), "--task", "score", "--label-field", "number"],
        ["data", "clean", str(rows), "--out", str(tmp_path / "clean.jsonl")],
        ["data", "split", str(rows), "--out", str(tmp_path / "split")],
    ]
    found = imported(looks)
    assert len(found) == len(looks) + 3
    assert {name: large for name, large in found.items() if large} == {}


def test_every_public_name_is_there_and_none_is_a_folder() -> None:
    """Else ``import foreword.compression`` would hide a function behind the folder's module."""
    folders = {path.parent.name for path in Path(foreword.__file__).parent.glob("*/__init__.py")}
    modules = {path.stem for path in Path(foreword.__file__).parent.glob("*.py")}
    for name in foreword.__all__:
        value: Any = getattr(foreword, name)
        assert value is getattr(foreword, name)
        assert name not in folders | modules
        assert name in dir(foreword)
    assert len(set(foreword.__all__)) == len(foreword.__all__)


def test_names_for_editors_are_those_at_run_time() -> None:
    """Editors and mypy read the imports, Python the table."""
    source = Path(foreword.__file__).read_text("utf-8")
    for name in set(foreword.__all__) - {"load"}:
        assert f"    from foreword.{foreword._HOMES[name]} import " in source
        assert f"{name} as {name}" in source
    assert source.count(" as ") == len(foreword.__all__)
