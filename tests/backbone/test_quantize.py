"""A quantized backbone is near the one it was, lets gradients through, and stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foreword.backbone.load.quantize as module
from families import CAUSAL, MASKED, SEQ2SEQ, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.load.half_weights import HalfLinear
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.training.tune import tune
from language import rows, task, taught
from quick import first, need_library
from toys import TRAINING

FAR = {"bfloat16": 0.01, "int8": 0.02, "int4": 0.4}
"""Of the logits' size. Measured on the taught models: bfloat16 up to 0.002, int8 up to 0.005, int4
up to 0.23."""
ALONG = {"bfloat16": 0.99, "int8": 0.99, "int4": 0.4}
"""Cosine of gradients. Measured: bfloat16 and int8 from 0.9997, int4 from 0.62; 48 wide is narrow
for 4 bits. A random gradient of 144 numbers has 0 with a deviation of 0.08. What the gradient must
be exactly is tested below, on the rounded weights."""


def of(base: Backbone, kind: str | None) -> Backbone:
    return Backbone(
        copy.deepcopy(base.model),
        base.text.tokenizer,
        architecture=base.architecture,
        name=base.name,
        quantized=kind,
    )


def logits(base: Backbone, name: str) -> Tensor:
    bound = task(name).bind(base)
    items = [bound.train_example(row, 40).example for row in rows(20, 1)]
    with torch.no_grad():
        return base.logits(base.states(items, NOTHING))


def gradient(base: Backbone, name: str, method: Any) -> Tensor:
    bound = task(name).bind(base)
    given = rows(20, 1)
    torch.manual_seed(0)
    trainable = method.build(bound, given, 0)
    items = [bound.train_example(row, 20) for row in given]

    def loss(group: list[int], scores: Tensor) -> Tensor:
        return bound.losses(scores, [items[i] for i in group]).sum()

    differentiate(
        base, trainable, [i.example for i in items], (), 30, 1024, loss, tokens=bound.tokens
    )
    return torch.cat([p.grad.flatten() for p in trainable.parameters() if p.grad is not None])


def state(base: Backbone) -> dict[str, bytes]:
    """Every byte that the model holds."""
    found = {}
    for name, tensor in base.model.state_dict().items():
        parts = [tensor]
        if hasattr(tensor, "__tensor_flatten__") and type(tensor) not in (Tensor, nn.Parameter):
            parts = [getattr(tensor, part) for part in tensor.__tensor_flatten__()[0]]
        for number, part in enumerate(parts):
            found[f"{name}/{number}"] = part.detach().cpu().contiguous().view(torch.uint8).numpy()
    return {name: value.tobytes() for name, value in found.items()}


@pytest.fixture(scope="module", params=["bfloat16", "int8", "int4"])
def kind(request: pytest.FixtureRequest) -> str:
    need_library(request.param)
    return str(request.param)


@pytest.mark.parametrize("name", first(1, ["llama", "bert", "t5"]))
def test_scores_are_near_and_gradients_point_the_same_way(name: str, kind: str) -> None:
    base = taught(name, 100)
    small = of(base, kind)
    whole, near = logits(base, name), logits(small, name)
    far = float((whole - near).norm() / whole.norm())
    assert 0 < far < FAR[kind]
    for method in (Soft(length=3, start="random"), Prefix(length=3, start="labels")):
        own, theirs = gradient(base, name, method), gradient(small, name, method)
        cosine = float(torch.cosine_similarity(own, theirs, dim=0))
        assert ALONG[kind] < cosine < 1
    assert small.fingerprint == base.fingerprint
    assert small.dtype == base.dtype


@pytest.mark.parametrize("method", [Soft(length=3), Prefix(length=3, start="random")])
def test_a_run_leaves_the_quantized_model_as_it_was(method: Any, kind: str) -> None:
    small = of(taught("llama", 100), kind)
    before = state(small)
    prompt = tune(small, task("llama"), method, rows(12, 2), rows(6, 3), training=TRAINING)
    prompt.predict(["red blue green"])
    assert state(small) == before
    assert prompt.backbone["quantize"] == kind
    assert prompt.backbone["fingerprint"] == taught("llama", 100).fingerprint


def rounded(base: Backbone, small: Backbone) -> Backbone:
    """The whole model with its weights rounded to what the quantized one keeps."""
    made = of(base, None)
    for name, layer in made.model.named_modules():
        other = small.model.get_submodule(name)
        if type(layer) is not nn.Linear or type(other.weight) is nn.Parameter:
            continue
        if hasattr(other.weight, "quant_state"):
            functional = pytest.importorskip("bitsandbytes").functional
            weight = functional.dequantize_4bit(other.weight.data, other.weight.quant_state)
        elif isinstance(other, HalfLinear):
            weight = layer.weight.bfloat16()
        else:
            weight = other.weight.dequantize()
        assert not torch.equal(layer.weight, weight)
        layer.weight.data = weight.to(layer.weight)
    return made


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_scores_and_gradients_are_those_of_the_rounded_weights(name: str, kind: str) -> None:
    base = taught(name, 100)
    small = of(base, kind)
    exact = rounded(base, small)
    assert torch.allclose(logits(small, name), logits(exact, name), rtol=1e-4, atol=1e-4)
    for method in (Soft(length=3, start="random"), Prefix(length=3, start="labels")):
        own, theirs = gradient(exact, name, method), gradient(small, name, method)
        assert torch.allclose(own, theirs, rtol=1e-3, atol=1e-4 * float(own.abs().max()))


def test_weights_that_were_bfloat16_lose_nothing() -> None:
    base = of(taught("llama", 100), None)
    for layer in base.model.modules():
        if type(layer) is nn.Linear:
            layer.weight.data = layer.weight.bfloat16().float()
    small = of(base, "bfloat16")
    layers = [layer for layer in small.model.modules() if isinstance(layer, HalfLinear)]
    assert layers
    for layer in layers:
        assert (layer.stored.dtype, layer.weight.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(logits(small, "llama"), logits(base, "llama"), rtol=1e-5, atol=1e-5)


def test_no_wide_weights_are_kept_for_the_gradient() -> None:
    layer = HalfLinear(nn.Linear(8, 16, dtype=torch.float64).requires_grad_(False))
    states = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    kept = list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made = layer(states)
    assert [(each.dtype, each.shape) for each in kept] == [(torch.bfloat16, (16, 8))]
    made.square().sum().backward()
    expected = 2 * (states @ layer.weight.T + layer.bias) @ layer.weight
    assert torch.allclose(states.grad, expected)  # type: ignore[arg-type]


def held(base: Backbone) -> int:
    """Bytes of the model's weights, parts of quantized ones counted."""
    return sum(len(value) for value in state(base).values())


def test_weights_take_less_memory(kind: str) -> None:
    family = next(f for f in CAUSAL if f.name == "llama")
    base = backbone(family, hidden_size=256, intermediate_size=512)
    linear = sum(m.weight.numel() for m in base.model.base_model.modules() if type(m) is nn.Linear)
    saved = held(base) - held(of(base, kind))
    bits = {"bfloat16": 16, "int8": 8.5, "int4": 4.6}[kind]
    assert saved >= linear * (32 - bits) / 8


@pytest.mark.parametrize(
    "family",
    [*CAUSAL[:1], *MASKED[:1], *SEQ2SEQ[:1], *first(0, [*CAUSAL[1:], *MASKED[1:], *SEQ2SEQ[1:]])],
    ids=lambda f: f.name,
)
def test_embeddings_and_head_stay(family: Family, kind: str) -> None:
    base = backbone(family)
    linears = [m for m in base.model.base_model.modules() if type(m) is nn.Linear]
    if not linears:
        with pytest.raises(UserError, match="has no linear layers"):
            of(base, kind)
        return
    small = of(base, kind)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        one, other = getattr(base.model, get)(), getattr(small.model, get)()
        assert type(one) is type(other)
        assert torch.equal(one.weight, other.weight)
    changed = set(state(base)) ^ set(state(small)) | {
        name for name, value in state(base).items() if state(small).get(name) != value
    }
    assert changed


def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="`quantize=int3`: unknown; did you mean 'int"):
        Backbone.load("nowhere", quantize="int3")
    for kind, library in (("int8", "torchao"), ("int4", "bitsandbytes")):
        with monkeypatch.context() as patch:
            patch.setattr(module.importlib, "import_module", missing)
            with pytest.raises(UserError, match=rf"`quantize={kind}` needs {library}: pip install"):
                Backbone.load("nowhere", quantize=kind)


def missing(name: str) -> Any:
    raise ImportError(name)
