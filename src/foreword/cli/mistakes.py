"""What the command line says of commands and flags that it cannot understand."""

from __future__ import annotations

from cyclopts import (
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from foreword.cli.commands import COMMANDS
from foreword.errors import nearest


def explain(error: CycloptsError) -> str:
    """Return one line: what is wrong, and where help is."""
    command = " ".join(error.command_chain or ())
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        first = error.unused_tokens[0]
        above = f"{command} " if command else ""
        known = [name.removeprefix(above) for name in COMMANDS if name.startswith(above)]
        return f"{above}{first}: unknown command; {nearest(first, known)}"
    text = " ".join(str(error).split()).removesuffix(".")
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        text = f"'{error.unused_tokens[0]}' is one word too many"
    elif isinstance(error, UnknownOptionError) and (short := _short(error)):
        text = (
            f"Unknown option: {short}; a value that begins with a dash is joined to its flag by =, "
            "and a text stands behind --"
        )
    elif (
        isinstance(error, UnknownOptionError)
        and not text.endswith("?")
        and (named := _column(error))
    ):
        text = f"Unknown option: {named}; name the column of a field with --columns FIELD=COLUMN"
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        text = _missing(error)
    if not command:
        return text
    return f"{text}{' See' if text.endswith('?') else '; see'} foreword {command} --help"


def _short(error: UnknownOptionError) -> str | None:
    """Return the unknown word where it begins with a single dash."""
    word = error.token.keyword or error.token.value
    return None if word.startswith("--") else word


def _column(error: UnknownOptionError) -> str | None:
    """Return the unknown flag where it names a column, which ``--columns`` does of this command."""
    word = (error.token.keyword or error.token.value).partition("=")[0]
    known = {name for each in error.argument_collection for name in each.names}
    return word if word.endswith("-field") and "--columns" in known else None


def _missing(error: MissingArgumentError) -> str:
    assert error.argument is not None
    about = f" ({error.argument.parameter.help})" if error.argument.parameter.help else ""
    if error.keyword is not None:
        return f"{error.keyword} needs a value{about}"
    name = error.argument.name
    if error.argument.index is not None:
        name = name.removeprefix("--").upper()
    hint = str(error).partition(" Did you mean ")[2]
    return f"{name} is missing{about}" + (f". Did you mean {hint}" if hint else "")
