"""A server that learns: the next version of a prompt is made of its feedback, and judged first.

Of every three rows of feedback one, by its id, is held back: no version ever trains on it. Once
enough others have come, the current version is trained further on them, in a process of its own and
on few threads, and both versions answer the newest of the rows held back: where people change their
minds, old rows speak for the old version. The new one is swapped in where the paired 95% bound of
the difference is high enough; else the old one stays, and it is said why.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.files import write_jsonl, write_whole
from foreword.metrics.paired import paired_difference
from foreword.metrics.resample import bootstrap
from foreword.prompt.familiar import FEWEST, MOST, Familiar, with_familiar
from foreword.prompt.prompt import Prompt
from foreword.serve.feedback.files import ABOUT, FeedbackFiles
from foreword.serve.feedback.gate import objection, scores
from foreword.serve.feedback.learning import Learning
from foreword.serve.feedback.process import TrainingProcess
from foreword.serve.feedback.sides import is_known, part, rows_of, since
from foreword.serve.prompts import injections_of
from foreword.tasks.texts.generator import Generator

if TYPE_CHECKING:
    from foreword.prompt.answerer import Answerer
    from foreword.serve.http.ready import Ready

PAUSE = 5.0
"""Seconds between two looks at the feedback."""

PATIENCE = 10.0
"""Seconds in which a training that is to stop may do so."""

YIELD = 5.0
"""Seconds for which the rows that judge let requests pass, before a few are answered anyway."""

AGAIN = 20
"""Rows that judge a version again at least: fewer could be worse all alike by chance."""

TEXTS = 4
"""Texts written at once to judge a version; each takes many steps, which requests share."""


@dataclass(frozen=True)
class Attempt:
    """A version that was made, and what became of it; ``reason`` says it in a sentence.

    ``trained`` and ``held`` count rows; ``old`` and ``new`` are the accuracies on those held back,
    of texts the mean chrF, ``interval`` the 95% interval of ``new``, and ``low`` and ``high`` the
    paired one of their difference, all in percent. ``again`` is for a version that was in place and
    is judged again, as ``old_version``. ``changed`` is when the file of ``new_version`` was written
    (ns): once a prompt is removed, others may come under the names of its versions.
    """

    time: str
    old_version: str
    trained: int
    held: int
    taken: bool = False
    reason: str = ""
    new_version: str | None = None
    old: float | None = None
    new: float | None = None
    interval: list[float] | None = None
    low: float | None = None
    high: float | None = None
    again: bool = False
    changed: int | None = None


class Learner:
    """The thread that learns, until :meth:`close`; ``say`` is given what each attempt came to."""

    def __init__(
        self,
        ready: Ready,
        files: FeedbackFiles,
        learning: Learning,
        say: Callable[..., None] = lambda **values: None,
    ) -> None:
        self.ready, self.files, self.learning, self.say = ready, files, learning, say
        self._looked: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = {}
        self._stopped = Event()
        self.training = TrainingProcess()
        self._thread = Thread(target=self._run, name="foreword-learn", daemon=True)

    def start(self) -> None:
        """Begin to learn, and return at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a training that is under way is given up."""
        self._stopped.set()
        self.training.end()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        said: dict[str, str] = {}
        while not self._stopped.wait(PAUSE):
            for name in self.files.names():
                try:
                    if self.look(name) is None and name not in said and (why := self.waits(name)):
                        said[name] = why
                        self._tell(name, waits=why)
                except UserError as error:  # such as a prompt whose file is gone
                    if said.get(name) != str(error):
                        self._tell(name, error=str(error))
                    said[name] = str(error)
                except Exception as error:  # of any kind: the other prompts go on
                    if said.get(name) != (kind := type(error).__name__):
                        self._tell(name, error=kind)
                    said[name] = kind

    def attempts(self, name: str) -> list[dict[str, Any]]:
        """Return the attempts for a prompt, oldest first."""
        path = self._file(name)
        found: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
        return found

    def waits(self, name: str) -> str | None:
        """Say which rows of feedback are missing for the next version; None where none is.

        Raises UserError where the prompt cannot be opened.
        """
        rows, before = self.files.rows(name), self.attempts(name)
        train, held = part(self._known(name, *self.ready.prompts.open(name), rows))
        if (missing := self._missing(train, held, before)) is not None:
            return missing
        if not self.learning.roll_back or (last := self._unseen(name, before)) is None:
            return None
        came, least = len(self._came_since(name, last, held)), self._least
        return f"{came} of {least} rows held back to judge the last one again"

    def look(self, name: str) -> Attempt | None:
        """Make and judge the next version of a prompt, where there are enough new rows for it."""
        began, judges = _now(), self.learning.held
        rows, before = self.files.rows(name), self.attempts(name)
        train, held = part(rows)
        due = self._missing(train, held, before) is None
        if self.learning.roll_back and (last := self._unseen(name, before)) is not None:
            came = self._came_since(name, last, held)
            if len(came) >= (self._least if due else judges):
                return self._record(name, before, self._look_back(name, last, came[:judges]))
            return None
        if not due:
            return None
        version, prompt = self.ready.prompts.open(name)
        train, held = part(self._known(name, version, prompt, rows))
        if self._missing(train, held, before) is not None:
            return None
        held = held[-judges:]
        made = Attempt(began, version, len(train), len(held))
        try:
            made = self._attempt(made, name, prompt, train, held)
        except UserError as error:
            made = replace(made, reason=str(error))
        return self._record(name, before, made)

    @property
    def _least(self) -> int:
        """Rows held back that judge a version again once the next one is due."""
        return min(self.learning.held, AGAIN)

    def _came_since(
        self, name: str, last: Mapping[str, Any], held: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Return the rows held back that came after an attempt, and that the prompt knows."""
        prompt = self.ready.prompts.open(name)[1]
        return [row for row in since(held, last["time"]) if is_known(prompt, row)]

    def _known(
        self, name: str, version: str, prompt: Answerer, rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the rows that a version can learn from; the same ones are looked at once."""
        found = self._looked.get(name)
        if found is None or found[0] != version or found[1] is not rows:
            known = [row for row in rows if is_known(prompt, row)]
            found = self._looked[name] = version, rows, known
        return found[2]

    def _missing(
        self, train: Sequence[Any], held: Sequence[Any], before: Sequence[Mapping[str, Any]]
    ) -> str | None:
        """Say which rows are missing for an attempt; None where it can be made."""
        last = next((each["time"] for each in reversed(before) if not each.get("again")), None)
        new = len(train if last is None else since(train, last))
        every, judges = self.learning.every, self.learning.held
        if new >= every and len(held) >= judges:
            return None
        return f"{new} of {every} new rows to train on, {len(held)} of {judges} rows held back"

    def _record(
        self, name: str, before: Sequence[Mapping[str, Any]], made: Attempt
    ) -> Attempt | None:
        """Keep what became of an attempt, unless the server has stopped meanwhile."""
        if self._stopped.is_set():
            return None
        record = json.dumps([*before, asdict(made)], ensure_ascii=False, indent=1)
        write_whole(self._file(name), record.encode())
        self._tell(name, **asdict(made))
        return made

    def _unseen(self, name: str, before: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Return the attempt whose version is in place and was not judged again; None for none."""
        prompts = self.ready.prompts
        for each in reversed(before):
            if each.get("again"):
                return None
            if each["taken"]:
                version = prompts.open(name)[0]
                changed = prompts.versions.changed(name, _number(version))
                same = version == each["new_version"] and each.get("changed") in (None, changed)
                return each if same else None
        return None

    def _look_back(
        self, name: str, last: Mapping[str, Any], held: Sequence[Mapping[str, Any]]
    ) -> Attempt:
        """Judge the last version by rows that came since; roll it back where it is worse."""
        prompts = self.ready.prompts
        made = Attempt(_now(), last["new_version"], last["trained"], len(held), again=True)
        try:
            kept = [prompts.open(last[version])[1] for version in ("old_version", "new_version")]
        except UserError as error:
            return replace(made, reason=f"it cannot be compared: {error}")
        rows = rows_of([row for row in held if all(is_known(each, row) for each in kept)])
        if not rows:
            return replace(made, reason="no row that came since has a label that both know")
        made = _compared(made, *(scores(each, rows, self._answers(each, rows)) for each in kept))
        assert made.high is not None
        if made.high >= 0:
            return replace(made, reason="it holds on the rows that came since")
        back = prompts.roll_back(name, _number(last["old_version"]))[1]
        reason = f"it is worse on the rows that came since: {last['old_version']} is back"
        changed = prompts.versions.changed(name, back)
        return replace(made, reason=reason, new_version=f"{name}@{back}", changed=changed)

    def _attempt(
        self,
        made: Attempt,
        name: str,
        prompt: Answerer,
        train: Sequence[Mapping[str, Any]],
        held: Sequence[Mapping[str, Any]],
    ) -> Attempt:
        """Train, judge and perhaps swap in; raises UserError where that cannot be done."""
        prompts, rows = self.ready.prompts, rows_of(held)
        said = self._answers(prompt, rows)
        first = scores(prompt, rows, said)
        with tempfile.TemporaryDirectory(prefix="foreword-learn-") as folder:
            out = Path(folder) / f"{name}.safetensors"
            self._train(name, made.old_version, train, out)
            new = self._load(out)
            second = scores(new, rows, self._answers(new, rows))
            for injection in injections_of(new):
                self.ready.engine.release(injection, wait=False)
            made = _compared(made, first, second)
            pairs = _labels(prompt, rows, said)
            if (why := objection(*pairs, first, second, self.learning.bound)) is not None:
                return replace(made, reason=why)
            if prompts.open(name)[0] != made.old_version or self._stopped.is_set():
                return replace(made, reason="another version has come meanwhile")
            self._keep_states(new, rows, out)
            number = prompts.add(name, out)
        made = replace(made, taken=True, reason="it was swapped in")
        changed = prompts.versions.changed(name, number)
        return replace(made, new_version=f"{name}@{number}", changed=changed)

    def _train(self, name: str, version: str, rows: Sequence[Mapping[str, Any]], out: Path) -> None:
        """Train a version further in a process of its own; raises UserError where that fails."""
        learning, prompts = self.learning, self.ready.prompts
        data = write_jsonl(
            out.with_name("feedback.jsonl"),
            [{key: value for key, value in row.items() if key != ABOUT} for row in rows],
        )
        source = prompts.versions.path(name, _number(version))
        words = ["train", "--from", source, "--model", self.ready.backbone.name]
        words += ["--train", data, "--out", out, "--threads", learning.threads, *learning.settings]
        if learning.replay is not None and (old := learning.replay / f"{name}.jsonl").exists():
            words += ["--replay", old]
        self.training.run([str(word) for word in words], out.parent)

    def _load(self, path: Path) -> Answerer:
        from foreword.compose.ensemble import load_prompt

        return load_prompt(path).on_backbone(self.ready.backbone, where="the new version")

    def _keep_states(self, new: Answerer, rows: Sequence[Row], out: Path) -> None:
        """Write into a version's file how the states of rows that it fits are spread."""
        if isinstance(new, Prompt) and len(rows) >= FEWEST:
            states = []
            for row in rows[-MOST:]:
                self._let_requests_pass()
                if (state := self.ready.engine.states(new, [row]).result()) is not None:
                    states.append(state)
            if states:
                with_familiar(new, Familiar.of(torch.cat(states))).save(out)

    def _answers(self, prompt: Answerer, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Answer rows by the engine, few at a time, and only while no request waits.

        Raises UserError for a row whose right answer the prompt does not know.
        """
        prompt.bound.check(rows, answers=True)
        count, found = TEXTS if isinstance(prompt.bound, Generator) else 1, []
        for start in range(0, len(rows), count):
            self._let_requests_pass()
            found += self.ready.engine.answer(prompt, rows[start : start + count]).result()
        return found

    def _let_requests_pass(self) -> None:
        """Wait until all requests are answered, but no longer than ``YIELD``."""
        until = time.monotonic() + YIELD
        while self.ready.engine.busy and time.monotonic() < until:
            time.sleep(0.005)

    def _file(self, name: str) -> Path:
        return self.files.folder / f"{name}.learned.json"

    def _tell(self, name: str, **values: Any) -> None:
        self.say(level="info", event="learning", prompt=name, **values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _number(version: str) -> int:
    """Return the number of ``name@number``."""
    return int(version.rpartition("@")[2])


def _compared(made: Attempt, old: Sequence[float], new: Sequence[float]) -> Attempt:
    """Return an attempt with the scores of two versions on the same rows."""
    low, high = paired_difference(new, old).bounds()
    own = bootstrap([each / 100 for each in new]).bounds()
    first, second = (round(mean(each), 2) for each in (old, new))
    return replace(made, old=first, new=second, interval=own, low=low, high=high)


def _labels(
    prompt: Answerer, rows: Sequence[Row], said: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Return the label that is right in each row, and what was said; none of other answers."""
    bound = prompt.bound
    if bound.answer != "label":
        return [], []
    return [str(bound.gold_answer(row)) for row in rows], [str(a["label"]) for a in said]
