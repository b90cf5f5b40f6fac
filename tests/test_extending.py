"""The page on extending is true: its method is the tree's, its task and its format are run."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.errors import UserError
from foreword.export.registry import EXPORTS
from foreword.methods.registry import METHODS
from foreword.prompt.prompt import Prompt
from foreword.tasks.registry import TASKS
from toys import get, toy_run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
METHOD, TRAINABLE, LINE, TASK, USE, FORMAT = BLOCKS


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    before = [dict(registry.entries) for registry in (METHODS, TASKS, EXPORTS)]
    yield
    METHODS.entries, TASKS.entries, EXPORTS.entries = before  # type: ignore[assignment]


def imported(code: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a block as a module of one's own."""
    (folder / f"{name}.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(name)


def test_the_method_is_the_one_in_the_tree() -> None:
    source = (ROOT / "src" / "foreword" / "methods" / "ia3.py").read_text("utf-8")
    assert METHOD in source
    assert TRAINABLE in source
    assert LINE in (ROOT / "src" / "foreword" / "methods" / "registry.py").read_text("utf-8")


def test_the_task_is_trained_saved_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = vars(imported(TASK, "keywords_task", tmp_path, monkeypatch)) | {"model": get()}
    exec(USE, names)
    (answer,) = names["answers"]
    path = names["prompt"].save(tmp_path / "p.safetensors")
    (again,) = Prompt.load(path, get()).predict(["a film and a good one"])
    assert again == answer
    assert Prompt.load(path).task == names["Keywords"]()


def test_the_format_is_written_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(FORMAT, "npz_format", tmp_path, monkeypatch)
    prompt = toy_run(None)
    for number, compress in enumerate((False, True)):
        path = EXPORTS["npz"](compress=compress).write(prompt, tmp_path / f"{number}.npz")
        with np.load(path) as held:
            assert held.files == [name for name, _ in prompt.injection.tensors()]
            for name, tensor in prompt.injection.tensors():
                assert np.array_equal(held[name], tensor.numpy())
    with pytest.raises(UserError, match="already exists; name a new file"):
        EXPORTS["npz"]().write(prompt, path)


def test_the_files_it_names_are_there() -> None:
    for name in re.findall(r"`((?:methods|tasks|export|backbone)/[\w/]+\.py)`", PAGE):
        if name not in ("methods/NAME.py", "tasks/NAME.py", "export/NAME.py", "export/npz.py"):
            assert (ROOT / "src" / "foreword" / name).exists(), name
    for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).exists(), name
