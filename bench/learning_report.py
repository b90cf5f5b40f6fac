"""What ``bench/learning.py`` has recorded: tables on standard output, and a picture.

python bench/learning_report.py [--picture docs/pictures/learning.svg]

A seed is a stream of its own, with rows that hang together: intervals are of 95%, by Student's t
over the seeds. Differences are paired.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

PARTS = 10
NAMES = {"frozen": "frozen", "learning": "learning", "scratch": "anew from all rows"}
COLOURS = {"frozen": "#666666", "learning": "#0b6e4f", "scratch": "#c2570c"}

Record = dict[str, Any]


def tenths(records: Sequence[Record], name: str) -> np.ndarray:
    """Return hit@1 in each tenth of the stream, in percent: (PARTS, seeds)."""
    rows = np.array([[100 * int(hit) for hit in record["hits"][name]] for record in records])
    return np.stack([part.mean(1) for part in np.array_split(rows, PARTS, axis=1)])


def off(values: np.ndarray) -> float:
    """Return how far off the mean over seeds its 95% interval reaches."""
    count = len(values)
    return float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def of(records: Sequence[Record], scene: str, case: str) -> list[Record]:
    """Return the records of a scene and a case, by seed."""
    found = [each for each in records if (each["scene"], each["case"]) == (scene, case)]
    return sorted(found, key=lambda record: record["seed"])


def over_time(records: Sequence[Record]) -> Iterator[str]:
    """Yield a table of hit@1 by tenths of the stream."""
    yield "| tenth | frozen | learning | anew from all rows | learning less frozen | by seed |"
    yield "|---|---|---|---|---|---|"
    parts = {name: tenths(records, name) for name in NAMES}
    for number in range(PARTS):
        means = " | ".join(f"{parts[name][number].mean():.1f}" for name in NAMES)
        gains = parts["learning"][number] - parts["frozen"][number]
        low, high = gains.mean() - off(gains), gains.mean() + off(gains)
        each = ", ".join(f"{gain:.1f}" for gain in gains)
        yield f"| {number + 1} | {means} | {gains.mean():.1f} ({low:.1f} to {high:.1f}) | {each} |"


def gate(records: Sequence[Record], scene: str, cases: Sequence[str]) -> Iterator[str]:
    """Yield a table of what the gate let through, case by case, on the seeds that all have."""
    seeds = set.intersection(*({e["seed"] for e in of(records, scene, case)} for case in cases))
    yield f"Seeds {', '.join(map(str, sorted(seeds)))}:\n"
    yield (
        "| corrections | versions made | swapped in | of these worse, better on the next rows | "
        "refused ones worse, better | hit@1 learning | frozen | difference, by seed from and to |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for case in cases:
        own = [record for record in of(records, scene, case) if record["seed"] in seeds]
        tried = [each for record in own for each in record["attempts"]]
        counted = " | ".join(
            f"{worse}, {better}"
            for taken in (True, False)
            for worse, better in [_next([a for a in tried if a["taken"] is taken])]
        )
        taken = sum(each["taken"] for each in tried)
        rates = [tenths(own, name).mean(0) for name in ("learning", "frozen")]
        gains = rates[0] - rates[1]
        lost = f"{gains.mean():.1f} ({gains.min():.1f} to {gains.max():.1f})"
        told = " | ".join(f"{rate.mean():.1f}" for rate in rates)
        yield f"| {case} | {len(tried)} | {taken} | {counted} | {told} | {lost} |"


def _next(attempts: Sequence[Record]) -> tuple[int, int]:
    """Return how many versions were worse, and better, than the one before on the next rows."""
    gains = [each["next"]["new"] - each["next"]["old"] for each in attempts if "next" in each]
    return sum(gain < 0 for gain in gains), sum(gain > 0 for gain in gains)


def seconds(records: Sequence[Record]) -> str:
    """Return what learning cost, on the mean of the seeds."""
    means = {
        name: np.mean([record["processor_seconds"][name] for record in records])
        for name in records[0]["processor_seconds"]
    }
    made = np.mean([len(record["attempts"]) for record in records])
    return f"{made:.1f} versions a seed; " + ", ".join(f"{n} {v:.1f} s" for n, v in means.items())


def draw(records: Sequence[Record], scenes: Sequence[str], path: Path) -> None:
    """Draw hit@1 over the stream, a panel for each scene."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "foreword"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(scenes), sharey=True))
    for panel, scene in zip(panels, scenes, strict=True):
        own = of(records, scene, "clean")
        length = len(own[0]["hits"]["frozen"])
        middles = (np.arange(PARTS) + 0.5) * length / PARTS
        for name, label in NAMES.items():
            parts = tenths(own, name)
            means, around = parts.mean(1), np.array([off(part) for part in parts])
            panel.plot(middles, means, color=COLOURS[name], label=label, marker="o", markersize=3)
            panel.fill_between(
                middles, means - around, means + around, color=COLOURS[name], alpha=0.15
            )
        panel.set_title(f"examples/{scene}, {len(own)} seeds")
        panel.set_xlabel("users' rows so far")
        panel.set_ylim(0, 80)
    panels[0].set_ylabel("hit@1, %")
    panels[0].legend(loc="lower left", frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Print the tables, and draw."""
    own = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    own.add_argument("--records", type=Path, default=Path(__file__).with_name("learning.jsonl"))
    own.add_argument("--picture", type=Path)
    given = own.parse_args()
    records = [json.loads(line) for line in given.records.read_text("utf-8").splitlines()]
    scenes = list(dict.fromkeys(record["scene"] for record in records))
    for scene in scenes:
        cases = list(dict.fromkeys(r["case"] for r in records if r["scene"] == scene))
        clean = of(records, scene, "clean")
        print(f"{scene}, {len(clean)} seeds: {seconds(clean)}", *over_time(clean), sep="\n")
        print(*gate(records, scene, cases), "", sep="\n")
    if given.picture is not None:
        draw(records, scenes, given.picture)


if __name__ == "__main__":
    main()
