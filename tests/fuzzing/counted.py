"""Fuzz all commands and count what comes of it, by command and outcome.

    python tests/fuzzing/counted.py [--cases 20000] [--seed 0]

Exits with 1 where a command ended otherwise than with 0 or 2, showed a traceback, or answered
wrongly; each such fault is printed once, with the smallest of its cases.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzzing.cases import KINDS, Case
from fuzzing.world import Answer, World, call, world

Counts = Counter[tuple[str, str]]


def outcome(case: Case) -> tuple[str, Answer, str]:
    """Run a case; return "accepted", "refused" or "fault", the answer, and what is wrong."""
    answer = call(*case.words)
    if answer.status not in (0, 2) or "Traceback" in answer.err:
        return "fault", answer, _last(answer.err)
    if answer.status == 2:
        lines = [line for line in answer.err.splitlines() if line.startswith("foreword: ")]
        return ("refused", answer, "") if lines else ("fault", answer, "refused without a line")
    try:
        case.check(answer)
    except Exception as error:  # whatever a check raises is what is wrong
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "fault", answer, f"{type(error).__name__} at {place.name}:{place.lineno}: {error}"
    return "accepted", answer, ""


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    return " | ".join([*places[-1:], *lines[-2:]])


def fuzz(cases: int, start: int, place: World, counts: Counts) -> dict[str, tuple[str, Case]]:
    """Run so many cases; return the faults by what is wrong."""
    faults: dict[str, tuple[str, Case]] = {}
    parts = sum(weight for _, weight in KINDS.values())
    for kind, (make, weight) in KINDS.items():
        began, count = time.monotonic(), max(1, cases * weight // parts)

        @seed(start)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def run(data: st.DataObject) -> None:
            case = make(data, place)  # noqa: B023  (it is run before the loop goes on)
            came, _, wrong = outcome(case)
            counts[case.command, came] += 1
            if came == "fault":
                key = f"{kind}: {wrong[:160]}"  # noqa: B023  (as above)
                if key not in faults or len(str(case.words)) < len(str(faults[key][1].words)):
                    faults[key] = wrong, case

        run()
        print(f"{kind}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return faults


def main() -> int:
    """Fuzz, and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counts: Counts = Counter()
    with world() as place:
        faults = fuzz(asked.cases, asked.seed, place, counts)
        for wrong, case in faults.values():
            print(f"\n{wrong}\n  {' '.join(map(str, case.words))}")
    print(f"\n{'command':12} {'accepted':>9} {'refused':>9} {'fault':>9}")
    for command in [*sorted({command for command, _ in counts}), "all"]:
        row = [
            sum(
                n for (name, came), n in counts.items() if came == each and command in (name, "all")
            )
            for each in ("accepted", "refused", "fault")
        ]
        print(f"{command:12} {row[0]:9,} {row[1]:9,} {row[2]:9,}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
