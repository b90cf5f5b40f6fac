"""Files of llama.cpp: the library itself, where it is installed (make test-llama)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from composed import GENERATE, prompt
from families import GQA, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.base import Verified
from foreword.export.llama_cpp import LlamaCpp, placeholders, tokens_of
from foreword.export.prefix import prefix_of
from foreword.export.verify import TEXTS, verify
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from gguf_files import write_gguf
from oracles import get

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed (make test-llama)",
)


@cache
def gemma3(**config: Any) -> Backbone:
    """Layers with a window and without, scaled as llama.cpp takes them to be."""
    family = Family("gemma3_text", "causal", GQA)
    usual = {"num_hidden_layers": 7, "query_pre_attn_scalar": 8, "sliding_window": 512}
    return backbone(family, **{**usual, **config})


def exported(tuned: Prompt, folder: Path, **settings: Any) -> tuple[LlamaCpp, Path]:
    assert tuned.on is not None
    gguf = folder / f"{tuned.on.name}.gguf"
    if not gguf.exists():
        write_gguf(gguf, tuned.on.model)
    form = LlamaCpp(gguf=str(gguf), cache_type="f32", **settings)
    return form, form.write(tuned, folder / "p.bin")


def found(tuned: Prompt, folder: Path, **settings: Any) -> Verified:
    form, written = exported(tuned, folder, **settings)
    answer = verify(form, tuned, written)
    assert isinstance(answer, Verified)
    return answer


@needs_library
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])  # keys turn in pairs, or in halves
@pytest.mark.parametrize("method", [Soft(length=3), Prefix(length=3)], ids=["soft", "prefix"])
@pytest.mark.parametrize("task", [None, GENERATE], ids=["labels", "texts"])
def test_llama_cpp_answers_alike(name: str, method: Any, task: Any, tmp_path: Path) -> None:
    base = gemma3() if name == "gemma3" else None
    answer = found(prompt(method, name=name, task=task, base=base), tmp_path, flash_attention="off")
    assert answer.equal == 1
    assert answer.difference is not None
    # ggml takes GELU from a table of 16 bits
    assert answer.difference < (1e-4 if name == "gemma3" else 1e-6)


@needs_library
def test_with_flash_attention_values_are_not_transposed(tmp_path: Path) -> None:
    answer = found(prompt(Prefix(length=3)), tmp_path)
    assert answer.equal == 1
    assert answer.difference is not None
    assert answer.difference < 1e-3  # which rounds to 16 bits on the way


@needs_library
def test_rows_beyond_a_window_do_not_see_the_prefix(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3), base=gemma3(sliding_window=4))
    form, written = exported(tuned, tmp_path, flash_attention="off")
    rows = [Row({"text": text}, "row") for text in TEXTS]
    answer = verify(form, tuned, written, rows)
    assert isinstance(answer, Verified)
    assert answer.difference is not None
    assert answer.difference > 1e-3
    (said,) = (line for line in form.notes(tuned, rows) if "sliding window (4)" in line)
    assert f"of {len(TEXTS)} rows {len(TEXTS)} are so long, and {answer.equal:.0%} of" in said
    measured = float(said.rpartition(" ")[2])  # by transformers, where the prefix is hidden too
    assert measured == pytest.approx(answer.difference, rel=0.1)


@needs_library
def test_another_model_is_refused(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3))
    assert tuned.on is not None
    other = replace(tuned, on=get("qwen2"))
    assert other.on is not None
    write_gguf(tmp_path / "llama.gguf", other.on.model)
    with pytest.raises(UserError, match="is not the model of the prompt, llama: keys and values"):
        exported(tuned, tmp_path)
    smaller = prompt(Prefix(length=3), name="llama")
    smaller = replace(smaller, on=get("llama"))
    (tmp_path / "llama.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(UserError, match="cannot open it") as caught:
        exported(smaller, tmp_path)
    assert "\n" not in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"llama.gguf"}


def test_without_the_library_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UserError, match="pip install llama-cpp-python"):
        LlamaCpp(gguf="g").write(prompt(Prefix(length=3)), tmp_path / "p.bin")
    assert not list(tmp_path.iterdir())


def test_placeholders_are_drawn_by_the_numbers() -> None:
    one, other = (prefix_of(prompt(m), "it", "") for m in (Prefix(length=3), Soft(length=3)))
    assert placeholders(one, 160) == placeholders(one, 160)
    assert placeholders(one, 160) != placeholders(other, 160)
    assert max(placeholders(one, 4)) < 4
    assert not {*placeholders(one, 160)} & {*one.backbone.ends}


def test_another_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"short")
    with pytest.raises(UserError, match="no saved sequence"):
        tokens_of(tmp_path / "p")
