"""What ``bench/search.py`` has recorded: a table on standard output, and a picture.

    python bench/search_report.py [--picture docs/pictures/search.svg]

Differences are by seed, and in bold their mean, where answers are right or wrong over the test rows
of all seeds, with its 95% interval.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search import CORES, RECORDS, SEEDS, SETS, read_records

from foreword.metrics.paired import paired_difference

NAMES = {
    "sst2": "SST-2, 256 rows",
    "ag_news": "AG News, 256",
    "sms_spam": "SMS spam, 256",
    "banking77": "Banking77, 10 an intent",
    "stsb": "STS-B, 500 (Pearson)",
    "e2e": "E2E, 500 (BLEU)",
}
DEV = {"classify": "accuracy", "score": "negative MSE", "generate": "log-likelihood"}
"""What the dev score of a task is."""

COLOURS = {"search": "#0b6e4f", "random": "#c2570c"}
OTHERS = ("best", "random")
"""What a search is compared with."""

Record = dict[str, Any]


def table(records: Sequence[Record]) -> str:
    """Return a table: the scores by seed, and those of a search less those of the others."""
    header = ["set", "`best`", "its seconds", "`balanced`", "search", "random", "what it chose"]
    header += [f"search less {other}" for other in OTHERS]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name in SETS:
        own = _last(records, name)
        if not own:
            continue
        cells = [
            NAMES[name],
            _by_seed(own, "best", "score", ".1f"),
            _by_seed(own, "best", "seconds", ".0f"),
            *(_by_seed(own, system, "score", ".1f") for system in ("balanced", "search", "random")),
            _by_seed(own, "search", "method", ""),
        ]
        for other in OTHERS:
            both = [s for s in SEEDS if {("search", s), (other, s)} <= own.keys()]
            pairs = [(own["search", seed], own[other, seed]) for seed in both]
            cells.append(_difference(pairs))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _last(records: Sequence[Record], name: str) -> dict[tuple[str, int], Record]:
    """Return the runs on a set by system and seed; of one that was made again the last."""
    return {(r["system"], r["seed"]): r for r in records if r["task"]["name"] == name}


def _by_seed(own: dict[tuple[str, int], Record], system: str, key: str, form: str) -> str:
    return ", ".join(format(own[system, s][key], form) for s in SEEDS if (system, s) in own)


def _difference(pairs: Sequence[tuple[Record, Record]]) -> str:
    """Return how much higher the first of each pair of runs scores, and the mean."""
    gains = [one["score"] - two["score"] for one, two in pairs]
    told = ", ".join(f"{gain:+.1f}" for gain in gains)
    if not pairs or any(each["metric"] != "accuracy" for pair in pairs for each in pair):
        return f"{told}; **{statistics.mean(gains):+.1f}**" if len(gains) > 1 else told
    first, second = (
        [100.0 * int(each) for pair in pairs for each in pair[n]["right"]] for n in (0, 1)
    )
    found = paired_difference(first, second)
    low, high = found.bounds(1)
    return f"{told}; **{found.value:+.1f}** ({low:+.1f} to {high:+.1f})"


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw the best dev score over time, a panel for each set and a line for each run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "foreword"
    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(2, len(SETS) // 2, sharex=True).flat
    for panel, name in zip(panels, SETS, strict=True):
        runs = [run for (by, _), run in _last(records, name).items() if by in COLOURS]
        for run in (each for each in runs if each["curve"]):
            end = 60 * CORES * run["minutes"]
            times, scores = zip(*run["curve"], strict=True)
            panel.step(
                [*times, end],
                [*scores, scores[-1]],
                where="post",
                color=COLOURS[run["system"]],
                label=run["system"],
                alpha=0.8,
            )
            panel.plot(times[:1], scores[:1], "o", markersize=3, color=COLOURS[run["system"]])
        title = f"{NAMES[name].partition(' (')[0]}: {DEV[SETS[name].task]}"
        panel.set_title(title, fontsize=9)
        panel.set_xlim(left=0)
        panel.tick_params(labelsize=8)
    figure.supxlabel("seconds of one core", fontsize=9)
    figure.supylabel("best dev score so far", fontsize=9)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, lines, strict=True))
    figure.axes[0].legend(by_label.values(), by_label, frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and draw."""
    own = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    own.add_argument("--records", type=Path, default=RECORDS)
    own.add_argument("--picture", type=Path)
    given = own.parse_args(words)
    records = read_records(given.records)
    print(table(records))
    if given.picture is not None:
        draw(records, given.picture)


if __name__ == "__main__":
    main()
