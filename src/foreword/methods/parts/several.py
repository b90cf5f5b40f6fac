"""Several methods trained at once, their injections joined in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from foreword.config.values import from_plain
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Method, StartsBeside, Trainable, settle
from foreword.methods.registry import kinds, name_of
from foreword.tasks.base import Bound

OF_THE_RUN = ("trained", "training", "multitask", "pruned")
"""What the record of a method says beside its own settings."""


@dataclass(frozen=True)
class Several:
    """Methods trained together, as in ``prefix+lora`` or ``deep+head``.

    A prefix with a parallel adapter is MAM (He et al. 2022, arXiv:2110.04366); a prefix, an
    adapter and LoRA, each behind a gate, is UniPELT (Mao et al. 2022, arXiv:2110.07577). Each
    method is trained at its own learning rate.
    """

    methods: tuple[Method, ...]

    @property
    def registered_name(self) -> str:
        """The names of all of them, joined by +."""
        return "+".join(map(name_of, self.methods))

    @property
    def rate(self) -> float:
        """The learning rate of the first method."""
        return self.methods[0].rate

    @property
    def shots(self) -> int | None:
        """The largest number of demonstrations that any of the methods names."""
        return max((each.shots for each in self.methods if each.shots is not None), default=None)

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Several:
        """Return the methods with what each of them leaves open decided."""
        return Several(tuple(settle(each, task, rows, alone=False) for each in self.methods))

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Together:
        """Build all parts; raises UserError where two of them fill the same place."""
        first = [n for n, each in enumerate(self.methods) if not isinstance(each, StartsBeside)]
        parts = {n: self.methods[n].build(task, rows, seed) for n in first}
        with torch.no_grad():
            held: dict[int, Injection] = {n: part() for n, part in parts.items()}
        if any(each.kv and each.bos for each in held.values()):  # virtual tokens stand behind those
            begun = task.changed(begun=True)
            for n, each in held.items():
                if each.embeds is not None:
                    parts[n] = self.methods[n].build(begun, rows, seed)
        beside = self._together(parts) if parts else None
        for n, method in enumerate(self.methods):
            if isinstance(method, StartsBeside):
                parts[n] = method.build(task, rows, seed, beside)
        return self._together(parts)

    def _together(self, parts: Mapping[int, Trainable]) -> Together:
        """Join some parts, by their numbers; raises UserError where they fill the same place."""
        numbers = sorted(parts)
        made = Together([parts[n] for n in numbers], [self.methods[n].rate for n in numbers])
        with torch.no_grad():
            try:
                made()
            except ValueError as error:
                names = " and ".join(type(self.methods[n]).__name__.lower() for n in numbers)
                raise UserError(
                    f"{names} cannot stand together: both bring {error}; leave one out"
                ) from None
        return made


def join_methods(methods: Sequence[Method]) -> Method:
    """Return a single method as it is, and several as one."""
    return methods[0] if len(methods) == 1 else Several(tuple(methods))


def rebuild_method(about: Mapping[str, Any], where: str) -> Method:
    """Rebuild a method from its record in a prompt file.

    Raises UserError for a bad record, and for a prompt that was one with those of other tasks.
    """
    if about.get("multitask", {}).get("share", "none") != "none":
        raise UserError(
            f"{where}: is a shared prompt times a part for its task (`share=mpt`), which cannot be "
            "tuned alone; tune its tasks together again with `foreword multitask`"
        )
    own = {name: value for name, value in about.items() if name not in OF_THE_RUN}
    found = kinds(str(own.pop("name", None)))
    parts = own["methods"] if len(found) > 1 else [own]
    return join_methods([from_plain(k, part, where) for k, part in zip(found, parts, strict=True)])


class Together(Trainable):
    """The parameters of several methods, as ``parts.0``, ``parts.1`` ..."""

    def __init__(self, parts: Sequence[Trainable], rates: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.rates = {f"parts.{n}.": rate for n, rate in enumerate(rates)}

    def forward(self) -> Injection:
        """Return all injections in one."""
        made = Injection()
        for part in self.parts:
            made = made.joined(part())
        return made

    def training_on(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return all injections in one; where a part is a mixture, the others join each of it."""
        made: Injection | Mixture = Injection()
        for part in self.parts:
            assert isinstance(part, Trainable)
            made = _joined(made, part.training_on(rows, chance))
        return made


def _joined(one: Injection | Mixture, other: Injection | Mixture) -> Injection | Mixture:
    if isinstance(one, Mixture):
        assert isinstance(other, Injection), "two methods hide parts from rows"
        return Mixture(tuple(part.joined(other) for part in one.parts), one.rows)
    if isinstance(other, Mixture):
        return Mixture(tuple(one.joined(part) for part in other.parts), other.rows)
    return one.joined(other)
