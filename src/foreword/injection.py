"""Injection: what is added to a frozen model, as a value that knows no method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class KV:
    """Keys and values that one attention module sees before those of its own tokens.

    Keys stand as the attention function meets them: after the rotary embedding, so that key p
    already carries position p. H is the number of key-value heads (fewer than query heads under
    grouped-query attention).
    """

    keys: Tensor  # (H, P, D)
    values: Tensor  # (H, P, D')


@dataclass(frozen=True, eq=False)
class Injection:
    """Virtual token embeddings, and keys and values by attention module.

    ``embeds`` (n, width) holds the embeddings of n virtual tokens. In a row of token ids,
    virtual token i is written as ``vocabulary size + i``. The first ``leading`` of them stand in
    front of every row; the others stand where a template has put them.

    ``kv`` maps the name of an attention module to its keys and values. ``positions`` counts the
    positions that ``kv`` takes up before a row's first token, in models that count positions.
    Modules that ``kv`` does not name see nothing, at unchanged positions.
    """

    embeds: Tensor | None = None  # (n, width)
    leading: int = 0
    kv: Mapping[str, KV] = field(default_factory=dict)
    positions: int = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with a stable name, the one it has in a Prompt file."""
        if self.embeds is not None:
            yield "embeds", self.embeds
        for site, kv in self.kv.items():
            yield f"kv.{site}.keys", kv.keys
            yield f"kv.{site}.values", kv.values

    def map(self, function: Callable[[Tensor], Tensor]) -> Injection:
        """Return the same injection with ``function`` applied to every tensor."""
        return replace(
            self,
            embeds=None if self.embeds is None else function(self.embeds),
            kv={s: KV(function(kv.keys), function(kv.values)) for s, kv in self.kv.items()},
        )

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], *, leading: int, positions: int) -> Injection:
        """Rebuild an injection from the names and tensors that :meth:`tensors` yields."""
        sites = [n[len("kv.") : -len(".keys")] for n in tensors if n.endswith(".keys")]
        return Injection(
            embeds=tensors.get("embeds"),
            leading=leading,
            kv={s: KV(tensors[f"kv.{s}.keys"], tensors[f"kv.{s}.values"]) for s in sites},
            positions=positions,
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
