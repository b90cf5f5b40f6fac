"""ATTEMPT keeps the contract, and its prompt is the paper's sum written out with numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import contract
from composed import drawn, prompt
from families import by_mechanism
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.attempt import Attempt, Attended
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.templates.layout import room_for
from foreword.training.tune import tune
from oracles import FEW, embeddings_in_front, get
from toys import TASK, TRAINING, rows, toy_run
from toys import get as toy

ROOT: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ROOT.append(tmp_path_factory.mktemp("sources"))
    yield
    ROOT.clear()
    sources.cache_clear()


def source(name: str, seed: int, length: int = 3) -> Prompt:
    width = get(name).width
    own = Injection(embeds=0.1 * drawn(length, width, seed=seed), leading=length)
    return prompt(Soft(), name=name, injection=own)


@cache
def sources(name: str) -> tuple[str, ...]:
    """The files of two soft prompts of a backbone."""
    return tuple(
        str(source(name, seed).save(ROOT[0] / f"{name}{seed}.safetensors")) for seed in (1, 2)
    )


def method(name: str, **changes: Any) -> Attempt:
    return Attempt(**{"sources": sources(name), "bottleneck": 4, **changes})


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_it_equals_embeddings_in_front(name: str) -> None:
    contract.equals_a_plain_oracle(method(name), get(name), embeddings_in_front)


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(method(name), get(name))


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_the_rest_of_the_contract(name: str, tmp_path: Path) -> None:
    base = get(name)
    contract.a_file_gives_the_same_prompt(method(name), base, tmp_path)
    contract.the_backbone_is_untouched(method(name), base)
    contract.a_mixed_batch_equals_single_rows(method(name), Soft(length=5), base)
    contract.checkpointing_changes_nothing(method(name), base)


def by_hand(made: Attended, name: str) -> np.ndarray[Any, Any]:
    """P + sum_j a_j P_j, a = softmax(maxpool(P_j) . LayerNorm(W_up SiLU(W_down q)) / (e d))."""
    base = get(name)
    task = contract.task_on(base).bind(base)
    pooled = []
    for row in contract.ROWS:
        ids = task.train_example(row, room_for(base, made())).example.ids
        pooled.append(base.embed(ids).numpy().max(0))
    query = np.mean(pooled, 0)
    weights = {n: p.detach().numpy().astype(np.float64) for n, p in made.named_parameters()}
    inner = weights["down.weight"] @ query
    outer = weights["up.weight"] @ (inner / (1 + np.exp(-inner)))
    outer = (outer - outer.mean()) / np.sqrt(outer.var() + 1e-5)
    asked = outer * weights["norm.weight"] + weights["norm.bias"]
    own = weights["target.embeds"]
    prompts = [Prompt.load(path).injection.embeds.numpy() for path in sources(name)]  # type: ignore[union-attr]
    scores = np.array([p.max(0) @ asked for p in [*prompts, own]]) / (math.e * base.width)
    shares = np.exp(scores) / np.exp(scores).sum()
    mixed = sum(share * p for share, p in zip(shares, [*prompts, own], strict=True))
    return np.asarray(own + mixed)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_the_prompt_is_the_sum_of_the_paper(name: str) -> None:
    made = contract.trained(method(name), get(name))
    assert isinstance(made, Attended)
    np.testing.assert_allclose(made().embeds.numpy(), by_hand(made, name), rtol=1e-4, atol=1e-5)


def test_sources_are_frozen_and_the_rest_is_trained() -> None:
    before, after = (
        contract.built(method("llama"), get("llama"))[1],
        contract.trained(method("llama"), get("llama")),
    )
    kept, moved = dict(before.named_parameters()), dict(after.named_parameters())
    assert kept.keys() == {"target.embeds", "down.weight", "up.weight", "norm.weight", "norm.bias"}
    assert all(not torch.equal(kept[name], moved[name]) for name in kept)
    assert torch.equal(before.get_buffer("sources"), after.get_buffer("sources"))


def test_the_same_seed_gives_the_same_start_and_another_does_not() -> None:
    base = get("llama")
    one, again, other = (contract.built(method("llama"), base, s)[1] for s in (0, 0, 1))
    assert torch.equal(one.get_parameter("down.weight"), again.get_parameter("down.weight"))
    assert not torch.equal(one.get_parameter("down.weight"), other.get_parameter("down.weight"))


def test_a_folder_gives_all_its_soft_prompts_of_the_backbone(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        source("llama", seed).save(tmp_path / f"{seed}.safetensors")
    prompt(Prefix(length=2)).save(tmp_path / "prefix.safetensors")
    source("gpt2", 1).save(tmp_path / "gpt2.safetensors")
    _, made = contract.built(method("llama", sources=(str(tmp_path),)), get("llama"))
    assert made.get_buffer("sources").shape == (3, 3, 32)


def test_virtual_tokens_of_a_template_are_mixed_too() -> None:
    base = get("llama")
    task = Classify(template="[soft:2]{text} [soft:1] :", labels=contract.LABELS).bind(base)
    made = method("llama").build(task, contract.ROWS, 0)()
    assert (made.leading, len(made.embeds)) == (0, 3)  # type: ignore[arg-type]


def test_a_run_writes_a_prompt_that_needs_no_source(tmp_path: Path) -> None:
    base = toy()
    files = []
    for seed in (1, 2):
        own = Soft(length=3, start="vocabulary")
        out = tmp_path / f"{seed}.safetensors"
        toy_run(out, method=own)
        files.append(str(out))
    out = tmp_path / "made.safetensors"
    made = tune(
        base,
        TASK,
        Attempt(sources=tuple(files), bottleneck=4),
        rows(12),
        rows(6, 100),
        training=TRAINING,
        out=out,
    )
    for file in files:
        Path(file).unlink()
    texts = ["a film", "it was bad"]
    assert Prompt.load(out, base).predict(texts) == made.predict(texts)
    assert made.method["sources"] == files
    assert made.injection.embeds is not None
    assert made.injection.embeds.shape == (3, 32)


def test_mistakes_are_named(tmp_path: Path) -> None:
    base = get("llama")
    longer = str(source("llama", 1, length=5).save(tmp_path / "longer.safetensors"))
    prefix = str(prompt(Prefix(length=2)).save(tmp_path / "kv" / "prefix.safetensors"))
    (tmp_path / "empty").mkdir()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sources": ()}, "`sources` is missing"),
        ({"sources": (str(tmp_path / "none"),)}, r"none: cannot be read \(No such file"),
        ({"sources": (str(tmp_path / "empty"),)}, "holds no prompt files"),
        ({"sources": (prefix,)}, "holds no virtual tokens; mix soft prompts"),
        (
            {"sources": (str(tmp_path / "kv"),)},
            "holds no soft prompt to mix; the last file: .*prefix",
        ),
        ({"sources": sources("gpt2")}, "was tuned on gpt2, and this is llama"),
        (
            {"sources": (*sources("llama"), longer)},
            "has 5 virtual tokens, and .* 3; mix prompts of",
        ),
        ({"length": 4}, "`length=4`: the sources have 3 virtual tokens"),
        ({"bottleneck": 0}, "`bottleneck=0`: give a width of at least 1"),
        ({"start": "txet"}, "unknown start 'txet'"),
    ]
    for changes, what in cases:
        with pytest.raises(UserError, match=what) as caught:
            contract.built(method("llama", **changes), base)
        assert "\n" not in str(caught.value)
    task = Classify(template="[soft:2]{text}", labels=contract.LABELS).bind(base)
    with pytest.raises(UserError, match="places 2 virtual tokens, and the sources have 3"):
        method("llama").build(task, contract.ROWS, 0)
