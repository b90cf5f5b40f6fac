"""Feedback: what is acknowledged is on the disk, train reads it, and it goes when asked to."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.serve.feedback.files import ABOUT, FeedbackFiles, NotKeptError
from foreword.serve.feedback.review import (
    MOST,
    Review,
    UnknownAnswerError,
    accuracy_by_day,
    new_labels,
)
from foreword.serve.feedback.sides import is_held_back
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.score import Score
from processes import until
from serve.serving import ADMIN, KEY, Served, prefix, prompt_of, served


@pytest.fixture
def files(tmp_path: Path) -> FeedbackFiles:
    return FeedbackFiles(tmp_path / "feedback")


# Files --------------------------------------------------------------------------------------------


def test_rows_are_read_as_they_stand(files: FeedbackFiles) -> None:
    said = [("fine \u2028 day", "good"), ('a "quoted"\nline', "bad")]
    ids = [files.add("sort", {"text": t, "label": label}, version="sort@1") for t, label in said]
    read = as_rows(files.path("sort"))
    assert [(row.fields["text"], row.fields["label"]) for row in read] == said
    assert [row[ABOUT]["id"] for row in files.rows("sort")] == ids
    assert files.names() == ["sort"]
    assert files.rows("other") == []


def test_a_file_is_read_again_once_it_has_changed(files: FeedbackFiles) -> None:
    id = files.add("sort", {"text": "a"})
    first = files.rows("sort")
    assert files.rows("sort") is first
    FeedbackFiles(files.folder).add("sort", {"text": "b"})
    assert [row["text"] for row in files.rows("sort")] == ["a", "b"]
    files.remove(id=id)
    assert [row["text"] for row in files.rows("sort")] == ["b"]
    files.path("sort").unlink()
    assert files.rows("sort") == []


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", ""])
def test_no_name_leads_out_of_the_folder(name: str, files: FeedbackFiles) -> None:
    with pytest.raises(UserError, match="cannot be a prompt's name"):
        files.add(name, {"text": "a"})


def test_half_a_line_that_a_killed_server_left_is_removed(files: FeedbackFiles) -> None:
    files.add("sort", {"text": "a" * 5000})
    whole = files.path("sort").read_bytes()
    for torn in (b'{"text": "b', b"x" * 9000):
        files.path("sort").write_bytes(whole + torn)
        assert len(files.rows("sort")) == 1
        files.add("sort", {"text": "c"})
        assert files.path("sort").read_bytes().startswith(whole)
        assert [row["text"][0] for row in files.rows("sort")] == ["a", "c"]
    files.path("sort").write_bytes(b'{"text": "never who')
    files.add("sort", {"text": "d"})
    assert [row["text"] for row in files.rows("sort")] == ["d"]


def test_rows_that_a_person_has_written_stay(tmp_path: Path) -> None:
    one, two, three = '{"text": "a"}', '{"text": "b", "feedback": "fine"}', '{"text": "c"}'
    path = tmp_path / "sort.jsonl"
    path.write_text(f"{one}\r\n\n{two}\n{three}", "utf-8")
    files = FeedbackFiles(tmp_path, days=90)
    ids = [row[ABOUT]["id"] for row in files.rows("sort")]
    assert len(set(ids)) == 3
    id = files.add("sort", {"text": "d"})
    assert [row["text"] for row in files.rows("sort")] == ["a", "b", "c", "d"]
    assert [row[ABOUT]["id"] for row in files.rows("sort")] == [*ids, id]
    assert len([is_held_back(row) for row in files.rows("sort")]) == 4
    assert accuracy_by_day(files.rows("sort")) == new_labels(files.rows("sort")) == []
    assert files.remove(id=ids[0]) == 1
    assert path.read_text("utf-8").startswith(f"{two}\n{three}\n")


@pytest.mark.parametrize("line", ['{"text": "a"', "3", "\xff"])
def test_a_line_that_is_no_row_is_named_and_nothing_is_removed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "kept" / "sort.jsonl"
    path.parent.mkdir()
    path.write_text(f'{{"text": "a"}}\n{line}\n', "latin-1")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"^kept/sort.jsonl:2: is no JSON object; mend the line"):
        FeedbackFiles(path.parent, days=90)
    time = datetime(2026, 1, 1, tzinfo=UTC)
    files = FeedbackFiles(path.parent, now=lambda: time)
    for act in (files.rows, lambda name: files.remove(subject=name)):
        with pytest.raises(UserError, match=r"sort\.jsonl:2"):
            act("sort")
    files.days, time = 90, time + timedelta(hours=2)
    files.add("sort", {"text": "b"})
    assert path.read_bytes().startswith(before)


def test_a_row_with_a_field_of_its_own_that_is_called_feedback_is_refused(
    files: FeedbackFiles,
) -> None:
    with pytest.raises(UserError, match="give the field of the template another name"):
        files.add("sort", {"feedback": "it came late", "label": "bad"})
    assert files.names() == []


def test_what_the_disk_does_not_take_changes_nothing(
    files: FeedbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.add("sort", {"text": "a"})
    before = files.path("sort").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NotKeptError, match="could not be kept"):
            files.add("sort", {"text": "b"})
    assert files.path("sort").read_bytes() == before
    files.add("sort", {"text": "c"})
    assert [row["text"] for row in files.rows("sort")] == ["a", "c"]


def test_a_row_stands_on_the_disk_before_it_is_acknowledged(
    files: FeedbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        synced.append(path.read_bytes() if path.is_file() else b"folder")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    id = files.add("sort", {"text": "a"})
    assert id.encode() in synced[0]
    assert synced[1] == b"folder"


def test_two_servers_and_many_threads_lose_nothing(tmp_path: Path) -> None:
    both = [FeedbackFiles(tmp_path), FeedbackFiles(tmp_path)]
    with ThreadPoolExecutor(8) as pool:
        ids = [*pool.map(lambda n: both[n % 2].add("sort", {"text": f"{n}"}), range(60))]
        gone = pool.submit(both[0].remove, id=ids[0])
        more = [*pool.map(lambda n: both[n % 2].add("sort", {"text": f"{n}"}), range(60, 80))]
    assert gone.result() == 1
    assert {row[ABOUT]["id"] for row in both[1].rows("sort")} == {*ids[1:], *more}


def test_rows_go_by_id_by_subject_and_by_age(tmp_path: Path) -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    files = FeedbackFiles(tmp_path, days=10, now=lambda: time)
    first = files.add("sort", {"text": "a"}, subject="ann")
    files.add("pair", {"text": "b"}, subject="ann")
    files.add("sort", {"text": "c"}, subject="bob")
    assert files.remove(id=first) == 1
    assert files.remove(id=first) == 0
    assert files.remove(subject="ann") == 1
    assert files.rows("pair") == []
    time += timedelta(days=9)
    files.add("sort", {"text": "d"})
    time += timedelta(days=2)
    files.add("sort", {"text": "e"})
    assert [row["text"] for row in files.rows("sort")] == ["d", "e"]
    time += timedelta(days=20)
    assert FeedbackFiles(tmp_path, days=10, now=lambda: time).rows("sort") == []
    assert FeedbackFiles(tmp_path, now=lambda: time).remove_old() == 0


@pytest.mark.parametrize("days", [1e6, float("inf")])
def test_days_beyond_all_years_keep_all(tmp_path: Path, days: float) -> None:
    files = FeedbackFiles(tmp_path, days=days)
    files.add("sort", {"text": "a"})
    assert files.remove_old() == 0
    assert len(files.rows("sort")) == 1


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no feedback can be written there"):
        FeedbackFiles(tmp_path / "file")


# Answers that wait --------------------------------------------------------------------------------


def test_the_least_sure_wait_each_once() -> None:
    review = Review()
    for n in range(MOST + 20):
        for _ in range(2):
            review.offer("sort@1", {"text": f"{n}"}, "good", 0.5 + ((n * 37) % 120) / 1000)
    waiting = review.waiting("sort", MOST + 20)
    assert len(waiting) == MOST
    chances = [each.probability for each in waiting]
    assert chances == sorted(chances)
    assert chances[0] == 0.5
    assert chances[-1] == 0.599
    assert review.waiting("other", 1) == []
    review.done("sort", waiting[0].id)
    assert review.waiting("sort", 1) == [waiting[1]]
    with pytest.raises(UnknownAnswerError):
        review.find("sort", waiting[0].id)


def test_accuracy_is_of_reviewed_rows_alone() -> None:
    looked = [(1, "sort@1", True), (1, "sort@1", False), (1, "sort@1", True), (1, "sort@2", True)]
    rows: list[dict[str, Any]] = [
        {
            ABOUT: {
                "time": f"2026-11-0{day}T09:30:00+00:00",
                "version": version,
                "right": right,
                "reviewed": True,
            }
        }
        for day, version, right in [*looked, (2, "sort@2", False)]
    ]
    rows.append({ABOUT: {"time": rows[0][ABOUT]["time"], "version": "sort@1", "right": False}})
    first, second, third = accuracy_by_day(rows)
    assert (first["day"], first["version"], first["rows"]) == ("2026-11-01", "sort@1", 3)
    assert first["accuracy"] == 66.67
    assert first["interval"] == [20.77, 93.85]  # Wilson 1927
    assert (second["day"], second["version"]) == ("2026-11-01", "sort@2")
    assert (second["accuracy"], third["accuracy"]) == (100, 0)
    assert (third["day"], third["version"], third["rows"]) == ("2026-11-02", "sort@2", 1)


# Over HTTP ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kept: Path) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("hears"), "--feedback", str(kept)) as made:
        yield made


def send(server: Served, **body: Any) -> httpx2.Response:
    return server.http().post("/v1/feedback", json=body)


def test_feedback_is_a_row_to_learn_from(server: Served, kept: Path) -> None:
    made = send(server, model="sort", input="it was fine", label="good", answered="bad")
    assert made.status_code == 201
    found = made.json()
    assert (found["model"], found["new_label"]) == ("sort@1", False)
    fields = {"text_a": "one", "text_b": "two"}
    assert send(server, model="pair", input=fields, label="same", subject="ann").status_code == 201
    assert send(server, model="write", input="hello", label="right text").status_code == 201
    row = json.loads((kept / "sort.jsonl").read_text().splitlines()[-1])
    about = row.pop("feedback")
    assert row == {"text": "it was fine", "label": "good"}
    assert about.pop("time")
    assert about == {"id": found["id"], "version": "sort@1", "answered": "bad", "right": False}
    assert "it was fine" not in server.log()
    task, given = server.prompts["sort"].bound, as_rows(kept / "sort.jsonl")
    task.check(given, answers=True)
    removed = server.http(ADMIN).delete("/v1/feedback", params={"subject": "ann"})
    assert removed.json() == {"object": "feedback", "deleted": True, "rows": 1}
    gone = server.http(ADMIN).delete("/v1/feedback", params={"id": found["id"]})
    assert gone.json()["rows"] == 1
    assert (kept / "sort.jsonl").read_text() == ""


def test_a_number_that_json_does_not_have_is_not_kept(server: Served, kept: Path) -> None:
    body = b'{"model": "sort", "input": "a", "label": "good", "answered": [0, -1e999]}'
    before = (kept / "sort.jsonl").read_text()
    found = server.http().post(
        "/v1/feedback", content=body, headers={"Content-Type": "application/json"}
    )
    assert (found.status_code, found.json()["error"]["param"]) == (400, "answered[1]")
    assert (kept / "sort.jsonl").read_text() == before


ONE = Classify(template="{text} is", labels={"1": " good", "2": " bad"})
MANY = Multilabel(template="{text} is", labels={"a": " good", "b": " bad", "none": " no"})
MUCH = Score(template="{text} is", anchors={" good": 1.0, " bad": 0.0})


@pytest.mark.parametrize(
    ("task", "label", "answered", "right"),
    [
        (ONE, 1, "1", True),
        (ONE, "2", "1", False),
        (ONE, "3", "1", False),
        (MANY, ["b", "a"], ["a", "b"], True),
        (MUCH, 1, 0.9, None),
    ],
    ids=["number", "other", "new", "order", "score"],
)
def test_an_answer_is_right_as_its_task_compares(
    server: Served, kept: Path, task: Task, label: Any, answered: Any, right: bool | None
) -> None:
    made = prompt_of(server.backbone, task, prefix(server.backbone, 4))
    made.save(server.folder / "told.safetensors")
    sent = send(server, model="told", input="hm", label=label, answered=answered)
    assert sent.status_code == 201, sent.text
    row = json.loads((kept / "told.jsonl").read_text("utf-8").splitlines()[-1])
    assert row["feedback"].get("right") is right
    (server.folder / "told.safetensors").unlink()


def test_a_prompt_with_a_field_that_is_called_feedback_keeps_none(server: Served) -> None:
    task = Classify(template="{feedback} is", labels={"good": " good", "bad": " bad"})
    made = prompt_of(server.backbone, task, prefix(server.backbone, 4))
    made.save(server.folder / "heard.safetensors")
    sent = send(server, model="heard", input="it came late", label="bad")
    assert sent.status_code == 400
    assert sent.json()["error"]["param"] == "input"
    assert "another name" in sent.json()["error"]["message"]
    (server.folder / "heard.safetensors").unlink()


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no input": ({"model": "sort", "label": "good"}, 400, "`input` or `review`"),
    "two inputs": (
        {"model": "sort", "input": "a", "review": "b", "label": "good"},
        400,
        "`input` or `review`",
    ),
    "no answer": ({"model": "sort", "input": "a"}, 400, "`label` or `chosen`"),
    "two answers": (
        {"model": "sort", "input": "a", "label": "good", "chosen": "bad"},
        400,
        "`label` or `chosen`",
    ),
    "no such prompt": ({"model": "srot", "input": "a", "label": "good"}, 404, "sort"),
    "the model alone": ({"model": "model", "input": "a", "label": "good"}, 400, "single prompt"),
    "two prompts": ({"model": "sort+sort", "input": "a", "label": "good"}, 400, ""),
    "a text for two fields": ({"model": "pair", "input": "a", "label": "same"}, 400, "2 fields"),
    "a field too few": (
        {"model": "pair", "input": {"text_a": "a"}, "label": "same"},
        400,
        "text_b",
    ),
    "no text as a label": ({"model": "sort", "input": "a", "label": 3}, 400, "label"),
    "nothing that waits": (
        {"model": "sort", "review": "0123", "label": "good"},
        404,
        "waits for a look",
    ),
    "another field": ({"model": "sort", "input": "a", "label": "good", "x": 1}, 400, "x"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_learned_from_is_refused(case: str, server: Served, kept: Path) -> None:
    body, status, said = WRONG[case]
    before = {path: path.read_bytes() for path in kept.glob("*.jsonl")}
    answer = send(server, **body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert {path: path.read_bytes() for path in kept.glob("*.jsonl")} == before


def test_the_least_sure_answers_are_reviewed_and_counted(server: Served, kept: Path) -> None:
    before = server.metric("foreword_answer_probability_count")
    texts = [f"a day that was {word}" for word in ("long", "short", "so so")]
    found = server.http().post("/v1/predict", json={"model": "sort", "inputs": texts}).json()
    answered = {
        text: (each["label"], each["probability"])
        for text, each in zip(texts, found["predictions"], strict=True)
    }
    assert server.metric("foreword_answer_probability_count") == before + 3
    shown = server.http(ADMIN).get("/v1/review", params={"model": "sort", "limit": 2}).json()
    least = sorted(texts, key=lambda text: answered[text][1])[:2]
    assert [each["input"] for each in shown["data"]] == [{"text": text} for text in least]
    one, two = shown["data"]
    assert one["label"] == answered[least[0]][0]
    assert one["probabilities"].keys() == {"good", "bad"}
    other = {"good": "bad", "bad": "good"}[two["label"]]
    assert send(server, model="sort", review=one["id"], label=one["label"]).status_code == 201
    assert send(server, model="sort", review=two["id"], label=other).status_code == 201
    assert send(server, model="sort", review=two["id"], label=other).status_code == 404
    shown = server.http(ADMIN).get("/v1/review", params={"model": "sort"}).json()
    assert [each["input"]["text"] for each in shown["data"]] == [
        text for text in texts if text not in least
    ]
    (seen,) = shown["reviewed"]
    assert (seen["version"], seen["rows"], seen["accuracy"]) == ("sort@1", 2, 50)
    for _ in range(3):
        assert send(server, model="sort", input="hm", label="neutral").json()["new_label"]
    shown = server.http(ADMIN).get("/v1/review", params={"model": "sort"}).json()
    assert shown["new_labels"] == [{"label": "neutral", "rows": 3}]


def test_texts_of_others_need_the_admin_key(server: Served) -> None:
    for method, path in (("GET", "/v1/review?model=sort"), ("DELETE", "/v1/feedback?id=1")):
        assert server.http(KEY).request(method, path).status_code == 401
        assert server.http(None).request(method, path).status_code == 401
        assert server.http(ADMIN).request(method, path).status_code in (200, 404)
    assert server.http(ADMIN).delete("/v1/feedback").status_code == 400
    assert server.http(ADMIN).get("/v1/review?model=sort&limit=0").status_code == 400


def test_a_prompt_says_what_it_answers(server: Served) -> None:
    found = server.http().get("/v1/models/sort").json()
    assert (found["task"], found["fields"], found["answer"]) == ("classify", ["text"], "label")
    assert found["labels"] == ["bad", "good"]
    assert (found["version"], found["versions"], found["feedback"]) == ("sort@1", [1], True)
    assert found["history"] == [
        {"version": "sort@1", "origin": "file", "replaced": None, "rows": None, "scores": {}}
    ]
    assert "task" not in server.http().get("/v1/models/model").json()


def test_what_was_acknowledged_is_there_after_kill_9(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    with served(tmp_path, "--feedback", str(kept)) as server:
        ids = [
            send(server, model="sort", input=f"text {n}", label="good").json()["id"]
            for n in range(5)
        ]
        assert server.process.pid is not None
        os.kill(server.process.pid, signal.SIGKILL)
        until(lambda: not server.process.is_alive(), lambda: False)
    assert [row[ABOUT]["id"] for row in FeedbackFiles(kept).rows("sort")] == ids
