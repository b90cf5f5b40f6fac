"""What the settings of a PEFT adapter folder say: which are known, and which modules they name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from foreword.errors import UserError
from foreword.export.peft_folder import CONFIG, WEIGHTS

_ALWAYS = {  # of every kind, and without a meaning for what an adapter does
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version"),
    *("revision", "task_type"),
}


def check_known(folder: Path, config: Mapping[str, Any], known: Container[str]) -> None:
    """Raise UserError for a setting that is set and not known: it may change what is meant."""
    for key, value in config.items():
        if key not in _ALWAYS and key not in known and value:
            raise UserError(f"{folder}: its {key} is {value!r}, which cannot be imported")


def check_whole(
    folder: Path, config: Mapping[str, Any], modules: Iterable[str], held: Container[str]
) -> None:
    """Raise UserError where the tensors of one of the modules are missing that settings name."""
    try:
        absent = next((m for m in modules if _is_target(config, m) and m not in held), None)
    except (re.error, TypeError, ValueError):
        raise UserError(f"{folder / CONFIG}: its target_modules are damaged") from None
    if absent is not None:
        raise UserError(
            f"{folder / WEIGHTS}: lacks '{absent}', one of the target_modules of {CONFIG}; copy "
            "the whole folder"
        )


def _is_target(config: Mapping[str, Any], name: str) -> bool:
    """Whether PEFT would adapt a module of this name."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if not targets or (excluded and _named(excluded, name)) or not _named(targets, name):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(targets, str) or name in targets or layers is None or layers == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    numbers = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in patterns)
    found = next((int(match[1]) for match in numbers if match), None)
    return found in ([layers] if isinstance(layers, int) else layers)


def _named(names: Any, name: str) -> bool:
    """Whether a regular expression, or one of several ends of names, means this one."""
    if isinstance(names, str):
        return names == "all-linear" or re.fullmatch(names, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in names)
