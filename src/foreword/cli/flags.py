"""Flags: the settings of all configurations as parameters of a command.

They are read from the configurations' sources, so that ``--help`` imports none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, get_origin

from cyclopts import Group, Parameter

from foreword.cli.words import flag
from foreword.config.settings import Setting, declared
from foreword.methods.registry import METHODS
from foreword.tasks.registry import TASKS
from foreword.training.presets import PRESETS

RUN = {each.name: each for each in declared("foreword.training.settings:RunSettings")}
"""The settings that belong to no task, method or training, by name."""

CONTINUAL = ("source", "replay", "replay_share", "old_test")
"""What only a training that continues from a prompt has."""

PANELS = {
    "data": ("train", "dev", "test", "rows", "per_label", "dev_rows", "columns"),
    "output": ("out", "report_to"),
    "continuing from a prompt": CONTINUAL,
}
"""Under which titles help lists settings of a run; all others are of the model."""

NAMES: Mapping[str, Iterable[str]] = {"task": TASKS, "method": METHODS, "preset": PRESETS}
"""Settings that name one of something; their help lists all names."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting as a flag, and the same setting in each configuration that has it.

    ``owners`` are keyed by whose setting it is: ``"task classify"``, ``"method lora"``,
    ``"training"``. With ``several`` values it is a list of words (sweep.py).
    """

    name: str
    owners: Mapping[str, Setting]
    several: bool = False

    @property
    def type(self) -> Any:
        """The type of a value on a command line; all owners have one."""
        return next(iter(self.owners.values())).flag

    @property
    def taken(self) -> Any:
        """The type of what the flag takes."""
        if not self.several:
            return self.type
        return bool | str if self.type is bool else list[str]

    @property
    def help(self) -> str:
        """One text, or one for each of the owners."""
        if "training" in self.owners:
            return self.owners["training"].help
        texts: dict[str, list[str]] = {}
        for owner, each in self.owners.items():
            texts.setdefault(each.help, []).append(owner.partition(" ")[2] or owner)
        if len(texts) == 1:
            names = ", ".join(NAMES.get(self.name, ()))
            return f"{next(iter(texts))}: {names}" if names else next(iter(texts))
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items() if text)

    @property
    def default(self) -> str:
        """The default that all owners have, as text; empty for none, and where they differ."""
        defaults = {str(each.default) for each in self.owners.values() if each.default is not None}
        every = all(each.default not in (None, ()) for each in self.owners.values())
        return defaults.pop() if every and len(defaults) == 1 else ""

    @property
    def panel(self) -> str:
        """The title under which help lists it."""
        if "training" in self.owners or len(self.owners) == 1:
            owner = "training" if "training" in self.owners else next(iter(self.owners))
        else:
            kinds = {owner.partition(" ")[0] for owner in self.owners}
            owner = f"several {kinds.pop()}s" if len(kinds) == 1 else "several"
        return owner.capitalize()


def owned() -> Iterator[tuple[str, Setting]]:
    """Yield every setting with whose it is."""
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    yield from ((panels.get(name, "model"), each) for name, each in RUN.items())
    yield from ((f"task {name}", each) for name in TASKS for each in TASKS.settings(name))
    yield from (("decoding", each) for each in declared("foreword.backbone.decode:Decoding"))
    yield from ((f"method {name}", each) for name in METHODS for each in METHODS.settings(name))
    yield from (("training", each) for each in declared("foreword.training.settings:Training"))


def flags() -> dict[str, Flag]:
    """Return all settings as flags, by name."""
    found: dict[str, dict[str, Setting]] = {}
    for owner, each in owned():
        if each.name != "decoding":  # whose own settings are here
            found.setdefault(each.name, {})[owner] = each
    return {name: Flag(name, owners) for name, owners in found.items()}


FLAGS = flags()


def parameters(called: str, kinds: Iterable[Flag]) -> type:
    """Make a dataclass whose fields are flags of a command; None where one is not given."""
    panels: dict[str, Group] = {}
    made: list[tuple[str, Any, Any]] = []
    for each in kinds:
        panel = None
        if each.panel:
            panel = panels.setdefault(each.panel, Group(each.panel, sort_key=len(panels)))
        about = Parameter(
            name=flag(each.name),
            help=each.help,
            show_default=each.default or False,
            consume_multiple=get_origin(each.taken) is list,
            negative="",
            group=panel,
        )
        made.append(
            (each.name, Annotated[each.taken | None, about], dataclasses.field(default=None))
        )
    kind = dataclasses.make_dataclass(called, made, frozen=True, kw_only=True, eq=False, repr=False)
    kind.__module__ = __name__  # else it seems to be a built-in one, which cyclopts leaves alone
    return kind


def parameters_of(path: str) -> type:
    """Make flags of one configuration, ``"module:Class"``, for a command of its own."""
    name = path.partition(":")[2]
    return parameters(f"{name}Flags", [Flag(s.name, {"": s}) for s in declared(path)])


def defaults(path: str) -> dict[str, Any]:
    """Return the default of each setting of ``"module:Class"``."""
    return {each.name: each.default for each in declared(path)}


def given(flags: Any) -> dict[str, Any]:
    """Return the flags that are given."""
    values = {each.name: getattr(flags, each.name) for each in dataclasses.fields(flags)}
    return {name: value for name, value in values.items() if value is not None}


def without(names: Collection[str]) -> Iterator[Flag]:
    """Yield all flags but those of these names."""
    return (each for name, each in FLAGS.items() if name not in names)


Flags = parameters("Flags", FLAGS.values())
"""All settings as flags; None where one is not given."""

NO_FLAGS = Flags()
