"""Registering tasks, methods and export formats of one's own: saved, loaded, and with flags."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from foreword.config.registry import Registry
from foreword.config.settings import Setting, declared, settings_of
from foreword.errors import UserError
from foreword.export.registry import EXPORTS
from foreword.methods.registry import METHODS
from foreword.tasks.registry import TASKS

T = TypeVar("T", bound=type[Any])

CONFIGURATIONS = {
    "the run": "foreword.training.run_settings:RunSettings",
    "training": "foreword.training.settings:Training",
    "decoding": "foreword.backbone.decode:Decoding",
}
"""What every run has beside its task and its method."""

SHARED = ("rate", "seed", "decoding")
"""Settings that mean the same wherever they stand."""

KEPT = ("name", "methods", "trained", "training")
"""What a prompt file says of a task or a method beside its settings."""


def register(name: str) -> Callable[[T], T]:
    """Return a class decorator that registers a method, a task or an export format.

    A method has ``build()``, a task ``bind()``, an export format ``write()``. Raises UserError for
    a name that is taken, for a class that is none of them, and for a setting with the name of
    another that means something else.

    Stands above the dataclass: ``@register("mine") @dataclass(frozen=True) class Mine``.
    """

    def add(cls: T) -> T:
        registry: Registry[Any]
        if hasattr(cls, "build"):
            registry = METHODS
        elif hasattr(cls, "bind"):
            registry = TASKS
        elif hasattr(cls, "write"):
            registry = EXPORTS
        else:
            raise UserError(
                f"'{name}': {cls.__name__} has neither build(), as a method, nor bind(), as a "
                "task, nor write(), as an export format"
            )
        registry.check(name, cls)
        if registry is not EXPORTS:  # whose settings are flags of another command
            check_settings(registry, name, settings_of(cls))
        registry.register(name, cls)
        return cls

    return add


def check_settings(registry: Registry[Any], name: str, own: Iterable[Setting]) -> None:
    """Raise UserError where settings have the names of others that mean something else.

    All settings of a run are flags of one command, so a method's ``dropout`` would take what was
    meant for training. Methods may share a setting, and tasks may, where it is of one type.
    """
    other = TASKS if registry is METHODS else METHODS
    peers = {f"{registry.kind} {n}": registry.settings(n) for n in registry if n != name}
    others = {f"{other.kind} {n}": other.settings(n) for n in other}
    others |= {owner: declared(path) for owner, path in CONFIGURATIONS.items()}
    for each in own:
        if each.name in KEPT:
            raise UserError(
                f"{registry.kind} '{name}': prompt files have a '{each.name}' of their own, so a "
                "setting cannot be named so; give it another name"
            )
        if each.name in SHARED:
            continue
        for owner, theirs in (*others.items(), *peers.items()):
            for known in theirs:
                if known.name != each.name or (owner in peers and known.flag == each.flag):
                    continue
                why = "has another type" if owner in peers else "means something else"
                raise UserError(
                    f"{registry.kind} '{name}': setting '{each.name}' is one of {owner}, and "
                    f"{why} there; give it another name"
                )
