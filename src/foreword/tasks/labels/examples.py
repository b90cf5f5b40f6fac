"""Rows of tasks whose answers are labels, as a backbone reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError
from foreword.grammar import counted, is_are
from foreword.injection import NOTHING, ClassHead
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.labels.calibrate import Calibration
from foreword.tasks.labels.head_scores import Headed
from foreword.tasks.labels.label_tree import LabelTree
from foreword.tasks.labels.labelling import Labelling, Words
from foreword.tasks.labels.similar import FrozenHead, by_names, encode_labels
from foreword.tasks.labels.verbalizer import Cloze, Plan, TokenPath, normalize, token_paths
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.demonstrations import DemonstrationPool
from foreword.tasks.templates.layout import FilledTemplate, answer_ids, field_texts, room_for
from foreword.tasks.templates.template import Slot, Template, VirtualTokens


@dataclass(frozen=True)
class ZeroShotAids:
    """What helps an untrained model: calibration, and demonstrations before each row."""

    calibration: Calibration = "none"
    shown: Sequence[Mapping[str, str]] = ()
    nearest: bool = False


SlotTokens = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens of a slot before its answer, and those after it."""


class LabelExamples(Bound):
    """Turns rows into examples; ``Classifier`` adds what happens to the logits.

    Raises UserError if template or words are missing, or do not suit the backbone.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        labelling: Labelling,
        words: Words | None,
        aids: ZeroShotAids | None = None,
    ) -> None:
        if task.template is None or words is None:
            raise UserError("a classification needs a template and labels; give both, or rows")
        super().__init__(task, backbone, task.template)
        self.labelling = labelling
        self.can_show = aids is not None
        self.aids = aids or ZeroShotAids()
        self.head_left_out = False
        self.slot_template = Template.parse(labelling.slot_template)
        masked = backbone.fills_masks
        if labelling.vocabulary and (masked or backbone.is_encoder):
            kind = "masked models" if masked else "encoders"
            raise UserError(f"loss 'vocabulary' is not for {kind}; leave it out")
        self.words = normalize(words)
        self.labels = list(self.words)
        last = self.slot_template if self.slot_template.parts else self.template
        if masked and Slot() not in last.parts:
            raise UserError(
                f"template {last.source!r} has no [mask]; a masked model needs to know where "
                "the answer stands"
            )

    def changed(self, **attributes: Any) -> Self:
        """Return a copy with other attributes, which keeps the pool of demonstrations."""
        other = super().changed(**attributes)
        vars(other).pop("verbalizer", None)  # depends on the template and on the head
        return other

    # Label words -------------------------------------------------------------------------------

    def spell(self, word: str) -> TokenPath:
        """Return the tokens of a word at the answer's position."""
        inside = bool(self.slot_template.parts)
        if self.template.close and not inside:
            word = word.lstrip(" ")
        return tuple(answer_ids(self.backbone, self._left, word, inside=inside))

    @property
    def _left(self) -> str:
        """The literal text before the answer, the same for all rows."""
        parts = [*(self.slot_template.parts or self.template.parts), Slot()]
        before = parts[parts.index(Slot()) - 1] if parts.index(Slot()) else ""
        if isinstance(before, str):
            return before
        return "" if isinstance(before, VirtualTokens) else "."

    @cached_property
    def verbalizer(self) -> LabelTree | Cloze | Headed | FrozenHead:
        """The label words as tokens, or encoded on an encoder; with a head the labels alone."""
        masked, encoder = self.backbone.fills_masks, self.backbone.is_encoder
        if self.headed:
            return Headed(tuple(self.labels), self.mask() if masked else None, encoder)
        if encoder:
            return FrozenHead(len(self.labels), self._frozen_head)
        paths = token_paths(self.words, self.spell)
        if masked:
            return Cloze(tuple(paths), len(self.labels), self.mask())
        whole = self.labelling.vocabulary
        return LabelTree.grow(
            paths, len(self.labels), self.backbone.text.tokenizer.eos_token_id, vocabulary=whole
        )

    def mask(self) -> int:
        """Return the mask token of a masked model."""
        mask = self.backbone.text.mask
        if mask is None:
            raise UserError(f"{self.backbone.name}: its tokenizer has no mask token")
        return mask

    @property
    def tokens(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """The tokens of the label words, None if the whole vocabulary is needed."""
        return self.verbalizer.tokens

    def _frozen_head(self) -> ClassHead:
        """Return the encoder's own head, or else one by the labels' names."""
        own = self.own_head
        if own is None:
            return by_names(self.backbone, list(self.words.values()))
        ordered = sorted(self.labels)
        place = [ordered.index(label) for label in self.labels]
        return ClassHead(own.weight[place], own.bias[place])

    @cached_property
    def own_head(self) -> ClassHead | None:
        """The encoder's own head for the labels, in the order of their names.

        It is None where the encoder has none, and where the model under a prompt with a head has
        one for other labels. Raises UserError for other labels that no head is trained for.
        """
        own = self.backbone.own_head
        if own is None:
            return None
        ordered = sorted(self.labels)
        names = [(label, *(word.strip() for word in self.words[label])) for label in ordered]
        try:
            return own.scores(
                names, self.backbone.name, self.labelling.no_label, words=self.answer == "tags"
            )
        except UserError:
            if not self.head_left_out:
                raise
            return None

    def zero_shot(self) -> Self:
        """Return the task for the frozen model alone: no virtual tokens, and no head."""
        return super().zero_shot().changed(head_left_out=self.headed)

    def label_encodings(self) -> Tensor | None:
        """Return an encoder's states of the labels' words, in the order of the labels' names."""
        if not self.backbone.is_encoder:
            return None
        return encode_labels(self.backbone, [self.words[label] for label in sorted(self.words)])

    def label_paths(self) -> Mapping[str, Sequence[TokenPath]]:
        """Return the tokens of each label's words at the answer's position; none on an encoder."""
        if self.backbone.is_encoder:
            return {}
        return {label: [self.spell(word) for word in own] for label, own in self.words.items()}

    # Rows --------------------------------------------------------------------------------------

    @property
    def reads(self) -> tuple[str, ...]:
        """The template's fields, those of a slot, and those that the labelling needs."""
        return (*self.fields, *self.slot_template.fields, *self.labelling.needs)

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field, or has an unknown label.

        Where rows are never cut, also at one that is too long for the model without any prompt.
        """
        for row in rows:
            self.template.check(row.fields, row.where, shows=self.can_show)
        require([self.labelling.as_text(row) for row in rows], self.template.fields)
        for row in rows:
            self.labelling.check(row, answers=answers)
        if self.labelling.never_cut:
            for row in rows:
                self.check_length(row)

    def check_length(self, row: Row) -> None:
        """Raise UserError if a row is too long to be read whole, even without a prompt."""
        if self.template.demos is None:
            self.lay_out(row, room_for(self.backbone, NOTHING), self.slot_tokens(row), ())

    def _values(self, row: Row) -> dict[str, str]:
        text = self.labelling.as_text(row)
        return field_texts(self.backbone, text, self.template.fields, self.task.input_window)

    def key(self, row: Row) -> str:
        """Return the text that identifies a row: that of its template fields."""
        return "\n".join(self._values(row).values())

    @cached_property
    def _demonstrations(self) -> DemonstrationPool | None:
        """The demonstrations to choose from, None if the template has no {demos:N}."""
        if self.template.demos is None:
            return None
        if (there := len(self.aids.shown)) < self.template.demos.count:
            raise UserError(
                f"template {self.template.source!r}: {counted(there, 'row')} {is_are(there)} there "
                "to show; a training draws them from its rows"
            )
        rows = [Row(each, f"demonstration {n}") for n, each in enumerate(self.aids.shown, 1)]
        for row in rows:
            self.template.check(row.fields, row.where, shows=True)
            self.labelling.check(row, answers=True)
        texts = {self.key(row): self.demonstration(row) for row in rows}
        return DemonstrationPool(self.backbone, texts, self.template.demos.count, self.aids.nearest)

    def embed_demonstrations(self, report: Reporter) -> None:
        """Embed the rows of which the nearest are shown, where they are; ``report`` counts them."""
        if self._demonstrations is not None:
            self._demonstrations.embed(report)

    def demos_before(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return the demonstrations to put before each row."""
        if self._demonstrations is None:
            return [[] for _ in rows]
        return self._demonstrations.before([self.key(row) for row in rows])

    def lay_out(
        self,
        row: Row,
        room: int,
        slots: Sequence[SlotTokens],
        demos: Sequence[str],
        before: str = "",
    ) -> FilledTemplate:
        """Fill the template with a row, leaving room for an answer at each slot.

        Raises UserError for a row that is too long and must not be truncated.
        """
        around = max(len(left) + len(right) for left, right in slots)
        room -= around + max(map(len, self.verbalizer.everything.branches), default=0)
        filled = self.fill(self._values(row), room, row.where, before, demos)
        if filled.truncated and self.labelling.never_cut:
            raise self.too_long(row, self.limit(room, before))
        return filled

    def too_long(self, row: Row, most: int) -> UserError:
        """Return the error for a row of more than ``most`` tokens that must not be truncated."""
        raised = self.task.max_length < self.backbone.longest
        return UserError(
            f"{row.where}: too long for {most} tokens; part the row in two"
            + (", or raise `max_length`" if raised else "")
        )

    def slot_tokens(self, row: Row) -> list[SlotTokens]:
        """Return the tokens before and after the answer at each of a row's slots."""
        text = self.backbone.text
        decoded = self.slot_template.parts and self.backbone.has_two_stacks
        first = text.around[0] if decoded else ()
        tokens = []
        for values in self.labelling.slots(row):
            pieces = [*self.slot_template.fill(values), Slot()]
            left, right = ("".join(map(str, part)) for part in _around_slot(pieces))
            with reading(row.where):
                before, after = text.ids(left.rstrip(" ")), text.ids(right)
            tokens.append(((*first, *before), tuple(after)))
        return tokens

    def example(self, filled: FilledTemplate, slots: Sequence[SlotTokens], plan: Plan) -> Example:
        """Return the row with the plan's branches and targets at each slot."""
        branches: list[tuple[int, ...]] = []
        targets: list[tuple[int, int]] = []
        for left, right in slots:
            targets += [(len(branches) + b, len(left) + j) for b, j in plan.targets]
            branches += [(*left, *path, *right) for path in plan.branches or ((),)]
        answers = plan.answers * len(slots)
        return Example(
            filled.ids, filled.slot, tuple(branches), tuple(targets), answers, filled.bos
        )

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with the nodes of its gold label's words, or with all nodes."""
        if not self.labelling.gold_alone:
            return self.dev_example(row, room)
        return self._encode(row, room, self.verbalizer.by_label[self.labelling.gold(row)[0]])

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the row with all nodes of the tree, which score every label."""
        return self._encode(row, room, self.verbalizer.everything)

    def _encode(self, row: Row, room: int, plan: Plan) -> Encoded:
        slots, golds = self.slot_tokens(row), self.labelling.gold(row)
        filled = self.lay_out(row, room, slots, self.demos_before([row])[0])
        return Encoded(
            self.example(filled, slots, plan),
            golds[0] if golds else 0,
            filled.truncated,
            number=self.labelling.number(row),
            golds=golds,
        )

    def demonstration(self, row: Row) -> str:
        """Return the filled template with the words of the row's labels in its slots."""
        words = [
            ",".join(self.words[self.labels[label]][0] for label in own)
            for own in self.labelling.slot_labels(row)
        ]
        whole = self.template.shown().fill(self._values(row))
        if not self.slot_template.parts:
            word = words[0].lstrip(" ") if self.template.close else words[0]
            text = f"{_answered(whole, word)}{self.template.after}"
            return text.removeprefix(self.backbone.text.first) if self.template.chat else text
        slots = zip(self.labelling.slots(row), words, strict=True)
        answered = [_answered(self.slot_template.fill(values), word) for values, word in slots]
        return "".join([*(p for p in whole if isinstance(p, str)), *answered, self.template.after])


def _around_slot(pieces: Sequence[str | VirtualTokens | Slot]) -> tuple[list[str], list[str]]:
    """Return the texts before and after the slot of the answer."""
    at = pieces.index(Slot()) if Slot() in pieces else len(pieces)
    before, after = (
        [piece for piece in part if isinstance(piece, str)] for part in (pieces[:at], pieces[at:])
    )
    return before, after


def _answered(pieces: Sequence[str | VirtualTokens | Slot], word: str) -> str:
    """Return a filled template with an answer in its slot."""
    left, right = ("".join(part) for part in _around_slot(pieces))
    joined = left + word.lstrip(" ") if left.endswith((" ", "\n")) else left + word
    return joined + right
