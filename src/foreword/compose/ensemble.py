"""Ensemble: several prompts on one backbone that answer as one, in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.compose.fusion import Fusion, LabelFusion, NumberFusion, Poll
from foreword.compose.lockstep import TextFusion
from foreword.compose.together import check_together, check_weights
from foreword.data.row import Row
from foreword.data.rows import Rows
from foreword.errors import UserError
from foreword.prompt.answerer import Answerer
from foreword.prompt.file import PromptFile, read_file
from foreword.prompt.predict import predict
from foreword.prompt.prompt import Prompt
from foreword.prompt.schema import SCHEMA
from foreword.prompt.tensors import injection_of, write_tensors
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.registry import TASKS, name_of

FUSIONS: Mapping[str, Fusion] = {
    "labels": LabelFusion(),
    "numbers": NumberFusion(),
    "texts": TextFusion(),
}
"""How answers become one, by a task's ``fusion``."""


def fusion_of(task: Task) -> Fusion:
    """Return how answers of a task are fused; raises UserError where there is no way."""
    if task.fusion is None:
        known = ", ".join(name for name, kind in TASKS.items() if kind.fusion is not None)
        raise UserError(
            f"prompts of task {name_of(task)} cannot answer together; those of {known} can"
        )
    return FUSIONS[task.fusion]


@dataclass(frozen=True, repr=False)
class Ensemble:
    """Prompts of one backbone and one kind of task, each with its weight; weights add up to 1.

    A soft prompt beside a model that LoRA or ``full`` has changed is an ensemble too. The task is
    the first member's. Raises UserError where members or weights cannot stand together.
    """

    members: tuple[Prompt, ...]
    weights: tuple[float, ...]
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_together(self.members, fewest=1)
        check_weights(self.weights, len(self.members))
        self.fusion.check(self.members)

    @property
    def fusion(self) -> Fusion:
        """How the members' answers become one."""
        return fusion_of(self.task)

    @property
    def task(self) -> Task:
        """The first member's task."""
        return self.members[0].task

    @property
    def backbone(self) -> Mapping[str, str]:
        """Name, architecture and fingerprint of the backbone of all members."""
        return self.members[0].backbone

    @property
    def data(self) -> Mapping[str, Any]:
        """What the first member was made of."""
        return self.members[0].data

    # Using -------------------------------------------------------------------------------------

    @cached_property
    def bound(self) -> Bound:
        """The first member's task on the backbone."""
        return self.members[0].bound

    def answers(
        self,
        rows: Sequence[Row],
        *,
        progress: Callable[[int], None] | None = None,
        on: Backbone | None = None,
    ) -> list[dict[str, Any]]:
        """Answer rows, one object each; ``progress`` is told how many more are done.

        ``on`` runs the passes of labels and numbers in place of the members' own backbone.
        """
        return self.fusion.answers(Poll(self.members, rows, progress, on), self.weights)

    def predict(
        self,
        inputs: str | Mapping[str, Any] | Rows,
        *,
        probabilities: bool = False,
        min_probability: float | str | None = None,
        report: Reporter | None = None,
        **decoding: Any,
    ) -> Any:
        """Answer one text or row, or a list of answers for many, as :meth:`Prompt.predict` does."""
        return predict(
            self,
            inputs,
            probabilities=probabilities,
            min_probability=min_probability,
            report=report,
            **decoding,
        )

    def decoding(self, **settings: Any) -> Ensemble:
        """Return it with other settings of :class:`Decoding` for all members."""
        return replace(self, members=tuple(each.decoding(**settings) for each in self.members))

    def __repr__(self) -> str:
        weights = " ".join(f"{weight:.2f}" for weight in self.weights)
        return (
            f"Ensemble({name_of(self.task)} on {self.backbone['name']}, "
            f"{len(self.members)} prompts, weights {weights})"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of its file by their names there."""
        return {
            f"members.{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.tensors().items()
        }

    def with_scores(self, scores: Mapping[str, Any]) -> Ensemble:
        """Return it with other scores."""
        return replace(self, scores=scores)

    # Files -------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all; raises UserError where that cannot be done."""
        meta = {
            "schema": SCHEMA,
            "members": [member.metadata() for member in self.members],
            "weights": list(self.weights),
            "scores": dict(self.scores),
        }
        return write_tensors(Path(path), meta, self.tensors())

    def on_backbone(
        self, backbone: Backbone, *, force: bool = False, where: str = "the ensemble"
    ) -> Ensemble:
        """Return it with a backbone in hand; raises UserError where a member does not fit."""
        members = tuple(
            member.on_backbone(backbone, force=force, where=f"{where}, member {number}")
            for number, member in enumerate(self.members, 1)
        )
        return replace(self, members=members)


def weighted(prompts: Sequence[Prompt], weights: Sequence[float]) -> Ensemble:
    """Return the ensemble of those prompts whose weight is not 0: the others have no say."""
    check_weights(weights, len(prompts))
    kept = [(p, w) for p, w in zip(prompts, weights, strict=True) if w > 0]
    return Ensemble(tuple(p for p, _ in kept), tuple(w for _, w in kept))


def load_prompt(
    path: str | Path, backbone: Backbone | None = None, *, force: bool = False
) -> Answerer:
    """Read and check a prompt's file or an ensemble's; with ``backbone``, check that it fits.

    Raises UserError for anything else, as :meth:`Prompt.load` does.
    """
    file = read_file(Path(path))
    made: Answerer = _ensemble(file) if file.members else _prompt(file)
    return made if backbone is None else made.on_backbone(backbone, force=force, where=str(path))


def _prompt(file: PromptFile) -> Prompt:
    return Prompt.of(file.where, file.meta, injection_of(file))


def _ensemble(file: PromptFile) -> Ensemble:
    weights = tuple(map(float, file.meta["weights"]))
    try:
        return Ensemble(tuple(map(_prompt, file.members)), weights, file.meta["scores"])
    except UserError as error:
        where = "" if str(error).startswith(file.where) else f"{file.where}: "
        raise UserError(f"{where}{error}") from None
