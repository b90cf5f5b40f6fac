"""Multi-task prompt tuning: every task's prompt by the paper's formula, from one start."""

from __future__ import annotations

import pytest
import torch

from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Method
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.multitask_learning.separate import Owners
from foreword.multitask_learning.shared_prompt import SharedPrompt
from toys import TASK, get, rows

METHODS: dict[str, Method] = {"soft": Soft(length=5), "prefix": Prefix(length=4)}
OWNERS = Owners((0, 1, 2, 1), (2, 0))


def made(name: str, rank: int = 1) -> SharedPrompt:
    prompt = METHODS[name].build(TASK.bind(get()), rows(8), 0)
    return SharedPrompt(prompt, 3, rank, 0, OWNERS)


def tensors(injection: Injection | Mixture) -> dict[str, torch.Tensor]:
    assert isinstance(injection, Injection)
    return {name: tensor.detach() for name, tensor in injection.tensors()}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_every_task_begins_at_the_shared_prompt(name: str, rank: int) -> None:
    shared = made(name, rank)
    start = tensors(shared.prompt())
    for part in (*shared().parts, shared.shared()):
        found = tensors(part)
        assert found.keys() == start.keys()
        assert all(torch.equal(found[key], start[key]) for key in start)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_the_formula(name: str, rank: int) -> None:
    """P_t[n, w] = P*[n, w] sum_r U_t[n, r] V_t[w, r], spelled out number by number."""
    shared = made(name, rank)
    chance = torch.Generator().manual_seed(1)
    for parameter in (*shared.u, *shared.v):
        parameter.data = torch.randn(parameter.shape, generator=chance)
    start = tensors(shared.prompt())
    several = len(start)
    parts = [tensors(part) for part in shared().parts]
    for place, (key, tensor) in enumerate(start.items()):
        flat = tensor if tensor.dim() == 2 else tensor.transpose(0, 1).flatten(1)
        expected = []
        for task in range(3):
            u, v = shared.u[task * several + place], shared.v[task * several + place]
            own = torch.empty_like(flat)
            for n in range(flat.shape[0]):
                for w in range(flat.shape[1]):
                    own[n, w] = flat[n, w] * (u[n] * v[w]).sum().item()
            got = parts[task][key]
            got = got if got.dim() == 2 else got.transpose(0, 1).flatten(1)
            torch.testing.assert_close(got, own)
            expected.append(own)
        mean = tensors(shared.shared())[key]
        mean = mean if mean.dim() == 2 else mean.transpose(0, 1).flatten(1)
        torch.testing.assert_close(mean, torch.stack(expected).mean(0))


def test_a_batch_s_gradient_reaches_the_shared_prompt_and_its_own_tasks_alone() -> None:
    shared = made("soft", 2)
    found = shared.training_on((1, 0, 3), torch.Generator())
    assert isinstance(found, Mixture)
    assert list(found.rows) == [1, 0, 1]
    sum(tensor.square().sum() for _, tensor in found.tensors()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in shared.prompt.parameters())
    assert [p.grad is not None for p in shared.u] == [True, True, False]
    assert [p.grad is not None for p in shared.v] == [True, True, False]
    assert tensors(shared.judged_on((0,))).keys() == {"embeds"}


def test_its_size_is_that_of_one_prompt_and_a_row_and_a_column_a_task() -> None:
    shared = made("soft")
    assert sum(p.numel() for p in shared.parameters()) == 5 * 32 + 3 * (5 + 32)


@pytest.mark.parametrize("rank", [0, 6])
def test_a_rank_that_cannot_be(rank: int) -> None:
    with pytest.raises(UserError, match=f"`rank={rank}`: give from 1 to 5"):
        made("soft", rank)
