"""Regularisers: each against the same thing written out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import get_scheduler

import contract
from families import REACHED, backbone
from foreword.backbone.example import POOLED, Example
from foreword.engine.mixup import Mix
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.injection import KV, ClassHead, Injection, Mixture
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from foreword.training.regularise import (
    TEMPERATURE,
    Anchor,
    contrast,
    dropped,
    in_pairs,
    without_words,
)
from foreword.training.settings import Training
from foreword.training.tune import tune
from oracles import get
from quick import first

LLAMA = next(family for family in REACHED if family.name == "llama")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Dropout ---------------------------------------------------------------------------------------


def whole(positions: int = 40) -> Injection:
    kv = {name: KV(torch.randn(2, positions, 4), torch.randn(2, positions, 4)) for name in "ab"}
    return Injection(kv=kv, positions=positions, head=ClassHead(torch.ones(2, 4), torch.zeros(2)))


def test_dropped_positions_are_the_same_in_all_layers_and_rows_stay_where_they_were() -> None:
    before = whole()
    after = dropped(before, 0.5, chance())
    assert isinstance(after, Injection)
    assert after.positions == 40
    assert after.head is before.head
    stay = torch.rand(40, generator=chance()) >= 0.5
    assert 5 < int(stay.sum()) < 35
    for name, own in before.kv.items():
        assert torch.equal(after.kv[name].keys, own.keys[:, stay])
        assert torch.equal(after.kv[name].values, own.values[:, stay])


def test_leading_tokens_close_up_and_others_become_zero() -> None:
    embeds = torch.randn(40, 4)
    stay = torch.rand(40, generator=chance()) >= 0.25
    lead = dropped(Injection(embeds=embeds, leading=40), 0.25, chance())
    assert isinstance(lead, Injection)
    assert lead.embeds is not None
    assert torch.equal(lead.embeds, embeds[stay])
    assert lead.leading == int(stay.sum())
    placed = dropped(Injection(embeds=embeds), 0.25, chance())
    assert isinstance(placed, Injection)
    assert placed.embeds is not None
    assert torch.equal(placed.embeds, embeds * stay[:, None])


def test_one_always_stays_and_mixtures_are_dropped_part_by_part() -> None:
    for seed in range(20):
        mixture = dropped(Mixture((whole(1), whole(3)), (1, 0)), 0.99, chance(seed))
        assert isinstance(mixture, Mixture)
        assert list(mixture.rows) == [1, 0]
        assert [part.kv["a"].keys.shape[1] >= 1 for part in mixture.parts] == [True, True]
        assert mixture.parts[0].kv["a"].keys.shape[1] == 1


def test_gradients_reach_what_stays_alone() -> None:
    start = torch.randn(2, 30, 4, requires_grad=True)
    made = dropped(Injection(kv={"a": KV(start, start)}, positions=30), 0.5, chance())
    assert isinstance(made, Injection)
    made.kv["a"].keys.sum().backward()
    stay = torch.rand(30, generator=chance()) >= 0.5
    assert start.grad is not None
    assert torch.equal(start.grad, torch.ones(2, 30, 4) * stay[None, :, None])


# L2 to the start -------------------------------------------------------------------------------


def test_the_pull_is_the_gradient_of_the_penalty() -> None:
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    anchor = Anchor([parameter], 0.3)
    start = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(torch.randn(5))
    penalty = 0.3 / 2 * (parameter - start).square().sum() + parameter.sin().sum()
    (expected,) = torch.autograd.grad(penalty, parameter)
    parameter.sin().sum().backward()
    anchor.pull()
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, expected)


def tuned(tmp_path: Path, method: object, training: Training, name: str = "p") -> Injection:
    base = backbone(LLAMA)
    task = contract.task_on(base)
    rows = contract.ROWS * 3
    return tune(base, task, method, rows, contract.ROWS, training=training).injection  # type: ignore[arg-type]


def test_a_strong_pull_holds_a_prompt_near_its_start(tmp_path: Path) -> None:
    method = Prefix(length=3, start="random")
    start = contract.built(method, backbone(LLAMA))[1]()
    moved = {}
    for strength in (0.0, 100.0):
        training = Training(epochs=3, batch_size=4, rate=1e-2, l2_start=strength, clip=1e9)
        made = tuned(tmp_path, method, training)
        far = [(a - b).square().sum() for (_, a), (_, b) in
               zip(made.tensors(), start.tensors(), strict=True)]  # fmt: skip
        moved[strength] = float(torch.stack(far).sum().detach())
    assert moved[100.0] < 0.7 * moved[0.0]


# Label smoothing -------------------------------------------------------------------------------


def test_smoothed_labels_are_those_of_torch() -> None:
    base = backbone(LLAMA)
    plain = contract.task_on(base)
    smooth = Classify(template=plain.template, labels=plain.labels, label_smoothing=0.2).bind(base)
    _, trainable = contract.built(Soft(length=3), base)
    room = room_for(base, trainable())
    items = [smooth.train_example(row, room) for row in contract.ROWS]
    injection = trainable()
    states = base.states([item.example for item in items], injection)
    logits = base.logits(states, smooth.tokens)
    scores = smooth.verbalizer.scores(logits, [item.example for item in items])
    gold = torch.tensor([item.gold for item in items])
    expected = F.cross_entropy(scores, gold, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(smooth.losses(logits, items), expected)


def test_smoothed_completions_are_scored_without_it() -> None:
    base = backbone(LLAMA)
    rows = [contract.Row({"text": "a good", "completion": "film and"}, "F:1")]
    found = []
    for share in (0.0, 0.3):
        task = Generate(template="{text} ", label_smoothing=share).bind(base)
        items = [task.train_example(row, 100) for row in rows]
        logits = base.logits(base.states([item.example for item in items]))
        target = torch.tensor(items[0].example.answers)
        expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=share)
        torch.testing.assert_close(task.losses(logits, items)[0], expected)
        found.append(task.dev_counts(logits, items)[0])
    assert found[0] == pytest.approx(found[1])


# Mixup -----------------------------------------------------------------------------------------


def test_mixed_rows_are_mixed_states_and_mixed_losses() -> None:
    base = backbone(LLAMA)
    task, trainable = contract.built(Head(), base)
    items = [task.train_example(row, 100) for row in contract.ROWS]
    examples = [item.example for item in items]

    def loss(group: list[int], logits: Tensor) -> Tensor:
        return task.losses(logits, [items[i] for i in group]).sum()

    found = differentiate(
        base, trainable, examples, (), 100, 1000, loss, tokens=task.tokens, mix=Mix(0.3, chance(3))
    )
    gradient = trainable.weight.grad
    with torch.no_grad():
        states = base.states(examples)
    order = sorted(range(len(items)), key=lambda i: (-examples[i].length, i))  # of the one pass
    partner = torch.randperm(len(items), generator=chance(3)).tolist()
    weight = trainable.weight.detach().clone().requires_grad_()
    expected = torch.zeros(())
    labels = sorted(contract.LABELS)
    for place, row in enumerate(order):
        other = order[partner[place]]
        blended = 0.3 * states[row] + 0.7 * states[other]
        scores = F.log_softmax(weight @ blended + trainable.bias.detach(), 0)
        names = [str(contract.ROWS[i].fields["label"]) for i in (row, other)]
        expected = expected - 0.3 * scores[labels.index(names[0])]
        expected = expected - 0.7 * scores[labels.index(names[1])]
    expected.backward()
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, weight.grad)


def test_shares_are_drawn_from_beta() -> None:
    drawn = torch.tensor([Mix.draw(0.4, chance(seed)).share for seed in range(400)])
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(drawn.var()) == pytest.approx(0.25 / 1.8, abs=0.03)  # 1 / (4 (2 alpha + 1))


def test_words_of_several_tokens_cannot_be_mixed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`mixup` .* labels of one token, or use a head"):
        tuned(tmp_path, Soft(length=3), Training(epochs=1, mixup=0.4))


# Contrast --------------------------------------------------------------------------------------


def test_rows_are_compared_as_written_out_by_hand() -> None:
    states = torch.randn(6, 4, generator=chance(1), dtype=torch.float64)
    labels = [0, 1, 0, 2, 1, 0]
    found = contrast(states, labels)
    for row in range(6):
        others = [n for n in range(6) if n != row]
        cosines = {n: F.cosine_similarity(states[row], states[n], dim=0) for n in others}
        whole = torch.stack([torch.exp(c / TEMPERATURE) for c in cosines.values()]).sum()
        own = [n for n in others if labels[n] == labels[row]]
        each = [torch.log(torch.exp(cosines[n] / TEMPERATURE) / whole) for n in own]
        expected = -sum(each) / len(own) if own else 0.0
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)
    alone = torch.ones(1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(contrast(alone, [0]).sum(), alone)
    assert not gradient.any()


def test_a_loss_on_states_is_added_with_its_gradient() -> None:
    base = backbone(LLAMA)
    task, trainable = contract.built(Soft(length=3), base)
    items = [task.dev_example(row, 100) for row in contract.ROWS]
    examples = [replace(item.example, targets=item.example.targets[:1]) for item in items]
    labels = [item.gold for item in items]
    found = differentiate(
        base, trainable, examples, (), 100, 1000, lambda group, logits: 0 * logits.sum(),
        on_states=lambda group, states: contrast(states, [labels[i] for i in group]).sum(),
    )  # fmt: skip
    (parameter,) = trainable.parameters()
    gradient = parameter.grad
    parameter.grad = None
    loss = contrast(base.states(examples, trainable()), labels).sum()
    loss.backward()
    assert found == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_pairs_stand_together_and_every_row_once() -> None:
    labels = [0, 1, 0, 2, 1, 0, 2, 2]
    order = in_pairs([5, 1, 3, 0, 7, 4, 2, 6], labels)
    assert order == (5, 0, 1, 4, 3, 7, 2, 6)


def test_rows_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`contrastive` compares rows that have one label"):
        tuned(tmp_path, Soft(length=3), Training(contrastive=1.0))
    with pytest.raises(UserError, match="mixup mixes the rows that contrastive compares"):
        Training(contrastive=1.0, mixup=0.1).check()


# Words -----------------------------------------------------------------------------------------


def test_words_are_left_out_of_a_row_and_its_ends_stay() -> None:
    row = Example((1, 5, 6, 7, 8, 2), 6, ((),), ((0, POOLED),))
    seen: dict[int, int] = {}
    for seed in range(300):
        made = without_words(row, 0.3, chance(seed))
        assert made.ids[0] == 1
        assert made.ids[-1] == 2
        assert len(made.ids) > 2
        assert list(made.ids) == [*sorted(made.ids[:-1]), 2]
        assert set(made.ids) <= set(row.ids)
        assert made.slot == len(made.ids)
        assert made.targets == row.targets
        for token in made.ids[1:-1]:
            seen[token] = seen.get(token, 0) + 1
    assert all(170 < count < 250 for count in seen.values())
    assert without_words(row, 0.999, chance(0)).length == 3
    short = Example((1, 2), 2, ((),), ((0, POOLED),))
    assert without_words(short, 0.9, chance(0)) == short


def test_words_are_left_out_of_whole_rows_alone(tmp_path: Path) -> None:
    training = Training(epochs=1, batch_size=3, rate=1e-2, word_dropout=0.5)
    with pytest.raises(UserError, match="`word_dropout` leaves out tokens of rows that are read"):
        tuned(tmp_path, Soft(length=3), training)
    head = Several((Prefix(length=2), Head()))
    task, rows = Classify(template="{text}"), contract.ROWS * 2
    made = [
        dict(tune(get("bert-encoder"), task, head, rows, rows, training=each, report=SILENT)
             .injection.tensors())
        for each in (training, training, replace(training, word_dropout=0.0))
    ]  # fmt: skip
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not all(torch.equal(made[0][name], made[2][name]) for name in made[0])


# In a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "training",
    first(
        3,
        [
            Training(dropout=0.3),
            Training(mixup=0.4),
            Training(contrastive=1.0),
            Training(l2_start=0.1),
            Training(schedule="inverse-sqrt"),
            Training(schedule="plateau"),
        ],
    ),
    ids=str,
)
def test_runs_repeat_and_differ_from_those_without(tmp_path: Path, training: Training) -> None:
    head = Head(rate=1e-2, head_start="random")
    method = head if training.mixup or training.contrastive else Soft(length=4)
    shorter = replace(training, epochs=2, batch_size=3)
    one, two = (dict(tuned(tmp_path, method, shorter).tensors()) for _ in range(2))
    none = dict(tuned(tmp_path, method, Training(epochs=2, batch_size=3)).tensors())
    assert all(torch.equal(one[name], two[name]) for name in one)
    if training.schedule != "plateau":  # which begins as the others do, and the best may be there
        assert not all(torch.equal(one[name], none[name]) for name in one)


@pytest.mark.parametrize(
    ("training", "why"),
    [
        (Training(dropout=1.0), "dropout is 1.0; give a probability"),
        (Training(mixup=-1.0), "mixup is -1.0"),
        (Training(l2_start=-0.1), "l2_start is -0.1"),
        (Training(schedule="linaer"), "setting 'schedule' is 'linaer'; did you mean 'linear'"),  # type: ignore[arg-type]
    ],
)
def test_values_out_of_range(training: Training, why: str) -> None:
    with pytest.raises(UserError, match=why):
        training.check()


def test_smoothing_out_of_range() -> None:
    base = backbone(LLAMA)
    for task in (
        Classify(template="{text}", labels=contract.LABELS, label_smoothing=1.0),
        Generate(template="{text}", label_smoothing=-0.1),
    ):
        with pytest.raises(UserError, match=r"label_smoothing is .*; give a share"):
            task.bind(base)


# Schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rising", [0, 1, 5, 50])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("inverse-sqrt", "inverse_sqrt"),
        ("constant", "constant_with_warmup"),
    ],
)
def test_schedules_are_those_of_transformers(ours: Any, theirs: str, rising: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = 50
    plan = get_scheduler(theirs, optimizer, rising, steps)
    training = Training(schedule=ours, warmup=rising / steps)
    for step in range(steps):
        assert training.factor(step, steps) == pytest.approx(plan.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        plan.step()


def test_a_plateau_halves() -> None:
    training = Training(schedule="plateau", warmup=0.1)
    assert [training.factor(20, 50, halved) for halved in (0, 1, 3)] == [1.0, 0.5, 0.125]
    assert Training(schedule="constant").factor(20, 50, 3) == 1.0
