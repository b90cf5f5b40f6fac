"""AutoPrompt's label words: those that a classifier of hidden states assigns to a label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.search import Progress, opening, word_of_token

WORDS_PER_LABEL = 3
"""The most words of a label."""

SCORES_AT_ONCE = 2**24
"""The most scores computed at once while the LM head's inputs are captured."""


def autoprompt(
    task: Classifier, rows: Sequence[Row], progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Return up to ``WORDS`` words a label, by AutoPrompt's two steps.

    Shin et al. 2020, arXiv:2010.15980, section 2.3: a logistic classifier learns a row's label from
    what the output embeddings meet at the answer's place, and is then given those embeddings
    instead, one a word. Words are single tokens of letters, and none stands for two labels. Raises
    UserError for a label without rows, too few words, and a model without such states.
    """
    gold = [task.labels.index(str(task.class_of(row))) for row in rows]
    for number, name in enumerate(task.labels):
        if number not in gold:
            raise UserError(
                f"`verbalizer=autoprompt`: label '{name}' has no training row; add some"
            )
    examples = [opening(task, row) for row in rows]
    states = torch.cat(states_of(task.backbone, NOTHING, examples, progress))
    inner, table = _lm_head_inputs(task.backbone, states)
    return assign_words(task, log_odds(directions(inner, gold), table))


def _lm_head_inputs(backbone: Backbone, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return the LM head's inputs and its weight matrix: (N, inner), (vocabulary, inner)."""
    inputs, table = [], None
    for part in torch.split(states, max(1, SCORES_AT_ONCE // backbone.vocabulary)):
        captured = backbone.lm_head_inputs(part.to(backbone.device))
        if captured is None:
            raise UserError(
                f"`verbalizer=autoprompt`: {backbone.name} does not score words by a product with "
                "its output embeddings; use `verbalizer` search"
            )
        inputs.append(captured[0].double().cpu())
        table = captured[1]
    assert table is not None
    return torch.cat(inputs), table.double().cpu()


def directions(states: Tensor, gold: Sequence[int]) -> Tensor:
    """Return the weights of a logistic classifier of states: (N, width), N labels -> (K, width).

    States are centred and brought to one size, so that its L2 penalty means the same everywhere.
    """
    from sklearn.linear_model import LogisticRegression

    centred = states - states.mean(0)
    size = float(centred.square().sum(1).mean().sqrt()) or 1.0
    model = LogisticRegression(max_iter=10_000).fit((centred / size).numpy(), list(gold))
    weight = torch.from_numpy(model.coef_)
    return torch.cat([-weight, weight]) / 2 if len(weight) == 1 else weight


def log_odds(weight: Tensor, table: Tensor) -> Tensor:
    """Return the log odds of each label for each word: (K, width), (V, width) -> (K, V).

    They order words as the probability does, and do not run out of digits near one. Words are
    taken less their mean, in place of the classifier's bias, which is for states of another size;
    and at one length, or rare pieces of words come first (seen on SmolLM2 and SST-2).
    """
    scores = weight @ F.normalize(table - table.mean(0), dim=1).T
    others = [torch.cat([scores[:n], scores[n + 1 :]]).logsumexp(0) for n in range(len(scores))]
    return scores - torch.stack(others)


def assign_words(task: Classifier, odds: Tensor) -> dict[str, tuple[str, ...]]:
    """Assign words to labels, the most certain first, until every label is full.

    A label keeps words that speak for it more than for any other, and one word in any case.
    """
    words: list[list[str]] = [[] for _ in task.labels]
    best = odds.argmax(0).tolist()
    known: dict[int, str | None] = {}
    taken: set[str] = set()
    for place in odds.flatten().argsort(descending=True, stable=True).tolist():
        label, token = divmod(place, len(best))
        of_label = words[label]
        if len(of_label) == WORDS_PER_LABEL or (of_label and best[token] != label):
            continue
        if token not in known:
            known[token] = word_of_token(task, token)
        word = known[token]
        if word is None or word.strip() in taken:
            continue
        of_label.append(word)
        taken.add(word.strip())
        if all(len(each) == WORDS_PER_LABEL for each in words):
            break
    if not all(words):
        raise UserError(
            "`verbalizer=autoprompt`: the model has too few words of one token; name some"
        )
    return {label: tuple(of_label) for label, of_label in zip(task.labels, words, strict=True)}
