"""Weights of a graph in whole numbers of 8 bits, each block of them with a scale of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 64
"""Weights of a product that share a scale."""

LEAST = 2**14
"""The fewest numbers of a table that is worth it."""


def quantize(model: Any, path: Path, beside: str) -> None:
    """Write a graph, a ``ModelProto``, with its products and tables in 8 bits.

    The large tensors stand in the file ``beside``, which a runtime maps and need not copy. Products
    are ONNX Runtime's MatMulNBits, which takes the states in 8 bits too, block by block: with one
    scale for all states of a row, as in its dynamic quantization, a language model loses most of
    what it knows.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    kept = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,
        op_types_to_quantize=("MatMul",),
        bits=8,
    )
    work = MatMulNBitsQuantizer(model, algo_config=kept)
    work.process()
    model = work.model.model
    quantize_tables(model)
    onnx.save(model, path, save_as_external_data=True, location=beside, size_threshold=LEAST)
    if (data := path.with_name(beside)).exists():  # it is made for its owner alone
        data.chmod(path.stat().st_mode)


def quantize_tables(model: Any) -> None:
    """Put tables that are looked up by row in 8 bits, with a scale for each row."""
    from onnx import helper, numpy_helper

    graph = model.graph
    tables = {each.name: each for each in graph.initializer}
    users: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    nodes = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_large(table) or users[table.name] > 1 or _axis(node):
            nodes.append(node)
            continue
        numbers = numpy_helper.to_array(table)
        scales = np.maximum(np.abs(numbers).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
        whole = np.rint(numbers / scales).astype(np.int8)
        name, asked, (out,) = table.name, node.input[1], node.output
        graph.initializer.remove(table)
        graph.initializer.append(numpy_helper.from_array(whole, f"{name}.whole"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scale"))
        nodes += [
            helper.make_node("Gather", [f"{name}.whole", asked], [f"{out}.whole"]),
            helper.make_node("Cast", [f"{out}.whole"], [f"{out}.number"], to=1),
            helper.make_node("Gather", [f"{name}.scale", asked], [f"{out}.scale"]),
            helper.make_node("Mul", [f"{out}.number", f"{out}.scale"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_large(table: Any) -> bool:
    return table.data_type == 1 and len(table.dims) == 2 and int(np.prod(table.dims)) >= LEAST


def _axis(node: Any) -> int:
    return next((each.i for each in node.attribute if each.name == "axis"), 0)
