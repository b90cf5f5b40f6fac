"""PromptClassifier: a tuned prompt as a classifier of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.methods.base import Method
from foreword.metrics.language import ROWS, language_of_fields
from foreword.reporter import SILENT, Reporter
from foreword.tasks.classify import asking
from foreword.tasks.phrases import phrase_in
from foreword.terminal import usual_reporter
from foreword.training.tune import tune

NAMED = ("preset", "length", "epochs", "rate", "batch_size", "max_length", "seed")
"""Parameters that are settings of :func:`tune` under the same name."""


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts: a prompt that is tuned for a frozen language model.

    ``fit`` and ``predict`` take a list, an array or a Series of texts, or a table: an array of two
    dimensions, or a DataFrame, whose columns hold texts or numbers. ``template`` says how a row
    reads, from its columns by their names (``text`` for texts without one, ``x0``, ``x1`` ... for
    the columns of an array); by default each column is a line. Labels are of any type that
    scikit-learn takes, and ``predict`` answers with the same.

    ``labels`` maps each class to its word or words, by default its name: ``{0: "bad", 1: "good"}``.
    The other parameters are settings of ``fw.tune``, of the same names and defaults: None leaves a
    setting at the method's or the preset's. ``settings`` holds any more of them, such as
    ``{"upper": 0.5, "class_weights": "balanced"}``. With ``verbose`` progress is shown.

    ``model`` is best given by its name. Such an estimator may go to other processes, as it does
    with ``n_jobs``: the prompt is pickled and the model is not, but opened there, once in each. One
    that was given a Backbone (``fw.load("smollm2", dtype="bfloat16")``) fits, predicts and is
    cloned in its own process only.

    After ``fit``: ``prompt_``, which ``prompt_.save(path)`` keeps as a safetensors file; and
    ``classes_``, ``n_features_in_`` and ``feature_names_in_`` as scikit-learn has them.
    """

    prompt_: Any
    classes_: NDArray[Any]
    n_features_in_: int

    def __init__(
        self,
        model: Backbone | str | Path = "smollm2",
        method: Method | str | None = None,
        *,
        template: str | None = None,
        labels: Mapping[Any, str | Sequence[str]] | None = None,
        preset: str | None = None,
        length: int | None = None,
        epochs: int | None = None,
        rate: float | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.method = method
        self.template = template
        self.labels = labels
        self.preset = preset
        self.length = length
        self.epochs = epochs
        self.rate = rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.seed = seed
        self.settings = settings
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Tune a prompt on texts and their labels; a tenth of them chooses the best step.

        Raises ValueError for texts and labels that cannot be used, and UserError for settings.
        """
        table, y = validate_data(self, _table(X), y, dtype=None, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds 1 class, {_plain(self.classes_[0])!r}; give rows of two or more"
            )
        if table.dtype.kind in "fiub":
            warnings.warn("X holds no text; its numbers are read as text", stacklevel=2)
        rows = self._rows(table)
        target = next(name for name in ("label", "label_", "label__") if name not in rows[0])
        backbone = backbone_of(self.model)
        given = {name: getattr(self, name) for name in NAMED}
        for name in self.settings or {}:
            if name in self.get_params():
                raise ValueError(f"settings holds {name!r}; give it as the estimator's parameter")
            if name in ("text", "label", "report"):
                raise ValueError(f"settings holds {name!r}, which the estimator says; leave it out")
        self.prompt_ = tune(
            backbone,
            "classify",
            _plain(self.method),
            [{**row, target: str(name)} for row, name in zip(rows, y, strict=True)],
            text=next(iter(rows[0])) if len(rows[0]) == 1 else None,
            label=target,
            template=self._template(rows, backbone),
            labels=self._words(),
            report=self._report,
            **{name: _plain(value) for name, value in given.items() if value is not None},
            **(self.settings or {}),
        )
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the likeliest class of each row: (rows,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return the probability of each class, in the order of ``classes_``: (rows, classes).

        In single precision, as models score.
        """
        check_is_fitted(self)
        table = validate_data(
            self, _table(X), reset=False, dtype=None, ensure_all_finite="allow-nan"
        )
        found = self.prompt_.predict(self._rows(table), probabilities=True, report=self._report)
        chances = np.array([[each[str(name)] for name in self.classes_] for each in found])
        shares: NDArray[np.float32] = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
        return shares

    # Rows --------------------------------------------------------------------------------------

    def _rows(self, table: NDArray[Any]) -> list[dict[str, Any]]:
        """Return rows by the names of their columns; raises ValueError for an empty cell."""
        count = table.shape[1]
        usual = ["text"] if count == 1 else [f"x{number}" for number in range(count)]
        names = [str(name) for name in getattr(self, "feature_names_in_", usual)]
        empty = pandas.isna(table)
        rows = [dict(zip(names, map(_plain, row), strict=True)) for row in table]
        for number, row in enumerate(rows):
            for (name, value), missing in zip(row.items(), empty[number], strict=True):
                if missing or (isinstance(value, str) and not value.strip()):
                    what = "NaN" if missing else "no text"
                    raise ValueError(
                        f"X contains {what}: column '{name}' of row {number} is empty (rows are "
                        "counted from 0); fill it or leave the row out"
                    )
        return rows

    def _template(self, rows: list[dict[str, Any]], backbone: Backbone) -> str | None:
        """Return the template; of several columns by default a line for each."""
        columns = list(rows[0])
        if self.template is not None or len(columns) == 1:
            return self.template
        lines = "\n".join(f"{{{name}}}" for name in columns)
        language = (self.settings or {}).get("language") or language_of_fields(rows[:ROWS])
        return asking(backbone, lines, phrase_in(language, "Label:"))

    def _words(self) -> dict[str, str | Sequence[str]]:
        """Return the words of each class by its name, none where they are those of the name."""
        if self.labels is None:
            return {str(name): () for name in self.classes_}
        given = {str(name): words for name, words in self.labels.items()}
        for name in self.classes_:
            if str(name) not in given:
                raise ValueError(f"labels has no word for class {_plain(name)!r}; add one")
        return {str(name): given[str(name)] for name in self.classes_}

    @property
    def _report(self) -> Reporter:
        return usual_reporter() if self.verbose else SILENT

    # What scikit-learn asks ----------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.poor_score = (
            True  # of points in a plane, whose numbers are read as text
        )
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return what crosses processes: the prompt without its model, which is opened by name."""
        if isinstance(self.model, Backbone):
            raise TypeError(
                "an estimator whose `model` is a Backbone stays in its process; for n_jobs and "
                "pickle give the model's name, such as model='smollm2'. To keep its prompt: "
                "prompt_.save(path)"
            )
        state = dict(super().__getstate__())
        if "prompt_" in state:
            state["prompt_"] = replace(self.prompt_, on=None)
        return state


def _table(given: Any) -> Any:
    """Return texts as a table of one column; anything else as it is."""
    if isinstance(given, str):
        raise ValueError(f"X is one text; give a list of texts: [{given[:40]!r}]")
    of_one_dimension = getattr(given, "ndim", 0) == 1 or hasattr(given, "to_list")  # as polars has
    if isinstance(given, list | tuple) or of_one_dimension:
        values = list(given)
        if not values or any(isinstance(value, str) for value in values):
            return np.array(values, dtype=object)[:, None]
    return given


def _plain(value: Any) -> Any:
    """Return a number or a text of numpy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
