"""Labels that come later: one more label for a finished prompt, or one less, without training.

A label that is scored by words needs its words alone. A head needs one more row of weights, a
logistic regression on states under the prompt, in which the other labels' scores stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.data.duplicates import joined_marks
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.grammar import counted
from foreword.injection import ClassHead, Injection
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import LabelTask, Words
from foreword.tasks.registry import name_of
from foreword.tasks.states import states_of_rows
from foreword.tasks.templates.template import with_demos_at_most
from foreword.tasks.words import as_word

Prompt = Any
"""A prompt (prompt.py), which takes these functions for methods."""


def labels_of(prompt: Prompt) -> Words:
    """Return a prompt's labels with their words; raises UserError for a task that has none."""
    if not isinstance(prompt.task, LabelTask) or not prompt.task.labels:
        raise UserError(f"{prompt.where}: a task of kind {name_of(prompt.task)} has no labels")
    return prompt.task.labels


def add_label(
    prompt: Prompt,
    label: str,
    words: str | Sequence[str] | None,
    description: str | None,
    rows: Sequence[Row] | None,
) -> Prompt:
    """Return the prompt with one more label; see ``Prompt.add_label``."""
    known = labels_of(prompt)
    if not isinstance(label, str):
        raise UserError(f"`label={label}` is of type {type(label).__name__}; give a name as text")
    if label in known:
        raise UserError(f"{prompt.where}: has the label '{label}' already; choose another name")
    task: Any = prompt.task
    given = [words] if isinstance(words, str) else words or ()
    said = tuple(map(as_word, given)) or (task.usual_words(label),)
    changes: dict[str, Any] = {"labels": {**known, label: said}}
    if isinstance(weights := getattr(task, "class_weights", None), Mapping):
        changes["class_weights"] = {**weights, label: 1.0}
    if limits := getattr(task, "thresholds", None):
        usual = sorted(limits.values())[len(limits) // 2]
        changes["thresholds"] = {**limits, label: usual}
    made = replace(prompt, task=replace(task, **changes), scores={})
    head = prompt.injection.head
    how = "its words"
    if head is None:
        if description is not None or rows is not None:
            raise UserError(
                f"{prompt.where}: scores labels by their words, so a label is added by its name or "
                "by `words`; rows and descriptions are for prompts with a head"
            )
        bound = made.bound
        assert isinstance(bound, Classifier)  # as all tasks of labels are
        bound.label_paths()  # words that the tokenizer drops
        bound.verbalizer  # noqa: B018  (words of the tokens of another label)
    else:
        if description is not None and rows is not None:
            raise UserError("`description` and `rows` both say what the label is; give one")
        made, own = _with_row(prompt, made, label, description, rows)
        how = counted(len(own), "row") if rows else "a description" if description else "its name"
        if rows and "marks" in prompt.data:
            marks = joined_marks(prompt.data["marks"], own, prompt.bound.fields)
            made = replace(made, data={**made.data, "marks": marks})
    return _noting(made, {"added": label, "by": how})


def remove_label(prompt: Prompt, label: str) -> Prompt:
    """Return the prompt without a label; see ``Prompt.remove_label``."""
    known = labels_of(prompt)
    task: Any = prompt.task
    if label not in known:
        raise UserError(f"{prompt.where}: has no label '{label}'; {nearest(label, known)}")
    none = getattr(task, "none", None) if hasattr(task, "thresholds") else None
    if label == none:
        raise UserError(f"{prompt.where}: '{label}' stands for no label at all and has to stay")
    if len(known) < 3:
        raise UserError(
            f"{prompt.where}: has {counted(len(known), 'label')}; two or more have to stay"
        )
    changes: dict[str, Any] = {}
    for name in ("labels", "class_weights", "thresholds"):
        if isinstance(held := getattr(task, name, None), Mapping):
            changes[name] = {key: value for key, value in held.items() if key != label}
    if shown := getattr(task, "shown", None):
        left = [row for row in shown if row.get(task.label_field) != label]
        changes |= {"shown": left, "template": with_demos_at_most(task.template, len(left))}
    injection, head = prompt.injection, prompt.injection.head
    if head is not None:
        place = prompt.task.class_names.index(label)
        kept = [n for n in range(len(head.bias)) if n != place]
        injection = replace(
            injection, head=replace(head, weight=head.weight[kept], bias=head.bias[kept])
        )
    texts = prompt.data.get("demonstrations")
    data = dict(prompt.data)
    if texts:
        data["demonstrations"] = [text for text in texts if label not in _ends(text, known)]
    made = replace(prompt, task=replace(task, **changes), injection=injection, data=data, scores={})
    return _noting(made, {"removed": label})


def _ends(text: str, labels: Words) -> set[str]:
    """Return the labels with the longest word that a text ends with."""
    longest = {
        label: max(
            (len(w.strip()) for w in _words(own) if text.rstrip().endswith(w.strip())), default=0
        )
        for label, own in labels.items()
    }
    most = max(longest.values())
    return {label for label, size in longest.items() if size == most > 0}


def _words(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _noting(prompt: Prompt, change: Mapping[str, str]) -> Prompt:
    """Return the prompt with a line of its history, without what was fitted on other labels."""
    history = [*prompt.data.get("labels", ()), dict(change)]
    data = {name: value for name, value in prompt.data.items() if name != "min_probability"}
    return replace(prompt, data={**data, "labels": history})


# A row of a head ---------------------------------------------------------------------------------


def _with_row(
    prompt: Prompt, made: Prompt, label: str, description: str | None, rows: Sequence[Row] | None
) -> tuple[Prompt, Sequence[Row]]:
    """Return the prompt with one more row in its head, and the rows of the new label."""
    old = prompt.bound
    assert isinstance(old, Classifier)
    if old.answer == "tags":
        raise UserError(f"{prompt.where}: tags words, and its head takes no further tag; tune it")
    bound = made.task.bind(old.backbone).with_head()
    assert isinstance(bound, Classifier)
    given = list(rows or [])
    if rows is not None:
        given = [_labelled(bound, row, label) for row in given]
        bound.check(given, answers=True)
    new = [row for row in given if label in _own(bound, row)]
    if rows is not None and not new:
        raise UserError(f"none of the {len(given)} rows is of the label '{label}'; give some")
    others = [row for row in given if label not in _own(bound, row)]
    task: Any = made.task
    if rows is None:
        new = [_as_row(bound, description or task.words_for(label).strip(), label)]
    seen = {label, *(name for row in others for name in _own(bound, row))}
    others += [  # what is known of a label without rows is its name
        _as_row(bound, task.words_for(name).strip(), name)
        for name in bound.labels
        if name not in seen
    ]
    head = row_for(bound, prompt.injection, label, new, others)
    return replace(made, injection=replace(prompt.injection, head=head)), new


def _own(bound: Classifier, row: Row) -> Sequence[str]:
    answer = bound.labelling.gold_answer(row)
    return answer if isinstance(answer, list) else [answer]


def _labelled(bound: Classifier, row: Row, label: str) -> Row:
    """Return a row with the new label where it has none of its own."""
    if bound.pair[1] in row.fields:
        return row
    return replace(row, fields={**row.fields, **_answer(bound, label)})


def _as_row(bound: Classifier, words: str, label: str) -> Row:
    """Return a row whose text is what a label is called."""
    fields = {**dict.fromkeys(bound.fields, words), **_answer(bound, label)}
    return Row(fields, f"label '{label}'")


def _answer(bound: Classifier, label: str) -> dict[str, Any]:
    """Return the field of a row's answer with this label in it."""
    several = hasattr(bound.task, "labels_field")
    none = label == getattr(bound.task, "none", None)
    return {bound.pair[1]: ([] if none else [label]) if several else label}


def row_for(
    bound: Classifier,
    injection: Injection,
    label: str,
    new: Sequence[Row],
    others: Sequence[Row],
) -> ClassHead:
    """Return the injection's head with one more row, for a label that ``bound`` has already.

    The row is a logistic regression of the new label against the others, whose scores stay: it
    minimises the task's loss on the rows, each label counting as much as any other, plus half the
    squared norm of the row over features of variance 1 (scikit-learn's usual penalty). Of a cosine
    head the row begins as the mean of the new label's states, brought to length 1.
    """
    head = injection.head
    assert head is not None
    rows = [*new, *others]
    items, found = states_of_rows(bound, rows, injection)
    states = torch.cat(found).float()  # (rows, width)
    held = head.map(lambda tensor: tensor.detach().cpu().float())
    before = held.scores(states)  # (rows, C)
    features = states if held.scale is None else F.normalize(states, dim=1)
    spread = features.std(0, correction=0).clamp(min=1e-6)
    start = torch.zeros_like(spread)
    if held.scale is not None:
        start = held.scale * F.normalize(features[: len(new)].mean(0), dim=0)
    kinds = [str(bound.class_of(row)) for row in rows]
    shares = torch.tensor([len(rows) / len(set(kinds)) / kinds.count(kind) for kind in kinds])
    place = sorted(bound.labels).index(label)
    learned = torch.zeros_like(spread, requires_grad=True)
    level = torch.zeros((), requires_grad=True)  # the label's mean score over the rows
    search = torch.optim.LBFGS(
        [learned, level], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def one() -> tuple[Tensor, Tensor]:
        weight = start + learned / spread
        alone = ClassHead(weight[None], weight.new_zeros(1), held.scale)
        return weight, alone.scores(states)[:, 0]

    def loss() -> Tensor:
        search.zero_grad()
        scores = one()[1]
        scores = (scores - scores.mean() + level)[:, None]
        logits = torch.cat([before[:, :place], scores, before[:, place:]], 1)
        value = (shares * bound.losses(logits, items)).sum() + learned.square().sum() / 2
        torch.autograd.backward(value)
        return value

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight, scores = one()
        bias = (level - scores.mean())[None]
    weights = torch.cat([held.weight[:place], weight[None], held.weight[place:]])
    biases = torch.cat([held.bias[:place], bias, held.bias[place:]])
    return replace(head, weight=weights.to(head.weight), bias=biases.to(head.bias))
