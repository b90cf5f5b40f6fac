"""Settings of a run: flags over a run file over a preset, made into configurations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.cli.flags import CONTINUAL, RUN
from foreword.cli.label_words import file_of_labels, read_label_words
from foreword.cli.run_file import read_run_file
from foreword.cli.terminal import CommandTerminal
from foreword.cli.words import (
    ESCAPED,
    flag,
    json_schema_of,
    parse_anchors,
    parse_labels,
    parse_numbers,
    unescaped,
)
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.evaluation.comparison import Comparable, methods_from
from foreword.methods.base import Method
from foreword.methods.parts.from_file import FromFile
from foreword.prompt.tensors import opened
from foreword.tasks.base import Task
from foreword.threads import use_threads
from foreword.training.configure import (
    method_from,
    over_preset,
    task_from,
    task_kind,
    training_from,
)
from foreword.training.settings import Training


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's settings: the plain ones, and the configurations made of the rest."""

    plain: Mapping[str, Any]
    task: Task
    method: Method
    training: Training

    def backbone(self, device: str | None = None) -> Backbone:
        """Load the model that is named, on its own device or on the one that is given."""
        return load_backbone(self.plain, device)


def load_backbone(plain: Mapping[str, Any], device: str | None = None) -> Backbone:
    """Load the model that plain settings name, on their device or on the one that is given."""
    return Backbone.load(
        plain["model"],
        architecture=plain["architecture"],
        pooling=plain["pooling"],
        dtype=plain["dtype"],
        device=plain["device"] if device is None else device,
        quantize=plain["quantize"],
        report=CommandTerminal(),
    )


def settings(flags: Any, file: Path | None) -> Settings:
    """Merge flags over a run file, and make the configurations.

    Raises UserError for a setting that is unknown, of the wrong type, or not one of the chosen
    method or task.
    """
    where = "settings" if file is None else f"settings ({file} and flags)"
    return settings_from(over_preset(merged(flags, file)), where)


def settings_from(given: dict[str, Any], where: str) -> Settings:
    """Make the configurations of settings by name; raises UserError as :func:`settings` does."""
    source = going_on(given)
    plain = plain_of(given)
    task = task_of_words(plain["task"], given, where)
    method = source or method_from(
        plain["method"], given, where, preset=plain["preset"] is not None
    )
    training = training_from(given, where)
    if given:
        by = f"with method {plain['method']}" if source is None else "that goes on with --from"
        raise UserError(f"{flag(next(iter(given)))} is no setting of task {plain['task']} {by}")
    return Settings(plain, task, method, training)


def plain_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take the settings of a run out of ``given``; the number of threads is set at once."""
    plain = {name: given.pop(name, each.default) for name, each in RUN.items()}
    if plain["threads"] is not None:
        use_threads(plain["threads"])
    return plain


def going_on(given: dict[str, Any]) -> FromFile | None:
    """Return what goes on from the prompt that ``--from`` names, None where it names none.

    Its model is taken where none is given, and its task settings are put under those that are
    given, where the task is of its kind.
    Raises UserError for flags that need ``--from``, or that it does without.
    """
    if given.get("source") is None:
        for name in CONTINUAL:
            if name in given:
                raise UserError(f"{flag(name)} needs --from P: the prompt that is gone on from")
        return None
    for name in ("preset", "method"):
        if given.get(name) is not None:
            raise UserError(
                f"--{name} beside --from: what goes on keeps its method; to begin another method "
                "with the prompt give --start instead of --from"
            )
    if "replay_share" in given and given.get("replay") is None:
        raise UserError("--replay-share needs --replay F: the rows that are mixed in")
    made, task = FromFile.read(given["source"], given.get("rate"))
    if given.get("model") is None:
        about = opened(Path(given["source"]))[0]["backbone"]
        given["model"] = about["name"]
        given.setdefault("architecture", about["architecture"])
        given.setdefault("pooling", about.get("pooling", "auto"))
    under = {name: value for name, value in task.items() if name not in ("name", "decoding")}
    under |= {n: v for n, v in task.get("decoding", {}).items() if n != "seed"}
    if given.get("thresholds") is not None:
        under.pop("fit_thresholds", None)  # those that are given are not fitted again
    if given.setdefault("task", task["name"]) == task["name"]:
        for name, value in under.items():
            given.setdefault(name, value)
    return made


@dataclasses.dataclass(frozen=True)
class Compared:
    """A comparison's settings: the plain ones, and the configurations made of the rest."""

    plain: Mapping[str, Any]
    task: Task
    methods: Mapping[str, Comparable]
    training: Training


def compared(given: dict[str, Any], names: Sequence[str]) -> Compared:
    """Make the methods of a comparison of settings; one goes to each of them that has it.

    Raises UserError for an unknown method, and for a setting that none of them has.
    """
    plain = plain_of(given)
    task = task_of_words(plain["task"], given, "settings")
    methods, taken = methods_from(names, given)
    known = {f.name for f in dataclasses.fields(Training)}
    training = training_from(dict(given), "settings")
    for setting in given:
        if setting not in taken | known:
            raise UserError(
                f"{flag(setting)} is no setting of task {plain['task']} with any of the methods "
                f"{', '.join(methods)}"
            )
    return Compared(plain, task, methods, training)


def merged(flags: Any, file: Path | None) -> dict[str, Any]:
    """Return the settings that are given: those of the run file, and over them the flags."""
    given = {} if file is None else read_run_file(file)
    for each in dataclasses.fields(flags):
        value = getattr(flags, each.name)
        if value is not None:
            given[each.name] = unescaped(value) if each.name in ESCAPED else value
    return given


def task_alone(flags: Any) -> tuple[dict[str, Any], Task]:
    """Make the task of a prompt that comes from elsewhere; return the plain settings with it."""
    given = merged(flags, None)
    plain = plain_of(given)
    task = task_of_words(plain["task"], given, "settings")
    given.pop("seed", None)  # of sampling, where the task samples
    if given:
        raise UserError(f"{flag(next(iter(given)))} is no setting of task {plain['task']}")
    return plain, task


def task_of_words(name: str, given: dict[str, Any], where: str) -> Task:
    """Make a task of the settings that are its own, as flags write them, out of ``given``."""
    kind = task_kind(name)
    if from_file := file_of_labels(given.get("labels")):
        given["labels"] = read_label_words(from_file)
    shown = given.get("shown") or ()
    takes = "shown" in kind().__dict__
    if shown and takes and all(isinstance(file, str) for file in shown):
        given["shown"] = [row for file in shown for row in shown_rows(file)]
    if isinstance(given.get("labels"), list | tuple):
        given["labels"] = parse_labels(given["labels"])
    if isinstance(given.get("anchors"), list | tuple):
        given["anchors"] = parse_anchors(given["anchors"])
    if isinstance(given.get("thresholds"), list | tuple):
        given["thresholds"] = parse_numbers(given["thresholds"], "thresholds")
    if isinstance(given.get("json_schema"), str):
        given["json_schema"] = json_schema_of(given["json_schema"])
    return task_from(kind, given, where)


def shown_rows(file: str) -> list[dict[str, str]]:
    """Read rows to show, of which texts are kept."""
    rows = as_rows(file)
    return [{name: str(value) for name, value in row.fields.items()} for row in rows]
