"""Explanation: what was found out about a prompt, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from foreword.config.values import from_plain, plain
from foreword.html import html_table

Part = Literal["importance", "attention", "words", "attribution", "layers"]
"""Importance of each piece, attention on the prompt, descriptions in words; of one input, what its
tokens contribute, and the labels' probabilities by layer."""

PARTS: tuple[Part, ...] = ("importance", "attention", "words", "attribution", "layers")

Kind = Literal["inspect", "asked", "searched", "nearest", "control"]
"""Where a description comes from (descriptions.py)."""

UNFAITHFUL: tuple[Kind, ...] = ("nearest", "control")
"""Kinds that need not say what a prompt does, however well they read (arXiv:2112.08348), and lines
that say nothing of any task: what these recover, any text in front of a row does."""


@dataclass(frozen=True)
class Measured:
    """The dev score, and the mean loss in nats, of a prompt or of what is left of it."""

    name: str
    score: float
    loss: float


@dataclass(frozen=True)
class Importance:
    """What the prompt scores without each of its pieces, on the same ``rows`` rows.

    ``metric`` is the dev score's name. ``prompt`` is the whole prompt and ``untouched`` the model
    without it. ``tokens`` are without one virtual token, or a few neighbours of many; ``layers``
    without the keys and values of one attention module; ``sides`` with keys only and with values
    only (ablation.py says exactly what that is).
    """

    metric: str
    rows: int
    prompt: Measured
    untouched: Measured
    tokens: tuple[Measured, ...] = ()
    layers: tuple[Measured, ...] = ()
    sides: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class LayerAttention:
    """The share of attention that each head of one attention module pays to the prompt, 0 to 1.

    The mean over all tokens of the rows, those of the prompt left out.
    """

    name: str
    heads: tuple[float, ...]


@dataclass(frozen=True)
class Description:
    """A text that may say what the prompt does, and what it scores in the prompt's place.

    ``source`` says how it came about: the layers it was read from, the question that was asked.
    ``gain`` is the share of the prompt's gain over the untouched model that the text recovers as a
    plain-text prompt: 1 is all of it, below 0 is worse than nothing. It is taken of the loss, since
    the scores of a few rows differ by chance: on 22 rows of SST-2, a text about Python had 22% of
    it, and by accuracy 167%. It is None where the prompt gains nothing itself.
    """

    text: str
    kind: Kind
    source: str
    score: float
    loss: float
    gain: float | None

    @property
    def is_faithful(self) -> bool:
        """Whether its kind says anything about what the prompt does."""
        return self.kind not in UNFAITHFUL


@dataclass(frozen=True)
class Descriptions:
    """The prompt in words: the best description first, kinds that are not faithful last.

    All are scored on the same ``rows`` rows, which no text was searched by.
    """

    metric: str
    rows: int
    prompt: Measured
    untouched: Measured
    texts: tuple[Description, ...]

    @property
    def best(self) -> Description | None:
        """The faithful description that recovers the most.

        None where none recovers more than no prompt does, and more than every control.
        """
        controls = [each.loss for each in self.texts if each.kind == "control"]
        least = min([self.untouched.loss, *controls])
        own = [e for e in self.texts if e.is_faithful and (e.gain or 0) > 0 and e.loss < least]
        return min(own, key=lambda each: each.loss, default=None)


@dataclass(frozen=True)
class Contribution:
    """How much a token adds to the answer's log-probability, in nats."""

    token: str
    value: float


@dataclass(frozen=True)
class Attribution:
    """Integrated gradients of one answer (Sundararajan et al. 2017, arXiv:1703.01365).

    ``tokens`` are those of the input and of its template, ``virtual`` those of the prompt.
    ``answered`` is the log-probability of ``answer``, ``baseline`` what it is where every input is
    a neutral one (attribution.py). All contributions add up to their difference but for ``delta``,
    the convergence delta.
    """

    text: str
    answer: str
    answered: float
    baseline: float
    delta: float
    tokens: tuple[Contribution, ...]
    virtual: tuple[Contribution, ...]


@dataclass(frozen=True)
class LayerProbabilities:
    """The labels' probabilities as each layer would decode them (the logit lens).

    Row n of either table holds those of ``labels`` as decoded from the states behind ``names[n]``.
    """

    text: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    prompt: tuple[tuple[float, ...], ...]
    untouched: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """What a prompt has learned, in parts; what cannot be shown is ``left_out``, with the reason.

    ``left_out`` maps a part, or a piece of one as in "importance: layers", to a line. ``method``,
    ``task`` and ``model`` are the names of those that the prompt was tuned with.
    """

    method: str
    task: str
    model: str
    importance: Importance | None = None
    attention: tuple[LayerAttention, ...] = ()
    words: Descriptions | None = None
    attribution: Attribution | None = None
    layers: LayerProbabilities | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them."""
        return plain(self)

    def _repr_html_(self) -> str:
        """Show every part as a table, in a notebook."""
        shown: list[str] = []
        if (part := self.importance) is not None:
            pieces = (part.prompt, part.untouched, *part.tokens, *part.layers, *part.sides)
            shown.append(html_table(("without", part.metric, "loss"), map(_cells, pieces)))
        if self.attention:
            rows = [
                (each.name, *(f"{share:.2f}" for share in each.heads)) for each in self.attention
            ]
            shown.append(html_table((), rows))
        if self.words is not None:
            header = ("text", "from", self.words.metric, "gain")
            texts = [(t.text, t.source, f"{t.score:.1f}", _share(t.gain)) for t in self.words.texts]
            shown.append(html_table(header, texts))
        if (one := self.attribution) is not None:
            adds = [(each.token, f"{each.value:+.3f}") for each in (*one.tokens, *one.virtual)]
            shown.append(html_table(("token", f"adds to {one.answer!r}"), adds))
        if (lens := self.layers) is not None:
            rows = [
                (name, *(f"{chance:.2f}" for chance in chances))
                for name, chances in zip(lens.names, lens.prompt, strict=True)
            ]
            shown.append(html_table(("behind", *lens.labels), rows))
        left = list(self.left_out.items())
        return "".join([*shown, html_table(("left out", "why"), left) if left else ""])

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Explanation:
        """Return the explanation of such values; raises UserError for any others."""
        return from_plain(Explanation, values, "explanation")


def _cells(each: Measured) -> tuple[str, str, str]:
    return each.name, f"{each.score:.1f}", f"{each.loss:.3f}"


def _share(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.0%}"
