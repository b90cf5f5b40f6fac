"""Watchers: who is told how a run goes. A live bar, a log file, and other people's trackers."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from foreword.errors import UserError, nearest
from foreword.files import write_whole


class Watcher(Protocol):
    """Told of the run's start, of every step and evaluation, and of the end."""

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Hear what is run, in how many steps, and how many of them are done already."""

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Hear of a step: its number from 1, ``loss``, ``rate``, ``norm`` and ``rows``."""

    def evaluation(self, number: int, metric: str, score: float) -> None:
        """Hear of a dev score after a step; 0 is before the first."""

    def stop(self) -> None:
        """Finish, whatever happened."""


def console() -> Console:
    """Return the console for everything that is not a result: standard error."""
    return Console(stderr=True, highlight=False, emoji=False)


class Bar:
    """A live line on standard error; where that is no terminal, a plain line an evaluation."""

    def __init__(self, doing: str = "tuning", unit: str = "rows") -> None:
        self.doing, self.unit = doing, unit
        self.console = console()
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.loss, self.dev, self.rows = "", "", 0.0
        self.began = time.monotonic()

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Show the bar."""
        self.began = time.monotonic()
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn(self.doing),
            BarColumn(bar_width=18),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=steps, completed=done, note="")

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self.loss = f"loss {values['loss']:.3f}"
        self.rows += values["rows"]
        self._show(number)

    def evaluation(self, number: int, metric: str, score: float) -> None:
        """Show the dev score."""
        self.dev = f"dev {score:.2f}"
        if self.bar is None:
            self.console.print(
                f"step {number}: {self.loss} {metric} on dev {score:.2f}".replace("  ", " ")
            )
        self._show(number)

    def _show(self, number: int) -> None:
        if self.bar is not None:
            speed = self.rows / max(1e-9, time.monotonic() - self.began)
            note = f"{self.loss} {self.dev} {speed:.1f} {self.unit}/s"
            self.bar.update(self.task, completed=number, note=note)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()


class Log:
    """A JSON line a step and an evaluation. A resumed run drops the lines it will write again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Begin the file, or cut it to the steps that are done."""
        first = json.dumps({"config": config, "steps": steps}, ensure_ascii=False)
        lines = (self._kept(done) if done else []) or [first]
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode())

    def _kept(self, done: int) -> list[str]:
        """Return the lines of the steps that are done, up to one that a kill cut off."""
        kept: list[str] = []
        text = self.path.read_text("utf-8", "replace") if self.path.is_file() else ""
        for line in text.split("\n"):
            try:
                if json.loads(line).get("step", 0) <= done:
                    kept.append(line)
            except json.JSONDecodeError:
                break
        return kept

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Write a step."""
        self._write({"step": number, **values})

    def evaluation(self, number: int, metric: str, score: float) -> None:
        """Write an evaluation."""
        self._write({"step": number, "dev": score, "metric": metric})

    def _write(self, values: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**values, "seconds": seconds}) + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None

    def stop(self) -> None:
        """Nothing is open between lines."""


class Tracker:
    """Another library's run: three functions that begin it, send numbers, and end it."""

    def __init__(
        self,
        begin: Callable[[Mapping[str, Any]], Any],
        send: Callable[[Any, Mapping[str, float], int], Any],
        end: Callable[[Any], Any],
    ) -> None:
        self.begin, self.send, self.end = begin, send, end
        self.run: Any = None

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Begin the run."""
        self.run = self.begin(config)

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Send a step's numbers."""
        self.send(self.run, {f"train/{k}": v for k, v in values.items()}, number)

    def evaluation(self, number: int, metric: str, score: float) -> None:
        """Send a dev score."""
        self.send(self.run, {f"dev/{metric}": score}, number)

    def stop(self) -> None:
        """End the run, if it began."""
        if self.run is not None:
            self.end(self.run)


def _tensorboard(out: Path) -> Tracker:
    module = _library("torch.utils.tensorboard", "tensorboard")

    def send(run: Any, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            run.add_scalar(name, value, step)

    return Tracker(
        lambda config: module.SummaryWriter(str(out.parent / "tensorboard" / out.stem)),
        send,
        lambda run: run.close(),
    )


def _wandb(out: Path) -> Tracker:
    module = _library("wandb", "wandb")
    return Tracker(
        lambda config: module.init(project="foreword", dir=str(out.parent), config=dict(config)),
        lambda run, values, step: run.log(dict(values), step=step),
        lambda run: run.finish(),
    )


def _mlflow(out: Path) -> Tracker:
    module = _library("mlflow", "mlflow")

    def begin(config: Mapping[str, Any]) -> Any:
        run = module.start_run()
        module.log_dict(dict(config), "config.json")
        return run

    return Tracker(
        begin,
        lambda run, values, step: module.log_metrics(dict(values), step=step),
        lambda run: module.end_run(),
    )


def _trackio(out: Path) -> Tracker:
    module = _library("trackio", "trackio")
    return Tracker(
        lambda config: module.init(project="foreword", config=dict(config)),
        lambda run, values, step: module.log(dict(values), step=step),
        lambda run: module.finish(),
    )


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}


def trackers(names: Sequence[str], out: Path) -> list[Tracker]:
    """Make the trackers asked for, of a run that writes ``out``.

    Raises UserError for unknown ones and missing libraries.
    """
    names = [name for given in names for name in given.split(",")]
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--report-to {name}: unknown; {nearest(name, TRACKERS)}")
    return [TRACKERS[name](out) for name in names]


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"--report-to {extra} needs its library: pip install 'foreword[{extra}]'"
        ) from None


class Watchers:
    """All watchers of a run, told together; the end is told on every way out."""

    def __init__(self, members: Sequence[Watcher]) -> None:
        self.members = members

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as stack:  # all of them, even if one of them raises
            for member in reversed(self.members):
                stack.callback(member.stop)

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Tell all of the start."""
        for member in self.members:
            member.start(config, steps, done)

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Tell all of a step."""
        for member in self.members:
            member.step(number, values)

    def evaluation(self, number: int, metric: str, score: float) -> None:
        """Tell all of a dev score."""
        for member in self.members:
            member.evaluation(number, metric, score)
