"""The prompts of a folder, opened when they are asked for and replaced while they are in use."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from threading import RLock
from typing import Any, cast

from foreword.backbone.backbone import Backbone
from foreword.compose.ensemble import Ensemble, load_prompt
from foreword.compose.merge import concatenate
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.prompt.answerer import Answerer
from foreword.prompt.prompt import Prompt
from foreword.serve.held import held_bytes
from foreword.serve.names import Part, RefusedPromptError, UnknownPromptError, check_name, parse
from foreword.serve.versions import SUFFIX, Stamp, Versions, publish


@dataclass
class _Entry:
    """What is known of a name: its current version, and why a newer file is not served."""

    number: int = 0  # 0: none has been good so far
    stamp: Stamp | None = None  # of the file when it was last looked at
    refused: str | None = None
    unseen: str | None = None  # why the file cannot be looked at now


class PromptFolder:
    """Prompts by the names of the files in a folder, each with its versions.

    A file is opened when it is first asked for, and checked as :meth:`Prompt.load` checks it, on
    the backbone. One that has changed since is the next version, ``name@2``; one that is refused
    leaves the version before it in place. The current version and the ``keep`` before it are kept.
    Prompts of up to ``memory`` bytes in all stay open, those that were used last, counted with what
    an engine holds of them; ``on_close`` hears of each that does not, and must let the engine
    release it. Who has a prompt in hand may go on using it, whatever happens to
    its name. All methods may be called from any thread.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: Backbone,
        *,
        keep: int = 3,
        memory: int = 2**30,
        taken: Collection[str] = (),
        on_close: Callable[[Answerer], None] = lambda prompt: None,
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; name one that holds prompt files")
        self.backbone, self.keep, self.memory = backbone, keep, memory
        self.taken, self.on_close = frozenset(taken), on_close
        self.versions = Versions(self.folder)
        self.hits = self.misses = 0
        self._lock = RLock()
        self._entries: dict[str, _Entry] = {}
        self._open: OrderedDict[tuple[tuple[str, int], ...], tuple[Answerer, int]] = OrderedDict()

    def close(self) -> None:
        """Close all prompts."""
        self._close(list(self._open))
        self.versions.close()

    # Looking -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of all files, in order; nothing is opened."""
        found = (path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        return sorted(name for name in found if self._possible(name))

    def left_out(self) -> list[str]:
        """Return the files whose names no prompt may have."""
        return sorted(
            path.name
            for path in self.folder.glob(f"*{SUFFIX}")
            if not path.name.startswith(".") and not self._possible(path.name[: -len(SUFFIX)])
        )

    def about(self, name: str) -> dict[str, Any]:
        """Return a name's current version, the versions that are kept, and why one is refused.

        Raises UnknownPromptError for a name without a file.
        """
        with self._lock:
            with suppress(RefusedPromptError):
                self._current(name)
            return self.known(name)

    def known(self, name: str) -> dict[str, Any]:
        """Return what :meth:`about` does, as far as it is known without opening a file."""
        with self._lock:
            return self._known(name, self.versions.numbers(name))

    def all_known(self) -> list[dict[str, Any]]:
        """Return what is :meth:`known` of each file, in the order of their names."""
        with self._lock:
            numbers = self.versions.all_numbers()
            return [self._known(name, numbers.get(name, [])) for name in self.names()]

    def _known(self, name: str, numbers: list[int]) -> dict[str, Any]:
        entry = self._entries.get(name, _Entry())
        return {
            "name": name,
            "version": entry.number or None,
            "versions": numbers,
            "refused": entry.unseen or entry.refused,
        }

    def _possible(self, name: str) -> bool:
        try:
            return check_name(name) not in self.taken
        except UserError:
            return False

    def _near(self, name: str) -> str:
        """Return the names that are most like one, for the tail of an error line."""
        known = {*self.names(), *self.taken} - {name}
        close = get_close_matches(name[:100], sorted(known), n=3)
        return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    # Opening -----------------------------------------------------------------------------------

    def open(self, asked: str) -> tuple[str, Answerer]:
        """Return a prompt with its whole name: ``name``, ``name@2``, or several joined by +.

        Raises UnknownPromptError for a name or a version that is not there, RefusedPromptError for
        a file that cannot be served, and UserError for prompts that cannot be joined.
        """
        parts = parse(asked)
        with self._lock:
            before = self.misses
            key = tuple((part.name, self._number(part)) for part in parts)
            whole = "+".join(f"{name}@{number}" for name, number in key)
            if key in self._open:
                self.hits += self.misses == before
                self._open.move_to_end(key)
                return whole, self._open[key][0]
            prompts = [self._opened(name, number) for name, number in key]
            if len(prompts) == 1:
                return whole, prompts[0]
            if not all(isinstance(each, Prompt) for each in prompts):
                raise UserError(f"{asked}: an ensemble of several prompts cannot be joined to more")
            try:
                joined = concatenate(cast(list[Prompt], prompts))
            except UserError as error:
                raise UserError(f"{asked}: {error}") from None
            self._remember(key, joined)
            return whole, joined

    def _number(self, part: Part) -> int:
        """Return the number of the version that is asked for."""
        current = self._current(part.name)
        if part.number is None:
            return current
        if part.number > current or not self.versions.path(part.name, part.number).exists():
            raise UnknownPromptError(
                f"there is no version {part.number} of prompt '{part.name}'; the current one is "
                f"{current}"
            )
        return part.number

    def _current(self, name: str) -> int:
        """Return the number of the current version, the file as it stands now where it is good."""
        try:
            stamp = Stamp.of(self._file(name)) if self._possible(name) else None
        except OSError as error:
            return self._unseen(name, f"cannot be read ({error.strerror})")
        if stamp is None:
            self._forget(name)
            raise UnknownPromptError(f"there is no prompt '{name}'{self._near(name)}")
        entry = self._entries.setdefault(name, _Entry())
        entry.unseen = None
        if stamp != entry.stamp:
            self._look(name, entry, stamp)
        if not entry.number:
            raise RefusedPromptError(f"prompt '{name}' cannot be served: {entry.refused}")
        return entry.number

    def _unseen(self, name: str, why: str) -> int:
        """Return the version that is served while the file cannot be looked at."""
        entry = self._entries.setdefault(name, _Entry())
        entry.unseen = why
        if last := entry.number or max(self.versions.numbers(name), default=0):
            return last
        raise RefusedPromptError(f"prompt '{name}' cannot be served: {why}")

    def _look(self, name: str, entry: _Entry, stamp: Stamp) -> None:
        """Make a file that is new, or has changed, the next version, unless it is refused."""
        last = max(self.versions.numbers(name), default=0)
        if not entry.number and last:  # of another run, and what is served if the file is refused
            entry.number = last
            if stamp.copies(Stamp.of(self.versions.path(name, last))):
                entry.stamp, entry.refused = stamp, None
                return
        try:
            made = self.versions.copied(self._file(name), stamp)
        except UserError as error:  # it is looked at again
            entry.refused = str(error)
            return
        try:
            prompt = self._load(name, made)
        except UserError as error:
            made.unlink(missing_ok=True)
            entry.stamp, entry.refused = stamp, str(error)
            return
        self._publish(name, made, prompt, stamp)

    def _publish(self, name: str, made: Path, prompt: Answerer, stamp: Stamp) -> int:
        """Make a checked copy the current version, and return its number."""
        entry = self._entries.setdefault(name, _Entry())
        number = max([entry.number, *self.versions.numbers(name)]) + 1
        self.versions.keep(made, name, number, self.keep)
        entry.number, entry.stamp, entry.refused = number, stamp, None
        self._close(
            key
            for key in list(self._open)
            if any(n == name and not self.versions.path(n, k).exists() for n, k in key)
        )
        self._remember(((name, number),), prompt)
        return number

    def _opened(self, name: str, number: int) -> Answerer:
        """Return one version, read again where it is not open."""
        key = ((name, number),)
        if key not in self._open:
            try:
                self._remember(key, self._load(name, self.versions.path(name, number)))
            except UserError as error:
                raise RefusedPromptError(f"prompt '{name}' cannot be served: {error}") from None
        self._open.move_to_end(key)
        return self._open[key][0]

    def _load(self, name: str, copy: Path) -> Answerer:
        """Read and check a copy; an error names the prompt, not the copy."""
        try:
            self.misses += 1
            prompt = load_prompt(copy).on_backbone(self.backbone, where=name)
            _ = prompt.bound  # whose task may not fit the model either
            return prompt
        except UserError as error:
            raise UserError(str(error).replace(str(copy), name)) from None

    # What is open --------------------------------------------------------------------------------

    def _remember(self, key: tuple[tuple[str, int], ...], prompt: Answerer) -> None:
        """Keep a prompt open, and close those that were used longest ago where memory ends."""
        size = sum(held_bytes(self.backbone, injection) for injection in injections_of(prompt))
        self._open[key] = (prompt, size)
        self._open.move_to_end(key)
        held = sum(each for _, each in self._open.values())
        spared = []
        for other, (_, own) in self._open.items():
            if held <= self.memory or other == key:
                break
            spared.append(other)
            held -= own
        self._close(spared)

    def _close(self, keys: Iterator[Any] | list[Any]) -> None:
        for key in keys:
            if (held := self._open.pop(key, None)) is not None:
                self.on_close(held[0])

    def _forget(self, name: str) -> None:
        """Forget a name whose file is gone, and its versions."""
        if self._entries.pop(name, None) is not None:
            self._close([key for key in self._open if any(n == name for n, _ in key)])
            self.versions.remove(name)

    @property
    def opened(self) -> int:
        """How many prompts are open."""
        return len(self._open)

    # Changing ------------------------------------------------------------------------------------

    def add(self, name: str, source: Path) -> int:
        """Make the content of a file the current version of a name, and return its number.

        Raises UserError for a name that no prompt may have, and for a file that is refused, before
        anything is changed.
        """
        self._check_free(name)
        made = self.versions.new()
        try:
            shutil.copyfile(source, made)
            prompt = self._load(name, made)
            with self._lock:
                with suppress(UserError):
                    self._current(name)  # what stands there now is a version too
                stamp = publish(made, self._file(name))
                return self._publish(name, made, prompt, stamp)
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({error.strerror})") from None
        finally:
            made.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file and its versions; raises UnknownPromptError where there is none."""
        with self._lock:
            try:
                if not self._possible(name) or Stamp.of(self._file(name)) is None:
                    raise UnknownPromptError(f"there is no prompt '{name[:100]}'{self._near(name)}")
                self._file(name).unlink()
            except OSError as error:
                raise UserError(f"{name}: cannot be removed ({error.strerror})") from None
            self._entries.setdefault(name, _Entry())
            self._forget(name)

    def roll_back(self, name: str, number: int | None = None) -> tuple[int, int]:
        """Bring back the content of an older version as a new one; return old and new number.

        That is version ``number``, by default the one before what is current. Raises
        UnknownPromptError where there is none.
        """
        with self._lock:
            with suppress(RefusedPromptError):
                self._current(name)
            entry = self._entries[name]
            content = self.versions.content(name, entry.number)
            older = [each for each in self.versions.numbers(name) if each < content]
            wanted = (older[-1] if older else 0) if number is None else number
            if wanted not in self.versions.numbers(name) or wanted == entry.number:
                kept = ", ".join(map(str, self.versions.numbers(name)))
                which = f"version {wanted}" if wanted else "older version"
                raise UnknownPromptError(
                    f"prompt '{name}' has no {which} to go back to; it is at {entry.number}, and "
                    f"{kept or 'none'} are kept"
                )
            content = self.versions.content(name, wanted)
            new = self.add(name, self.versions.path(name, wanted))
            with suppress(UserError):  # on a full disk the version is told as one from a file
                self.versions.note_content(name, new, content)
            return wanted, new

    def _check_free(self, name: str) -> None:
        if check_name(name) in self.taken:
            raise UserError(
                f"'{name}' is the name of the model; give the prompt another one", field="name"
            )


def injections_of(prompt: Answerer) -> list[Injection]:
    """Return what a prompt, or each member of an ensemble, adds to the model."""
    members = prompt.members if isinstance(prompt, Ensemble) else [prompt]
    return [each.injection for each in members if isinstance(each, Prompt)]
