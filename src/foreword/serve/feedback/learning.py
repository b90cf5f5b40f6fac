"""How a server learns from feedback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foreword.errors import UserError


@dataclass(frozen=True)
class Learning:
    """How a server learns: on what, how often, and what a new version has to show.

    ``every`` is the number of new rows after which a version is made, ``held`` how many rows held
    back judge it, the newest, ``bound`` the lowest paired 95% bound of its gain, in points, with
    which it is swapped in, and ``threads`` what training may take of the processor. ``replay`` is a
    folder of older rows, NAME.jsonl, which are mixed in. With ``roll_back`` a version is judged
    again by the first ``held`` rows held back that come after it, or by those there are (20 at
    least, or ``held``) once the next one is due, and goes where it is worse than the one before
    beyond chance. ``settings`` are further words for ``foreword train``.
    """

    every: int = 100
    held: int = 200
    bound: float = -3.0
    threads: int = 1
    replay: Path | None = None
    roll_back: bool = False
    settings: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UserError for what no training could keep."""
        counts = {"every": self.every, "held": self.held, "cpu": self.threads}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"`learn_{name}={value}`: give 1 or more")
        if self.replay is not None and not self.replay.is_dir():
            raise UserError(f"{self.replay}: no such folder; name one that holds NAME.jsonl")
