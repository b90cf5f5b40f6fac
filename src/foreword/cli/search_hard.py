"""The part of the search command that looks for a text: ``foreword search --hard``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foreword.cli.terminal import CommandTerminal
from foreword.data.rows import as_rows
from foreword.display import console
from foreword.display.trials import texts as table_of
from foreword.errors import UserError
from foreword.metrics.titles import title

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone


def find_text(
    backbone: Backbone,
    task: Any,
    rows: Any,
    dev: Any,
    test: Any,
    choices: dict[str, list[Any]],
    minutes: float | None,
    seed: int,
    out: str,
    as_json: bool,
) -> None:
    """Search a text and say what was found."""
    from foreword.prompt_search.hard import LENGTH, search_hard
    from foreword.training.configure import WHERE, training_from

    length = choices.pop("length", [LENGTH])
    several = next((n for n, v in {**choices, "length": length}.items() if len(v) > 1), None)
    if several is not None:
        raise UserError(f"`{several}` has several values, and --hard takes one")
    given = {"batch_size": 8, "seed": seed, **{n: v[0] for n, v in choices.items()}}
    training = training_from(given, WHERE)
    if given:
        raise UserError(f"`{next(iter(given))}` is no setting of --hard; leave it out")
    dev, test = (each and as_rows(each) for each in (dev, test))
    options: Any = {"length": length[0], "minutes": minutes, "training": training, "out": out}
    found = search_hard(
        backbone, task, rows, dev, test, **options, seed=seed, report=CommandTerminal()
    )
    if as_json:
        console.emit({"out": out, **found.to_dict()})
        return
    console.out().print(table_of(found.to_dict()["texts"], found.metric))
    console.line(
        f"{out}: {title(found.metric)} {found.held:.1f} with the text below, "
        f"{found.untouched:.1f} without, on {found.held_rows} rows held back; the soft prompt has "
        f"{found.soft:.1f} on the dev rows"
    )
    console.line(found.text)
