"""Candidates of a ranking: a row's list, or one drawn from a catalogue."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from foreword.data.lists import listed
from foreword.data.row import Row, kind
from foreword.data.text_fields import check_text
from foreword.errors import UserError, nearest
from foreword.grammar import counted


@dataclass(frozen=True)
class Candidates:
    """The texts that a row ranks, and the indices of the right ones."""

    texts: tuple[str, ...]
    right: frozenset[int]


def candidates_of(row: Row, catalogue: Sequence[str], negatives: int, seed: int = 0) -> Candidates:
    """Return a row's candidates, given or drawn from the catalogue, and the right ones.

    The draw depends on the row and the seed alone, so that every method gets the same.

    Raises UserError, ``FILE:LINE: ...``, for a list of one, repeated candidates, and an
    answer that is not among them.
    """
    given = listed(row, "candidates") if "candidates" in row.fields else None
    answer = row.fields.get("answer")
    if isinstance(given, list) and isinstance(answer, str) and answer not in given:
        answer = listed(row, "answer")
    if given is None:
        return _from_catalogue(row, answer, catalogue, negatives, seed)
    if not isinstance(given, list) or not all(isinstance(c, str) and c.strip() for c in given):
        raise UserError(
            f'{row.where}: field "candidates" is {kind(given)}, expected a list of texts; '
            "write it as one, without empty texts"
        )
    for number, text in enumerate(given):
        check_text(row, f"candidates[{number}]", text)
    if len(given) < 2:
        raise UserError(
            f"{row.where}: {counted(len(given), 'candidate')} to choose from; give two or more"
        )
    if len(set(given)) < len(given):
        twice = next(text for text in given if given.count(text) > 1)
        raise UserError(f"{row.where}: the candidate {twice!r} is there twice; remove one")
    if answer == []:
        raise UserError(f'{row.where}: field "answer" is an empty list; give the right candidate')
    right = answer if isinstance(answer, list) else [] if answer is None else [answer]
    return Candidates(tuple(given), frozenset(_index(each, given, row.where) for each in right))


def _from_catalogue(
    row: Row, answer: object, catalogue: Sequence[str], negatives: int, seed: int
) -> Candidates:
    if not catalogue:
        raise UserError(f"{row.where}: missing field 'candidates'; give a list of texts")
    if answer is None:
        return Candidates(tuple(catalogue), frozenset())
    if not isinstance(answer, str) or not answer.strip():
        raise UserError(
            f'{row.where}: field "answer" is {kind(answer)}, expected text where there are no '
            "candidates; write it as one string"
        )
    chance = random.Random(f"{seed}/{row.fields.get('history')}/{answer}")
    others = [text for text in catalogue if text != answer]
    texts = [answer, *chance.sample(others, min(negatives, len(others)))]
    if len(texts) < 2:
        raise UserError(
            f"{row.where}: the catalogue has nothing but its answer; give rows with others"
        )
    chance.shuffle(texts)
    return Candidates(tuple(texts), frozenset([texts.index(answer)]))


def _index(answer: object, candidates: Sequence[str], where: str) -> int:
    """Return the index of a right candidate, which is given as a text or as that index.

    Tables hold an index as text or as a float too.
    """
    if answer in candidates:
        return candidates.index(str(answer))
    if not re.fullmatch(r"-?\d{1,9}(\.0)?", str(answer)):
        hint = nearest(str(answer), candidates)
        raise UserError(f"{where}: the answer {answer!r} is not among the candidates; {hint}")
    index = int(str(answer).removesuffix(".0"))
    if not 0 <= index < len(candidates):
        raise UserError(
            f"{where}: answer {answer} is no index of {len(candidates)} candidates, which count "
            "from 0"
        )
    return index
