"""Prompt caches of mlx_lm: the layout, and the library itself where it is installed."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from composed import GENERATE, prompt
from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.export.base import NotVerified, Verified
from foreword.export.mlx import Mlx, rotary_settings
from foreword.export.prefix import prefix_of
from foreword.export.verify import verify
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt


def test_every_layer_has_its_keys_values_and_offset(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3))
    kept = prefix_of(tuned, "it", "")
    with safe_open(str(Mlx().write(tuned, tmp_path / "p.safetensors")), "pt") as file:
        about, held = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    assert set(held) == {f"{layer}.{n}" for layer in range(3) for n in range(3)}
    assert torch.equal(held["1.0"][0], kept.layers[1].keys)
    assert torch.equal(held["1.1"][0], kept.layers[1].values)
    assert held["0.2"].item() == 3
    assert [about[k] for k in ("1.0", "2.1.0", "2.1.1")] == ["KVCache", "0.2", "scalar"]
    assert about["0.tokenizer_config"] == "{}"  # which mlx_lm.generate asks for


def test_a_layer_with_a_window_keeps_no_more_than_it(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3), name="mistral-window")
    with safe_open(str(Mlx().write(tuned, tmp_path / "p.safetensors")), "pt") as file:
        assert file.metadata()["1.0"] == "RotatingKVCache"
        # offset, what is kept whatever follows, the window, and where the next token goes
        assert [file.get_tensor(f"0.{n}").item() for n in (2, 3, 4, 5)] == [3, 0, 4, 3]


def test_numbers_may_be_of_half_the_size(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3))
    with safe_open(str(Mlx(mlx_dtype="bfloat16").write(tuned, tmp_path / "p")), "pt") as file:
        assert file.get_tensor("0.0").dtype == torch.bfloat16


def test_a_folder_of_transformers_5_tells_its_rotary_base_by_the_older_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"rope_parameters": {"rope_theta": 5.0}}')
    assert rotary_settings(tmp_path) == {"rope_theta": 5.0}
    (tmp_path / "config.json").write_text("{}")
    assert rotary_settings(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("method", [Prefix(length=3), Soft(length=3)], ids=["prefix", "soft"])
@pytest.mark.parametrize("task", [None, GENERATE], ids=["labels", "texts"])
def test_mlx_lm_answers_alike(method: Prefix | Soft, task: object, tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm", reason="mlx_lm is not installed (make test-mlx)")
    tuned = on_disk(prompt(method, task=task), tmp_path / "model")  # type: ignore[arg-type]
    found = verify(Mlx(), tuned, Mlx().write(tuned, tmp_path / "p.safetensors"))
    assert isinstance(found, Verified)
    assert found.equal == 1
    assert found.difference is not None
    assert found.difference < 1e-5


def test_a_library_of_another_layout_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = on_disk(prompt(Prefix(length=3)), tmp_path / "model")
    written = Mlx().write(tuned, tmp_path / "p.safetensors")
    monkeypatch.setitem(sys.modules, "mlx_lm", ModuleType("mlx_lm"))  # without a thing that it had
    monkeypatch.setattr("foreword.export.mlx.version", lambda name: "9.9")
    found = verify(Mlx(), tuned, written)
    assert isinstance(found, NotVerified)
    assert re.fullmatch(
        r"mlx_lm 9\.9 does not load it \(.+\); it is written for 0\.32", found.reason
    )


def test_what_stands_at_the_path_stays(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        Mlx().write(prompt(Prefix(length=3)), tmp_path / "p")
    assert (tmp_path / "p").read_text() == "mine"


def on_disk(tuned: Prompt, folder: Path) -> Prompt:
    """The prompt on the same model, opened from a folder."""
    assert tuned.on is not None
    tuned.on.model.save_pretrained(folder)
    tuned.on.text.tokenizer.save_pretrained(folder)
    return replace(tuned, on=Backbone.load(str(folder)))
