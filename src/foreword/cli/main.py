"""The command line: its commands, and what it says where one ends otherwise than well."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from foreword.cli.augment import augment
from foreword.cli.compare import compare
from foreword.cli.compose import compose
from foreword.cli.compress import compress
from foreword.cli.data import data
from foreword.cli.demo import demo
from foreword.cli.evaluate import evaluate
from foreword.cli.exchange import export, import_
from foreword.cli.info import info
from foreword.cli.library import library
from foreword.cli.multitask import multitask
from foreword.cli.predict import predict
from foreword.cli.pretrain import pretrain
from foreword.cli.train import train
from foreword.errors import UserError
from foreword.report import tables
from foreword.training.interrupt import Interrupted
from foreword.training.processes import ALONE, World, joined

app = App(
    name="foreword",
    help="Tunes a few words in front of a frozen language model.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # Ctrl-C is answered below
)

app.command(augment)
app.command(compare)
app.command(compress)
app.command(data)
app.command(multitask)
app.command(pretrain)
app.command(compose)
app.command(library)
app.command(train)
app.command(evaluate, name="eval")
app.command(predict)
app.command(info)
app.command(export)
app.command(import_, name="import")
app.command(demo)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for a user's mistake, 130 for Ctrl-C, 1 for a bug.

    Of several processes only the first prints results, and only one says why the run ended.
    """
    try:
        with joined() as world:
            return _run(arguments, world)
    except UserError as error:  # there is nobody to join
        return _told(ALONE, 2, str(error))


def _run(arguments: Sequence[str] | None, world: World) -> int:
    try:
        with world.muted():
            command, bound, more = app.parse_args(arguments, exit_on_error=False, print_error=False)
            if world.size > 1 and "world" not in more:
                raise UserError("only train runs in several processes; start one of this command")
            command(*bound.args, **bound.kwargs, **dict.fromkeys(more, world))
    except UserError as error:
        return _told(world, 2, " ".join(str(error).splitlines()))
    except CycloptsError as error:
        return _told(world, 2, " ".join(str(error).split()))
    except Interrupted as error:
        return _told(world, 130, f"{error}; the same command with --resume goes on")
    except KeyboardInterrupt as error:
        return _told(world, 130, str(error) or "interrupted")
    except BrokenPipeError:
        return 0
    except SystemExit as error:  # which rich makes of a closed pipe
        if isinstance(error.__context__, BrokenPipeError):
            return 0
        raise
    except Exception as error:
        bug = "this is a bug in Foreword, not a mistake of yours; please report it"
        return _told(world, 1, bug, error)
    return 0


def _told(world: World, status: int, why: str, bug: Exception | None = None) -> int:
    """Say why the run ends, unless another process has; return the exit status."""
    if world.claim():
        if bug is not None:
            traceback.print_exception(bug)
        tables.say(f"foreword: {why}")
    return status


def main() -> None:
    """Run the command line and exit; quietly where whoever reads the output has left."""
    status = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
