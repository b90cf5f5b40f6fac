"""Ensembles answer as their members' answers fused by hand, and their files are checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import contract
from composed import GENERATE, drawn, prompt
from foreword.compose.ensemble import Ensemble, load_prompt, weighted
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.evaluation.evaluation import Evaluation
from foreword.injection import Injection
from foreword.methods.adapter import Adapter
from foreword.methods.deep import Deep
from foreword.methods.full import Full
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.file import read_file
from foreword.prompt.prompt import Prompt
from foreword.prompt.schema import KEY
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.score import Score
from oracles import get

SOFT, PREFIX = Soft(length=3), Prefix(length=2)
MEMBERS: dict[str, tuple[Any, ...]] = {
    "soft and longer soft": (SOFT, Soft(length=5, start="vocabulary")),
    "soft and prefix": (SOFT, PREFIX),
    "soft and LoRA": (SOFT, Lora(rank=2)),
    "prefix, adapter and full": (PREFIX, Adapter(bottleneck=2), Full()),
    "soft and a head": (SOFT, Several((Deep(length=2), Head()))),
}
WEIGHTS = {2: (0.3, 0.7), 3: (0.2, 0.5, 0.3)}


def ensemble(methods: tuple[Any, ...], **changes: Any) -> Ensemble:
    members = tuple(prompt(method, seed, **changes) for seed, method in enumerate(methods))
    return Ensemble(members, WEIGHTS[len(members)])


# Answers ------------------------------------------------------------------------------------------


def by_hand(members: Any, weights: Any) -> list[dict[str, float]]:
    """The product of the members' own probabilities, each raised to its weight."""
    found = [m.bound.predict(contract.ROWS, m.injection) for m in members]
    rows = []
    for answers in zip(*found, strict=True):
        product = {
            label: math.prod(
                a["probabilities"][label] ** w for a, w in zip(answers, weights, strict=True)
            )
            for label in contract.LABELS
        }
        whole = sum(product.values())
        rows.append({label: value / whole for label, value in product.items()})
    return rows


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
@pytest.mark.parametrize("case", MEMBERS)
def test_labels_are_a_product_of_experts(case: str, name: str) -> None:
    made = ensemble(MEMBERS[case], name=name)
    for answer, expected in zip(
        made.answers(contract.ROWS), by_hand(made.members, made.weights), strict=True
    ):
        assert answer["probabilities"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert answer["label"] == max(expected, key=expected.__getitem__)
        assert answer["cut"] is False
    turned = Ensemble(made.members[::-1], made.weights[::-1])
    for one, two in zip(turned.answers(contract.ROWS), made.answers(contract.ROWS), strict=True):
        assert one["probabilities"] == pytest.approx(two["probabilities"], abs=2e-6)


def test_scores_are_the_mean_number() -> None:
    task = Score(
        template="{text} :", low=1, high=3, anchors={" good": 1.0, " bad": 2.0, " film": 3.0}
    )
    made = ensemble((SOFT, PREFIX), task=task)
    own = [member.predict(contract.TEXTS) for member in made.members]
    expected = [0.3 * one + 0.7 * two for one, two in zip(*own, strict=True)]
    assert made.predict(contract.TEXTS) == pytest.approx(expected, abs=1e-5)


def test_members_of_one_task_are_one_batch_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    original = Classifier.predict

    def counted(self: Classifier, rows: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(len(rows))
        return original(self, rows, *arguments, **named)

    made = ensemble((SOFT, PREFIX, Lora(rank=2)))
    other = replace(
        made.members[1], task=replace(contract.task_on(get("llama")), template="{text} is")
    )
    monkeypatch.setattr(Classifier, "predict", counted)
    made.predict(contract.TEXTS)
    assert calls == [3 * 4]
    calls.clear()
    Ensemble((made.members[0], other, made.members[2]), made.weights).predict(contract.TEXTS)
    assert calls == [2 * 4, 4]


def test_labels_may_stand_in_another_order_and_have_other_words() -> None:
    made = ensemble((SOFT, PREFIX))
    labels = {name: f" {name}" for name in reversed(contract.LABELS)}
    other = replace(made.members[1], task=Classify(template="{text}\nIt is", labels=labels))
    mixed = Ensemble((made.members[0], other), made.weights)
    for answer, expected in zip(
        mixed.answers(contract.ROWS), by_hand(mixed.members, mixed.weights), strict=True
    ):
        assert answer["probabilities"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_rows_that_were_cut_are_told_and_every_row_is_counted_once() -> None:
    made = ensemble((SOFT, PREFIX, Lora(rank=2)))
    short = replace(contract.task_on(get("llama")), max_length=6)
    members = (replace(made.members[0], task=short), *made.members[1:])
    told: list[int] = []
    found = Ensemble(members, made.weights).answers(contract.ROWS, progress=told.append)
    assert sum(told) == len(contract.ROWS)
    alone = members[0].answers(contract.ROWS)
    assert [a["cut"] for a in found] == [a["cut"] for a in alone]
    assert any(a["cut"] for a in found)


def test_it_is_evaluated_as_a_prompt_is() -> None:
    made = ensemble((SOFT, PREFIX))
    result = evaluate(made, contract.ROWS, baselines=True)
    right = [
        answer["label"] == row.fields["label"]
        for answer, row in zip(made.answers(contract.ROWS), contract.ROWS, strict=True)
    ]
    assert result["accuracy"] == 100 * sum(right) / 4
    assert list(result["baselines"]) == ["zero-shot", "demonstrations"]
    assert made.answers([]) == []


def test_what_cannot_answer_together_says_why() -> None:
    one = prompt(SOFT)
    labels = replace(one, task=Classify(template="{text}", labels={"good": "a", "bad": "b"}))
    cases: list[tuple[tuple[Prompt, ...], tuple[float, ...], str]] = [
        ((), (), r"0 prompts cannot be composed; give 1 or more"),
        ((one, prompt(SOFT, name="qwen2")), (0.5, 0.5), "prompt 2 was tuned on qwen2"),
        ((one, prompt(SOFT, task=GENERATE)), (0.5, 0.5), "prompt 2 is for task generate"),
        ((one, labels), (0.5, 0.5), "prompt 2 has the labels bad, good, and prompt 1 bad, fine,"),
        ((one, one), (0.5, 0.6), "weights 0.5 0.6 add up to 1.1"),
        ((one, one), (1.0,), "for 2 prompts; give one for each"),
    ]
    for members, weights, what in cases:
        with pytest.raises(UserError, match=what):
            Ensemble(members, weights)
    scores = [
        prompt(SOFT, task=Score(template="{text}", low=0, high=high, anchors={"a": 0.0, "b": high}))
        for high in (1.0, 5.0)
    ]
    with pytest.raises(UserError, match="prompt 2 scores from 0 to 5, and prompt 1 from 0 to 1"):
        Ensemble(tuple(scores), (0.5, 0.5))


# Files --------------------------------------------------------------------------------------------


def test_a_file_holds_all_members(tmp_path: Path) -> None:
    made = ensemble((SOFT, Several((PREFIX, Lora(rank=2, gate=True))), Full()))
    made = with_scores(made, "dev", Evaluation("accuracy", {"accuracy": 75.0, "rows": 4}, ()))
    path = made.save(tmp_path / "e.safetensors")
    read = load_prompt(path, get("llama"))
    assert isinstance(read, Ensemble)
    assert (read.weights, read.scores) == (made.weights, made.scores)
    for one, two in zip(read.members, made.members, strict=True):
        assert (one.task, one.method, one.data) == (two.task, two.method, two.data)
        kept, found = dict(two.injection.tensors()), dict(one.injection.tensors())
        assert kept.keys() == found.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in kept.items())
    assert read.predict(contract.TEXTS) == made.predict(contract.TEXTS)
    assert load_prompt(path).save(tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_prompt_is_loaded_by_the_same_function(tmp_path: Path) -> None:
    path = prompt(SOFT).save(tmp_path / "p.safetensors")
    assert isinstance(load_prompt(path, get("llama")), Prompt)
    with pytest.raises(UserError, match=r"was tuned on llama .* and this is qwen2 .* `force`"):
        load_prompt(path, get("qwen2"))


def test_an_ensemble_is_no_prompt_and_of_its_own_backbone(tmp_path: Path) -> None:
    path = ensemble((SOFT, PREFIX)).save(tmp_path / "e.safetensors")
    with pytest.raises(UserError, match="is an ensemble of several prompts"):
        Prompt.load(path)
    with pytest.raises(UserError, match=r"member 1: was tuned on llama .* and this is qwen2"):
        load_prompt(path, get("qwen2"))


def test_members_without_weight_are_left_out() -> None:
    made = weighted([prompt(SOFT), prompt(PREFIX), prompt(SOFT, 1)], (0.25, 0.0, 0.75))
    assert made.weights == (0.25, 0.75)
    assert [member.method["name"] for member in made.members] == ["soft", "soft"]


def test_facts_tell_of_every_member(tmp_path: Path) -> None:
    facts = read_file(ensemble((SOFT, PREFIX)).save(tmp_path / "e.safetensors")).facts()
    assert facts["weights"] == [0.3, 0.7]
    assert facts["prompt 2"]["method"]["name"] == "prefix"
    assert facts["parameters"] == facts["prompt 1"]["parameters"] + facts["prompt 2"]["parameters"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return ensemble((SOFT, PREFIX)).save(tmp_path / "good.safetensors")


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], **tensors: Any) -> Path:
    """The file with other metadata, and some tensors in place of its own."""
    with safe_open(str(path), "pt") as file:
        meta = json.loads(file.metadata()[KEY])
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(meta)
    held |= tensors
    other = path.with_name("other.safetensors")
    save_file({n: t for n, t in held.items() if t is not None}, other, {KEY: json.dumps(meta)})
    return other


def first(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda meta: meta["members"][0].update(change)


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda meta: meta.update(schema=2), "has schema version 2"),
    (lambda meta: meta.pop("weights"), "its metadata lacks 'weights'"),
    (lambda meta: meta.update(wieghts=[]), "unknown metadata 'wieghts'; did you mean 'weights'"),
    (lambda meta: meta.update(members={}), "'members' is not a list of objects"),
    (lambda meta: meta.update(members=[1, 2]), "'members' is not a list of objects"),
    (lambda meta: meta.update(weights="half"), "'weights' is not a list of numbers"),
    (lambda meta: meta.update(weights=[True, False]), "'weights' is not a list of numbers"),
    (lambda meta: meta.update(weights=[0.5]), r"1 weight \(0.5\) for 2 prompts"),
    (lambda meta: meta.update(weights=[0.5, 0.6]), "add up to 1.1"),
    (lambda meta: meta.update(weights=[1e999, 0.5]), "give numbers that are not negative"),
    (lambda meta: meta.update(scores=[]), "'scores' is not an object"),
    (lambda meta: meta["members"].pop(), "unknown tensor 'members.1"),
    (first({"schema": 7}), "member 1: has schema version 7"),
    (first({"more": 1}), "member 1: unknown metadata 'more'"),
    (first({"leading": 9}), "member 1: more leading virtual tokens"),
    (first({"task": {"name": "clasify"}}), "member 1: unknown task 'clasify'"),
    (first({"task": {"name": "classify", "tempalte": ""}}), "did you mean 'template'"),
    (lambda meta: meta["members"][0]["backbone"].update(fingerprint="x"), "prompt 2 was tuned on"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_metadata_that_is_wrong_is_named(good: Path, number: int) -> None:
    change, what = CHANGES[number]
    path = rewritten(good, change)
    with pytest.raises(UserError, match=what) as caught:
        load_prompt(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"members.0.embed": drawn(3, 32)}, "member 1: unknown tensor 'embed'"),
        ({"members.2.embeds": drawn(3, 32)}, "unknown tensor 'members.2.embeds'"),
        ({"members.00.embeds": drawn(3, 32)}, "unknown tensor 'members.00.embeds'"),
        ({"embeds": drawn(3, 32)}, "unknown tensor 'embeds'"),
        ({"members.0.embeds": None}, "member 1: holds no tensor"),
        ({"members.0.embeds": torch.full((3, 32), torch.nan)}, "member 1: .* holds NaN or Inf"),
        ({"members.0.embeds": drawn(3, 32).double()}, "member 1: .* not float32"),
    ],
)
def test_tensors_that_are_wrong_are_named(good: Path, tensors: dict[str, Any], what: str) -> None:
    path = rewritten(good, lambda meta: None, **tensors)
    with pytest.raises(UserError, match=what):
        load_prompt(path)


@cache
def content() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        small = [
            prompt(SOFT, injection=Injection(embeds=drawn(1, 32, seed=n), leading=1))
            for n in (0, 1)
        ]
        return Ensemble(tuple(small), (0.5, 0.5)).save(f"{folder}/e").read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_user_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content())
    header = 8 + int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, header + 8) | st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'{}[]",:0e-tn\\'))
    size = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged[:size])
    with suppress(UserError):
        load_prompt(path).on_backbone(get("llama"), force=True)


def test_rows_of_an_unknown_field_are_named() -> None:
    made = ensemble((SOFT, PREFIX))
    with pytest.raises(UserError, match="no field 'text'"):
        made.answers([Row({"txet": "a"}, "F:1")])
