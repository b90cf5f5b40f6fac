"""How the process of a command ends, and what its imports leave behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys
from foreword.cli import main as command

def run():
    atexit.register(print, "last words")
    sys.stdout.write("no end of line")
    {ending}

command.run = run
command.main()
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("sys.exit(4)", 4),
        ("sys.exit()", 0),
        ("raise OSError('odd')", 1),
    ],
)
def test_what_is_to_happen_at_the_end_does(ending: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=ending)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    assert ended.stdout == "no end of linelast words\n"
    assert ("OSError: odd" in ended.stderr) is (status == 1)


IMPORTS = """
import gc, sys
from foreword.cli.imports import large_imports
for _ in range(2):
    with large_imports():
        assert not gc.isenabled()
        import foreword.backbone
    assert gc.isenabled()
    print(gc.get_freeze_count())
    kept = [[] for _ in range(1000)]
gc.disable()
with large_imports():
    pass
assert not gc.isenabled()

assert "scipy" not in sys.modules
from transformers.utils import is_scipy_available
assert is_scipy_available()
from transformers.models.fnet import modeling_fnet
assert modeling_fnet.linalg.dft(2).shape == (2, 2)
"""


def test_imports_leave_things_as_they_were() -> None:
    """Only what was there at the first of them is no garbage for good; a model finds its scipy."""
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    first, second = map(int, ended.stdout.split())
    assert first > 10_000
    assert second == first
