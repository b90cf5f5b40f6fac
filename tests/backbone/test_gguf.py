"""GGUF files: weights as transformers reads them, and files that cannot be read."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_files import tiny_folder, tiny_gguf
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from families import CAUSAL, family_model
from foreword.backbone.load import gguf as unpacking
from foreword.backbone.load import gguf_weights, memory
from foreword.backbone.load.gguf_header import StoredTensor
from foreword.backbone.load.sources import folder_of, open_source
from foreword.errors import UserError
from gguf_files import write_gguf

Q = gguf.GGMLQuantizationType
FAMILIES = {each.name: each for each in CAUSAL}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(path))
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def by_transformers(path: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    return model


@pytest.mark.parametrize(
    ("name", "stored", "changes"),
    [
        ("llama", Q.Q8_0, {}),
        ("llama", Q.BF16, {"tie_word_embeddings": True}),
        ("qwen2", Q.Q4_0, {"tie_word_embeddings": True}),  # with biases
        ("gemma3_text", Q.Q5_0, {}),  # whose norms are stored as one more
        (
            "qwen3_moe",
            Q.F16,
            {"moe_intermediate_size": 768},
        ),  # whose experts lie elsewhere
    ],
)
def test_weights_are_those_that_transformers_reads(
    tmp_path: Path, name: str, stored: Q, changes: dict[str, Any]
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES[name], **changes), stored)
    found = by_transformers(path)
    folder = folder_of(str(path))
    with safe_open(folder / "model.safetensors", "pt") as file:
        written = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    expected = dict(found.named_parameters())
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], each) for key, each in expected.items())
    model = open_source(str(path), device="cpu").model
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.values(), strict=True)
    )
    assert {each.data_ptr() % 64 for each in model.parameters()} == {0}


@pytest.mark.parametrize(
    "kind", [Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.Q3_K, Q.Q2_K, Q.Q5_1, Q.IQ4_XS, Q.F16, Q.F32]
)
def test_a_tensor_unpacked_in_parts_equals_the_whole(
    kind: Q, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, size = gguf.GGML_QUANT_SIZES[kind]
    rows, blocks = 5, 768 // values
    content = np.random.default_rng(0).integers(0, 100, rows * blocks * size, np.uint8)
    whole = gguf.dequantize(content.reshape(rows, -1), kind)
    monkeypatch.setattr(gguf_weights, "_AT_ONCE", 2 * values)
    tensor = StoredTensor("t", (rows, 768), kind, 0, len(content))
    np.testing.assert_array_equal(gguf_weights.unpack(content.tobytes(), tensor), whole)


# Rotary settings -----------------------------------------------------------------------------

ORIGINAL = 16
KINDS: dict[str, dict[str, Any]] = {
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "proportional": {"partial_rotary_factor": 0.5},
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "beta_fast": 24.0},
    "longrope": {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.0, 2.0, 4.0, 8.0]},
}


def scaled(name: str, kind: str) -> PreTrainedModel:
    """A model whose frequencies are scaled: of a Gemma only those of layers without a window."""
    own = {"rope_type": kind, "rope_theta": 10000.0, **KINDS[kind]}
    if kind in ("llama3", "yarn", "longrope"):
        own["original_max_position_embeddings"] = ORIGINAL
    if kind == "longrope":
        own["factor"] = 128 / ORIGINAL
    if name == "gemma3_text":
        own = {
            "full_attention": own,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    changes = {
        "phi3": {"original_max_position_embeddings": ORIGINAL, "vocab_size": 32064},
        "gemma3_text": {"num_hidden_layers": 6},  # of which the last has no window
    }.get(name, {})
    return family_model(FAMILIES[name], rope_parameters=own, max_position_embeddings=128, **changes)


def add_scaling(kind: str, model: PreTrainedModel, writer: gguf.GGUFWriter) -> None:
    """Say it as llama.cpp's converter does."""
    if kind in ("llama3", "proportional"):
        plain = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
        rotary: Any = model.base_model.rotary_emb
        divisors = (plain / rotary.inv_freq).clamp(max=1e30).numpy()
        writer.add_tensor("rope_freqs.weight", divisors)
        return
    writer.add_rope_scaling_orig_ctx_len(ORIGINAL)
    own = KINDS[kind]
    if kind == "longrope":
        rotary = model.base_model.rotary_emb
        writer.add_rope_scaling_attn_factors(rotary.attention_scaling)
        for each in ("long", "short"):
            divisors = np.array(own[f"{each}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{each}.weight", divisors)
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    writer.add_rope_scaling_factor(own["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_yarn_beta_fast(own["beta_fast"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("llama", "llama3"),
        ("llama", "proportional"),
        ("llama", "linear"),
        ("gemma3_text", "linear"),
        ("qwen2", "yarn"),
        ("phi3", "longrope"),
    ],
)
def test_scaled_rotary_embeddings_are_those_of_the_model(
    tmp_path: Path, name: str, kind: str
) -> None:
    model = scaled(name, kind)
    path = write_gguf(
        tmp_path / "tiny.gguf", model, more=lambda writer: add_scaling(kind, model, writer)
    )
    found = open_source(str(path), device="cpu").model
    ids = torch.arange(3, 3 + ORIGINAL if kind == "longrope" else 103)[None]
    with torch.no_grad():
        expected, logits = model(ids).logits, found(ids).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("add", "told"),
    [
        (lambda writer: writer.add_rope_scaling_alpha(1000.0), "alpha = 1000.0"),
        (lambda writer: writer.add_string("llama.rope.scaling.type", "su"), "type = su"),
        (
            lambda writer: writer.add_tensor("rope_factors_long.weight", np.ones(4, np.float32)),
            "rope_factors_long.weight = 4 numbers",
        ),
    ],
)
def test_rotary_settings_that_are_not_read_are_refused(
    tmp_path: Path, add: Callable[[gguf.GGUFWriter], object], told: str
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]), more=add)
    line = refusal(path)
    assert "its rotary settings are not among those that are read" in line
    assert told in line


def test_a_part_of_a_head_turns_where_the_file_says_so(tmp_path: Path) -> None:
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    model = family_model(FAMILIES["phi3"], rope_parameters=rotary, vocab_size=32064)
    path = write_gguf(
        tmp_path / "tiny.gguf", model, more=lambda writer: writer.add_rope_dimension_count(4)
    )
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        found = open_source(str(path), device="cpu").model(ids).logits
        torch.testing.assert_close(found, model(ids).logits, rtol=0, atol=1e-5)


def test_scaling_that_changes_nothing_is_none(tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(1.0)
        writer.add_rope_scaling_orig_ctx_len(ORIGINAL)

    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]), more=add)
    found = open_source(str(path), device="cpu").model
    assert found.config.rope_parameters["rope_type"] == "default"


def test_divisors_of_another_number_of_frequencies_are_refused(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "tiny.gguf",
        family_model(FAMILIES["llama"]),
        more=lambda writer: writer.add_tensor("rope_freqs.weight", np.full(3, 2, np.float32)),
    )
    assert "it divides 3 frequencies, and the model has 4" in refusal(path)


def test_a_tensor_that_is_not_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_gguf(
        tmp_path / "tiny.gguf",
        family_model(FAMILIES["llama"]),
        more=lambda writer: writer.add_tensor("blk.9.some.weight", np.ones(4, np.float32)),
    )
    open_source(str(path), device="cpu")
    told = f"note: '{path}' leaves blk.9.some.weight of its tensors unused\n"
    assert told in capsys.readouterr().err


# The cache -----------------------------------------------------------------------------------


def test_a_file_whose_header_was_changed_in_place_is_unpacked_anew(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "tiny.gguf",
        family_model(FAMILIES["llama"], vocab_size=8000, tie_word_embeddings=True),
    )
    assert open_source(str(path)).tokenizer.eos_token_id == 1
    content = path.read_bytes()
    value = content.index(b"tokenizer.ggml.eos_token_id") + len(b"tokenizer.ggml.eos_token_id") + 4
    path.write_bytes(content[:value] + b"\x4d" + content[value + 1 :])
    assert open_source(str(path)).tokenizer.eos_token_id == 77


def test_what_another_version_unpacked_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]))
    before = folder_of(str(path))
    assert folder_of(str(path)) == before
    monkeypatch.setattr(unpacking, "_VERSION", 0)
    assert folder_of(str(path)) != before


# Files that cannot be read -------------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused_in_a_line(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [6, 30, 300, 5000, len(whole) // 2, len(whole) - 100]:
        path.write_bytes(whole[:length])
        assert f"the file is cut short ({length:,} bytes are there, " in refusal(path)
    assert not (tmp_path / "cache").exists()


def test_an_architecture_that_transformers_cannot_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "rwkv7")
    with_tokens(writer)
    writer.add_tensor("a", np.zeros((2, 32), np.float32))
    close(writer)
    line = refusal(path)
    assert "transformers reads no GGUF file of a rwkv7 model (it reads " in line
    assert "qwen2" in line


def test_an_encoder_in_a_gguf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "t5")
    with_tokens(writer)
    writer.add_block_count(2)
    writer.add_tensor("a", np.zeros((2, 32), np.float32))
    close(writer)
    assert "only causal models are read, and t5 is none" in refusal(path)


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_of_a_file_is_refused_before_anything_is_unpacked(
    tmp_path: Path, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"tiny-0000{part + 1}-of-00002.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 2)
    writer.add_uint16("split.no", part)
    close(writer)
    if part:  # which has nothing of the model but tensors
        path.write_bytes(path.read_bytes().replace(b"general.arch", b"another.arch"))
    assert f"it is part {part + 1} of 2; join them with `llama-gguf-split --merge" in refusal(path)
    assert capsys.readouterr().err == ""


def test_a_file_without_a_models_tensor_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_some.weight"))
    assert "it lacks the tensor of model.layers.1.mlp.down_proj.weight" in refusal(path)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokans"))
    assert "it holds no tokenizer" in refusal(path)
    path.write_bytes(content.replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.marges"))
    assert refusal(path).endswith("it has no 'scores'")


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    assert "it is of GGUF version 1" in refusal(path)


def test_a_full_disk_is_told_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="no space left on the disk"):
        folder_of(str(path))


def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_size", lambda: 30_000)
    tiny_folder(tmp_path / "folder")
    path = write_gguf(tmp_path / "tiny.gguf", family_model(FAMILIES["llama"]))
    for each in (tmp_path / "folder", path):
        line = refusal(each)
        assert "its weights take 0.0 GB in float32, and this machine has 0.0 GB of memory" in line
    monkeypatch.setattr(memory, "memory_size", lambda: 100_000)
    assert "`dtype=bfloat16` takes half of it" in refusal(tmp_path / "folder")
    assert open_source(str(tmp_path / "folder"), device="cpu", dtype="bfloat16")


def with_tokens(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])


def close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
