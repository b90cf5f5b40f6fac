"""Whether the engine writes on a device what the model writes there alone, token for token."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from serve_work import draw, opened, report

from foreword.backbone.decode import Decoding, continuations
from foreword.serve.engine import Engine
from foreword.serve.request import Sampling


def agree(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "random-tiny",
    prompts: Annotated[int, Parameter(help="half soft, half prefixes")] = 8,
    requests: Annotated[int, Parameter(help="in flight together")] = 32,
    new: Annotated[int, Parameter(help="tokens that each writes")] = 16,
    dtype: Annotated[str, Parameter(help="of the weights")] = "float32",
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Compare a mixed batch of the engine's with rows that are decoded one by one."""
    backbone = opened(model, dtype=dtype, device=device)
    work = draw(backbone, prompts, requests, new, seed)
    with Engine(backbone, slots=requests, chunk=64) as engine:
        tickets = [
            engine.generate(row, work.prompts[own], Sampling(max_new_tokens=new))
            for row, own in zip(work.rows, work.owners, strict=True)
        ]
        found = [list(ticket.result().tokens) for ticket in tickets]
    how = Decoding(max_new_tokens=new)
    right = [
        list(continuations(backbone, [row], work.prompts[own], how)[0])
        for row, own in zip(work.rows, work.owners, strict=True)
    ]
    same = sum(one == other for one, other in zip(found, right, strict=True))
    report({"rows": requests, "the_same": same}, as_json)
    if same < requests:
        sys.exit(1)
