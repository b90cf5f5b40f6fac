"""A training in a process of its own, which ends when the one that began it does.

``python -m foreword.serve.feedback.process FOLDER train ...`` is ``foreword train ...`` that ends
as soon as its standard input does, and removes the folder it works in. The other end of that pipe
is the server's, and the system closes it however the server ends, by ``kill -9`` too.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

from foreword.errors import UserError


class TrainingProcess:
    """Runs one training after the other, each behind other work."""

    def __init__(self) -> None:
        self._ended = Event()
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, words: Sequence[str], folder: Path) -> None:
        """Run ``foreword`` with words, in work on a folder, and wait for it.

        Raises UserError where it fails.
        """
        nice = [] if (path := shutil.which("nice")) is None else [path, "-n", "10"]
        module = "foreword.serve.feedback.process"
        command = [*nice, sys.executable, "-m", module, str(folder), *words]
        with tempfile.TemporaryFile() as said:
            self._running = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # nothing is written: its end is what is heard
                stdout=subprocess.DEVNULL,
                stderr=said,
                # Ctrl-C is the server's, which ends it. A session of its own would be a scheduling
                # group of its own, as much as the server, however nice it is (sched(7)).
                process_group=0,
            )
            if self._ended.is_set():  # since end() looked for a training to end
                self._running.terminate()
            status = self._running.wait()
            assert self._running.stdin is not None
            self._running.stdin.close()
            self._running = None
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        if status:
            raise UserError(f"training failed: {lines[-1] if lines else f'status {status}'}")

    def end(self) -> None:
        """End the training that is under way, and each that would begin."""
        self._ended.set()
        if (running := self._running) is not None:
            running.terminate()


def end_with_parent(folder: str) -> None:
    """End this process, and remove the folder, as soon as its standard input ends."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    Thread(target=wait, name="foreword-parent", daemon=True).start()


if __name__ == "__main__":
    end_with_parent(sys.argv.pop(1))
    sys.argv[0] = "foreword"
    runpy.run_module("foreword", run_name="__main__")
