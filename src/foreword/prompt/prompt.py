"""Prompt: the artefact. One safetensors file: tensors, and metadata that explains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.values import from_plain, plain
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.prompt.schema import SCHEMA
from foreword.prompt.tensors import check_fit, opened, write_tensors
from foreword.tasks.base import Bound, Task
from foreword.tasks.registry import TASKS, name_of


@dataclass(frozen=True, eq=False, repr=False)
class Prompt:
    """A tuned injection with the task it serves, the backbone it was made on, and its history.

    ``method`` and ``data`` and ``versions`` and ``scores`` are plain JSON values, kept for
    people; running needs only the injection, the task and the backbone's fingerprint. ``on`` is
    the backbone in hand; it is not part of the file.
    """

    injection: Injection
    task: Task
    backbone: Mapping[str, str]  # name, architecture, fingerprint
    method: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    on: Backbone | None = None

    # Using -------------------------------------------------------------------------------------

    @cached_property
    def bound(self) -> Bound:
        """Return the task on the backbone in hand."""
        if self.on is None:
            raise UserError(
                "the prompt has no backbone in hand; load it with Prompt.load(F, backbone)"
            )
        bound = self.task.bind(self.on)
        asked = self.injection.leading + bound.virtual
        held = 0 if self.injection.embeds is None else len(self.injection.embeds)
        if asked != held:
            raise UserError(
                f"the prompt holds {held} virtual tokens and its task places {asked}; "
                "its template was changed after tuning, tune it again"
            )
        return bound if self.injection.head is None else bound.with_head()

    def answers(
        self, rows: Sequence[Row], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Answer rows, one object each; ``progress`` is told how many more are done."""
        return self.bound.predict(rows, self.injection, progress=progress)

    def predict(self, inputs: str | Mapping[str, Any] | Rows) -> Any:
        """Answer one text or row, or a list of answers for many (:func:`predict`)."""
        return predict(self, inputs)

    def __repr__(self) -> str:
        method = self.method.get("name", "?")
        return (
            f"Prompt({method} for {name_of(self.task)} on {self.backbone['name']}, "
            f"{self.injection})"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of its file by their names there."""
        return dict(self.injection.tensors())

    # Saving ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all; raises UserError where that cannot be done."""
        return write_tensors(Path(path), self.metadata(), self.tensors())

    def metadata(self) -> dict[str, Any]:
        """Return what stands in its file beside the tensors."""
        return {
            "schema": SCHEMA,
            "method": dict(self.method),
            "task": {"name": name_of(self.task), **plain(self.task)},
            "backbone": dict(self.backbone),
            **self.injection.settings(),
            "data": dict(self.data),
            "seed": self.seed,
            "versions": dict(self.versions),
            "scores": dict(self.scores),
        }

    # Loading -----------------------------------------------------------------------------------

    @staticmethod
    def load(path: str | Path, backbone: Backbone | None = None, *, force: bool = False) -> Prompt:
        """Read and check a file; with ``backbone``, check that it fits that too.

        Raises UserError for anything that is not a whole Prompt file: not safetensors, cut off,
        an oversized header, missing or unknown keys, wrong shapes, NaN or Inf; and for another
        backbone than the prompt was tuned on, unless ``force`` says to try.
        """
        path = Path(path)
        prompt = Prompt.of(str(path), *opened(path))
        return (
            prompt
            if backbone is None
            else prompt.on_backbone(backbone, force=force, where=str(path))
        )

    @staticmethod
    def of(where: str, meta: Mapping[str, Any], injection: Injection) -> Prompt:
        """Make a prompt of checked metadata; raises UserError for settings no task has."""
        task = dict(meta["task"])
        return Prompt(
            injection=injection,
            task=from_plain(TASKS[task.pop("name")], task, where),
            backbone=meta["backbone"],
            method=meta["method"],
            data=meta["data"],
            seed=meta["seed"],
            versions=meta["versions"],
            scores=meta["scores"],
        )

    def on_backbone(
        self, backbone: Backbone, *, force: bool = False, where: str = "the prompt"
    ) -> Prompt:
        """Return the prompt with a backbone in hand; raises UserError where it does not fit."""
        if self.backbone["fingerprint"] != backbone.fingerprint and not force:
            raise UserError(
                f"{where}: was tuned on {self.backbone['name']} "
                f"({self.backbone['fingerprint'][:19]}), and this is {backbone.name} "
                f"({backbone.fingerprint[:19]}); load that model, or use `force` to try anyway"
            )
        check_fit(where, self.injection, backbone)
        return replace(self, on=backbone)


class Answerer(Protocol):
    """What answers rows: a prompt, or several that answer as one (compose/ensemble.py)."""

    @property
    def task(self) -> Task:
        """The task that it serves."""

    @property
    def backbone(self) -> Mapping[str, str]:
        """Name, architecture and fingerprint of the backbone that it was made on."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What it was made of, and demonstrations for a baseline."""

    @property
    def bound(self) -> Bound:
        """Return the task on the backbone in hand."""

    def answers(
        self, rows: Sequence[Row], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Answer rows, one object each; ``progress`` is told how many more are done."""

    def predict(self, inputs: str | Mapping[str, Any] | Rows) -> Any:
        """Answer one text or row, or a list of answers for many."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of its file by their names there."""

    def on_backbone(self, backbone: Backbone, *, force: bool = False, where: str = "...") -> Self:
        """Return it with a backbone in hand; raises UserError where it does not fit."""

    def save(self, path: str | Path) -> Path:
        """Write its file, whole or not at all."""


def predict(tuned: Answerer, inputs: str | Mapping[str, Any] | Rows) -> Any:
    """Answer one text or row with one answer, and many with a list: labels, texts or numbers.

    Texts are for templates of one field. Many rows may be whatever `foreword.data.rows` takes; a
    string is always a text, and a ``Path`` a file of rows.
    """
    bound = tuned.bound
    single = isinstance(inputs, str | Mapping)
    rows = rows_of([inputs] if single else inputs, bound)
    answers = [answer[bound.answer] for answer in tuned.answers(rows)]
    return answers[0] if single else answers


def rows_of(inputs: Rows, bound: Bound) -> list[Row]:
    """Return rows of texts, or of whatever holds rows with the template's fields."""
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        inputs = [_with_field(given, number, bound) for number, given in enumerate(inputs, 1)]
    return as_rows(inputs, targets=False, name="input")


def _with_field(given: Any, number: int, bound: Bound) -> Any:
    """Return a text as the template's one field; anything else as it is."""
    if not isinstance(given, str):
        return given
    fields = bound.fields
    if len(fields) != 1:
        raise UserError(
            f"input {number} is a text, but the template has {len(fields)} fields "
            f"({', '.join(fields)}); give rows with these fields"
        )
    return {fields[0]: given}
