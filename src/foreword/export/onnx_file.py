"""Graphs become files: traced by torch, and quantized where that is asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreword.errors import UserError
from foreword.export.onnx_int8 import quantize
from foreword.export.onnx_recipe import cannot

GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
LARGEST = 1_500_000_000
"""The most bytes of weights that one file holds, which has room for 2 GiB; more stand beside it."""


def need(*modules: str) -> None:
    """Raise UserError where one of the libraries is not installed."""
    for name in modules:
        try:
            import_module(name)
        except ImportError:
            raise UserError(f"an ONNX graph needs {name}: pip install 'foreword[onnx]'") from None


def write_graph(
    graph: nn.Module,
    given: Sequence[tuple[str, Tensor, Sequence[int]]],
    past: Sequence[tuple[str, Tensor]],
    outputs: Sequence[str],
    path: Path,
    *,
    int8: bool,
) -> None:
    """Trace a graph and write it, with weights in whole numbers where ``int8`` says so.

    ``given`` are the inputs: name, a sample, and which of its sizes may differ; ``past`` are keys
    and values, whose rows and tokens may. Raises UserError for what cannot be traced.
    """
    free = torch.export.Dim.DYNAMIC
    inputs: list[Any] = [tensor for _, tensor, _ in given]
    shapes: list[Any] = [dict.fromkeys(sizes, free) for _, _, sizes in given]
    if past:
        inputs.append([tensor for _, tensor in past])
        shapes.append([{0: free, 2: free} for _ in past])
    names = [name for name, *_ in given] + [name for name, _ in past]
    try:
        with torch.no_grad(), quietly():
            graph.eval()(*inputs)  # so that what is kept for later is kept of real tensors
            traced = torch.onnx.export(
                graph,
                tuple(inputs),
                dynamo=True,
                input_names=names,
                output_names=list(outputs),
                dynamic_shapes=tuple(shapes),
                optimize=False,  # which tries every rule of rewriting on every node, for minutes
                verbose=False,
            )
            assert traced is not None
            tidy(traced.model)
    except Exception as error:
        said = " ".join(str(error).split())
        raise cannot(f"torch.onnx does not trace its model ({said[-300:]})") from error
    large = sum(weight.nbytes for weight in graph.parameters()) > LARGEST
    if not int8:
        traced.save(path, external_data=large)
        return
    with quietly():
        quantize(traced.model_proto, path, WEIGHTS)


def tidy(model: Any) -> None:
    """Fold what is constant in a graph, and leave out what is not used; in place."""
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants, inline, remove_unused_nodes

    inline(model)
    fold_constants(model, onnx_shape_inference=True)
    remove_unused_nodes(model)
    Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out what the libraries say of themselves."""
    before, root = logging.root.manager.disable, logging.root
    handlers, level = list(root.handlers), root.level  # one of them sets these for the process
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.handlers[:] = handlers
        root.setLevel(level)
