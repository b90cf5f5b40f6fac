"""The engine: whatever is shared and however rows are grouped, the same losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from families import CAUSAL, MASKED, SEQ2SEQ, UNREACHED, WINDOWED, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, common_lead, lines
from foreword.data.row import Row
from foreword.engine.groups import buckets, share, token_budget
from foreword.engine.passes import LOGITS, differentiate, infer
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.base import Method, Trainable
from foreword.methods.parts.prefixes import Reparameterized
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from quick import first

FAMILIES: dict[str, Family] = {
    f.name: f for f in [*CAUSAL, MASKED[0], SEQ2SEQ[1], UNREACHED[0]]
} | {"mistral-window": WINDOWED[0]}
# Exact in float64: the others compute norms or a softmax in float32 whatever the weights.
DOUBLE = ["gpt2", "opt", "gpt_neox", "phi"]
LEAD = "a good film and a bad film and it was good : "
TEXTS = ["a film", "it was bad", "good", "bad film and good film and XYZ", "it", "a bad bad film"]
ROWS = [
    Row({"text": text, "label": label, "completion": f"{text} {label}"}, "F")
    for text, label in zip(TEXTS, ["good", "bad", "fine"] * 2, strict=True)
]
LABELS = {"good": " good", "bad": (" bad", " a bad film"), "fine": " good film"}


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name], dtype=torch.float64 if name in DOUBLE else torch.float32)


METHODS: dict[str, tuple[Method, str]] = {
    "soft": (Soft(length=5), ""),
    "soft in the template": (Soft(), "[soft:2]{text} it [soft:3]:"),
    "soft and a lead in the template": (Soft(), f"{LEAD}[soft:2]{{text}}:"),
    "prefix": (Prefix(shots=2), ""),
    "upper prefix": (Prefix(length=3, start="random", first_layer=1), ""),
    "prefix by MLP": (Prefix(shots=2, reparameterize=4), ""),
}


def started(name: str, method: str, lead: str, kind: str) -> tuple[Bound, Trainable]:
    how, template = METHODS[method]
    template = template or f"{lead}{{text}}:"
    task: Bound
    if kind == "classify":
        task = Classify(template=template, labels=LABELS).bind(get(name))
    else:
        task = Generate(template=template).bind(get(name))
    trainable = how.build(task, ROWS, 0)
    if isinstance(trainable, Reparameterized):  # at zero, nothing behind it would get a gradient
        torch.nn.init.normal_(trainable.outer, generator=torch.Generator().manual_seed(1))
    return task, trainable


def loss_of(examples: Sequence[Example], logits: Tensor) -> Tensor:
    """Some loss of every logit that comes back, in the precision that it comes in."""
    places = [place for example in examples for place in example.targets]
    size = [len(e.ids) for e in examples for _ in e.targets]
    target = torch.tensor([(7 * n + 5 * j) % 150 for n, (_, j) in zip(size, places, strict=True)])
    return F.cross_entropy(logits, target, reduction="sum")


def gradients(trainable: Trainable) -> dict[str, Tensor]:
    found = {n: p.grad for n, p in trainable.named_parameters() if p.requires_grad}
    assert found
    made = {n: g.clone() for n, g in found.items() if g is not None}
    assert made.keys() == found.keys()
    trainable.zero_grad()
    return made


@pytest.mark.parametrize("kind", ["classify", "generate"])
@pytest.mark.parametrize("lead", ["", LEAD])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", first(1, ["gpt2", "phi"]))
def test_any_budget_gives_the_loss_and_gradient_of_one_plain_pass(
    name: str, method: str, lead: str, kind: str
) -> None:
    base = get(name)
    task, trainable = started(name, method, lead, kind)
    examples = [task.train_example(row, 500).example for row in ROWS]
    plain = loss_of(examples, base.logits(base.states(examples, trainable())))
    plain.backward()
    expected = gradients(trainable)
    common = common_lead(examples)
    longest = max(e.length for e in examples)
    if lead:
        assert len(common) >= 8 or "template" in method
    for budget in (1, 40, 10_000):
        groups: list[int] = []

        def loss(group: list[int], logits: Tensor, groups: list[int] = groups) -> Tensor:
            groups += group
            return loss_of([examples[i] for i in group], logits)

        total = differentiate(base, trainable, examples, common, longest, budget, loss)
        assert sorted(groups) == list(range(len(ROWS)))
        assert total == pytest.approx(float(plain.detach()), rel=1e-9)
        for parameter, grad in gradients(trainable).items():
            scale = float(expected[parameter].abs().max())
            assert scale > 0
            torch.testing.assert_close(grad, expected[parameter], rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("method", ["soft", "prefix"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_its_plain_pass(name: str, method: str) -> None:
    base = get(name)
    if method == "prefix" and not base.sites:
        pytest.skip("takes no prefix")
    how = {"soft": Soft(length=3), "prefix": Prefix(length=3, start="text")}[method]
    template = f"{LEAD}{{text}} [mask]" if base.architecture == "masked" else f"{LEAD}{{text}}:"
    task = Classify(template=template, labels=LABELS).bind(base)
    trainable = how.build(task, ROWS, 0)
    examples = [task.train_example(row, 100).example for row in ROWS]
    plain = loss_of(examples, base.logits(base.states(examples, trainable())))
    plain.backward()
    expected = gradients(trainable)

    def loss(group: list[int], logits: Tensor) -> Tensor:
        return loss_of([examples[i] for i in group], logits)

    common, longest = common_lead(examples), max(e.length for e in examples)
    total = differentiate(base, trainable, examples, common, longest, 60, loss)
    assert total == pytest.approx(float(plain.detach()), rel=1e-4)
    for parameter, grad in gradients(trainable).items():
        scale = float(expected[parameter].abs().max())
        torch.testing.assert_close(grad, expected[parameter], rtol=1e-2, atol=1e-3 * scale)


def test_gradients_add_up_to_what_is_there() -> None:
    task, trainable = started("gpt2", "soft", "", "generate")
    examples = [task.train_example(row, 500).example for row in ROWS]

    def once() -> None:
        differentiate(
            get("gpt2"),
            trainable,
            examples,
            (),
            60,
            99,
            lambda g, x: loss_of([examples[i] for i in g], x),
        )

    once()
    single = gradients(trainable)
    once()
    once()
    for name, grad in gradients(trainable).items():
        torch.testing.assert_close(grad, 2 * single[name])


# What is shared -------------------------------------------------------------------------------


def test_leading_tokens_are_read_once_where_that_is_exact() -> None:
    soft = Injection(embeds=torch.randn(3, 32, dtype=torch.float64), leading=3)
    with torch.no_grad():
        folded = share(get("gpt2"), soft, (9,) * 8, 20)
        assert isinstance(folded.injection, Injection)
        assert (folded.injection.leading, folded.injection.positions, folded.lead) == (0, 11, 8)
        short = share(get("gpt2"), soft, (9,) * 7, 20)
        assert short.lead == 0
        assert share(get("gpt2"), NOTHING, (9,) * 7, 20).injection is NOTHING
        assert share(get("gpt2"), NOTHING, (9,) * 8, 20).lead == 8
        window = share(get("mistral-window"), soft.map(torch.Tensor.float), (9,) * 8, 20)
        assert (window.injection.leading, window.lead) == (3, 0)  # type: ignore[union-attr]
        masked = share(get("bert"), soft.map(torch.Tensor.float), (9,) * 8, 20)
        assert (masked.injection.leading, masked.lead) == (3, 0)  # type: ignore[union-attr]


class Counter:
    """Counts the tokens that a model runs."""

    def __init__(self, base: Backbone) -> None:
        self.tokens = self.calls = 0
        self.hook = base.model.base_model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, _: object, args: object, kwargs: dict[str, Tensor]) -> None:
        self.calls += 1
        given = kwargs.get("inputs_embeds")
        self.tokens += (kwargs["input_ids"] if given is None else given[..., 0]).numel()


def test_a_shared_lead_is_not_run_for_every_row() -> None:
    task, trainable = started("gpt2", "soft", LEAD, "classify")
    examples = [task.dev_example(row, 500).example for row in ROWS]
    common = common_lead(examples)
    with torch.no_grad():
        list(infer(get("gpt2"), trainable(), examples, 10_000))  # tries the model, once
    assert get("gpt2").can_prefill
    counter = Counter(get("gpt2"))
    with torch.no_grad():
        list(infer(get("gpt2"), trainable(), examples, 10_000))
    counter.hook.remove()
    trees = [lines(e.after(len(common)), tree=True)[0][0] for e in examples]
    assert counter.tokens == 5 + len(common) + sum(len(line.tokens) for line in trees)


def test_one_row_takes_one_pass() -> None:
    task, trainable = started("gpt2", "soft", LEAD, "classify")
    row = [task.dev_example(ROWS[0], 500).example]
    counter = Counter(get("gpt2"))
    ((_, logits),) = infer(get("gpt2"), trainable(), row)
    counter.hook.remove()
    assert counter.calls == 1
    many = [task.dev_example(each, 500).example for each in ROWS]
    found = {
        n: scores
        for group, s in infer(get("gpt2"), trainable(), many, 1)
        for n in group
        for scores in [s]
    }
    assert torch.allclose(found[0], logits, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_one_pass_reads_the_lead_with_its_rows_and_nothing_twice(name: str) -> None:
    base = get(name)
    answer = " [mask]" if name == "bert" else ""
    task = Classify(template=f"{LEAD}{{text}}:{answer}", labels=LABELS).bind(base)
    trainable = Soft(length=5).build(task, ROWS, 0)
    examples = [task.train_example(row, 100).example for row in ROWS]
    common, longest = common_lead(examples), max(e.length for e in examples)

    def once() -> None:
        differentiate(
            base,
            trainable,
            examples,
            common,
            longest,
            10_000,
            lambda rows, logits: loss_of([examples[i] for i in rows], logits),
        )

    once()  # what is tried once for a model is not counted
    counter = Counter(base)
    once()
    counter.hook.remove()
    assert counter.calls == 1
    if name == "gpt2":
        own = [lines(e.after(len(common)), tree=True)[0][0] for e in examples]
        assert counter.tokens == 5 + len(common) + sum(len(line.tokens) for line in own)
    else:
        rows = [line for e in examples for line in lines(e, tree=False)[0]]
        assert counter.tokens == len(rows) * (5 + max(len(line.tokens) for line in rows))


@pytest.mark.parametrize("kind", ["classify", "generate"])
def test_scores_are_asked_for_a_few_rows_at_a_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, trainable = started("gpt2", "prefix", "", kind)
    examples = [task.train_example(row, 500).example for row in ROWS]
    most = max(len(e.targets) for e in examples)

    def run() -> tuple[float, dict[str, Tensor], list[int]]:
        sizes: list[int] = []

        def loss(rows: list[int], logits: Tensor) -> Tensor:
            sizes.append(len(logits))
            return loss_of([examples[i] for i in rows], logits)

        total = differentiate(get("gpt2"), trainable, examples, (), 60, 10_000, loss)
        return total, gradients(trainable), sizes

    whole, expected, one = run()
    assert len(one) == 1
    monkeypatch.setitem(LOGITS, "cpu", most * get("gpt2").vocabulary)
    total, found, parts = run()
    assert sum(parts) == sum(one)
    assert len(parts) > 1
    assert max(parts) <= most
    assert total == pytest.approx(whole, rel=1e-12)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-9, atol=1e-12)
    seen = {
        row: logits for rows, logits in infer(get("gpt2"), trainable(), examples) for row in rows
    }
    assert seen.keys() == set(range(len(ROWS)))


def test_label_scores_touch_the_label_words_rows_alone() -> None:
    task, _ = started("gpt2", "prefix", "", "classify")
    assert task.tokens is not None
    assert len(task.tokens) < 10
    examples = [task.train_example(row, 500) for row in ROWS]
    states = get("gpt2").states([e.example for e in examples])
    narrow = task.losses(get("gpt2").logits(states, task.tokens), examples)
    wide = get("gpt2").logits(states)[:, list(task.tokens)]
    torch.testing.assert_close(narrow, task.losses(wide, examples), rtol=1e-12, atol=1e-12)


# Inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_inference_gives_each_row_its_own_logits(name: str) -> None:
    base = get(name)
    template = f"{LEAD}{{text}} [mask]" if base.architecture == "masked" else f"{LEAD}{{text}}:"
    task = Classify(template=template, labels=LABELS).bind(base)
    examples = [task.dev_example(row, 100).example for row in ROWS]
    embeds = base.embed(range(20, 24)).clone()
    parts = (NOTHING, Injection(embeds=embeds, leading=4))
    owners = (0, 1, 1, 0, 1, 0)
    for injection in (parts[1], Mixture(parts, owners)):
        seen: list[int] = []
        for group, logits in infer(base, injection, examples, 60):
            at = 0
            for i in group:
                size = len(examples[i].targets)
                part = injection if isinstance(injection, Injection) else parts[owners[i]]
                with torch.no_grad():
                    alone = base.logits(base.states([examples[i]], part))
                torch.testing.assert_close(logits[at : at + size], alone, rtol=1e-4, atol=1e-5)
                at += size
            assert at == len(logits)
            seen += group
        assert sorted(seen) == list(range(len(ROWS)))


def test_inference_leaves_gradients_on_for_who_iterates() -> None:
    task = Classify(template="{text}:", labels=LABELS).bind(get("gpt2"))
    examples = [task.dev_example(row, 100).example for row in ROWS]
    running = infer(get("gpt2"), NOTHING, examples, 1)
    _, logits = next(running)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not logits.requires_grad
    running.close()


def test_nothing_to_infer() -> None:
    assert list(infer(get("gpt2"), NOTHING, [])) == []
    assert token_budget(get("gpt2")) > 0


# Buckets --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_buckets_part_the_rows_within_the_budget(sizes: list[int], budget: int) -> None:
    groups = buckets(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    assert all(groups)
    for group in groups:
        longest = max(sizes[i] for i in group)
        assert longest * len(group) <= budget or len(group) == 1
    order = [sizes[i] for group in groups for i in group]
    assert order == sorted(sizes, reverse=True)
    for group, following in pairwise(groups):  # none could take one more
        assert max(sizes[i] for i in group) * (len(group) + 1) > budget, following


def test_a_mean_over_many_targets_reaches_a_prompt_in_float16() -> None:
    """What one target adds to it, a twenty millionth here, is zero in that type."""
    rows, noise = 2048, torch.Generator().manual_seed(0)
    start = 0.1 * torch.randn(2, 32, generator=noise)
    examples = [Example((3, 4), 2, ((),), ((0, -1),))] * rows

    def gradient(dtype: torch.dtype) -> Tensor:
        embeds = start.clone().requires_grad_()
        differentiate(
            backbone(FAMILIES["llama"], dtype=dtype),
            lambda: Injection(embeds=embeds, leading=2),
            examples,
            (),
            2,
            10_000,
            lambda group, logits: 5e-5 / rows * (logits[:, 5] - logits[:, 6]).float().sum(),
        )
        assert embeds.grad is not None
        return embeds.grad

    exact, found = gradient(torch.float32), gradient(torch.float16)
    assert float((found - exact).norm()) < 0.1 * float(exact.norm())
