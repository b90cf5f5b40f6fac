"""Deep prompts: trained keys and values in every layer, in the stacks that are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import PastWindow, Role
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.methods.base import Trainable
from foreword.methods.parts.prefixes import PAST_WINDOW, start_prefix
from foreword.tasks.base import Bound

ATTENTION: Mapping[str, Mapping[str, Role]] = {
    "causal": {"decoder": "self"},
    "masked": {"encoder": "self"},
    "encoder": {"encoder": "self"},
    "encoder-decoder": {"encoder": "encoder", "decoder": "self", "cross": "cross"},
}
"""The kinds of attention of each architecture, by the names that a user knows."""


@dataclass(frozen=True)
class Deep:
    """P-tuning v2 (Liu et al. 2022, arXiv:2110.07602).

    A prefix of ``length`` positions in every layer, with a verbalizer or a trained head
    (``deep+head``). It starts as the keys and values of random tokens, by default; those drawn at
    random themselves, as in the paper (``start`` "random"), need many more steps. On
    encoder-decoders ``attends`` names the attention that has one, of "encoder", "decoder" and
    "cross"; None is all of them.
    ``reparameterize`` gives the hidden width of an MLP through which it is trained.
    """

    length: int | None = setting(None, help="virtual tokens in each layer")
    attends: tuple[str, ...] | None = setting(
        None, help="attention that gets a deep prompt: encoder, decoder, cross; else all"
    )
    start: str = setting(
        "vocabulary",
        help="random, vocabulary, text, labels, demonstrations, a prompt, or a folder of prompts; "
        "of keys and values also zero",
    )
    start_text: str | None = setting(None, help="the text of start 'text'")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )
    reparameterize: int | None = setting(None, help="train the prefix through an MLP of this width")
    rate: float = setting(1e-2, help="learning rate")
    past_window: PastWindow = setting("hidden", help=PAST_WINDOW)

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start keys and values; raises UserError where the backbone takes none, or not these."""
        sites = task.backbone.need_sites(self._roles(task.backbone))
        return start_prefix(self, task, rows, sites, seed)

    def _roles(self, backbone: Backbone) -> list[Role]:
        known = ATTENTION[backbone.architecture]
        names = tuple(known) if self.attends is None else self.attends
        for name in names or ("nothing",):
            if name not in known:
                raise UserError(
                    f"`attends={name}`: {backbone.name} has no such attention; "
                    f"{nearest(name, known)}"
                )
        return [known[name] for name in names]
