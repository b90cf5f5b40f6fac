"""Cartridges: a prefix that starts as the beginning of a text and learns to stand for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import PastWindow
from foreword.backbone.tokenizer import reading
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import KV, Injection, in_turn
from foreword.methods.base import Trainable
from foreword.methods.parts.prefixes import (
    PAST_WINDOW,
    PrefixKV,
    check_past_window,
    check_template,
    read_kv,
)
from foreword.tasks.base import Bound


@dataclass(frozen=True)
class Cartridge:
    """A cartridge (Eyuboglu et al. 2025, arXiv:2506.06266).

    The prefix starts as the keys and values of the first ``length`` tokens of the file ``text``.
    Its first ``sink`` positions are not trained: they are attention sinks, and moving them makes
    training unstable (ibid., section 3.2). The rest of the text is learned from rows about it.
    ``foreword compress`` writes such rows, and distils from the model that reads the whole text.
    """

    text: str | None = setting(None, help="the text file that a cartridge starts from")
    length: int = setting(256, help="positions that stand for the text")
    sink: int = setting(1, help="first positions of a cartridge, which are not trained")
    rate: float = setting(5e-3, help="learning rate")
    shots: int = setting(0, help="number of demonstrations to start from")
    past_window: PastWindow = setting("hidden", help=PAST_WINDOW)

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> PrefixWithSink:
        """Read the beginning of the text; raises UserError for a bad text or length."""
        if self.text is None:
            raise UserError("`method=cartridge`: give the text that it stands for, with `text=F`")
        ids = text_ids(task.backbone, Path(self.text))
        check_length(Path(self.text), ids, self.length)
        return self.start_from(task, ids)

    def start_from(self, task: Bound, ids: Sequence[int]) -> PrefixWithSink:
        """Read the first of these tokens; raises UserError where the model cannot hold them."""
        sites = task.backbone.need_sites()
        if any(site.recurrent for site in sites):
            raise UserError(
                f"`method=cartridge`: {task.backbone.name} keeps one state of all that it reads; "
                "use `method=prefix`"
            )
        check_template(task)
        if not 0 <= self.sink < self.length:
            raise UserError(
                f"`sink={self.sink}`: give from 0 to {self.length - 1}, fewer than `length`"
            )
        if self.length >= task.backbone.longest:
            raise UserError(
                f"`length={self.length}`: give at most {task.backbone.longest - 1}, what the "
                "model's positions hold"
            )
        past = check_past_window(self.past_window)
        kv = read_kv(task.backbone, ids[: self.length], sites)
        bos = len(task.backbone.text.around[0])
        return PrefixWithSink(PrefixKV.on(task.backbone, kv, bos, past_window=past), self.sink)


def text_ids(backbone: Backbone, path: Path) -> list[int]:
    """Return a text file's tokens after the tokenizer's own first ones, which stand once.

    Raises UserError for a file that cannot be read as text, and for one without any.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check `text`") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no UTF-8 text; convert it first") from None
    if not text.strip():
        raise UserError(f"{path}: is empty; give a file with the text that is to be pressed")
    with reading(str(path)):
        return [*backbone.text.around[0], *backbone.text.body(text)]


def check_length(path: Path, ids: Sequence[int], length: int) -> None:
    """Raise UserError for a length below 1, or not shorter than the text."""
    if length < 1:
        raise UserError(f"`length={length}`: give 1 or more")
    if length >= len(ids):
        raise UserError(
            f"{path}: has {len(ids)} tokens, no more than the {length} positions it should be "
            "pressed into; give a smaller `length`, or use the text as it is"
        )


class PrefixWithSink(Trainable):
    """A prefix whose first positions are not trained."""

    def __init__(self, prefix: PrefixKV, sink: int) -> None:
        super().__init__()
        whole = prefix()
        self.positions, self.bos = whole.positions, whole.bos
        self.sunk = _part(whole, slice(sink)).requires_grad_(False)
        self.rest = _part(whole, slice(sink, None))

    def forward(self) -> Injection:
        """Return all positions in one prefix."""
        kv = in_turn(self.sunk().kv, self.rest().kv)
        return Injection(kv=kv, positions=self.positions, bos=self.bos)


def _part(whole: Injection, places: slice) -> PrefixKV:
    kv = {site: KV(own.keys[:, places], own.values[:, places]) for site, own in whole.kv.items()}
    return PrefixKV(kv, 0)
