"""Calibration: label scores relative to those of a content-free row."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.injection import Injection, Mixture

Calibration = Literal["none", "contextual", "pmi"]

BLANKS: dict[str, tuple[str, ...]] = {
    "none": (),
    "contextual": ("N/A", "", "[MASK]"),
    "pmi": ("",),
}
"""The text of every field of a content-free row.

"contextual" divides by the labels' mean probabilities in three such rows (Zhao et al. 2021,
arXiv:2102.09690, section 5). "pmi" divides by their probabilities after the template alone
(Holtzman et al. 2021, arXiv:2104.08315, PMI_DC, whose domain premise the template is).
"""


def calibrate(scores: Tensor, blank: Tensor) -> Tensor:
    """Return ``log(p / q)``, normalized; q is the mean probability of a label in blank rows.

    Log-probabilities: (places, labels) and (blanks, labels) -> (places, labels).
    """
    return F.log_softmax(scores - torch.logsumexp(blank, 0), 1)


def add_blanks(
    injection: Injection | Mixture, blanks: int
) -> tuple[Injection | Mixture, list[int]]:
    """Extend an injection to blank rows after a batch, a set for each part of a mixture.

    Returns the injection for all rows, and the part that each set of blank rows belongs to.
    """
    if isinstance(injection, Injection):
        return injection, [0] if blanks else []
    used = sorted(set(injection.rows)) if blanks else []
    more = [part for part in used for _ in range(blanks)]
    return replace(injection, rows=[*injection.rows, *more]), used
