"""Trackers: a run's numbers in TensorBoard, W&B, MLflow or Trackio."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.errors import UserError, nearest
from foreword.reporter import Reporter


class Tracker(Reporter):
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

    def score(self, number: int, metric: str, value: float) -> None:
        """Send a dev score."""
        self.send(self.run, {f"dev/{metric}": value}, number)

    def done(self) -> None:
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
            raise UserError(f"`report_to={name}`: unknown; {nearest(name, TRACKERS)}")
    return [TRACKERS[name](out) for name in names]


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"`report_to={extra}` needs its library: pip install 'foreword[{extra}]'"
        ) from None
