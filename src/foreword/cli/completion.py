"""Values of flags that a shell completes, and that are plain text all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from foreword.config.settings import FILE, Values


def completed(values: Values) -> Any:
    """Return a type of text whose ``values`` a shell completes; it may be another text too.

    The type says so, since cyclopts has pydantic check it where that is imported.
    """
    kind = Path if values == FILE else Literal[values] | str
    metavar = "FILE" if values == FILE else None
    return Annotated[kind, Parameter(converter=_text, show_choices=False, metavar=metavar)]


def _text(kind: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


if TYPE_CHECKING:
    File = str
else:
    File = completed(FILE)
"""A file or a folder, or a name that stands in place of one."""


def install(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"] | None, Parameter(help="else the one in use")
    ] = None,
    output: Annotated[
        Path | None, Parameter(help="the script to write, else the usual one")
    ] = None,
) -> None:
    """Write the completion script of a shell, and have its startup file load it."""
    from cyclopts.completion.install import create_install_completion_command

    from foreword.cli.commands import app

    create_install_completion_command(app.install_completion, add_to_startup=True)(
        shell=shell, output=output
    )
