"""GGUF files: weights as transformers reads them, and files that cannot be read."""

from __future__ import annotations

import shutil
import struct
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
