"""Prefix tuning: trained keys and values in front of every row, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from foreword.backbone.inside.attention_sites import PastWindow
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.methods.base import Trainable
from foreword.methods.parts.prefixes import PAST_WINDOW, Gated, start_prefix
from foreword.methods.parts.starts import PREFIX_STARTS
from foreword.tasks.base import Bound


@dataclass(frozen=True)
class Prefix:
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190).

    Attention of layer l sees ``[K_l; K(x)]`` and ``[V_l; V(x)]`` with trained K_l and V_l of
    ``length`` positions, from layer ``first_layer`` up, or in the upper fraction ``upper`` of the
    layers. The layers below then give the same states in every step and are run only once per row
    (engine/lower_layers.py). The start "auto" is "demonstrations", and on an encoder, where real
    text in front begins lower than nothing does, "zero" unless ``shots`` are given. A start other
    than "random" and "zero" takes keys and values from what the model computes for real text, or
    from another prompt (parts/starts.py). ``reparameterize`` is the hidden width of an MLP through
    which they are trained (ibid., section 4.3); the prompt file holds its output. ``gate``
    multiplies each layer's values by a trained number from 0 to 1, which starts at 1/2; those of a
    prompt to start from are doubled before, so that the training starts at the prompt itself.
    In an encoder-decoder, encoder, decoder and cross attention all have a prefix.
    """

    length: int | None = setting(None, help="positions of the prefix", common=True)
    first_layer: int = setting(0, help="the lowest layer that gets a prefix")
    upper: float | None = setting(
        None, help="fraction of layers, counted from the top, that get a prefix"
    )
    start: str = setting(
        "auto",
        help="random, vocabulary, text, labels, demonstrations, zero, a prompt, or a folder of "
        "prompts; auto is demonstrations, and zero on encoders",
        common=True,
    )
    start_text: str | None = setting(None, help="the text of start 'text'")
    shots: int | None = setting(
        None,
        help="demonstrations to start from; else 4, or one of each label if these are short",
        common=True,
    )
    reparameterize: int | None = setting(None, help="train the prefix through an MLP of this width")
    gate: bool = setting(False, help="weigh the prefix by a trained gate")
    rate: float = setting(5e-3, help="learning rate")
    past_window: PastWindow = setting("hidden", help=PAST_WINDOW)

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Prefix:
        """Return the method with the start that measured best on the model."""
        if self.start != "auto":
            return self
        zero = task.backbone.is_encoder and self.shots is None
        return replace(self, start="zero" if zero else "demonstrations")

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start keys and values; raises UserError for layers or a start that cannot be."""
        sites = task.backbone.need_sites()
        lowest = self._lowest(1 + max(site.layer for site in sites))
        upper = [site for site in sites if site.layer >= lowest]
        settled = self.settled(task, rows)
        prefix = start_prefix(settled, task, rows, upper, seed)
        if not self.gate:
            return prefix
        return Gated(prefix, times=1.0 if settled.start in PREFIX_STARTS else 2.0)

    def _lowest(self, depth: int) -> int:
        """Return the lowest layer that has a prefix; raises UserError for one out of range."""
        if self.upper is not None:
            if self.first_layer:
                raise UserError("`first_layer` and `upper` both say where to begin; give one")
            if not 0 < self.upper <= 1:
                raise UserError(
                    f"`upper={self.upper:g}`: give a share of the layers, above 0 and at most 1"
                )
            return depth - max(1, round(self.upper * depth))
        if not 0 <= self.first_layer < depth:
            raise UserError(
                f"`first_layer={self.first_layer}`: the model has layers 0 to {depth - 1}"
            )
        return self.first_layer
