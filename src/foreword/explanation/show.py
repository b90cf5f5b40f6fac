"""Explanations as tables of 80 columns, and as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from foreword.explanation.explanation import (
    Attribution,
    Contribution,
    Descriptions,
    Explanation,
    Importance,
    LayerAttention,
    LayerProbabilities,
)
from foreword.grammar import counted

SHOWN = 10
"""The most lines of a table, or of a kind of lines in it; what matters most comes first."""

SHADES = " ░▒▓█"
"""Shares of attention from none to all, a head a sign."""


def tables(found: Explanation) -> list[tuple[str, Table]]:
    """Return a title and a table for each part that there is."""
    made: list[tuple[str, Table]] = []
    if (part := found.importance) is not None:
        made.append((_measured_on("Importance: without", part), importance(part)))
    if found.attention:
        made.append(
            ("Attention on the prompt, in percent, and by head", attention(found.attention))
        )
    if (words := found.words) is not None:
        made.append((_measured_on("In words: as plain text", words), descriptions(words)))
    if (one := found.attribution) is not None:
        title = (
            f"Why {one.answer!r}: what each token adds to its log-probability of "
            f"{one.answered:.2f}, from {one.baseline:.2f} (convergence delta {one.delta:.3f})"
        )
        made.append((title, contributions(one)))
    if found.layers is not None:
        made.append(("Probabilities as each layer would decode them", layers(found.layers)))
    return made


def _measured_on(title: str, part: Importance | Descriptions) -> str:
    return (
        f"{title}, {part.metric} and loss on {counted(part.rows, 'row')} "
        f"(prompt {part.prompt.score:.1f}, {part.prompt.loss:.3f}; "
        f"untouched {part.untouched.score:.1f}, {part.untouched.loss:.3f})"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _rest(table: Table, shown: int, count: int) -> None:
    """Say under lines that were chosen how many there are."""
    if shown < count:
        table.add_row(f"({shown} of {count} shown; --json has all)")


def importance(found: Importance) -> Table:
    """Lay out what is lost without each piece, of each kind those that matter most."""
    table = _table("without", found.metric, "loss")
    for group in (found.tokens, found.layers):
        for each in sorted(group, key=lambda each: -each.loss)[:SHOWN]:
            table.add_row(each.name, f"{each.score:.1f}", f"{each.loss:.3f}")
        _rest(table, SHOWN, len(group))
    for each in found.sides:
        table.add_row(f"(with {each.name})", f"{each.score:.1f}", f"{each.loss:.3f}")
    return table


def attention(found: Sequence[LayerAttention]) -> Table:
    """Lay out the mean share of each layer, and a sign for each of its heads."""
    table = _table("", "%", "heads")
    for each in found:
        signs = "".join(SHADES[min(4, round(4 * share))] for share in each.heads)
        mean = sum(each.heads) / len(each.heads)
        table.add_row(each.name, f"{100 * mean:.0f}", Text(f"|{signs}|"))
    return table


def descriptions(found: Descriptions) -> Table:
    """Lay out descriptions with the share of the gain that each explains."""
    table = _table("text", "explains", found.metric, "loss", "from")
    faithful = [each for each in found.texts if each.is_faithful]
    others = [each for each in found.texts if not each.is_faithful]
    for each in [*faithful[:SHOWN], *others]:
        share = "" if each.gain is None else f"{each.gain:.0%} of the gain"
        source = each.source if each.is_faithful else f"{each.source} (not faithful)"
        table.add_row(Text(each.text), share, f"{each.score:.1f}", f"{each.loss:.3f}", source)
    _rest(table, SHOWN + len(others), len(found.texts))
    return table


def contributions(found: Attribution) -> Table:
    """Lay out the tokens that add, or take away, the most."""
    table = _table("token", "adds")
    every: list[tuple[str, Contribution]] = [("", each) for each in found.tokens]
    every += [("prompt: ", each) for each in found.virtual]
    for of, each in sorted(every, key=lambda pair: -abs(pair[1].value))[: 2 * SHOWN]:
        table.add_row(Text(of + each.token), f"{each.value:+.3f}")
    _rest(table, 2 * SHOWN, len(every))
    return table


def layers(found: LayerProbabilities) -> Table:
    """Lay out the likeliest labels of each layer, with the prompt and without."""
    table = _table("behind", "with the prompt", "without")
    for name, *both in zip(found.names, found.prompt, found.untouched, strict=True):
        cells = []
        for chances in both:
            best = max(range(len(chances)), key=chances.__getitem__)
            cells.append(f"{found.labels[best]} {chances[best]:.0%}")
        table.add_row(name, *map(Text, cells))
    return table
