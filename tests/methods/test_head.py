"""A head keeps the contract, alone on frozen features and beside other methods."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import contract
from families import ENCODERS, REACHED, UNREACHED, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import ClassHead, Injection
from foreword.methods.base import Method, settle
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.score import Score
from plain import twin

FAMILIES = {family.name: family for family in [*REACHED, *UNREACHED]}
EVERY = {**FAMILIES, **{family.name: family for family in ENCODERS}}
FEW = ("llama", "gpt2", "bert", "albert", "t5", "bloom")
PLAIN = Head(head_start="random")
COSINE = Head(head_start="random", head_form="cosine", head_temperature=0.5)
METHODS: dict[str, Method] = {
    "head": PLAIN,
    "cosine": COSINE,
    "prefix+head": Several((Prefix(length=3), PLAIN)),
    "soft+head": Several((Soft(length=3), PLAIN)),
}
CARRIED = [
    (method, name)
    for method in METHODS
    for name in FAMILIES
    if "prefix" not in method or FAMILIES[name] in REACHED
]


@cache
def get(name: str) -> Backbone:
    return backbone(EVERY[name])


def layer_on_states(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Take the last hidden state of a plain model at the answer's place through the layer."""
    assert injection.head is not None
    model = twin(base)
    ids = [*example.ids[: example.slot], *example.branches[0], *example.ids[example.slot :]]
    if base.architecture == "encoder-decoder":
        start = torch.tensor([[model.config.decoder_start_token_id]])
        body = model.base_model if model.base_model is not model else model
        out = body(
            input_ids=torch.tensor([ids]), decoder_input_ids=start, output_hidden_states=True
        )
        states = out.decoder_hidden_states[-1][0]
        place = 0
    else:
        states = model.base_model(torch.tensor([ids])).last_hidden_state[0]
        place = example.slot - (base.architecture == "causal")
    return by_formula(injection.head, states[place])[None]


def by_formula(head: ClassHead, state: Tensor) -> Tensor:
    if head.scale is None:
        return head.weight @ state + head.bias
    lengths = head.weight.norm(dim=1) * state.norm()
    return head.scale * (head.weight @ state) / lengths + head.bias


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_head_equals_a_layer_on_the_last_state(name: str) -> None:
    contract.equals_a_plain_oracle(Head(), get(name), layer_on_states)


@pytest.mark.parametrize("name", FEW)
def test_a_cosine_head_equals_scaled_cosines(name: str) -> None:
    contract.equals_a_plain_oracle(COSINE, get(name), layer_on_states)


def test_the_temperature_is_trained_and_stays_above_zero() -> None:
    base = get("llama")
    _, made = contract.built(COSINE, base)
    with torch.no_grad():
        assert made().head.scale == pytest.approx(2)
        made.get_parameter("log_scale").sub_(100)
        assert made().head.scale > 0
    with pytest.raises(UserError, match="`head_temperature=0`: give one above 0"):
        contract.built(replace(COSINE, head_temperature=0.0), base)


@pytest.mark.parametrize(("method", "name"), by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter(method: str, name: str) -> None:
    contract.gradient_reaches_every_parameter(METHODS[method], get(name))


@pytest.mark.parametrize(("method", "name"), by_mechanism([c for c in CARRIED if c[1] in FEW]))
def test_a_file_gives_the_same_prompt(method: str, name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(METHODS[method], get(name), tmp_path)


@pytest.mark.parametrize(("method", "name"), by_mechanism([c for c in CARRIED if c[1] in FEW]))
def test_the_backbone_is_untouched(method: str, name: str) -> None:
    contract.the_backbone_is_untouched(METHODS[method], get(name))


@pytest.mark.parametrize(("method", "name"), by_mechanism(CARRIED))
def test_a_mixed_batch_equals_single_rows(method: str, name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(METHODS[method], METHODS[method], get(name))


def test_classes_keep_their_places_in_a_file(tmp_path: Path) -> None:
    base = get("llama")
    injection = contract.trained(Head(), base)()
    prompt = Prompt(
        injection,
        contract.task_on(base),
        {"name": "n", "architecture": "causal", "fingerprint": base.fingerprint},
        on=base,
    )
    again = Prompt.load(prompt.save(tmp_path / "p.safetensors"), base)
    orders = [list(p.task.labels or ()) for p in (prompt, again)]  # type: ignore[attr-defined]
    assert orders == [["good", "bad", "fine"], ["bad", "fine", "good"]]
    answers = [p.bound.predict(contract.ROWS, p.injection) for p in (prompt, again)]
    assert answers[0] == answers[1]


ROWS = [
    Row({"text": f"a film {n}", "label": "good" if n % 2 else "bad"}, f"F:{n}") for n in range(8)
]
BESIDE = Several((Prefix(), Head()))


@pytest.mark.parametrize(
    ("name", "method", "want"),
    [
        ("llama", Head(), ("ridge", "linear")),
        ("bert", Head(), ("ridge", "linear")),
        ("llama", Head(head_form="cosine"), ("prototypes", "cosine")),
        ("llama", BESIDE, ("demonstrations", "prototypes", "linear")),
        ("t5", BESIDE, ("demonstrations", "prototypes", "linear")),
        ("many rows", BESIDE, ("demonstrations", "ridge", "linear")),
        ("bert-encoder", Head(), ("logistic", "linear")),
        ("bert-encoder", BESIDE, ("zero", "prototypes", "cosine")),
        (
            "bert-encoder",
            Several((Prefix(start="text"), Head(head_start="logistic"))),
            ("text", "logistic", "linear"),
        ),
    ],
)
def test_what_is_left_open_is_what_measured_best(
    name: str, method: Method, want: tuple[str, ...]
) -> None:
    base, given = get("llama" if name == "many rows" else name), ROWS * (5 if " " in name else 1)
    template = "{text} [mask]" if base.fills_masks else "{text}\nMood:"
    task = Classify(template=template, labels={"good": " good", "bad": " bad"}).bind(base)
    found = settle(method, task, given)
    parts = found.methods if isinstance(found, Several) else (found,)
    said = [p.start if isinstance(p, Prefix) else (p.head_start, p.head_form) for p in parts]  # type: ignore[attr-defined]
    flat = [s for each in said for s in ([each] if isinstance(each, str) else each)]
    assert tuple(flat) == want
    assert settle(found, task, given) == found
    one, two = method.build(task, given, 0)(), found.build(task, given, 0)()
    for (where, a), (_, b) in zip(one.tensors(), two.tensors(), strict=True):
        assert torch.equal(a, b), where


def test_a_start_falls_back_where_rows_cannot_be_fitted_to() -> None:
    task = Classify(template="{text}\nMood:", labels={"good": " good", "bad": " bad"})
    some = ROWS[:1]
    assert settle(Head(), task.bind(get("llama")), some).head_start == "random"  # type: ignore[attr-defined]
    assert settle(Head(), task.bind(get("bert-encoder")), some).head_start == "words"  # type: ignore[attr-defined]
    score = Score(template="{text} :", anchors={" good": 1.0, " bad": 0.0}).bind(get("llama"))
    rows = [Row({"text": "a", "label": 1.0}, "F:1"), Row({"text": "b", "label": 0.0}, "F:2")]
    assert settle(Head(), score, rows[:1]).head_start == "random"  # type: ignore[attr-defined]
    assert settle(Head(), score, rows).head_start == "logistic"  # type: ignore[attr-defined]


def test_a_generation_has_no_classes() -> None:
    task = Generate(template="{text}").bind(get("llama"))
    with pytest.raises(UserError, match=r"no classes to score"):
        Head().build(task, contract.ROWS, 0)


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    base = get("llama")
    injection = contract.trained(Head(), base)()
    prompt = Prompt(
        injection.map(lambda t: t[:, :5] if t.dim() == 2 else t),
        contract.task_on(base),
        {"name": "n", "architecture": "causal", "fingerprint": base.fingerprint},
    )
    path = prompt.save(tmp_path / "p.safetensors")
    with pytest.raises(UserError, match=r"the head has shape \(3, 5\), and llama needs \(3, 32\)"):
        Prompt.load(path, base)
