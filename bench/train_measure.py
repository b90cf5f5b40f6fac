"""One case: both sides made to agree, then timed in turn with the floor beside them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from train_agreement import Difference, compare, difference
from train_cases import Case, rows_for
from train_floor import Floor, products
from train_foreword import ForewordSide, begin
from train_memory import SIDES, ask, keep
from train_peft import PeftSide, collated
from train_setting import Setting, wait

Announce = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Table:
    """What is timed side by side: two sides with equal weights and prompts, and floors."""

    ours: ForewordSide
    theirs: PeftSide
    floors: Sequence[Floor]  # one a batch


def lay(case: Case, setting: Setting, dtype: str) -> Table:
    """Load the model twice and set both sides before the same batches."""
    backbone = setting.backbone(dtype)
    rows = rows_for(case, setting.files, setting.batches, setting.seed, backbone.text)
    layers = products(backbone)
    ours = ForewordSide(begin(backbone, case, rows, setting.seed, setting.compiled))
    numbers = range(len(rows) // case.batch)
    batches = [collated(ours, number) for number in numbers]
    theirs = PeftSide(setting.open(dtype).model, case, ours.prompt(), batches)
    examples = [[item.example for item in ours.batch(number)] for number in numbers]
    return Table(ours, theirs, [Floor(backbone, layers, each) for each in examples])


def agreed(case: Case, table: Table) -> list[Difference]:
    """Compare the sides on every batch; raises Disagreement at the first where they differ."""
    return [
        compare(f"{case.name}, batch {n + 1}", table.ours.read(n), table.theirs.read(n))
        for n in range(len(table.floors))
    ]


def measure(case: Case, setting: Setting, memory: bool, announce: Announce) -> dict[str, Any]:
    """Return the case's times, ratios, speeds, memory and agreement, as plain values.

    Agreement is asserted in float32; a model that is timed in other numbers is loaded for that
    first, and its own differences are reported.
    """
    announce(f"{case.name}: loading, and comparing losses and gradients")
    table = lay(case, setting, "float32")
    found = agreed(case, table)
    apart = found
    if setting.dtype != "float32":
        del table
        gc.collect()
        table = lay(case, setting, setting.dtype)
        apart = [
            difference(table.ours.read(n), table.theirs.read(n)) for n in range(len(table.floors))
        ]
    worst = _worst(found)
    announce(
        f"{case.name}: agreed on {len(found)} batches (loss {worst.loss:.1e}, "
        f"gradient {worst.gradient:.1e}); timing {setting.pairs} pairs"
    )
    times = _times(table, setting.pairs, setting.device)
    tokens = [table.floors[n % len(table.floors)].tokens for n in range(setting.pairs)]
    result: dict[str, Any] = {
        "ratio": _spread([t["peft"] / t["foreword"] for t in times]),
        "pairs": times,
        **{side: _side([t[side] for t in times], tokens, case.batch) for side in SIDES},
        "floor": {
            "seconds": median(t["floor"] for t in times),
            "share": median(t["floor"] / t["foreword"] for t in times),
        },
        "agreement": {
            "asserted": True,
            **asdict(worst),
            "dtype": "float32",
            "as timed": asdict(_worst(apart)),
        },
        "batch": case.batch,
        "batches": [
            {
                "tokens": floor.tokens,
                "targets": floor.targets,
                "padded": list(batch["input_ids"].shape),
            }
            for floor, batch in zip(table.floors, table.theirs.batches, strict=True)
        ],
        "virtual tokens": case.length,
        "compiled": table.ours.loop.compiles(),
        "file": str(setting.files[case.data]),
    }
    if memory:
        announce(f"{case.name}: peak memory, one process a side")
        with TemporaryDirectory() as folder:
            given = Path(folder) / "given.safetensors"
            keep(given, table.ours.prompt(), [dict(batch) for batch in table.theirs.batches])
            del table
            gc.collect()
            for side in SIDES:
                held = ask(side, case, setting, given)
                result[side]["memory"] = {**held, "above": held["peak"] - held["loaded"]}
    return result


def _times(table: Table, pairs: int, device: str) -> list[dict[str, float]]:
    """Time the sides and the floor in turn, all three on the same batch."""
    acts: dict[str, Callable[[int], None]] = {
        "foreword": table.ours.step,
        "peft": table.theirs.step,
        "floor": lambda number: table.floors[number].run(),
    }
    for act in acts.values():  # comparing has warmed up all shapes; this is the second time
        act(0)
    found = []
    for pair in range(pairs):
        times = {}
        for name, act in acts.items():
            wait(device)
            began = time.perf_counter()
            act(pair % len(table.floors))
            wait(device)
            times[name] = time.perf_counter() - began
        found.append(times)
    return found


def _side(times: Sequence[float], tokens: Sequence[int], batch: int) -> dict[str, Any]:
    return {
        "seconds": median(times),
        "rows/s": batch / median(times),
        "tokens/s": median(n / t for n, t in zip(tokens, times, strict=True)),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _worst(found: Sequence[Difference]) -> Difference:
    return Difference(max(d.loss for d in found), max(d.gradient for d in found))
