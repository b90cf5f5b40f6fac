"""Injection: what is added to a frozen model, as a value that knows no method."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["identity", "relu", "gelu", "silu", "tanh"]


@dataclass(frozen=True, eq=False)
class KV:
    """Keys and values that one attention module sees before those of its own tokens.

    Keys stand as the attention function meets them: after the rotary embedding, so that key p
    already carries position p. H is the number of key-value heads (fewer than query heads under
    grouped-query attention).
    """

    keys: Tensor  # (H, P, D)
    values: Tensor  # (H, P, D')


def in_turn(first: Mapping[str, KV], then: Mapping[str, KV]) -> dict[str, KV]:
    """Return the keys and values of both, module by module, those of ``then`` last."""
    import torch  # all else here only holds tensors, of any library

    made = dict(first)
    for site, own in then.items():
        if site in first:
            before = first[site]
            keys = torch.cat([before.keys.to(own.keys), own.keys], 1)
            own = KV(keys, torch.cat([before.values.to(own.values), own.values], 1))
        made[site] = own
    return made


@dataclass(frozen=True, eq=False)
class Patch:
    """What is added to a module's output at every token: ``g(x) * up(activation(down(x)))``.

    x is the input of the module that ``reads`` names, which may be the module itself or one that
    runs before it; with None it is the output that is added to. g(x) is 1, or with ``gate`` the
    sigmoid of its product with x, its last number being the bias. Without ``down``, ``up`` is a
    vector, by which activation(x) is multiplied number by number. With ``adds_to`` "input" the
    patch is added to what the module reads, which is then also what ``reads`` None means.

    Low-rank updates (LoRA), bottleneck adapters, in sequence or in parallel, and rescaled
    activations (IA3) are all of this form.
    """

    up: Tensor  # (out, r); (out,) without down
    down: Tensor | None = None  # (r, in)
    down_bias: Tensor | None = None  # (r,)
    up_bias: Tensor | None = None  # (out,)
    gate: Tensor | None = None  # (in + 1,)
    reads: str | None = None
    activation: Activation = "identity"
    adds_to: Literal["input", "output"] = "output"

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors that there are, by their field's name."""
        found = {name: getattr(self, name) for name in PATCH_TENSORS}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @property
    def inputs(self) -> int:
        """The size of x."""
        return (self.up if self.down is None else self.down).shape[-1]

    def settings(self) -> dict[str, Any]:
        """Return what is no tensor, as plain values; ``adds_to`` only where it is "input"."""
        made: dict[str, Any] = {"reads": self.reads, "activation": self.activation}
        return made if self.adds_to == "output" else {**made, "adds_to": self.adds_to}


PATCH_TENSORS = ("down", "up", "down_bias", "up_bias", "gate")


@dataclass(frozen=True, eq=False)
class ClassHead:
    """Scores of C classes from a target's last hidden state x: ``weight @ x + bias``.

    With ``scale`` they are ``scale * cos(weight, x) + bias``, the cosine of each class's row with
    x; the scale is one over what is called the temperature.
    """

    weight: Tensor  # (C, width)
    bias: Tensor  # (C,)
    scale: Tensor | None = None  # ()

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors that there are, by their field's name."""
        found = {name: getattr(self, name) for name in HEAD_TENSORS}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> ClassHead:
        """Return the same head with ``function`` applied to every tensor."""
        return ClassHead(**{name: function(tensor) for name, tensor in self.parts().items()})

    def scores(self, states: Tensor) -> Tensor:
        """Score the classes, on the states' device: (N, width) -> (N, C)."""
        import torch.nn.functional as F

        own = self.map(lambda tensor: tensor.to(states.device))
        states = states.to(own.weight.dtype)
        if own.scale is None:
            return F.linear(states, own.weight, own.bias)
        cosines = F.linear(F.normalize(states, dim=-1), F.normalize(own.weight, dim=-1))
        return own.scale * cosines + own.bias


HEAD_TENSORS = ("weight", "bias", "scale")


@dataclass(frozen=True, eq=False, repr=False)
class Injection:
    """Virtual token embeddings, keys and values by attention module, and changes of the model.

    ``embeds`` (n, width) holds the embeddings of n virtual tokens. In a row of token ids,
    virtual token i is written as ``vocabulary size + i``. The first ``leading`` of them stand in
    front of every row; the others stand where a template has put them.

    ``kv`` maps the name of an attention module to its keys and values. ``positions`` counts the
    positions that ``kv`` takes up before a row's first token, in models that count positions.
    Modules that ``kv`` does not name see nothing, at unchanged positions.

    ``bos`` counts the positions, from the first on, that stand for the special tokens with which
    the tokenizer begins a text. Rows behind them begin without these tokens (``backbone.example``).

    ``patches`` maps the name of a module to what is added to its output, ``weights`` the name of
    a parameter to what stands in its place; ``head`` scores classes in place of the vocabulary.
    """

    embeds: Tensor | None = None  # (n, width)
    leading: int = 0
    kv: Mapping[str, KV] = field(default_factory=dict)
    positions: int = 0
    patches: Mapping[str, tuple[Patch, ...]] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    head: ClassHead | None = None
    bos: int = 0

    def __repr__(self) -> str:
        parts = {
            "virtual tokens": 0 if self.embeds is None else len(self.embeds),
            "keys and values in": len(self.kv),
            "patches of": len(self.patches),
            "weights": len(self.weights),
            "classes": 0 if self.head is None else len(self.head.weight),
        }
        shown = [f"{name} {count}" for name, count in parts.items() if count]
        numbers = sum(tensor.numel() for _, tensor in self.tensors())
        return f"Injection({', '.join([*shown, f'{numbers:,} numbers'])})"

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with a stable name, the one it has in a Prompt file."""
        if self.embeds is not None:
            yield "embeds", self.embeds
        for site, kv in self.kv.items():
            yield f"kv.{site}.keys", kv.keys
            yield f"kv.{site}.values", kv.values
        yield from self.changes()

    def changes(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that change the model itself, and not what it reads."""
        for module, patches in self.patches.items():
            for number, patch in enumerate(patches):
                for name, tensor in patch.parts().items():
                    yield f"patches.{module}.{number}.{name}", tensor
        for parameter, tensor in self.weights.items():
            yield f"weights.{parameter}", tensor
        if self.head is not None:
            for name, tensor in self.head.parts().items():
                yield f"head.{name}", tensor

    def changes_like(self, other: Injection) -> bool:
        """Whether both change the model alike, whatever else its rows read."""
        own, theirs = self._changing, other._changing
        return self is other or (
            own.keys() == theirs.keys()
            and all(_equal(tensor, theirs[name]) for name, tensor in own.items())
            and self.settings().get("patches") == other.settings().get("patches")
        )

    @cached_property
    def _changing(self) -> dict[str, Tensor]:
        """What :meth:`changes` yields, which is asked for of each batch."""
        return dict(self.changes())

    def map(self, function: Callable[[Tensor], Tensor]) -> Injection:
        """Return the same injection with ``function`` applied to every tensor."""

        def patched(patch: Patch) -> Patch:
            made: dict[str, Any] = {n: function(t) for n, t in patch.parts().items()}
            return replace(patch, **made)

        return replace(
            self,
            embeds=None if self.embeds is None else function(self.embeds),
            kv={s: KV(function(kv.keys), function(kv.values)) for s, kv in self.kv.items()},
            patches={m: tuple(map(patched, patches)) for m, patches in self.patches.items()},
            weights={n: function(tensor) for n, tensor in self.weights.items()},
            head=None if self.head is None else self.head.map(function),
        )

    def joined(self, other: Injection) -> Injection:
        """Return both in one; where both have patches of a module, these are added up.

        Raises ValueError, which names it, where both bring what there can be only one of.
        """
        for one, what in (("embeds", "virtual tokens"), ("head", "a head")):
            if getattr(self, one) is not None and getattr(other, one) is not None:
                raise ValueError(what)
        if self.kv and other.kv:
            raise ValueError("keys and values")
        if self.weights.keys() & other.weights.keys():
            raise ValueError("the model's own weights")
        patches = dict(self.patches)
        for module, more in other.patches.items():
            patches[module] = (*patches.get(module, ()), *more)
        return Injection(
            embeds=other.embeds if self.embeds is None else self.embeds,
            leading=self.leading + other.leading,
            kv={**self.kv, **other.kv},
            positions=self.positions + other.positions,
            patches=patches,
            weights={**self.weights, **other.weights},
            head=other.head if self.head is None else self.head,
            bos=self.bos or other.bos,
        )

    def settings(self) -> dict[str, Any]:
        """Return what is no tensor, as plain values, for :meth:`from_tensors`."""
        made: dict[str, Any] = {"leading": self.leading, "positions": self.positions}
        if self.bos:
            made["bos"] = self.bos
        patches = {
            f"{module}.{number}": patch.settings()
            for module, own in self.patches.items()
            for number, patch in enumerate(own)
        }
        return {**made, "patches": patches} if patches else made

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Injection:
        """Rebuild an injection from what :meth:`tensors` yields and :meth:`settings` returns."""
        sites = [n[len("kv.") : -len(".keys")] for n in tensors if re.fullmatch(r"kv\..+\.keys", n)]
        patches: dict[str, list[Patch]] = {}
        for place, about in settings.get("patches", {}).items():
            at = {name: f"patches.{place}.{name}" for name in PATCH_TENSORS}
            own: dict[str, Any] = {n: tensors[at[n]] for n in at if at[n] in tensors}
            patches.setdefault(place.rpartition(".")[0], []).append(Patch(**own, **about))
        start = "weights."
        head = {n: tensors[f"head.{n}"] for n in HEAD_TENSORS if f"head.{n}" in tensors}
        return Injection(
            embeds=tensors.get("embeds"),
            leading=settings["leading"],
            kv={s: KV(tensors[f"kv.{s}.keys"], tensors[f"kv.{s}.values"]) for s in sites},
            positions=settings["positions"],
            patches={module: tuple(own) for module, own in patches.items()},
            weights={n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)},
            head=ClassHead(**head) if head else None,
            bos=settings.get("bos", 0),
        )


NOTHING = Injection()


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several injections in one batch: row r is run under ``parts[rows[r]]``."""

    parts: tuple[Injection, ...]
    rows: Sequence[int]

    @staticmethod
    def of(injection: Injection | Mixture, rows: int) -> Mixture:
        """Spread one injection over ``rows`` rows; a mixture is returned as it is."""
        if isinstance(injection, Mixture):
            return injection
        return Mixture((injection,), (0,) * rows)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of all parts; one that several parts have comes several times."""
        for number, part in enumerate(self.parts):
            for name, tensor in part.tensors():
                yield f"{number}.{name}", tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Mixture:
        """Return the same mixture with ``function`` applied to every tensor."""
        return replace(self, parts=tuple(part.map(function) for part in self.parts))

    def of_rows(self, rows: Sequence[int]) -> Mixture:
        """Return the mixture of some of its rows, without the parts that none of them uses."""
        used = list(dict.fromkeys(self.rows[row] for row in rows))
        place = {part: number for number, part in enumerate(used)}
        parts = tuple(self.parts[part] for part in used)
        return Mixture(parts, [place[self.rows[row]] for row in rows])

    def groups_by_change(self) -> list[list[int]]:
        """Group the rows by how their parts change the model: it runs once for each group.

        Parts with equal changes form one group, as do those of a file that was loaded twice.
        """
        kinds = [
            next(n for n, other in enumerate(self.parts) if part.changes_like(other))
            for part in self.parts
        ]
        groups: dict[int, list[int]] = {}
        for number, row in enumerate(self.rows):
            groups.setdefault(kinds[row], []).append(number)
        return list(groups.values())


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether tensors have the same values; two that are trained apart never count as equal."""
    if one is other:
        return True
    if one.requires_grad or other.requires_grad:
        return False
    layout = one.shape, one.dtype, one.device
    return layout == (other.shape, other.dtype, other.device) and one.equal(other)
