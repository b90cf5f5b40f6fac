"""Quantization of frozen linear layers to 16, 8 or 4 bits; activations stay as they are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from foreword.backbone.inside.views import output_embeddings
from foreword.backbone.load.half_weights import HalfLinear
from foreword.backbone.load.quiet import without_remarks
from foreword.errors import UserError, nearest
from foreword.machine import let_go, return_freed


def quantize(model: PreTrainedModel, kind: str, *, own: bool = False) -> None:
    """Quantize the weights of the linear layers below the model's head.

    Embeddings, output embeddings and all that shares their weights are left alone. Gradients pass
    through the layers to their inputs, computed with the quantized weights. With ``own`` nobody
    else has the model, and what was read of its weights' files is let go.

    Raises:
        UserError: unknown kind, its library is missing, or the model has no linear layers.
    """
    check_kind(kind)
    linears = list(_linears(model))
    if not linears:
        raise UserError(
            f"`quantize={kind}`: {type(model).__name__} has no linear layers to quantize"
        )
    weights: list[Any] = [model.get_submodule(name).weight for name in linears]
    extents = [(weight.data_ptr(), weight.nbytes) for weight in weights]
    del weights
    KINDS[kind](model, linears)
    return_freed()
    if own:
        let_go(extents)


def check_kind(kind: str) -> None:
    """Raise UserError for an unknown kind, or one whose library is missing."""
    if kind not in KINDS:
        raise UserError(f"`quantize={kind}`: unknown; {nearest(kind, KINDS)}")
    if kind in _LIBRARIES:
        _library(_LIBRARIES[kind], kind)


def _linears(model: PreTrainedModel) -> Iterator[str]:
    ends = [model.get_input_embeddings(), output_embeddings(model)]
    kept = {id(end.weight) for end in ends if end is not None}
    within = {id(module) for module in model.base_model.modules()}
    for name, module in model.named_modules():
        if type(module) is nn.Linear and id(module) in within and id(module.weight) not in kept:
            yield name


def _int8(model: PreTrainedModel, names: list[str]) -> None:
    """Weights as int8 with a scale for each output (torchao)."""
    library = _library("torchao.quantization", "int8")
    for name in names:
        around, _, own = name.rpartition(".")
        library.quantize_(
            model.get_submodule(around),
            library.Int8WeightOnlyConfig(),
            filter_fn=lambda module, found, own=own: found == own,
        )
        return_freed()  # several times the weights would gather


def _int4(model: PreTrainedModel, names: list[str]) -> None:
    """Weights as 4-bit NormalFloat in blocks of 64 (Dettmers et al. 2023, arXiv:2305.14314)."""
    library = _library("bitsandbytes", "int4")
    for name in names:
        whole = model.get_submodule(name)
        assert isinstance(whole, nn.Linear)
        dtype, device = whole.weight.dtype, whole.weight.device
        made = library.nn.Linear4bit(
            whole.in_features, whole.out_features, bias=False, compute_dtype=dtype, device="meta"
        )
        made.weight = library.nn.Params4bit(
            whole.weight.data,
            requires_grad=False,
            quant_type="nf4",
            blocksize=64,
            quant_storage=dtype,  # some models ask a layer for its weight's type, to compute in
            module=made,
        )
        made.bias = whole.bias
        made.support_avx512bf16_for_cpu = False  # it would repack the weights in a forward pass
        made.compute_type_is_set = True
        made.weight = made.weight.to(device)  # which is what quantizes it
        model.set_submodule(name, made.train(False))


def _bfloat16(model: PreTrainedModel, names: list[str]) -> None:
    """Weights in bfloat16, multiplied in the model's own type."""
    for name in names:
        whole = model.get_submodule(name)
        assert isinstance(whole, nn.Linear)
        model.set_submodule(name, HalfLinear(whole).train(False))


KINDS: Mapping[str, Callable[[PreTrainedModel, list[str]], None]] = {
    "bfloat16": _bfloat16,
    "int8": _int8,
    "int4": _int4,
}
_LIBRARIES = {"int8": "torchao.quantization", "int4": "bitsandbytes"}


def _library(name: str, kind: str) -> Any:
    try:
        with without_remarks():
            return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"`quantize={kind}` needs {name.partition('.')[0]}: pip install 'foreword[quantize]'"
        ) from None
