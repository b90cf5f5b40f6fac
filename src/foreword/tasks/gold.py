"""What a row says is right: labels, tags, answers, an order, turns; read and checked by its fields.

Nothing large is imported here: rows are checked by this without a model too (rules.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.data.lists import listed, parsed
from foreword.data.row import Row, kind
from foreword.data.shapes import require
from foreword.data.text_fields import check_text
from foreword.errors import UserError, nearest
from foreword.metrics.bio import follows, is_bio
from foreword.metrics.words import half_width
from foreword.tasks.words import COMMAS


def check_label(row: Row, label: str, names: Sequence[str]) -> None:
    """Raise UserError for a label that is not among the names."""
    if label not in names:
        raise UserError(
            f"{row.where}: unknown label '{label}'; {nearest(label, names)}; "
            f"mend the row, or name the label in `labels`"
        )


def labels_of(row: Row, field: str) -> list[str]:
    """Return a row's labels, of a list or of one text with commas; UserError for anything else.

    A list may be written as text, as pandas and JSON do.
    """
    given = listed(row, field) if field in row.fields else None
    if isinstance(given, str):
        return [part.strip() for part in COMMAS.split(given) if part.strip()]
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        missing = field not in row.fields
        what = "is missing" if missing else f"is {kind(given)}"
        if isinstance(given, list):
            what = "holds what is no text"
        raise UserError(f'{row.where}: field "{field}" {what}; give a list of labels, or []')
    for number, label in enumerate(given):
        check_text(row, f"{field}[{number}]", label)
    return list(given)


def check_labels(row: Row, field: str, none: str, names: Sequence[str] = ()) -> None:
    """Raise UserError unless the labels are a list without repeats, of ``names`` if there are any.

    ``none`` stands for no label at all.
    """
    given = labels_of(row, field)
    for label in given:
        if label == none:
            raise UserError(
                f"{row.where}: unknown label '{label}', which stands for no label at all; "
                "write [] in its place, or name another with `none`"
            )
        if names:
            check_label(row, label, names)
        if given.count(label) > 1:
            raise UserError(f"{row.where}: label '{label}' stands twice; leave one out")


def texts_of(row: Row, field: str) -> list[str]:
    """Return a row's words or tags, from a list or a text; UserError for anything else."""
    if field not in row.fields:
        raise UserError(f"{row.where}: missing field '{field}'; it has {', '.join(row.fields)}")
    given = listed(row, field)
    if isinstance(given, str):
        given = given.split()
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        what = "holds what is no text" if isinstance(given, list) else f"is {kind(given)}"
        raise UserError(f'{row.where}: field "{field}" {what}; give a list of texts')
    if not given:
        raise UserError(f'{row.where}: field "{field}" is empty; fill it or remove the row')
    return given


def tags_of(row: Row, field: str) -> list[str]:
    """Return a row's tags; raises UserError for blank ones too."""
    tags = texts_of(row, field)
    for number, tag in enumerate(tags):
        check_text(row, f"{field}[{number}]", tag)
    return tags


def check_tags(row: Row, tokens: str, field: str, names: Sequence[str] = ()) -> None:
    """Raise UserError for empty words, and for unknown, invalid, missing or extra tags.

    Without ``names`` all are known.
    """
    words, tags = words_in(row, tokens), tags_of(row, field)
    if len(tags) != len(words):
        raise UserError(
            f"{row.where}: {len(words)} words and {len(tags)} tags; give every word one tag"
        )
    before, bio = "O", is_bio(names)
    for number, tag in enumerate(tags, 1):
        if names:
            check_label(row, tag, names)
        if bio and not follows(before, tag):
            raise UserError(
                f"{row.where}: tag {number} is '{tag}' after '{before}'; a span begins with "
                f"'B-{tag[2:]}'"
            )
        before = tag


def words_in(row: Row, tokens: str) -> list[str]:
    """Return the words of a sentence; raises UserError for empty ones."""
    words = texts_of(row, tokens)
    for number, word in enumerate(words, 1):
        if not word.strip():
            raise UserError(f"{row.where}: word {number} is empty; remove it with its tag")
    return words


def answers_of(row: Row) -> list[str]:
    """Return a row's answers: a list of texts, or one text; or SQuAD's objects with a ``text``.

    Raises UserError, ``FILE:LINE: ...``, where there are none.
    """
    if "answers" not in row.fields:
        hint = nearest("answers", row.fields)
        raise UserError(f"{row.where}: missing field 'answers'; {hint}")
    given = row.fields["answers"]
    written = parsed(given) if isinstance(given, str) else None
    if isinstance(written, Mapping) or (written and not isinstance(written[0], int | float)):
        given = written
    given = given.get("text") if isinstance(given, Mapping) else given
    answers = [given] if isinstance(given, str) else given
    if isinstance(answers, list):
        answers = [each.get("text") if isinstance(each, Mapping) else each for each in answers]
    listed = answers if isinstance(answers, list | tuple) else ()
    wrong = "write it as one" if listed is not answers else ""
    for each in listed:
        if not isinstance(each, str):
            wrong = f"it holds {kind(each)}; write that as text"
    if wrong:
        raise UserError(
            f'{row.where}: field "answers" is {kind(row.fields["answers"])}, expected a list of '
            f"texts; {wrong}"
        )
    kept = [each for each in listed if each.strip()]
    if not kept:
        raise UserError(f'{row.where}: field "answers" is empty; fill it or remove the row')
    return kept


def found_in(row: Row) -> list[str]:
    """Return the answers of a row that occur in its passage, as they are written there.

    Whether a sign has its full-width form does not count: "12%" is found where "１２％" stands.
    """
    passage = str(row.fields["context"])
    plain, found = half_width(passage), list[str]()
    for each in answers_of(row):
        if each in passage:
            found.append(each)
        elif (at := plain.find(half_width(each))) >= 0:
            found.append(passage[at : at + len(each)])
    return found


def check_in_passage(row: Row) -> None:
    """Raise UserError for a row no answer of which is in its passage."""
    require([row], ["context"])
    if not found_in(row):
        raise UserError(
            f"{row.where}: the answer {answers_of(row)[0]!r} is not in the passage; mend the row, "
            "or use `task=generate`"
        )


def check_ends(row: Row, text: str, *ends: str) -> None:
    """Raise UserError if a text's head or tail is missing, or does not occur in it."""
    require([row], [text, *ends])
    for name in ends:
        if str(row.fields[name]) not in str(row.fields[text]):
            raise UserError(
                f"{row.where}: {name} {str(row.fields[name])!r} does not occur in the text; "
                "write it as it stands there"
            )


def learned_turns(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return which messages are learned: the assistant's, but for those of ``weight`` 0."""
    return [
        number
        for number, turn in enumerate(messages)
        if turn["role"] == "assistant" and turn.get("weight") != 0
    ]


def check_learned(row: Row, *, every: bool) -> None:
    """Raise UserError for a conversation whose turns to learn are all of ``weight`` 0.

    These are the last one, or ``every`` turn of the assistant.
    """
    messages = row.fields["messages"]
    own = learned_turns(messages)
    if not (own if every else len(messages) - 1 in own):
        raise UserError(
            f"{row.where}: nothing is left to learn, since "
            + ("every turn of the assistant has" if every else "the last turn has")
            + " weight 0; remove the row"
            + ("" if every else ", or learn the other turns with `turns` all")
        )
