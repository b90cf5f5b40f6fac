"""Prompt files in fewer bytes: what is read is what was measured, and near what was tuned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from handmade import backbone, prompt
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from foreword.errors import UserError
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.prompt.storage import pack
from foreword.prompt.tensors import as_stored


def drawn(length: int = 200) -> Prompt:
    torch.manual_seed(0)
    kv = {
        site: KV(torch.randn(1, length, 16), 9 * torch.randn(1, length, 16))
        for site in backbone().sites
    }
    return prompt(Injection(kv=kv, positions=length))


def test_each_way_is_read_as_float32_and_near(tmp_path: Path) -> None:
    whole = drawn()
    size = whole.save(tmp_path / "float32").stat().st_size
    for store, share, error in (("float16", 0.6, 1e-3), ("int8", 0.45, 1 / 127)):
        path = whole.save(tmp_path / store, store=store)
        assert path.stat().st_size < share * size
        read = dict(Prompt.load(path).injection.tensors())
        stored = dict(as_stored(whole.injection, store).tensors())
        for name, tensor in whole.injection.tensors():
            assert read[name].dtype == torch.float32
            assert torch.equal(read[name], stored[name])
            most = tensor.abs().amax(-1, keepdim=True).clamp(min=1e-6)
            assert ((read[name] - tensor).abs() <= error * most).all()


def test_whole_numbers_against_plain_arithmetic() -> None:
    rows = torch.tensor([[0.5, -1.27, 0.0], [0.0, 0.0, 0.0]])
    packed = pack({"embeds": rows, "head.bias": torch.ones(3)}, "int8")
    assert packed["embeds"].tolist() == [[50, -127, 0], [0, 0, 0]]
    torch.testing.assert_close(packed["embeds:scale"], torch.tensor([[0.01], [0.0]]))
    assert packed["head.bias"].dtype == torch.float32


def test_numbers_that_float16_cannot_hold_are_refused() -> None:
    with pytest.raises(UserError, match="'embeds' holds numbers beyond 65,504"):
        pack({"embeds": torch.full((1, 2), 1e5)}, "float16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if not k.endswith(":scale")}, "holds int8, not"),
        (lambda t: {k: v[..., :0] if k.endswith(":scale") else v for k, v in t.items()}, "shape"),
        (lambda t: {k: v.double() if k.endswith(":scale") else v for k, v in t.items()}, "scale"),
        (lambda t: {k: v / 0 if k.endswith(":scale") else v for k, v in t.items()}, "NaN or Inf"),
        (lambda t: {**t, "other:scale": torch.ones(1)}, "unknown tensor 'other:scale'"),
    ],
)
def test_damaged_scales_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = drawn(2).save(tmp_path / "p", store="int8")
    with safe_open(str(path), "pt") as file:
        about = file.metadata()
    assert callable(change)
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, tmp_path / "q", metadata=about)
    with pytest.raises(UserError, match=message):
        Prompt.load(tmp_path / "q")
