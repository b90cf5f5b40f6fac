"""Configurations: frozen dataclasses to plain values and back, with every unknown key refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from foreword.errors import UserError, nearest

T = TypeVar("T")


def plain(config: object) -> dict[str, Any]:
    """Return a dataclass as JSON values: nested objects, lists, strings, numbers, null.

    Optional settings are left out where they have their default.
    """
    assert dataclasses.is_dataclass(config)
    values = {f: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {
        f.name: as_plain(value)
        for f, value in values.items()
        if not (f.metadata.get("optional") and value == f.default)
    }


def as_plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers, numpy's too, are Python's own."""
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(k): as_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(v) for v in value]
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def from_plain(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a dataclass from plain values; raises UserError for unknown keys and wrong types."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    made = typed({f.name: hints[f.name] for f in fields}, values, where)
    for f in fields:
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if needed and f.name not in made:
            raise UserError(f"{where}: setting '{f.name}' is missing; give it")
    return kind(**made)


def typed(hints: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return plain values as these types; raises UserError for unknown keys and wrong types.

    A value whose type is ``object`` is taken as it is.
    """
    made = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(
                f"{where}: unknown setting '{name}'; {nearest(str(name), sorted(hints))}"
            )
        made[name] = _typed(hints[name], value, f"{where}: setting '{name}'")
    return made


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in args:
            try:
                return _typed(option, value, where)
            except UserError:
                continue
        raise UserError(f"{where} is {value!r}, expected {_named(hint)}")
    if hint is object:
        return value
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where} is {value!r}; {nearest(str(value), map(str, args))}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    kind = {int: Integral, float: Real}.get(hint)  # numpy's numbers are of these too
    if kind is not None and isinstance(value, kind) and not isinstance(value, bool):
        return hint(value)
    if origin in (tuple, Sequence) and isinstance(value, list | tuple):
        return tuple(_typed(args[0], v, where) for v in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(k): _typed(args[1], v, where) for k, v in value.items()}
    simple = hint in (str, bool, types.NoneType)
    if simple and type(value) is hint:
        return value
    raise UserError(f"{where} is {value!r}, expected {_named(hint)}")


def _named(hint: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in names:
        return names[hint]
    if hint is types.NoneType:
        return "nothing"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_named(option) for option in get_args(hint))
    return "a list" if get_origin(hint) in (tuple, Sequence) else "an object"


def hash_of(value: object) -> str:
    """Return the SHA-256 of plain values, written as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
