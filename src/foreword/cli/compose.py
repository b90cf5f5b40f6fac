"""The command that makes one prompt of several, or lets them answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Json, Loaded, Model, backbone_of
from foreword.cli.completion import File
from foreword.cli.reading import USUAL, Read
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.data.folder import DEV, TEST
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.display import comparison, console
from foreword.errors import UserError
from foreword.files import check_place_of_tensors
from foreword.grammar import counted
from foreword.prompt.file import read_file
from foreword.prompt.texts import in_one_line
from foreword.reporter import Reporter

if TYPE_CHECKING:
    from foreword.compose.ensemble import Ensemble
    from foreword.compose.fit import FittedWeights
    from foreword.prompt.prompt import Prompt

How = Literal["concat", "average", "ensemble"]


def compose(
    prompts: Annotated[list[Path], Parameter(help="two or more prompt files of one model")],
    /,
    *,
    how: Annotated[How, Parameter(help="one after the other, their mean, or answering together")],
    out: Annotated[Path, Parameter(help="the file to write")],
    weights: Annotated[
        list[float] | None,
        Parameter(
            consume_multiple=True, help="one a prompt, adding up to 1; else fitted, or equal"
        ),
    ] = None,
    dev: Annotated[File | None, Parameter(help="rows to fit an ensemble's weights by")] = None,
    dev_rows: Annotated[
        Whole | None, Parameter(help="use the first N dev rows after shuffling with the seed")
    ] = None,
    test: Annotated[File | None, Parameter(help="rows to score all of them on")] = None,
    reading: Read = USUAL,
    seed: Annotated[Seed, Parameter(help="decides the dev rows and the intervals")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    as_json: Json = False,
) -> None:
    """Make one prompt of several on the same model: concat, average or ensemble.

    An ensemble keeps its members in one file, and fuses their answers by weights.
    """
    from foreword.compose.ensemble import Ensemble, weighted
    from foreword.evaluation.evaluate import evaluate
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import text_fields_of

    if check_place_of_tensors(out).resolve() in [path.resolve() for path in prompts]:
        raise UserError(f"--out {out}: is one of the prompts; name another file")
    parts = [Prompt.load(path) for path in prompts]
    made, used = _compose(parts, how, weights)
    fields = text_fields_of(parts[0].task)
    held = tested = None
    if dev is not None:
        held = reading.rows(dev, DEV, fields=fields, n=dev_rows, seed=seed)
    if test is not None:
        tested = reading.rows(test, TEST, fields=fields)
    if held is None and weights is None and how == "ensemble":
        console.say("no --weights, and no --dev to fit them by: all weights are equal")
    if held is not None or tested is not None:
        backbone = backbone_of(made, model, loading)
        parts = [
            p.on_backbone(backbone, where=str(path)) for p, path in zip(parts, prompts, strict=True)
        ]
        made, used = _compose(parts, how, weights)
        held = held and reading.usable(held, parts[0].bound)
    if tested is not None:
        tested = as_rows(reading.usable(tested, made.bound))
        made.bound.check(tested, answers=True)
    entries: list[dict[str, Any]] = [{"file": str(path)} for path in prompts]
    report = CommandTerminal()
    if held is not None:
        judged = _score_on_dev(parts, made, weights, held, report)
        if isinstance(made, Ensemble):
            used = judged.weights
            made = weighted(parts, used)
        made = replace(made, scores={"dev": judged.dev})
        for entry, score in zip(entries, judged.alone, strict=False):
            entry["dev"] = {judged.metric: score, "rows": judged.rows}
    made.save(out)  # what follows takes its time
    if texts := read_file(Path(out)).facts()["texts"]:
        report.line(f"{out} holds texts of rows, as the prompts do ({in_one_line(texts)})")
    if tested is not None:
        for entry, peer in zip(entries, _peers(parts, made), strict=True):
            name = Path(entry["file"]).name
            scores = evaluate(peer, tested, seed=seed, name=name, report=report)
            entry["test"] = scores.without_tables()
        scores = evaluate(made, tested, seed=seed, name=how, report=report)
        made = replace(made, scores={**made.scores, "test": scores.without_tables()})
        made.save(out)
    for entry, weight in zip(entries, used or (), strict=False):
        entry["weight"] = weight
    if as_json:
        console.emit({"out": str(out), "how": how, "parts": entries, **made.scores})
        return
    console.line(
        f"{out}: {how} of {counted(len(parts), 'prompt')}, {out.stat().st_size / 1024:.0f} KiB"
    )
    headline = made.bound.headline if tested is not None else None
    console.out().print(comparison.composed([*entries, {"file": how, **made.scores}], headline))
    if left := [entry["file"] for entry in entries if entry.get("weight") == 0]:
        console.say(f"weight 0, and so left out of the {how}: {', '.join(left)}")


def _compose(
    parts: Sequence[Prompt], how: How, weights: Sequence[float] | None
) -> tuple[Prompt | Ensemble, Sequence[float] | None]:
    """Return what prompts make together, and the weights that they have in it."""
    from foreword.compose.ensemble import weighted
    from foreword.compose.merge import average, concatenate
    from foreword.compose.together import check_together, check_weights, equal_weights

    check_together(parts)
    if how == "concat":
        if weights is not None:
            raise UserError("--weights are for average and ensemble; leave them out of concat")
        return concatenate(parts), None
    used = equal_weights(len(parts)) if weights is None else weights
    check_weights(used, len(parts))
    return (average(parts, used) if how == "average" else weighted(parts, used)), used


def _peers(parts: Sequence[Prompt], made: Prompt | Ensemble) -> Sequence[Prompt]:
    """Return prompts as they are scored beside what they make: a merged one has one task."""
    from foreword.compose.ensemble import Ensemble

    if isinstance(made, Ensemble):
        return parts
    return [replace(part, task=made.task) for part in parts]


def _score_on_dev(
    parts: Sequence[Prompt],
    made: Prompt | Ensemble,
    weights: Sequence[float] | None,
    rows: Sequence[Row],
    report: Reporter,
) -> FittedWeights:
    """Score all on dev rows, and fit the weights of an ensemble that has none."""
    from foreword.compose.fit import fit, score_weights
    from foreword.prompt.prompt import Prompt

    if isinstance(made, Prompt):
        last = [0.0] * len(parts) + [1.0]
        return score_weights([*_peers(parts, made), made], last, rows, report=report)
    if weights is None:
        return fit(parts, rows, report=report)
    return score_weights(parts, weights, rows, report=report)
