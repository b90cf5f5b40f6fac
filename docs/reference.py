"""Write docs/api.md, the reference of Foreword's Python names, from their docstrings.

``python docs/reference.py`` writes it anew; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import foreword

PAGE = Path(__file__).with_name("api.md")

GROUPS = {
    "Tune and use": "tune load Prompt evaluate Evaluation Answered compare Comparison Entry "
    "load_prompt Ensemble search Searched retune Retuned Remade",
    "Rows": "as_rows read_rows check Checked Problem Row BadRows Data",
    "More from a prompt": "report_on Report explain Explanation prune Pruned compress "
    "augment Augmented multitask average concatenate fit similarity to_peft from_peft",
    "Tasks": "Classify Multilabel Relate Tag Score Generate Translate Summarize Answer Chat Rank",
    "Methods": "Auto Prefix Soft PTuning Deep Context Cartridge Attempt Adapter Lora IA3 Head Full "
    "Several FromFile ZeroShot Demonstrations Probe",
    "Settings of runs": "Training Decoding preset find_rate Augment SelfStudy Member Sharing "
    "compare_runs Run Model",
    "scikit-learn": "sklearn.PromptClassifier",
    "Recurrent models": "pretrain Pretrained Pretraining",
    "Hearing how a run goes": "Reporter Terminal SILENT UserError",
    "Serving": "Engine Sampling Piece",
    "Below the surface": "Backbone Injection Example register",
}
"""Every public name, under the title that it stands below."""

INTRODUCTION = """# Reference

Every public name of `foreword`, from its docstring. `python docs/reference.py` writes this page.
What they are for is on the page on [Python](python.md); how to add a task, a method or a format,
in [extending](extending.md).
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for title, names in GROUPS.items():
        links = ", ".join(f"[{name}](#{name.lower().replace('.', '')})" for name in names.split())
        parts.append(f"## {title}\n\n{links}\n")
        parts += [entry(name, attrgetter(name)(foreword)) for name in names.split()]
    return "\n".join(parts)


def entry(name: str, value: Any) -> str:
    """Return what is said of one name."""
    lines = [f"### {name}", ""]
    if inspect.isclass(value):
        if dataclasses.is_dataclass(value):
            lines += [*prose(value), *settings(value)]
        else:
            lines += [*signature(name, value), *prose(value)]
        lines += properties(value)
        for method, function in members(value):
            lines += [*signature(f"{name}.{method}", function), *prose(function)]
    elif callable(value):
        lines += [*signature(name, value), *prose(value)]
    else:
        lines += [f"A `{type(value).__name__}` that reports nothing.", ""]
    return "\n".join(lines)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods that a class documents itself, those of tasks and methods aside."""
    if name_in(cls, "Tasks") or name_in(cls, "Methods"):
        return
    for name, value in vars(cls).items():
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield name, function


def properties(cls: type) -> list[str]:
    """Return what a class computes, as a list, with the first line that is said of each."""
    if name_in(cls, "Tasks") or name_in(cls, "Methods"):
        return []
    lines = []
    for name, value in vars(cls).items():
        function = getattr(value, "fget", getattr(value, "func", None))
        if function is not None and not name.startswith("_"):
            lines.append(f"- `{name}`: {prose(function)[0]}")
    return [*lines, ""] if lines else []


def name_in(cls: type, group: str) -> bool:
    """Whether a class is listed in a group."""
    return cls.__name__ in GROUPS[group].split()


def signature(name: str, function: Any) -> list[str]:
    """Return a call as code, a parameter a line where it is long."""
    shown = [parameter(each) for each in inspect.signature(function).parameters.values()]
    shown = [each for each in shown if each != "self"]
    keyword = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY
    ]
    if keyword:
        at = next(n for n, each in enumerate(shown) if re.match(rf"{keyword[0]}\b", each))
        shown.insert(at, "*")
    line = f"{name}({', '.join(shown)})"
    if len(line) > 88:
        line = f"{name}(\n    " + ",\n    ".join(shown) + ",\n)"
    return ["```python", line, "```", ""]


def parameter(each: inspect.Parameter) -> str:
    """Return a parameter with its default; its type where that says more."""
    stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
    if each.default is each.empty:
        return f"{stars}{each.name}"
    plain = each.default is None or isinstance(each.default, str | int | float | bool | tuple)
    return f"{each.name}={literal(each.default)}" if plain else f"{each.name}=..."


def literal(value: Any) -> str:
    """Return a plain value as code, texts in double quotes."""
    if isinstance(value, tuple):
        inner = ", ".join(map(literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def settings(cls: type) -> list[str]:
    """Return the fields of a dataclass as a list, with their help where they have one."""
    lines = []
    for each in dataclasses.fields(cls):
        default = ""
        if each.default is not dataclasses.MISSING:
            default = f" = {each.default!r}"
        elif each.default_factory is not dataclasses.MISSING:
            default = " = ..."
        said = each.metadata.get("help", "")
        lines.append(f"- `{each.name}: {each.type}{default}`{': ' if said else ''}{said}")
    return [*lines, ""] if lines else []


def prose(value: Any) -> list[str]:
    """Return a docstring as Markdown."""
    text = inspect.cleandoc(value.__doc__ or "")
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = text.replace("``", "`")
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        code = line.startswith((">>> ", "... ")) or (inside and line != "")
        if code != inside:
            lines.append("```python" if code else "```")
            inside = code
        lines.append(line)
    return [*lines, *(["```"] if inside else []), ""]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
