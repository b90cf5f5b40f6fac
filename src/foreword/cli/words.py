"""Words of a flag: labels, anchors, columns and texts as they are written on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreword.config.settings import RENAMED
from foreword.errors import UserError
from foreword.tasks.words import COMMAS, as_word

ESCAPED = ("template", "word_template", "start_text", "stop")


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{RENAMED.get(name, name).replace('_', '-')}"


def unescaped(value: Any) -> Any:
    """Read the two signs \\n in a flag as a new line; a shell's quotes leave them as they are."""
    if isinstance(value, str):
        return value.replace("\\n", "\n")
    return [unescaped(each) for each in value]


def json_schema_of(given: str) -> str:
    """Return the text of a JSON schema: of the file of this name, or as it is given.

    Raises UserError for a file that cannot be read.
    """
    if given.lstrip().startswith("{"):
        return given
    try:
        return Path(given).read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"--json-schema {given}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"--json-schema {given}: is not UTF-8 text; save it so") from None


def parse_labels(words: Sequence[str]) -> dict[str, Any]:
    """Read ``label`` or ``label=word,word`` ...; a word gets a space in front where it has none.

    Words that are given stand as they are; a label alone has none, and is read as its name.
    """
    made: dict[str, Any] = {}
    for entry in words:
        if not isinstance(entry, str):
            raise UserError(f"labels hold {entry!r}, which is no text; put it in quotes")
        name, sign, given = entry.partition("＝" if "=" not in entry else "=")
        if not name or (sign and not given):
            raise UserError(f"--labels {entry!r}: write label, or label=word,word")
        if name in made:
            raise UserError(f"--labels names '{name}' twice")
        words_given = [as_word(word.rstrip()) for word in COMMAS.split(given)]
        made[name] = words_given if sign else []
    return made


def parse_anchors(words: Sequence[str]) -> dict[str, float]:
    """Read ``number`` or ``word=number`` ...; a word gets a space in front where it has none."""
    made: dict[str, float] = {}
    for entry in words:
        word, _, given = str(entry).rpartition("=")
        word = (word or given).strip()
        try:
            number = float(given)
        except ValueError:
            raise UserError(f"--anchors {entry!r}: write number, or word=number") from None
        if made.setdefault(f" {word}", number) != number:
            raise UserError(f"--anchors gives the word '{word}' two numbers; choose one")
    return made


def parse_numbers(words: Sequence[str], setting: str) -> dict[str, float]:
    """Read ``label=number`` ...; raises UserError for entries of another form."""
    made = {}
    for entry in words:
        name, _, given = str(entry).rpartition("=")
        try:
            made[name] = float(given if name else "")
        except ValueError:
            raise UserError(f"--{setting} {entry!r}: write label=number") from None
    return made


def parse_windows(given: str) -> list[int | None]:
    """Read ``4,8,all``: numbers of tokens, each once, None for all of them."""
    made: list[int | None] = []
    for word in given.split(","):
        if word.strip() != "all" and not (word.strip().isdecimal() and int(word)):
            raise UserError(f"--windows {given}: write numbers of tokens, as in 4,8,16,all")
        window = None if word.strip() == "all" else int(word)
        if window in made:
            raise UserError(f"--windows {given}: names {word.strip()} twice")
        made.append(window)
    return made


def columns(given: Sequence[str] | None) -> dict[str, str]:
    """Read ``field=column`` ...; raises UserError for entries of another form."""
    made = {}
    for entry in given or ():
        name, sign, column = entry.partition("=")
        if not (name and sign and column):
            raise UserError(f"--columns {entry!r}: write field=column")
        if name in made:
            raise UserError(f"--columns names '{name}' twice; give it one column")
        made[name] = column
    return made
