"""The prompts of a folder: what they are for, and which of them are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foreword.compose.similar import Essence, essence, similarity
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.injection import NOTHING
from foreword.prompt.file import PromptFile, read_file
from foreword.reporter import SILENT, Reporter


@dataclass(frozen=True, eq=False)
class Entry:
    """One prompt file: what a catalogue shows of it, and what it is compared by."""

    file: str  # under the folder
    task: str
    labels: tuple[str, ...]
    backbone: str
    fingerprint: str
    method: str
    bytes: int
    scores: Mapping[str, tuple[str, float]]  # "dev", "test": the metric and its value
    essence: Essence

    def text(self) -> str:
        """Return the text that is searched."""
        scores = [f"{name} {metric} {value:.2f}" for name, (metric, value) in self.scores.items()]
        parts = (self.file, self.task, *self.labels, self.backbone, self.method, *scores)
        return "\n".join(parts).lower()

    def similarity_to(self, other: Entry) -> float | None:
        """Return the similarity to another prompt; None where the two cannot be compared."""
        if self.fingerprint != other.fingerprint:
            return None
        return similarity(self.essence, other.essence)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The prompts of a folder by file name, and the files that cannot be read, with the reason."""

    entries: tuple[Entry, ...]
    unreadable: tuple[tuple[str, str], ...]

    @cached_property
    def similarities(self) -> list[list[float | None]]:
        """Every prompt's similarity to every other; None on the diagonal."""
        count = len(self.entries)
        made: list[list[float | None]] = [[None] * count for _ in range(count)]
        for i, one in enumerate(self.entries):
            for j in range(i):
                made[i][j] = made[j][i] = one.similarity_to(self.entries[j])
        return made

    def nearest(self, index: int) -> tuple[int, float] | None:
        """Return the index and the similarity of the prompt that is most like one of them."""
        found = [
            (value, -j) for j, value in enumerate(self.similarities[index]) if value is not None
        ]
        if not found:
            return None
        value, j = max(found)
        return -j, value

    def matching(self, text: str) -> Catalogue:
        """Return the prompts whose text contains another."""
        kept = tuple(entry for entry in self.entries if text.lower() in entry.text())
        return Catalogue(kept, self.unreadable)

    def by_similarity(self, to: Entry) -> tuple[Catalogue, list[float | None]]:
        """Return the prompts, most similar to another first, with their similarities."""
        pairs = [(to.similarity_to(entry), entry) for entry in self.entries]
        pairs.sort(key=lambda pair: -2.0 if pair[0] is None else pair[0], reverse=True)
        return Catalogue(tuple(e for _, e in pairs), self.unreadable), [s for s, _ in pairs]


def read_catalogue(folder: Path, report: Reporter = SILENT) -> Catalogue:
    """Read the prompts in a folder and in those below it; no model is loaded.

    Raises UserError where there is no such folder, or no prompt in it.
    """
    files = files_below(folder)
    entries: list[Entry] = []
    unreadable: list[tuple[str, str]] = []
    with report.bar("reading prompts", len(files)) as progress:
        for file in files:
            name = str(file.relative_to(folder))
            try:
                entries.append(read_entry(file, name))
            except UserError as error:
                unreadable.append((name, str(error).removeprefix(f"{file}: ")))
            progress(1)
    if not entries:
        raise UserError(
            f"{folder}: holds no prompt; of {counted(len(files), 'file')} the first, "
            f"{unreadable[0][0]}: {unreadable[0][1]}"
        )
    return Catalogue(tuple(entries), tuple(unreadable))


def files_below(folder: Path) -> list[Path]:
    """Return the prompt files in a folder and in those below it, hidden ones left out.

    Raises UserError where there is no such folder, or no file in it.
    """
    if folder.is_file():
        raise UserError(f"{folder}: is a file, not a folder; name a folder that holds prompt files")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds prompt files")
    files = sorted(
        path
        for path in folder.rglob("*.safetensors")
        if path.is_file() and not any(n.startswith(".") for n in path.relative_to(folder).parts)
    )
    if not files:
        raise UserError(f"{folder}: holds no prompt files (*.safetensors), nor do folders below it")
    return files


def read_entry(file: Path, name: str | None = None) -> Entry:
    """Read one prompt file, or an ensemble's; raises UserError where it is neither."""
    read = read_file(file)
    return Entry(
        file=str(file) if name is None else name,
        task=read.task["name"],
        labels=_classes(read.task),
        backbone=read.backbone["name"],
        fingerprint=read.backbone["fingerprint"],
        method=_method(read),
        bytes=file.stat().st_size,
        scores=_scores(read.meta["scores"]),
        essence=essence(NOTHING if read.members else read.injection),
    )


def _classes(task: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a task's labels or anchors by name; nothing for a task without them."""
    if task.get("anchors"):
        return tuple(f"{number:g}" for number in sorted(task["anchors"].values()))
    return tuple(sorted(task.get("labels") or ()))


def _method(read: PromptFile) -> str:
    if read.members:
        return f"ensemble of {', '.join(map(_method, read.members))}"
    return describe_method(read.meta["method"])


def describe_method(method: Mapping[str, Any]) -> str:
    """Name a method, with its parts where a prompt was composed of others.

    >>> describe_method({"name": "concat", "parts": [{"name": "soft"}, {"name": "prefix"}]})
    'concat(soft, prefix)'
    """
    name, parts = str(method.get("name", "?")), method.get("parts")
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return name
    own = [describe_method(part) if isinstance(part, Mapping) else "?" for part in parts]
    return f"{name}({', '.join(own)})"


def _scores(kept: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Return the first metric of the dev and of the test scores in a prompt file."""
    made = {}
    for name in ("dev", "test"):
        own = kept.get(name)
        for metric, value in own.items() if isinstance(own, Mapping) else ():
            if metric != "rows" and isinstance(value, int | float):
                made[name] = (str(metric), float(value))
                break
    return made
