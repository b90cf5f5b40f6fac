"""What several commands share: flags of a model, and a prompt on the model that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from foreword.backbone.backbone import Backbone
from foreword.data.read import Row, read_rows
from foreword.data.sample import first
from foreword.prompt import Tuned

Json = Annotated[bool, Parameter(name="--json", negative="", help="one JSON object on stdout")]
Model = Annotated[str | None, Parameter(help="instead of the model that the prompt names")]
Dtype = Annotated[str, Parameter(help="auto, float32, bfloat16 or float16")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda or mps")]
Quantize = Annotated[str | None, Parameter(help="int8 or int4: smaller weights in the model")]
Columns = Annotated[
    list[str] | None,
    Parameter(name="--columns", consume_multiple=True, help="name=column, as in train"),
]


def backbone_of(
    tuned: Tuned, model: str | None, dtype: str, device: str, quantize: str | None
) -> Backbone:
    """Load the model that a prompt names, or another one that is given."""
    return Backbone.load(
        tuned.backbone["name"] if model is None else model,
        architecture=tuned.backbone["architecture"],
        dtype=dtype,
        device=device,
        quantize=quantize,
    )


def some_rows(source: str, named: Mapping[str, str], n: int | None, seed: int) -> list[Row]:
    """Read all rows, or the first ``n`` after shuffling with the seed."""
    rows = read_rows(source, columns=named)
    return rows if n is None else first(rows, n, seed)
