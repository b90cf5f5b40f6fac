"""Files that version 0.1.0 wrote are read, and answer as they did then.

`prompts_0_1/` holds a tiny random model, prompts that were tuned on it, and their answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone.backbone import Backbone
from foreword.compose.ensemble import Ensemble, load_prompt
from foreword.data.row import Row

FOLDER = Path(__file__).parent / "prompts_0_1"
ANSWERS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "answers.json").read_text())
INPUTS = [Row({"text": text}, f"input {n}") for n, text in enumerate(ANSWERS.pop("inputs"))]
LABELS = {name: answers for name, answers in ANSWERS.items() if "probabilities" in answers[0]}


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone.load(str(FOLDER / "model"))


@pytest.mark.parametrize("name", LABELS)
def test_an_old_file_answers_as_it_did(name: str, model: Backbone) -> None:
    tuned = load_prompt(FOLDER / f"{name}.safetensors").on_backbone(model)
    assert isinstance(tuned, Ensemble) == (name == "ensemble")
    found = tuned.answers(INPUTS)
    for answer, before in zip(found, LABELS[name], strict=True):
        assert answer["label"] == before["label"]
        assert answer["probabilities"] == pytest.approx(before["probabilities"], abs=1e-4)


def test_an_old_prompt_still_writes(model: Backbone) -> None:
    prompt = load_prompt(FOLDER / "soft-generate.safetensors").on_backbone(model)
    assert all(isinstance(answer["text"], str) for answer in prompt.answers(INPUTS))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_an_old_file_is_written_again_as_it_was(path: Path, tmp_path: Path) -> None:
    again = load_prompt(path).save(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()
