"""Pretraining: what is learned, what a stopped run comes to, and what is refused."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.recurrent_model import RecurrentForCausalLM
from foreword.cli.advice import with_flags
from foreword.cli.main import run
from foreword.errors import UserError
from foreword.recurrent.pretrain import HELD_OUT, pretrain
from foreword.recurrent.streams import AT_ONCE, Pretraining
from foreword.recurrent.tokenizers import byte_pairs, characters, encode
from foreword.training import checkpoint
from foreword.training.interrupt import Interrupted
from quick import first
from toys import Lines, Recorder, rows, write

NAMES, DEEDS, THINGS = ("Anna", "Ben", "Cleo"), ("sees", "takes", "gives"), ("a cup", "the hat")
SMALL = Pretraining(width=24, layers=2, batch_size=4, sequence=12, epochs=1, rate=1e-2)


def story(lines: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    pick = chance.choice
    return "".join(f"{pick(NAMES)} {pick(DEEDS)} {pick(THINGS)}.\n" for _ in range(lines))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(story(60), "utf-8")
    return path


class Stopper(Recorder):
    """Presses Ctrl-C after a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, number: int, values: Mapping[str, float]) -> None:
        super().step(number, values)
        if number == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# Tokenizers -----------------------------------------------------------------------------------


def test_characters_are_tokens_and_unknown_ones_do_no_harm() -> None:
    made = characters("banana\nband", None)
    assert made.convert_ids_to_tokens([3, 4, 5]) == ["a", "n", "b"]  # by frequency
    ids = made("nab\na", add_special_tokens=False)["input_ids"]
    assert ids == encode(made, "nab\na")
    assert made.decode(ids) == "nab\na"
    assert made.decode(encode(made, "naïve\n"), skip_special_tokens=True) == "na\n"
    assert len(characters("banana\nband", 5)) == 5


def test_byte_pairs_spell_everything_back() -> None:
    made = byte_pairs(story(40), 280)
    assert len(made) == 280
    for said in (story(3, 1), "naïve 日本\n\n x  y", ""):
        assert made.decode(encode(made, said)) == said
    assert len(encode(made, story(5))) < 0.5 * len(story(5))


def test_a_long_text_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = characters(story(9), None), f"{'x' * 50}{story(9)}\n\n{'Anna' * 30}"
    whole = made(said, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("foreword.recurrent.tokenizers.PIECE", 32)
    assert encode(made, said) == whole


# Runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", first(0, ["lstm", "gru"]))
def test_it_learns_more_than_how_often_characters_come(arch: str, tmp_path: Path) -> None:
    whole = story(400)
    path = tmp_path / "story.txt"
    path.write_text(whole, "utf-8")
    found = pretrain(path, tmp_path / "m", replace(SMALL, arch=arch, steps=240))
    counts = Counter(whole)
    entropy = -sum(n / len(whole) * math.log2(n / len(whole)) for n in counts.values())
    assert found.bits_per_character < 0.5 * entropy
    assert found.perplexity == pytest.approx(2**found.bits_per_character)
    assert found.tokens == len(counts) + 3


def test_a_folder_is_a_backbone_that_scores_what_was_said(text: Path, tmp_path: Path) -> None:
    for settings in (SMALL, replace(SMALL, tokens="bpe", vocabulary=280, arch="gru")):
        found = pretrain(text, tmp_path / "m", settings)
        base, whole = Backbone.load(str(tmp_path / "m")), text.read_text("utf-8")
        held = whole[len(whole) - round(HELD_OUT * len(whole)) :]
        ids = torch.tensor([base.text.end, *base.text.ids(held)])
        assert len(ids) < AT_ONCE
        with torch.no_grad():
            logits = base.model(ids[None, :-1]).logits[0]
            nats = float(F.cross_entropy(logits, ids[1:]))
        assert found.perplexity == pytest.approx(math.exp(nats), rel=1e-4)
        bits = nats * (len(ids) - 1) / len(held) / math.log(2)
        assert found.bits_per_character == pytest.approx(bits, rel=1e-4)
        assert base.text.decode(base.text.ids("Anna sees\n")) == "Anna sees\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "story.txt"]


def test_the_first_steps_are_those_of_a_plain_loop(text: Path, tmp_path: Path) -> None:
    """Streams of the text, states carried over and reset with the epoch, the rate in a line."""
    said = Recorder()
    settings = replace(SMALL, batch_size=2, sequence=400, epochs=2)
    pretrain(text, tmp_path / "m", settings, report=said)
    whole = text.read_text("utf-8")
    whole = whole[: len(whole) - round(HELD_OUT * len(whole))]
    made = characters(whole, None)
    ids = [made.eos_token_id, *encode(made, whole)]
    length = (len(ids) - 1) // 2
    assert 400 < length < 800
    assert [step["rows"] for step in said.of("step")] == [800, 2 * (length - 400)] * 2
    assert [step["rate"] for step in said.of("step")] == [1e-2, 7.5e-3, 5e-3, 2.5e-3]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Backbone.load(str(tmp_path / "m")).model
        plain = type(model)(model.config)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    states = None
    for step, (start, end) in enumerate([(0, 400), (400, length)] * 2):
        x = torch.tensor([ids[start:end], ids[length + start : length + end]])
        y = torch.tensor([ids[start + 1 : end + 1], ids[length + start + 1 : length + end + 1]])
        out = plain(x, past_key_values=states if start else None, use_cache=True)
        states = out.past_key_values.detach()
        loss = F.cross_entropy(out.logits.flatten(0, 1), y.flatten())
        assert float(loss.detach()) == pytest.approx(said.of("step")[step]["loss"], rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 4)
        optimizer.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("at", [1, 20, 31])
def test_a_resumed_run_makes_the_same_weights(at: int, text: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, dropout=0.3, epochs=2)
    told: list[str] = []
    pretrain(text, tmp_path / "whole", settings)
    out = tmp_path / "parts"
    with pytest.raises(Interrupted, match=rf"stopped at step {at} of 44"):
        pretrain(text, out, settings, report=Stopper(at))
    assert not out.exists()
    assert checkpoint.path_for(out).exists()
    with pytest.raises(UserError, match="is of a run with other data"):
        pretrain(text, out, replace(settings, seed=1), resume=True)
    pretrain(text, out, settings, resume=True, report=Lines(told))
    assert told[-1].startswith(f"resuming at step {at} of 44")
    assert weights(out) == weights(tmp_path / "whole")
    assert not checkpoint.path_for(out).exists()


def test_a_seed_decides_the_weights_and_the_callers_random_state_is_left_alone(
    text: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    settings = replace(SMALL, steps=3, dropout=0.2)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(text, tmp_path / name, replace(settings, seed=seed))
    assert torch.equal(torch.rand(2), expected)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


@pytest.mark.slow
def test_the_weights_that_score_best_are_kept(text: Path, tmp_path: Path) -> None:
    said, end = Recorder(), list(story(6, 1))
    random.Random(0).shuffle(end)  # so that what helps in the story does not help here
    text.write_text(story(110) + "".join(end), "utf-8")
    settings = replace(SMALL, epochs=6)
    found = pretrain(text, tmp_path / "m", settings, report=said)
    scores = said.of("score")
    assert found.perplexity == pytest.approx(min(scores))
    assert len(scores) == 6
    assert min(scores) < scores[-1]


def test_a_score_that_is_no_number_is_the_worst(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[float] = []

    def entropy(logits: torch.Tensor, targets: torch.Tensor, **how: Any) -> torch.Tensor:
        found = F.cross_entropy(logits, targets, **how)
        if how:  # of the held-out text
            judged.append(float(found))
        return found * math.nan if how and len(judged) == 1 else found

    monkeypatch.setattr("foreword.recurrent.streams.F", SimpleNamespace(cross_entropy=entropy))
    found = pretrain(text, tmp_path / "m", replace(SMALL, epochs=2))
    assert len(judged) == 2
    assert math.isfinite(found.bits_per_character)


def test_a_stopped_run_is_dropped_where_nobody_resumes_it(text: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(Interrupted):
        pretrain(text, tmp_path / "m", SMALL, report=Stopper(2))
    pretrain(text, tmp_path / "m", SMALL, report=Lines(told))
    assert any("discarding an unfinished run" in line for line in told)
    pretrain(text, tmp_path / "m", SMALL, resume=True, report=Lines(told))
    assert told[-1].startswith("nothing to resume")


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"arch": "lstn"}, r"`arch=lstn`: unknown; did you mean 'lstm'\?"),
        ({"tokens": "word"}, r"`tokens=word`: unknown; .*char, bpe"),
        ({"width": 1}, "`width=1`: give from 2 to 8192"),
        ({"width": 8193}, "`width=8193`"),
        ({"layers": 0}, "`layers=0`"),
        ({"epochs": 0}, "`epochs=0`"),
        ({"steps": 0}, "`steps=0`"),
        ({"batch_size": 0}, "`batch_size=0`"),
        ({"sequence": 0}, "`sequence=0`"),
        ({"vocabulary": 3}, "`vocabulary=3`: give from 4 to 1000000 for `tokens=char`"),
        ({"tokens": "bpe", "vocabulary": 258}, "`vocabulary=258`: give from 259"),
        ({"dropout": 1.0}, "`dropout=1`"),
        ({"seed": -1}, "`seed=-1`: give from 0 to 9223372036854775807"),
        ({"seed": 2**63}, "`seed=9223372036854775808`: give from 0"),
        ({"rate": 0.0}, "learning rate"),
        ({"batch_size": 5000}, "tokens to train on, fewer than `batch_size=5000`"),
        ({"rate": 1e29}, "lower `rate`"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    wrong: dict[str, Any], why: str, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=why) as caught:
        pretrain(text, tmp_path / "m", replace(SMALL, **wrong))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a", "is too short"),
        (b"abc", "fewer than `batch_size=4`"),
        (b"caf\xe9 au lait", r"is not UTF-8 \(byte 3 is 0xe9\)"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    given = ["--text", str(path), "--out", str(tmp_path / "m"), "--batch-size", "4"]
    assert run(["pretrain", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    with pytest.raises(UserError, match=why) as caught:
        pretrain(path, tmp_path / "m", SMALL)
    assert shown.err.strip() == f"foreword: {with_flags(str(caught.value))}"
    assert not (tmp_path / "m").exists()


def test_places_that_cannot_be_written_are_refused(text: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine", "utf-8")
    for out, why in (
        (text, "is a file; name a folder"),
        (tmp_path / "full", "holds something else, letter.txt; name a new folder"),
        (text / "m", "cannot be written"),
    ):
        with pytest.raises(UserError, match=why):
            pretrain(text, out, SMALL)
    with pytest.raises(UserError, match="is a folder; name one file"):
        pretrain(tmp_path, tmp_path / "m", SMALL)
    assert (tmp_path / "full" / "letter.txt").read_text("utf-8") == "mine"


def test_a_file_that_was_put_beside_a_model_is_not_lost(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    pretrain(text, out, replace(SMALL, steps=1))
    mine = out / "p.safetensors"
    mine.write_text("mine", "utf-8")
    with pytest.raises(UserError, match=r"holds something else, p\.safetensors; name a new folder"):
        pretrain(text, out, replace(SMALL, steps=2))
    assert mine.read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_a_model_that_cannot_be_replaced_stays(
    error: BaseException, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "m", Path.rename
    pretrain(text, out, replace(SMALL, steps=1))
    before = weights(out)

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((UserError, KeyboardInterrupt)):
        pretrain(text, out, replace(SMALL, steps=2))
    assert weights(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.checkpoint", "m", "story.txt"]
    monkeypatch.undo()
    pretrain(text, out, replace(SMALL, steps=2), resume=True)
    assert weights(out) != before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "story.txt"]


def test_a_model_that_a_killed_run_moved_away_is_put_back(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    pretrain(text, out, replace(SMALL, steps=1))
    before = weights(out)
    out.rename(tmp_path / ".m.old")
    with pytest.raises(Interrupted):
        pretrain(text, out, SMALL, report=Stopper(1))
    assert weights(out) == before


def test_a_full_disk_is_told_in_a_line_and_the_run_is_kept(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(RecurrentForCausalLM, "save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot be written \(I/O error: No space.*use `resume`"):
        pretrain(text, tmp_path / "m", replace(SMALL, steps=1))
    monkeypatch.undo()
    told: list[str] = []
    pretrain(text, tmp_path / "m", replace(SMALL, steps=1), resume=True, report=Lines(told))
    assert told[0] == "resuming at step 1 of 1"


# The command ----------------------------------------------------------------------------------


def test_the_command_makes_a_model_that_the_others_take(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, prompt = tmp_path / "m", tmp_path / "p.safetensors"
    given = "--arch gru --width 16 --steps 5 --batch-size 2 --sequence 8 --lr 0.01 --json"
    assert run(["pretrain", "--text", str(text), "--out", str(folder), *given.split()]) == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    assert made["steps"] == 5
    assert made["bits_per_character"] > 0
    assert "step 5 of 5: loss" in shown.err
    data = str(write(tmp_path / "rows.jsonl", rows(8)))
    tuned = ["--model", str(folder), "--train", data, "--epochs", "1", "--dev", data]
    for method in ("prefix", "soft"):
        flags = ["--method", method, "--template", "{text} :", "--out", str(prompt)]
        assert run(["train", *tuned, *flags]) == 0, capsys.readouterr().err
        assert run(["eval", str(prompt), "--data", data]) == 0
    capsys.readouterr()
    assert run(["predict", str(prompt), "a good film", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] in ("good", "bad")
