"""Tables of prompts beside each other: methods, parts of a composition, tasks, old and new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from foreword.display.facts import in_words
from foreword.display.formats import to_csv, to_latex, to_markdown
from foreword.display.tables import short, with_interval
from foreword.errors import UserError, nearest
from foreword.metrics.titles import MAIN, title

BYTES = (" B", " KiB", " MiB", " GiB")


def methods(found: Sequence[Mapping[str, Any]], headline: str) -> Table:
    """Lay out the entries of a comparison: what differs, score, size, time and memory.

    Where many settings differ, the sizes of files and memory are left out.
    """
    header, rows, texts = cells(found, headline)
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    shown = [n for n, name in enumerate(header) if texts <= 3 or name not in ("file", "peak")]
    for place in shown:
        if place < texts:
            made.add_column(header[place], overflow="fold")
        else:
            made.add_column(header[place], justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(row[place]) for place in shown))
    return made


def cells(
    found: Sequence[Mapping[str, Any]], headline: str
) -> tuple[list[str], list[list[str]], int]:
    """Return the header, the rows, and how many columns say what an entry is of.

    These are the method, unless all entries are of one, and the settings that differ.
    """
    several = any(each["spread"] is not None for each in found)
    names = varied(found)
    one = bool(names) and len({each["method"] for each in found}) == 1
    about = [*([] if one else ["method"]), *(name.replace("_", " ") for name in names)]
    spread = ["±"] if several else []
    header = [*about, title(headline), *spread, "trained", "file", "seconds", "peak"]
    rows = []
    for each in found:
        row = [] if one else [each["method"]]
        row += [in_words(each["varied"].get(name, "")) for name in names]
        if each["score"] is None:
            rows.append([*row, "failed", *[""] * (len(header) - len(row) - 1)])
            continue
        row.append(with_interval(headline, each["score"], each["interval"]))
        if several:
            row.append("" if each["spread"] is None else f"{each['spread']:.1f}")
        row += [
            short(each["parameters"], 1000, ("", "k", "M", "G")),
            short(each["bytes"], 1024, BYTES) if each["bytes"] else "-",
            f"{each['seconds']:.0f}" if each["seconds"] else "-",
            short(each["peak_mib"] * 2**20, 1024, BYTES),
        ]
        rows.append(row)
    return header, rows, len(about)


def written(found: Sequence[Mapping[str, Any]], headline: str, kind: str) -> str:
    """Return the entries of a comparison as "csv", with all digits, "latex" or "markdown"."""
    if kind == "csv":
        return to_csv(*numbers(found, headline))
    kinds = {"latex": to_latex, "markdown": to_markdown}
    if kind not in kinds:
        raise UserError(f"no kind '{kind}' of text; {nearest(kind, ['csv', *kinds])}")
    return kinds[kind](*cells(found, headline))


def numbers(found: Sequence[Mapping[str, Any]], headline: str) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of a table for other programs, with all digits."""
    names = varied(found)
    own = ("spread", "parameters", "bytes", "seconds", "peak_mib", "error")
    header = ["method", *names, headline, "low", "high", "seeds", *own]
    rows = []
    for each in found:
        low, high = each["interval"] or (None, None)
        settings = [in_words(each["varied"].get(name, "")) for name in names]
        values = [each.get(name) for name in own]
        count = len(each["seeds"])
        rows.append([each["method"], *settings, each["score"], low, high, count, *values])
    return header, rows


def varied(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the settings in which entries differ."""
    return list(dict.fromkeys(name for each in found for name in each.get("varied", ())))


def composed(entries: Sequence[Mapping[str, Any]], headline: str | None) -> Table:
    """Lay out prompts and what they make: weight, dev score, and test score with its interval."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("", overflow="fold")
    shown = [name for name in ("weight", "dev", "test") if any(name in e for e in entries)]
    for name in shown:
        metric = next(
            (_shown_metric(e[name], headline) for e in entries if name in e and name != "weight"),
            "",
        )
        made.add_column(f"{name} {title(metric)}".strip(), justify="right")
    for entry in entries:
        cells = []
        for name in shown:
            value = entry.get(name)
            if name == "weight":
                cells.append("" if value is None else f"{value:.2f}")
            elif value is None:
                cells.append("")
            else:
                metric = _shown_metric(value, headline)
                bounds = value.get("intervals", {}).get(metric)
                number = f"{value[metric]:.2f}"
                cells.append(
                    number if bounds is None else with_interval(metric, value[metric], bounds)
                )
        made.add_row(entry["file"], *cells)
    return made


def _shown_metric(scores: Mapping[str, Any], headline: str | None) -> str:
    """Return the one score that is shown: the headline, or the only one there is."""
    if headline is not None and headline in scores:
        return headline
    return next(name for name in scores if name != "rows")


def tasks(found: Mapping[str, Mapping[str, Any]], headlines: Mapping[str, str]) -> Table:
    """Lay out the tasks of one run: their rows, and their dev and test scores."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("task", overflow="fold")
    for name in ("rows", "dev", "test"):
        made.add_column(name, justify="right")
    for name, values in found.items():
        (metric,) = (key for key in values["dev"] if key != "rows")
        dev = f"{metric} {values['dev'][metric]:.2f}"
        shown = ""
        if "test" in values:
            head, test = headlines[name], values["test"]
            shown = f"{title(head)} {with_interval(head, test[head], test['intervals'][head])}"
        made.add_row(name, str(values["rows"]), dev, shown)
    return made


def old_and_new(result: Mapping[str, Any]) -> Table:
    """Lay out the old task before and after beside the new one, so that forgetting is seen."""
    entries = {
        "old task, before": result["old"]["before"],
        "old task, after": result["old"]["after"],
        "new task": result["new"],
    }
    shown = [m for m in MAIN if any(m in each for each in entries.values())]
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("")
    for metric in shown:
        made.add_column(title(metric), justify="right")
    for name, values in entries.items():
        made.add_row(name, *(_cell(metric, values) for metric in shown))
    return made


def _cell(metric: str, values: Mapping[str, Any]) -> str:
    if metric not in values:
        return ""
    if metric not in values.get("intervals", {}):
        return f"{values[metric]:.1f}"
    return with_interval(metric, values[metric], values["intervals"][metric])


def cartridge(report: Mapping[str, Any]) -> Table:
    """Lay out the full text, the cartridge, and the text cut to its length."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("")
    for name in ("KL", "top-1", "answers (ROUGE-L)", "memory", "first token"):
        made.add_column(name, justify="right")
    lines = {"full text": "_full", "cartridge": "", "cut to its length": "_truncated"}
    for name, end in {**lines, "none of it": "_none"}.items():
        answers = f"answers{end}"
        size, seconds = report.get(f"bytes{end}"), report.get(f"first_token_seconds{end}")
        made.add_row(
            name,
            f"{report[f'kl{end}']:.3f}" if f"kl{end}" in report else "",
            f"{report[f'top1{end}']:.1f}" if f"top1{end}" in report else "",
            with_interval("rouge_l", report[answers], report["intervals"][answers])
            if answers in report
            else "",
            "" if size is None else f"{size / 2**20:.1f} MiB",
            "" if seconds is None else f"{seconds:.2f} s",
        )
    return made
