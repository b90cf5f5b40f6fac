"""Registries: configurations by name, imported when they are first asked for."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from foreword.config.settings import Setting, declared, settings_of
from foreword.errors import UserError

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by name. The built-in ones are given as ``"module:Class"``.

    A class is imported when it is asked for. Names, :meth:`settings` and :meth:`name_of` import
    nothing. ``kind`` says in errors what the classes are: method, task ...
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.entries: dict[str, str | type[T]] = dict(entries)

    def __getitem__(self, name: str) -> type[T]:
        entry = self.entries[name]
        return load(entry) if isinstance(entry, str) else entry

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def register(self, name: str, cls: type[T]) -> None:
        """Add a class; raises UserError as :meth:`check` does."""
        self.check(name, cls)
        self.entries[name] = cls

    def check(self, name: str, cls: type[T]) -> None:
        """Raise UserError for a name that is taken, and for no frozen dataclass with defaults."""
        if not name.isidentifier():
            raise UserError(f"{self.kind} {name!r}: give a name of letters, digits and _")
        if name in self.entries:
            raise UserError(f"{self.kind} '{name}' is registered already; choose another name")
        params = getattr(cls, "__dataclass_params__", None)
        if params is None or not params.frozen or "__dataclass_params__" not in vars(cls):
            raise UserError(
                f"{self.kind} '{name}': {cls.__name__} must be a frozen dataclass; put "
                "@dataclass(frozen=True) above it"
            )
        for each in dataclasses.fields(cls):  # type: ignore[arg-type]
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
                raise UserError(
                    f"{self.kind} '{name}': setting '{each.name}' needs a default; give it one"
                )

    def name_of(self, value: T) -> str:
        """Return the name under which a value's class itself, and not a parent, is registered.

        Raises UserError where it is not.
        """
        cls = type(value)
        path = f"{cls.__module__}:{cls.__qualname__}"
        for name, entry in self.entries.items():
            if entry is cls or entry == path:
                return name
        raise UserError(
            f"{self.kind} {cls.__name__} is not registered, so its prompt could not be loaded "
            "again; put @foreword.register(NAME) above the class"
        )

    def settings(self, name: str) -> tuple[Setting, ...]:
        """Return the settings of a class, without importing a built-in one."""
        entry = self.entries[name]
        return declared(entry) if isinstance(entry, str) else settings_of(entry)


def load(path: str) -> Any:
    """Import what ``"module:name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
