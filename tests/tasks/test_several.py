"""Several tasks as one objective: every row is learned and judged as its own task alone would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.objective import Encoded, Objective
from foreword.training.several_tasks import MixedObjective, Replay
from toys import TASK, get, rows

MOOD = Classify(template="{text} was", labels={"good": " film", "bad": (" a bad", " it")})
WRITE = Generate(template="{text} :")


def logits_of(task: Objective, items: list[Encoded]) -> Tensor:
    """The scores at the targets of rows, in the rows' order."""
    found: dict[int, Tensor] = {}
    examples = [item.example for item in items]
    for n, example in enumerate(examples):
        ((_, found[n]),) = infer(get(), NOTHING, [example], tokens=task.tokens)
    return torch.cat([found[n] for n in range(len(items))])


@pytest.mark.parametrize("other", [MOOD, WRITE], ids=["classify", "generate"])
@pytest.mark.parametrize("kind", ["train", "dev"])
def test_losses_and_scores_are_those_of_each_task_alone(
    other: Classify | Generate, kind: str
) -> None:
    alone = [TASK.bind(get()), other.bind(get())]
    whole = MixedObjective(alone)
    given = [replace(row, task=n % 3 == 1) for n, row in enumerate(rows(7))]
    given = [replace(row, task=int(row.task)) for row in given]
    made = [getattr(whole, f"{kind}_example")(row, 500) for row in given]
    assert [item.task for item in made] == [0, 1, 0, 0, 1, 0, 0]
    logits = logits_of(whole, made)
    losses = whole.losses(logits, made) if kind == "train" else torch.zeros(7)
    score, weight = whole.dev_counts(logits, made) if kind == "dev" else (0.0, 0)
    expected, total, count = torch.zeros(7), 0.0, 0
    for n, row in enumerate(given):
        task = alone[row.task]
        item = getattr(task, f"{kind}_example")(row, 500)
        own = logits_of(task, [item])
        if kind == "train":
            expected[n] = task.losses(own, [item])[0]
            assert whole.units(made[n]) == task.units(item)
        else:
            part, of = task.dev_counts(own, [item])
            total, count = total + part, count + of
    torch.testing.assert_close(losses, expected)
    assert score == pytest.approx(total, rel=1e-5)
    assert weight == count


def test_the_tokens_are_those_of_all_tasks_or_all_there_are() -> None:
    one, two = TASK.bind(get()), MOOD.bind(get())
    assert MixedObjective([one, two]).tokens == tuple(sorted({*one.tokens, *two.tokens}))  # type: ignore[misc]
    assert MixedObjective([one, WRITE.bind(get())]).tokens is None
    assert MixedObjective([one, two]).metric == "accuracy"
    assert MixedObjective([one, WRITE.bind(get())]).metric == "score"


def test_a_replay_s_share_is_that_of_the_epoch() -> None:
    old = [Row({"text": "a"}, "")]
    assert Replay(TASK, old, 0.2).counts(40) == {"new": 40, "old": 10}
    assert Replay(TASK, old, 0.5).counts(3) == {"new": 3, "old": 3}
    assert Replay(TASK, old, 0.01).counts(3) == {"new": 3, "old": 1}
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(UserError, match=r"`replay_share=.*`: give a share above 0 and below"):
            Replay(TASK, old, share).counts(3)
