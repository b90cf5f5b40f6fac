"""Run files: settings in YAML or TOML, named as the flags are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import yaml

from foreword.cli.flags import FLAGS, RUN
from foreword.cli.words import RENAMED
from foreword.errors import UserError, nearest


def read_run_file(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file of settings, named as the flags are (dashes or underscores)."""
    return named(read_mapping(path), str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file that is a mapping; raises UserError for any other."""
    try:
        text = path.read_text("utf-8")
        read = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; write a mapping of settings") from None
    except (ValueError, yaml.YAMLError) as error:  # no date of the calendar is a ValueError
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(read, dict):
        raise UserError(f"{path}: a run file is a mapping of settings to values")
    return {str(key): value for key, value in read.items()}


def named(read: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings by their names in code; raises UserError for unknown ones and wrong types."""
    back = {flag: name for name, flag in RENAMED.items()}
    made = {}
    for key, value in read.items():
        name = key.replace("-", "_")
        name = back.get(name, name)
        if name not in FLAGS:
            raise UserError(f"{where}: unknown setting '{key}'; {nearest(key, FLAGS)}")
        made[name] = _number(value) if FLAGS[name].type is float else value
    for name, setting in RUN.items():
        if name in made and not _is(made[name], setting.flag):
            expected = {
                str: "text",
                int: "a whole number",
                float: "a number",
                bool: "true or false",
            }
            wanted = expected.get(setting.flag, "a list of texts")
            raise UserError(f"{where}: setting '{name}' is {made[name]!r}, expected {wanted}")
    return made


def _number(value: Any) -> Any:
    """Read ``1e-3``, which YAML takes for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return type(value) is kind
