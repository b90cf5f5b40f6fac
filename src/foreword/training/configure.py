"""Configurations by name: a task, a method and a training, made of settings as flags name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.backbone.decode import Decoding
from foreword.config.settings import in_code
from foreword.config.values import from_plain, plain
from foreword.errors import UserError, nearest
from foreword.methods.auto import Auto
from foreword.methods.base import Method
from foreword.methods.parts.several import join_methods
from foreword.methods.registry import AUTO, CHOSEN, METHODS, kinds
from foreword.methods.registry import name_of as method_name
from foreword.tasks.base import Task
from foreword.tasks.registry import TASKS
from foreword.tasks.registry import name_of as task_name
from foreword.tasks.words import as_word
from foreword.training.presets import METHODS as OF_PRESETS
from foreword.training.presets import RATE, settings_of
from foreword.training.settings import Training

WHERE = "settings"
"""Where the settings of a call stand, in errors."""


def configure(
    task: Task | str,
    method: Method | str | None,
    training: Training | None,
    settings: Mapping[str, Any],
    *,
    text: str | None = None,
    label: str | None = None,
) -> tuple[Task, Method, Training]:
    """Return the configurations of a run. ``settings`` go to those that are given by name.

    They may name a ``preset``, whose settings stand under the others. Without a method it is the
    best for the task and its rows (methods/auto.py). ``text`` and ``label`` are the fields that the
    task reads and learns.

    Raises UserError for unknown names and settings, and for values of the wrong type.
    """
    given = in_code(settings)
    if training is not None and given.get("preset") is not None:
        raise UserError("`preset` sets the training, as `training` does; leave out one of the two")
    if isinstance(method, str):
        given["method"] = method
    elif method is not None and given.get("preset") is not None:
        raise UserError("`preset` names a method too; leave out one of the two")
    given = over_preset(given)
    preset = given.pop("preset", None)
    chosen = given.pop("method", AUTO) if method is None else given.pop("method", method)
    made_task = make_task(task, given, text, label)
    if isinstance(chosen, str):
        chosen = method_from(chosen, given, WHERE, preset=preset is not None)
    elif not hasattr(chosen, "build"):
        raise _wrong_type("method", chosen, METHODS, "fw.Prefix()")
    if training is None:
        training = training_from(given, WHERE)
    elif not isinstance(training, Training):
        kind = type(training).__name__
        raise UserError(f"`training` is of type {kind}; give fw.Training(...), or leave it out")
    elif isinstance(task, str) and (hasattr(made_task, "decoding") or hasattr(made_task, "seed")):
        given.pop("seed", None)  # the task has taken it
    task_name(made_task), method_name(chosen)  # what is not registered could not be saved
    if given:
        raise _unknown(next(iter(given)), made_task, chosen)
    return made_task, chosen, training


def make_task(
    task: Task | str, given: dict[str, Any], text: str | None = None, label: str | None = None
) -> Task:
    """Return a task that reads and learns the fields ``text`` and ``label``.

    One that is named takes its settings out of ``given``. Raises UserError for no such task.
    """
    if isinstance(task, str):
        kind = task_kind(task)
        given |= _fields(kind, text, label)
        return task_from(kind, given, WHERE)
    if not isinstance(task, Task):
        raise _wrong_type("task", task, TASKS, "fw.Classify()")
    changes = _fields(type(task), text, label)
    return dataclasses.replace(task, **changes)  # type: ignore[type-var]


def _fields(kind: type[Task], text: str | None, label: str | None) -> dict[str, str]:
    """Return the settings of a kind of task that name the fields of texts and answers."""
    made = {}
    pairs = {"text": (kind.text_setting, text), "label": (kind.answer_setting, label)}
    for name, (setting, field) in pairs.items():
        if field is None:
            continue
        if setting is None:
            raise UserError(
                f"`{name}={field}`: a {kind.__name__} has no single field for it; say how a row "
                "reads with `template`"
            )
        made[setting] = str(field)  # a DataFrame's columns may be numbers
    return made


def _wrong_type(name: str, value: object, known: Mapping[str, Any], example: str) -> UserError:
    return UserError(
        f"`{name}` is of type {type(value).__name__}; give a name ({', '.join(known)}) or a "
        f"configuration such as {example}"
    )


def _unknown(setting: str, task: Task, method: Method) -> UserError:
    """Return what is wrong with a setting that nothing that is given by name has."""
    parts = [task, *getattr(method, "methods", (method,)), Training(), Decoding()]
    known = sorted({f.name for part in parts for f in dataclasses.fields(part)} - {"decoding"})
    if setting in known:
        return UserError(
            f"`{setting}` is set beside a configuration that is given whole; set it in there"
        )
    return UserError(
        f"`{setting}` is no setting of task {task_name(task)} with method {method_name(method)}; "
        f"{nearest(setting, known)}"
    )


# Each by its name --------------------------------------------------------------------------------


def over_preset(given: dict[str, Any]) -> dict[str, Any]:
    """Put the settings of a preset, where one is named, under those that are given."""
    if given.get("preset") is None:
        return given
    under = settings_of(given["preset"])
    if given.get("method", AUTO) not in OF_PRESETS:
        raise UserError(
            f"`preset={given['preset']}` is for method prefix or prefix+head; "
            f"leave out `method={given['method']}`, or the preset"
        )
    return {**under, **given}


def task_kind(name: str) -> type[Task]:
    """Return the class of a task's name; raises UserError for an unknown one."""
    if name not in TASKS:
        raise UserError(f"`task={name}`: unknown; {nearest(name, TASKS)}")
    return TASKS[name]


def task_from(kind: type[Task], given: dict[str, Any], where: str) -> Task:
    """Make a task of the settings that are its own, taking them out of ``given``.

    Labels may be a list of names; their words get a space in front where they have none, as words
    have in a text. The seed, which others take too, stays.
    """
    labels = given.get("labels")
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        given["labels"] = dict.fromkeys(map(str, labels), ())
    elif isinstance(labels, Mapping):
        given["labels"] = {str(name): _spaced(words) for name, words in labels.items()}
    seed = {"seed": given["seed"]} if "seed" in given else {}
    usual = kind().__dict__.get("decoding")  # every task has usual settings
    if usual is not None and not isinstance(given.get("decoding"), Decoding):
        names = {f.name for f in dataclasses.fields(Decoding)} - {"seed"}
        decoding = {k: given.pop(k) for k in list(given) if k in names} | seed
        given["decoding"] = from_plain(Decoding, {**plain(usual), **decoding}, where)
    made: Task = take(kind, given, where, shared=())
    given |= seed
    return made


def _spaced(words: Any) -> Any:
    if isinstance(words, str):
        return as_word(words) if words else ()
    if isinstance(words, list | tuple):
        return [as_word(each) if isinstance(each, str) else each for each in words]
    return words


def method_from(name: str, given: dict[str, Any], where: str, *, preset: bool = False) -> Method:
    """Make a method, or several joined by +, of the settings that are its own.

    Takes them out of ``given``; those of several methods go to each that has them. Under a
    ``preset`` a prefix without a head has the rate of presets.
    """
    if name == AUTO:
        prefix, head = method_from("+".join(CHOSEN), given, where).methods  # type: ignore[attr-defined]
        return Auto(prefix, head, rate_alone=RATE if preset else None)
    if preset and name == "prefix":
        return Auto(method_from(name, given, where), rate_alone=RATE).alone()  # type: ignore[arg-type]
    made: list[Method] = []
    taken: set[str] = set()
    for kind in kinds(name):
        own = dict(given)
        made.append(take(kind, own, where))
        taken |= given.keys() - own.keys()
    for setting in taken:
        del given[setting]
    return join_methods(made)


def training_from(given: dict[str, Any], where: str) -> Training:
    """Make a training of the settings that are its own, taking them out of ``given``."""
    made: Training = take(Training, given, where, shared=())
    return made


def take(kind: type[Any], given: dict[str, Any], where: str, shared: Any = ("rate",)) -> Any:
    """Make a configuration of its own settings; ``shared`` ones stay for the next."""
    names = {f.name for f in dataclasses.fields(kind)}
    own = {k: given.pop(k) for k in list(given) if k in names and k not in shared}
    decoding = own.pop("decoding", None)
    made = from_plain(kind, own, where)
    return made if decoding is None else dataclasses.replace(made, decoding=decoding)
