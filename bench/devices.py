"""What a folder of ``export --to onnx`` answers in Python, in Node and in Chromium.

    python bench/devices.py out/intents-onnx --data examples/support/test.jsonl --rows 20

The folder needs npm's modules, as run.html says. For each program: milliseconds a row by the clock
in the median (the first, which warms up, left out), peak memory, and beside Python the share of
equal answers and the largest difference of a probability.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import browser

Answer = dict[str, Any]


def by_script(command: list[str], folder: Path, rows: list[Answer]) -> tuple[Any, ...]:
    """Ask run.py or run.mjs row by row: answers, milliseconds for each, and peak megabytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    found, spent = [], []
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as asked:
        for row in rows:
            begin = time.perf_counter()
            asked.stdin.write(json.dumps(row) + "\n")
            asked.stdin.flush()
            found.append(json.loads(asked.stdout.readline()))
            spent.append(1000 * (time.perf_counter() - begin))
        asked.stdin.close()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return found, spent, peak / 1000 if peak > before else None


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *given: Any) -> None:
        pass


def by_chromium(folder: Path, rows: list[Answer]) -> tuple[Any, ...]:
    """Ask run.html in a headless Chromium."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    profiles = TemporaryDirectory(ignore_cleanup_errors=True)  # Chromium may still write there
    with profiles as profile, browser(Path(profile)) as tab:
        address = f"http://127.0.0.1:{server.server_address[1]}/run.html"
        tab.ask("Page.navigate", url=address)
        tab.until("typeof window.answer === 'function'")
        found, spent = [], []
        for row in rows:
            begin = time.perf_counter()
            found.append(tab.value(f"window.answer({json.dumps(row)})"))
            spent.append(1000 * (time.perf_counter() - begin))
        elsewhere = [url for url in tab.asked_for() if address.rpartition("/")[0] not in url]
        assert not elsewhere, elsewhere
        peak = max(peaks_below(profile))
    server.shutdown()
    return found, spent, peak


def peaks_below(profile: str) -> Iterator[float]:
    """Yield the peak memory, in megabytes, of each page of the Chromium with this profile."""
    status, commands = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(place.name)] = (place / "cmdline").read_bytes().decode(errors="replace")
            status[int(place.name)] = (place / "status").read_text()
        except OSError:
            continue
    parent = {pid: int(re.search(r"PPid:\s*(\d+)", said)[1]) for pid, said in status.items()}
    for pid, said in status.items():
        above = pid
        while above in parent and f"--user-data-dir={profile}" not in commands[above]:
            above = parent[above]
        if above in parent and "--type=renderer" in commands[pid]:
            yield int(re.search(r"VmHWM:\s*(\d+)", said)[1]) / 1000


def apart(found: list[Answer], expected: list[Answer]) -> tuple[float, float]:
    """Return the share of equal answers, and the largest difference of a probability."""
    pairs = list(zip(found, expected, strict=True))
    plain = [[{k: v for k, v in each.items() if k != "probabilities"} for each in p] for p in pairs]
    gaps = [abs(a["probabilities"][n] - p) for a, b in pairs for n, p in b["probabilities"].items()]
    return sum(a == b for a, b in plain) / len(plain), max(gaps)


def main() -> None:
    """Ask each program in turn, and print a line for each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("folder", type=Path)
    reader.add_argument("--data", type=Path, required=True)
    reader.add_argument("--rows", type=int, default=20)
    asked = reader.parse_args()
    fields = json.loads((asked.folder / "prompt.json").read_text("utf-8"))["fields"]
    lines = asked.data.read_text("utf-8").splitlines()[: asked.rows]
    rows = [{name: json.loads(line)[name] for name in fields} for line in lines]
    expected = None
    for program, ask in {
        "python": partial(by_script, [sys.executable, "run.py"], asked.folder),
        "chromium": partial(by_chromium, asked.folder),
        "node": partial(by_script, ["node", "run.mjs"], asked.folder),
    }.items():
        found, spent, peak = ask(rows)
        expected = expected or found
        equal, gap = apart(found, expected)
        said = {"ms": statistics.median(spent[1:]), "peak_mb": peak, "equal": equal, "apart": gap}
        print(json.dumps({"program": program, "rows": len(rows), **said}), flush=True)


if __name__ == "__main__":
    main()
