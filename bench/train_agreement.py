"""Agreement: both sides must take the same step, or else their times mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class Disagreement(Exception):  # noqa: N818 (it is what was found, not a failure of the code)
    """The two sides have not taken the same step, so that their times mean nothing."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a step came to: its loss, and the prompt's gradient in PEFT's layout, not clipped."""

    loss: float
    gradient: Tensor  # (n, width), or (n, 2 L H D) for a prefix


@dataclass(frozen=True)
class Difference:
    """How far the two sides are apart: in nats, and as a share of PEFT's gradient."""

    loss: float
    gradient: float


LIMIT = Difference(loss=1e-4, gradient=1e-3)
"""What arithmetic in another order may come to in float32."""


def difference(ours: Reading, theirs: Reading) -> Difference:
    """Return how far two readings of one batch are apart."""
    apart = (ours.gradient - theirs.gradient).norm() / theirs.gradient.norm()
    return Difference(abs(ours.loss - theirs.loss), float(apart))


def compare(where: str, ours: Reading, theirs: Reading) -> Difference:
    """Return how far two readings are apart; raise Disagreement where that is beyond ``LIMIT``."""
    found = difference(ours, theirs)
    # Written so that NaN is a disagreement too.
    if not found.loss <= LIMIT.loss:
        raise Disagreement(
            f"{where}: the losses differ by {found.loss:.1e} ({ours.loss:.6f} in Foreword, "
            f"{theirs.loss:.6f} in peft), and {LIMIT.loss:.0e} is allowed"
        )
    if not found.gradient <= LIMIT.gradient:
        raise Disagreement(
            f"{where}: the gradients differ by {found.gradient:.1e} of their size, and "
            f"{LIMIT.gradient:.0e} is allowed"
        )
    return found
