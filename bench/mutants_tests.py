"""Tests of a copy of the repository, in a forked process, for ``bench/mutants.py``.

With plugins of pytest that write down which tests run which lines, or leave tests out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent


def copy_to(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


class LinesRun:
    """A plugin of pytest that writes down which tests run which lines of the core.

    What a shared fixture runs, each test runs that asks for it.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        from coverage import Coverage

        self.path = path
        self.coverage = Coverage(data_file=str(path), include=[str(file) for file in files])
        self.shared: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            for defined in item._fixtureinfo.name2fixturedefs.values():
                if defined[-1].scope != "function":
                    self.shared[self.context_of(defined[-1])].append(item.nodeid)
        self.coverage.start()

    @staticmethod
    def context_of(fixture: Any) -> str:
        return f"fixture {fixture.baseid} {fixture.argname}"

    def pytest_runtest_protocol(self, item: Any) -> None:
        self.test = item.nodeid
        self.coverage.switch_context(item.nodeid)

    def pytest_fixture_setup(self, fixturedef: Any) -> None:
        if fixturedef.scope != "function":
            self.coverage.switch_context(self.context_of(fixturedef))

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        self.coverage.switch_context(self.test)

    def pytest_runtest_call(self) -> None:
        self.coverage.switch_context(self.test)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        with warnings.catch_warnings(action="ignore"):  # where no test ran, pytest says why
            self.coverage.save()
        self.path.with_suffix(".json").write_text(json.dumps(self.shared))


class Only:
    """A plugin of pytest that leaves out all tests but those named."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.names]


class FirstFailure:
    """A plugin of pytest that writes down the test that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.failed:  # type: ignore[attr-defined]
            self.path.write_text(report.nodeid)  # type: ignore[attr-defined]


def _test(folder: Path, arguments: list[str], said: Path, *plugins: object) -> NoReturn:
    os.setsid()
    with said.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "src")
    sys.path[0] = str(folder / "src")  # in place of this folder, which has a serve.py of its own
    import pytest

    options = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    os._exit(int(pytest.main([*options, *arguments], plugins=plugins)))


def tests(folder: Path, arguments: list[str], limit: float, *plugins: object) -> tuple[str, str]:
    """Run tests in a forked process; return "passed", "failed" or "late", and what failed."""
    said = folder / "said.txt"
    failed = folder / "failed.txt"
    failed.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            _test(folder, arguments, said, FirstFailure(failed), *plugins)
        except BaseException:
            traceback.print_exc()
        finally:  # whatever happens, this process must not go on as its parent
            sys.stderr.flush()
            os._exit(99)
    until = time.monotonic() + limit
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "late", ""
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a broken test has left running
    named = failed.read_text() if failed.exists() else said.read_text(errors="replace")[-200:]
    return ("passed", "") if os.waitstatus_to_exitcode(status) == 0 else ("failed", named)
