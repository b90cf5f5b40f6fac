"""How was it made? The curves, the rows, and all that it takes to make it again."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.backbone.decode import Decoding
from foreword.backbone.load.sources import form_of
from foreword.config.settings import RENAMED, Setting, settings_of
from foreword.config.values import plain
from foreword.data.problems import WHY
from foreword.data.row import Row
from foreword.data.sample import digest
from foreword.errors import UserError
from foreword.methods.registry import METHODS
from foreword.report.left_out import LeftOut
from foreword.report.subject import Subject
from foreword.tasks.registry import TASKS
from foreword.training.check import check_for
from foreword.training.log import Curves, files_of, log_path, read_curves
from foreword.training.provenance import about_files, versions
from foreword.training.settings import Training

DRAWN = ("rows", "per_label", "dev_rows")
"""Settings that say which rows of its files a run has."""

MADE_OF_ROWS = ("labels", "shown", "decoding")
"""Settings of a task that a run finds in its rows, or that have flags of their own."""

LONGEST = 20
"""The most values of one setting that are written in a command."""

PLACES = 3
"""Places of a problem that are named."""


@dataclass(frozen=True)
class Found:
    """A problem with rows: how bad it is, where it is, and why it counts."""

    level: str
    kind: str
    split: str
    count: int
    places: Sequence[str]
    why: str


@dataclass(frozen=True)
class Making:
    """How a prompt was made; ``facts`` are names and values, ``hashes`` of files and rows."""

    curves: Curves | LeftOut
    problems: Sequence[Found]
    checked: Sequence[str]
    command: str
    facts: Mapping[str, str]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]


def describe_making(subject: Subject, names: Mapping[str, str]) -> Making:
    """Describe a run by its file, its log and its rows; ``names`` are those of the data sets.

    They have the key "train", and those of ``DRAWN`` where a run has drawn its rows.
    """
    prompt = subject.prompt
    splits: dict[str, Sequence[Row]] = {"dev": subject.rows}
    if subject.train is not None:
        splits = {"train": subject.training_rows, **splits}
    return Making(
        curves=_curves(subject),
        problems=_problems(subject, splits),
        checked=list(splits),
        command=command_of(prompt.metadata(), _sources(subject, names)) + _partly(subject, names),
        facts=_facts(prompt.metadata()),
        versions={**prompt.versions, **{f"{n} of this page": v for n, v in _now(prompt.versions)}},
        hashes=_hashes(subject, splits),
    )


def _now(then: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in versions().items() if then.get(name) != value]


def _curves(subject: Subject) -> Curves | LeftOut:
    if subject.file is None:
        return LeftOut("no curves: the prompt has no file, and so no log beside it")
    path = log_path(subject.file)
    if not path.exists():
        return LeftOut(f"no curves: the log of the run, {path.name}, is not beside the prompt")
    try:
        return read_curves(path)
    except UserError as error:
        return LeftOut(f"no curves: {error}")


def _problems(subject: Subject, splits: Mapping[str, Sequence[Row]]) -> list[Found]:
    with subject.report.bar("checking rows", sum(map(len, splits.values()))) as progress:
        checked = check_for(subject.prompt.task, subject.bound.backbone, splits, progress=progress)
    return [
        Found(p.level, p.kind, p.split, len(p.places), p.places[:PLACES], WHY[p.kind][1])
        for p in checked.problems
    ]


def _facts(meta: Mapping[str, Any]) -> dict[str, str]:
    method, training, data = meta["method"], meta["method"].get("training", {}), meta["data"]
    rows = {name: data.get(name, {}).get("rows") for name in ("train", "dev")}
    leaks = data.get("dev", {}).get("in_train")
    found = {
        "method": method.get("name"),
        "trained numbers": method.get("trained"),
        "model": meta["backbone"]["name"],
        "task": meta["task"]["name"],
        "template": meta["task"].get("template"),
        "training rows": rows["train"],
        "dev rows": rows["dev"],
        "dev rows that are in train": leaks,
        "epochs": training.get("epochs"),
        "rows of a step": training.get("batch_size"),
        "learning rate": training.get("rate"),
        "seed": meta["seed"],
    }
    shown = {name: str(value) for name, value in found.items() if value is not None}
    for metric, value in meta["scores"].get("dev", {}).items():
        if metric != "rows":
            shown[f"{metric} on dev, in training"] = f"{value:.2f}"
    return shown


def _hashes(subject: Subject, splits: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    data = subject.prompt.data
    found = {"model": subject.prompt.backbone["fingerprint"]}
    if subject.file is not None:
        found["prompt file"] = hashlib.sha256(subject.file.read_bytes()).hexdigest()
    for name in ("train", "dev"):
        if (known := data.get(name, {}).get("sha256")) is not None:
            found[f"{name} rows of the run"] = known
    return found | {f"{name} rows of this page": digest(rows) for name, rows in splits.items()}


# The command ---------------------------------------------------------------------------------


def _sources(subject: Subject, names: Mapping[str, str]) -> dict[str, str]:
    """Return ``names`` with the files of the run, as its log names them or those of the page do.

    Dev rows of the file that is trained on were held back, and have none.
    """
    same = digest(subject.rows) == subject.prompt.data.get("dev", {}).get("sha256")
    known = about_files(train=subject.train or (), dev=subject.rows if same else ())
    if subject.file is not None:
        known |= files_of(subject.file)
    made = {**{n: v for n, v in names.items() if n != "data"}, **known}
    dev = made.pop("dev", None)
    return made if dev in (None, made.get("train")) else {**made, "data": str(dev)}


def _partly(subject: Subject, names: Mapping[str, str]) -> str:
    """Return a comment where a run learned a part of its rows, if nothing says which."""
    train, dev = (subject.prompt.data.get(name, {}).get("rows", 0) for name in ("train", "dev"))
    given = train if subject.train is None else len(subject.train)
    known = any(name in names for name in DRAWN) or given in (train, train + dev)
    return "" if known else f"  # it learned {train} of these {given} training rows"


def command_of(meta: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the command that makes such a prompt: the settings that are no defaults.

    ``names`` are the files "train" and, where there is one, "data", and what is said of ``DRAWN``.
    What a flag cannot say of one of several methods alone, or is too long, follows as a comment.
    """
    task, method = dict(meta["task"]), dict(meta["method"])
    training, kind = dict(method.get("training", {})), task["name"]
    by = str(method.get("name", "auto"))
    words = ["foreword", "train", "--model", str(meta["backbone"]["name"])]
    words += _flags(_form(meta["backbone"]))
    words += ["--train", names.get("train", "TRAIN")]
    words += ["--dev", names["data"]] if "data" in names else []
    words += _flags({name: names[name] for name in DRAWN if name in names})
    words += ["--task", kind] if kind != "classify" else []
    words += ["--method", by]
    own_of_task = _changed(TASKS.settings(kind), task)
    fits = task.get("fit_thresholds")
    if fits == "shared" or (fits == "off" and "thresholds" in own_of_task):  # as is usual
        own_of_task.pop("fit_thresholds", None)
    if fits != "off":  # they are fitted to the dev rows again
        own_of_task.pop("thresholds", None)
    aside = [f"{_flag(n)}: as in the prompt file" for n, v in own_of_task.items() if _is_long(v)]
    words += _flags({name: value for name, value in own_of_task.items() if not _is_long(value)})
    words += _flags(_decoding(kind, task.get("decoding") or {}))
    words += _labels(kind, task.get("labels"))
    parts = by.split("+")
    known = [part for part in parts if part in METHODS]
    own = list(zip(known, method.get("methods", [method]), strict=False))
    for part, given in own:
        for name, value in _changed(METHODS.settings(part), given).items():
            if all(other.get(name, value) == value for _, other in own):
                said = _flags({name: value})
                words += [] if said[0] in words else said
            else:
                aside.append(f"{part}: {shlex.join(_flags({name: value}))}")
    words += _flags(_changed(settings_of(Training), training))
    return shlex.join(words) + "".join(f"  # {each}" for each in aside)


def _form(backbone: Mapping[str, Any]) -> dict[str, str]:
    """Return how a model was run, where its folder does not say so itself.

    Of a model that is no folder here nothing is looked up, which might download it: an encoder is
    called one.
    """
    had = (backbone["architecture"], backbone.get("pooling") or "auto")
    own = ("", "auto") if had[0] == "encoder" else had
    if os.path.isdir(name := str(backbone["name"])):
        try:
            own = form_of(name, "auto", "auto")
        except UserError:  # it has changed since
            return {}
    pairs = zip(("architecture", "pooling"), had, own, strict=True)
    return {name: value for name, value, usual in pairs if value != usual}


def _changed(settings: Sequence[Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values that are no defaults, but for those of ``MADE_OF_ROWS``."""
    known = {each.name: each.default for each in settings if each.name not in MADE_OF_ROWS}
    usual = {n: list(own) if isinstance(own, tuple) else own for n, own in known.items()}
    return {n: given[n] for n in usual if given.get(n) is not None and given[n] != usual[n]}


def _is_long(value: Any) -> bool:
    """Tell whether a value is no short list of words and numbers."""
    parts = [*value.values()] if isinstance(value, Mapping) else value
    if not isinstance(parts, list):
        return False
    return len(parts) > LONGEST or any(isinstance(each, list | Mapping) for each in parts)


def _decoding(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how texts are written, where it is not the task's own way; the seed is the run's."""
    own = next((each.default for each in TASKS.settings(kind) if each.name == "decoding"), None)
    usual = plain(Decoding(**(own or {})))
    return {
        name: value
        for name, value in given.items()
        if name != "seed" and value not in (None, [], usual.get(name))
    }


def _flags(given: Mapping[str, Any]) -> list[str]:
    made: list[str] = []
    for name, value in given.items():
        if isinstance(value, bool):
            made.append(_flag(name) if value else f"{_flag(name)}=false")
            continue
        if isinstance(value, Mapping):
            value = [f"{each}={own}" for each, own in value.items()]
        values = value if isinstance(value, list) else [value]
        made += [_flag(name), *(str(each).replace("\n", "\\n") for each in values)]  # read so
    return made


def _flag(name: str) -> str:
    return f"--{RENAMED.get(name, name).replace('_', '-')}"


def _labels(kind: str, labels: Any) -> list[str]:
    """Return the words of labels as flags, but where all are what the labels are called."""
    if not isinstance(labels, Mapping):
        return []
    words = {n: [own] if isinstance(own, str) else list(own) for n, own in labels.items()}
    usual = getattr(TASKS[kind], "words_for", str)
    if all([w.strip() for w in own] == [usual(name).strip()] for name, own in words.items()):
        return []
    return ["--labels", *(f"{name}={','.join(own)}" for name, own in words.items())]
