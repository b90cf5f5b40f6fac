"""Keys and values as parameters: how they start, and the ways in which they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import Site
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import KV, Injection
from foreword.methods.base import Trainable
from foreword.methods.parts.start_from_prompt import from_prompts
from foreword.methods.parts.starts import STARTS, USUAL, check_start, start_ids
from foreword.tasks.base import Bound


def start_prefix(
    task: Bound,
    rows: Sequence[Row],
    sites: Sequence[Site],
    seed: int,
    *,
    start: str,
    text: str | None,
    length: int | None,
    shots: int,
    reparameterize: int | None,
) -> PrefixKV | Reparameterized:
    """Start a prefix at these sites; raises UserError for a start or a size that cannot be."""
    backbone = task.backbone
    check_start(start, text)
    check_template(task)
    if length is not None and not 1 <= length < backbone.longest:
        raise UserError(
            f"--length {length}: give from 1 to {backbone.longest - 1}, what "
            "the model's positions hold"
        )
    if reparameterize is not None and reparameterize < 1:
        raise UserError(f"--reparameterize {reparameterize}: give a width of at least 1")
    if start not in STARTS:
        found, notes = from_prompts(
            start, task, rows, seed, partial(_fitting, sites=sites, length=length)
        )
        prefix = PrefixKV(found.kv, found.positions, notes)
    elif start == "random":
        prefix = PrefixKV.on(backbone, _drawn(task, sites, length or USUAL, seed))
    else:
        ids = start_ids(start, task, rows, length=length, text=text, shots=shots, seed=seed)
        if len(ids) >= backbone.longest:
            raise UserError(
                f"the start's text has {len(ids)} tokens and the model "
                f"{backbone.longest} positions; use fewer --shots or give --length"
            )
        prefix = PrefixKV.on(backbone, read(backbone, ids, sites))
    return prefix if reparameterize is None else Reparameterized(prefix, reparameterize, seed)


def check_template(task: Bound) -> None:
    """Raise UserError where the template places virtual tokens, which have no keys of their own."""
    if task.virtual:
        raise UserError(
            "the template places virtual tokens, which a prefix does not have; "
            "use --method soft or ptuning"
        )


def read(backbone: Backbone, ids: Sequence[int], sites: Sequence[Site]) -> dict[str, KV]:
    """Return what the sites hold once the model has read real tokens, in one pass."""
    with torch.no_grad():
        found = backbone.kv(ids)
    return {site.name: found[site.name] for site in sites}


def _drawn(task: Bound, sites: Sequence[Site], length: int, seed: int) -> dict[str, KV]:
    """Draw keys and values at random, with the mean and the spread of what the model reads.

    Each number of a key has its own mean, far from zero in some; about zero, little was learned.
    """
    backbone = task.backbone
    noise = torch.Generator().manual_seed(seed)
    ids = [*backbone.text.around[0], *backbone.text.ids(task.instruction())]

    def draw(tensor: Tensor) -> Tensor:
        heads, _, width = tensor.shape
        drawn = torch.randn(heads, length, width, generator=noise).to(tensor.device)
        spread, mean = torch.std_mean(tensor.float(), 1, keepdim=True, correction=0)  # (H, 1, D)
        return mean + drawn * spread

    like = read(backbone, ids, sites)
    return {name: KV(draw(kv.keys), draw(kv.values)) for name, kv in like.items()}


def _fitting(
    where: str, injection: Injection, *, sites: Sequence[Site], length: int | None
) -> Injection:
    """Return a prompt's prefix at these sites; raises UserError where it has none, or another."""
    if not injection.kv:
        raise UserError(f"{where}: holds no prefix to start from; start with one that does")
    for site in sites:
        if site.name not in injection.kv:
            raise UserError(
                f"{where}: its prefix has nothing for '{site.name}', where this one begins; "
                "start with one that acts on the same layers"
            )
    kv = {site.name: injection.kv[site.name] for site in sites}
    sizes = {each.keys.shape[1] for each in kv.values()}
    if len(sizes) > 1 or 0 in sizes or length not in (None, *sizes):
        raise UserError(
            f"{where}: its prefix has {' and '.join(map(str, sorted(sizes)))} positions, and "
            f"{'one length' if length is None else f'--length {length}'} is asked for; leave that "
            "out, or choose another start"
        )
    return Injection(kv=kv, positions=injection.positions)


class PrefixKV(Trainable):
    """Keys and values by attention module: (H, P, D) and (H, P, D')."""

    def __init__(self, kv: Mapping[str, KV], positions: int, notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.sites = list(kv)
        self.positions = positions
        self.notes = notes
        self.keys = nn.ParameterList([_own(kv[s].keys) for s in self.sites])
        self.values = nn.ParameterList([_own(kv[s].values) for s in self.sites])

    @staticmethod
    def on(backbone: Backbone, kv: Mapping[str, KV]) -> PrefixKV:
        """Make a prefix that stands before the rows' positions where the model counts them."""
        kept = {name: backbone.sites[name].kept(each) for name, each in kv.items()}
        length = next(iter(kept.values())).keys.shape[1]
        return PrefixKV(kept, length if backbone.positions_follow_prefix else 0)

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


class Gated(Trainable):
    """A prefix whose values are weighed by sigmoid(g), one trained g an attention module.

    The gate of UniPELT (Mao et al. 2022, arXiv:2110.07577) depends on the row; this one does
    not, so that it can be multiplied into the values of the prompt file. It starts at 1/2.
    """

    def __init__(self, prefix: Trainable) -> None:
        super().__init__()
        self.prefix = prefix
        kv = prefix().kv
        self.gates = nn.Parameter(torch.zeros(len(kv), device=next(iter(kv.values())).keys.device))

    def forward(self) -> Injection:
        """Return the prefix with weighed values."""
        made: Injection = self.prefix()
        pairs = zip(made.kv.items(), torch.sigmoid(self.gates), strict=True)
        kv = {site: KV(own.keys, own.values * gate) for (site, own), gate in pairs}
        return replace(made, kv=kv)
