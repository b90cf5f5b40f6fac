"""Foreword's training step beside peft's: equal to the last digits, timed in turn.

    python bench/train.py --sst2 train.jsonl --e2e e2e.jsonl.gz

For each case both sides have the same weights, rows, batch, prompt and optimizer. Losses and
gradients must agree on every batch; then a step of each is timed on one batch after the other,
with the floor beside them: the matrix products of the real tokens alone. Peak memory is that of a
process of each side's own. Collating PEFT's batches is not timed; laying out Foreword's is.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import App, CycloptsError, Parameter
from train_agreement import Disagreement
from train_cases import CASES, REVIEWS, Case
from train_measure import measure
from train_memory import worker
from train_models import default_model
from train_report import machine, notes, table
from train_setting import Setting

from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.files import write_whole
from foreword.training.settings import Switch

app = App(name="bench", help="Foreword's training step beside peft's.", version_flags=[])


@app.default
def run(
    *,
    sst2: Annotated[Path, Parameter(help="rows with text and label")] = REVIEWS,
    e2e: Annotated[Path | None, Parameter(help="rows with prompt and completion")] = None,
    cases: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", help=", ".join(CASES))
    ] = None,
    pairs: Annotated[int, Parameter(help="timed steps of each side")] = 5,
    model: Annotated[str | None, Parameter(help="a name, a folder or a file; random-1b")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="auto: cuda first")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], Parameter(help="timed in")] = "auto",
    threads: Annotated[int | None, Parameter(help="of the CPU; else torch's choice")] = None,
    compiled: Annotated[
        Switch, Parameter(name="--compile", help="Foreword's layers; auto: as in a long run")
    ] = "auto",
    seed: Annotated[int, Parameter(help="decides rows and batches")] = 0,
    memory: Annotated[bool, Parameter(help="measure peak memory too")] = True,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
    out: Annotated[Path | None, Parameter(help="write the JSON to this file too")] = None,
    side: Annotated[str | None, Parameter(name="--worker", show=False)] = None,
    given: Annotated[Path | None, Parameter(show=False)] = None,
) -> None:
    """Compare training steps case by case."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    setting = Setting(
        model=default_model(device) if model is None else model,
        device=device,
        dtype=dtype,
        files={"sst2": sst2} if e2e is None else {"sst2": sst2, "e2e": e2e},
        seed=seed,
        threads=torch.get_num_threads() if threads is None else threads,
        pairs=pairs,
        compiled=compiled,
    )
    setting.check()
    torch.set_num_threads(setting.threads)
    chosen = _chosen(cases, device)
    if side is not None and given is not None:
        console.emit(worker(side, chosen[0], setting, given))
        return
    left_out = {c.name: f"--{c.data} FILE" for c in chosen if c.data not in setting.files}
    for name, flag in left_out.items():
        console.say(f"{name}: left out; give its rows with {flag}")
    result: dict[str, Any] = {"ratios": {}, "cases": {}, "left_out": left_out}
    result["model"] = {"name": setting.model, "dtype": dtype, "device": device, "seed": seed}
    result["machine"] = machine(setting)
    for case in chosen:
        if case.name not in left_out:
            found = measure(case, setting, memory, console.say)
            result["cases"][case.name] = found
            result["ratios"][case.name] = found["ratio"]["median"]
    if as_json:
        console.emit(result)
    else:
        console.line(f"{setting.model}, {dtype} on {device}, {setting.threads} threads")
        console.out().print(table(result["cases"]))
        for line in notes(result["cases"]):
            console.line(line)
    if out is not None:
        write_whole(out, json.dumps(result, indent=2).encode() + b"\n")


def _chosen(names: Sequence[str] | None, device: str) -> list[Case]:
    """Return the cases asked for; without names all that are meant for the device."""
    if names is None:
        return [case for case in CASES.values() if device != "cpu" or not case.long]
    asked = [name for given in names for name in given.split(",")]
    for name in asked:
        if name not in CASES:
            raise UserError(f"--cases {name}: unknown; {nearest(name, CASES)}")
    return [CASES[name] for name in dict.fromkeys(asked)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, 1 where the sides disagree, 2 for a user's mistake."""
    # PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing.", FutureWarning)
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        command(*bound.args, **bound.kwargs)
    except (UserError, CycloptsError) as error:
        console.say(f"bench: {' '.join(str(error).split())}")
        return 2
    except Disagreement as error:
        console.say(f"bench: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
