"""Compression: a cartridge comes closer to its text than the text's own beginning."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foreword.backbone.decode import Decoding
from foreword.compression import compress as compress_module
from foreword.compression import self_study
from foreword.compression.compress import Compressed, compress
from foreword.compression.self_study import SelfStudy
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.methods.cartridge import Cartridge, text_ids
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.generate import Generate
from foreword.training.settings import Training
from oracles import get
from quick import first
from toys import Lines

WORDS = ["good", "bad", "fine", "film", "it", "was", "a", "and", "so", "as", "the", "is"]
TASK = Generate(" {prompt} :", decoding=Decoding(max_new_tokens=6, stop=("\n",)))
SILENCED = replace(TASK, decoding=Decoding(max_new_tokens=1, stop=tuple(string.printable)))
TRAINING = Training(epochs=6, batch_size=4)
STUDY = SelfStudy(count=24, part=20, words=6, temperature=1.5)


def text(n: int = 60) -> str:
    return " ".join(WORDS[(5 * i + i * i // 7) % len(WORDS)] for i in range(n))


def questions(n: int = 24, answers: bool = True) -> list[Row]:
    made = []
    for i in range(n):
        asked = " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 5))
        answer = {"completion": WORDS[i % 3]} if answers else {}
        made.append(Row({"prompt": f"{asked} {WORDS[i % 12]}", **answer}, f"Q:{i}"))
    return made


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    path = tmp_path / "manual.txt"
    path.write_text(text(), "utf-8")
    return path


def pressed(manual: Path, length: int = 6, **changes: Any) -> Compressed:
    values: dict[str, Any] = {
        "task": TASK,
        "study": STUDY,
        "training": TRAINING,
        **changes,
    }
    method = Cartridge(str(manual), length, rate=2e-2)
    return compress(get("llama"), method, manual.with_name("c.safetensors"), **values)


def test_the_baseline_is_the_texts_own_beginning(
    manual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    held = compress_module._prefill

    def noted(backbone: Any, ids: Any, text: Path) -> Any:
        seen.append(list(ids))
        return held(backbone, ids, text)

    monkeypatch.setattr(compress_module, "_prefill", noted)
    pressed(manual, questions=questions(12), training=Training(epochs=1))
    whole = get("llama").text.ids(text())
    assert seen == [whole, whole[:6]]


def test_it_comes_closer_to_the_text_than_its_beginning(manual: Path) -> None:
    found = pressed(manual, questions=questions(answers=False)).report
    assert found.reference == "full text"
    own, full = found.cartridge, found.full
    assert own.kl is not None
    assert found.truncated.kl is not None
    assert found.none.kl is not None
    assert own.kl < 0.8 * found.truncated.kl
    assert found.truncated.kl < found.none.kl
    assert found.tokens == len(get("llama").text.ids(text()))
    assert found.ratio == pytest.approx(found.tokens / 6, abs=0.01)
    assert found.questions.train + found.questions.dev + found.questions.test <= 24
    assert own.bytes
    assert full.bytes
    assert full.bytes / own.bytes == pytest.approx(found.tokens / 6)
    assert full.answers == 100  # answered from the text, and by the same again
    assert own.first_token_seconds
    assert own.first_token_seconds > 0
    plain = found.to_dict()
    assert list(plain)[:4] == ["tokens", "length", "ratio", "questions"]
    assert (plain["kl"], plain["kl_none"]) == (own.kl, found.none.kl)
    assert (plain["answers_full"], plain["bytes_full"]) == (full.answers, full.bytes)
    assert plain["intervals"]["answers"] == list(own.interval or ())


def test_the_file_answers_in_the_texts_place(manual: Path) -> None:
    made = pressed(manual, questions=questions())
    loaded = Prompt.load(manual.with_name("c.safetensors"), get("llama"))
    assert loaded.predict(["film it"]) == made.prompt.predict(["film it"])
    assert loaded.scores["compress"] == made.report.to_dict()
    assert loaded.method["name"] == "cartridge"


def test_questions_of_ones_own_are_scored_by_their_answers(manual: Path) -> None:
    test = [Row({"prompt": "film it was", "completion": "never said"}, "T:1")]
    found = pressed(manual, questions=questions(), test=test).report
    assert found.reference == "given"
    assert found.questions.test == 1
    assert found.full.answers == 0


def test_a_model_asks_itself_and_keeps_what_it_has_asked(manual: Path) -> None:
    said: list[str] = []
    pressed(manual, report=Lines(said))
    kept = manual.with_name("c.questions.jsonl")
    rows = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    parts = round(len(get("llama").text.ids(text())) / STUDY.part)
    assert {row["part"] for row in rows} == set(range(parts))
    assert len({row["prompt"].casefold() for row in rows}) == len(rows)
    before = kept.read_bytes()
    pressed(manual, report=Lines(said))
    assert kept.read_bytes() == before
    assert any("are there already" in line for line in said)


def test_questions_have_a_seed_of_their_own(manual: Path) -> None:
    kept, runs = manual.with_name("c.questions.jsonl"), set()
    for study in (STUDY, replace(STUDY, seed=1)):
        pressed(manual, study=study, training=Training(epochs=1))
        runs |= {json.loads(line)["run"] for line in kept.read_text("utf-8").splitlines()}
    assert len(runs) == 2


def test_a_part_longer_than_a_sliding_window_is_asked_about_too(manual: Path) -> None:
    base = get("mistral-window")
    assert base.window is not None
    assert base.window < STUDY.part
    method, out = Cartridge(str(manual), 6), manual.with_name("c.safetensors")
    once: dict[str, Any] = {"study": STUDY, "training": Training(epochs=1), "report": SILENT}
    assert compress(base, method, out, task=TASK, **once).report.questions.test > 0


@pytest.mark.parametrize("calls", first(1, [2, 1, 3, 4]))
def test_asking_goes_on_where_it_was_stopped(
    manual: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    kept = manual.with_name("c.questions.jsonl")
    pressed(manual)
    whole = kept.read_bytes()
    kept.unlink()
    write, left = self_study.write_jsonl, [calls]

    def stopping(path: Path, rows: Any) -> None:
        write(path, rows)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(self_study, "write_jsonl", stopping)
    with pytest.raises(KeyboardInterrupt):
        pressed(manual)
    monkeypatch.setattr(self_study, "write_jsonl", write)
    pressed(manual)
    assert kept.read_bytes() == whole


@pytest.mark.slow
def test_questions_of_another_text_are_not_taken(manual: Path) -> None:
    pressed(manual)
    kept = manual.with_name("c.questions.jsonl")
    before = kept.read_bytes()
    manual.write_text(text(70), "utf-8")
    pressed(manual)
    assert kept.read_bytes() != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"length": 500}, "no more than the 500 positions"),
        ({"length": 0}, "`length=0`: give 1 or more"),
        ({"questions": questions(9)}, "there are 9 questions with an answer"),
        ({"task": Generate("film")}, "has no field for a question"),
        ({"task": Generate("{prompt} {more}")}, "questions need one field"),
        ({"study": SelfStudy(count=0)}, "`count=0`: give 1 or more"),
        (
            {"questions": questions(), "test": questions(2, answers=False), "task": SILENCED},
            r"Q: the model answers none of the 2 questions with a word; give them answers, in "
            "the field 'completion'",
        ),
    ],
)
def test_what_cannot_be(manual: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        pressed(manual, **change)
    assert not manual.with_name("c.safetensors").exists()


def test_a_text_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        pressed(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        pressed(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("\n ")
    with pytest.raises(UserError, match=r"b\.txt: is empty; give a file with the text"):
        pressed(tmp_path / "b.txt")


def test_a_mark_of_the_byte_order_is_no_text(manual: Path) -> None:
    manual.write_text("good film", "utf-8-sig")
    letters: Any = SimpleNamespace(text=SimpleNamespace(around=([0],), body=lambda text: text))
    assert text_ids(letters, manual) == [0, *"good film"]


def test_a_text_that_is_longer_than_the_model_reads(manual: Path) -> None:
    manual.write_text(text(5000), "utf-8")
    with pytest.raises(UserError, match="cut it into files of at most"):
        pressed(manual)


@pytest.mark.parametrize("name", ["bert", "t5", "bloom"])
def test_a_model_that_cannot_hold_a_text(manual: Path, name: str) -> None:
    method = Cartridge(str(manual), 6)
    with pytest.raises(UserError):
        compress(get(name), method, manual.with_name("c.safetensors"), task=TASK)


def test_the_method_is_named_as_elsewhere(manual: Path) -> None:
    once = Training(epochs=1)
    made = pressed(manual, questions=questions(12), training=once)
    path = manual.with_name("c.safetensors")
    named = {"text": str(manual), "length": 6, "rate": 2e-2}
    given: dict[str, Any] = {"questions": questions(12), "training": once}
    given |= {"task": TASK, "study": STUDY, "report": SILENT}
    again = compress(get("llama"), "cartridge", path, **given, **named)
    assert again.report.cartridge.kl == made.report.cartridge.kl
    for method, more, line in (
        ("soft", {"length": 3}, "a text is compressed by `method=cartridge`"),
        ("cartridge", {**named, "depth": 2}, "`depth` is no setting of the method"),
        ("cartridge", {**named, "lr": 1.0}, "`lr` and `rate` are one setting"),
        ("cartrige", named, "did you mean 'cartridge'"),
    ):
        with pytest.raises(UserError, match=line):
            compress(get("llama"), method, path, **given, **more)
