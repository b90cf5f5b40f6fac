"""Several tasks in one run: a run file with common settings and those of each task."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import Json, Resume
from foreword.cli.flags import CONTINUAL, FLAGS
from foreword.cli.reading import Reading
from foreword.cli.run_file import named, read_mapping
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.config.values import from_plain
from foreword.data.folder import DEV, TEST
from foreword.data.row import Row
from foreword.data.sample import draw, others
from foreword.display import comparison, console
from foreword.errors import UserError, nearest
from foreword.reporter import Reporters
from foreword.training.trackers import trackers

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.cli.settings import Settings
    from foreword.multitask_learning.multitask import Member, Outcome, Sharing

ROWS = (
    *("train", "dev", "test", "rows", "per_label", "dev_rows"),
    *("columns", "delimiter", "encoding", "skip_bad", "task"),
)
NOT_HERE = ("out", "shard", *CONTINUAL)
"""Settings of one task's training that a run of several has no use for."""


def multitask(
    run: Annotated[Path, Parameter(help="YAML or TOML run file: common settings, and tasks")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the folder to write the prompts to")],
    share: Annotated[
        str | None, Parameter(help="mpt: one prompt times a part for each task; none, the default")
    ] = None,
    rank: Annotated[
        Whole | None, Parameter(help="rank of a task's part of a shared prompt")
    ] = None,
    mixing: Annotated[
        float | None,
        Parameter(help="how tasks are drawn: 1 in proportion to rows, more is more even"),
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Tune a prompt for each of several tasks in one run, in batches that mix their rows."""
    from foreword.multitask_learning.multitask import multitask as do

    began = time.monotonic()
    tasks, sharing, common = _read(run, {"share": share, "rank": rank, "mixing": mixing})
    members = [_member(name, made) for name, made in tasks.items()]
    tracked = trackers(common.plain["report_to"] or (), out / "multitask")
    backbone = common.backbone()
    members = [_usable(each, tasks[each.name], backbone) for each in members]
    found = do(
        backbone,
        members,
        common.method,
        out,
        sharing=sharing,
        training=common.training,
        resume=resume,
        report=Reporters([CommandTerminal(), *tracked]),
    )
    seconds = round(time.monotonic() - began, 2)
    result = _result(found, out, seconds)
    if as_json:
        console.emit(result)
        return
    console.line(f"{out}: {len(members)} tasks in one run, {seconds:.0f} s")
    headlines = {name: prompt.bound.headline for name, prompt in found.prompts.items()}
    console.out().print(comparison.tasks(result["tasks"], headlines))
    if found.shared is not None:
        console.line(f"a new task may start from it: --start {out / 'shared.safetensors'}")


def _read(path: Path, flags: Mapping[str, Any]) -> tuple[dict[str, Settings], Sharing, Settings]:
    """Read a run file; the settings of each task stand over those that all have.

    Raises UserError for unknown settings, for those that are of no one task, and for no tasks.
    """
    from foreword.cli.settings import settings_from
    from foreword.multitask_learning.multitask import Sharing
    from foreword.training.configure import over_preset

    read = read_mapping(path)
    own = {f.name for f in dataclasses.fields(Sharing)}
    given = {name: read.pop(name) for name in list(read) if name in own}
    given |= {name: value for name, value in flags.items() if value is not None}
    sharing = from_plain(Sharing, given, str(path))
    entries = read.pop("tasks", None)
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: has no tasks; give 'tasks:', a mapping of names to settings")
    common = named(read, str(path))
    for name in NOT_HERE:
        if name in common:
            raise UserError(f"{path}: setting '{name}' is of one task's training; leave it out")
    made: dict[str, Settings] = {}
    for name, values in entries.items():
        where = f"{path}: task {name}"
        if not isinstance(values, dict):
            raise UserError(f"{where}: give its settings as a mapping, such as train: rows.jsonl")
        ours = named({str(key): value for key, value in values.items()}, where)
        for setting in ours:
            if setting not in _task_settings():
                known = nearest(setting, sorted(_task_settings()))
                raise UserError(f"{where}: '{setting}' is for all tasks, not for one; {known}")
        made[str(name)] = settings_from(over_preset({**common, **ours}), where)
    return made, sharing, next(iter(made.values()))


def _task_settings() -> set[str]:
    """Return the settings that a task may have for itself."""
    found = {n for n, each in FLAGS.items() if any(kind == "task" for kind, _ in each.owners)}
    return {*ROWS, *found} - {"seed"}


def _member(name: str, made: Settings) -> Member:
    from foreword.multitask_learning.multitask import Member
    from foreword.tasks.fields import text_fields_of

    wanted, seed = made.plain, made.training.seed
    if wanted["train"] is None:
        raise UserError(f"task {name}: has no training rows; give train: F")
    reading, fields = Reading.of(wanted), text_fields_of(made.task)

    def rows(key: str, split: Sequence[str] | None, n: int | None = None) -> list[Row] | None:
        if wanted[key] is None:
            return None
        check = made.task.check_answer
        return reading.rows(wanted[key], split, fields=fields, check=check, n=n, seed=seed)

    by = made.task.class_field
    every = rows("train", None) or []
    train = draw(every, wanted["rows"], wanted["per_label"], seed, by)
    dev = rows("dev", DEV, wanted["dev_rows"]) or others(
        every, train, wanted["per_label"], seed, by
    )
    return Member(name, made.task, train, dev, rows("test", TEST))


def _usable(member: Member, made: Settings, backbone: Backbone) -> Member:
    """Leave out, where that is asked, rows that only the task with its labels knows to be bad."""
    reading = Reading.of(made.plain)
    if not reading.skip_bad:
        return member
    rows: Any = (member.train, member.dev, member.test)
    train, dev, test = reading.usable_by(made.task, backbone, *rows)
    return dataclasses.replace(member, train=train, dev=dev, test=test)


def _result(found: Outcome, out: Path, seconds: float) -> dict[str, Any]:
    def about(name: str) -> dict[str, Any]:
        prompt = found.prompts[name]
        sizes = (tensor.numel() for _, tensor in prompt.injection.tensors())
        made = {"out": str(out / f"{name}.safetensors"), "rows": prompt.data["train"]["rows"]}
        return {**made, **prompt.scores, "parameters": sum(sizes)}

    shared = None if found.shared is None else str(out / "shared.safetensors")
    trained = next(iter(found.prompts.values())).method["trained"]
    tasks = {name: about(name) for name in found.prompts}
    return {"tasks": tasks, "shared": shared, "trained": trained, "seconds": seconds}
