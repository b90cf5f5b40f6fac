"""Rankings on a backbone: candidates after a history, by the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.lists import parsed
from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.metrics.ranking import ranking, ranks
from foreword.tasks.base import Bound, Task
from foreword.tasks.candidates import Candidates, candidates_of
from foreword.tasks.objective import Encoded
from foreword.tasks.phrases import phrase_in
from foreword.tasks.progress import report_by_row
from foreword.tasks.templates.layout import (
    FilledTemplate,
    answer_ids,
    field_texts,
    room_beside,
    room_for,
)

CANDIDATES_AT_ONCE = 32
"""The most candidates that share one pass over their history."""


class Ranking(Task):
    """A task whose rows choose among candidates."""

    negatives: int
    normalize: Literal["mean", "sum"]
    catalogue: Sequence[str] | None
    seed: int


def _unwritten(value: Any) -> Any:
    """Return the list that a text is, where it is one."""
    return parsed(value) or value if isinstance(value, str) else value


class Ranker(Bound):
    """A ranking bound to a backbone; scores are multiplied by ``scale`` before their softmax."""

    metric = "mrr"
    headline = "mrr"
    answer = "best"
    scale = 1.0

    def __init__(self, task: Ranking, backbone: Backbone) -> None:
        if task.template is None:
            raise UserError("a ranking needs a template; give one, or rows with a 'history'")
        if backbone.fills_masks:
            raise UserError(
                f"{backbone.name} is a masked model, which has no likelihood of a text; use a "
                "causal one, or open it as an encoder (`architecture=encoder`)"
            )
        if task.negatives < 1:
            raise UserError(f"`negatives={task.negatives}`: give 1 or more")
        super().__init__(task, backbone, task.template)
        self.task: Ranking = task

    # Rows to examples --------------------------------------------------------------------------

    @property
    def reads(self) -> tuple[str, ...]:
        """The template's fields, and the candidates."""
        return (*self.fields, "candidates")

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row whose history, candidates or answer cannot be used."""
        for row in rows:
            self.template.check(row.fields, row.where)
            require([self._join_lists(row)], self.template.fields)
            candidates = self.candidates(row)
            if answers and not candidates.right:
                raise UserError(f"{row.where}: missing field 'answer'; give the right candidate")

    def _join_lists(self, row: Row) -> Row:
        """Return the row with lists of texts in its template's fields joined to lines."""
        values = {name: _unwritten(row.fields[name]) for name in self.template.fields}
        lines = {
            name: "\n".join(value)
            for name, value in values.items()
            if isinstance(value, list) and all(isinstance(each, str) for each in value)
        }
        return Row({**row.fields, **lines}, row.where, row.task)

    def candidates(self, row: Row) -> Candidates:
        """Return the row's candidates, given or drawn from the catalogue, and the right ones."""
        return candidates_of(row, self.task.catalogue or (), self.task.negatives, self.task.seed)

    def _fill_row(
        self, row: Row, texts: Sequence[str], room: int, before: str = ""
    ) -> FilledTemplate:
        whole = self._join_lists(row)
        with reading(row.where):
            longest = max(len(self.backbone.text.ids(text)) for text in texts) + 2
        values = field_texts(self.backbone, whole, self.fields, self.task.input_window)
        room = room_beside(self.backbone, room, longest)
        return self.fill(values, room, row.where, before)

    def _example(self, filled: FilledTemplate, texts: Sequence[str]) -> Example:
        paths = [
            tuple(answer_ids(self.backbone, filled.left, self.following(filled.left, text)))
            for text in texts
        ]
        targets = tuple((b, j) for b, path in enumerate(paths) for j in range(-1, len(path) - 1))
        answers = tuple(token for path in paths for token in path)
        self.backbone.check_scored(answers)
        branches = tuple(path[:-1] for path in paths)
        return Example(filled.ids, filled.slot, branches, targets, answers, filled.bos)

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with all its candidates; the bits of ``gold`` are the right ones."""
        candidates = self.candidates(row)
        example, truncated = self._lay_out(row, candidates.texts, room)
        gold = sum(1 << index for index in candidates.right)
        return Encoded(example, gold, truncated)

    def _lay_out(self, row: Row, texts: Sequence[str], room: int) -> tuple[Example, bool]:
        """Return the history with all its candidates, and whether something was cut."""
        filled = self._fill_row(row, texts, room)
        return self._example(filled, texts), filled.truncated

    # Logits to answers -------------------------------------------------------------------------

    def _scores(self, logits: Tensor, examples: Sequence[Example]) -> list[Tensor]:
        """Return the scores of each example's candidates: (candidates,) per example."""
        tokens = torch.tensor([t for e in examples for t in e.answers], device=logits.device)
        logits = logits.float()
        logs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)  # (targets,)
        owners: list[int] = []
        sizes: list[int] = []
        for example in examples:
            owners += [sum(sizes) + b for b, _ in example.targets]
            sizes.append(len(example.branches))
        owner = torch.tensor(owners, device=logits.device)
        sums = logs.new_zeros(sum(sizes)).index_add(0, owner, logs)
        if self.task.normalize == "mean":
            sums = sums / torch.bincount(owner, minlength=sum(sizes))
        return list(torch.split(sums, sizes))

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return minus the log-probability of choosing a right candidate: (rows,)."""
        losses = []
        all_scores = self._scores(logits, [item.example for item in items])
        for own, item in zip(all_scores, items, strict=True):
            scores = self.scale * own
            right = [n for n in range(len(scores)) if item.gold >> n & 1]
            losses.append(scores.logsumexp(0) - scores[right].logsumexp(0))
        return torch.stack(losses)

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return the summed reciprocal ranks in percent, and the number of rows."""
        total = 0.0
        all_scores = self._scores(logits, [item.example for item in items])
        for scores, item in zip(all_scores, items, strict=True):
            right = {n for n in range(len(scores)) if item.gold >> n & 1}
            total += 100 / ranks(scores.tolist(), right)[0]
        return total, len(items)

    def instruction(self) -> str:
        """Return the default text to start from."""
        return phrase_in(self.task.language, "Continue with what fits best.\n\n")

    def demonstration(self, row: Row) -> str:
        """Return the row as the template shows it, with a right candidate after it."""
        candidates, whole = self.candidates(row), self._join_lists(row)
        values = {name: str(whole.fields[name]) for name in self.template.fields}
        filled = self.plain_text(values)
        answer = self.following(filled, candidates.texts[min(candidates.right)])
        return f"{filled}{answer}{self.template.after}"

    def gold_answer(self, row: Row) -> str | list[str]:
        """Return the right candidate, or all of them where there are several."""
        candidates = self.candidates(row)
        right = [candidates.texts[n] for n in sorted(candidates.right)]
        return right[0] if len(right) == 1 else right

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return whether the best candidate is a right one."""
        right = self.gold_answer(row)
        return answer in right if isinstance(right, list) else bool(answer == right)

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's candidates, best first, and their scores."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        examples: list[Example] = []
        owners: list[int] = []
        texts = [self.candidates(row).texts for row in rows]
        truncated = []
        for number, row in enumerate(rows):
            filled = self._fill_row(row, texts[number], room, before)
            truncated.append(filled.truncated)
            for start in range(0, len(texts[number]), CANDIDATES_AT_ONCE):
                part = texts[number][start : start + CANDIDATES_AT_ONCE]
                examples.append(self._example(filled, part))
                owners.append(number)
        under = injection.of_rows(owners) if isinstance(injection, Mixture) else injection
        parts: list[list[float]] = [[] for _ in examples]
        report = report_by_row(progress, owners)
        for group, logits in infer(self.backbone, under, examples):
            part_scores = self._scores(logits, [examples[n] for n in group])
            for n, scores in zip(group, part_scores, strict=True):
                parts[n] = scores.tolist()
            report(group)
        row_scores: list[list[float]] = [[] for _ in rows]
        for owner, scored in zip(owners, parts, strict=True):
            row_scores[owner] += scored
        return [answer_from(*each) for each in zip(texts, row_scores, truncated, strict=True)]

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return hit@k, NDCG@10 and MRR."""
        scores, right = [], []
        for row, prediction in zip(rows, predictions, strict=True):
            candidates = self.candidates(row)
            wanted = {candidates.texts[n] for n in candidates.right}
            scores.append([float(score) for score in prediction["scores"]])
            right.append({n for n, text in enumerate(prediction["ranking"]) if text in wanted})
        return ranking(scores, right, seed=seed)


def answer_from(texts: Sequence[str], scores: Sequence[float], truncated: bool) -> dict[str, Any]:
    """Return the candidates in the order of their scores, and the scores."""
    order = sorted(range(len(texts)), key=lambda n: -scores[n])
    ranked = [texts[n] for n in order]
    return {
        "best": ranked[0],
        "ranking": ranked,
        "scores": [scores[n] for n in order],
        "cut": truncated,
    }
