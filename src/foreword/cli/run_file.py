"""Run files: settings in YAML or TOML, named as the flags are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from foreword.cli.flags import FLAGS, RUN
from foreword.cli.words import ESCAPED, unescaped
from foreword.config.settings import RENAMED
from foreword.errors import UserError, nearest


def read_run_file(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file of settings, named as the flags are (dashes or underscores)."""
    return named(read_mapping(path), str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file that is a mapping; raises UserError for any other."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".toml":
            read: Any = tomllib.loads(text)
        else:
            from foreword.cli.yaml_file import parse_yaml

            read = parse_yaml(text, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; write a mapping of settings") from None
    except ValueError as error:  # of TOML, and of bytes that are no text
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(read, dict):
        raise UserError(f"{path}: a run file is a mapping of settings to values")
    return {str(key): value for key, value in read.items()}


def named(read: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings by their names in code, as flags of the same words would give them.

    Raises UserError for unknown ones, for two that are one, and for wrong types.
    """
    back = {flag: name for name, flag in RENAMED.items()}
    made: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, value in read.items():
        name = key.replace("-", "_")
        name = back.get(name, name)
        if name not in FLAGS:
            raise UserError(f"{where}: unknown setting '{key}'; {nearest(key, FLAGS)}")
        if name in made:
            raise UserError(f"{where}: '{keys[name]}' and '{key}' are one setting; leave one out")
        made[name] = _value(name, value, f"{where}: setting '{key}'")
        keys[name] = key
    return made


WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Words for true and false, where a setting is one of these."""


def _value(name: str, value: Any, what: str) -> Any:
    """Return the value of a setting in its type; raises UserError, which begins with ``what``."""
    kind = FLAGS[name].type
    if isinstance(value, str):
        value = unescaped(value) if name in ESCAPED else _from_text(kind, value)
    elif name in ESCAPED and isinstance(value, list) and all(isinstance(e, str) for e in value):
        value = unescaped(value)
    expected = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    plain = kind in expected
    if value is None and name not in RUN:
        return value
    if plain and type(value) is not kind and not (kind is float and type(value) is int):
        raise UserError(f"{what} is {value!r}, expected {expected[kind]}")
    if name in RUN and get_origin(kind) is list:
        listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not listed:
            raise UserError(f"{what} is {value!r}, expected a list of texts")
    if get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
        raise UserError(f"{what} is {value!r}; {nearest(value, map(str, get_args(kind)))}")
    return float(value) if kind is float else value


def _from_text(kind: Any, text: str) -> Any:
    """Read a number that is in quotes, and yes and no."""
    if kind is bool:
        return WORDS.get(text.lower(), text)
    try:
        return float(text) if kind is float else text
    except ValueError:
        return text
