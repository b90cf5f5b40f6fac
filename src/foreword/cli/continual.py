"""Training that goes on from a prompt: its old rows mixed in, and its old task scored again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.cli.settings import Settings
from foreword.cli.terminal import CommandTerminal
from foreword.data.folder import TEST
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.evaluation.evaluation import Evaluation
from foreword.methods.parts.from_file import FromFile
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.training.several_tasks import Replay
from foreword.training.world import World


@dataclass(frozen=True)
class Old:
    """The prompt that a training goes on from, its task's rows to mix in, and those to score."""

    path: str
    task: Task
    replay: Replay | None
    test: list[Row] | None
    seed: int

    @staticmethod
    def of(made: Settings) -> Old | None:
        """Read what a run's settings say of an old task; None where it goes on from no prompt.

        Raises UserError where the run would write over the prompt it goes on from.
        """
        if not isinstance(made.method, FromFile):
            return None
        path, wanted = made.method.source, made.plain
        if wanted["out"] is not None and Path(wanted["out"]).resolve() == Path(path).resolve():
            raise UserError(f"--out {wanted['out']}: is the prompt to go on from; name another")
        task = Prompt.load(path).task
        replay = None
        if wanted["replay"] is not None:
            replay = Replay(task, _rows(wanted["replay"]), wanted["replay_share"])
        test = None if wanted["old_test"] is None else _rows(wanted["old_test"], TEST)
        return Old(path, task, replay, test, made.training.seed)

    def score(self, backbone: Backbone, world: World) -> Evaluation | None:
        """Score the old task as it was left; None where it is not asked for, or not here."""
        if self.test is None or not (world.first or world.sharded):
            return None
        loaded = Prompt.load(self.path, backbone)
        return evaluate(
            loaded, self.test, seed=self.seed, name="old task", report=CommandTerminal()
        )

    def report(
        self, prompt: Prompt, before: Evaluation, result: Mapping[str, Any]
    ) -> tuple[Prompt, dict[str, Any]]:
        """Score the old task under the new prompt.

        Returns the prompt and the result with ``old``, before and after, and ``new``, the test's
        scores, or those on dev rows where there is no test.
        """
        assert self.test is not None
        now = replace(prompt, task=self.task)
        after = evaluate(now, self.test, seed=self.seed, name="old task", report=CommandTerminal())
        prompt = with_scores(prompt, "old before", before)
        prompt = with_scores(prompt, "old", after)
        old = {"before": prompt.scores["old before"], "after": prompt.scores["old"]}
        return prompt, {**result, "old": old, "new": result.get("test", result["dev"])}


def _rows(source: str, split: Sequence[str] | None = None) -> list[Row]:
    return as_rows(source, split=split)
