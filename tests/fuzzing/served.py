"""Counts what a server on a tiny model answers to random and hostile requests; any 500 ends it.

    python tests/fuzzing/served.py --cases 10000

Half of the requests are good ones with something wrong in them, half are made from the server's
OpenAPI description by schemathesis. Between them the answers to good requests are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

OPERATIONS = 11
LIMITS = ["--queue", "64", "--max-tokens", "16", "--max-body", "8192"]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cases", type=int, default=10_000)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    import processes
    from fuzzing.http_cases import Watch, described, send
    from serve.serving import ADMIN, served

    processes.prepare()
    began, draws = time.monotonic(), random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), *LIMITS) as server:
        watch = Watch(server)
        each = given.cases // 2 // OPERATIONS + 1
        for number, status in enumerate(described(server, each, given.seed)):
            watch.statuses[status] += 1
            if number % 100 == 0:
                watch.check()
        while (number := sum(watch.statuses.values())) < given.cases:
            watch.statuses[send(server.http(ADMIN), draws)] += 1
            if number % 100 == 0:
                watch.check()
        watch.check()
        print(
            json.dumps(
                {
                    "requests": sum(watch.statuses.values()),
                    "statuses": dict(sorted(watch.statuses.items())),
                    "seconds": round(time.monotonic() - began),
                }
            )
        )


if __name__ == "__main__":
    main()
