"""Starts: what virtual tokens, or keys and values, are before the first step of training."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.tasks.base import Bound
from foreword.tasks.templates.demonstrations import choose_demonstrations

STARTS = ("random", "vocabulary", "text", "labels", "demonstrations")
PREFIX_STARTS = (*STARTS, "zero")
"""Starts by name, those of a prefix with one more; any other is the path of a prompt, or of a
folder of them (start_from_prompt.py)."""

USUAL = 20
"""Virtual tokens or positions, where neither a length nor a text says how many."""


def check_start(start: str, text: str | None, known: Sequence[str] = STARTS) -> None:
    """Raise UserError for an unknown start, or a text that the start would not use."""
    if start not in known and not os.path.exists(start):
        raise UserError(
            f"unknown start '{start}'; {nearest(start, known)}, or the path of a prompt or of a "
            "folder of prompts"
        )
    if text is not None and start != "text":
        raise UserError(f"a starting text is given but the start is '{start}'; use start 'text'")


def start_ids(
    start: str,
    task: Bound,
    rows: Sequence[Row],
    *,
    length: int | None,
    text: str | None,
    shots: int | None,
    seed: int,
    inside: bool = False,
) -> tuple[list[int], int]:
    """Return the real tokens to start from, for every start but "random", and ``Injection.bos``.

    ``vocabulary``: tokens drawn at random (Lester et al. 2021, section 3.2). ``text``: the text
    given, or the task's own description. ``labels``: the words of the labels (ibid., "class
    label"). ``demonstrations``: ``shots`` rows with their answers, spread over the classes (Li
    and Liang 2021, section 6.5, start from real words). With ``length``, text is repeated to at
    least that many tokens and its last ones are kept, so that whole demonstrations stand next to
    the row; without, all of it is used.

    The tokenizer's first tokens stand in front alone, also of a text that is cut, and rows of a
    causal model go without theirs. Models of other architectures number the positions of a row
    from 0: their rows keep them, and a text that is cut has none. ``inside`` a row there are none.
    """
    chance = random.Random(seed)
    tokens = task.backbone.text
    if start == "vocabulary":
        special = set(tokens.tokenizer.all_special_ids)
        known = min(len(tokens.tokenizer), task.backbone.vocabulary)
        plain = [i for i in range(known) if i not in special]
        return chance.choices(plain, k=length or USUAL), 0
    if start == "text":
        source = task.instruction() if text is None else text
    elif start == "labels":
        source = task.label_text()
        if not source:
            raise UserError("start 'labels' needs a task with labels; use 'text'")
    else:
        source = "".join(map(task.demonstration, choose_demonstrations(task, rows, shots, seed)))
    own = tokens.body(source)
    if not own:
        raise UserError(f"start '{start}': the text is empty; give `start_text`")
    causal = task.backbone.is_causal
    first = () if inside or task.begun else tokens.around[0]
    if length is not None:
        least = len(first) + (1 if causal else len(own))
        first = first if length >= least else ()
        rest = length - len(first)
        own = (own * -(-rest // len(own)))[-rest:]
    return [*first, *own], len(first) if causal else 0
