"""Words that agree with others: one row, two rows; a row, an answer."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun; ``many`` is that of any other number, else ``one`` with an s.

    >>> counted(1, "dev row"), counted(2, "dev row"), counted(2, "class", "classes")
    ('1 dev row', '2 dev rows', '2 classes')
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def is_are(count: int) -> str:
    """Return "is" for one, and "are" for any other number."""
    return "is" if count == 1 else "are"


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article, by its first letter.

    >>> with_article("causal model"), with_article("encoder model")
    ('a causal model', 'an encoder model')
    """
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
