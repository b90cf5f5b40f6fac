"""What the rows of a step see of a context: not their own demonstration, nor what is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contexts import CARRIED, ROWS, SHOWN, bound, built, chance, length, owned, without
from torch import Tensor

import contract
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.engine.passes import differentiate, infer
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.base import Method
from foreword.methods.context import Context, ShownDemonstrations
from foreword.methods.ptuning import PTuning
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from oracles import get
from toys import Lines, Recorder, toy_run
from toys import rows as toy_rows

# What rows see --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_a_row_sees_all_but_its_own_demonstration(name: str) -> None:
    """Loss and gradients are those of each row alone, under a prefix made without it."""
    base, task, made = get(name), bound(name), built(SHOWN, name)
    owner = {row: own[0] for row, own in enumerate(made.hidden) if own}
    assert sorted(owner.values()) == [0, 1, 2]
    chosen = [*owner, next(n for n, own in enumerate(made.hidden) if not own), 0, 1]
    room = room_for(base, made())
    items = [task.train_example(ROWS[n], room) for n in chosen]

    def gradient(make: Any, of: list[int]) -> tuple[float, list[Tensor]]:
        made.zero_grad(set_to_none=True)
        total = differentiate(
            base,
            make,
            [items[i].example for i in of],
            (),
            max(items[i].example.length for i in of),
            1000,
            lambda group, logits: task.losses(logits, [items[of[i]] for i in group]).sum(),
            tokens=task.tokens,
        )
        return total, [p.grad.clone() for p in made.parameters() if p.grad is not None]

    found, gradients = gradient(lambda: made.training_on(chosen, chance()), [*range(len(chosen))])
    expected, sums = 0.0, [torch.zeros_like(p) for p in made.parameters()]
    for place, row in enumerate(chosen):
        own = owned(made, owner.get(row, -2))
        loss, each = gradient(lambda own=own: without(made, own), [place])
        expected += loss
        sums = [total + more for total, more in zip(sums, each, strict=True)]
    assert found == pytest.approx(expected, rel=1e-5)
    for one, other in zip(gradients, sums, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    whole = loss_without_hiding(base, task, items, made())
    assert abs(whole - expected) > 1e-4


def loss_without_hiding(
    base: Backbone, task: Bound, items: list[Any], injection: Injection
) -> float:
    total = 0.0
    examples = [item.example for item in items]
    for group, logits in infer(base, injection, examples, tokens=task.tokens):
        total += float(task.losses(logits, [items[i] for i in group]).sum())
    return total


def test_parts_are_shared_and_a_batch_that_hides_nothing_is_no_mixture() -> None:
    made = built(SHOWN)
    owner = {row: own for row, own in enumerate(made.hidden) if own}
    others = [row for row in range(len(ROWS)) if row not in owner]
    plain = made.training_on(others, chance())
    assert isinstance(plain, Injection)
    for (_, tensor), (_, own) in zip(plain.tensors(), made().tensors(), strict=True):
        assert tensor is own
    one = next(iter(owner))
    mixed = made.training_on([others[0], one, others[1], one], chance())
    assert isinstance(mixed, Mixture)
    assert list(mixed.rows) == [0, 1, 0, 1]
    size = int(owned(made, *owner[one]).sum())
    assert [length(part) for part in mixed.parts] == [length(made()), length(made()) - size]
    assert {part.positions for part in mixed.parts} == {made().positions}
    alone = made.training_on([one, one], chance())
    assert isinstance(alone, Injection)
    assert length(alone) == length(made()) - size


def test_all_is_seen_where_nothing_is_left_out() -> None:
    made = built(replace(SHOWN, leave_one_out=False))
    found = made.training_on(range(len(ROWS)), chance())
    assert isinstance(found, Injection)
    assert length(found) == length(made())


def test_rows_that_say_the_same_are_hidden_from_each_other() -> None:
    twice = [ROWS[0], ROWS[0], ROWS[6], ROWS[9]]
    made = Context(shots=3, choice="first", token_dropout=0.0).build(bound("llama"), twice, 0)
    assert made.hidden == [(0, 1), (0, 1), (2,), ()]
    only = Context(shots=1, choice="first").build(bound("llama"), twice, 0)
    nothing = only.training_on([0], chance())
    assert isinstance(nothing, Injection)
    assert length(nothing) == 0
    assert length(Mixture.of(only.training_on([2], chance()), 1).parts[0]) > 0


@pytest.mark.parametrize("name", ["llama", "gemma2", "bert", "t5"])
def test_a_row_that_sees_nothing_can_be_run(name: str) -> None:
    made = built(Context(shots=1, choice="first", token_dropout=0.0), name)
    task = bound(name)
    mixture = made.training_on([0, 1], chance())
    assert isinstance(mixture, Mixture)
    nothing = replace(NOTHING, positions=made().positions)
    with torch.no_grad():
        found = task.predict(ROWS[:2], mixture)
        expected = [task.predict([ROWS[0]], nothing), task.predict([ROWS[1]], made())]
    for one, (other,) in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-4)


# Token dropout --------------------------------------------------------------------------------


def test_token_dropout_is_drawn_anew_in_each_step_and_the_same_for_its_rows() -> None:
    made = built(replace(SHOWN, token_dropout=0.4))
    one = next(row for row, own in enumerate(made.hidden) if own)
    seen = [places(made, [one, *range(len(ROWS))], seed) for seed in (0, 0, 1)]
    assert torch.equal(seen[0][1], seen[1][1])
    assert not torch.equal(seen[0][1], seen[2][1])
    for own, other in [(found[0], found[1]) for found in seen]:  # all rows lose the same
        assert torch.equal(own, other & ~owned(made, *made.hidden[one]))
    drawn = torch.stack([places(made, [one, *range(len(ROWS))], s)[1] for s in range(200)])
    assert float(drawn.float().mean()) == pytest.approx(0.6, abs=0.03)


def places(made: ShownDemonstrations, rows: list[int], seed: int) -> list[Tensor]:
    """Which positions the first row sees, and one that hides nothing."""
    mixture = made.training_on(rows, chance(seed))
    assert isinstance(mixture, Mixture)
    free = next(n for n, row in enumerate(rows) if not made.hidden[row])
    whole = next(iter(made().kv.values())).keys
    found = []
    for place in (0, free):
        keys = next(iter(mixture.parts[mixture.rows[place]].kv.values())).keys
        same = (whole[:, :, None] == keys[:, None]).all(3).all(0)  # (P, kept)
        assert bool(same.any(0).all())
        found.append(same.any(1))
    return found


def test_one_position_at_least_is_seen_and_never_ones_own() -> None:
    made = built(replace(SHOWN, token_dropout=0.999))
    for seed in range(30):
        mixture = Mixture.of(made.training_on(range(len(ROWS)), chance(seed)), len(ROWS))
        assert min(length(part) for part in mixture.parts) >= 1
    whole = next(iter(made().kv.values())).keys
    for row, own in enumerate(made.hidden):
        mine = whole[:, owned(made, *own)]
        for seed in range(10):
            part = Mixture.of(made.training_on([row], chance(seed)), 1).parts[0]
            keys = next(iter(part.kv.values())).keys
            assert not (mine[:, :, None] == keys[:, None]).all(3).all(0).any()


# In a run -------------------------------------------------------------------------------------


def test_a_run_hides_from_each_training_row_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that the loop passes are those of the rows that the method was built on."""
    seen: list[tuple[str, int]] = []
    kept: dict[str, Any] = {}
    build = Context.build

    def noting(self: Context, task: Bound, rows: Any, seed: int) -> ShownDemonstrations:
        kept["rows"], made = rows, build(self, task, rows, seed)
        real = made.training_on

        def training_on(numbers: Any, chance: torch.Generator) -> Any:
            found = Mixture.of(real(numbers, chance), len(numbers))
            for place, number in enumerate(numbers):
                seen.append((rows[number].where, length(found.parts[found.rows[place]])))
            return found if len(found.parts) > 1 else found.parts[0]

        made.training_on = training_on  # type: ignore[method-assign]
        kept["made"] = made
        return made

    monkeypatch.setattr(Context, "build", noting)
    method = Context(shots=2, token_dropout=0.0)
    prompt = toy_run(None, method=method, train=toy_rows(12), dev=None)
    made: ShownDemonstrations = kept["made"]
    whole = length(prompt.injection)
    assert len(kept["rows"]) == 11
    assert len(seen) == 3 * 11
    for where, size in seen:
        number = next(n for n, row in enumerate(kept["rows"]) if row.where == where)
        assert size == whole - int(owned(made, *made.hidden[number]).sum())
    assert {size for _, size in seen} > {whole}
    assert prompt.method["shots"] == 2
    assert len(prompt.data["demonstrations"]) == 2


def test_rows_of_several_prefixes_are_not_run_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of their shapes would be compiled anew."""
    base, task, made = get("llama"), bound("llama"), built(SHOWN)
    items = [task.train_example(row, 100).example for row in ROWS]
    free = [row for row, own in enumerate(made.hidden) if not own]
    ran: list[object] = []

    def body(layer: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append(layer)
        return layer(*args, **kwargs)

    assert base.stack is not None
    monkeypatch.setattr(base.stack, "compiled", body)
    for rows, times in ((free, 2), (range(len(ROWS)), 0)):  # the lowest of three layers never is
        ran.clear()
        base.states([items[row] for row in rows], made.training_on(rows, chance()))
        assert len(ran) == times


def test_the_same_seed_gives_the_same_prompt() -> None:
    method = Context(shots=2, token_dropout=0.3)
    one, other = toy_run(None, method=method), toy_run(None, method=method)
    for (_, a), (_, b) in zip(one.injection.tensors(), other.injection.tensors(), strict=True):
        assert torch.equal(a, b)


class Stopping(Recorder):
    """Stops a run within its second epoch."""

    def step(self, number: int, values: Mapping[str, float]) -> None:
        if number == 5:
            raise ZeroDivisionError


@pytest.mark.parametrize("method", [Context(shots=2, token_dropout=0.3), PTuning(hidden=4)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(method: Method, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "p.safetensors"
    toy_run(whole, method=method)
    with pytest.raises(ZeroDivisionError):
        toy_run(out, method=method, report=Stopping())
    said: list[str] = []
    toy_run(out, method=method, resume=True, report=Lines(said))
    assert "resuming at step 3 of 9" in said
    assert out.read_bytes() == whole.read_bytes()


def test_completions_have_demonstrations_too() -> None:
    base = get("llama")
    task: Bound = Generate(template="{text}:").bind(base)
    made = Context(shots=3, choice="first").build(task, ROWS, 0)
    assert [row for row, own in enumerate(made.hidden) if own] == [0, 1, 2]
    assert task.predict(ROWS[:2], made().map(torch.Tensor.detach))


def test_templates_may_begin_with_a_field() -> None:
    task: Bound = Classify(template="{text}", labels=contract.LABELS).bind(get("llama"))
    made = SHOWN.build(task, ROWS, 0)
    assert set(made.owners.tolist()) == {0, 1, 2}
