"""The log of a run: a JSONL file beside its prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import UserError
from foreword.files import beside, write_whole
from foreword.reporter import Reporter


def log_path(out: Path) -> Path:
    """Return the path of the log of a run that writes ``out``."""
    return beside(out, "log.jsonl")


def files_of(out: Path) -> Mapping[str, str]:
    """Return the files of the rows of a prompt by part, as its log names them; none without it."""
    try:
        with log_path(out).open(encoding="utf-8") as file:
            files = json.loads(file.readline())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(part): str(name) for part, name in dict(files).items()}


@dataclass(frozen=True)
class Curves:
    """The loss of each step of a run, and its dev scores by metric as (step, score)."""

    steps: Sequence[int]
    losses: Sequence[float]
    scores: Mapping[str, Sequence[tuple[int, float]]]


def read_curves(path: Path) -> Curves:
    """Read the curves of a log; a line that is still being written is left out.

    Raises UserError for a file that is no log, or in which no step is done.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
        entries = [json.loads(line) for line in lines[:1]]
    except OSError as error:
        why = error.strerror
        raise UserError(f"{path}: cannot be read ({why}); give the log of a run") from None
    except ValueError:
        entries = []
    if not (entries and isinstance(entries[0], dict) and entries[0].keys() >= {"config", "steps"}):
        raise UserError(f"{path}: is no log of a run; give NAME.log.jsonl, which train writes")
    steps: list[int] = []
    losses: list[float] = []
    scores: dict[str, list[tuple[int, float]]] = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if "loss" in entry:
            steps.append(entry["step"])
            losses.append(entry["loss"])
        else:
            scores.setdefault(entry["metric"], []).append((entry["step"], entry["dev"]))
    if not steps:
        raise UserError(f"{path}: no step is done yet; there is nothing to draw")
    return Curves(steps, losses, scores)


class Log(Reporter):
    """Writes a JSON line for each step and dev score; a resumed run drops lines it will repeat.

    ``files`` are those that the rows were read from, which the first line names.
    """

    def __init__(self, path: Path, files: Mapping[str, str] | None = None) -> None:
        self.path, self.files = path, dict(files or {})
        self.began = time.monotonic()

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Begin the file, or cut it to the steps that are done."""
        about = {"config": config, "steps": steps, "files": self.files}
        first = json.dumps(about, ensure_ascii=False)
        lines = (self._kept(done) if done else []) or [first]
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode())

    def _kept(self, done: int) -> list[str]:
        """Return the lines of the steps that are done, up to one that was cut off."""
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

    def score(self, number: int, metric: str, value: float) -> None:
        """Write a dev score."""
        self._write({"step": number, "dev": value, "metric": metric})

    def _write(self, values: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**values, "seconds": seconds}) + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
