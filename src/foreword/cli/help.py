"""Help of a command: its flags in panels, some at first, all with ``--help-all``.

Where a task or a method is named beside ``--help``, all of its settings are shown, and none of
others.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cyclopts import App, Group, Parameter
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel, create_parameter_help_panel

from foreword.cli.flags import FLAGS, Flag, about
from foreword.cli.panels import FURTHER, place
from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.methods.registry import AUTO, CHOSEN, METHODS
from foreword.tasks.registry import TASKS

ALL = "--help-all"

KINDS: Mapping[str, Collection[str]] = {"task": TASKS, "method": METHODS}

UNTRAINED = ("zero-shot", "demonstrations", "probe")
"""What a comparison calls methods too, and has no settings here."""


def show_help(app: App, command: str, words: Sequence[str]) -> None:
    """Print the help of a command; ``words`` are all of the command line.

    Raises UserError for a task or a method that there is not.
    """
    named = {kind: names for kind in KINDS if (names := _named(kind, words))}
    _, apps, _ = app.parse_commands(command.split())
    with app.app_stack(apps):
        every = apps[-1].assemble_argument_collection(parse_docstring=False)
    settings = {n: f for each in every for n, f in getattr(each.hint, "flags", {}).items()}
    panels: dict[str, list[Argument]] = {}
    left = 0
    for each in every.filter_by(show=True):
        title = _title(each, settings.get(each.name), named, everything=ALL in words)
        if title is None:
            left += 1
        else:
            panels.setdefault(title, []).append(each)
    _print(command, inspect.getdoc(apps[-1].default_command) or "", panels)
    screen = console.out()
    if left:
        screen.print(f"{left} more: foreword {command} {ALL}")
    flags = [f"--{kind} {kind.upper()}" for kind in KINDS if f"--{kind}" in settings]
    if left and flags and not named:
        screen.print(f"all of one task or method: foreword {command} {' '.join(flags)} --help")


def _print(command: str, described: str, panels: Mapping[str, Sequence[Argument]]) -> None:
    """Print how a command is called, what it does, and its panels."""
    screen = console.out()
    shown = [_panel(title, panels[title]) for title in sorted(panels, key=place)]
    usage = _usage([entry for panel in shown for entry in panel.entries])
    screen.print(f"Usage: foreword {command} {usage}\n")
    for paragraph in described.split("\n\n"):
        screen.print(" ".join(paragraph.split()) + "\n")
    for panel in shown:
        DefaultFormatter()(screen, screen.options, panel)


def _panel(title: str, arguments: Sequence[Argument]) -> HelpPanel:
    collection = ArgumentCollection(arguments)  # type: ignore[no-untyped-call]
    panel = create_parameter_help_panel(Group(title), collection, "plaintext")
    panel.entries = [e.copy(default=None) if e.default == "False" else e for e in panel.entries]
    return panel


def _named(kind: str, words: Sequence[str]) -> list[str]:
    """Return the tasks or methods that are named, as in ``--method prefix+lora``."""
    found: list[str] = []
    for number, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name in (f"--{kind}", f"--{kind}s"):
            given = value if sign else "".join(words[number + 1 : number + 2])
            words_given = [each for each in given.replace("+", ",").split(",") if each]
            found += _chosen(kind, words_given)
    for each in found:
        if each not in (*KINDS[kind], *UNTRAINED):
            raise UserError(f"--{kind} {each}: unknown; {nearest(each, KINDS[kind])}")
    return [each for each in found if each in KINDS[kind]]


def _chosen(kind: str, names: Sequence[str]) -> list[str]:
    """Return names, and in place of the method that chooses those that it chooses of."""
    pairs = ((each, kind == "method" and each == AUTO) for each in names)
    return [name for each, choosing in pairs for name in (CHOSEN if choosing else (each,))]


def _title(
    argument: Argument, setting: Flag | None, named: Mapping[str, list[str]], *, everything: bool
) -> str | None:
    """Return the title of the panel of a flag, None where it is not shown.

    A setting becomes that of the tasks and methods that are ``named``, else of the usual ones.
    """
    if setting is None:
        groups: Any = argument.parameter.group
        return str(groups[0].name) if everything or FURTHER not in groups else None
    usual = {} if everything else {kind: _chosen(kind, [FLAGS[kind].default]) for kind in KINDS}
    its = setting.of({**usual, **named})
    if its is None:
        return None
    argument.parameter = Parameter.combine(argument.parameter, about(its))
    if not (everything or its.common or any(kind in named for kind, _ in its.owners)):
        return None
    kind = its.panel.split()[0]
    names = named.get(kind.lower(), [])
    if len(names) == 1:
        return f"{kind} {names[0]}"
    return kind if kind.lower() in KINDS and not names and not everything else its.panel


def _usage(entries: Sequence[HelpEntry]) -> str:
    """Return what a command needs, and that it takes more."""
    places = [e.positional_label or "" for e in entries if e.positional_label and e.required]
    needed = [
        f"{e.positive_names[0]} {e.metavar}"
        for e in entries
        if e.required and not e.positional_label
    ]
    return " ".join((*places, *needed, "[OPTIONS]"))
