"""Classify: one label a row, read off the model's scores of the words that stand for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.read import Row
from foreword.data.shapes import require
from foreword.engine import infer
from foreword.errors import UserError, nearest
from foreword.injection import Injection, Mixture
from foreword.metrics.classification import classification
from foreword.tasks.headed import Headed
from foreword.tasks.layout import Laid, Side, answer_ids, lay, room_for, soft_size, values_of
from foreword.tasks.task import Encoded
from foreword.tasks.template import Slot, Soft, Template
from foreword.tasks.verbalizer import Cloze, LabelTree, Path, Plan, normalized, words_of


@dataclass(frozen=True)
class Classify:
    """A template that ends in (or, on masked models, holds) the answer, and a verbalizer.

    ``labels`` maps each label to its word or words; None takes the labels that occur in the rows
    and makes words of their names. ``loss`` is taken over the labels, or over the whole
    "vocabulary". ``label_smoothing`` spreads that share of each row's target evenly over all labels
    (Szegedy et al. 2016, arXiv:1512.00567). Rows of more than ``max_length`` tokens lose text on
    the side ``truncate``; of each field no more than its first ``input_window`` tokens are read.
    """

    template: str | None = None
    labels: Mapping[str, str | Sequence[str]] | None = None
    label_field: str = "label"
    max_length: int = 512
    truncate: Side = "right"
    input_window: int | None = None
    loss: Literal["labels", "vocabulary"] = "labels"
    label_smoothing: float = 0.0

    def completed(self, rows: Sequence[Row], shape: str, backbone: Backbone) -> Classify:
        """Find the labels in the rows where none are given, and a template for their shape."""
        template = self.template
        if template is None:
            template = usual_template(rows[0], backbone, "Label")
        labels = self.labels
        if labels is None:
            require(rows, [self.label_field])
            names = sorted({str(row.fields[self.label_field]) for row in rows})
            labels = {name: words_of(name) for name in names}
        return replace(self, template=template, labels=normalized(labels))

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; labels and template must be known by now."""
        return Classifier(self, backbone)


class Classifier:
    """A classification bound to a backbone."""

    metric = "accuracy"
    headline = "accuracy"
    answer = "label"

    def __init__(self, task: Classify, backbone: Backbone) -> None:
        if task.template is None or task.labels is None:
            raise UserError("a classification needs a template and labels; give both, or rows")
        self.task = task
        self.backbone = backbone
        self.template = Template.parse(task.template)
        self._headed = False
        if task.loss == "vocabulary" and backbone.architecture == "masked":
            raise UserError("loss 'vocabulary' is not for masked models; leave it out")
        if not 0 <= task.label_smoothing < 1:
            raise UserError(
                f"label_smoothing is {task.label_smoothing}; give a share, from 0 to below 1"
            )
        if task.label_smoothing and task.loss == "vocabulary":
            raise UserError("label_smoothing spreads over labels; use it with loss 'labels'")
        self.words = normalized(task.labels)
        self.labels = list(self.words)
        if backbone.architecture == "masked" and Slot() not in self.template.parts:
            raise UserError(
                f"template {task.template!r} has no [mask]; a masked model needs to know where "
                "the answer stands"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""
        return self.template.fields

    @property
    def classes(self) -> int:
        """The number of labels."""
        return len(self.labels)

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""
        return sum(size for size, _ in self.starts())

    def starts(self) -> list[tuple[int, str | None]]:
        """The template's runs of virtual tokens: size and starting text of each."""
        return [(soft_size(self.backbone, soft), soft.text) for soft in self.template.soft]

    @cached_property
    def _left(self) -> str:
        """The literal text before the answer, the same for all rows."""
        parts = [*self.template.parts, Slot()]
        before = parts[parts.index(Slot()) - 1] if parts.index(Slot()) else ""
        return before if isinstance(before, str) else "" if isinstance(before, Soft) else "."

    @cached_property
    def verbalizer(self) -> LabelTree | Cloze | Headed:
        """The label words as tokens, or the labels alone where a head scores them."""
        if self._headed:
            masked = self.backbone.architecture == "masked"
            return Headed(tuple(self.labels), self._mask() if masked else None)
        owners: dict[Path, int] = {}
        for number, label in enumerate(self.labels):
            for word in self.words[label]:
                path = tuple(answer_ids(self.backbone, self._left, word))
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
            return Cloze(tuple(words), len(self.labels), self._mask())
        whole = self.task.loss == "vocabulary"
        return LabelTree.grow(words, len(self.labels), self.backbone.text.end, vocabulary=whole)

    def _mask(self) -> int:
        mask = self.backbone.text.mask
        if mask is None:
            raise UserError(f"{self.backbone.name}: its tokenizer has no mask token")
        return mask

    def headed(self) -> Classifier:
        """Return the task for an injection with a head, which scores the labels."""
        made = Classifier(self.task, self.backbone)
        made._headed = True
        return made

    def bare(self) -> Classifier:
        """Return the task with the virtual tokens left out of its template."""
        made = Classifier(self.task, self.backbone)
        made.template = self.template.hard()
        return made

    # Rows to examples --------------------------------------------------------------------------

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field, or has an unknown label."""
        for row in rows:
            self.template.check(row.fields, row.where)
        require(rows, self.template.fields)
        if not answers:
            return
        require(rows, [self.task.label_field])
        known = set(self.labels)
        for row in rows:
            label = str(row.fields[self.task.label_field])
            if label not in known:
                raise UserError(
                    f"{row.where}: unknown label '{label}'; {nearest(label, self.labels)}; "
                    "mend the row, or name the label with --labels"
                )

    def _values(self, row: Row) -> dict[str, str]:
        return values_of(self.backbone, row, self.template.fields, self.task.input_window)

    def _laid(self, row: Row, room: int, before: str = "") -> Laid:
        extra = max(map(len, self.verbalizer.everything.branches), default=0)
        limit = self.task.max_length + len(self.backbone.text.ids(before))
        return lay(
            self.backbone,
            self.template,
            self._values(row),
            room=min(limit, room - extra),
            side=self.task.truncate,
            where=row.where,
            before=before,
        )

    def _example(self, laid: Laid, plan: Plan) -> Example:
        branches = plan.branches or ((),)
        return Example(laid.ids, laid.slot, branches, plan.targets, plan.answers)

    def gold(self, row: Row) -> int:
        """Return the number of a row's label."""
        return self.labels.index(str(row.fields[self.task.label_field]))

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with the nodes of the tree that its label's words pass, or with all."""
        if self.task.label_smoothing:
            return self.dev_example(row, room)
        laid, gold = self._laid(row, room), self.gold(row)
        return Encoded(self._example(laid, self.verbalizer.by_label[gold]), gold, laid.cut)

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the row with all nodes of the tree, so that every label has its score."""
        laid = self._laid(row, room)
        return Encoded(self._example(laid, self.verbalizer.everything), self.gold(row), laid.cut)

    # Logits to answers -------------------------------------------------------------------------

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens that label words are spelled with, None where all are needed."""
        return self.verbalizer.tokens

    def weight(self, item: Encoded) -> int:
        """Count every row once."""
        return 1

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        examples, gold = [item.example for item in items], [item.gold for item in items]
        share = self.task.label_smoothing
        if not share:
            return self.verbalizer.losses(logits, examples, gold)
        scores = self.verbalizer.scores(logits, examples)
        own = scores[range(len(items)), gold]
        return -(1 - share) * own - share * scores.mean(1)

    def judge(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return how many rows have their own label as the likeliest, and their number."""
        best = self.verbalizer.scores(logits, [item.example for item in items]).argmax(1)
        right = sum(int(b) == item.gold for b, item in zip(best, items, strict=True))
        return 100.0 * right, len(items)

    def instruction(self) -> str:
        """Name the labels in a sentence, the default text to start from."""
        *most, last = [words[0].strip() for words in self.words.values()]
        return f"Classify the text as {', '.join(most)} or {last}.\n\n"

    def label_text(self) -> str:
        """Return the words of all labels, one after the other."""
        return "".join(word for words in self.words.values() for word in words)

    def class_of(self, row: Row) -> str | None:
        """Return the row's label."""
        return str(row.fields[self.task.label_field])

    def demonstration(self, row: Row) -> str:
        """Return the row as the template shows it, with its label's word in place."""
        word = self.words[str(row.fields[self.task.label_field])][0]
        pieces = [p for p in self.template.fill(self._values(row)) if not isinstance(p, Soft)]
        if Slot() not in pieces:
            pieces.append(Slot())
        at = pieces.index(Slot())
        left = "".join(p for p in pieces[:at] if isinstance(p, str))
        right = "".join(p for p in pieces[at:] if isinstance(p, str))
        joined = left + word.lstrip(" ") if left.endswith((" ", "\n")) else left + word
        return f"{joined}{right}\n\n"

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's label and the probabilities of all labels."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        laid = [self._laid(row, room, before) for row in rows]
        examples = [self._example(each, self.verbalizer.everything) for each in laid]
        found: list[dict[str, Any]] = [{} for _ in rows]
        for group, logits in infer(self.backbone, injection, examples, tokens=self.tokens):
            scores = self.verbalizer.scores(logits, [examples[i] for i in group]).exp()
            for index, row in zip(group, scores.tolist(), strict=True):
                by_label = dict(zip(self.labels, row, strict=True))
                best = max(by_label, key=lambda label: by_label[label])
                found[index] = {"label": best, "probabilities": by_label, "cut": laid[index].cut}
            if progress is not None:
                progress(len(group))
        return found

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return accuracy, macro F1, precision and recall a label, and the confusion matrix."""
        gold = [str(row.fields[self.task.label_field]) for row in rows]
        return classification(gold, [str(p["label"]) for p in predictions], self.labels, seed=seed)


def usual_template(row: Row, backbone: Backbone, asked: str) -> str:
    """Return the template of rows with a text or a pair: its lines, then what is asked for.

    Raises UserError where the row has neither.
    """
    known = [name for name in ("text", "text_a", "text_b") if name in row.fields]
    if not known:
        raise UserError(
            f"{row.where}: no field 'text'; say how a row reads with --template, "
            f"from its fields ({', '.join(row.fields)})"
        )
    body = "\n".join(f"{{{name}}}" for name in known)
    answer = " [mask]" if backbone.architecture == "masked" else ""
    return f"{body}\n{asked}:{answer}"
