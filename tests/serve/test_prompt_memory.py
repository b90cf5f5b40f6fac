"""`--prompt-memory` is one bound: of files that are open, and of what the engine holds of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foreword.compose.ensemble import Ensemble
from foreword.injection import KV, Injection
from foreword.serve.engine import Engine
from foreword.serve.held import Held, held_bytes
from foreword.serve.http.service import release
from foreword.serve.prompts import PromptFolder, injections_of
from foreword.serve.request import Sampling
from serve.serving import SORT, WRITE, prefix, prompt_of, soft
from toys import get


def stored(tensors: Iterable[Tensor]) -> int:
    """The bytes of the memory that tensors stand in, each counted once."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(found.values())


def parts(held: Held) -> Iterator[Tensor]:
    for _, tensor in held.injection.tensors():
        yield tensor
    for kv in held.shared.kv.values():
        yield from (kv.keys, kv.values)


def in_dtype(injection: Injection, dtype: torch.dtype) -> Injection:
    kv = {n: KV(own.keys.to(dtype), own.values.to(dtype)) for n, own in injection.kv.items()}
    return replace(injection, kv=kv)


def test_what_a_prompt_takes_is_known_before_it_is_held() -> None:
    base = get()
    own = prefix(base, 1)
    both = replace(own, embeds=soft(base, 2).embeds, leading=4)
    one = dict(list(own.kv.items())[:1])
    for injection in (
        own,
        soft(base, 1),
        both,
        replace(both, kv=one),
        in_dtype(own, torch.bfloat16),
        in_dtype(both, torch.bfloat16),
    ):
        held = Held(base, injection, base)
        assert held_bytes(base, injection) == stored(parts(held))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = get()
    for number in range(6):
        kind = soft if number % 2 else prefix
        prompt_of(base, WRITE, kind(base, number)).save(tmp_path / f"p{number}.safetensors")
    members = [prompt_of(base, SORT, soft(base, seed)) for seed in (7, 8)]
    Ensemble(tuple(members), (0.5, 0.5)).save(tmp_path / "both.safetensors")
    return tmp_path


def test_open_files_and_what_is_held_of_them_stay_within_one_bound(folder: Path) -> None:
    base, how = get(), Sampling(max_new_tokens=2)
    most = 5 * held_bytes(base, soft(base, 1))
    with Engine(base, memory=most) as engine:
        let_go: Any = partial(release, engine)
        prompts = PromptFolder(folder, base, memory=most, on_close=let_go)
        seen = set()
        for turn in range(3):
            for name in [*prompts.names(), "p1+p3"]:
                prompt = prompts.open(name)[1]
                if name == "both":
                    assert engine.answer(prompt, []).result(20) == []
                for injection in injections_of(prompt):
                    engine.generate([5, 6, 7], injection, how).result(20)
                opened = [i for each, _ in prompts._open.values() for i in injections_of(each)]
                tensors = [t for each in opened for _, t in each.tensors()]
                held = [t for own in engine._prompts._held.values() for t in parts(own)]
                assert stored([*tensors, *held]) <= most
                assert {id(each) for each in opened} >= set(engine._prompts._held)
                seen.add(len(opened))
            assert max(seen) < 8, turn
        assert engine.stats()["prompt_bytes"] <= most
        prompts.close()
        engine.hold(soft(base, 9))  # after all that was released
        assert engine.stats()["prompts"] == 1


def test_a_released_prompt_is_held_for_its_own_rows_alone() -> None:
    base, how = get(), Sampling(max_new_tokens=3)
    own = soft(base, 3)
    with Engine(base, slots=1) as engine:
        before = engine.generate([5, 6], own, how).result(20)
        engine.release(own)
        waiting = [engine.generate([5, 6], own, how) for _ in range(3)]
        assert [each.result(20).tokens for each in waiting] == [before.tokens] * 3
        assert engine.stats()["prompts"] == engine.stats()["prompt_bytes"] == 0
        engine.hold(own)
        assert engine.stats()["prompt_bytes"] == held_bytes(base, own)
