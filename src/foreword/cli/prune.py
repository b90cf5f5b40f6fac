"""The command that drops what a prompt can spare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter
from rich.table import Table

from foreword.cli.common import (
    USUALLY,
    Force,
    Json,
    Loaded,
    Model,
    PromptFile,
    on_backbone,
)
from foreword.cli.completion import File
from foreword.cli.panels import OUTPUT
from foreword.cli.reading import USUAL, Read
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.data.folder import DEV
from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.files import check_place_of_tensors
from foreword.grammar import counted

if TYPE_CHECKING:
    from foreword.explanation.prune import Pruned

FEW = 100
"""Judging rows below which what goes may go by chance."""

Drop = Literal["tokens", "layers", "both", "nothing"]
DROPS: tuple[str, ...] = get_args(Drop)
Kept = Literal["float32", "float16", "int8"]


def prune(
    prompt: PromptFile,
    *,
    data: Annotated[File, Parameter(help="dev rows with their answers")],
    out: Annotated[Path, Parameter(help="the prompt file to write", group=OUTPUT)],
    tolerance: Annotated[float, Parameter(help="what the dev score may lose, in its unit")] = 1.0,
    drop: Annotated[Drop | str, Parameter(help="tokens, layers, both or nothing")] = "both",
    store: Annotated[
        Kept | str, Parameter(help="float32, or smaller: float16, int8", group=OUTPUT)
    ] = "float32",
    rows: Annotated[Whole, Parameter(help="the most rows, after shuffling with the seed")] = 256,
    reading: Read = USUAL,
    seed: Annotated[Seed, Parameter(help="decides the rows")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Drop virtual tokens and layers of a prompt while its dev score stays within a tolerance."""
    from foreword.explanation.explain import check_classes
    from foreword.explanation.prune import DROPPABLE
    from foreword.explanation.prune import prune as do
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import text_fields_of

    if drop not in DROPS:
        raise UserError(f"--drop {drop}: no such pieces; {nearest(drop, DROPS)}")
    check_place_of_tensors(out, prompt)
    loaded = Prompt.load(prompt)
    chosen = reading.rows(data, DEV, fields=text_fields_of(loaded.task))
    tuned = on_backbone(loaded, prompt, model, loading, force=force)
    chosen = reading.usable(chosen, tuned.bound)
    tuned.bound.check(chosen, answers=True)
    check_classes(tuned.bound, data, chosen)
    pieces: Any = {"both": DROPPABLE, "nothing": ()}.get(drop, (drop,))
    numbers: Any = store
    found = do(
        tuned,
        chosen,
        tolerance=tolerance,
        drop=pieces,
        store=numbers,
        rows=rows,
        seed=seed,
        report=CommandTerminal(),
    )
    size = prompt.stat().st_size
    found.prompt.save(out, store=found.store)
    files = {"file_bytes": {"before": size, "after": out.stat().st_size}}
    if as_json:
        console.emit({"out": str(out), **found.to_dict(), **files})
        return
    console.line(f"{out}: {_dropped(found)}; {counted(found.rows, 'row')}")
    console.out().print(_table(found, size, out.stat().st_size))
    if found.rows < FEW and (found.tokens or found.layers):
        console.say(
            f"only {counted(found.rows, 'row')} judged what can go: score {out} on "
            "others before you use it"
        )
    for part, why in found.left_out.items():
        console.say(f"{part} stay: {why}")


def _dropped(found: Pruned) -> str:
    parts = {"tokens": len(found.tokens), "layers": len(found.layers)}
    said = [f"{n} {name[:-1] if n == 1 else name}" for name, n in parts.items() if n]
    return f"without {' and '.join(said)}" if said else "nothing dropped"


def _table(found: Pruned, before: int, after: int) -> Table:
    table = Table("", "before", "after", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    old, new = found.before, found.after
    table.add_row(found.metric, f"{old.score:.2f}", f"{new.score:.2f}")
    table.add_row("loss", f"{old.loss:.3f}", f"{new.loss:.3f}")
    table.add_row("positions", str(old.tokens), str(new.tokens))
    table.add_row("layers with keys and values", str(old.layers), str(new.layers))
    table.add_row("file", f"{before / 1024:.0f} KiB", f"{after / 1024:.0f} KiB")
    table.add_row("a request", f"{old.milliseconds:.0f} ms", f"{new.milliseconds:.0f} ms")
    return table
