"""The command line: its commands, and what it says where one ends otherwise than well."""

from __future__ import annotations

import atexit
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from io import TextIOWrapper
from typing import NoReturn

from cyclopts import CycloptsError

from foreword.cli.commands import COMMANDS, HELP, app
from foreword.cli.dashes import with_dashes
from foreword.cli.mistakes import explain
from foreword.errors import UserError
from foreword.training.interrupt import Interrupted, Terminated, terminable
from foreword.training.world import ALONE, World, is_one_of_several

BEGIN = """\
Foreword tunes a few words in front of a frozen language model. To begin:

  foreword demo                                   (two minutes; needs nothing)
  foreword predict out/support.safetensors "where is my parcel?"
  foreword info out/support.safetensors

On rows of your own, such as a CSV file with the columns text and label:

  foreword train --train rows.csv --out out/mine.safetensors

foreword --help lists all commands."""
"""What is printed where no command is given."""

LIGHT = ("data", "info", "labels", "library", "plot")
"""Commands that need none of the large libraries, or seldom."""

MENDS_OF_ROWS = ("remove the row", "mend the row", "fill the row")
"""What errors of single rows advise."""

NO_BUG = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Why the system may refuse a file by no fault of the program's."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a bug, 2 for a user's mistake, 130 and 143 for signals.

    Of several processes only the first prints results, and only one says why the run ended.
    """
    words = with_dashes(app, sys.argv[1:] if arguments is None else arguments)
    try:
        with _joined() as world:
            return _run(words, world)
    except UserError as error:  # there is nobody to join
        return _told(ALONE, 2, _in_one_line(error, words))


def _help_asked(words: Sequence[str]) -> str | None:
    """Return the command whose help is asked for, None where none is."""
    given = list(words[: words.index("--")] if "--" in words else words)
    command = next((n for n in (" ".join(given[:2]), *given[:1]) if n in COMMANDS), None)
    return command if {*HELP} & {*given} else None


def _joined() -> AbstractContextManager[World]:
    if not is_one_of_several(os.environ):
        return nullcontext(ALONE)
    from foreword.training.processes import joined

    return joined()


def _run(words: list[str], world: World) -> int:
    try:
        with world.muted():
            if not words:
                print(BEGIN)
                return 0
            if (asked := _help_asked(words)) is not None:
                from foreword.cli.help import show_help

                show_help(app, asked, words)
                return 0
            command, bound, more = app.parse_args(words, exit_on_error=False, print_error=False)
            if world.size > 1 and "world" not in more:
                raise UserError("only train runs in several processes; start one of this command")
            if words[0] not in LIGHT and sys.stderr.isatty():
                from foreword.cli.terminal import start_visibly

                start_visibly()
            with terminable() if world.size == 1 else nullcontext():
                command(*bound.args, **bound.kwargs, **dict.fromkeys(more, world))
    except UserError as error:
        return _told(world, 2, _in_one_line(error, words))
    except CycloptsError as error:
        return _told(world, 2, explain(error))
    except Interrupted as error:
        return _told(world, 128 + error.signal, f"{error}; the same command with --resume goes on")
    except Terminated as error:
        return _told(world, 143, str(error) or "terminated")
    except KeyboardInterrupt as error:
        return _told(world, 130, str(error) or "interrupted")
    except BrokenPipeError:
        return 0
    except SystemExit as error:  # which rich makes of a closed pipe
        if isinstance(error.__context__, BrokenPipeError):
            return 0
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_BUG and error.filename:
            return _told(world, 2, f"{_cut(str(error.filename))}: {error.strerror}")
        bug = "this is a bug in Foreword, not a mistake of yours; please report it"
        return _told(world, 1, bug, error)
    return 0


def _in_one_line(error: UserError, words: Sequence[str]) -> str:
    from foreword.cli.advice import NAMED, flags_of, with_flags

    line = " ".join(str(error).splitlines())
    of_row = any(mend in line for mend in MENDS_OF_ROWS) and "--skip-bad" not in words
    if not (of_row or NAMED.search(line)):
        return line
    known = flags_of(app, words)
    skip = ", or leave such rows out with --skip-bad" if of_row and "--skip-bad" in known else ""
    return with_flags(line, known, error.field) + skip


def _cut(name: str, most: int = 60) -> str:
    return name if len(name) <= most else f"{name[:most]}..."


def _told(world: World, status: int, why: str, bug: Exception | None = None) -> int:
    """Say why the run ends, unless another process has; return the exit status."""
    if world.claim():
        from foreword.display import console

        if bug is not None:
            traceback.print_exception(bug)
        console.say(f"foreword: {why}")
    return status


def main() -> None:
    """Run the command line and exit; quietly where whoever reads the output has left."""
    status: object = 1
    if isinstance(sys.stdout, TextIOWrapper):  # in a code page a row may hold what it has not
        sys.stdout.reconfigure(errors="backslashreplace")
    atexit.register(lambda: _end(status))  # the first one that is registered runs last
    try:
        status = run()
    except SystemExit as error:
        status = 0 if error.code is None else error.code
        raise
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _end(status: object) -> NoReturn:
    """End the process: freeing what torch and transformers made takes most of a second."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)
