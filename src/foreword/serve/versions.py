"""Versions of prompt files: private copies in a hidden folder, which nothing changes or cuts off.

A file that a user replaces is copied before it is read, so that what is served is never half of one
file and half of another. A copy keeps the time of its file, by which it is known again.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import UserError
from foreword.files import write_whole

HIDDEN = ".versions"
"""The folder of copies, inside of the folder of prompts."""

SUFFIX = ".safetensors"

OLD = 3600.0
"""Seconds after which no server writes to a version any more that has no name yet."""

_VERSION = re.compile(rf"([^@]+)@([1-9]\d{{0,8}}){re.escape(SUFFIX)}")


@dataclass(frozen=True)
class Stamp:
    """By what a file is known to be unchanged, without reading it."""

    changed: int  # nanoseconds
    size: int
    inode: int

    def copies(self, other: Stamp | None) -> bool:
        """Whether this is a copy of the other file, which has its time."""
        return other is not None and (self.changed, self.size) == (other.changed, other.size)

    @staticmethod
    def of(path: Path) -> Stamp | None:
        """Return the stamp of a regular file, links followed; None where there is none.

        Raises OSError where that cannot be told.
        """
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        regular = stat.S_ISREG(found.st_mode)
        return Stamp(found.st_mtime_ns, found.st_size, found.st_ino) if regular else None


class Versions:
    """The copies of a folder's prompts, by name and number.

    Where the folder cannot be written to they stand in a temporary one, until :meth:`close`.
    """

    def __init__(self, folder: Path) -> None:
        self.temporary: tempfile.TemporaryDirectory[str] | None = None
        self.folder = folder / HIDDEN
        try:
            self.folder.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError:
            self.temporary = tempfile.TemporaryDirectory(prefix="foreword-")
            self.folder = Path(self.temporary.name)
        for left in self.folder.glob(".new-*"):  # of a server that was killed
            with suppress(OSError):
                if time.time() - left.stat().st_ctime > OLD:
                    left.unlink()

    def close(self) -> None:
        """Remove what is temporary."""
        if self.temporary is not None:
            self.temporary.cleanup()

    def path(self, name: str, number: int) -> Path:
        """Return where a version is kept."""
        return self.folder / f"{name}@{number}{SUFFIX}"

    def content(self, name: str, number: int) -> int:
        """Return the version whose content a version has: its own, or one it was rolled back to."""
        try:
            return int(self._rolled_back(name, number).read_text("utf-8"))
        except (OSError, ValueError):
            return number

    def note_content(self, name: str, number: int, content: int) -> None:
        """Keep that a version was made by a rollback to another."""
        write_whole(self._rolled_back(name, number), str(content).encode())

    def _rolled_back(self, name: str, number: int) -> Path:
        return self.folder / f"{name}@{number}.rollback"

    def changed(self, name: str, number: int) -> int | None:
        """Return when the file of a version was changed, in nanoseconds; None where it is gone."""
        try:
            stamp = Stamp.of(self.path(name, number))
        except OSError:
            return None
        return None if stamp is None else stamp.changed

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the versions of a name that are kept, in order."""
        return self._numbers(f"{name}@").get(name, [])

    def all_numbers(self) -> dict[str, list[int]]:
        """Return the numbers of all versions that are kept, in order, by name."""
        return self._numbers("")

    def _numbers(self, start: str) -> dict[str, list[int]]:
        """Return the numbers of versions in files whose names have this start."""
        found: dict[str, list[int]] = {}
        for file in os.listdir(self.folder):
            if file.startswith(start) and (match := _VERSION.fullmatch(file)):
                found.setdefault(match[1], []).append(int(match[2]))
        return {name: sorted(numbers) for name, numbers in found.items()}

    def new(self) -> Path:
        """Return an empty file to write a version to, before it has a name."""
        handle, path = tempfile.mkstemp(prefix=".new-", suffix=SUFFIX, dir=self.folder)
        os.close(handle)
        return Path(path)

    def copied(self, file: Path, stamp: Stamp) -> Path:
        """Copy a file that has a stamp; raises UserError where it is changed meanwhile."""
        made = self.new()
        try:
            shutil.copyfile(file, made)
            if Stamp.of(file) != stamp:
                raise UserError("is being written to; it is read again once it is whole")
            os.utime(made, ns=(stamp.changed, stamp.changed))
        except OSError as error:
            made.unlink(missing_ok=True)
            raise UserError(f"cannot be read ({error.strerror})") from None
        except UserError:
            made.unlink(missing_ok=True)
            raise
        return made

    def keep(self, made: Path, name: str, number: int, older: int) -> None:
        """Give a copy its name, and forget all but so many ``older`` versions."""
        os.replace(made, self.path(name, number))
        self._remove(name, self.numbers(name)[: -older - 1])

    def remove(self, name: str) -> None:
        """Remove all versions of a prompt."""
        self._remove(name, self.numbers(name))

    def _remove(self, name: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._rolled_back(name, number).unlink(missing_ok=True)
            self.path(name, number).unlink(missing_ok=True)


def publish(version: Path, file: Path) -> Stamp:
    """Write a version's content to the file that users see, whole and with the same time.

    Returns its stamp; raises UserError where that cannot be done.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"the folder of prompts cannot be written to ({error.strerror})") from None
    try:
        shutil.copyfile(version, temporary)
        os.chmod(temporary, 0o644)
        changed = version.stat().st_mtime_ns
        os.utime(temporary, ns=(changed, changed))
        stamp = Stamp.of(Path(temporary))  # before anyone can replace it
        assert stamp is not None
        os.replace(temporary, file)
        return stamp
    except OSError as error:
        raise UserError(f"{file.name}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
