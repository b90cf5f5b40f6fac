"""Search for label words: those that the frozen model predicts for the training rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.templates.layout import room_for

TRIALS = 20_000
"""The most combinations to try exhaustively; beyond it words are improved label by label."""

Progress = Callable[[int], None]
"""Is told how many more rows are read."""

TOP = 100
"""The most words to consider per label; fewer if there are too many combinations."""


def search_label_words(
    task: Classifier, rows: Sequence[Row], progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Return one word per label by LM-BFF's search with the frozen model.

    Gao et al. 2021, arXiv:2012.15723, section 5.1: for each label the words of the highest
    ``sum log p(word | row)`` over its rows, then the combination that labels the most rows rightly;
    of equal ones that with the most likely labels. Words are single tokens of letters. Raises
    UserError for a label without rows, and where no such words are found.
    """
    gold = torch.tensor([task.labels.index(str(task.class_of(row))) for row in rows])
    examples = [opening(task, row) for row in rows]
    sums: dict[int, Tensor] = {}
    for group, logits in infer(task.backbone, NOTHING, examples):
        scores = F.log_softmax(logits.float(), 1).cpu()
        for index, row in zip(group, scores, strict=True):
            label = int(gold[index])
            sums[label] = sums[label] + row if label in sums else row
        progress(len(group))
    for number, name in enumerate(task.labels):
        if number not in sums:
            raise UserError(f"`verbalizer=search`: label '{name}' has no training row; add some")
    size = min(TOP, max(8, int(TRIALS ** (1 / task.classes))))
    words: dict[int, str] = {}
    lists = [_likeliest_words(task, sums[label], size, words) for label in range(task.classes)]
    tokens = tuple(sorted({token for own in lists for token in own}))
    if any(not own for own in lists) or len(tokens) < task.classes:
        raise UserError("`verbalizer=search`: the model has too few words of one token; name some")
    column = {token: n for n, token in enumerate(tokens)}
    table = torch.zeros(len(rows), len(tokens))
    for group, logits in infer(task.backbone, NOTHING, examples, tokens=tokens):
        table[group] = logits.float().cpu()
        progress(len(group))
    chosen = choose_words(table, gold, [[column[token] for token in own] for own in lists])
    return {label: (words[tokens[n]],) for label, n in zip(task.labels, chosen, strict=True)}


def choose_words(table: Tensor, gold: Tensor, lists: Sequence[Sequence[int]]) -> list[int]:
    """Choose a column for each label from its list, all different.

    ``table`` (rows, columns) holds scores, ``gold`` (rows,) the labels. All combinations are
    tried, or where they are more than ``TRIALS`` one label after the other, from those that
    differ most between the labels, until nothing changes.
    """

    def worth(chosen: Iterable[int]) -> tuple[int, float]:
        scores = table[:, list(chosen)]
        right = int((scores.argmax(1) == gold).sum())
        return right, -float(F.cross_entropy(scores, gold))

    count = 1
    for own in lists:
        count *= len(own)
    if count <= TRIALS:
        every = (c for c in itertools.product(*lists) if len(set(c)) == len(c))
        return list(max(every, key=worth))
    means = torch.stack([table[gold == n].mean(0) for n in range(len(lists))])
    chosen: list[int] = []
    for label, own in enumerate(lists):
        free = [n for n in own if n not in chosen] or [
            n for n in range(table.shape[1]) if n not in chosen
        ]
        chosen.append(max(free, key=lambda n: float(means[label, n] - means[:, n].mean())))
    while True:
        before = worth(chosen)
        for label, own in enumerate(lists):
            others = set(chosen[:label] + chosen[label + 1 :])
            tried = [[*chosen[:label], n, *chosen[label + 1 :]] for n in own if n not in others]
            chosen = max([chosen, *tried], key=worth)
        if worth(chosen) == before:
            return chosen


def refine_label_words(
    task: Classifier, rows: Sequence[Row], progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Return the words of each label that the model finds likely at the answer's position.

    After Hu et al. 2022, arXiv:2108.02035, section 3.3: of a word's probability on average over
    the rows, its contextualized prior, the lower half of all words is dropped; a label keeps its
    likeliest in any case. The prior of a word is that of its first token. Words that the tokenizer
    drops, or cannot tell from another label's, are dropped before.
    """
    paths = {(label, word): task.spell(word) for label, own in task.words.items() for word in own}
    owners: dict[tuple[int, ...], set[str]] = {}
    for (label, _), path in paths.items():
        owners.setdefault(path, set()).add(label)
    paths = {key: path for key, path in paths.items() if path and len(owners[path]) == 1}
    examples = [opening(task, row) for row in rows]
    prior = torch.zeros(task.backbone.vocabulary)
    for group, logits in infer(task.backbone, NOTHING, examples):
        prior += logits.float().softmax(1).sum(0).cpu()
        progress(len(group))
    start = len(_decoder_start(task))
    known = {key: float(prior[path[start]]) for key, path in paths.items()}
    least = sorted(known.values())[len(known) // 2] if known else 0.0
    kept_words: dict[str, tuple[str, ...]] = {}
    for label in task.labels:
        own = {word: p for (of, word), p in known.items() if of == label}
        if not own:
            raise UserError(
                f"`verbalizer=refine`: label '{label}' has no word of its own; give it others"
            )
        kept = tuple(word for word, p in own.items() if p >= least)
        kept_words[label] = kept or (max(own, key=lambda word: own[word]),)
    return kept_words


def opening(task: Classifier, row: Row) -> Example:
    """Return a row with a single target: where the frozen model begins to answer."""
    plain = task.without_prompt().with_head()
    example = plain.dev_example(row, room_for(task.backbone, NOTHING)).example
    start = _decoder_start(task)
    if not start:
        return example
    return replace(example, branches=(start,), targets=((0, len(start) - 1),))


def _decoder_start(task: Classifier) -> tuple[int, ...]:
    """Return the tokens with which the decoder of an encoder-decoder begins."""
    separate = task.backbone.has_two_stacks
    return tuple(task.backbone.text.around[0]) if separate else ()


def _likeliest_words(
    task: Classifier, scores: Tensor, size: int, words: dict[int, str]
) -> list[int]:
    """Return the likeliest tokens that are words of letters, and record their text in ``words``."""
    tokens: list[int] = []
    taken: set[str] = set()
    for token in scores.argsort(descending=True, stable=True).tolist():
        if len(tokens) == size:
            break
        word = word_of_token(task, token)
        if word is None or word.strip() in taken:
            continue
        words[token] = word
        tokens.append(token)
        taken.add(word.strip())
    return tokens


def word_of_token(task: Classifier, token: int) -> str | None:
    """Return the word of letters that a single token spells as an answer, or None."""
    text = task.backbone.text.decode([token]).strip()
    if not text.isalpha() or (text.isascii() and len(text) < 2):
        return None
    path = (*_decoder_start(task), token)
    return next((word for word in (f" {text}", text) if task.spell(word) == path), None)
