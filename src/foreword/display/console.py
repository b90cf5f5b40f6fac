"""The console: results on standard output, and lines for people on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from foreword.display.facts import facts
from foreword.files import json_line
from foreword.grammar import counted
from foreword.prompt.schema import LARGE
from foreword.reporter import Reporter
from foreword.terminal import console as error_console


def out() -> Console:
    """Return the console for results: standard output, never wider than a terminal of 80."""
    # markup off: brackets in a template or a label are text
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = 80
    return found


def line(text: str) -> None:
    """Print a line of results on standard output, never broken: it may hold a path."""
    out().print(text, soft_wrap=True)


def say(line: str) -> None:
    """Print a line for people on standard error."""
    error_console().print(line, markup=False, soft_wrap=True)


class Effective(Reporter):
    """Says on standard error what a run trains, on what, when it starts; keeps its ``config``.

    With ``verbose`` all settings follow.
    """

    config: Mapping[str, Any]

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Print one line, and with ``verbose`` all settings that are not left open."""
        data = {k: v for k, v in config["data"].items() if k != "demonstrations"}
        self.config = {**config, "data": data}
        method, training = config["method"], config["method"]["training"]
        model = Path(config["backbone"]["name"]).name
        rows, dev = data["train"]["rows"], data["dev"]["rows"]
        say(
            f"tuning {method['name']} ({method['trained']} numbers) for {config['task']['name']} "
            f"on {model}: {counted(rows, 'row')}, {counted(dev, 'dev row')}, "
            f"{counted(training['epochs'], 'epoch')}, {counted(steps, 'step')}"
        )
        if self.verbose:
            shown = {k: v for k, v in data.items() if k not in LARGE}
            error_console().print(facts({**self.config, "data": shown}), markup=False)


def emit(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json_line(value, _plain).decode())


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def say_leads(result: Mapping[str, Any]) -> None:
    """Say how much better or worse the prompt is than the linear model on states, if any."""
    probe = result.get("baselines", {}).get("probe", {})
    if "lead" in probe:
        bounds = [probe["lead"]["value"], *probe["lead"]["interval"]]
        above = bounds[0] >= 0
        value, low, high = bounds if above else (-bounds[0], -bounds[2], -bounds[1])
        line(
            f"{'above' if above else 'below'} {probe['model']} by {value:.1f} "
            f"({low:.1f} to {high:.1f}) of 100 rows"
        )


def warn_of_leaks(result: Mapping[str, Any]) -> None:
    """Warn of rows that were scored and are in the training rows too, where there are some."""
    if result.get("in_train"):
        line(f"warning: {result['in_train']} of {result['rows']} of these rows are in train too")
