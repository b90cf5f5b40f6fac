"""The prompts of a folder, which come, change and go while the server runs."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword_vllm.errors import PromptError
from foreword_vllm.prefix import Prefix, read_prefix

SUFFIX = ".safetensors"

KEPT = ".prefixes"
"""The hidden folder of what is served: one file for each content, named by its SHA-256.

The workers of vLLM read there, so that a request finds what it began with, whatever has become of
the prompt's own file.
"""

SECONDS = 3600
"""How long a content that no prompt has any more is kept for requests that began with it."""

USED = 300
"""How often a content that is asked for is marked as in use, for other servers of the folder."""


def kept(folder: Path, sha256: str) -> Path:
    """Return where a content is kept."""
    return folder / KEPT / f"{sha256}{SUFFIX}"


@dataclass(frozen=True)
class _Seen:
    """A file as it was when it was looked at, and what came of that."""

    stamp: tuple[int, ...]
    prefix: Prefix | None
    refused: str = ""


class PromptFolder:
    """Prompts by the names of their files; ``check`` raises PromptError for one that must not be.

    A file that is put in, replaced or removed is seen at the next request. One that is refused
    leaves nothing in its place: its requests are told why.
    """

    def __init__(self, folder: Path, check: Callable[[Prefix], None] = lambda prefix: None) -> None:
        self.folder, self.check = folder, check
        self._seen: dict[str, _Seen] = {}

    def names(self) -> list[str]:
        """Return the names of all files, in order; none is opened."""
        found = self.folder.glob(f"*{SUFFIX}") if self.folder.is_dir() else ()
        return sorted(path.name[: -len(SUFFIX)] for path in found if path.name[0] != ".")

    def get(self, name: Any) -> Prefix | None:
        """Return a prompt, None where there is no file of that name.

        Raises PromptError for a file that cannot be served.
        """
        if not isinstance(name, str) or not name or name[0] == "." or set(name) & {"/", "\\", "\0"}:
            return None
        path = self.folder / f"{name}{SUFFIX}"
        try:
            about = path.stat()
        except (OSError, ValueError):
            self._seen.pop(name, None)
            return None
        stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
        seen = self._seen.get(name)
        if seen is None or seen.stamp != stamp or (seen.prefix and not self._mark(seen.prefix)):
            try:
                seen = _Seen(stamp, self._taken(path))
            except PromptError as error:
                seen = _Seen(stamp, None, str(error))
            self._seen[name] = seen
        if seen.prefix is None:
            raise PromptError(f"prompt '{name}' cannot be served: its file {seen.refused}")
        return seen.prefix

    def _taken(self, path: Path) -> Prefix:
        """Read a copy of a file, which nothing that is done to the file can touch, and keep it."""
        store = self.folder / KEPT
        try:
            store.mkdir(exist_ok=True)
            handle, copy = tempfile.mkstemp(dir=store, suffix=".new")
            os.close(handle)
        except OSError as error:
            raise PromptError(
                f"cannot be kept in {store} ({error.strerror}); the server must be able to write "
                "there"
            ) from None
        try:
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o644)
            prefix, _ = read_prefix(Path(copy))
            self.check(prefix)
            os.replace(copy, kept(self.folder, prefix.sha256))
        except OSError as error:
            raise PromptError(f"cannot be copied ({error.strerror})") from None
        finally:
            Path(copy).unlink(missing_ok=True)
        self._tidy(prefix)
        return prefix

    def _mark(self, prefix: Prefix) -> bool:
        """Mark a content as in use, at most every `USED` seconds; return whether it is there."""
        path = kept(self.folder, prefix.sha256)
        try:
            if time.time() - path.stat().st_mtime > USED:
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:  # another user's file, which is there all the same
            pass
        return True

    def _tidy(self, new: Prefix) -> None:
        """Remove contents that no prompt has had for long; others are marked as in use now."""
        used = {each.prefix.sha256 for each in self._seen.values() if each.prefix} | {new.sha256}
        now = time.time()
        for path in (self.folder / KEPT).glob(f"*{SUFFIX}"):
            try:
                if path.name[: -len(SUFFIX)] in used:
                    os.utime(path)
                elif now - path.stat().st_mtime > SECONDS:
                    path.unlink()
            except OSError:  # another server has removed it
                continue
