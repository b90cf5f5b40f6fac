"""The layers below a prompt: run once for each row, and the states they return kept.

Where a prompt acts on layers k and up, the states that enter layer k are the same in every step.
They are computed when a row is first needed, and found again by all that they depend on: the
backbone, k, the positions before the row, what all rows begin with, and the row's own tokens. The
last bits depend on the rows of the same pass too. So the rows of a run are parted into passes once,
in advance: which step asks first, in a run that goes on after a stop for one, then changes no bit.
Epochs, seeds, restarts and the candidates of a search on the same rows share the states. What
memory has no room for is kept in a file of the cache folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.load.cache_folder import cache_root
from foreword.engine.groups import StoredStates, token_budget
from foreword.engine.passes import lower_states, passes_over
from foreword.engine.spill_file import Overflow
from foreword.injection import Injection
from foreword.reporter import Reporter


@dataclass(eq=False)
class CachedStates:
    """States in memory, by row, and the bytes that they take."""

    rows: dict[bytes, Tensor] = field(default_factory=dict)
    held: int = 0


_CACHED: WeakKeyDictionary[Backbone, dict[str, CachedStates]] = WeakKeyDictionary()


class LowerLayers:
    """The states of ``rows`` at the lowest layer that an injection acts on.

    ``memory`` is how many bytes of them stand in memory, for all trunks of a backbone together;
    the rest goes to a file. ``report`` hears one line if that cannot be written; states beyond
    the memory are then computed anew each time.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Example],
        layer: int,
        positions: int,
        lead: Sequence[int],
        memory: float,
        report: Reporter,
        budget: int | None = None,
    ) -> None:
        self.backbone, self.layer, self.lead = backbone, layer, tuple(lead)
        self.frame = Injection(positions=positions)
        self.budget = budget or token_budget(backbone)
        self.memory, self.report = memory, report
        kind = [backbone.fingerprint, backbone.quantized, str(backbone.dtype)]
        unique = {_key(row): row for row in rows}
        passes = passes_over(list(unique.values()), backbone, len(self.lead), self.budget)
        keys = list(unique)
        self.passes = [{keys[n]: unique[keys[n]] for n in group} for group in passes]
        self.pass_of = {key: n for n, group in enumerate(self.passes) for key in group}
        parted = hashlib.blake2b(b"/".join(b"".join(group) for group in self.passes)).hexdigest()
        about = [*kind, layer, positions, self.lead, parted]
        self.key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
        self.all_cached = _CACHED.setdefault(backbone, {})
        self.cached = self.all_cached.setdefault(self.key, CachedStates())
        self.first: Tensor | None = None
        self.overflow = Overflow.opened(cache_root() / "trunk", self.key)
        self.full = False

    @staticmethod
    def depth_under(injection: Injection, backbone: Backbone, longest: int) -> int:
        """Return the lowest layer that an injection acts on; 0 where nothing below is constant.

        Layers are those of the backbone's stack. Where it acts on none of them (a head alone, a
        prefix of the decoder alone) that is their number: they all are constant. ``longest`` is
        the longest row's tokens: beyond a sliding window rows cannot be cut up.
        """
        changed = injection.embeds is not None or bool(injection.patches or injection.weights)
        if changed or backbone.stack is None or not backbone.can_skip_lower_layers(longest):
            return 0
        own = [site for site in injection.kv if site in backbone.stack.sites]
        return min((backbone.sites[s].layer for s in own), default=len(backbone.stack.layers))

    def given(self, examples: Sequence[Example]) -> StoredStates:
        """Return the states of examples at the trunk's layer, computing those that are new."""
        keys = [_key(example) for example in examples]
        found = {key: states for key in set(keys) if (states := self._find(key)) is not None}
        missing = {k: e for k, e in zip(keys, examples, strict=True) if k not in found}
        asked = {self.pass_of[key] for key in missing or keys[: self.first is None]}
        groups = [self.passes[number] for number in sorted(asked)]
        if self.full:  # the others of a pass could not be kept
            groups = [missing] if missing else groups
        for group in groups:
            self.first, rows = lower_states(
                self.backbone,
                self.frame,
                list(group.values()),
                len(self.lead),
                self.layer,
                self.budget,
            )
            for key, states in zip(group, rows, strict=True):
                if key not in found:
                    found[key] = states
                    if self._find(key) is None:
                        self._keep(key, states)
        assert self.first is not None
        return StoredStates(self.layer, self.first, [found[key] for key in keys])

    def close(self) -> None:
        """Let go of the file; what stands in memory stays for the next run."""
        if self.overflow is not None:
            self.overflow.close()

    def _find(self, key: bytes) -> Tensor | None:
        if key in self.cached.rows:
            return self.cached.rows[key]
        return None if self.overflow is None else self.overflow.read(key)

    def _keep(self, key: bytes, states: Tensor) -> None:
        """Keep states in memory while there is room for them, else in the file."""
        size = states.numel() * states.element_size()
        others = [name for name in self.all_cached if name != self.key]
        while others and self._held() + size > self.memory:
            del self.all_cached[others.pop(0)]  # of runs before this one
        if self._held() + size <= self.memory:
            self.cached.rows[key] = states
            self.cached.held += size
        elif not self.full:
            try:
                if self.overflow is None:
                    self.overflow = Overflow.make(cache_root() / "trunk", self.key)
                self.overflow.write(key, states)
            except OSError as error:
                self.full = True
                self.report.line(
                    f"{cache_root()}: states of the lower layers cannot be kept there "
                    f"({error.strerror}); those beyond `cache_gb` are computed anew each time"
                )

    def _held(self) -> int:
        return sum(cached.held for cached in self.all_cached.values())


def _key(example: Example) -> bytes:
    """Return what a row's states depend on, as a few bytes."""
    about = json.dumps([example.ids, example.slot, example.branches])
    return hashlib.blake2b(about.encode(), digest_size=16).digest()
