"""The probe: a linear model of scikit-learn on the frozen model's states.

It is what people would pick in place of a tuned prompt (features of a frozen model, and a logistic
regression), and so a baseline beside one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.injection import NOTHING
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.objective import Encoded
from foreword.tasks.states import states_of_rows

Progress = Callable[[int], None]


def frozen_states(
    bound: LabelExamples, rows: Sequence[Row], progress: Progress = lambda rows: None
) -> tuple[list[Encoded], list[NDArray[np.float32]]]:
    """Return rows as a head reads them in the frozen model, and their last hidden states.

    Virtual tokens are left out. The states of a row are (slots, width): one at the answer's place,
    or one for each word that is tagged.
    """
    items, states = states_of_rows(bound.without_prompt().with_head(), rows, NOTHING, progress)
    return items, [each.float().numpy() for each in states]


@dataclass(frozen=True)
class LinearProbe:
    """A linear model on the states of a task's rows.

    It is a logistic regression of the labels, one a label where a row has several, or a ridge
    regression of a number; features have mean 0 and variance 1 over the training rows.
    """

    bound: LabelExamples
    model: Any

    @staticmethod
    def fit(
        bound: LabelExamples, rows: Sequence[Row], progress: Progress = lambda rows: None
    ) -> LinearProbe:
        """Fit it on rows; raises UserError for rows without an answer, or all of one."""
        bound.check(rows, answers=True)
        items, states = frozen_states(bound, rows, progress)
        targets = bound.labelling.linear_targets(items)
        if len(np.unique(targets, axis=0)) < 2:
            have = "has" if len(rows) == 1 else "have"
            raise UserError(
                f"the {counted(len(rows), 'training row')} {have} one answer; give rows of others"
            )
        with warnings.catch_warnings():  # of labels that no row has, or all have
            warnings.simplefilter("ignore")
            return LinearProbe(bound, linear_model(targets).fit(np.concatenate(states), targets))

    def predict(
        self, rows: Sequence[Row], progress: Progress = lambda rows: None
    ) -> list[dict[str, Any]]:
        """Answer rows as their task does: one object each."""
        items, states = frozen_states(self.bound, rows, progress)
        outputs = self._outputs(np.concatenate(states))
        sizes = np.cumsum([len(own) for own in states])[:-1]
        return [
            {**self.bound.labelling.linear_answer(own), "cut": item.truncated}
            for own, item in zip(np.split(outputs, sizes), items, strict=True)
        ]

    @property
    def name(self) -> str:
        """What the model is called."""
        return "logistic regression" if hasattr(self.model, "predict_proba") else "ridge regression"

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        last = self.model[-1]
        parts = [last] if hasattr(last, "coef_") else last.estimators_
        own = [getattr(part, name, 0) for part in parts for name in ("coef_", "intercept_")]
        return sum(int(np.size(each)) for each in own)

    def _outputs(self, states: NDArray[np.float32]) -> NDArray[Any]:
        """Return the numbers, (slots,), or the probabilities of all labels, (slots, labels)."""
        if not hasattr(self.model, "predict_proba"):
            return np.asarray(self.model.predict(states))
        found = np.zeros((len(states), self.bound.classes))  # of labels without a row too
        found[:, self.model.classes_] = self.model.predict_proba(states)
        return found


def linear_model(targets: NDArray[Any]) -> Any:
    """Return a pipeline that learns targets: classes, rows of 0 and 1, or real numbers."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if targets.dtype.kind == "f":
        return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 13)))
    logistic = LogisticRegression(max_iter=1000)
    several = targets.ndim > 1
    return make_pipeline(StandardScaler(), OneVsRestClassifier(logistic) if several else logistic)
