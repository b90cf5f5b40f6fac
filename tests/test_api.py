"""The pages on Python: the reference is that of the docstrings, and what the guide says runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest

import foreword
from toys import get

ROOT = Path(__file__).parent.parent
REFERENCE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "reference.py"))


def test_the_reference_is_current() -> None:
    """``python docs/reference.py`` writes it anew."""
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == REFERENCE["page"]()


def test_the_reference_has_every_public_name_once() -> None:
    groups = REFERENCE["GROUPS"].values()
    named = [name.partition(".")[0] for names in groups for name in names.split()]
    assert sorted(named) == sorted([*foreword.__all__, "sklearn"])


def test_a_docstring_becomes_markdown() -> None:
    said = SimpleNamespace(__doc__="Do ``x`` as :meth:`y` does.\n\n>>> f(1)\n2\n\nMore.")
    assert REFERENCE["prose"](said) == [
        "Do `x` as `y` does.", "", "```python", ">>> f(1)", "2", "```", "", "More.", "",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks in order, on a tiny model; the sweep is only defined."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    get().model.save_pretrained(tmp_path / "model")
    get().text.tokenizer.save_pretrained(tmp_path / "model")
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    code = code.replace('"smollm2"', '"model"').replace(
        'label="stars")', 'label="stars", epochs=1)'
    )
    had: dict[str, Any] = {}
    exec(compile(code, "python.md", "exec"), had)
    assert had["one"] in ("positive", "negative")
    assert len(had["many"]) == 2
    assert isinstance(had["series"], pandas.Series)
    assert list(had["chances"].columns) == ["negative", "positive"]
    assert had["scores"].baselines["zero-shot"]["rows"] == 32
    assert list(had["by_row"].columns) == ["text", "gold", "answer", "probability", "right"]
    assert callable(had["sweep"])
