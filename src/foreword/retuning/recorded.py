"""What is known of how a prompt was made: its method, its training, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foreword.config.values import from_plain
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import digest, first, hold_out, others, per_class
from foreword.errors import UserError
from foreword.methods.base import Method
from foreword.methods.parts.several import rebuild_method
from foreword.prompt.prompt import Prompt
from foreword.training.log import files_of
from foreword.training.prepare import DEV_SHARE
from foreword.training.settings import Training

Found = tuple[list[Row], list[Row]]


def recorded_method(prompt: Prompt) -> tuple[Method, Training]:
    """Return the method and the training of a prompt, as its file says.

    Raises UserError where it does not say all of them, as of a prompt that went on from another.
    """
    about, where = prompt.method, prompt.where
    if "source" in about or "training" not in about:
        raise UserError(f"{where}: does not say by which settings it was trained; tune it again")
    return rebuild_method(about, where), from_plain(Training, about["training"], where)


@dataclass(frozen=True)
class RecordedRows:
    """The rows that a prompt was tuned on and judged by, known by their numbers and hashes."""

    prompt: Prompt

    def find(self, sources: Iterable[Sequence[Row]]) -> Found:
        """Return the train and the dev rows; they are all of a source, or drawn from it as usual.

        No source is asked for when both are found. Raises UserError where the sources have other
        rows.
        """
        train = dev = None
        for source in sources:
            for one, held in self._parts(source):
                if train is None and self._are(one, "train"):
                    train = one
                if dev is None and held is not None and self._are(held, "dev"):
                    dev = held
            if train is not None and dev is not None:
                return train, dev
        where = self.prompt.where
        name = "train" if train is None else "dev"
        count = self._count(name)
        raise UserError(
            f"{where}: none of the files has the {count} {name} rows that it was tuned with; "
            f"give them as they were then with `{name}`"
        )

    def _parts(self, source: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row] | None]]:
        """Yield what may be the train rows, or the dev rows, or both."""
        for drawn in self._drawn(source):
            yield drawn, drawn
            if self._held_out and len(drawn) > 1:
                # Older prompts took the number of a score for a class.
                for by in dict.fromkeys((self.prompt.task.class_field, self._label)):
                    with suppress(UserError):  # rows without this label
                        yield hold_out(drawn, DEV_SHARE, self._seed, by=by)
            elif self._are(drawn, "train") and len(drawn) < len(source):
                label = self._label
                k = None if label is None else len(drawn) // len(self._classes(drawn))
                yield drawn, others(source, drawn, k, self._seed, label)

    def _drawn(self, source: Sequence[Row]) -> Iterator[list[Row]]:
        """Yield all rows, and those that ``rows`` and ``per_label`` would draw."""
        yield list(source)
        train, dev = self._count("train"), self._count("dev")
        for count in dict.fromkeys((train, train + dev, dev)):
            if 0 < count < len(source):
                yield first(source, count, self._seed)
        if self._label is not None:
            classes = self._classes(source)
            for count in (train, train + dev):
                if classes and count % len(classes) == 0 and count:
                    try:
                        yield per_class(source, count // len(classes), self._seed, self._label)
                    except UserError:
                        continue  # some class has fewer rows

    def _are(self, rows: Sequence[Row], name: str) -> bool:
        about = self.prompt.data.get(name, {})
        return len(rows) == self._count(name) and digest(rows) == str(about.get("sha256"))

    def _count(self, name: str) -> int:
        return int(self.prompt.data.get(name, {}).get("rows", 0))

    def _classes(self, rows: Sequence[Row]) -> set[str]:
        return {str(row.fields.get(self._label or "")) for row in rows}

    @property
    def _seed(self) -> int:
        return self.prompt.seed or 0

    @property
    def _label(self) -> str | None:
        return self.prompt.task.label_field

    @cached_property
    def _held_out(self) -> bool:
        """Whether no more rows judge the prompt than are held back where no dev rows are given.

        They are fewer where classes have one row, which is not held back.
        """
        train, dev = self._count("train"), self._count("dev")
        return 0 < dev <= max(1, round(DEV_SHARE * (train + dev)))


def recorded_sources(prompt: Prompt, file: Path) -> Iterator[list[Row]]:
    """Yield the rows of the files that a prompt's log names, which may have moved with it.

    A file that cannot be read is left out.
    """
    for name in dict.fromkeys(files_of(file).values()):
        near = file.parent
        paths = (Path(name), near / name, near / Path(name).name)
        path = next((each for each in paths if each.is_file()), None)
        if path is not None:
            with suppress(UserError):
                yield as_rows(path, fields=prompt.task.pair)
