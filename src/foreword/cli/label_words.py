"""A file of label words: many words a label, from a dictionary or a knowledge base."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from foreword.errors import UserError
from foreword.tasks.words import COMMAS, as_word


def file_of_labels(labels: Any) -> Path | None:
    """Return the path in ``@PATH``, given alone in place of labels."""
    alone = labels[0] if isinstance(labels, list | tuple) and len(labels) == 1 else labels
    return Path(alone[1:]) if isinstance(alone, str) and alone[1:] and alone[0] == "@" else None


def read_label_words(path: Path) -> dict[str, list[str]]:
    """Read labels and their words from YAML or JSON, a list or ``word, word`` a label.

    A word gets a space in front where it has none, and one that a label has twice stands once;
    one that several labels have is left out. Raises UserError, with the line where there is one,
    for a file of another form and a label without words of its own.
    """
    from foreword.cli.yaml_file import parse_yaml  # it takes its time, and help needs none

    try:
        read = parse_yaml(path.read_text("utf-8-sig"), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it so") from None
    if not isinstance(read, dict):
        raise UserError(f"{path}: is no list of label words; write lines of label: word, word")
    made: dict[str, list[str]] = {}
    for label, given in read.items():
        own = COMMAS.split(given) if isinstance(given, str) else given
        if not isinstance(own, list):
            raise UserError(
                f"{path}: label '{label}': write label: word, word; put true, false and numbers in "
                "quotes"
            )
        if not all(isinstance(word, str) for word in own):
            wrong = next(word for word in own if not isinstance(word, str))
            raise UserError(f"{path}: label '{label}' has the word {wrong!r}; put it in quotes")
        words = [as_word(word.strip()) for word in own if word.strip()]
        made[label] = list(dict.fromkeys(words))
    every = Counter(word for own in made.values() for word in own)
    for label, own in made.items():
        made[label] = [word for word in own if every[word] == 1]
        if not made[label]:
            raise UserError(f"{path}: label '{label}' has no word of its own; give it one")
    return made
