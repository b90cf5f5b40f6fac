"""How a run trains, whatever is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from foreword.config.settings import SEEDS, setting
from foreword.config.values import from_plain, plain
from foreword.errors import UserError
from foreword.machine import bytes_of

Schedule = Literal["linear", "cosine", "inverse-sqrt", "plateau", "constant"]
Switch = Literal["auto", "on", "off"]

WORTH_COMPILING = 300
"""Steps from which on compiling is taken to pay; what it costs and gains is in bench/README.md."""

EPOCHS, BATCH = 4, 16
"""Passes over the rows, and rows of a step, where nothing is said."""

WORDS_LEFT_OUT, PULLED, STEPS, MOST_IN_BATCH = 0.15, 0.5, 40, 64
"""``word_dropout`` and ``contrastive`` for few rows on an encoder; the fewest steps, and the most
rows of one."""


@dataclass(frozen=True)
class Training:
    """How a method's parameters are trained.

    A step takes the gradient of the mean loss over ``batch_size`` rows, in as many passes as the
    ``token_budget`` asks for; the mean is that of the whole batch whatever their number.
    ``rate`` None is the method's own.

    With ``memory`` ("4GB") the whole run, with its model and the libraries, stays within so many
    bytes, and learns the same: by smaller passes, then by scores of fewer targets at a time, and
    last by ``checkpointing``, which recomputes activations, for a third more time (engine/plan.py).
    A run that does not fit is refused before its first step, as is one without ``memory`` that
    plainly does not fit into the machine.

    Between steps at most ``dev_sample`` dev rows of each task are scored, the same ones each time:
    drawn by the seed, of each label in proportion. The best step is chosen by these, and the run
    stops after ``patience`` evaluations without a better score; the parameters that are kept are
    scored on all dev rows at the end.
    With ``refit`` "on" the run is made once more on all rows, dev rows among them: few rows are
    worth more in the training than for the choice of a step (docs/LOG.md). It has as many epochs
    as the run before, and both keep their last step; a few dev rows could not tell a better one.
    The dev score, and what is fitted to dev rows, are those of the run before. With ``label_rows``
    "on" the words of each label are one more training row each, where a row is one text.
    Up to ``cache_gb`` of what the layers below a prefix make of the rows is kept in memory, more
    in a file. ``compile`` fuses each layer's small operations ("auto": where a run is long
    enough to pay for the seconds that this takes).

    ``schedule``: the rate rises from 0 over the first ``warmup`` share of the steps, and then
    falls on a line or a half cosine to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983), falls as
    the inverse square root of the step ("inverse-sqrt", Vaswani et al. 2017, arXiv:1706.03762),
    stays, or is halved after every evaluation without a better dev score ("plateau").

    ``no_texts`` leaves texts of rows out of the prompt file and the log (prompt/texts.py).

    What is left open ("auto", and None of epochs, batch size and regularisers) is settled by
    :meth:`settled`.

    Regularisers, all off at 0 (regularise.py): ``dropout`` leaves out virtual tokens and positions
    of a prefix, ``word_dropout`` tokens of rows that an encoder reads, ``l2_start`` holds
    parameters to where they started, ``mixup`` mixes rows, ``contrastive`` adds so much of a loss
    that compares the rows of a pass, whose batches then hold rows of a label in pairs, and
    ``weight_decay`` is AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """

    epochs: int | None = setting(
        None,
        help="passes over the training rows; else 4, or of few rows so many that there are 40 "
        "steps: for texts to write, and for labels on an encoder, there two a label at least",
        common=True,
    )
    batch_size: int | None = setting(
        None,
        help="rows per step; else 16, or for few rows on an encoder as many as labels, up to 64",
        common=True,
    )
    rate: float | None = setting(None, help="learning rate; else the method's own", common=True)
    schedule: Schedule = setting(
        "linear",
        help="how the learning rate falls: linear, cosine, inverse-sqrt, plateau or constant",
    )
    warmup: float = setting(0.06, help="fraction of steps spent warming up the learning rate")
    weight_decay: float = setting(0.0, help="AdamW's weight decay")
    dropout: float = setting(0.0, help="probability of leaving out a virtual token in a step")
    word_dropout: float | None = setting(
        None,
        help="probability of leaving out a token of an encoder's row in a step; else 0.15 for few "
        "rows there, or 0",
        optional=True,
    )
    l2_start: float = setting(0.0, help="strength of an L2 penalty on the distance from the start")
    mixup: float = setting(0.0, help="mix rows two by two, by Beta(alpha, alpha)")
    contrastive: float | None = setting(
        None,
        help="weight of a loss that pulls rows of a label together, and others apart; else 0.5 for "
        "few rows on an encoder, or 0",
    )
    clip: float = setting(1.0, help="largest norm of a gradient")
    patience: int | None = setting(
        None, help="stop after this many evaluations without a better dev score"
    )
    dev_sample: int = setting(
        300, help="most dev rows of a task scored between steps; all of them are at the end"
    )
    label_rows: Switch = setting(
        "auto",
        help="learn the name of each label as one more row: auto (few rows on an encoder), on, off",
        optional=True,
    )
    refit: Switch = setting(
        "auto",
        help="train once more on all rows, dev rows too: auto (few rows on an encoder, of which "
        "some are held back), on or off",
        optional=True,
    )
    seed: int = setting(0, help="seed of rows, starts and order", common=True)
    token_budget: int | None = setting(None, help="tokens per pass, with padding")
    memory: str | None = setting(
        None,
        help="most memory that the run takes, such as 4GB: smaller passes, the same result",
        common=True,
        optional=True,
    )
    checkpointing: bool = setting(False, help="recompute activations: less memory, more time")
    cache_gb: float = setting(
        2.0, help="gigabytes of lower layers' states kept in memory; more goes to a file"
    )
    no_texts: bool = setting(
        False, help="leave texts of rows out of the prompt file and the log of the run"
    )
    compile: Switch = setting("auto", help="fuse each layer's small operations: auto, on or off")

    def check(self) -> Training:
        """Return the settings; raises UserError for values of the wrong type or out of range.

        Numbers of numpy become Python's own.
        """
        made = from_plain(Training, plain(self), "training")
        made._check_ranges()
        return made

    def _check_ranges(self) -> None:
        for name in ("epochs", "batch_size", "patience", "dev_sample", "token_budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed is {self.seed}; it must be at least 0, and less than {SEEDS}")
        if self.rate is not None:
            check_rate(self.rate)
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup is {self.warmup}; it is a share of all steps, from 0 to 1")
        if self.refit == "on" and self.schedule == "plateau":
            raise UserError(
                "refit 'on' makes a run without dev rows, which schedule 'plateau' needs; give one "
                "of the two"
            )
        if self.memory is not None:
            bytes_of(self.memory)
        if self.compile == "on" and self.checkpointing:
            raise UserError("compile 'on' with checkpointing: give one of the two")
        if not 0 <= self.cache_gb < math.inf:
            raise UserError(f"cache_gb is {self.cache_gb}; give gigabytes, 0 for none in memory")
        if not (self.clip > 0 and 0 <= self.weight_decay < math.inf):
            raise UserError("clip must be above 0 and weight_decay not below")
        for name in ("dropout", "word_dropout"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise UserError(
                    f"{name} is {getattr(self, name)}; give a probability, from 0 to below 1"
                )
        if self.mixup and self.contrastive:
            raise UserError("mixup mixes the rows that contrastive compares; give one of the two")
        for name in ("l2_start", "mixup", "contrastive"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; give 0 for none, or more")

    def settled(self, few: int = 0, labels: int = 0, held: bool = False, slow: int = 0) -> Training:
        """Return the settings with nothing left open.

        With ``few`` rows on an encoder (prepare.py says where) each of them counts, by what was
        measured (docs/LOG.md): words are left out of them, rows of a label are pulled together, the
        names of the labels are rows too, a step has as many rows as there are ``labels``, up to
        ``MOST_IN_BATCH``, there are ``STEPS`` steps or more, and two a label, and where rows were
        ``held`` back the run is made once more on all of them. The rows of a task that is learned
        slowly, ``slow`` of them, have ``STEPS`` steps or more too.
        """
        batch = self.batch_size or max(BATCH, min(labels if few else 0, MOST_IN_BATCH))
        per_epoch = -(-(few or slow) // batch)
        usual = max(EPOCHS, -(-max(STEPS, 2 * labels) // per_epoch)) if per_epoch else EPOCHS
        named: Switch = "on" if few else "off"
        again = few and held and self.schedule != "plateau"
        return replace(
            self,
            epochs=usual if self.epochs is None else self.epochs,
            batch_size=batch,
            word_dropout=_or(self.word_dropout, WORDS_LEFT_OUT if few else 0.0),
            contrastive=_or(self.contrastive, PULLED if few and not self.mixup else 0.0),
            label_rows=named if self.label_rows == "auto" else self.label_rows,
            refit=self.refit if self.refit != "auto" else "on" if again else "off",
        )

    def may_compile(self, steps: int) -> bool:
        """Whether a run of so many steps compiles its layers, where that can be done."""
        return self.compile == "on" or (self.compile == "auto" and steps >= WORTH_COMPILING)

    def factor(self, step: int, steps: int, halved: int = 0) -> float:
        """Return what the learning rate is multiplied by at a step, counted from 0.

        The values are those of transformers' schedules: it rises from 0, in the first step.
        ``halved`` counts the evaluations that a plateau has found no better.
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return step / rising * 0.5**halved
        rest = (step - rising) / max(1, steps - rising)
        scale = rising or 10_000  # as transformers has it
        factors: dict[Schedule, float] = {
            "linear": 1 - rest,
            "cosine": 0.5 * (1 + math.cos(math.pi * rest)),
            "inverse-sqrt": math.sqrt(scale / (step + scale - rising)),
            "plateau": 0.5**halved,
            "constant": 1.0,
        }
        return factors[self.schedule]


def _or(given: float | None, usual: float) -> float:
    return usual if given is None else given


def check_rate(rate: float) -> None:
    """Raise UserError for a learning rate of 0 or below, or beyond what AdamW can count with."""
    if not 0 < rate < 1e30:
        raise UserError(f"the learning rate is {rate}; it must be above 0 and below 1e30")
