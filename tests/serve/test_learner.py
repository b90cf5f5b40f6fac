"""A server that learns: what trains and what judges, and what is swapped in."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

import char_model
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.prompt.familiar import Familiar, states_of_answers
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.feedback import learner, process
from foreword.serve.feedback.files import ABOUT, FeedbackFiles
from foreword.serve.feedback.learner import Learner
from foreword.serve.feedback.learning import Learning
from foreword.serve.feedback.sides import SHARE, is_held_back
from foreword.serve.http.history import history
from foreword.serve.http.ready import Ready
from foreword.serve.prompts import PromptFolder
from foreword.serve.texts import TextRequests
from foreword.tasks.labels.classifier import Classifier
from processes import PATIENCE, launch, until
from serve.serving import SORT, WRITE, prefix, prompt_of

ROWS = 90
LEARNING = Learning(every=20, held=10)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.load(char_model.save(tmp_path_factory.mktemp("learner") / "model"))


@pytest.fixture
def ready(backbone: Backbone, tmp_path: Path) -> Iterator[Ready]:
    (tmp_path / "prompts").mkdir()
    prompt_of(backbone, SORT, prefix(backbone, 4)).save(tmp_path / "prompts" / "sort.safetensors")
    prompt_of(backbone, WRITE, prefix(backbone, 1)).save(tmp_path / "prompts" / "write.safetensors")
    prompts = PromptFolder(tmp_path / "prompts", backbone)
    engine = Engine(backbone, slots=4)
    yield Ready("model", backbone, prompts, engine, TextRequests(backbone))
    engine.close()
    prompts.close()


@pytest.fixture
def files(ready: Ready, tmp_path: Path) -> FeedbackFiles:
    """Feedback that calls every answer of the prompt right."""
    chance = random.Random(0)
    made = FeedbackFiles(tmp_path / "feedback", new_id=lambda: f"{chance.getrandbits(64):016x}")
    _, prompt = ready.prompts.open("sort")
    texts = [f"text {n}, {'ab'[n % 2] * (n % 7)}" for n in range(ROWS)]
    for text, label in zip(texts, prompt.predict(texts), strict=True):
        made.add("sort", {"text": text, "label": label}, version="sort@1")
    return made


Trained = Callable[[Prompt], Prompt]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, ready: Ready) -> Callable[[Trained], list[Any]]:
    """Let a training make what a function makes of the version, and return its rows."""

    def use(make: Trained) -> list[Any]:
        seen: list[Any] = []

        def train(self: Learner, name: str, version: str, rows: Any, out: Path) -> None:
            seen.append(rows)
            prompt = ready.prompts.open(version)[1]
            assert isinstance(prompt, Prompt)
            make(prompt).save(out)

        monkeypatch.setattr(Learner, "_train", train)
        return seen

    return use


def test_a_version_that_is_as_good_is_swapped_in(
    ready: Ready, files: FeedbackFiles, training: Any
) -> None:
    seen = training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    for _ in range(9):  # of which some are held back: they neither train nor judge
        files.add("sort", {"text": "hm", "label": "odd"}, version="sort@1")
    files.add("sort", {"text": "so", "label": "good"}, version="sort@1", new_label="good")
    said: list[dict[str, Any]] = []
    own = Learner(ready, files, LEARNING, lambda **values: said.append(values))
    assert own.waits("sort") is None
    made = own.look("sort")
    assert made is not None
    assert (made.taken, made.old_version, made.new_version) == (True, "sort@1", "sort@2")
    assert (made.old, made.new, made.low, made.high) == (100, 100, 0, 0)
    assert made.interval == [100, 100]
    first, second = history(ready.prompts, "sort", own.attempts("sort"))
    assert (first["version"], first["origin"], first["replaced"]) == ("sort@1", "file", None)
    assert (second["version"], second["origin"]) == ("sort@2", "feedback")
    assert second["replaced"] == "sort@1"
    assert second["held"] == {"score": 100, "interval": [100, 100], "rows": LEARNING.held}
    assert second["scores"] == {"dev": {"accuracy": 1.0}}
    assert (made.trained, made.held) == (len(seen[0]), LEARNING.held)
    known = [row for row in files.rows("sort") if row["label"] != "odd"]
    assert len(known) == ROWS + 1  # and one whose label was added since
    assert [row for row in known if not is_held_back(row)] == seen[0]
    assert ready.prompts.open("sort")[0] == "sort@2"
    assert own.attempts("sort") == [{key: said[0][key] for key in own.attempts("sort")[0]}]
    assert own.look("sort") is None  # nothing new has come
    more = 0
    while more < 20:
        files.add("sort", {"text": "more", "label": "good"}, version="sort@2")
        more += not is_held_back(files.rows("sort")[-1])
    again = own.look("sort")
    assert again is not None
    assert again.old_version == "sort@2"
    assert len(own.attempts("sort")) == 2


def test_a_version_that_may_be_worse_is_not(
    ready: Ready, files: FeedbackFiles, backbone: Backbone, training: Any
) -> None:
    training(lambda prompt: prompt_of(backbone, SORT, prefix(backbone, 9)))
    right = ready.prompts.open("sort")[1]
    held = [row["text"] for row in files.rows("sort") if is_held_back(row)]
    texts = held[-LEARNING.held :]  # the newest judge
    other = prompt_of(backbone, SORT, prefix(backbone, 9)).predict(texts)
    same = [a == b for a, b in zip(other, right.predict(texts), strict=True)]
    assert not all(same)  # else there is nothing to refuse
    made = Learner(ready, files, LEARNING).look("sort")
    assert made is not None
    assert made.new == round(100 * sum(same) / len(same), 2)
    assert made.low is not None
    assert made.low < -3
    assert not made.taken
    assert "may be as low as" in made.reason
    assert ready.prompts.open("sort")[0] == "sort@1"
    lenient = Learner(ready, files, Learning(every=20, held=10, bound=-100))
    (files.folder / "sort.learned.json").unlink()
    made = lenient.look("sort")
    assert made is not None
    assert made.taken


@pytest.mark.parametrize("learning", [Learning(every=200, held=10), Learning(every=20, held=200)])
def test_it_waits_for_rows(
    learning: Learning,
    ready: Ready,
    files: FeedbackFiles,
    training: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = training(lambda prompt: prompt)
    files.add("sort", {"text": "hm", "label": "odd"}, version="sort@1")  # it does not know
    held = sum(is_held_back(row) for row in files.rows("sort")[:ROWS])
    missing = (
        f"{ROWS - held} of {learning.every} new rows to train on, "
        f"{held} of {learning.held} rows held back"
    )
    assert Learner(ready, files, learning).waits("sort") == missing
    assert Learner(ready, files, learning).look("sort") is None
    said: list[dict[str, Any]] = []
    looks = iter(range(3))
    own = Learner(ready, files, learning, lambda **values: said.append(values))
    monkeypatch.setattr(own._stopped, "wait", lambda seconds: next(looks, None) is None)
    own._run()
    assert [each["waits"] for each in said] == [missing]  # once
    assert not seen


def test_a_version_that_later_rows_show_to_be_worse_is_taken_back(
    ready: Ready, files: FeedbackFiles, backbone: Backbone, training: Any
) -> None:
    worse = prompt_of(backbone, SORT, prefix(backbone, 9))
    training(lambda prompt: worse)
    right = ready.prompts.open("sort")[1]
    own = Learner(ready, files, Learning(every=20, held=10, bound=-100, roll_back=True))
    made = own.look("sort")
    assert made is not None
    assert made.new_version == "sort@2"
    files.now = lambda: datetime.now(UTC) + timedelta(minutes=1)
    for _ in range(60):
        files.add("sort", {"text": "hm", "label": "odd"}, version="sort@2")  # it does not know
    assert own.look("sort") is None
    texts = [f"later {number}, {'ab'[number % 2] * (number % 7)}" for number in range(120)]
    told = zip(texts, right.predict(texts), worse.predict(texts), strict=True)
    differ = [{"text": text, "label": label} for text, label, other in told if label != other]
    for number in range(120):
        files.add("sort", differ[number % len(differ)], version="sort@2")
    later = own.look("sort")
    assert later is not None
    assert later.held == 10  # the first that came
    assert later.high is not None
    assert later.high < 0
    assert "sort@1 is back" in later.reason
    assert later.new_version == "sort@3"
    assert ready.prompts.open("sort")[0] == "sort@3"
    texts = [row["text"] for row in files.rows("sort")]
    assert ready.prompts.open("sort")[1].predict(texts) == right.predict(texts)
    assert not later.taken  # so that it is not judged again
    third = history(ready.prompts, "sort", own.attempts("sort"))[2]
    assert (third["origin"], third["content"]) == ("rollback", "sort@1")
    assert third["replaced"] == "sort@2"
    assert "held" not in third


def fake(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, files: FeedbackFiles, learning: Learning
) -> tuple[Learner, Callable[[bool, bool], dict[str, Any] | None]]:
    """Return a learner that only keeps count, and what adds a row, or has it look for one taken."""
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    own, version, taken = Learner(ready, files, learning), [1], [True]
    files.now = lambda: clock[0]
    monkeypatch.setattr(learner, "_now", lambda: clock[0].isoformat(timespec="microseconds"))
    monkeypatch.setattr(ready.prompts, "open", lambda name: (f"sort@{version[0]}", None))
    monkeypatch.setattr(learner, "is_known", lambda prompt, row: True)

    def attempt(made: Any, *given: Any) -> Any:
        version[0] += taken[0]
        return replace(made, taken=taken[0], new_version=f"sort@{version[0]}" if taken[0] else None)

    def look_back(name: str, last: Any, held: Any) -> Any:
        assert len(held) >= min(learning.held, learner.AGAIN)
        return learner.Attempt(learner._now(), last["new_version"], 0, len(held), again=True)

    monkeypatch.setattr(own, "_attempt", attempt)
    monkeypatch.setattr(own, "_look_back", look_back)

    def go_on(held: bool, take: bool) -> dict[str, Any] | None:
        clock[0] += timedelta(hours=12)
        taken[0] = take
        files.new_id = lambda: f"{SHARE + (not held):08x}"
        files.add("sort", {"text": "a"})
        made = own.look("sort")
        return None if made is None else asdict(made)

    return own, go_on


def test_a_server_learns_on_where_as_many_rows_go_as_come(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FeedbackFiles(tmp_path / "kept", days=10)
    own, go_on = fake(ready, monkeypatch, files, Learning(every=6, held=3))
    for number in range(120):
        go_on(number % 3 == 0, False)
        files.remove_old()
    times = [datetime.fromisoformat(each["time"]) for each in own.attempts("sort")]
    assert len(files.rows("sort")) < 30
    assert [b - a for a, b in pairwise(times)] == [timedelta(hours=12 * 9)] * (len(times) - 1)
    assert len(times) == 13


@pytest.mark.parametrize(
    ("every", "held", "judges"),
    [(3, 4, 4), (60, 120, 29), (20, 60, 20), (60, 24, 24)],
    ids=["few", "as usual", "often", "fewer held"],
)
def test_each_version_is_judged_again_before_the_next(
    every: int,
    held: int,
    judges: int,
    ready: Ready,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every three rows one is held back, so that versions come faster than what judges them."""
    files, learning = FeedbackFiles(tmp_path / "kept"), Learning(every, held, roll_back=True)
    own, go_on = fake(ready, monkeypatch, files, learning)
    for number in range(held * 3 + 9 * max(every, 3 * judges) // 2):
        go_on(number % 3 == 0, True)
    found = own.attempts("sort")
    kinds = [each["again"] for each in found]
    assert kinds == [number % 2 == 1 for number in range(len(found))]
    assert len(found) > 4
    again = [each for each in found if each["again"]]
    assert [each["old_version"] for each in again] == [f"sort@{n + 2}" for n in range(len(again))]
    assert {each["held"] for each in again} == {judges}


def test_it_says_what_it_waits_for_before_the_next_version(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FeedbackFiles(tmp_path / "kept")
    own, go_on = fake(ready, monkeypatch, files, Learning(3, 4, roll_back=True))
    made = None
    for number in range(12):
        made = made or go_on(number % 3 == 0, True)
    for _ in range(3):
        assert go_on(False, True) is None
    assert own.waits("sort") == "0 of 4 rows held back to judge the last one again"


def test_what_was_learned_is_not_credited_to_files_that_come_after_a_removal(
    ready: Ready, files: FeedbackFiles, backbone: Backbone, training: Any
) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    own = Learner(ready, files, LEARNING)
    made = own.look("sort")
    assert made is not None
    assert made.new_version == "sort@2"
    assert own._unseen("sort", own.attempts("sort")) is not None
    ready.prompts.remove("sort")
    for seed in (5, 6):
        path = ready.prompts.folder / "sort.safetensors"
        prompt_of(backbone, SORT, prefix(backbone, seed)).save(path)
        name = ready.prompts.open("sort")[0]
    assert name == "sort@2"
    found = history(ready.prompts, "sort", own.attempts("sort"))
    assert [each["origin"] for each in found] == ["file", "file"]
    assert own._unseen("sort", own.attempts("sort")) is None


def test_rows_are_looked_at_once(
    ready: Ready, files: FeedbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, looked, real = Learner(ready, files, Learning(every=1000)), list[Any](), learner.is_known

    def is_known(prompt: Any, row: Any) -> bool:
        looked.append(row)
        return real(prompt, row)

    monkeypatch.setattr(learner, "is_known", is_known)
    assert own.waits("sort") == own.waits("sort")
    assert len(looked) == ROWS
    files.add("sort", {"text": "more", "label": "good"})
    own.waits("sort")
    assert len(looked) == 2 * ROWS + 1


def test_what_goes_wrong_is_said_once_and_kept(ready: Ready, files: FeedbackFiles) -> None:
    own = Learner(ready, files, Learning(every=20, held=10, settings=("--no-such-flag",)))
    made = own.look("sort")
    assert made is not None
    assert not made.taken
    assert made.reason.startswith("training failed: ")
    assert "--no-such-flag" in made.reason
    assert own.look("sort") is None


def test_texts_are_judged_by_chrf(ready: Ready, files: FeedbackFiles, training: Any) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    _, prompt = ready.prompts.open("write")
    for n, text in enumerate(prompt.predict([str(n) for n in range(60)])):
        files.add("write", {"prompt": f"{n}", "completion": f"{text} and"}, version="write@1")
    made = Learner(ready, files, LEARNING).look("write")
    assert made is not None
    held = [row for row in files.rows("write") if is_held_back(row)][-LEARNING.held :]
    texts = prompt.predict([row["prompt"] for row in held])
    pairs = zip(texts, held, strict=True)
    expected = [sacrebleu.sentence_chrf(text, [row["completion"]]).score for text, row in pairs]
    assert 0 < sum(expected) < 100 * len(held)
    assert made.old == made.new == round(sum(expected) / len(expected), 2)
    assert made.taken


def test_few_rows_at_a_time_are_judged(
    ready: Ready, files: FeedbackFiles, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    for n in range(60):
        files.add("write", {"prompt": f"{n}", "completion": "and"}, version="write@1")
    asked: list[int] = []
    for name in ("answer", "states"):
        real = getattr(ready.engine, name)

        def ask(prompt: Any, rows: Any, real: Any = real) -> Any:
            asked.append(len(rows))
            return real(prompt, rows)

        monkeypatch.setattr(ready.engine, name, ask)
    made = Learner(ready, files, Learning(every=20, held=20)).look("sort")
    assert made is not None
    assert made.taken
    assert asked == [1] * 3 * 20  # two versions answer, and one tells its states
    asked.clear()
    Learner(ready, files, LEARNING).look("write")
    assert set(asked) <= {learner.TEXTS, LEARNING.held % learner.TEXTS}


def test_requests_are_answered_before_rows_that_judge(
    ready: Ready, files: FeedbackFiles, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    waits = iter([True, True, False])
    order: list[str] = []
    real = ready.engine.answer

    def busy(self: Engine) -> bool:
        order.append("looked")
        return next(waits, False)

    def answer(*given: Any) -> Any:
        order.append("asked")
        return real(*given)

    monkeypatch.setattr(Engine, "busy", property(busy))
    monkeypatch.setattr(ready.engine, "answer", answer)
    own = Learner(ready, files, LEARNING)
    rows = [Row({"text": f"row {n}", "label": "good"}, "here") for n in range(2)]
    found = own._answers(ready.prompts.open("sort")[1], rows)
    assert len(found) == 2
    monkeypatch.undo()
    assert order[:4] == ["looked", "looked", "looked", "asked"]
    assert order.count("asked") == 2


def test_rows_that_judge_do_not_wait_for_ever(
    ready: Ready, files: FeedbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "YIELD", 0.01)
    own = Learner(ready, files, LEARNING)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "busy", True)
        own._let_requests_pass()


def test_a_label_that_most_corrections_name_is_no_reason_to_forget_the_others(
    ready: Ready, files: FeedbackFiles, backbone: Backbone, training: Any
) -> None:
    worse = prompt_of(backbone, SORT, prefix(backbone, 9))
    training(lambda prompt: worse)
    right = ready.prompts.open("sort")[1]
    texts = [f"other {n}, {'ab'[n % 2] * (n % 7)}" for n in range(3 * ROWS)]
    told = zip(texts, worse.predict(texts), right.predict(texts), strict=True)
    lies = [(text, new) for text, new, old in told if new != old]
    label = max({new for _, new in lies}, key=[new for _, new in lies].count)
    alike = [text for text, new in lies if new == label]
    for number in range(300):  # the newest, on which the worse version is right
        row = {"text": alike[number % len(alike)], "label": label}
        files.add("sort", row, version="sort@1")
    made = Learner(ready, files, Learning(every=20, held=100)).look("sort")
    assert made is not None
    assert made.low is not None
    assert made.low > 0
    assert not made.taken
    assert made.reason.startswith(f"'{label}' is right in")


def test_numbers_are_not_judged(
    ready: Ready, files: FeedbackFiles, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(lambda prompt: prompt)
    monkeypatch.setattr(Classifier, "is_right", lambda self, row, answer: None)
    made = Learner(ready, files, LEARNING).look("sort")
    assert made is not None
    assert "more or less right" in made.reason


def test_a_version_keeps_how_the_states_of_its_rows_are_spread(
    ready: Ready, files: FeedbackFiles, training: Any
) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    made = Learner(ready, files, Learning(every=20, held=20)).look("sort")
    assert made is not None
    assert made.taken
    prompt = ready.prompts.open("sort")[1]
    assert isinstance(prompt, Prompt)
    held = [Row(dict(row), "held") for row in files.rows("sort") if is_held_back(row)][-20:]
    expected = states_of_answers(prompt.bound, held, prompt.injection)
    assert expected is not None
    found = Familiar.read(prompt.data["states"])
    assert found.rows == 20
    assert torch.allclose(found.mean, expected.double().mean(0), atol=1e-4)


def test_a_training_is_given_up_where_the_server_ends(
    ready: Ready, files: FeedbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(command: list[str], **how: Any) -> subprocess.Popen[bytes]:
        endless = [sys.executable, "-c", "while True: __import__('time').sleep(1)"]
        begun.append(real(endless, **how))
        return begun[-1]

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    monkeypatch.setattr(learner, "PAUSE", 0.01)
    own = Learner(ready, files, LEARNING)
    own.start()
    until(lambda: begun)
    own.close()
    assert begun[0].wait(10) != 0
    assert own.attempts("sort") == []
    assert ready.prompts.open("sort")[0] == "sort@1"


def test_a_training_stands_behind_its_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = "import os; print(os.getpriority(0, 0), os.getsid(0), os.getpgrp() == os.getpid())"
    real, said = subprocess.Popen, tmp_path / "said"

    def popen(command: list[str], **how: Any) -> subprocess.Popen[bytes]:
        nice = command[: command.index(sys.executable)]
        with said.open("wb") as out:
            return real([*nice, sys.executable, "-c", asked], **{**how, "stdout": out})

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    process.TrainingProcess().run(["train"], tmp_path)
    priority, session, leads = said.read_text("utf-8").split()
    assert int(priority) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert int(session) == os.getsid(0)  # else the system shares its time out between sessions
    assert leads == "True"  # so that Ctrl-C is not for it


SERVER = """
import sys
from foreword.serve.feedback import process
real, end, folder = process.subprocess.Popen, int(sys.argv[1]), sys.argv[2]
TRAINING = f'''
import time
from foreword.serve.feedback.process import end_with_parent
end_with_parent({folder!r})
print("trains", file=open({folder!r} + "/rows", "w"), flush=True)
time.sleep(600)
'''
def popen(command, **how):
    return real([sys.executable, "-c", TRAINING], pass_fds=(end,), **how)
process.subprocess.Popen = popen
process.TrainingProcess().run(["train"], folder)
"""
"""A server whose training holds the writing end of a pipe, and does nothing else."""


def test_a_training_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    heard, end = os.pipe()
    folder = tmp_path / "work"
    folder.mkdir()
    server = launch(sys.executable, "-c", SERVER, str(end), str(folder), pass_fds=(end,))
    os.close(end)
    until((folder / "rows").exists)
    assert not select.select([heard], [], [], 0)[0]  # somebody holds the other end
    server.kill()
    assert select.select([heard], [], [], PATIENCE)[0]
    assert os.read(heard, 1) == b""  # nobody does
    os.close(heard)
    assert not folder.exists()  # with the texts that it trained on


def test_a_fault_with_one_prompt_s_rows_does_not_end_learning(
    ready: Ready, files: FeedbackFiles, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(lambda prompt: prompt.with_scores({"dev": {"accuracy": 1.0}}))
    files.path("a").write_text('{"text": 1\n', "utf-8")
    files.path("b").write_text("{}\n", "utf-8")
    (files.folder / "b.learned.json").write_text("half of", "utf-8")
    said: list[dict[str, Any]] = []
    looks = iter(range(2))
    own = Learner(ready, files, LEARNING, lambda **values: said.append(values))
    monkeypatch.setattr(own._stopped, "wait", lambda seconds: next(looks, None) is None)
    own._run()
    first, second, third = said[:3]
    assert (first["prompt"], first["error"]) == (
        "a",
        "feedback/a.jsonl:1: is no JSON object; mend the line, or remove it",
    )
    assert (second["prompt"], second["error"]) == ("b", "JSONDecodeError")
    assert (third["prompt"], third["taken"]) == ("sort", True)


@pytest.mark.parametrize("name", ["every", "held", "threads"])
def test_settings_that_no_training_could_keep_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give 1 or more"):
        Learning(**{name: 0}).check()
    with pytest.raises(UserError, match="no such folder"):
        Learning(replay=tmp_path / "none").check()


@pytest.mark.slow
def test_a_real_training_makes_the_next_version(ready: Ready, files: FeedbackFiles) -> None:
    replay = files.folder.parent / "replay"
    replay.mkdir()
    (replay / "sort.jsonl").write_text('{"text": "old", "label": "good"}\n' * 4, "utf-8")
    settings = ("--epochs", "1", "--batch-size", "16", "--lr", "0.001")
    learning = Learning(20, 10, -100.0, replay=replay, settings=settings)
    began = time.monotonic()
    made = Learner(ready, files, learning).look("sort")
    assert made is not None, time.monotonic() - began
    assert made.taken, made.reason
    newer = ready.prompts.open("sort@2")[1]
    assert isinstance(newer, Prompt)
    assert newer.data["train"]["rows"] <= made.trained
    assert {row[ABOUT]["version"] for row in files.rows("sort")} == {"sort@1"}
