"""The machine of all tasks whose answers are labels: what is read, learned and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Encoded, Task
from foreword.tasks.labels.calibrate import BLANKS, Calibration, also, calibrated
from foreword.tasks.labels.head_scores import Headed
from foreword.tasks.labels.labelling import (
    Labelling,
)
from foreword.tasks.labels.verbalizer import Cloze, LabelTree, Plan, TokenPath, normalized
from foreword.tasks.templates.demonstrations import Shown
from foreword.tasks.templates.layout import (
    FilledTemplate,
    Side,
    answer_ids,
    lay,
    room_for,
    values_of,
)
from foreword.tasks.templates.template import Slot, Template, VirtualTokens
from foreword.tasks.templates.templated import Templated


class LabelTask(Task, Protocol):
    """What the machine for labels reads of a task's configuration."""

    @property
    def template(self) -> str | None:
        """How a row reads."""

    @property
    def labels(self) -> Mapping[str, str | Sequence[str]] | None:
        """Each label's words."""

    @property
    def max_length(self) -> int:
        """The most tokens of a row."""

    @property
    def truncate(self) -> Side:
        """The side that is cut."""

    @property
    def input_window(self) -> int | None:
        """The tokens of each field that are read at most, None for all."""


@dataclass(frozen=True)
class ZeroShotAids:
    """What helps an untrained model: calibration, and rows shown before the one that is asked."""

    calibration: Calibration = "none"
    shown: Sequence[Mapping[str, str]] = ()
    nearest: bool = False


TokenPlace = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens between a row and an answer that goes on from it, and those after the answer."""


class Classifier(Templated):
    """A task of labels bound to a backbone: what is asked of a row's places is its labelling's."""

    def __init__(
        self,
        task: LabelTask,
        backbone: Backbone,
        labelling: Labelling,
        aids: ZeroShotAids | None = None,
    ) -> None:
        if task.template is None or task.labels is None:
            raise UserError("a classification needs a template and labels; give both, or rows")
        super().__init__(backbone, task.template)
        self.task = task
        self.labelling = labelling
        self.shows = aids is not None
        self.aids = aids or ZeroShotAids()
        self.each = Template.parse(labelling.each)
        self._headed = False
        if labelling.vocabulary and backbone.architecture == "masked":
            raise UserError("loss 'vocabulary' is not for masked models; leave it out")
        self.words = normalized(task.labels)
        self.labels = list(self.words)
        last = self.each if self.each.parts else self.template
        if backbone.architecture == "masked" and Slot() not in last.parts:
            raise UserError(
                f"template {last.source!r} has no [mask]; a masked model needs to know where "
                "the answer stands"
            )

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
    def classes(self) -> int:
        """The number of labels."""
        return len(self.labels)

    @cached_property
    def _left(self) -> str:
        """The literal text before the answer, the same for all rows."""
        parts = [*(self.each.parts or self.template.parts), Slot()]
        before = parts[parts.index(Slot()) - 1] if parts.index(Slot()) else ""
        return (
            before if isinstance(before, str) else "" if isinstance(before, VirtualTokens) else "."
        )

    def spelled(self, word: str) -> TokenPath:
        """Return the tokens of a word where the answer stands."""
        inside = bool(self.each.parts)
        if self.template.close and not inside:
            word = word.lstrip(" ")
        return tuple(answer_ids(self.backbone, self._left, word, inside=inside))

    @cached_property
    def verbalizer(self) -> LabelTree | Cloze | Headed:
        """The label words as tokens, or the labels alone where a head scores them."""
        if self._headed:
            masked = self.backbone.architecture == "masked"
            return Headed(tuple(self.labels), self.mask() if masked else None)
        owners: dict[TokenPath, int] = {}
        for number, label in enumerate(self.labels):
            for word in self.words[label]:
                path = self.spelled(word)
                if not path:
                    raise UserError(f"label '{label}': the tokenizer drops its word {word!r}")
                other = self.labels[owners.setdefault(path, number)]
                if other != label:
                    raise UserError(
                        f"labels '{other}' and '{label}' have words of the same tokens; "
                        "choose other words"
                    )
        words = [(number, path) for path, number in owners.items()]
        if self.backbone.architecture == "masked":
            return Cloze(tuple(words), len(self.labels), self.mask())
        whole = self.labelling.vocabulary
        return LabelTree.grow(words, len(self.labels), self.backbone.text.end, vocabulary=whole)

    def mask(self) -> int:
        """Return the token of a masked model's hole."""
        mask = self.backbone.text.mask
        if mask is None:
            raise UserError(f"{self.backbone.name}: its tokenizer has no mask token")
        return mask

    def with_head(self) -> Classifier:
        """Return the task for an injection with a head, which scores the labels."""
        made = self._again()
        made._headed = True
        return made

    def _again(self) -> Classifier:
        made = Classifier(self.task, self.backbone, self.labelling, self.aids)
        made.template, made.shows = self.template, self.shows
        return made

    def without_prompt(self) -> Classifier:
        """Return the task with the virtual tokens left out of its template."""
        made = self._again()
        made.template = self.template.hard()
        return made

    # Rows to examples --------------------------------------------------------------------------

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field, or has an unknown label."""
        for row in rows:
            self.template.check(row.fields, row.where, shows=self.shows)
        shown = [self.labelling.shown(row) for row in rows]
        require(shown, self.template.fields)
        for row in rows:
            self.labelling.check(row, answers=answers)

    def _values(self, row: Row) -> dict[str, str]:
        shown = self.labelling.shown(row)
        return values_of(self.backbone, shown, self.template.fields, self.task.input_window)

    def key(self, row: Row) -> str:
        """Return what identifies a row: the texts that it is shown by."""
        return "\n".join(self._values(row).values())

    @cached_property
    def _shown(self) -> Shown | None:
        """The rows to show, where the template has a place for them."""
        if self.template.demos is None:
            return None
        if len(self.aids.shown) < self.template.demos.count:
            raise UserError(
                f"template {self.template.source!r}: {len(self.aids.shown)} rows are there to "
                "show; a training draws them from its rows"
            )
        rows = [Row(each, f"demonstration {n}") for n, each in enumerate(self.aids.shown, 1)]
        for row in rows:
            self.template.check(row.fields, row.where, shows=True)
            self.labelling.check(row, answers=True)
        texts = {self.key(row): self.demonstration(row) for row in rows}
        return Shown(self.backbone, texts, self.template.demos.count, self.aids.nearest)

    def _demos(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return the demonstrations that stand before each row."""
        if self._shown is None:
            return [[] for _ in rows]
        return self._shown.before([self.key(row) for row in rows])

    def _laid(
        self,
        row: Row,
        room: int,
        places: Sequence[TokenPlace],
        demos: Sequence[str],
        before: str = "",
    ) -> FilledTemplate:
        around = max(len(left) + len(right) for left, right in places)
        extra = around + max(map(len, self.verbalizer.everything.branches), default=0)
        limit = self.task.max_length + len(self.backbone.text.ids(before))
        laid = lay(
            self.backbone,
            self.template,
            self._values(row),
            room=min(limit, room - extra),
            side=self.task.truncate,
            where=row.where,
            before=before,
            demos=demos,
        )
        if laid.cut and self.labelling.whole:
            raise UserError(
                f"{row.where}: too long for {min(limit, room - extra)} tokens; part the row in "
                "two, or raise --max-length"
            )
        return laid

    def _places(self, row: Row) -> list[TokenPlace]:
        """Return the tokens before and after the answer at each of a row's places."""
        text = self.backbone.text
        made = []
        decoded = self.each.parts and self.backbone.architecture == "encoder-decoder"
        first = text.around[0] if decoded else ()
        for values in self.labelling.places(row):
            pieces = [*self.each.fill(values), Slot()]
            left, right = ("".join(map(str, part)) for part in _parted(pieces))
            made.append(((*first, *text.ids(left.rstrip(" "))), tuple(text.ids(right))))
        return made

    def _example(self, laid: FilledTemplate, places: Sequence[TokenPlace], plan: Plan) -> Example:
        """Return the row with the plan below each of its places."""
        branches: list[tuple[int, ...]] = []
        targets: list[tuple[int, int]] = []
        for left, right in places:
            targets += [(len(branches) + b, len(left) + j) for b, j in plan.targets]
            branches += [(*left, *path, *right) for path in plan.branches or ((),)]
        answers = plan.answers * len(places)
        return Example(laid.ids, laid.slot, tuple(branches), tuple(targets), answers)

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with the nodes of the tree that its label's words pass, or with all."""
        if not self.labelling.own:
            return self.dev_example(row, room)
        return self._encoded(row, room, self.verbalizer.by_label[self.labelling.gold(row)[0]])

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the row with all nodes of the tree, so that every label has its score."""
        return self._encoded(row, room, self.verbalizer.everything)

    def _encoded(self, row: Row, room: int, plan: Plan) -> Encoded:
        places, golds = self._places(row), self.labelling.gold(row)
        laid = self._laid(row, room, places, self._demos([row])[0])
        example = self._example(laid, places, plan)
        return Encoded(example, golds[0] if golds else 0, laid.cut, golds=golds)

    # Logits to answers -------------------------------------------------------------------------

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens that label words are spelled with, None where all are needed."""
        return self.verbalizer.tokens

    def weight(self, item: Encoded) -> float:
        """Return what the row's loss is of the whole, as the labelling says."""
        return self.labelling.weight(item)

    def _scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels at all places of rows: (places, labels)."""
        asked = len(self.verbalizer.everything.targets)
        owners = [each for each in examples for _ in range(len(each.targets) // asked)]
        return self.verbalizer.scores(logits, owners)

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return minus the log-probability of each row's label, or as the labelling says."""
        examples = [item.example for item in items]
        if not self.labelling.own:
            return self.labelling.losses(self._scores(logits, examples), items)
        each = self.verbalizer.losses(logits, examples, [item.gold for item in items])
        return each * each.new_tensor([self.weight(item) for item in items])

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows, such as how many have their own label as the likeliest."""
        return self.labelling.dev_counts(
            self._scores(logits, [item.example for item in items]), items
        )

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score that the labelling makes of such sums."""
        return self.labelling.dev_score(sums)

    def instruction(self) -> str:
        """Name the labels in a sentence, the default text to start from."""
        *most, last = [words[0].strip() for words in self.words.values()]
        return f"{self.labelling.asks} {', '.join(most)} or {last}.\n\n"

    def label_text(self) -> str:
        """Return the words of all labels, one after the other."""
        return "".join(word for words in self.words.values() for word in words)

    def class_of(self, row: Row) -> str | None:
        """Return the class by which demonstrations are balanced."""
        return self.labelling.class_of(row)

    def demonstration(self, row: Row) -> str:
        """Return the row as the template shows it, with its labels' words in their places."""
        spoken = [
            ",".join(self.words[self.labels[label]][0] for label in own)
            for own in self.labelling.spoken(row)
        ]
        whole = self.template.shown().fill(self._values(row))
        if not self.each.parts:
            word = spoken[0].lstrip(" ") if self.template.close else spoken[0]
            return f"{_answered(whole, word)}{self.template.after}"
        places = zip(self.labelling.places(row), spoken, strict=True)
        told = [_answered(self.each.fill(values), word) for values, word in places]
        return "".join([*(p for p in whole if isinstance(p, str)), *told, self.template.after])

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task with what its labelling chooses by the answers to dev rows."""
        if self.labelling.fit is None:
            return self.task
        return self.labelling.fit(self.task, rows, self.predict(rows, injection))

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
        room = room_for(self.backbone, injection)
        asked = len(rows)
        blanks = [
            Row(dict.fromkeys(self.template.fields, text), f"--calibration {self.aids.calibration}")
            for text in (BLANKS[self.aids.calibration] if rows else ())
        ]
        injection, parts = also(injection, len(blanks))
        rows = [*rows, *(blank for _ in parts for blank in blanks)]
        places = [self._places(row) for row in rows]
        laid = [
            self._laid(row, room, place, demos, before)
            for row, place, demos in zip(rows, places, self._demos(rows), strict=True)
        ]
        plan = self.verbalizer.everything
        examples = [self._example(*pair, plan) for pair in zip(laid, places, strict=True)]
        found: dict[int, Tensor] = {}
        for group, logits in infer(self.backbone, injection, examples, tokens=self.tokens):
            sizes = [len(examples[i].targets) // len(plan.targets) for i in group]
            scores = torch.split(self._scores(logits, [examples[i] for i in group]), sizes)
            for index, own in zip(group, scores, strict=True):
                found[index] = own
            if progress is not None:
                progress(sum(index < asked for index in group))
        for part, first in zip(parts, range(asked, len(rows), len(blanks) or 1), strict=True):
            blank = torch.cat([found[index] for index in range(first, first + len(blanks))])
            whose = injection.rows if isinstance(injection, Mixture) else [0] * asked
            found |= {n: calibrated(found[n], blank) for n in range(asked) if whose[n] == part}
        return [{**self.labelling.answer_of(found[n]), "cut": laid[n].cut} for n in range(asked)]

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return the labelling's scores."""
        return self.labelling.score(rows, predictions, seed)


def _parted(pieces: Sequence[str | VirtualTokens | Slot]) -> tuple[list[str], list[str]]:
    """Return the texts before and after the place of the answer."""
    at = pieces.index(Slot()) if Slot() in pieces else len(pieces)
    before, after = (
        [piece for piece in part if isinstance(piece, str)] for part in (pieces[:at], pieces[at:])
    )
    return before, after


def _answered(pieces: Sequence[str | VirtualTokens | Slot], word: str) -> str:
    """Return a filled template with an answer in its place."""
    left, right = ("".join(part) for part in _parted(pieces))
    joined = left + word.lstrip(" ") if left.endswith((" ", "\n")) else left + word
    return joined + right
