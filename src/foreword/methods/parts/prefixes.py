"""Keys and values as parameters: how they start, and the ways in which they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, get_args

import torch
from torch import Tensor, nn

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import PastWindow, Site
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.injection import KV, Injection
from foreword.methods.base import Trainable, as_float32
from foreword.methods.parts.start_from_prompt import choose_start
from foreword.methods.parts.starts import PREFIX_STARTS, USUAL, check_start, start_ids
from foreword.methods.parts.unattended import unattended_keys
from foreword.tasks.base import Bound
from foreword.tasks.templates.demonstrations import choose_demonstrations, labels_not_shown

PAST_WINDOW = "positions past a sliding window: hidden, as those of text are, or seen"
"""What help says of the setting that all methods of keys and values share."""


class PrefixSettings(Protocol):
    """The settings of a method by which a prefix is started."""

    @property
    def length(self) -> int | None:
        """The number of positions; None leaves it to the start."""

    @property
    def start(self) -> str:
        """What keys and values start as (starts.py)."""

    @property
    def start_text(self) -> str | None:
        """The text of start "text"; None for the task's instruction."""

    @property
    def shots(self) -> int | None:
        """The number of demonstrations of start "demonstrations"; None leaves it to the labels."""

    @property
    def past_window(self) -> PastWindow:
        """Whether layers of a sliding window leave out the positions that it would hide."""

    @property
    def reparameterize(self) -> int | None:
        """The hidden width of an MLP through which the prefix is trained; None for no MLP."""


def start_prefix(
    settings: PrefixSettings, task: Bound, rows: Sequence[Row], sites: Sequence[Site], seed: int
) -> PrefixKV | Reparameterized:
    """Start a prefix at these sites; raises UserError for a start or a size that cannot be."""
    backbone, start, length = task.backbone, settings.start, settings.length
    text, shots, reparameterize = settings.start_text, settings.shots, settings.reparameterize
    check_start(start, text, PREFIX_STARTS)
    check_template(task)
    past = check_past_window(settings.past_window)
    if length is not None and not 1 <= length < backbone.longest:
        raise UserError(
            f"`length={length}`: give from 1 to {backbone.longest - 1}, what "
            "the model's positions hold"
        )
    if reparameterize is not None and reparameterize < 1:
        raise UserError(f"`reparameterize={reparameterize}`: give a width of at least 1")
    if start not in PREFIX_STARTS:
        found, notes = choose_start(
            start, task, rows, seed, partial(_prefix_of, sites=sites, length=length)
        )
        prefix = PrefixKV(found.kv, found.positions, found.bos, notes)
    elif start == "random":
        prefix = PrefixKV.on(backbone, _draw(task, sites, length or USUAL, seed), past_window=past)
    elif start == "zero":
        prefix = PrefixKV.on(backbone, _zero(task, rows, sites, length, seed), past_window=past)
    else:
        ids, bos = start_ids(start, task, rows, length=length, text=text, shots=shots, seed=seed)
        if len(ids) >= backbone.longest:
            raise UserError(
                f"the start's text has {len(ids)} tokens and the model "
                f"{backbone.longest} positions; use fewer `shots` or give `length`"
            )
        prefix = PrefixKV.on(backbone, read_kv(backbone, ids, sites), bos, past_window=past)
        if start == "demonstrations" and length is None:
            prefix.notes = labels_not_shown(
                task, rows, choose_demonstrations(task, rows, shots, seed)
            )
    return prefix if reparameterize is None else Reparameterized(prefix, reparameterize, seed)


def check_past_window(given: PastWindow) -> PastWindow:
    """Return it; raises UserError for a word that it cannot be."""
    if given not in get_args(PastWindow):
        raise UserError(f"`past_window={given}`: {nearest(str(given), get_args(PastWindow))}")
    return given


def check_template(task: Bound) -> None:
    """Raise UserError where the template places virtual tokens, which have no keys of their own."""
    if task.virtual:
        raise UserError(
            "the template places virtual tokens, which a prefix does not have; "
            "use `method=soft` or ptuning, or leave [soft:...] out of the template"
        )


def read_kv(backbone: Backbone, ids: Sequence[int], sites: Sequence[Site]) -> dict[str, KV]:
    """Return the keys and values at these sites after one pass over real tokens."""
    with torch.no_grad():
        found = backbone.kv(ids)
    return {site.name: found[site.name] for site in sites}


def _draw(task: Bound, sites: Sequence[Site], length: int, seed: int) -> dict[str, KV]:
    """Draw keys and values with the mean and standard deviation of those of real text.

    The channels of keys have means of their own, some far from zero; drawn around zero, little was
    learned.
    """
    backbone = task.backbone
    noise = torch.Generator().manual_seed(seed)
    ids = [*backbone.text.around[0], *backbone.text.ids(task.instruction())]

    def draw(tensor: Tensor) -> Tensor:
        heads, _, width = tensor.shape
        drawn = torch.randn(heads, length, width, generator=noise).to(tensor.device)
        spread, mean = torch.std_mean(tensor.float(), 1, keepdim=True, correction=0)  # (H, 1, D)
        return mean + drawn * spread

    like = read_kv(backbone, ids, sites)
    return {name: KV(draw(kv.keys), draw(kv.values)) for name, kv in like.items()}


def _zero(
    task: Bound, rows: Sequence[Row], sites: Sequence[Site], length: int | None, seed: int
) -> dict[str, KV]:
    """Return values of zero, which add nothing, and keys that no query prefers.

    They are `unattended_keys`, in an encoder-decoder zero, where a position takes the attention of
    a token whose score is 0. PEFT's start "zero" has keys of zero too; but positions that are alike
    have the same gradients, and stay one position however many they are. So a tenth of what is
    drawn, less its mean, is added.
    """
    drawn = _draw(task, sites, length or USUAL, seed)
    around: dict[str, Tensor] = {}
    if not task.backbone.has_two_stacks:
        around = unattended_keys(task, rows, sites, length or USUAL)

    def small(name: str, keys: Tensor) -> Tensor:
        spread = 0.1 * (keys - keys.mean(1, keepdim=True))
        return spread + around[name].to(keys)[:, None] if name in around else spread

    return {n: KV(small(n, kv.keys), torch.zeros_like(kv.values)) for n, kv in drawn.items()}


def _prefix_of(
    where: str, injection: Injection, *, sites: Sequence[Site], length: int | None
) -> Injection:
    """Return a prompt's prefix at these sites; raises UserError where it has none that fits."""
    if not injection.kv:
        raise UserError(f"{where}: holds no prefix to start from; start with one that does")
    for site in sites:
        if site.name not in injection.kv:
            raise UserError(
                f"{where}: its prefix has nothing for '{site.name}', where this one begins; "
                "start with one that acts on the same layers"
            )
    kv = {site.name: injection.kv[site.name] for site in sites}
    longest = max(each.keys.shape[1] for each in kv.values())
    sizes = {kv[site.name].keys.shape[1] for site in sites if _in_window(site, kv, longest)}
    sizes.add(longest)
    if len(sizes) > 1 or 0 in sizes or length not in (None, *sizes):
        raise UserError(
            f"{where}: its prefix has {' and '.join(map(str, sorted(sizes)))} positions, and "
            f"{'one length' if length is None else f'`length={length}`'} is asked for; leave that "
            "out, or choose another start"
        )
    bos = injection.bos if kv.keys() == injection.kv.keys() else 0
    return Injection(kv=kv, positions=injection.positions, bos=bos)


def _in_window(site: Site, kv: Mapping[str, KV], longest: int) -> bool:
    """Whether a site has other positions than its window leaves of so many."""
    left = longest if site.window is None else max(1, site.window - 1)
    return kv[site.name].keys.shape[1] != min(left, longest)


class PrefixKV(Trainable):
    """Keys (H, P, D) and values (H, P, D') by attention module."""

    def __init__(
        self, kv: Mapping[str, KV], positions: int, bos: int = 0, notes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.sites = list(kv)
        self.positions, self.bos = positions, bos
        self.notes = notes
        self.keys = nn.ParameterList([as_float32(kv[s].keys) for s in self.sites])
        self.values = nn.ParameterList([as_float32(kv[s].values) for s in self.sites])

    @staticmethod
    def on(
        backbone: Backbone,
        kv: Mapping[str, KV],
        bos: int = 0,
        *,
        past_window: PastWindow = "hidden",
    ) -> PrefixKV:
        """Make a prefix, which takes up positions where the model counts them.

        Its ``bos`` first positions stand for those of a row where it holds all that the model
        keeps of a text. Where it does not, as in the upper layers alone, rows keep their own.
        """
        whole = kv.keys() == backbone.sites.keys() and bos > 0 and backbone.can_prefill
        kept = {
            name: backbone.sites[name].kept(each, past_window=past_window)
            for name, each in kv.items()
        }
        length = max(each.keys.shape[1] for each in kv.values())
        positions = length if backbone.positions_follow_prefix else 0
        return PrefixKV(kept, positions, bos if whole else 0)

    def forward(self) -> Injection:
        """Return the keys and values as they are."""
        pairs = zip(self.sites, self.keys, self.values, strict=True)
        kv = {s: KV(k, v) for s, k, v in pairs}
        return Injection(kv=kv, positions=self.positions, bos=self.bos)


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
        length = max(tensor.shape[1] for tensor in tensors)
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
            moves = next(parts)[-length:]
            return torch.add(start, moves.reshape(length, heads, width).transpose(0, 1))

        start: Injection = self.prefix()
        return start.map(moved)


class Gated(Trainable):
    """A prefix whose values are weighed by sigmoid(g), one trained g an attention module.

    The gate of UniPELT (Mao et al. 2022, arXiv:2110.07577) depends on the row; this one does
    not, so that it can be multiplied into the values of the prompt file. It starts at 1/2; values
    that are doubled before (``times``) start as they are.
    """

    def __init__(self, prefix: Trainable, times: float = 1.0) -> None:
        super().__init__()
        self.prefix, self.times = prefix, times
        kv = prefix().kv
        self.gates = nn.Parameter(torch.zeros(len(kv), device=next(iter(kv.values())).keys.device))

    def forward(self) -> Injection:
        """Return the prefix with weighed values."""
        made: Injection = self.prefix()
        pairs = zip(made.kv.items(), self.times * torch.sigmoid(self.gates), strict=True)
        kv = {site: KV(own.keys, own.values * gate) for (site, own), gate in pairs}
        return replace(made, kv=kv)
