"""Random and hostile requests: no fault of the server's, and right answers between them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzzing.http_cases import Watch, described, send
from serve.serving import ADMIN, served


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    """Some hundreds of them; tests/fuzzing/served.py sends ten thousand."""
    with served(tmp_path, "--queue", "64", "--max-tokens", "16", "--max-body", "8192") as server:
        watch, draws = Watch(server), random.Random(0)
        for _ in range(5):
            for _ in range(60):
                watch.statuses[send(server.http(ADMIN), draws)] += 1
            watch.check()
        watch.statuses.update(described(server, 20))
        watch.check()
    assert sum(watch.statuses.values()) > 450
    assert watch.statuses[200] > 20
    assert watch.statuses[400] > 100
