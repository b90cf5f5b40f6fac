"""The command that searches the method and the settings of a prompt."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import Json, Resume
from foreword.cli.flags import CONTINUAL, FLAGS, Flag, parameters, without
from foreword.cli.panels import FURTHER, OUTPUT, TRAINING
from foreword.cli.reading import Reading
from foreword.cli.sweep import values_of
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.data.folder import DEV, TEST
from foreword.data.rows import as_rows
from foreword.data.sample import draw
from foreword.display import console
from foreword.display.trials import models as models_table
from foreword.display.trials import trials as table_of
from foreword.errors import UserError
from foreword.files import check_place_of_tensors
from foreword.grammar import counted
from foreword.metrics.titles import title
from foreword.training.interrupt import Interrupted

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone

OTHERS = ("method", "preset", "report_to", "shard", "refit", *CONTINUAL)
"""Settings that a search has not, or names otherwise."""

ALONE = ("seed", "token_budget", "memory", "checkpointing", "cache_gb", "no_texts", "compile")
"""Settings of training that all trials share."""


VERBALIZER = "verbalizer"

SEVERAL = ("template", VERBALIZER)
"""Settings of the task that may have several values."""


def is_searched(each: Flag) -> bool:
    """Whether a setting may be chosen among several values: of methods, training and wording."""
    kinds = {kind for kind, _ in each.owners}
    if each.name in SEVERAL:
        return True
    return kinds <= {"method", "training"} and each.name not in ALONE and each.type != list[str]


HELP = {
    "dev": "rows to judge trials by; else a fifth of the training rows, or below 200 all in folds",
    "test": "rows to score the best prompt on; else a fifth of the training rows is held back",
}
"""What settings do that a training uses otherwise."""

CHOSEN = ("start", "length", "shots", "upper", "rank", "batch_size")
"""Settings that are searched where they are not given, and so have no default."""


def with_choices(each: Flag) -> Flag:
    """Return the flag as a search takes it."""
    owners = each.owners
    if each.name in HELP:
        owners = {k: dataclasses.replace(v, help=HELP[each.name]) for k, v in owners.items()}
    if each.name in CHOSEN:
        owners = {k: dataclasses.replace(v, default=None) for k, v in owners.items()}
    return dataclasses.replace(each, owners=owners, several=is_searched(each))


Narrowed = parameters("Narrowed", map(with_choices, without(OTHERS)))
"""The settings that narrow a search, or are those of all its trials."""

NOT_NARROWED = Narrowed()

Storage = Annotated[
    str | None,
    Parameter(
        help="where the study is kept: a database (sqlite:///s.db) or a file; else beside --out",
        group=OUTPUT,
    ),
]


def search(
    *,
    flags: Annotated[Narrowed, Parameter(name="*")] = NOT_NARROWED,  # type: ignore[valid-type]
    methods: Annotated[
        str | None,
        Parameter(
            help="names with commas between: prefix+head,lora; else usual ones", group="Method"
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        Parameter(
            help="base models to look at first, in place of --model; the best is searched on",
            group="Model",
            consume_multiple=True,
        ),
    ] = None,
    minutes: Annotated[
        float | None, Parameter(help="time of the search; 10 without --trials", group=TRAINING)
    ] = None,
    trials: Annotated[
        Whole | None, Parameter(help="most trials of the study", group=TRAINING)
    ] = None,
    refit: Annotated[
        bool,
        Parameter(help="tune the best settings again on all rows, at the end", group=TRAINING),
    ] = False,
    config: Annotated[
        Path | None, Parameter(help="YAML or TOML run file; flags win", group=TRAINING)
    ] = None,
    hard: Annotated[
        bool,
        Parameter(help="search a text, which works in any tool, by gradients", group="Method"),
    ] = False,
    storage: Storage = None,
    study: Annotated[
        str | None, Parameter(help="the study's name; else that of --out", group=(OUTPUT, FURTHER))
    ] = None,
    join: Annotated[
        str | None,
        Parameter(help="the storage of a study to take part in, with the same rows", group=OUTPUT),
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Find the method and the settings of a prompt, in minutes.

    A setting of a method or of training with several values (--length 5,20) is chosen among these,
    one with a value is fixed; the others are searched as is usual, templates too: the flag
    may be given several times. The best prompt so far is kept
    in --out, all trials in OUT.search.json. Ctrl-C keeps what is done; --resume goes on.
    """
    from foreword.cli.settings import load_backbone, merged, plain_of, task_of_words
    from foreword.prompt_search.models import look_at
    from foreword.prompt_search.outcome import page_path, result_path
    from foreword.prompt_search.parts import part_rows
    from foreword.prompt_search.search import check_limits, search_prompts
    from foreword.prompt_search.space import choices_of
    from foreword.prompt_search.study import need_optuna
    from foreword.tasks.fields import text_fields_of
    from foreword.training.presets import settings_of

    check_limits(minutes, trials)
    need_optuna()
    report = CommandTerminal()
    if join is not None and storage is not None:
        raise UserError("--join and --storage both name a storage; give one")
    given = merged(flags, config)
    for name in CONTINUAL:
        if given.get(name) is not None:
            raise UserError("a search begins anew; leave --from and what belongs to it out")
    if hard:
        beside: dict[str, Any] = {
            "methods": methods,
            "trials": trials,
            "storage": storage,
            "study": study,
        }
        beside |= {"join": join, "models": models, "refit": refit, "resume": resume}
        for name, value in beside.items():
            if value:
                raise UserError(f"--hard has no --{name}; leave it out")
    named = given.pop("method", None) if methods is None else methods
    if (preset := given.pop("preset", None)) is not None:
        given = {**settings_of(preset), **given}
    for name in given:
        if is_searched(FLAGS[name]):
            given[name] = values_of(FLAGS[name], given[name])
    several = {}
    for name in SEVERAL:
        values = given.pop(name, ())
        if len(values) == 1:
            given[name] = values[0]
        if len(values) > 1 or (values and name == VERBALIZER):  # the usual one is fixed too
            several[name] = values
    plain = plain_of(given)
    for name in ("train", "out"):
        if plain[name] is None:
            raise UserError(f"--{name} is missing")
    check_place_of_tensors(Path(plain["out"]))
    task = task_of_words(plain["task"], given, "settings")
    seed = given.pop("seed", 0)
    choices = choices_of({**given, **several})
    reading, fields, check = Reading.of(plain), text_fields_of(task), task.check_answer
    every = reading.rows(plain["train"], fields=fields, check=check)
    rows = draw(every, plain["rows"], plain["per_label"], seed, task.class_field)
    dev, test = None, None
    if plain["dev"] is not None:
        n = plain["dev_rows"]
        dev = reading.rows(plain["dev"], DEV, fields=fields, check=check, n=n, seed=seed)
    if plain["test"] is not None:
        test = reading.rows(plain["test"], TEST, fields=fields, check=check)
    rows, looks = as_rows(rows), []
    dev, test = None if dev is None else as_rows(dev), None if test is None else as_rows(test)
    if models:
        tuned, _ = part_rows(rows, dev, test, seed, task.class_field).folds[0]

        def load(name: str) -> Backbone:
            return load_backbone({**plain, "model": name})

        looks = look_at(models, load, task, tuned, seed, report)
        plain["model"] = looks[0].model
    backbone = load_backbone(plain)
    if reading.skip_bad:
        rows, dev, test = reading.usable_by(task, backbone, rows, dev, test)
    if hard:
        from foreword.cli.search_hard import find_text

        find_text(backbone, task, rows, dev, test, choices, minutes, seed, plain["out"], as_json)
        return
    try:
        found = search_prompts(
            backbone,
            task,
            None if named is None else [name.strip() for name in named.split(",") if name.strip()],
            choices,
            rows,
            dev,
            test,
            minutes=minutes,
            trials=trials,
            out=plain["out"],
            storage=join or storage,
            study=study,
            resume=resume,
            join=join is not None,
            refit=refit,
            seed=seed,
            report=report,
            looks=looks,
        )
    except UserError as error:
        raise (
            error if join is None else UserError(str(error).replace("`storage=", "`join="))
        ) from None
    except Interrupted as error:
        if join is None:
            raise
        raise KeyboardInterrupt(f"{error}; the same command joins again") from None
    result = found.to_dict()
    if as_json:
        console.emit({"out": plain["out"], **result})
        return
    if looks:
        console.out().print(models_table(result["models"]))
    console.out().print(table_of(result["trials"], found.metric))
    _say(found, Path(plain["out"]), test is not None)
    console.say(f"all trials: {result_path(Path(plain['out']))}")
    if page_path(Path(plain["out"])).exists():
        console.say(f"as a page: {page_path(Path(plain['out']))}")


def _say(found: Any, out: Path, tested: bool) -> None:
    """Say what was found, and what its score is worth."""
    states = [each.state for each in found.trials]
    counts = ", ".join(
        f"{states.count(name)} {name}"
        for name in ("complete", "pruned", "failed")
        if name in states
    )
    console.line(
        f"{out}: {found.best.method}, the best of {counted(len(states), 'trial')} ({counts})"
    )
    held = found.held
    low, high = held.interval
    on = "test rows" if tested else "rows held back"
    console.line(
        f"{title(held.headline)} {held.score:.1f} ({low:.1f}-{high:.1f}) on {len(held.rows)} {on}, "
        "which no trial has seen"
    )
    if found.luck is not None and found.luck > 0:
        console.line(
            f"its dev score is {found.luck:.1f} higher: the best of many is high by luck too"
        )
