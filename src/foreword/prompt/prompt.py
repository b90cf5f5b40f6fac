"""Prompt: the artefact. One safetensors file: tensors, and metadata that explains them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.shared import shared_backbone
from foreword.config.values import from_plain, plain
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError, nearest
from foreword.html import html_table
from foreword.injection import Injection
from foreword.prompt.abstain import least_of
from foreword.prompt.labels import add_label, remove_label
from foreword.prompt.predict import predict
from foreword.prompt.schema import SCHEMA
from foreword.prompt.storage import Store
from foreword.prompt.tensors import check_fit, opened, write_tensors
from foreword.prompt.texts import without_texts
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.registry import TASKS, name_of

OF_PREDICT = ("probabilities", "min_probability", "report")
"""What :meth:`Prompt.predict` takes beside how texts are written."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompt:
    """A tuned injection with the task it serves, the backbone it was made on, and its history.

    ``method`` and ``data`` and ``versions`` and ``scores`` are plain JSON values, kept for
    people; running needs only the injection, the task and the backbone. ``on`` is the backbone in
    hand; without one, the model that ``backbone`` names is opened when it is first needed, once for
    all prompts that name it. ``where`` is the file that it was read from. Neither is part of the
    file.
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
    where: str = "the prompt"

    # Using -------------------------------------------------------------------------------------

    @cached_property
    def bound(self) -> Bound:
        """The task on the backbone; raises UserError where the named model cannot be opened."""
        bound = self.task.bind(self._open() if self.on is None else self.on)
        asked = self.injection.leading + bound.virtual
        held = 0 if self.injection.embeds is None else len(self.injection.embeds)
        if asked != held:
            raise UserError(
                f"the prompt holds {held} virtual tokens and its task places {asked}; "
                "its template was changed after tuning, tune it again"
            )
        return bound if self.injection.head is None else bound.with_head()

    def bound_as(self, bound: Bound) -> Prompt:
        """Return this prompt; its task is not bound again."""
        vars(self)["bound"] = bound
        return self

    def with_scores(self, scores: Mapping[str, Any]) -> Prompt:
        """Return the prompt with other scores; its task is not bound again."""
        made, bound = replace(self, scores=scores), vars(self).get("bound")
        return made if bound is None else made.bound_as(bound)

    def _open(self) -> Backbone:
        """Open the model that the prompt was tuned on, by its name."""
        name, instead = self.backbone["name"], "give the right one: Prompt.load(F, backbone=...)"
        try:
            backbone = shared_backbone(
                name, self.backbone["architecture"], self.backbone.get("pooling", "auto")
            )
        except UserError as error:
            raise UserError(f"{self.where}: no model to run it on ({error}); {instead}") from None
        if not backbone.has_fingerprint(self.backbone["fingerprint"]):
            raise UserError(
                f"{self.where}: was tuned on {name} ({self.backbone['fingerprint'][:19]}), and the "
                f"model of that name is another one now ({backbone.fingerprint[:19]}); {instead}"
            )
        check_fit(self.where, self.injection, backbone)
        return backbone

    def answers(
        self, rows: Sequence[Row], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Answer rows, one object each; ``progress`` is told how many more are done."""
        return self.bound.predict(rows, self.injection, progress=progress)

    def predict(
        self,
        inputs: str | Mapping[str, Any] | Rows,
        *,
        probabilities: bool = False,
        min_probability: float | str | None = None,
        report: Reporter | None = None,
        **decoding: Any,
    ) -> Any:
        """Answer one text or row with one answer, and many with a list: labels, texts or numbers.

        A string is always a text, for a template of one field, and a ``Path`` a file of rows. A
        pandas or polars DataFrame, or a Series of texts, gives a Series, of pandas with the same
        index. An iterator, such as a generator of texts or rows, gives an iterator of answers, for
        which some hundred rows are read at a time. With ``probabilities`` an answer is the
        probability of every label, by its name, and a DataFrame gives a DataFrame. With
        ``min_probability`` an answer that is less sure is None; "auto" asks for the one that it
        keeps (:meth:`with_min_probability`). ``decoding`` are settings of :class:`Decoding` for
        tasks that write texts, such as ``max_new_tokens=20``. ``report`` counts the rows; by
        default they are counted where people see it.

        Raises UserError for what is none of these, for rows that lack a field, and where answers
        have no probabilities.
        """
        return predict(
            self,
            inputs,
            probabilities=probabilities,
            min_probability=min_probability,
            report=report,
            **decoding,
        )

    def decoding(self, **settings: Any) -> Self:
        """Return the prompt with other settings of :class:`Decoding`, such as ``beams=4``.

        A ``json_schema`` may be a dict. Raises UserError for unknown settings, and for a task that
        writes no text.
        """
        usual = getattr(self.task, "decoding", None)
        known = [*(each.name for each in fields(Decoding)), *OF_PREDICT]
        for name in settings.keys() - {*known}:
            raise UserError(f"unknown setting '{name}'; {nearest(name, known)}")
        if not isinstance(usual, Decoding):
            kind, names = name_of(self.task), ", ".join(f"`{name}`" for name in settings)
            raise UserError(f"a task of kind {kind} writes no text; leave out {names}")
        if isinstance(settings.get("json_schema"), Mapping):
            settings["json_schema"] = json.dumps(settings["json_schema"])
        changed = from_plain(Decoding, {**plain(usual), **settings}, "decoding")
        task: Any = self.task  # a frozen dataclass, as all tasks are
        return replace(self, task=replace(task, decoding=changed))

    def add_label(
        self,
        label: str,
        words: str | Sequence[str] | None = None,
        *,
        description: str | None = None,
        rows: Rows | None = None,
    ) -> Prompt:
        """Return the prompt with one more label, without training.

        A prompt that scores label words needs only these: ``words``, or those of the label's name.
        A head needs one more row of weights. It is fitted on a few ``rows`` of the label (rows of
        other labels may be among them, and make it better), or on a ``description``, or on the
        name; what the other labels score stays as it is.

        Raises UserError for a label that is there already, for words that the model could not tell
        from those of another label, and for rows that cannot be used.
        """
        given = None if rows is None else as_rows(rows, fields=self.bound.pair)
        made: Prompt = add_label(self, label, words, description, given)
        return made

    def remove_label(self, label: str) -> Prompt:
        """Return the prompt without a label, which it then gives to no row.

        Raises UserError for an unknown label, and where fewer than two would be left.
        """
        made: Prompt = remove_label(self, label)
        return made

    def with_min_probability(self, least: float) -> Prompt:
        """Return the prompt with the probability that ``min_probability="auto"`` asks for.

        ``evaluate(prompt, dev, min_probability="fit")["abstaining"]["min_probability"]`` is one.
        """
        checked = least_of(self, least)
        made = replace(self, data={**self.data, "min_probability": checked})
        return made.bound_as(self.bound)

    def with_text(self, text: str) -> Prompt:
        """Return the prompt with a text that may stand in its place, on any model: a hard prompt.

        It is kept in ``data["text"]``; the prompt answers as before.
        """
        if not text.strip():
            raise UserError("`text` is empty; give a text that may stand in the prompt's place")
        made = replace(self, data={**self.data, "text": text})
        return made.bound_as(self.bound)

    def report(self, data: Rows, **settings: Any) -> Any:
        """Look at the prompt on rows with their answers, and return a page: :class:`Report`.

        ``train`` are the rows that it was tuned on, ``out`` is where the page is written; the other
        ``settings`` are those of :func:`report_on`.
        """
        return import_module("foreword.report.report").report_on(self, data, **settings)

    def explain(self, data: Rows | None = None, **settings: Any) -> Any:
        """Say what the prompt has learned, by rows or by one ``text``: ``foreword.explain`` of it.

        ``settings`` are those of that function.
        """
        # By its name, as methods and tasks are: that room is above this one.
        return import_module("foreword.explanation.explain").explain(self, data, **settings)

    def prune(self, data: Rows, **settings: Any) -> Any:
        """Drop the tokens and layers that its score on rows can spare: ``foreword.prune`` of it."""
        return import_module("foreword.explanation.prune").prune(self, data, **settings)

    def __repr__(self) -> str:
        method = self.method.get("name", "?")
        return (
            f"Prompt({method} for {name_of(self.task)} on {self.backbone['name']}, "
            f"{self.injection})"
        )

    def _repr_html_(self) -> str:
        """Show what it is of, in a notebook."""
        labels = ", ".join(getattr(self.task, "labels", None) or ())
        dev = {k: v for k, v in self.scores.get("dev", {}).items() if isinstance(v, float)}
        facts = {
            "method": self.method.get("name", "?"),
            "task": name_of(self.task),
            "template": self.task.template or "",
            "labels": labels if len(labels) <= 200 else f"{labels[:200]} ...",
            "model": self.backbone["name"],
            "numbers": f"{sum(tensor.numel() for _, tensor in self.injection.tensors()):,}",
            "dev": ", ".join(f"{name} {value:.2f}" for name, value in dev.items()),
        }
        return html_table((), [(name, value) for name, value in facts.items() if value])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of its file by their names there."""
        return dict(self.injection.tensors())

    # Saving ------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, store: Store = "float32") -> Path:
        """Write the file, whole or not at all; raises UserError where that cannot be done.

        ``store`` "float16" takes half of the bytes, and "int8" a good quarter: whole numbers with a
        scale for each vector. It is read again as float32, and answers nearly the same.
        """
        return write_tensors(Path(path), self.metadata(), self.tensors(), store)

    def without_texts(self) -> Prompt:
        """Return the prompt without the texts of rows that its file would hold, to give it away.

        It answers the same; a baseline with demonstrations in context is not there any more.

        Raises UserError for a task that answers by such texts.
        """
        return replace(self, **without_texts(self.metadata(), self.task))

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

        Without one, the model that the file names is opened when it is first needed.

        Raises UserError for anything that is not a whole Prompt file: not safetensors, cut off,
        an oversized header, missing or unknown keys, wrong shapes, NaN or Inf; and for another
        backbone than the prompt was tuned on, unless ``force`` says to try.
        """
        if not isinstance(path, str | Path):
            raise UserError(f"`path` is of type {type(path).__name__}; give the path of a file")
        path = Path(path)
        prompt = Prompt.of(str(path), *opened(path))
        return prompt if backbone is None else prompt.on_backbone(backbone, force=force)

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
            where=where,
        )

    def on_backbone(
        self, backbone: Backbone, *, force: bool = False, where: str | None = None
    ) -> Self:
        """Return the prompt with a backbone in hand; raises UserError where it does not fit."""
        where = self.where if where is None else where
        if not force and not backbone.has_fingerprint(self.backbone["fingerprint"]):
            half = " in float16" if backbone.dtype == torch.float16 else ""
            pooling, tuned = backbone.pooling, self.backbone.get("pooling")
            if pooling is not None and tuned not in (None, own := str(pooling.mode)):
                raise UserError(
                    f"{where}: was tuned with `pooling={tuned}`, and this model is opened with "
                    f"`pooling={own}`; leave it out, or use `force` to try anyway"
                )
            raise UserError(
                f"{where}: was tuned on {self.backbone['name']} "
                f"({self.backbone['fingerprint'][:19]}), and this is {backbone.name}{half} "
                f"({backbone.fingerprint[:19]}); load that model, or use `force` to try anyway"
            )
        check_fit(where, self.injection, backbone)
        return replace(self, on=backbone)
