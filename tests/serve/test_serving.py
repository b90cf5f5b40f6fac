"""The engine: rows of many prompts in one loop equal those that are decoded alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import TopPLogitsWarper

import foreword.serve.choose
import foreword.serve.loop
import foreword.serve.rows
import foreword.serve.whole
from families import CAUSAL, MASKED, SEQ2SEQ, UNREACHED, WINDOWED, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, continuations, decode
from foreword.backbone.decoding_rules import until_end
from foreword.backbone.example import Example
from foreword.compose.ensemble import Ensemble
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture, Patch
from foreword.prompt.familiar import Familiar, with_familiar
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.held import HeldPrompts
from foreword.serve.loop import Loop
from foreword.serve.request import Piece, Request, Sampling, Ticket
from foreword.serve.states import Reading
from foreword.serve.whole import WholeLoop
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.rank import Rank
from foreword.tasks.tag import Tag
from processes import until

FAMILIES = {f.name: f for f in CAUSAL} | {"window": WINDOWED[1], "bloom": UNREACHED[0]}
FAMILIES |= {"t5": SEQ2SEQ[0], "bert": MASKED[0]}
PACKED = ("llama", "gpt2", "qwen2", "gemma2", "gpt_oss", "window")
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():  # so that what is written depends on what is read
        if parameter.dim() > 1:
            parameter.data.mul_(4 if name in ("gpt2", "gpt_oss", "bloom") else 2)
    return made


@pytest.fixture(autouse=True)
def _some_prefixes_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreword.serve.rows, "COPIED", 4)


@cache
def prompts(name: str) -> list[Injection]:
    """None, soft, prefixes of two lengths, one of upper layers, and a low-rank change."""
    base, noise = get(name), torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise)

    def kv(length: int, first: int = 0) -> Injection:
        sites = list(base.sites.values())[first:]
        made = {
            s.name: KV(drawn(s.heads, length, s.key_width), drawn(s.heads, length, s.value_width))
            for s in sites
        }
        return Injection(kv=made, positions=length if base.architecture == "causal" else 0)

    embeds = base.embed([7, 8, 9]) + 0.1 * drawn(3, base.width)
    soft = Injection(embeds=embeds, leading=3)
    module = next(
        n for n, m in base.model.named_modules() if n.endswith(("o_proj", "c_proj", "o", "dense"))
    )
    lora = Injection(patches={module: (Patch(drawn(base.width, 2), drawn(2, base.width)),)})
    found = [NOTHING, soft, lora]
    return [*found, kv(3), kv(9), kv(6, 1)] if base.sites else found


def alone(name: str, ids: Sequence[int], prompt: Injection, how: Sampling) -> list[int]:
    return until_end(continuations(get(name), [ids], prompt, how)[0], get(name).ends)


@pytest.mark.parametrize("name", [*PACKED, "bloom", "t5"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_of_any_mix_are_continued_as_alone(name: str, data: Any) -> None:
    parts = prompts(name)
    row = st.tuples(
        st.lists(st.integers(3, 159), min_size=1, max_size=12),
        st.integers(0, len(parts) - 1),
        st.integers(1, 6),
    )
    asked = data.draw(st.lists(row, min_size=1, max_size=8))
    slots, chunk = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1, 3, 64]))
    with Engine(get(name), slots=slots, chunk=chunk, tokens=512) as engine:
        tickets = [
            engine.generate(ids, parts[part], Sampling(max_new_tokens=new))
            for ids, part, new in asked
        ]
        found = [list(ticket.result(60).tokens) for ticket in tickets]
        assert engine.stats()["parted"] == 0  # a fault in rows together would be mended row by row
    for (ids, part, new), own in zip(asked, found, strict=True):
        assert own == alone(name, ids, parts[part], Sampling(max_new_tokens=new))


@pytest.mark.parametrize("name", ["llama", "bloom", "t5"])
def test_pieces_join_to_what_decode_writes(name: str) -> None:
    base, how = get(name), Sampling(max_new_tokens=7)
    heard: dict[int, list[Piece]] = {n: [] for n in range(len(ROWS))}
    with Engine(base) as engine:
        tickets = [engine.generate(row, None, how, heard[n].append) for n, row in enumerate(ROWS)]
        found = [ticket.result(20).text for ticket in tickets]
    assert found == decode(base, ROWS, NOTHING, how)
    assert found == ["".join(piece.text for piece in heard[n]) for n in heard]
    for n in heard:
        assert [piece.finish for piece in heard[n][:-1]] == [None] * (len(heard[n]) - 1)
        assert heard[n][-1].finish in ("length", "stop")
    assert max(map(len, heard.values())) > 1  # told as it is written


def test_a_prefix_is_copied_for_few_rows_and_where_there_is_room_and_else_shared() -> None:
    base, prompt, how = get("llama"), prompts("llama")[3], Sampling(max_new_tokens=2)
    expected = [alone("llama", ids, prompt, how) for ids in ROWS[:2]]

    def copied(*, rows: int, tokens: int = 512) -> list[int]:
        loop = Loop(base, HeldPrompts(base, 2**20), 8, 64, tokens)
        asked = [Request(tuple(ids), prompt, how, None, None, Ticket(), 0.0) for ids in ROWS[:rows]]
        loop.waiting.extend(asked)
        loop.step()
        found = [each.row.prefix.copied for each in loop.running]
        while loop.busy:
            loop.step()
        assert [list(each.ticket.result(1).tokens) for each in asked] == expected[:rows]
        assert loop.pool.used == 0
        return found

    assert copied(rows=1) == [3]
    assert copied(rows=2) == [0, 0]
    need = len(ROWS[0]) + 2
    assert copied(rows=1, tokens=need + 2) == [0]
    assert copied(rows=1, tokens=need + 3) == [3]


def test_a_row_that_is_longer_than_the_room_is_refused_in_one_line() -> None:
    refused = pytest.raises(UserError, match="a row of 12 tokens and 5 new ones")
    with Engine(backbone(CAUSAL[0], max_position_embeddings=16)) as engine, refused:
        engine.generate(range(3, 15), None, Sampling(max_new_tokens=5))


def test_a_decoder_has_room_of_its_own() -> None:
    base, row = backbone(SEQ2SEQ[1], max_position_embeddings=16), tuple(range(3, 18))
    with Engine(base) as engine:
        found = engine.generate(row, None, Sampling(max_new_tokens=16)).result(60)
        assert found.text == decode(base, [row], NOTHING, Decoding(max_new_tokens=16))[0]
        for ids, more in ((range(3, 20), 1), (row, 17)):
            with pytest.raises(UserError, match=f"a row of {len(ids)} tokens and {more} new ones"):
                engine.generate(ids, None, Sampling(max_new_tokens=more))


def test_a_row_that_no_slot_can_hold_is_told_and_the_next_is_answered() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=5)
    with Engine(base, tokens=11) as engine:
        with pytest.raises(UserError, match=r"a row of 12 tokens .* needs more than the 11"):
            engine.generate(ROWS[0], prompts("llama")[1], how).result(20)
        found = engine.generate(ROWS[1], None, how).result(20)
    assert list(found.tokens) == alone("llama", ROWS[1], NOTHING, how)


# Choosing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        Sampling(max_new_tokens=6, temperature=0.9, top_p=0.8, seed=3),
        Sampling(max_new_tokens=6, repetition_penalty=1.7),
        Sampling(max_new_tokens=6, stop=("a", "9")),
        Sampling(max_new_tokens=4, beams=2),
    ],
    ids=["drawn", "penalty", "stop", "beams"],
)
@pytest.mark.parametrize("name", ["llama", "bloom", "t5"])
def test_tokens_are_chosen_as_decode_chooses_them(name: str, how: Sampling) -> None:
    base, parts = get(name), [*prompts(name), NOTHING]
    with Engine(base, slots=2) as engine:
        tickets = [engine.generate(row, parts[n + 1], how) for n, row in enumerate(ROWS)]
        found = [ticket.result(20) for ticket in tickets]
    assert [each.text for each in found] == [
        decode(base, [row], parts[n + 1], how)[0] for n, row in enumerate(ROWS)
    ]
    for each in found:
        short = len(each.tokens) < how.max_new_tokens
        assert each.finish == "stop" if short else each.finish in ("stop", "length")


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_logprobs_are_those_of_the_model_and_belong_to_the_tokens(name: str) -> None:
    base, row = get(name), ROWS[0]
    how = Sampling(max_new_tokens=4, logprobs=3)
    heard: list[Piece] = []
    with Engine(base) as engine:
        found = engine.generate(row, None, how, heard.append).result(20)
    assert [each.token for each in found.logprobs] == list(found.tokens)
    assert [each for piece in heard for each in piece.logprobs] == list(found.logprobs)
    said: list[int] = []
    for each in found.logprobs:
        with torch.no_grad():
            example = Example((*row, *said), len(row) + len(said), ((),), ((0, -1),))
            logs = base.logits(base.states([example]))[0].log_softmax(0)
        assert each.logprob == pytest.approx(float(logs[each.token]), abs=1e-4)
        assert [token for token, _ in each.top] == logs.topk(3).indices.tolist()
        said.append(each.token)


class Only:
    """A grammar of one text: its tokens, in their order."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.left = list(tokens)

    def allow(self, scores: torch.Tensor) -> torch.Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[self.left[0]] = scores[self.left[0]]
        return kept

    def accept(self, token: int) -> bool:
        assert token == self.left.pop(0)
        return not self.left


@pytest.mark.parametrize("name", ["llama", "bloom", "t5"])
def test_a_grammar_says_what_may_come_and_when_it_ends(name: str) -> None:
    with Engine(get(name)) as engine:
        bound = engine.generate(ROWS[0], None, Sampling(), grammar=Only([9, 4, 7]))
        free = engine.generate(ROWS[0], None, Sampling(max_new_tokens=5))
        assert (bound.result(20).tokens, bound.result().finish) == ((9, 4, 7), "stop")
        assert list(free.result(20).tokens) == alone(
            name, ROWS[0], NOTHING, Sampling(max_new_tokens=5)
        )


@pytest.mark.parametrize("name", ["bloom", "t5"])
def test_requests_of_one_batch_have_rules_and_faults_of_their_own(name: str) -> None:
    """On models that cannot run packed, whose requests are decoded batch by batch."""
    rules = [
        Sampling(max_new_tokens=2),
        Sampling(max_new_tokens=6, temperature=0.9, seed=3),
        Sampling(max_new_tokens=4, logit_bias=((9, 100.0),)),
        Sampling(max_new_tokens=5, repetition_penalty=1.7),
    ]
    began, go = threading.Event(), threading.Event()

    def wait(piece: Piece) -> None:
        began.set()
        go.wait(60)

    class Free:
        """A grammar of all texts, whose client leaves at its second token."""

        def allow(self, scores: torch.Tensor) -> torch.Tensor:
            return scores.index_fill(0, torch.tensor([1]), -torch.inf)  # no end

        def accept(self, token: int) -> bool:
            accepted.append(token)
            if len(accepted) == 2:
                leaves.cancel()
            return False

    accepted: list[int] = []
    with Engine(get(name)) as engine:
        first = engine.generate(ROWS[1], None, Sampling(max_new_tokens=3), wait)
        assert began.wait(60)  # so that those behind it come together
        asked = [engine.generate(ROWS[0], None, how) for how in rules]
        wrong = engine.generate(ROWS[0], None, rules[0], grammar=Only([]))
        leaves = engine.generate(ROWS[2], None, Sampling(max_new_tokens=60), grammar=Free())
        go.set()
        found = [ticket.result(60) for ticket in asked]
        with pytest.raises(IndexError):
            wrong.result(60)
        assert (leaves.result(60).finish, len(leaves.result().tokens)) == ("cancelled", 2)
    counts = engine.stats()
    assert list(first.result().tokens) == alone(name, ROWS[1], NOTHING, Sampling(max_new_tokens=3))
    assert found[2].tokens == (9, 9, 9, 9)
    for how, own in zip(rules, found, strict=True):
        if not how.logit_bias:
            assert list(own.tokens) == alone(name, ROWS[0], NOTHING, how)
    assert counts["parted"] == counts["waiting"] == 0
    assert counts["finished"] == 7
    assert counts["tokens_written"] >= sum(len(own.tokens) for own in found)


@pytest.mark.parametrize("name", ["bloom", "t5"])
def test_a_row_without_numbers_fails_alone(name: str) -> None:
    base = get(name)
    broken = Injection(embeds=torch.full((2, base.width), torch.nan), leading=2)
    how = Sampling(max_new_tokens=3)
    with Engine(base) as engine:
        tickets = [engine.generate(row, NOTHING, how) for row in ROWS]
        nan = engine.generate(ROWS[0], broken, how)
        found = [list(ticket.result(60).tokens) for ticket in tickets]
        with pytest.raises(ValueError, match="are not numbers"):
            nan.result(60)
    assert found == [alone(name, row, NOTHING, how) for row in ROWS]


@pytest.mark.parametrize("told", [False, True])
def test_a_batch_that_fails_is_run_again_one_by_one(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless something was told of it, which cannot begin again."""
    base, how = get("bloom"), Sampling(max_new_tokens=3)
    loop, real = WholeLoop(base, 8), foreword.serve.whole.continuations

    def breaks(own: Backbone, rows: Sequence[Sequence[int]], *given: Any, **more: Any) -> Any:
        if len(rows) == 1:
            return real(own, rows, *given, **more)
        if told:
            more["rules"][0](torch.zeros(len(rows), 1), torch.eye(own.vocabulary)[7:10])
        raise RuntimeError("the batch is too large")

    monkeypatch.setattr(foreword.serve.whole, "continuations", breaks)
    asked = [Request(row, NOTHING, how, None, None, Ticket(), 0.0) for row in ROWS]
    for each in asked:
        loop.take(each)
    loop.step()
    assert loop.counts["parted"] == 1
    for each in asked:
        if told:
            with pytest.raises(RuntimeError, match="too large"):
                each.ticket.result(0)
        else:
            expected = alone("bloom", each.ids, NOTHING, how)
            assert list(each.ticket.result(0).tokens) == expected


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("few", [8, 1024])
def test_the_likeliest_tokens_are_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch, top_p: float, few: int
) -> None:
    monkeypatch.setattr(foreword.serve.choose, "FEW", few)
    row = 3 * torch.randn(1, 500, generator=torch.Generator().manual_seed(few))
    expected = TopPLogitsWarper(top_p)(None, row)
    assert torch.equal(foreword.serve.choose._likeliest(row, top_p), expected)


# Faults -------------------------------------------------------------------------------------------


def test_a_fault_is_its_own_requests_and_the_others_are_answered() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=5)
    site = next(iter(base.sites.values()))
    nothing = torch.full((site.heads, 3, site.key_width), torch.nan)
    bad = Injection(kv={name: KV(nothing, nothing) for name in base.sites}, positions=3)
    flat = torch.zeros(site.heads, 3, site.key_width + 1)
    misfit = Injection(kv={name: KV(flat, flat) for name in base.sites}, positions=3)
    wrong = Injection(kv={site.name: KV(torch.zeros(9, 8, 7), torch.zeros(9, 8, 7))}, positions=8)
    other = Injection(patches={"no.such.module": (Patch(torch.zeros(2)),)})

    class Breaks(Only):
        def accept(self, token: int) -> bool:
            raise ValueError("broken")

    def hear(piece: Piece) -> None:
        raise OSError("nobody listens")

    heard: list[Piece] = []
    with Engine(base, slots=4) as engine:
        for _ in range(2):  # and again, in the slots that they had
            good = [engine.generate(row, None, how) for row in ROWS]
            faults = [engine.generate(ROWS[0], each, how) for each in (bad, misfit, wrong, other)]
            faults.append(engine.generate(ROWS[0], None, how, heard.append, grammar=Breaks([5])))
            deaf = engine.generate(ROWS[0], None, how, hear)
            for fault in faults:
                with pytest.raises(Exception, match=r"not numbers|size|shape|module|broken"):
                    fault.result(20)
            assert deaf.result(20).finish == "cancelled"
            for row, ticket in zip(ROWS, good, strict=True):
                assert list(ticket.result(20).tokens) == alone("llama", row, NOTHING, how)
        assert heard[-1].finish == "error"
        counts = engine.stats()
        assert counts["running"] == counts["waiting"] == counts["slot_tokens"] == 0
        assert counts["parted"] > 0


def test_a_line_that_fails_alone_ends_its_own_reading_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, how, real = get("llama"), Sampling(max_new_tokens=3), foreword.serve.loop.read

    def read(view: Backbone, pool: Any, turns: Sequence[Any]) -> Any:
        if any(turn.row.tokens[0] == 150 for turn in turns):
            raise ValueError("broken")
        return real(view, pool, turns)

    monkeypatch.setattr(foreword.serve.loop, "read", read)
    loop = Loop(base, HeldPrompts(base, 2**20), 8, 64, 512)
    examples = [Example((first, 5), 2, ((),), ((0, -1),)) for first in (150, 7, 8)]
    reading = Reading(base, examples, Mixture.of(NOTHING, 3), threading.Event())
    request = Request(ROWS[1], NOTHING, how, None, None, Ticket(), 0.0)
    loop.waiting.extend([reading, request])
    while loop.busy:
        loop.step()
    with pytest.raises(ValueError, match="broken"):
        reading.done.result(0)
    assert list(request.ticket.result(0).tokens) == alone("llama", ROWS[1], NOTHING, how)
    assert loop.pool.used == 0


def test_a_reading_that_cannot_keep_its_states_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, how, real = get("llama"), Sampling(max_new_tokens=3), Reading.hear

    def hear(self: Reading, line: int, tokens: Sequence[int], states: torch.Tensor) -> None:
        if self is broken:
            raise ValueError("broken")
        real(self, line, tokens, states)

    monkeypatch.setattr(Reading, "hear", hear)
    loop = Loop(base, HeldPrompts(base, 2**20), 8, 64, 512)
    examples = [Example((first, 5), 2, ((),), ((0, -1),)) for first in (9, 7)]
    broken, whole = [
        Reading(base, examples, Mixture.of(NOTHING, 2), threading.Event()) for _ in range(2)
    ]
    request = Request(ROWS[1], NOTHING, how, None, None, Ticket(), 0.0)
    loop.waiting.extend([broken, whole, request])
    while loop.busy:
        loop.step()
    with pytest.raises(ValueError, match="broken"):
        broken.done.result(0)
    assert whole.done.result(0).shape == (2, base.width)
    assert list(request.ticket.result(0).tokens) == alone("llama", ROWS[1], NOTHING, how)
    assert loop.pool.used == 0


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_answers_that_nobody_waits_for_are_neither_read_nor_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, decoded = get(name), list[Request]()
    real = foreword.serve.whole.decode

    def recorded(own: Backbone, asked: Sequence[Request], counts: dict[str, int]) -> None:
        decoded.extend(asked)
        real(own, asked, counts)

    monkeypatch.setattr(foreword.serve.whole, "decode", recorded)
    about = {"name": name, "architecture": "causal", "fingerprint": base.fingerprint}
    labels = {"good": " good", "bad": " bad"}
    tasks = Generate(template="{text} :"), Classify(template="{text} :", labels=labels)
    rows = [Row({"text": text}, text) for text in ("a film", "it was")]
    began, go, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hear(piece: Piece) -> None:
        began.set()
        go.wait(60)

    with Engine(base, slots=8) as engine:
        first = engine.generate(ROWS[0], None, Sampling(max_new_tokens=2), hear)
        assert began.wait(60)  # and the engine waits
        writes, sorts = [
            engine.answer(Prompt(NOTHING, task, about, on=base), rows, cancelled=cancelled)
            for task in tasks
        ]
        until(lambda: engine.stats()["waiting"] == len(rows) + 1)
        cancelled.set()
        go.set()
        assert [each["text"] for each in writes.result(60)] == ["", ""]
        with pytest.raises(CancelledError):
            sorts.result(60)
        assert first.result(60).tokens
        counts = engine.stats()
    assert len(decoded) == (name == "bloom")
    assert counts.get("tokens_read", 0) <= len(ROWS[0]) + 2
    assert counts["waiting"] == counts["running"] == counts["slot_tokens"] == 0


def test_lines_that_are_being_read_are_left_once_nobody_waits_for_them() -> None:
    base, cancelled = get("llama"), threading.Event()
    loop = Loop(base, HeldPrompts(base, 2**20), 8, 1, 512)  # a token a step
    examples = [Example((first, 5, 6), 3, ((),), ((0, -1),)) for first in (9, 7, 8)]
    reading = Reading(base, examples, Mixture.of(NOTHING, 3), cancelled)
    loop.waiting.append(reading)
    loop.step()
    assert len(loop.running) == 3
    cancelled.set()
    loop.step()
    assert not loop.busy
    assert loop.pool.used == 0
    with pytest.raises(CancelledError):
        reading.done.result(0)


def test_a_listener_that_fails_stops_no_one() -> None:
    ticket, heard = Ticket(), list[Ticket]()
    ticket.when_done(lambda own: [][0])
    ticket.when_done(heard.append)
    ticket.finish(None, ValueError("broken"))
    assert heard == [ticket]


def test_no_rows_have_no_answers() -> None:
    base = get("llama")
    about = {"name": "llama", "architecture": "causal", "fingerprint": base.fingerprint}
    task = Classify(template="{text} :", labels={"good": " good", "bad": " bad"})
    spread = Familiar.of(torch.randn(30, base.width, generator=torch.Generator().manual_seed(0)))
    prompt = with_familiar(Prompt(NOTHING, task, about, on=base), spread)
    with Engine(base) as engine:
        assert engine.answer(prompt, []).result(20) == prompt.answers([]) == []


def test_a_cancelled_request_frees_its_slot() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=400)
    with Engine(base, slots=1) as engine:
        heard = threading.Event()
        long = engine.generate(ROWS[0], prompts("llama")[1], how, lambda piece: heard.set())
        waits = engine.generate(ROWS[0], None, how)
        after = engine.generate(ROWS[1], None, Sampling(max_new_tokens=3))
        assert heard.wait(20)
        waits.cancel()
        long.cancel()
        assert waits.result(20).finish == "cancelled"
        assert len(after.result(20).tokens) == 3
        assert long.result(20).finish == "cancelled"
        assert 0 < len(long.result().tokens) < 400


def test_a_prompt_that_is_released_in_use_is_finished_on_and_not_kept() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=60)
    with Engine(base, slots=2) as engine:
        first = prompts("llama")[4]
        heard = threading.Event()
        ticket = engine.generate(ROWS[0], first, how, lambda piece: heard.set())
        assert heard.wait(20)
        engine.release(first)
        assert engine.stats()["prompts"] == 0
        found = list(ticket.result(20).tokens)
    assert found == alone("llama", ROWS[0], first, how)


def test_a_prompt_of_another_width_is_not_held() -> None:
    base = get("llama")
    with Engine(base) as engine, pytest.raises(UserError, match="the prompt: embeds have shape"):
        engine.hold(Injection(embeds=torch.zeros(3, base.width + 1), leading=3))


def test_prompts_beyond_the_memory_are_loaded_again() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=3)
    chosen = [prompts("llama")[n] for n in (3, 4)]
    with Engine(base, memory=1) as engine:
        for _ in range(2):
            for prompt in chosen:
                ids = list(engine.generate(ROWS[1], prompt, how).result(20).tokens)
                assert ids == alone("llama", ROWS[1], prompt, how)
        counts = engine.stats()
    assert (counts["prompts"], counts["prompt_hits"], counts["prompt_misses"]) == (1, 0, 4)


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "window", "bloom", "bert"])
def test_answers_are_those_of_the_prompts_own_tasks(name: str) -> None:
    base = get(name)
    mask = " [mask]" if name == "bert" else ""
    text = Row({"text": "a good film", "history": "it was", "candidates": ["a film", "bad"]}, "r:1")
    labels = {"good": " good", "bad": (" bad", " a bad film")}
    tasks: list[Task] = [Classify(template=f"{{text}} :{mask}", labels=labels)]
    if name != "bert":
        tasks += [
            Rank(template="{history} :"),
            Generate(template="{text} :", decoding=Decoding(max_new_tokens=6)),
        ]
    about = {"name": name, "architecture": base.architecture, "fingerprint": base.fingerprint}
    soft = Injection(embeds=base.embed([7, 8, 9]).clone(), leading=3)
    asked = [
        Prompt(injection, task, about, on=base)
        for task in tasks
        for injection in (soft, prompts(name)[-1])
    ]
    with Engine(base, slots=3, chunk=4) as engine:
        futures = [engine.answer(prompt, [text] * 2) for prompt in asked]
        found = [future.result(60) for future in futures]
        assert engine.stats()["parted"] == 0
    for prompt, own in zip(asked, found, strict=True):
        expected = prompt.answers([text])[0]
        for each in own:
            assert each.keys() == expected.keys()
            for key, value in expected.items():
                if isinstance(value, dict):
                    assert each[key] == pytest.approx(value, abs=1e-4)
                elif key != "scores":
                    assert each[key] == value


def test_text_after_the_last_mask_is_not_read_and_fails_no_one() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=20)
    about = {"name": "llama", "architecture": "causal", "fingerprint": base.fingerprint}
    row = Row({"tokens": ["a", "good", "film"]}, "row")
    task = Tag("{tokens}", "\n{left}{word}:[mask] a film", {"O": " bad", "PER": " good"})
    prompt = Prompt(prompts("llama")[1], task, about, on=base)
    with Engine(base, chunk=1) as engine:
        other = engine.generate(ROWS[0], None, how)
        (found,) = engine.answer(prompt, [row]).result(60)
        assert list(other.result(60).tokens) == alone("llama", ROWS[0], NOTHING, how)
    assert found["tags"] == prompt.answers([row])[0]["tags"]
    loop = Loop(base, HeldPrompts(base, 2**20), 8, 1, 512)
    example = Example((9, 7, 8, 6), 2, ((),), ((0, -1),))
    reading = Reading(base, [example], Mixture.of(NOTHING, 1), threading.Event())
    loop.waiting.append(reading)
    while loop.busy:
        loop.step()
    assert torch.allclose(reading.done.result(0), base.states([example]), atol=1e-4)
    assert loop.counts["tokens_read"] == 2


def test_an_ensemble_s_labels_are_read_in_the_loop() -> None:
    base = get("llama")
    task = Classify(template="{text} :", labels={"good": " good", "bad": (" bad", " a bad film")})
    about = {"name": "llama", "architecture": "causal", "fingerprint": base.fingerprint}
    members = tuple(Prompt(prompts("llama")[n], task, about, on=base) for n in (1, 2, 4))
    ensemble = Ensemble(members, (0.5, 0.2, 0.3))
    rows = [Row({"text": text}, text) for text in ("a good film", "it was", "bad")]
    expected = ensemble.answers(rows)
    with Engine(base) as engine:
        found = engine.answer(ensemble, rows).result(20)
        assert engine.stats()["rows"] >= 9
    for one, own in zip(found, expected, strict=True):
        assert one["label"] == own["label"]
        assert one["probabilities"] == pytest.approx(own["probabilities"], abs=1e-4)


def test_an_engine_that_is_closed_finishes_what_it_has_or_ends_it() -> None:
    base, how = get("llama"), Sampling(max_new_tokens=30)
    engine = Engine(base, slots=1)
    tickets = [engine.generate(row, None, how) for row in ROWS]
    engine.close()
    assert all(ticket.result(0).tokens for ticket in tickets)
    with pytest.raises(UserError, match="closed"):
        engine.generate(ROWS[0])
    engine._open = True  # as one sees it whose request comes as the thread ends
    engine._thread = threading.main_thread()
    with pytest.raises(UserError, match="closed"):
        engine.generate(ROWS[0])
    engine = Engine(base, slots=1)
    tickets = [engine.generate(row, None, Sampling(max_new_tokens=400)) for row in ROWS]
    engine.close(drain=False)
    for ticket in tickets:
        with pytest.raises(UserError, match="closed"):
            ticket.result(0)
