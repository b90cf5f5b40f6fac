"""Training: what is learned, which parameters are kept, and what stops a run."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import datasets
import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

import foreword.engine.lower_layers
import foreword.training.loop
import language
from foreword.backbone.backbone import Backbone
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.engine.lower_layers import LowerLayers
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.base import Method, Trainable
from foreword.methods.prefix import Prefix
from foreword.methods.registry import METHODS
from foreword.methods.soft import Soft, SoftPrompt
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT, Reporters
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.objective import Encoded
from foreword.training import checkpoint, dev_score
from foreword.training.interrupt import Enough
from foreword.training.log import log_path
from foreword.training.prepare import prepare, rows_for
from foreword.training.settings import Training
from foreword.training.tune import tune
from foreword.training.world import World
from plain import twin
from quick import first
from teaching import SEED
from toys import (
    TASK,
    TRAINING,
    Counts,
    Lines,
    Recorder,
    get,
    on_the_run,
    rows,
    scripted,
    toy_run,
    write,
)

OUT = "p.safetensors"


def tensors(prompt: Prompt) -> dict[str, Tensor]:
    return dict(prompt.injection.tensors())


def furthest(one: Prompt, two: Prompt) -> float:
    """The largest difference of any two numbers."""
    other = tensors(two)
    return max(float((tensor - other[name]).abs().max()) for name, tensor in tensors(one).items())


# The same seed, the same bytes --------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    made = []
    for seed in (0, 0, 1):
        toy_run(tmp_path / OUT, training=replace(TRAINING, seed=seed))
        made.append((tmp_path / OUT).read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.log.jsonl", OUT]


def test_the_prompt_in_hand_is_the_one_in_the_file(tmp_path: Path) -> None:
    prompt = toy_run(tmp_path / OUT)
    loaded = Prompt.load(tmp_path / OUT, get())
    assert furthest(prompt, loaded) == 0
    texts = [str(row.fields["text"]) for row in rows(6)]
    assert loaded.predict(texts) == prompt.predict(texts)
    assert loaded.method["name"] == "soft"
    assert loaded.method["training"] == plain(TRAINING.settled())
    assert [loaded.data[part]["rows"] for part in ("train", "dev")] == [12, 6]
    assert loaded.scores["dev"].keys() == {"accuracy", "rows"}
    assert furthest(prompt, toy_run(None)) == 0


def test_files_and_rows_are_the_same_data(tmp_path: Path) -> None:
    train, dev = write(tmp_path / "t.jsonl", rows(12)), write(tmp_path / "d.jsonl", rows(6, 100))
    read, given_rows = toy_run(None, train=train, dev=str(dev)), toy_run(None)
    assert furthest(read, given_rows) == 0
    assert read.data == given_rows.data


@pytest.mark.parametrize("hold", [list, pandas.DataFrame, datasets.Dataset.from_list])
def test_rows_in_memory_give_the_bytes_and_scores_of_a_file(tmp_path: Path, hold: Any) -> None:
    kept = {"train": rows(12), "dev": rows(6, 100)}
    files = {name: write(tmp_path / f"{name}.jsonl", own) for name, own in kept.items()}
    held = {name: hold([dict(row.fields) for row in own]) for name, own in kept.items()}
    from_file = toy_run(tmp_path / "file.safetensors", **files)
    in_memory = toy_run(tmp_path / "memory.safetensors", **held)
    saved = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("file", "memory")]
    assert saved[0] == saved[1]
    assert evaluate(in_memory, held["dev"]) == evaluate(from_file, files["dev"])


def test_a_tenth_is_held_back_without_dev_rows(tmp_path: Path) -> None:
    said: list[str] = []
    prompt = toy_run(None, train=rows(40), dev=None, report=Lines(said))
    assert [prompt.data[part]["rows"] for part in ("train", "dev")] == [36, 4]
    assert said == ["no dev rows given: 4 of the training rows are held back"]


TEN_LABELS = Classify(template="{text} :", labels={f"kind {n}": f" {n}" for n in range(10)})


def test_rows_held_back_leave_every_label_in_train() -> None:
    labels = [f"kind {n % 10}" for n in range(20)]
    given = [Row({"text": f"text {n}", "label": own}, "") for n, own in enumerate(labels)]
    for seed in range(20):
        _, train, dev = rows_for(get(), TEN_LABELS, given, None, Training(seed=seed), SILENT)
        assert len(dev) == 2
        assert {row.fields["label"] for row in train} == set(labels)


def test_few_dev_rows_are_scored_between_steps_and_all_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    recorder, counts, out = Recorder(), Counts(), tmp_path / OUT
    dev, training = rows(40, 100, "dev.jsonl"), replace(TRAINING, dev_sample=10)
    report = Reporters([recorder, counts, Lines(said)])
    prompt = toy_run(out, dev=dev, training=training, report=report)
    assert on_the_run(said) == [
        "10 of 40 dev rows are scored between steps (`dev_sample`), all of them at the end"
    ]
    assert counts.heard["dev rows"] == (40, [40])
    scores = recorder.of("score")
    assert prompt.scores["dev"] == {"accuracy": scores[-1], "rows": 40}
    assert scores[-1] == evaluate(prompt, dev)["accuracy"]
    last = [json.loads(line) for line in log_path(out).read_text().splitlines()][-1]
    assert (last["step"], last["metric"]) == (9, "accuracy of all rows")


def test_a_time_that_ends_while_all_dev_rows_are_scored_takes_nothing() -> None:
    class Ends(Counts):
        @contextlib.contextmanager
        def bar(self, name: str, total: int) -> Iterator[Any]:
            once = total == 40 and "all" not in self.heard
            with super().bar("all" if total == 40 else name, total) as move:
                yield move
            if once:
                raise Enough

    given = {"dev": rows(40, 100), "training": replace(TRAINING, dev_sample=10)}
    whole, ended = toy_run(None, **given), toy_run(None, report=Ends(), **given)
    assert ended.scores == whole.scores
    assert torch.equal(ended.injection.embeds, whole.injection.embeds)


def test_the_sample_has_every_label_and_chooses_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    dev = [replace(row, fields={**row.fields, "label": "good" if n % 5 else "bad"})
           for n, row in enumerate(rows(20))]  # fmt: skip
    judged: list[list[int]] = []

    def judge(bound: Classifier, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        judged.append(sorted(item.gold for item in items))
        return (90.0 if len(judged) == 2 else 10.0) * len(items), len(items)

    monkeypatch.setattr(Classifier, "dev_counts", judge)
    found = toy_run(None, dev=dev, training=replace(STEADY, epochs=3, dev_sample=5))
    assert judged[:4] == [[0, 0, 0, 0, 1]] * 4
    assert sum(map(len, judged[4:])) == 20
    assert found.scores["dev"] == {"accuracy": 10.0, "rows": 20}
    after_one = toy_run(None, training=replace(STEADY, epochs=1))
    assert furthest(found, after_one) == 0


def test_rows_that_were_cut_are_announced() -> None:
    said: list[str] = []
    task = replace(TASK, max_length=12)
    long = [Row({**row.fields, "text": "film " * 20}, row.where) for row in rows(3)]
    toy_run(None, task=task, train=[*rows(12), *long], report=Lines(said))
    assert said[0] == "3 of 15 training rows were too long and were cut"


def test_the_backbone_is_left_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in get().model.state_dict().items()}
    toy_run(None, training=replace(TRAINING, checkpointing=True))
    after = get().model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in get().model.parameters())
    assert not any(module.training for module in get().model.modules())


# The arithmetic of a step -------------------------------------------------------------------------


@given(
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
    warmup=st.floats(0, 1),
    steps=st.integers(1, 300),
)
def test_the_learning_rate_rises_then_falls(schedule: Any, warmup: float, steps: int) -> None:
    training = Training(schedule=schedule, warmup=warmup)
    factors = [training.factor(step, steps) for step in range(steps)]
    rising = round(warmup * steps)
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[:rising] == pytest.approx([i / rising for i in range(rising)])
    assert all(a >= b > 0 for a, b in itertools.pairwise(factors[rising:]))
    if schedule == "constant":
        assert set(factors[rising:]) <= {1.0}


def test_the_schedules_have_their_textbook_values() -> None:
    linear = Training(schedule="linear", warmup=0.2)
    assert [linear.factor(i, 10) for i in range(10)] == pytest.approx(
        [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    cosine = Training(schedule="cosine", warmup=0.2)
    assert [cosine.factor(i, 10) for i in range(10)] == pytest.approx(
        [0, 0.5, *((1 + math.cos(math.pi * i / 8)) / 2 for i in range(8))]
    )


def test_the_rate_that_is_logged_is_the_rate_times_the_schedule() -> None:
    training = replace(TRAINING, rate=0.3, schedule="cosine", warmup=0.3)
    recorder = Recorder()
    toy_run(None, training=training, report=recorder)
    found = [values["rate"] for values in recorder.of("step")]
    assert found == pytest.approx([0.3 * training.factor(i, 9) for i in range(9)])


def test_one_step_is_adamw() -> None:
    """The first step of AdamW moves every number by the rate, against its gradient's sign."""
    training = Training(epochs=1, batch_size=12, rate=0.01, warmup=0, weight_decay=0.5)
    method = Soft(length=3)
    start = method.build(TASK.bind(get()), rows(12), 0)().embeds
    made = toy_run(None, training=training).injection.embeds
    assert start is not None
    assert made is not None
    moved = made - start.detach() * (1 - 0.01 * 0.5)
    assert moved.abs().tolist() == [pytest.approx([0.01] * 32, rel=0.02)] * 3


def test_a_gradient_is_clipped_to_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        norms.append(float(self.param_groups[0]["params"][0].grad.norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    recorder = Recorder()
    toy_run(None, training=replace(TRAINING, clip=1e-3), report=recorder)
    assert norms == pytest.approx([1e-3] * 9, rel=1e-2)
    assert all(values["norm"] > 2e-3 for values in recorder.of("step"))  # what it was before


@pytest.mark.parametrize("kind", first(1, ["generate", "classify"]))
@pytest.mark.parametrize("method", [Soft(length=3), Prefix(length=3, start="vocabulary")], ids=str)
def test_any_token_budget_gives_the_same_parameters(kind: str, method: Method) -> None:
    task = TASK if kind == "classify" else Generate(template="{text}:")
    varied = [
        Row(
            {**r.fields, "text": "it " * (1 + 5 * i % 7), "completion": "a film " * (1 + i % 3)}, ""
        )
        for i, r in enumerate(rows(12))
    ]
    made, passes = [], []
    for budget in (1, 40, 100_000):
        recorder = Recorder()
        made.append(
            tune(
                get("gpt2", double=True),
                task,
                method,
                varied,
                rows(4, 100),
                training=replace(TRAINING, batch_size=6, rate=0.01, token_budget=budget),
                report=recorder,
            )
        )
        passes.append([values["loss"] for values in recorder.of("step")])
    assert max(furthest(made[0], other) for other in made[1:]) < 1e-6
    assert passes[0] == pytest.approx(passes[1], abs=1e-6)
    assert passes[0] == pytest.approx(passes[2], abs=1e-6)


# The frozen trunk and compiled layers -------------------------------------------------------------

UPPER = Prefix(length=3, start="vocabulary", upper=0.5)


@pytest.mark.parametrize("kind", ["classify", "generate"])
@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_an_upper_prefix_is_trained_as_without_its_trunk(
    kind: str, memory: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path))
    monkeypatch.setattr(foreword.engine.lower_layers, "_CACHED", WeakKeyDictionary())
    task = TASK if kind == "classify" else Generate(template="{text}:")
    training = replace(TRAINING, rate=0.01, cache_gb=memory)
    found, plain = Recorder(), Recorder()
    with_trunk = toy_run(None, task=task, method=UPPER, training=training, report=found)
    assert bool(list(tmp_path.glob("trunk/*.states"))) == (memory == 0)
    monkeypatch.setattr(LowerLayers, "depth_under", lambda *_: 0)
    without = toy_run(None, task=task, method=UPPER, training=training, report=plain)
    lowest = {get().sites[site].layer for site in with_trunk.injection.kv}
    assert min(lowest) > 0
    assert furthest(with_trunk, without) < 1e-5
    assert found.of("score") == pytest.approx(plain.of("score"), abs=1e-5)
    losses = [[v["loss"] for v in each.of("step")] for each in (found, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_share_of_the_layers_is_counted_from_the_top() -> None:
    depth = len({site.layer for site in get().sites.values()})
    for share, layers in ((1.0, depth), (0.5, round(depth / 2)), (0.01, 1)):
        prompt = toy_run(None, method=replace(UPPER, upper=share))
        assert len(prompt.injection.kv) == layers
    for method, line in (
        (replace(UPPER, upper=0.0), "`upper=0`: give a share"),
        (replace(UPPER, upper=1.5), "`upper=1.5`: give a share"),
        (replace(UPPER, first_layer=1), "give one"),
    ):
        with pytest.raises(UserError, match=line):
            toy_run(None, method=method)


def test_a_run_is_compiled_on_demand_and_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Backbone, "compiling", lambda self, on: asked.append(on))
    monkeypatch.setattr(get(), "compilable", None)
    toy_run(None)
    toy_run(None, training=replace(TRAINING, compile="on"))
    assert asked == [False, True, False]
    monkeypatch.setattr(foreword.training.settings, "WORTH_COMPILING", 1)
    toy_run(None, training=replace(TRAINING, compile="off"))
    toy_run(None)
    assert asked[3:] == [False, True, False]
    monkeypatch.setattr(get(), "compilable", "there is no C++ compiler")
    toy_run(None)
    assert asked[6:] == [False]
    with pytest.raises(UserError, match="`compile=on`: there is no C"):
        toy_run(None, training=replace(TRAINING, compile="on"))


def test_a_run_that_goes_on_is_compiled_as_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps decide: compiled layers differ in the last bit."""
    monkeypatch.setattr(get(), "compilable", None)
    monkeypatch.setattr(foreword.training.settings, "WORTH_COMPILING", 9)
    _, _, run = prepare(
        get(), TASK, Soft(length=3), rows(12), rows(6, 100), replace(TRAINING, epochs=3), SILENT
    )
    assert run.steps == 9
    assert run.compiles()
    run.state.progress.step = 8
    assert run.compiles()


def test_the_loss_of_a_generation_is_the_mean_over_all_target_tokens() -> None:
    """Against the plain model, which reads the words that the virtual tokens start from."""
    base = get()
    words = base.text.ids("it was a film")
    data = [Row({"text": "a " * n, "completion": "good film " * n}, f"F:{n}") for n in (1, 2, 3, 5)]
    method = Soft(start="text", start_text="it was a film", length=len(words))
    recorder = Recorder()
    training = Training(epochs=1, batch_size=4, token_budget=1)
    tune(base, Generate("{text}:"), method, data, data, training=training, report=recorder)
    model, total, count = twin(base), 0.0, 0
    for row in data:
        before = [*words, *base.text.ids(f"{row.fields['text']}:")]
        answer = base.text.ids(f" {row.fields['completion']}")
        assert base.text.end is not None
        ids = torch.tensor([[*before, *answer, base.text.end]])
        logits = model(ids).logits[0, len(before) - 1 : -1]
        total += float(F.cross_entropy(logits, ids[0, len(before) :], reduction="sum").detach())
        count += len(answer) + 1
    assert recorder.of("step")[0]["loss"] == pytest.approx(total / count, rel=1e-5)
    assert recorder.of("score")[0] == pytest.approx(-total / count, rel=1e-5)


def test_an_epoch_sees_every_row_once_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []
    original = Classifier.losses

    def watched(self: Classifier, logits: Tensor, items: Sequence[Any]) -> Tensor:
        seen.extend(item.example.ids for item in items)
        return original(self, logits, items)

    monkeypatch.setattr(Classifier, "losses", watched)
    toy_run(None)
    epochs = [seen[i : i + 12] for i in (0, 12, 24)]
    assert [len(set(epoch)) for epoch in epochs] == [12, 12, 12]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


# Which parameters are kept ------------------------------------------------------------------------

STEADY = Training(epochs=1, batch_size=4, schedule="constant", warmup=0)


def test_the_best_is_kept_and_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [10, 90])
    after_one = toy_run(None, training=STEADY)
    scripted(monkeypatch, [10, 90, 50, 20])
    best = toy_run(None, training=replace(STEADY, epochs=3))
    scripted(monkeypatch, [10, 20, 50, 90])
    last = toy_run(None, training=replace(STEADY, epochs=3))
    assert furthest(best, after_one) == 0
    assert furthest(best, last) > 0
    assert best.scores == {"dev": {"accuracy": 90.0, "rows": 6}}


def test_a_prompt_that_only_makes_things_worse_is_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, [80, 70, 60, 50])
    kept = toy_run(None).injection.embeds
    start = Soft(length=3).build(TASK.bind(get()), rows(12), 0)().embeds
    assert kept is not None
    assert start is not None
    assert torch.equal(kept, start)


@pytest.mark.parametrize(
    ("patience", "scores", "evaluations"),
    [
        (1, [10, 30, 20], 3),
        (2, [10, 30, 20, 40, 30, 20], 6),
        (2, [50, 50, 50], 3),  # no better is not better
        (None, [90, 80, 70, 60, 50, 40, 30], 7),
    ],
)
def test_a_run_stops_when_patience_ends(
    patience: int | None, scores: list[float], evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    scripted(monkeypatch, scores)
    toy_run(None, training=replace(TRAINING, epochs=6, patience=patience), report=recorder)
    assert recorder.of("score") == scores
    assert len(recorder.of("step")) == 3 * (evaluations - 1)


@pytest.mark.slow
def test_a_real_run_that_is_led_astray_keeps_what_was_best() -> None:
    """From the word that says it all, by rows whose labels are wrong, to less than half right."""
    base, task, dev = language.taught("llama", 300), language.task("llama"), language.rows(40, 2)
    wrong = [
        Row({**row.fields, "label": str(row.fields["text"]).split()[0]}, row.where)
        for row in language.rows(64, 1)
    ]
    recorder = Recorder()
    prompt = tune(
        base,
        task,
        Soft(length=1, start="text", start_text="other"),
        wrong,
        dev,
        training=Training(epochs=6, batch_size=16, rate=0.1),
        report=recorder,
    )
    scores = recorder.of("score")
    assert scores[0] == 100 == prompt.scores["dev"]["accuracy"]
    assert scores[-1] < 50
    found = task.bind(base).predict(dev, prompt.injection)
    assert [answer["label"] for answer in found] == [row.fields["label"] for row in dev]


# What is learned ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", language.SIZES)
@pytest.mark.parametrize(
    ("method", "rate"),
    [(Soft(length=1, start="random"), 0.03), (Prefix(start="vocabulary", length=2), 0.3)],
    ids=["soft", "prefix"],
)
def test_what_the_frozen_model_cannot_tell_is_learned(
    name: str, method: Method, rate: float
) -> None:
    """From none of 100 unseen rows right to at least 90 (by chance: 17).

    One virtual token may begin where it never learns: of three runs the dev rows choose.
    """
    base, task, test = language.taught(name, 300), language.task(name), language.rows(100, 9)

    def right(injection: Any) -> int:
        found = task.bind(base).predict(test, injection)
        return sum(
            answer["label"] == row.fields["label"] for answer, row in zip(found, test, strict=True)
        )

    found = [
        tune(
            base,
            task,
            method,
            language.rows(64, 1),
            language.rows(60, 2),
            training=Training(epochs=40, batch_size=16, rate=rate, patience=15, seed=seed),
        )
        for seed in range(3 * SEED, 3 * SEED + 3)
    ]
    prompt = max(found, key=lambda each: each.scores["dev"]["accuracy"])
    assert right(NOTHING) <= 5
    assert right(prompt.injection) >= 90


def test_two_methods_in_one_mixture_answer_as_each_alone() -> None:
    data = rows(12)
    soft = toy_run(None, training=replace(TRAINING, rate=0.3))
    prefix = toy_run(None, method=Prefix(shots=2, rate=0.1))
    bound, order = TASK.bind(get()), [0, 1, 1, 0, 0, 1] * 2
    together = bound.predict(data, Mixture((soft.injection, prefix.injection), order))
    alone = [bound.predict(data, part.injection) for part in (soft, prefix)]
    for number, (part, found) in enumerate(zip(order, together, strict=True)):
        expected = alone[part][number]
        assert found["label"] == expected["label"]
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    apart = [abs(a["probabilities"]["good"] - b["probabilities"]["good"]) for a, b in zip(*alone)]  # noqa: B905
    assert max(apart) > 1e-3


# What stops a run ---------------------------------------------------------------------------------


class Breaking(SoftPrompt):
    """A soft prompt with an infinite gradient at one step, or that is NaN when next scored."""

    def __init__(self, embeds: Tensor, gradient: int, score: int) -> None:
        super().__init__(embeds, leading=len(embeds))
        self.steps, self.score = 0, score
        self.embeds.register_hook(lambda g: g * (math.inf if self.steps == gradient else 1.0))

    def forward(self) -> Injection:
        self.steps += torch.is_grad_enabled()
        broken = self.steps >= self.score and not torch.is_grad_enabled()
        return super().forward().map(lambda t: t * (math.nan if broken else 1.0))


@dataclass(frozen=True)
class Broken:
    """The method of it."""

    gradient: int = 99
    score: int = 99
    rate: float = 0.01
    shots: int = 2

    def build(self, task: Bound, given_rows: Sequence[Row], seed: int) -> Trainable:
        return Breaking(task.backbone.embed([3, 4]), self.gradient, self.score)


def no_longer_finite(out: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        toy_run(out, **changes)
    assert not out.exists()
    line = str(caught.value)
    assert "\n" not in line
    return line


def last_good_step(out: Path) -> int:
    """The step of the checkpoint, whose numbers must all be finite."""
    with safe_open(str(checkpoint.path_for(out)), "pt") as file:
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())  # noqa: SIM118
        return int(json.loads(file.metadata()[checkpoint.KEY])["step"])


def test_a_process_with_a_part_of_the_rows_names_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, seen = Classifier.losses, []

    def poisoned(self: Classifier, logits: Tensor, items: Sequence[Any]) -> Tensor:
        seen.append(items[0].example.ids)
        return original(self, logits, items) * torch.tensor([math.nan] + [1.0] * (len(items) - 1))

    monkeypatch.setattr(Classifier, "losses", poisoned)
    monkeypatch.setattr(World, "share", lambda self, sizes: list(range(len(sizes)))[2:])
    with pytest.raises(UserError, match=r"the loss of toy\.jsonl:\d+ is not finite") as caught:
        toy_run(None)
    line = re.findall(r"jsonl:(\d+)", str(caught.value))[0]
    bad = rows(12)[int(line) - 1]
    assert seen[0] == TASK.bind(get()).train_example(bad, 1000).example.ids


def test_a_loss_that_is_not_finite_names_the_row_and_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Classifier.losses, itertools.count(1)
    bad = TASK.bind(get()).train_example(rows(12)[7], 1000).example.ids

    def poisoned(self: Classifier, logits: Tensor, items: Sequence[Any]) -> Tensor:
        late = next(calls) > 3  # one pass a step: from the second epoch on
        poison = [math.nan if late and item.example.ids == bad else 1.0 for item in items]
        return original(self, logits, items) * torch.tensor(poison)

    monkeypatch.setattr(Classifier, "losses", poisoned)
    recorder = Recorder()
    line = no_longer_finite(tmp_path / OUT, report=recorder)
    done = len(recorder.of("step"))
    assert 3 <= done < 6
    assert line.startswith(
        f"the loss of toy.jsonl:8 is not finite at step {done + 1}; lower `rate`"
    )
    assert str(checkpoint.path_for(tmp_path / OUT)) in line
    assert recorder.heard[-1] == ("done",)
    assert last_good_step(tmp_path / OUT) == 3


def test_a_gradient_that_is_not_finite_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS.entries, "broken", Broken)
    line = no_longer_finite(tmp_path / OUT, method=Broken(gradient=5))
    assert line.startswith(
        "the gradient is not finite at step 5; lower `rate` (now 0.01); the last"
    )
    assert last_good_step(tmp_path / OUT) == 3
    line = no_longer_finite(tmp_path / OUT, method=Broken(gradient=2))
    assert line.startswith("the gradient is not finite at step 2; lower `rate`")
    line = no_longer_finite(tmp_path / OUT, method=Broken(gradient=1))
    assert line.startswith("the gradient is not finite at step 1; try `dtype=float32`; the last")


def test_an_absurd_learning_rate_is_told_as_such(tmp_path: Path) -> None:
    """Whether a gradient, a loss or, at the end of an epoch, a dev score shows it first."""
    out = tmp_path / OUT
    with pytest.raises(UserError) as caught:
        tune(
            get("gpt2"),
            TASK,
            Prefix(length=3, start="random"),
            rows(12),
            rows(6, 100, "dev.jsonl"),
            training=replace(TRAINING, rate=1e20, warmup=0),
            out=out,
        )
    assert re.match(
        r"the (gradient|loss of toy.jsonl:\d+|score of dev.jsonl:\d+) is not finite at step \d; "
        r"lower `rate` \(now 1e\+20\); the last good state is kept in ",
        str(caught.value),
    )
    assert not out.exists()


def test_a_score_that_is_not_finite_names_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dev_score._logits

    def poisoned(*given: Any) -> Iterator[Any]:
        for group, logits in before(*given):
            yield group, logits.index_fill(0, torch.tensor(group.index(4)), math.nan)

    monkeypatch.setattr(dev_score, "_logits", poisoned)
    with pytest.raises(UserError, match=r"the score of dev\.jsonl:5 is not finite"):
        toy_run(None)


def test_a_dev_score_that_is_not_finite_stops_the_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all rows would count as their first label, and garbage could be the best of the run."""
    monkeypatch.setitem(METHODS.entries, "broken", Broken)
    line = no_longer_finite(tmp_path / OUT, method=Broken(score=3))
    assert line.startswith("the score of dev.jsonl:")
    assert "is not finite at step 3; lower `rate`" in line
    assert last_good_step(tmp_path / OUT) == 0


def test_numbers_of_numpy_make_the_same_file(tmp_path: Path) -> None:
    given = Training(epochs=np.int64(1), rate=np.float64(1e-3), seed=np.int32(3))  # type: ignore[arg-type]
    toy_run(tmp_path / "numpy.safetensors", training=given)
    toy_run(tmp_path / OUT, training=Training(epochs=1, rate=1e-3, seed=3))
    assert (tmp_path / "numpy.safetensors").read_bytes() == (tmp_path / OUT).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"epochs": "2"},
        {"epochs": 2.5},
        {"seed": True},
        {"warmup": "half"},
        {"checkpointing": 1},
        {"batch_size": 0},
        {"patience": 0},
        {"token_budget": 0},
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": 1e38},
        {"warmup": 1.5},
        {"warmup": math.nan},
        {"clip": 0.0},
        {"clip": math.nan},
        {"weight_decay": -0.1},
        {"weight_decay": math.nan},
        {"schedule": "linaer"},
        {"cache_gb": -1.0},
        {"cache_gb": math.nan},
        {"compile": "atuo"},
        {"compile": "on", "checkpointing": True},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"rate|schedule" if "rate" in changes else next(iter(changes))
    ):
        toy_run(tmp_path / "sub" / OUT, training=replace(TRAINING, **changes))
    assert not (tmp_path / "sub").exists()


def test_no_rows_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no training rows"):
        toy_run(None, train=[])
    with pytest.raises(UserError, match="no dev rows"):
        toy_run(None, dev=[])


# Where the file goes ------------------------------------------------------------------------------


def refused(out: Path, match: str, **changes: Any) -> None:
    recorder = Recorder()
    with pytest.raises(UserError, match=match) as caught:
        toy_run(out, report=recorder, **changes)
    assert "\n" not in str(caught.value)
    assert recorder.heard == []  # before the training


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; name the file")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    refused(tmp_path / "file" / OUT, "cannot be written")
    refused(tmp_path / ("long" * 100), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    refused(tmp_path / OUT, "cannot be written")
    tmp_path.chmod(0o755)


def test_a_disk_that_is_too_full_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    refused(tmp_path / OUT, r"1.0 MiB are free, .* takes up to 1.0 MiB; make room")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    out.write_bytes(b"former")
    replaced = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target) == out:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left"):
            toy_run(out)
    assert out.read_bytes() == b"former"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {OUT, "p.log.jsonl", checkpoint.path_for(out).name}
    toy_run(out, resume=True)
    assert furthest(Prompt.load(out, get()), toy_run(None)) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of little more than a megabyte, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1400k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    # Lazily: a process that another test has left may still look at it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filler(Recorder):
    """Fills the disk at a step."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def step(self, number: int, values: Any) -> None:
        super().step(number, values)
        if number == 5:
            fill(self.folder)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def test_on_a_disk_that_is_really_full_nothing_half_written_stays(small_disk: Path) -> None:
    fill(small_disk)
    refused(small_disk / OUT, r"cannot be written \(No space left|are free, and the prompt")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    out = small_disk / OUT
    with pytest.raises(UserError, match=r"cannot be written \(No space left"):
        toy_run(out, report=Filler(small_disk))
    names = {path.name for path in small_disk.iterdir()}
    assert names == {"filler", "p.log.jsonl", checkpoint.path_for(out).name}
    (small_disk / "filler").unlink()
    toy_run(out, resume=True)
    assert furthest(Prompt.load(out, get()), toy_run(None)) == 0
    steps = [json.loads(line).get("step") for line in log_path(out).read_text().splitlines()[1:]]
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]


def test_prompts_of_other_endings_have_logs_of_their_own(tmp_path: Path) -> None:
    made = {log_path(tmp_path / name).name for name in ("p.safetensors", "q.1", "q.2", "q")}
    assert made == {"p.log.jsonl", "q.1.log.jsonl", "q.2.log.jsonl", "q.log.jsonl"}
