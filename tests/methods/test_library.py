"""Starts from other prompts: one that is named, and the closest of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import contract
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.deep import Deep
from foreword.methods.parts.start_from_prompt import mean_loss
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from oracles import get
from toys import Lines, toy_run
from toys import get as toy_backbone
from toys import rows as toy_rows

FLAWED = [  # what is in a folder beside prompts
    ("a.safetensors", b"hello, world"),
    ("b.safetensors", b""),
    (".c.safetensors", b"a file that is being written"),
    ("notes.txt", b"notes"),
]


def save(path: Path, method: Method, name: str = "llama", seed: int = 0) -> Injection:
    base = get(name)
    injection = contract.trained(method, base, seed=seed)()
    made_on = {"name": name, "architecture": base.architecture, "fingerprint": base.fingerprint}
    Prompt(injection=injection, task=contract.task_on(base), backbone=made_on).save(path)
    return injection


def same(one: Injection, other: Injection) -> bool:
    a, b = dict(one.tensors()), dict(other.tensors())
    places = (one.leading, one.positions) == (other.leading, other.positions)
    return places and a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# A prompt file --------------------------------------------------------------------------------

PAIRS: list[tuple[Method, Callable[[str], Method]]] = [
    (Prefix(length=3), lambda path: Prefix(start=path)),
    (Prefix(length=3), lambda path: Prefix(start=path, length=3, reparameterize=4)),
    (Prefix(length=3, first_layer=1), lambda path: Prefix(start=path, upper=0.67)),
    (Prefix(length=4), lambda path: Deep(start=path)),
    (Soft(length=3), lambda path: Soft(start=path)),
    (Soft(length=3), lambda path: PTuning(start=path, length=3, hidden=4)),
    (PTuning(length=3, hidden=4), lambda path: Soft(start=path)),
]


@pytest.mark.parametrize(("source", "method"), PAIRS)
@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_method_starts_as_the_prompt_that_is_named(
    source: Method, method: Callable[[str], Method], name: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.safetensors"
    kept = save(path, source, name)
    _, made = contract.built(method(str(path)), get(name))
    assert same(made(), kept)


def test_a_prefix_of_some_layers_takes_these_from_one_of_all(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    kept = save(path, Prefix(length=3))
    made = contract.built(Prefix(start=str(path), first_layer=1), get("llama"))[1]()
    assert set(made.kv) < set(kept.kv)
    assert all(torch.equal(kv.keys, kept.kv[site].keys) for site, kv in made.kv.items())


def test_virtual_tokens_of_a_template_start_as_those_of_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    kept = save(path, Soft(length=3))
    task = Classify(template="[soft:2]{text}[soft:1]:", labels=contract.LABELS).bind(get("llama"))
    made = Soft(start=str(path)).build(task, contract.ROWS, 0)()
    assert made.leading == 0
    assert torch.equal(made.embeds, kept.embeds)


def test_the_start_is_trained_and_its_file_stays(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    kept = toy_run(first, method=Prefix(length=3))
    before = first.read_bytes()
    made = toy_run(second, method=Prefix(start=str(first)))
    assert first.read_bytes() == before
    assert made.method["start"] == str(first)
    assert kept.injection.kv.keys() == made.injection.kv.keys()
    assert not same(kept.injection, made.injection)


REFUSED: list[tuple[Method, Callable[[str], Method], str]] = [
    (Soft(length=3), lambda p: Prefix(start=p), "holds no prefix to start from"),
    (Prefix(length=3), lambda p: Soft(start=p), "holds no virtual tokens to start from"),
    (Prefix(length=3), lambda p: PTuning(start=p), "holds no virtual tokens to start from"),
    (
        Prefix(length=3),
        lambda p: Prefix(start=p, length=4),
        "its prefix has 3 positions, and `length=4` is asked for; leave that out",
    ),
    (
        Prefix(length=3, first_layer=1),
        lambda p: Deep(start=p),
        "its prefix has nothing for 'model.layers.0.self_attn'",
    ),
    (Soft(length=3), lambda p: Soft(start=p, length=4), "has 3 virtual tokens, and 4 are asked"),
    (Soft(length=3), lambda p: Soft(start=p, start_text="x"), "a starting text is given"),
]


@pytest.mark.parametrize(("source", "method", "what"), REFUSED)
def test_a_prompt_that_does_not_fit_is_one_line(
    source: Method, method: Callable[[str], Method], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.safetensors"
    save(path, source)
    with pytest.raises(UserError) as caught:
        contract.built(method(str(path)), get("llama"))
    assert what in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_of_another_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save(path, Prefix(length=3))
    with pytest.raises(
        UserError, match=r"was tuned on llama, and this is qwen3; name that one with"
    ):
        contract.built(Prefix(start=str(path)), get("qwen3"))


def test_a_file_that_is_no_prompt_is_refused(tmp_path: Path) -> None:
    for name, content in FLAWED[:2]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is not a safetensors file"):
            contract.built(Prefix(start=str(tmp_path / name)), get("llama"))
    with pytest.raises(UserError, match=r"unknown start '.*/none'; .* or the path of a prompt or"):
        contract.built(Prefix(start=str(tmp_path / "none")), get("llama"))


# A folder of prompts --------------------------------------------------------------------------


def loss_by_differentiation(injection: Injection) -> float:
    """The mean loss of the contract's rows, summed by what trains."""
    task = contract.task_on(get("llama")).bind(get("llama"))
    items = [task.train_example(row, room_for(get("llama"), injection)) for row in contract.ROWS]
    return differentiate(
        get("llama"),
        lambda: injection.map(lambda t: t.clone().requires_grad_()),
        [item.example for item in items],
        (),
        max(item.example.length for item in items),
        1000,
        lambda group, logits: task.losses(logits, [items[i] for i in group]).sum() / len(items),
        tokens=task.tokens,
    )


@pytest.mark.parametrize("kind", [Prefix, Soft])
def test_the_closest_prompt_of_a_folder_is_taken(kind: Any, tmp_path: Path) -> None:
    held = {
        f"{seed}.safetensors": save(
            tmp_path / f"{seed}.safetensors", kind(length=3 + seed, start="random"), seed=seed
        )
        for seed in range(4)
    }
    save(tmp_path / "other.safetensors", Soft(length=2) if kind is Prefix else Prefix(length=2))
    save(tmp_path / "qwen3.safetensors", kind(length=3), "qwen3")
    for name, content in FLAWED:
        (tmp_path / name).write_bytes(content)
    losses = {name: loss_by_differentiation(injection) for name, injection in held.items()}
    best = min(losses, key=losses.__getitem__)
    _, made = contract.built(kind(start=str(tmp_path)), get("llama"))
    assert same(made(), held[best])
    (note,) = made.notes
    assert f"starting from {tmp_path / best}: of 4 prompts that fit" in note
    assert f"on 4 training rows ({losses[best]:.4f})" in note
    of_one_length = kind(start=str(tmp_path), length=5)
    assert same(contract.built(of_one_length, get("llama"))[1](), held["2.safetensors"])


def test_the_loss_that_prompts_are_compared_by_is_the_one_that_is_trained(tmp_path: Path) -> None:
    injection = save(tmp_path / "p.safetensors", Prefix(length=3))
    task = contract.task_on(get("llama")).bind(get("llama"))
    found = mean_loss(task, injection, contract.ROWS)
    assert found == pytest.approx(loss_by_differentiation(injection), rel=1e-5)
    written = Generate(template="{text}:").bind(get("llama"))
    rows = toy_rows(5)
    items = [written.train_example(row, 100) for row in rows]
    each = [mean_loss(written, injection, [row]) for row in rows]
    weights = [written.units(item) for item in items]
    mean = sum(a * b for a, b in zip(each, weights, strict=True)) / sum(weights)
    assert mean_loss(written, injection, rows) == pytest.approx(mean, rel=1e-5)


def test_no_more_than_64_rows_are_asked(tmp_path: Path) -> None:
    save(tmp_path / "p.safetensors", Soft(length=3))
    task = contract.task_on(get("llama")).bind(get("llama"))
    made = Soft(start=str(tmp_path)).build(task, contract.ROWS * 30, 0)
    assert "on 64 training rows" in made.notes[0]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], "holds no prompt files (*.safetensors) to start from"),
        (FLAWED[2:], "holds no prompt files (*.safetensors) to start from"),
        (FLAWED, "no prompt there can be a start; the first: "),
    ],
)
def test_a_folder_without_a_start_is_one_line(
    files: list[tuple[str, bytes]], what: str, tmp_path: Path
) -> None:
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        contract.built(Prefix(start=str(tmp_path)), get("llama"))
    assert str(caught.value).startswith(f"{tmp_path}: {what}")
    assert "\n" not in str(caught.value)


def test_the_choice_is_announced_and_kept(tmp_path: Path) -> None:
    library = tmp_path / "library"
    toy_run(library / "p.safetensors", method=Soft(length=3))
    (library / "p.log.jsonl").write_text("{}")
    said: list[str] = []
    out = tmp_path / "q.safetensors"
    toy_run(out, method=PTuning(start=str(library), hidden=4), report=Lines(said))
    assert [line for line in said if line.startswith(f"starting from {library}")]
    assert Prompt.load(out, toy_backbone()).method["start"] == str(library)
    head = json.loads((tmp_path / "q.log.jsonl").read_text().splitlines()[0])
    assert str(library) in json.dumps(head)
