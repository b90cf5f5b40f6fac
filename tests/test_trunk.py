"""The frozen trunk: the same loss and gradient, each row's lower layers run once."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from families import CAUSAL, MASKED, SEQ2SEQ, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import common_lead
from foreword.data.row import Row
from foreword.engine.lower_layers import LowerLayers
from foreword.engine.passes import differentiate, infer
from foreword.engine.spill_file import UNUSED, Overflow
from foreword.injection import Injection
from foreword.methods.head import Head
from foreword.methods.parts.prefixes import PrefixKV
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from test_engine import LABELS, ROWS, gradients
from toys import Lines

PARTED = [*CAUSAL, *MASKED, *SEQ2SEQ]
FAMILIES = {f.name: f for f in PARTED if f.name not in ("albert", "t5")}
PLENTY = 1e9


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))


def said(line: str) -> None:
    raise AssertionError(line)


class Work:
    """A backbone of its own with rows, an upper prefix, and their gradient."""

    def __init__(self, name: str, method: Prefix | None = None) -> None:
        self.base = backbone(FAMILIES[name])
        answer = " [mask]" if self.base.architecture == "masked" else ""
        lead = "a good film and a bad film and it was good : "
        task = Classify(template=f"{lead}{{text}}:{answer}", labels=LABELS).bind(self.base)
        how = method or Prefix(length=3, start="random", first_layer=1)
        self.trainable = how.build(task, ROWS, 0)
        self.examples = [task.train_example(row, 100).example for row in ROWS]
        self.lead = common_lead(self.examples) if self.base.can_pack else ()
        self.longest = max(e.length for e in self.examples)

    def trunk(self, memory: float = PLENTY, report=SILENT) -> LowerLayers:  # type: ignore[no-untyped-def]
        injection = self.trainable()
        layer = LowerLayers.depth_under(injection, self.base, self.longest)
        assert layer == 1
        return LowerLayers(
            self.base, self.examples, layer, injection.positions, self.lead, memory, report
        )

    def run(
        self, trunk: LowerLayers | None, budget: int = 10_000
    ) -> tuple[float, dict[str, Tensor]]:
        def loss(group: list[int], logits: Tensor) -> Tensor:
            size = [len(self.examples[i].targets) for i in group]
            target = torch.tensor([(7 * i) % 150 for i, n in zip(group, size, strict=True)
                                   for _ in range(n)])  # fmt: skip
            return F.cross_entropy(logits, target, reduction="sum")

        given = None if trunk is None else trunk.given(self.examples)
        total = differentiate(
            self.base, self.trainable, self.examples, self.lead, self.longest, budget, loss,
            given=given,
        )  # fmt: skip
        return total, gradients(self.trainable)


class Lower:
    """Counts how often the lowest layer is run."""

    def __init__(self, base: Backbone) -> None:
        self.times = 0
        assert base.stack is not None
        base.stack.layers[0].register_forward_pre_hook(self.count)

    def count(self, *_: object) -> None:
        self.times += 1


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_loss_and_gradients_equal_those_of_a_run_without_it(name: str) -> None:
    work = Work(name)
    plain, expected = work.run(None)
    trunk = work.trunk()
    lower = Lower(work.base)
    for budget in (10_000, 30):
        total, found = work.run(trunk, budget)
        assert total == pytest.approx(plain, rel=1e-5)
        for parameter, grad in found.items():
            scale = float(expected[parameter].abs().max())
            assert scale > 0
            torch.testing.assert_close(grad, expected[parameter], rtol=1e-5, atol=1e-5 * scale)
    assert lower.times == 1  # for all rows at once, in the first of these


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_head_alone_is_trained_on_what_all_layers_have_made(name: str) -> None:
    base = backbone(FAMILIES[name])
    answer = " [mask]" if base.architecture == "masked" else ""
    task = Classify(template=f"a good film and it was {{text}}:{answer}", labels=LABELS).bind(base)
    found = []
    for kept in (False, True):
        trainable = Head().build(task, ROWS, 0)
        examples = [task.with_head().train_example(row, 100).example for row in ROWS]
        lead = common_lead(examples) if base.can_pack else ()
        longest = max(e.length for e in examples)
        given = None
        if kept:
            layer = LowerLayers.depth_under(trainable(), base, longest)
            assert layer == 3
            given = LowerLayers(base, examples, layer, 0, lead, PLENTY, said).given(examples)

        def loss(group: list[int], logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, torch.tensor([i % 2 for i in group]), reduction="sum")

        total = differentiate(base, trainable, examples, lead, longest, 10_000, loss, given=given)
        found.append((total, gradients(trainable)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name_, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name_], rtol=1e-5, atol=1e-6)


def test_dev_scores_are_the_same() -> None:
    work = Work("llama")
    trunk = work.trunk()
    with torch.no_grad():
        injection = work.trainable()
    plain = dict(_by_row(work, infer(work.base, injection, work.examples)))
    found = infer(work.base, injection, work.examples, 40, given=trunk.given(work.examples))
    for row, logits in _by_row(work, found):
        torch.testing.assert_close(logits, plain[row], rtol=1e-5, atol=1e-5)


def _by_row(work: Work, found) -> list[tuple[int, Tensor]]:  # type: ignore[no-untyped-def]
    made = []
    for rows, logits in found:
        sizes = [len(work.examples[row].targets) for row in rows]
        for row, own in zip(rows, logits.split(sizes), strict=True):
            made.append((row, own))
    return made


def test_states_hang_on_the_layer_and_on_the_positions_before_a_row() -> None:
    work = Work("gpt2")
    made = [
        LowerLayers(work.base, work.examples, layer, positions, work.lead, PLENTY, said)
        for layer in (1, 2)
        for positions in (3, 4)
    ]
    assert len({trunk.key for trunk in made}) == 4
    states = [trunk.given(work.examples).rows[0] for trunk in made]
    for n, one in enumerate(states):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in states[:n])


def test_rows_of_the_same_tokens_part_by_where_they_are_answered() -> None:
    base = backbone(FAMILIES["bert"])
    task = Classify(template="{a} [mask] {b}", labels=LABELS).bind(base)
    rows = [
        Row({"a": a, "b": b, "label": "good"}, f"F:{n}")
        for n, (a, b) in enumerate([("a film", "bad"), ("a", "film bad")], 1)
    ]
    one, other = (task.train_example(row, 100).example for row in rows)
    assert one.ids == other.ids
    assert one.slot != other.slot
    trunk = LowerLayers(base, [one, other], 1, 0, (), PLENTY, said)
    states = [trunk.given([example]).rows[0] for example in (one, other)]
    assert not torch.allclose(*states, atol=1e-3)


def test_another_run_of_the_same_rows_shares_it() -> None:
    work = Work("llama")
    work.trunk().given(work.examples[:4])
    lower = Lower(work.base)
    again = work.trunk()
    again.given(work.examples[:1])  # once for the lead, whatever the rows
    before = lower.times
    again.given(work.examples)  # the other rows of the pass that the first four were in
    assert lower.times == before
    other = LowerLayers(work.base, work.examples, 2, 3, work.lead, PLENTY, said)
    other.given(work.examples)
    assert lower.times == before + 1
    moved = LowerLayers(work.base, work.examples, 1, 4, work.lead, PLENTY, said)
    moved.given(work.examples)
    assert lower.times == before + 2


def test_which_rows_are_asked_first_changes_no_bit() -> None:
    """As after a stop: the passes are those of all rows, whichever are needed."""
    whole, parts = Work("llama"), Work("llama")
    for work in (whole, parts):
        assert work.trunk().budget > sum(example.length for example in work.examples[:2])

    def trunk(work: Work) -> LowerLayers:
        return LowerLayers(work.base, work.examples, 1, 3, work.lead, PLENTY, said, budget=20)

    expected = trunk(whole).given(whole.examples).rows
    later = trunk(parts)
    lower = Lower(parts.base)
    found = {n: later.given([parts.examples[n]]).rows[0] for n in reversed(range(len(expected)))}
    assert all(torch.equal(found[n], each) for n, each in enumerate(expected))
    assert 1 < lower.times == len(later.passes) < len(expected)


def test_what_memory_has_no_room_for_is_in_a_file_and_serves_the_next_run() -> None:
    work = Work("gpt2")
    plain, expected = work.run(None)
    work.run(work.trunk(memory=0))
    second = Work("gpt2")  # a backbone of its own, as a new process has
    trunk = second.trunk(memory=0)
    assert trunk.overflow is not None
    trunk.given(second.examples[:1])  # once for the lead, whatever the rows
    second.run(None)
    lower = Lower(second.base)
    total, found = second.run(trunk)
    assert lower.times == 0
    assert total == pytest.approx(plain, rel=1e-6)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name])


def test_a_damaged_file_is_computed_anew() -> None:
    work = Work("gpt2")
    plain, _ = work.run(None)
    first = work.trunk(memory=0)
    work.run(first)
    assert first.overflow is not None
    data = bytearray(first.overflow.path.read_bytes())
    data[len(data) // 2] ^= 1
    first.overflow.path.write_bytes(data)
    trunk = Work("gpt2").trunk(memory=0)
    lower = Lower(trunk.backbone)
    trunk.given(work.examples)
    assert lower.times == 1
    assert work.run(trunk)[0] == pytest.approx(plain, rel=1e-6)


def test_a_full_disk_is_said_once_and_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Overflow, key: bytes, tensor: Tensor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Overflow, "write", full)
    work = Work("llama")
    plain, _ = work.run(None)
    lines: list[str] = []
    trunk = work.trunk(memory=0, report=Lines(lines))
    for _ in range(3):
        assert work.run(trunk)[0] == pytest.approx(plain, rel=1e-5)
    assert len(lines) == 1
    assert "No space left on device" in lines[0]


def test_other_weights_under_the_same_fingerprint_are_told_apart() -> None:
    """A quantized backbone has the fingerprint of the whole one, and other states."""
    work, small = Work("gpt2"), Work("gpt2")
    small.base.quantized = "int8"
    assert work.base.fingerprint == small.base.fingerprint
    assert work.trunk().key != small.trunk().key
    assert work.trunk().key == Work("gpt2").trunk().key


def test_memory_holds_what_it_may() -> None:
    work = Work("llama")
    size = 4 * work.base.width
    tokens = [len(rows) for rows in work.trunk().given(work.examples).rows]
    fresh = Work("llama")
    trunk = fresh.trunk(memory=size * sum(tokens[:2]))
    trunk.given(fresh.examples)
    assert trunk.cached.held <= size * sum(tokens[:2])
    assert 0 < len(trunk.cached.rows) < len(tokens)
    assert trunk.overflow is not None
    assert len(trunk.cached.rows) + len(trunk.overflow.places) == len(tokens)


def test_memory_of_runs_before_is_given_back() -> None:
    work = Work("llama")
    old = work.trunk()
    old.given(work.examples)
    room = float(old.cached.held)
    new = LowerLayers(work.base, work.examples, 2, 3, work.lead, room, said)
    new.given(work.examples)
    assert list(new.all_cached) == [new.key]
    assert new.overflow is None


def test_there_is_none_where_all_layers_depend_on_the_prompt() -> None:
    work = Work("llama", Prefix(length=3, start="random"))
    assert LowerLayers.depth_under(work.trainable(), work.base, 40) == 0
    base = backbone(SEQ2SEQ[1])
    task = Classify(template="{text}:", labels=LABELS).bind(base)
    assert LowerLayers.depth_under(Soft(length=2).build(task, ROWS, 0)(), base, 40) == 0
    upper = Prefix(length=3, start="random", first_layer=1).build(task, ROWS, 0)
    assert isinstance(upper, PrefixKV)
    assert LowerLayers.depth_under(upper(), base, 40) == 1
    changed = Injection(weights={"lm_head.weight": torch.zeros(1)}, kv=work.trainable().kv)
    assert LowerLayers.depth_under(changed, work.base, 40) == 0


def test_an_encoder_that_no_prefix_reaches_is_run_once() -> None:
    base = backbone(SEQ2SEQ[1])
    task = Classify(template="{text}:", labels=LABELS).bind(base)
    made = Prefix(length=3, start="random").build(task, ROWS, 0)()
    kept = {site: kv for site, kv in made.kv.items() if base.sites[site].role != "encoder"}
    assert LowerLayers.depth_under(Injection(kv=kept), base, 40) == 3
    t5 = backbone(SEQ2SEQ[0])  # its first layer makes position biases for all
    whole = Prefix(length=3, start="random", first_layer=1).build(task_on(t5), ROWS, 0)()
    assert LowerLayers.depth_under(whole, t5, 40) == 0


def task_on(base: Backbone) -> Classifier:
    return Classify(template="{text}:", labels=LABELS).bind(base)


# The file -------------------------------------------------------------------------------------


def tensors(sizes: Sequence[int]) -> list[Tensor]:
    return [torch.randn(size, 3, dtype=torch.bfloat16) for size in sizes]


def test_tensors_come_back_from_the_file(tmp_path: Path) -> None:
    made = tensors([4, 1, 7])
    file = Overflow.make(tmp_path, "k")
    for number, tensor in enumerate(made):
        file.write(bytes([number]), tensor)
        found = file.read(bytes([number]))
        assert found is not None
        assert torch.equal(found, tensor)
    assert file.read(b"other") is None
    file.close()
    again = Overflow.opened(tmp_path, "k")
    assert again is not None
    for number, tensor in enumerate(made):
        found = again.read(bytes([number]))
        assert found is not None
        assert torch.equal(found, tensor)


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    (tensor,) = tensors([4])
    file = Overflow.make(tmp_path, "k")
    file.write(b"1", tensor)
    file.close()
    data = bytearray(file.path.read_bytes())
    data[5] ^= 64
    file.path.write_bytes(data)
    assert Overflow.make(tmp_path, "k").read(b"1") is None


def test_a_file_that_is_only_read_is_kept(tmp_path: Path) -> None:
    file = Overflow.make(tmp_path, "k")
    file.write(b"1", tensors([1])[0])
    file.close()
    past = time.time() - UNUSED - 60
    os.utime(file.path, (past, past))
    again = Overflow.opened(tmp_path, "k")
    assert again is not None
    again.close()
    Overflow.make(tmp_path, "other")
    assert file.path.exists()


def test_a_second_writer_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, two = Overflow.make(tmp_path, "k"), Overflow.make(tmp_path, "k")
    assert one.path != two.path
    (tensor,) = tensors([2])
    two.write(b"x", tensor)
    assert one.read(b"x") is None


def test_what_a_killed_process_has_left_half_written_is_not_there(tmp_path: Path) -> None:
    one, two = tensors([4, 2])
    file = Overflow.make(tmp_path, "k")
    file.write(b"1", one)
    file.write(b"2", two)
    file.close()
    file.path.write_bytes(file.path.read_bytes()[:-3])
    index = file.path.with_suffix(".index")
    index.write_text(index.read_text() + '{"key": "33", "sta')
    again = Overflow.make(tmp_path, "k")
    found = again.read(b"1")
    assert found is not None
    assert torch.equal(found, one)
    assert again.read(b"2") is None
    assert again.read(b"3") is None
    again.write(b"2", two)
    again.close()
    third = Overflow.make(tmp_path, "k").read(b"2")
    assert third is not None
    assert torch.equal(third, two)


def test_files_that_no_run_has_opened_for_long_are_removed(tmp_path: Path) -> None:
    for key in ("old", "new"):
        file = Overflow.make(tmp_path, key)
        file.write(b"1", tensors([1])[0])
        file.close()
    day = 24 * 3600
    for key, days in (("old", 8), ("new", 6)):  # a week is long
        past = time.time() - days * day
        os.utime(tmp_path / f"{key}.0.states", (past, past))
    Overflow.make(tmp_path, "k")
    assert not list(tmp_path.glob("old.*"))
    assert len(list(tmp_path.glob("new.*"))) == 3
