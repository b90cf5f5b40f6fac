"""All tasks whose answers are labels, on a backbone: what is learned and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Task
from foreword.tasks.labels.calibrate import BLANKS, add_blanks, calibrate
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for


class Classifier(LabelExamples):
    """A label task on a backbone; its ``Labelling`` says what differs between tasks.

    ``hear`` is given each row that is answered, by number, and the state at its first target.
    """

    hear: Callable[[int, Tensor], None] | None = None

    @property
    def metric(self) -> str:
        """The name of the dev score."""
        return self.labelling.metric

    @property
    def headline(self) -> str:
        """The score by which prompts are compared."""
        return self.labelling.headline

    @property
    def answer(self) -> str:
        """The key under which ``predict`` gives the answer itself."""
        return self.labelling.answer

    @property
    def classes(self) -> int:  # type: ignore[override]
        """The number of labels."""
        return len(self.labels)

    def instruction(self) -> str:
        """Return a sentence that names the labels, the default text to start from."""
        words = [own[0].strip() for own in self.words.values()]
        return self.labelling.instruction(words, self.task.language)

    def label_text(self) -> str:
        """Return the words of all labels, one after the other."""
        return "".join(word for words in self.words.values() for word in words)

    def class_of(self, row: Row) -> str | None:
        """Return the class by which demonstrations are balanced."""
        return self.labelling.class_of(row)

    @property
    def class_order(self) -> tuple[str, ...]:
        """The labels in the order of their names."""
        return tuple(sorted(self.labels))

    def class_shares(self, items: Sequence[Encoded]) -> tuple[Tensor, int | None]:
        """Return how much of each label is right at every slot: (slots, labels)."""
        order = self.class_order
        place = [self.labels.index(name) for name in order]
        shares = torch.tensor([own for item in items for own in self.labelling.shares(item)])
        none = self.labelling.no_label
        return shares[:, place], None if none is None else order.index(none)

    # Learning ----------------------------------------------------------------------------------

    def units(self, item: Encoded) -> int:
        """Return how many the row counts as in the mean loss, from the labelling."""
        return self.labelling.units(item)

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels at every slot: (slots, labels)."""
        asked = len(self.verbalizer.everything.targets)
        owners = [each for each in examples for _ in range(len(each.targets) // asked)]
        return self.verbalizer.scores(logits, owners)

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's loss, by default minus the log-probability of its label: (rows,)."""
        examples = [item.example for item in items]
        if not self.labelling.gold_alone:
            return self.labelling.losses(self.scores(logits, examples), items)
        losses = self.verbalizer.losses(logits, examples, [item.gold for item in items])
        return losses * losses.new_tensor([self.labelling.importance(item) for item in items])

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows, from which ``dev_score`` computes the dev score."""
        scores = self.scores(logits, [item.example for item in items])
        return self.labelling.dev_counts(scores, items)

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the labelling's dev score from summed ``dev_counts``."""
        return self.labelling.dev_score(sums)

    def percent(self, score: float) -> float:
        """Return a dev score in percent of the best there is, by the labelling."""
        return self.labelling.percent(score)

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task with what its labelling fits on dev rows."""
        if self.labelling.fit is None:
            return self.task
        return self.labelling.fit(self.task, rows, self.predict(rows, injection))

    # Answering ---------------------------------------------------------------------------------

    def gold_answer(self, row: Row) -> Any:
        """Return a row's right answer, from the labelling."""
        return self.labelling.gold_answer(row)

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return whether an answer is right, from the labelling."""
        return self.labelling.is_right(row, answer)

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's labels and their probabilities."""
        self.check(rows, answers=False)
        count = len(rows)
        blanks = self._blank_rows() if rows else []
        mixed, parts = add_blanks(injection, len(blanks))
        scores, truncated = self._score_rows(
            [*rows, *(blank for _ in parts for blank in blanks)], mixed, before, count, progress
        )
        for part, first in zip(parts, range(count, len(scores), len(blanks) or 1), strict=True):
            blank = torch.cat(scores[first : first + len(blanks)])
            owners = injection.rows if isinstance(injection, Mixture) else [0] * count
            for n in range(count):
                if owners[n] == part:
                    scores[n] = calibrate(scores[n], blank)
        return [{**self.answer_of(scores[n]), "cut": truncated[n]} for n in range(count)]

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return a row's answer from its log-probabilities, (slots, labels), by the labelling."""
        return self.labelling.answer_of(scores)

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return the labelling's scores."""
        return self.labelling.score(rows, predictions, seed)

    def blank_scores(self, injection: Injection) -> Tensor | None:
        """Return log-probabilities of content-free rows, (rows, labels); None without calibration.

        Answers are calibrated by them (calibrate.py).
        """
        rows = self._blank_rows()
        if not rows:
            return None
        return torch.cat(self._score_rows(rows, injection, "", len(rows), None)[0])

    def _blank_rows(self) -> list[Row]:
        """Return the content-free rows by which answers are calibrated."""
        where = f"`calibration={self.aids.calibration}`"
        return [
            Row(dict.fromkeys(self.template.fields, text), where)
            for text in BLANKS[self.aids.calibration]
        ]

    def _score_rows(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        before: str,
        count: int,
        progress: Any,
    ) -> tuple[list[Tensor], list[bool]]:
        """Return each row's log-probabilities, (slots, labels), and whether it was truncated.

        ``progress`` is called with the number of newly finished rows among the first ``count``.
        """
        examples, sizes, truncated = self.examples_of(rows, injection, before)
        by_row: dict[int, Tensor] = {}

        def hear(group: Sequence[int], states: Tensor) -> None:
            first = 0
            for number in group:
                if self.hear is not None and number < count:
                    self.hear(number, states[first])
                first += len(examples[number].targets)

        found = infer(
            self.backbone,
            injection,
            examples,
            tokens=self.tokens,
            hear=None if self.hear is None else hear,
        )
        for group, logits in found:
            scores = self.scores(logits, [examples[n] for n in group])
            by_row |= zip(group, torch.split(scores, [sizes[n] for n in group]), strict=True)
            if progress is not None:
                progress(sum(n < count for n in group))
        return [by_row[n] for n in range(len(rows))], truncated

    def examples_of(
        self, rows: Sequence[Row], injection: Injection | Mixture, before: str = ""
    ) -> tuple[list[Example], list[int], list[bool]]:
        """Return rows with what scores every label, their slots' number, and which were truncated.

        They begin as rows do that stand alone (``backbone.example.behind``).
        """
        room = room_for(self.backbone, injection)
        slots = [self.slot_tokens(row) for row in rows]
        filled = [
            self.lay_out(row, room, own, demos, before)
            for row, own, demos in zip(rows, slots, self.demos_before(rows), strict=True)
        ]
        plan = self.verbalizer.everything
        examples = [self.example(*pair, plan) for pair in zip(filled, slots, strict=True)]
        return examples, [len(own) for own in slots], [each.truncated for each in filled]
