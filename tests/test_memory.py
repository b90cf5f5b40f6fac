"""A run within a budget of memory: what it holds is foreseen, and what it learns is the same."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import foreword.engine.plan
from foreword.backbone.example import Example, common_lead
from foreword.engine import footprint as shapes
from foreword.engine.footprint import Curve, footprint
from foreword.engine.passes import differentiate, infer
from foreword.engine.plan import FEWEST, Load, PassPlan, usual_plan, within
from foreword.engine.tracked import Tracked
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.machine import bytes_of, is_mapped, let_go, room_of, shown
from foreword.methods.adapter import Adapter
from foreword.methods.full import Full
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.generate import Generate
from foreword.tasks.objective import Encoded, Parted
from foreword.training.settings import Training
from quick import first
from toys import TASK, TRAINING, Lines, get, rows, toy_run

METHODS = {
    "soft": Soft(length=3),
    "prefix": Prefix(length=5),
    "lora": Lora(rank=2),
    "adapter": Adapter(),
    "full": Full(),
}


def held(name: str, injection: Injection, examples: Sequence[Example]) -> tuple[int, int]:
    """The bytes of a pass over examples when it has been run, and the most while it goes back."""
    base = get(name)
    view = base.with_changes(injection)
    known = [*base.model.parameters(), *base.model.buffers(), *(t for _, t in injection.tensors())]
    with Tracked(known) as tracked:
        states = view.states(examples, injection)
        kept = tracked.now
        torch.autograd.backward(states, torch.ones_like(states))
    return kept, tracked.peak


def trained(name: str, method: str) -> Any:
    task = Generate(template="{text}:", completion_field="completion").bind(get(name))
    return task, METHODS[method].build(task, rows(12), 0)


# What is foreseen -----------------------------------------------------------------------------


def test_tensors_are_counted_while_they_stand() -> None:
    given = torch.zeros(100)
    with Tracked([given]) as tracked:
        one = given.view(10, 10)  # a view has no bytes of its own
        two = one + 1
        assert tracked.now == 400
        three = two * 2
        del two
        three.add_(1)
        assert (tracked.now, tracked.peak) == (400, 800)
        del three
    assert tracked.now == 0


@pytest.mark.parametrize("method", METHODS)
def test_what_a_pass_makes_goes_without_the_garbage_collector(method: str) -> None:
    """It would come late: the activations of a step would stand beside those of the next one."""
    base, trainable = get(), trained("llama", method)[1]

    def take_pass() -> int:
        injection = trainable()
        view = base.with_changes(injection)
        states = view.states([shapes._row(base, 9)] * 3, injection)
        scores = view.logits(states).sum()
        torch.autograd.grad(scores, trainable.parameters(), allow_unused=True)
        return states.nbytes

    size = take_pass()  # the first keeps what those after it use
    gc.collect()
    gc.disable()
    try:
        known = [*base.model.parameters(), *base.model.buffers(), *trainable.parameters()]
        with Tracked(known) as tracked:
            take_pass()
        assert tracked.now < size < tracked.peak / 10
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "method", "wrong", "recompute"),
    [("llama", "lora", 0.3, True), ("llama", "prefix", 0.001, False),
     ("gemma2", "prefix", 0.15, False), ("bert", "soft", 0.001, False),
     ("t5", "soft", 0.35, False)],
)  # fmt: skip
def test_a_few_tokens_tell_what_many_hold(
    name: str, method: str, wrong: float, recompute: bool
) -> None:
    base = get(name)
    injection = Injection(embeds=torch.zeros(2, base.width), leading=2)
    if method != "soft":
        injection = trained(name, method)[1]()
    injection = injection.map(lambda tensor: tensor.detach().clone().requires_grad_())
    found = footprint(base, injection, 0, recompute=recompute)
    base.checkpointing(recompute)
    try:
        for count, length in ((16, 16), (3, 60)):
            kept, most = held(name, injection, [shapes._row(base, length)] * count)
            tokens = count * length
            assert found.kept.of(tokens, length) >= 0.99 * kept
            assert found.most.of(tokens, length) == pytest.approx(most, rel=wrong)
    finally:
        base.checkpointing(False)


def test_tokens_within_a_size_are_those_that_hold_it() -> None:
    curve = Curve.fitted(lambda rows, length: 7 + rows * (5 + 3 * length + 2 * length**2))
    assert curve == Curve(7, 5, 3, 2)
    assert curve.of(40, 10) == 7 + 4 * (5 + 30 + 200)
    for size in (1000, 12_345):
        tokens = curve.tokens(size, 10)
        assert curve.of(tokens, 10) <= size < curve.of(tokens + 1, 10)


# The plan -------------------------------------------------------------------------------------


def load(examples: Sequence[Example], whole: bool = False) -> Load:
    longest = max(example.length for example in examples)
    targets = sum(len(example.targets) for example in examples)
    return Load(longest, 0, sum(example.length for example in examples), targets, 0, 0.0, whole)


@pytest.mark.parametrize("method", first(1, ["prefix", "lora"]))
def test_a_plan_keeps_its_budget_and_gives_the_loss_and_gradient_of_one_pass(method: str) -> None:
    base = get("llama", double=True)
    task = Generate(template="{text}:").bind(base)
    texts = ["film it was a", "and it was good", "bad " * 9, "a film"] * 3
    data = [replace(rows(1)[0], fields={"text": t, "completion": t * 2}) for t in texts]
    trainable = METHODS[method].build(task, data, 0)
    items = [task.train_example(row, 100) for row in data]
    examples = [item.example for item in items]
    asked, usual = load(examples), usual_plan(base)
    longest, lead = max(e.length for e in examples), common_lead(examples)

    def step(plan: PassPlan) -> tuple[float, list[Tensor], int]:
        parted = Parted(items)

        def loss(group: list[int], logits: Tensor) -> Tensor:
            assert len(logits) * base.vocabulary <= plan.scores
            right = [answer for item in parted.of(group, logits) for answer in item.example.answers]
            return F.cross_entropy(logits, torch.tensor(right), reduction="sum")

        known = [*base.model.parameters(), *base.model.buffers(), *trainable.parameters()]
        base.checkpointing(plan.recompute)
        try:
            with Tracked(known) as tracked:
                total = differentiate(
                    base, trainable, examples, lead, longest, plan.tokens, loss,
                    scores=plan.scores, split=task.sums_targets,
                )  # fmt: skip
        finally:
            base.checkpointing(False)
        found = [p.grad.clone() for p in trainable.parameters() if p.grad is not None]
        trainable.zero_grad()
        return total, found, tracked.peak

    whole, expected, most = step(usual)
    resident = shapes.resident_bytes(base, 0)
    plans = []
    less = footprint(base, trainable.outline, 0, recompute=True)
    least = int(less.peak(asked.longest, asked.longest, FEWEST)) + 2000
    for budget in (*(int(resident + share * most) for share in (1.5, 0.6)), least):
        plan = within(base, trainable.outline, asked, usual, budget, compiling=False)
        assert plan == within(base, trainable.outline, asked, usual, budget, compiling=False)
        total, found, peak = step(plan)
        assert total == pytest.approx(whole, rel=1e-12)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))
        assert plan.peak is not None
        assert resident + peak <= 1.02 * plan.peak <= 1.02 * budget
        plans.append(plan)
    assert plans[0].tokens >= asked.batch
    assert plans[1].tokens < plans[0].tokens
    assert not plans[1].recompute
    assert all(plan.tight for plan in plans[1:])
    plenty = within(
        base, trainable.outline, asked, usual, int(resident + 3 * most), compiling=False
    )
    assert not plenty.tight
    assert plans[-1].recompute == (method == "prefix")
    with pytest.raises(
        UserError, match=r"give shorter rows \(`max_length`; the longest has \d+ tok"
    ):
        within(base, trainable.outline, asked, usual, int(resident) + 1, compiling=False)


def test_compiling_goes_before_recomputing_and_passes_that_are_compared_stay_whole() -> None:
    base, outline = get(), Injection(embeds=torch.zeros(2, get().width), leading=2)
    asked, usual = Load(40, 2, 640, 16, 0, 0.0), usual_plan(get())
    found = footprint(base, outline, 0, recompute=False)
    most = found.peak(642, 40, 1)
    plenty, tight = int(most + 2 * shapes.COMPILER), int(most + shapes.COMPILER / 2)
    assert within(base, outline, asked, usual, plenty, compiling=True).compiles
    assert not within(base, outline, asked, usual, tight, compiling=True).compiles
    less = int(found.resident + 0.6 * (most - found.resident))
    assert within(base, outline, asked, usual, less, compiling=False).tokens < 640
    usual = replace(usual, scores=2**10)
    kept = within(base, outline, replace(asked, whole=True), usual, less, compiling=False)
    assert kept.tokens >= 640
    assert (kept.scores, kept.recompute) == (usual.scores, True)


def test_states_that_are_kept_take_half_of_what_is_left() -> None:
    base, outline = get(), Injection(embeds=torch.zeros(2, get().width), leading=2)
    asked = Load(10, 2, 10, FEWEST, 0, 1e9)
    floor = footprint(base, outline, 0, recompute=False).peak(12, 10, FEWEST)
    plan = within(base, outline, asked, usual_plan(base), int(floor + 1e6), compiling=False)
    assert plan.cached == pytest.approx(5e5, abs=1)


def test_of_a_file_that_is_mapped_only_what_is_read_stands_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(5000, 64)}, file)
    mapped = load_file(file)["w"]
    assert is_mapped(mapped.data_ptr()) == sys.platform.startswith("linux")
    assert not is_mapped(torch.ones(500_000).data_ptr())
    base = get("phi")  # whose input embeddings are not its output embeddings
    tied = get("gpt2")
    monkeypatch.setattr(shapes, "is_mapped", lambda place: False)
    whole, both = shapes.resident_bytes(base, 0), shapes.resident_bytes(tied, 0)
    assert shapes.resident_bytes(base, 10) - whole == 4 * shapes.KEPT * 10
    weight = base.model.get_input_embeddings().weight
    monkeypatch.setattr(shapes, "is_mapped", lambda place: True)
    assert whole - shapes.resident_bytes(base, 0) == weight.nbytes
    assert shapes.resident_bytes(tied, 0) == both > shapes.PIECE * tied.vocabulary
    monkeypatch.setattr(shapes, "AROUND", 1000)
    read = shapes.resident_bytes(base, 0, pieces=3) - shapes.resident_bytes(base, 0)
    assert read == 3000 < weight.nbytes
    assert shapes.resident_bytes(base, 0, pieces=10**6) == whole


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's /proc")
def test_what_is_let_go_of_a_file_is_read_again(tmp_path: Path) -> None:
    def read_of_files() -> int:
        found = re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))
        assert found is not None
        return 1024 * int(found[1])

    size = 64 << 20
    save_file({"w": torch.arange(size // 4, dtype=torch.float32)}, tmp_path / "w.safetensors")
    mapped, own = load_file(tmp_path / "w.safetensors")["w"], torch.ones(size // 4)
    total = float(mapped.double().sum())
    before = read_of_files()
    let_go([(mapped.data_ptr(), mapped.nbytes), (own.data_ptr(), own.nbytes)])
    assert read_of_files() < before - size // 2
    assert float(mapped.double().sum()) == total
    assert float(own.sum()) == size // 4


# Runs -----------------------------------------------------------------------------------------


def budget_for(share: float) -> str:
    """A budget that leaves passes of the toy run so much of what they hold."""
    outline = Soft(length=3).build(TASK.bind(get()), rows(4), 0).outline
    found = footprint(get(), outline, 3 * get().width, recompute=False)
    whole = found.most.of(16 * 4 + 3, 16)
    return f"{(found.resident + share * whole) / 1e6}MB"


def test_a_run_within_a_budget_ends_where_it_would_without(tmp_path: Path) -> None:
    said: list[str] = []
    plain = toy_run(None)
    training = replace(TRAINING, memory=budget_for(0.18))
    first = toy_run(tmp_path / "1.safetensors", training=training, report=Lines(said))
    for name, tensor in plain.injection.tensors():
        torch.testing.assert_close(dict(first.injection.tensors())[name], tensor)
    assert first.scores == plain.scores
    (line,) = [line for line in said if line.startswith("`memory=")]
    assert "layers recomputed" in line
    toy_run(tmp_path / "2.safetensors", training=training)
    files = [(tmp_path / f"{n}.safetensors").read_bytes() for n in (1, 2)]
    assert files[0] == files[1]


def test_a_run_that_does_not_fit_says_so_before_it_starts(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    with pytest.raises(UserError) as caught:
        toy_run(out, training=replace(TRAINING, memory="200MB"))
    assert re.fullmatch(
        r"`memory` is 0\.20 GB, and this run takes 0\.49 GB at the least, 0\.49 GB of it for "
        r"the model and the libraries; give `dtype=bfloat16`, which halves the model, "
        r"or a smaller model",
        str(caught.value),
    )
    assert not list(tmp_path.iterdir())


def test_a_machine_without_the_memory_is_named_with_the_flag_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[float] = []
    plain = shapes.footprint

    def count(*given: Any, **named: Any) -> Any:
        tried.append(1)
        return plain(*given, **named)

    monkeypatch.setattr(foreword.engine.plan, "footprint", count)
    toy_run(None)
    assert not tried, "a run that fits is not tried out"
    monkeypatch.setattr(shapes, "LIBRARIES", 0)
    resident = shapes.resident_bytes(get(), 0)
    huge = Training(batch_size=4, epochs=1, token_budget=10**9)
    long = [replace(r, fields={**r.fields, "text": "film " * 400}) for r in rows(12)]
    room = int(resident + 4e6)
    monkeypatch.setattr(foreword.engine.plan, "room_of", lambda device: room)
    with pytest.raises(UserError, match=r"this run takes .* are free; `memory=\d\.\dGB` keeps it"):
        toy_run(None, train=long, training=huge)
    assert tried
    monkeypatch.setattr(foreword.engine.plan, "room_of", lambda device: int(resident))
    with pytest.raises(UserError, match="are free; give `dtype=bfloat16`, which"):
        toy_run(None, train=long, training=huge)


# Scores of some targets at a time -------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_row_may_be_scored_in_parts(most: int) -> None:
    base = get()
    task = Generate(template="{text}:").bind(base)
    data = [replace(r, fields={"text": "a film", "completion": "it was " * n})
            for n, r in enumerate(rows(4), 1)]  # fmt: skip
    items = [task.dev_example(row, 100) for row in data]
    examples = [item.example for item in items]
    scores = most * base.vocabulary

    def summed(**how: Any) -> tuple[list[float], list[int]]:
        parted, totals, sizes = Parted(items), [0.0] * len(items), list[int]()
        for group, logits in infer(base, Injection(), examples, **how):
            sizes.append(len(logits))
            own: list[Encoded] = parted.of(group, logits)
            assert [e.gold for e in own] == [len(e.example.targets) for e in own]
            for row, value in zip(group, task.losses(logits, own).tolist(), strict=True):
                totals[row] += value
        return totals, sizes

    expected, (one,) = summed()
    found, sizes = summed(scores=scores, split=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert max(sizes) <= most
    assert sum(sizes) == one
    rest, sizes = summed(scores=scores)
    assert rest == pytest.approx(expected, rel=1e-5)
    assert len(sizes) <= len(items)


# Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("3.5 gb", 3_500_000_000), ("800MiB", 800 * 2**20), ("1TB", 10**12)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["4", "", "GB", "-4GB", "0GB", "4KB", "4 G", "1e3GB", "four GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"`memory` is .*; give a size with its unit, such as 4GB"):
        Training(memory=text).check()


def test_sizes_are_shown_rounded_up() -> None:
    assert [shown(n) for n in (1, 10**8, 3.211e9, 4e9)] == [
        "0.01 GB",
        "0.10 GB",
        "3.22 GB",
        "4.00 GB",
    ]


def test_the_room_is_what_is_held_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = room_of(torch.device("cpu"))
    assert found is None or found > 10**8
    assert room_of(torch.device("meta")) is None
    read: Callable[..., str] = Path.read_text
    files = {
        "/proc/meminfo": "MemAvailable: 1000 kB\nSwapFree: 24 kB\n",
        "/proc/self/status": "VmRSS:\t 100 kB\n",
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": "max\n",
        "/sys/fs/cgroup/memory.current": "512000",
        "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 1024\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: files[str(path)])
    assert room_of(torch.device("cpu")) == 1124 * 1024
    files["/sys/fs/cgroup/memory.max"] = "1024000"
    assert room_of(torch.device("cpu")) == 100 * 1024 + 1024000 - 512000 + 1024
    monkeypatch.setattr(Path, "read_text", read)
