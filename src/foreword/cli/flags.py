"""Flags: the settings of all configurations as parameters of a command.

They are read from the configurations' sources, so that ``--help`` imports none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Parameter

from foreword.cli.completion import completed
from foreword.cli.panels import FURTHER
from foreword.cli.whole import Seed, Whole
from foreword.cli.words import flag
from foreword.config.settings import FILE, Setting, Values, declared
from foreword.methods.registry import AUTO, METHODS
from foreword.tasks.registry import TASKS
from foreword.training.presets import PRESETS

RUN = {each.name: each for each in declared("foreword.training.run_settings:RunSettings")}
"""The settings that belong to no task, method or training, by name."""

CONTINUAL = ("source", "replay", "replay_share", "old_test")
"""What only a training that continues from a prompt has."""


NAMES: Mapping[str, Iterable[str]] = {
    "task": TASKS,
    "method": (AUTO, *METHODS),
    "preset": PRESETS,
}
"""Settings that name one of something; their help lists all names."""


Owner = tuple[str, str]
"""Whose a setting is: ``("task", "classify")``, ``("method", "lora")``, ``("training", "")``."""

TRAINING: Owner = ("training", "")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting as a flag, and the same setting in each configuration that has it.

    With ``several`` values it is a list of words (sweep.py).
    """

    name: str
    owners: Mapping[Owner, Setting]
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
        if TRAINING in self.owners:
            return self.owners[TRAINING].help
        texts: dict[str, list[str]] = {}
        for (kind, name), each in self.owners.items():
            texts.setdefault(each.help, []).append(name or kind)
        if len(texts) == 1:
            names = ", ".join(NAMES.get(self.name, ()))
            return f"{next(iter(texts))}: {names}" if names else next(iter(texts))
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items() if text)

    @property
    def default(self) -> str:
        """The default that all owners have, as text; empty for none, and where they differ.

        One that training leaves open is that of the methods.
        """
        open_ = TRAINING in self.owners and self.owners[TRAINING].default is None
        defaults = {
            each.default
            for owner, each in self.owners.items()
            if not (open_ and owner == TRAINING and len(self.owners) > 1)
        }
        if len(defaults) > 1:
            return ""
        usual = defaults.pop()
        if isinstance(usual, tuple):
            return " ".join(each.replace("\n", "\\n") for each in usual)
        return "" if usual is None or usual is False else str(usual)

    @property
    def values(self) -> Values:
        """The words that a shell completes, or FILE."""
        if self.name in NAMES:
            return tuple(NAMES[self.name])
        if get_origin(self.type) is Literal:
            return tuple(map(str, get_args(self.type)))
        found = [each.values for each in self.owners.values()]
        return FILE if FILE in found else tuple(dict.fromkeys(word for v in found for word in v))

    @property
    def common(self) -> bool:
        """Whether ``--help`` shows it; else ``--help-all`` does."""
        return any(each.common for each in self.owners.values())

    @property
    def panel(self) -> str:
        """The title under which help lists it."""
        if TRAINING in self.owners:
            return "Training"
        title = next(iter(self.owners.values())).panel
        if not title and len(self.owners) == 1:
            title = " ".join(next(iter(self.owners)))
        kinds = dict.fromkeys(kind for kind, _ in self.owners)
        return (title or " and ".join(kinds)).strip().capitalize()

    def of(self, chosen: Mapping[str, Collection[str]]) -> Flag | None:
        """Return the flag as the chosen ones have it; None where none of them does.

        ``chosen`` are names by kind: ``{"task": ["classify"]}``. Of other kinds all stay.
        """
        kept = {
            (kind, name): each
            for (kind, name), each in self.owners.items()
            if not name or name in chosen.get(kind, (name,))
        }
        return dataclasses.replace(self, owners=kept) if kept else None


def owned() -> Iterator[tuple[Owner, Setting]]:
    """Yield every setting with whose it is; for a task's decoding those that it consists of."""
    yield from ((("run", ""), each) for each in RUN.values())
    yield from ((TRAINING, each) for each in declared("foreword.training.settings:Training"))
    for name in TASKS:
        for each in TASKS.settings(name):
            parts = _decoding(each.default) if each.name == "decoding" else [each]
            yield from ((("task", name), part) for part in parts)
    yield from ((("method", name), each) for name in METHODS for each in METHODS.settings(name))


def _decoding(usual: Mapping[str, Any] | None) -> Iterator[Setting]:
    for each in declared("foreword.backbone.decode:Decoding"):
        yield dataclasses.replace(each, default=(usual or {}).get(each.name, each.default))


def flags_of(settings: Iterable[tuple[Owner, Setting]]) -> dict[str, Flag]:
    """Return settings as flags, by name."""
    found: dict[str, dict[Owner, Setting]] = {}
    for owner, each in settings:
        found.setdefault(each.name, {})[owner] = each
    return {name: Flag(name, owners) for name, owners in found.items()}


FLAGS = flags_of(owned())
"""All settings of a run."""


def parameters(called: str, kinds: Iterable[Flag]) -> type:
    """Make a dataclass whose fields are flags of a command; None where one is not given.

    Its attribute ``flags`` are these, by their names on a command line.
    """
    flags = {flag(each.name): each for each in kinds}
    made = [
        (each.name, Annotated[_hint(each) | None, about(each)], dataclasses.field(default=None))
        for each in flags.values()
    ]
    about_it = {
        "__doc__": "Flags of a command.",
        "__module__": __name__,  # else it seems to be a built-in one, which cyclopts leaves alone
        "flags": flags,
    }
    return dataclasses.make_dataclass(
        called, made, namespace=about_it, frozen=True, kw_only=True, eq=False, repr=False
    )


def _hint(each: Flag) -> Any:
    """Return the type of a flag, with the values that a shell completes."""
    if each.taken is int:
        return Seed if each.name == "seed" else Whole
    if (
        not each.values
        or get_origin(each.type) is Literal
        or (each.several and each.values != FILE)
    ):
        return each.taken
    word = completed(each.values)
    return list[word] if get_origin(each.taken) is list else word  # type: ignore[valid-type]


def _metavar(each: Flag) -> str | None:
    """Return how the value of a flag is shown, None where cyclopts says it well."""
    if each.values == FILE:
        return "FILE"
    several = each.several and each.type in (int, float)
    return f"{each.type.__name__.upper()},..." if several else None


def about(each: Flag) -> Parameter:
    """Return what cyclopts needs to know of a flag."""
    listed = isinstance(each.values, tuple) and all(word in each.help for word in each.values)
    return Parameter(
        name=flag(each.name),
        help=each.help,
        show_default=each.default or False,
        show_choices=not listed,
        metavar=_metavar(each),
        consume_multiple=get_origin(each.taken) is list,
        group=(each.panel,) if each.common else (each.panel, FURTHER),
    )


def parameters_of(path: str, panel: str) -> type:
    """Make flags of one configuration, ``"module:Class"``, for a command of its own."""
    name = path.partition(":")[2]
    return parameters(f"{name}Flags", [Flag(s.name, {(panel, ""): s}) for s in declared(path)])


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
