"""Prefix tuning: trained keys and values in front of every row, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.backbone.sites import Site
from foreword.data.read import Row
from foreword.errors import UserError
from foreword.injection import KV, Injection
from foreword.methods.method import Trainable
from foreword.methods.starts import Start, check_start, start_ids
from foreword.tasks.task import Bound


@dataclass(frozen=True)
class Prefix:
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190).

    Attention of layer l sees ``[K_l; K(x)]`` and ``[V_l; V(x)]`` with trained K_l and V_l of
    ``length`` positions, from layer ``first_layer`` up, or in the ``upper`` share of the layers;
    what lies below is then the same in every step, and run once (trunk.py). A start other than
    "random" takes them from the model's own reading of real text. ``reparameterize`` gives the
    hidden width of an MLP through which they are trained (ibid., section 4.3); the prompt file
    holds its result.
    On encoder-decoders encoder, decoder and cross attention all have a prefix.
    """

    length: int | None = None
    first_layer: int = 0
    upper: float | None = None
    start: Start = "demonstrations"
    start_text: str | None = None
    shots: int = 4
    reparameterize: int | None = None
    rate: float = 5e-3

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start keys and values; raises UserError where the backbone takes none, or not these."""
        check_start(self.start, self.start_text)
        backbone = task.backbone
        sites = backbone.need_sites()
        if task.virtual:
            raise UserError(
                "the template places virtual tokens, which a prefix does not have; "
                "use --method soft"
            )
        depth = 1 + max(site.layer for site in sites)
        lowest = self._lowest(depth)
        if self.length is not None and not 1 <= self.length < backbone.longest:
            raise UserError(
                f"--length {self.length}: give from 1 to {backbone.longest - 1}, what "
                "the model's positions hold"
            )
        if self.reparameterize is not None and self.reparameterize < 1:
            raise UserError(f"--reparameterize {self.reparameterize}: give a width of at least 1")
        chosen = [site for site in sites if site.layer >= lowest]
        kv = self._started(task, rows, chosen, seed)
        length = next(iter(kv.values())).keys.shape[1]
        positions = length if backbone.architecture == "causal" else 0
        prefix = PrefixKV(kv, positions)
        if self.reparameterize is None:
            return prefix
        return Reparameterized(prefix, self.reparameterize, seed)

    def _lowest(self, depth: int) -> int:
        """Return the lowest layer that has a prefix; raises UserError where there is no such."""
        if self.upper is not None:
            if self.first_layer:
                raise UserError("--first-layer and --upper both say where to begin; give one")
            if not 0 < self.upper <= 1:
                raise UserError(
                    f"--upper {self.upper:g}: give a share of the layers, above 0 and at most 1"
                )
            return depth - max(1, round(self.upper * depth))
        if not 0 <= self.first_layer < depth:
            raise UserError(
                f"--first-layer {self.first_layer}: the model has layers 0 to {depth - 1}"
            )
        return self.first_layer

    def _started(
        self, task: Bound, rows: Sequence[Row], sites: Sequence[Site], seed: int
    ) -> dict[str, KV]:
        backbone = task.backbone
        if self.start != "random":
            ids = start_ids(
                self.start,
                task,
                rows,
                length=self.length,
                text=self.start_text,
                shots=self.shots,
                seed=seed,
            )
            if len(ids) >= backbone.longest:
                raise UserError(
                    f"the start's text has {len(ids)} tokens and the model "
                    f"{backbone.longest} positions; use fewer --shots or give --length"
                )
            with torch.no_grad():
                read = backbone.kv(ids)
            return {site.name: read[site.name] for site in sites}
        length = 20 if self.length is None else self.length
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            like = backbone.kv([*backbone.text.around[0], *backbone.text.ids(task.instruction())])

        def draw(tensor: Tensor) -> Tensor:
            heads, _, width = tensor.shape
            drawn = torch.randn(heads, length, width, generator=noise).to(tensor.device)
            return drawn * tensor.float().std()

        return {
            site.name: KV(draw(like[site.name].keys), draw(like[site.name].values))
            for site in sites
        }


class PrefixKV(Trainable):
    """Keys and values by attention module: (H, P, D) and (H, P, D')."""

    def __init__(self, kv: dict[str, KV], positions: int) -> None:
        super().__init__()
        self.sites = list(kv)
        self.positions = positions
        self.keys = nn.ParameterList([_own(kv[s].keys) for s in self.sites])
        self.values = nn.ParameterList([_own(kv[s].values) for s in self.sites])

    def forward(self) -> Injection:
        """Return the keys and values as they are."""
        pairs = zip(self.sites, self.keys, self.values, strict=True)
        return Injection(kv={s: KV(k, v) for s, k, v in pairs}, positions=self.positions)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone(memory_format=torch.contiguous_format)


class Reparameterized(Trainable):
    """A prefix trained through an MLP: start + W2 tanh(W1 E), E an embedding of each position.

    W2 starts at zero, so that training begins at the start itself (Li and Liang begin at a
    random prefix). The start is not trained.
    """

    def __init__(self, prefix: PrefixKV, hidden: int, seed: int) -> None:
        super().__init__()
        self.prefix = prefix.requires_grad_(False)
        tensors = [t for _, t in prefix().tensors()]
        self.sizes = [t.shape[0] * t.shape[2] for t in tensors]
        length = tensors[0].shape[1]
        noise = torch.Generator().manual_seed(seed)
        device = tensors[0].device

        def drawn(*shape: int) -> nn.Parameter:
            scale = shape[-1] ** -0.5
            return nn.Parameter(torch.randn(*shape, generator=noise).to(device) * scale)

        self.embedding = drawn(length, hidden)  # E (P, hidden)
        self.inner = drawn(hidden, hidden)  # W1
        self.outer = nn.Parameter(torch.zeros(sum(self.sizes), hidden, device=device))  # W2

    def forward(self) -> Injection:
        """Return start plus MLP, shaped as keys and values."""
        made = torch.tanh(self.embedding @ self.inner.T) @ self.outer.T  # (P, sum of H * D)
        parts = iter(torch.split(made, self.sizes, 1))

        def moved(start: Tensor) -> Tensor:
            heads, length, width = start.shape
            return torch.add(start, next(parts).view(length, heads, width).transpose(0, 1))

        start: Injection = self.prefix()
        return start.map(moved)
