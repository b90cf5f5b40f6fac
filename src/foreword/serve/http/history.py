"""The history of a prompt: where each version comes from, and what it is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors import SafetensorError, safe_open

from foreword.metrics.resample import proportion
from foreword.prompt.schema import KEY
from foreword.serve.prompts import PromptFolder


def history(
    prompts: PromptFolder, name: str, attempts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what is known of each version that is kept, oldest first.

    ``attempts`` are those of the server that learns. A version's ``origin`` is "file", "feedback"
    or "rollback", ``replaced`` the version that was current before it, ``rows`` those that it was
    tuned on and ``scores`` those of its file, an accuracy with its 95% interval; ``held`` is its
    score on rows held back from feedback, with its 95% interval. ``content`` is the version that a
    rollback brought back, where it is known.
    """
    made = {each["new_version"]: each for each in attempts if each["new_version"] is not None}
    found = []
    for number in prompts.versions.numbers(name):
        version, file = f"{name}@{number}", _metadata(prompts, name, number)
        attempt = made.get(version)
        if attempt and attempt.get("changed") not in (None, prompts.versions.changed(name, number)):
            attempt = None  # of a prompt that was removed
        content = prompts.versions.content(name, number)
        if content != number or (attempt is not None and not attempt["taken"]):
            origin = "rollback"
        else:
            origin = "file" if attempt is None else "feedback"
        about = {
            "version": version,
            "origin": origin,
            "replaced": f"{name}@{number - 1}" if number > 1 else None,
            "rows": file.get("data", {}).get("train", {}).get("rows"),
            "scores": _with_interval(file.get("scores", {})),
        }
        if origin == "rollback":
            about["content"] = None if content == number else f"{name}@{content}"
        elif attempt is not None:
            about["held"] = {
                "score": attempt["new"],
                "interval": attempt.get("interval"),
                "rows": attempt["held"],
            }
        found.append(about)
    return found


def _with_interval(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's scores; the accuracy on its dev rows is given an interval by their number."""
    found = dict(scores)
    match scores.get("dev"):
        case {"accuracy": int() | float() as accuracy, "rows": int() as rows} if (
            rows > 0 and 0 <= accuracy <= 100  # a file says what it likes
        ):
            bounds = proportion(round(accuracy * rows / 100), rows).bounds()
            found["dev"] = {**scores["dev"], "interval": bounds}
    return found


def _metadata(prompts: PromptFolder, name: str, number: int) -> dict[str, Any]:
    """Return what a version's file says of itself; nothing for one gone or damaged meanwhile."""
    try:
        with safe_open(str(prompts.versions.path(name, number)), "np") as file:
            found = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (OSError, SafetensorError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
