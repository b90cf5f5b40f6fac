"""The notebooks and scripts of the examples run, from the first cell to the last."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import char_model

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return char_model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the rows of the examples, in which a notebook may write."""
    for path in EXAMPLES.iterdir():
        if path.is_dir():
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def code(path: Path) -> list[str]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cells(cells: list[str]) -> list[Any]:
    """Run cells in order as a notebook does, and return what it would show of each."""
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(cells, 1):
        body = ast.parse(cell, f"cell {number}").body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names))
    for value in shown:
        getattr(value, "_repr_html_", value.__repr__)()
    return shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_showed(path: Path) -> None:
    kept = json.loads(path.read_text("utf-8"))
    assert (kept["nbformat"], kept["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in kept["cells"]}) == len(kept["cells"])
    for cell in kept["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_notebook_on_cross_validation(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL", model)
    cells = code(EXAMPLES / "cross_validation.ipynb")
    shown = run_cells([cell.replace("epochs=4", "epochs=1") for cell in cells])
    assert re.search(r"\d+% of 44 reviews are right", capsys.readouterr().out)
    assert len(shown[0]) == 5
    matrix = next(value for value in shown if hasattr(value, "confusion_matrix"))
    assert matrix.confusion_matrix.sum() == 44
    assert set(shown[-1]) <= {"negative", "positive"}
    assert (here / "out" / "reviews.safetensors").exists()


@pytest.mark.slow
def test_the_notebook_on_two_methods(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL", model)
    shown = run_cells(code(EXAMPLES / "two_methods.ipynb"))
    assert list(shown[1].index) == ["soft", "prefix"]
    assert list(shown[1].columns) == ["accuracy", "low", "high"]
    assert list(shown[4].index) == ["A-17", "A-18"] == list(shown[5].columns)
    assert (here / "out" / "topics.safetensors").exists()


def test_the_chat_of_a_shop(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shop_chat.py", "--model", model, "--epochs", "1"])
    runpy.run_path(str(EXAMPLES / "shop_chat.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert len(re.findall(r"^Customer: .+\nShop:     ", said, re.MULTILINE)) == 3
    assert re.search(r"^\d+ s; the prompt is out/shop.safetensors", said, re.MULTILINE)
    assert (here / "out" / "shop.safetensors").exists()
