"""Feedback: rows with their right answers, in one file a prompt that ``foreword train`` reads.

A row is a line of JSON: the fields of the prompt's template, the right answer under the name that
the prompt's task gives it, and ``feedback``, an object that says when and of what it was said. A
line stands on the disk before :meth:`FeedbackFiles.add` returns, and the half of one that a killed
server has left is removed by the next that is added. Any number of servers may share a folder.

People may edit a file. A row without ``feedback`` has no time, so that it never is too old, and its
id is made of its line. A line that is no row is told with its number.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

from foreword.errors import UserError
from foreword.files import write_whole
from foreword.serve.names import check_name
from foreword.serve.versions import Stamp

ABOUT = "feedback"
"""The field of a row that says when and of what it was said."""

SUFFIX = ".jsonl"

Line = tuple[bytes, dict[str, Any]]


class NotKeptError(UserError):
    """The disk did not take a row; nothing of it is kept."""


class FeedbackFiles:
    """The files of a folder, one for each prompt; all methods may be called from any thread.

    Rows older than ``days`` are removed when the folder is opened, and once an hour when one is
    added. Raises UserError for a folder that cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        days: float | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.folder, self.days, self.now, self.new_id = Path(folder), days, now, new_id
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"{folder}: no feedback can be written there ({error.strerror}); name another one"
            ) from None
        self._read: dict[Path, tuple[Stamp | None, list[dict[str, Any]]]] = {}
        self._cleaned = self.now()
        self.remove_old()

    def path(self, name: str) -> Path:
        """Return the file of a prompt's feedback, which need not be there yet."""
        return self.folder / f"{check_name(name)}{SUFFIX}"

    def names(self) -> list[str]:
        """Return the names of the prompts that have feedback."""
        found = self.folder.glob(f"*{SUFFIX}")
        return sorted(path.name[: -len(SUFFIX)] for path in found)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a prompt, oldest first, the same list until the file changes.

        Raises UserError for a line that is none.
        """
        path = self.path(name)
        with self._locked():
            stamp, found = Stamp.of(path), self._read.get(path)
            if found is None or found[0] != stamp:
                rows = [] if stamp is None else [row for _, row in _lines(path)]
                found = self._read[path] = stamp, rows
            return found[1]

    def add(self, name: str, row: Mapping[str, Any], **about: Any) -> str:
        """Keep a row, and return its id; ``about`` is what is known of it, None for nothing.

        Raises NotKeptError where the disk does not take it, and UserError for a row with a field
        ``feedback`` of its own; nothing is changed then.
        """
        if ABOUT in row:
            raise UserError(
                f"a row with a field `{ABOUT}` cannot be kept: that is where it says when and of "
                "what it was said; give the field of the template another name",
                field="input",
            )
        if self.now() - self._cleaned > timedelta(hours=1):
            with suppress(UserError):  # of another row's line, which is none of who adds this one
                self.remove_old()
        own = {"id": self.new_id(), "time": self.now().isoformat(timespec="microseconds")}
        own |= {key: value for key, value in about.items() if value is not None}
        line = json.dumps({**row, ABOUT: own}, ensure_ascii=False).encode() + b"\n"
        path = self.path(name)
        with self._locked():
            try:
                _append(path, line)
            except OSError as error:
                raise NotKeptError(f"the feedback could not be kept ({error.strerror})") from None
        return str(own["id"])

    def remove(self, *, id: str | None = None, subject: str | None = None) -> int:
        """Remove the row of an id, or all rows of a subject, and return how many there were."""

        def meant(about: Mapping[str, Any]) -> bool:
            return (id is not None and about.get("id") == id) or (
                subject is not None and about.get("subject") == subject
            )

        return self._remove(meant)

    def remove_old(self) -> int:
        """Remove the rows that are older than ``days``, and return how many there were."""
        self._cleaned = self.now()
        if self.days is None:
            return 0
        try:
            first = (self.now() - timedelta(days=self.days)).isoformat(timespec="seconds")
        except OverflowError:  # before the first of all years
            return 0
        return self._remove(lambda about: "" < str(about.get("time", "")) < first)

    def _remove(self, meant: Callable[[Mapping[str, Any]], bool]) -> int:
        gone = 0
        with self._locked():
            for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                lines = list(_lines(path))
                kept = [line for line, row in lines if not meant(row[ABOUT])]
                if len(kept) < len(lines):
                    write_whole(path, kept)
                    self._read.pop(path, None)
                    gone += len(lines) - len(kept)
        return gone

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads, and other servers on this folder, from reading and writing."""
        with FileLock(self.folder / ".lock"):
            yield


def _lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, whole as they stand, and as they are read.

    Raises UserError for one that is no row, unless it is the last and has no end.
    """
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.strip():
            continue
        if (row := _row(line)) is not None:
            yield line if line.endswith(b"\n") else line + b"\n", row
        elif line.endswith(b"\n"):
            raise UserError(
                f"{path.parent.name}/{path.name}:{number}: is no JSON object; mend the line, or "
                "remove it"
            )


def _row(line: bytes) -> dict[str, Any] | None:
    """Read a line; what it lacks of ``feedback`` is none, but for an id. None for what is no row.

    >>> _row(b'{"text": "a"}')
    {'text': 'a', 'feedback': {'id': 'fcf7579b2db13f7e'}}
    """
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    about = row.get(ABOUT)
    about = about if isinstance(about, dict) else {}
    if not re.fullmatch("[0-9a-f]{8,}", str(about.get("id"))):
        about = {**about, "id": hashlib.sha256(line.strip()).hexdigest()[:16]}
    return {**row, ABOUT: about}


def _append(path: Path, line: bytes) -> None:
    """Write a line to the end of a file and to the disk, or leave the file as it was."""
    new = not path.exists()
    with path.open("a+b", buffering=0) as file:
        end = _end_of_whole_lines(file)
        file.seek(end)
        if _row(left := file.read()) is None:
            file.truncate(end)
        else:  # a row that lacks its end alone
            end, line = end + len(left), b"\n" + line
        try:
            written = file.write(line)
            if written != len(line):
                written += file.write(line[written:])  # raises where there is no room left
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _end_of_whole_lines(file: Any) -> int:
    """Return where the last whole line of a file ends."""
    end = int(file.seek(0, os.SEEK_END))
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        part: bytes = file.read(end - start)
        if (found := part.rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
