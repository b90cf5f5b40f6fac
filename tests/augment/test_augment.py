"""New rows: what is sampled, dropped and kept, and that a stopped run ends in the same file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foreword.augmentation.augment import DROPPED, Augmented, augment
from foreword.augmentation.gain import gain
from foreword.augmentation.rounds import AT_ONCE, Augment, plan_rounds, select_kept
from foreword.augmentation.writer import tune_writer, writer_task
from foreword.augmentation.writer_rows import make_requests, reverse_rows
from foreword.config.values import plain
from foreword.data.duplicates import same_text
from foreword.data.read import read_rows
from foreword.data.row import Row
from foreword.data.sample import digest, hold_out
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.methods.base import Method
from foreword.methods.head import Head
from foreword.methods.parts.several import Several, rebuild_method
from foreword.methods.prefix import Prefix
from foreword.methods.registry import name_of
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT, Reporter
from foreword.tasks.generate import Generate
from foreword.training.settings import Training
from toys import Lines, get, rows, toy_run, write

FEW = Augment(count=9, max_new_tokens=5, tries=20)
ONCE, LONGER = Training(epochs=1), Training(epochs=8, batch_size=4)


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return toy_run(None, method=Head(rate=0.05), training=LONGER)


def run(prompt: Prompt, out: Path, settings: Augment = FEW, **more: Any) -> Augmented:
    return augment(prompt, rows(12), out, settings, method=Soft(length=2), training=ONCE, **more)


def test_known_rows_have_the_text_to_compare(prompt: Prompt, tmp_path: Path) -> None:
    known = [{"sentence": "a film"}]
    with pytest.raises(UserError, match=r"^known row 1: missing field 'text'"):
        run(prompt, tmp_path / "new.jsonl", known=known)


def test_rows_are_new_and_their_labels_agreed_to(prompt: Prompt, tmp_path: Path) -> None:
    out = tmp_path / "new.jsonl"
    report = run(prompt, out, known=rows(4, 50))
    made = read_rows(out)
    assert report.kept == Counter(row.fields["label"] for row in made)
    assert all(0 < kept <= 5 for kept in report.kept.values())
    assert report.sampled == sum(report.dropped.values()) + len(made)
    assert report.sampled % AT_ONCE == 0
    assert set(report.dropped) == {*DROPPED, "not needed"}
    assert prompt.predict([row.fields["text"] for row in made]) == [
        row.fields["label"] for row in made
    ]
    texts = [same_text(row.fields["text"]) for row in made]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {same_text(row.fields["text"]) for row in (*rows(12), *rows(4, 50))}
    assert all(set(row.fields) == {"text", "label"} for row in made)
    sampled = [row.fields for row in read_rows(tmp_path / "new.samples.jsonl")]
    assert Counter(each["dropped"] for each in sampled) == {
        **{why: count for why, count in report.dropped.items() if why in DROPPED and count},
        None: len(made) + report.dropped["not needed"],
    }


def test_rows_of_ones_own_are_not_written_over(prompt: Prompt, tmp_path: Path) -> None:
    mine = write(tmp_path / "new.samples.jsonl", rows(12))
    before = mine.read_bytes()
    why = r"new\.samples\.jsonl:1: is no text that a model has sampled, .* name another `out`"
    with pytest.raises(UserError, match=why):
        run(prompt, tmp_path / "new.jsonl")
    with pytest.raises(UserError, match="holds the rows that are read; write to another file"):
        augment(prompt, str(mine), mine, FEW)
    assert mine.read_bytes() == before
    assert list(tmp_path.iterdir()) == [mine]


def test_a_prompt_in_the_writers_place_stays(prompt: Prompt, tmp_path: Path) -> None:
    mine = prompt.save(tmp_path / "new.writer.safetensors")
    before = mine.read_bytes()
    why = r"new\.writer\.safetensors: is a prompt for another task, .* name another `out`"
    with pytest.raises(UserError, match=why):
        run(prompt, tmp_path / "new.jsonl")
    assert mine.read_bytes() == before
    assert list(tmp_path.iterdir()) == [mine]


def test_a_stopped_run_ends_in_the_same_file(prompt: Prompt, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole" / "new.jsonl", tmp_path / "parts" / "new.jsonl"
    settings = Augment(count=40, max_new_tokens=5, tries=8)
    report = run(prompt, whole, settings)
    assert report.sampled > AT_ONCE

    class Stopping(Reporter):
        @contextmanager
        def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
            moves = iter(range(2))  # what is there, and one round

            def move(done: int) -> None:
                if name == "writing" and next(moves) == 1:
                    raise KeyboardInterrupt

            yield move

    with pytest.raises(KeyboardInterrupt):
        run(prompt, parts, settings, report=Stopping())
    assert not parts.exists()
    told: list[str] = []
    again = run(prompt, parts, settings, report=Lines(told))
    assert replace(again, out="") == replace(report, out="")
    assert parts.read_bytes() == whole.read_bytes()
    assert told == [
        f"{parts.with_name('new.writer.safetensors')}: is there already",
        f"{parts.with_name('new.samples.jsonl')}: {AT_ONCE} texts are there already",
    ]


def test_the_only_row_of_a_label_is_not_held_out_from_the_writer(
    prompt: Prompt, tmp_path: Path
) -> None:
    given = [
        Row({"text": f"film {n}", "label": "bad" if n == 3 else "good"}, "") for n in range(12)
    ]
    said = {"good": "good", "bad": "bad"}
    made = reverse_rows(given, "text", "label", said, 2)
    held = (hold_out(made, 0.1, seed)[1] for seed in range(100))
    seed = next(n for n, rows in enumerate(held) if rows[0].fields["own"] == "bad")
    path, settings = tmp_path / "writer.safetensors", Augment(seed=seed)
    asked = (Soft(length=2), ONCE, False, SILENT)
    writer = tune_writer(prompt.bound.backbone, made, path, settings, *asked)
    train, dev = hold_out(made, 0.1, seed, by="own")
    assert made[3] in train
    assert writer.data["train"]["sha256"] == digest(train)
    assert writer.data["dev"]["sha256"] == digest(dev)


def test_the_writer_has_the_seed_of_its_training(prompt: Prompt, tmp_path: Path) -> None:
    asked = (Soft(length=2), replace(ONCE, seed=5), False, SILENT)
    made = reverse_rows(rows(12), "text", "label", {"good": "good", "bad": "bad"}, 2)
    path = tmp_path / "writer.safetensors"
    writer = tune_writer(prompt.bound.backbone, made, path, Augment(seed=3), *asked)
    assert writer.method["training"]["seed"] == 5


def test_other_settings_begin_anew(prompt: Prompt, tmp_path: Path) -> None:
    told: list[str] = []
    run(prompt, tmp_path / "new.jsonl")
    run(prompt, tmp_path / "new.jsonl", Augment(9, 0, max_new_tokens=5), report=Lines(told))
    assert not any("already" in line for line in told)


def test_another_model_may_write(prompt: Prompt, tmp_path: Path) -> None:
    report = run(prompt, tmp_path / "new.jsonl", writer=get("t5"))
    assert sum(report.kept.values()) > 0
    kept = Prompt.load(tmp_path / "new.writer.safetensors")
    assert kept.backbone["fingerprint"] == get("t5").fingerprint


def test_rounds_ask_for_what_is_lacking_and_give_up() -> None:
    found: list[dict[str, Any]] = []
    settings = Augment(count=6, tries=16)
    wanted = settings.wanted(["a", "b", "c"])
    assert wanted == {"a": 2, "b": 2, "c": 2}
    asked = []
    for number, labels in plan_rounds(found, wanted, settings):
        asked.append(Counter(labels))
        for label in labels:  # a is always right, b never, and c only once
            right = label == "a" or (label == "c" and not any(e["label"] == "c" for e in found))
            found.append({"label": label, "dropped": None if right else "x", "round": number})
    assert asked == [{"a": 11, "b": 11, "c": 10}, {"b": 16, "c": 16}, {"b": 16, "c": 16}]
    assert Counter(each["label"] for each in select_kept(found, wanted)) == {"a": 2, "c": 1}
    assert Augment(count=5).wanted(["a", "b"]) == {"a": 3, "b": 2}


def test_rows_are_turned_round_with_their_rarest_words() -> None:
    given = [
        Row({"text": "the film\nwas dreadful", "label": "b"}, "f:1"),
        Row({"text": "The film was a marvel!", "label": "g"}, "f:2"),
        Row({"text": "the film", "label": "g"}, "f:3"),
    ]
    said = {"b": "bad", "g": "good"}
    first, second, third = reverse_rows(given, "text", "label", said, 2)
    assert first.fields == {
        "label": "bad",
        "keywords": "was, dreadful",
        "completion": "the film was dreadful",
        "own": "b",
    }
    assert second.fields["keywords"] == "a, marvel"
    made = make_requests([first, second, third], ["g", "b", "g"], said, 2, "0/1")
    assert [row.fields["label"] for row in made] == ["good", "bad", "good"]
    assert set(made[1].fields["keywords"].split(", ")) == {"was", "dreadful"}
    pool = {"a", "marvel", "the", "film"}
    assert set(made[0].fields["keywords"].split(", ")) < pool
    assert made == make_requests([first, second, third], ["g", "b", "g"], said, 2, "0/1")
    bare = writer_task(Augment(keywords=0)).template
    assert bare == "Label: {label}\nText:"


def test_a_text_of_signs_alone_has_them_for_keywords() -> None:
    texts = {"a film": "a, film", "!!! \U0001f600": "!!!, \U0001f600"}
    given = [Row({"text": text, "label": "g"}, "f:1") for text in texts]
    made = reverse_rows(given, "text", "label", {"g": "good"}, 2)
    assert [row.fields["keywords"] for row in made] == list(texts.values())


def test_a_label_without_rows_has_no_keywords(prompt: Prompt, tmp_path: Path) -> None:
    good = [row for row in rows(12) if row.fields["label"] == "good"]
    why = r"^toy\.jsonl: no row has the label 'bad', .* add one, or give `keywords=0`$"
    with pytest.raises(UserError, match=why):
        augment(prompt, good, tmp_path / "new.jsonl", FEW)
    assert not list(tmp_path.iterdir())
    made = augment(
        prompt, good, tmp_path / "new.jsonl", replace(FEW, keywords=0), training=ONCE, report=SILENT
    )
    assert made.sampled


def test_scores_without_and_with_the_new_rows(prompt: Prompt) -> None:
    dev, new = rows(6, 100, "dev.jsonl"), rows(4, 200, "new.jsonl")
    found = gain(prompt, rows(12), new, dev, rows(8, 300))
    assert found.scored == "test"
    same = {**evaluate(prompt, rows(8, 300)), "in_train": 0}
    assert dict(found.without_new) == same  # the prompt was tuned so: the same run again
    more = toy_run(None, method=Head(rate=0.05), train=[*rows(12), *new], dev=dev, training=LONGER)
    assert dict(found.with_new) == {**evaluate(more, rows(8, 300)), "in_train": 0}
    assert gain(prompt, rows(12), new, dev, None).scored == "dev"
    plain = found.to_dict()
    assert plain == {"scored": "test", "without": same, "with": dict(found.with_new)}


@pytest.mark.parametrize(
    "method", [Soft(length=3), Prefix(upper=0.5), Several((Soft(rate=0.1), Head()))], ids=name_of
)
def test_a_method_is_made_again_of_what_a_file_says(method: Method) -> None:
    about = {"name": name_of(method), **plain(method), "trained": 7, "training": plain(ONCE)}
    about["pruned"] = {"tokens": [1], "layers": []}
    assert rebuild_method(json.loads(json.dumps(about)), "f") == method


def test_what_cannot_be_augmented(prompt: Prompt, tmp_path: Path) -> None:
    out = tmp_path / "new.jsonl"
    other = toy_run(None, task=Generate("{text} :"), training=ONCE)
    with pytest.raises(UserError, match="the prompt is of another task"):
        run(other, out)
    pair = toy_run(
        None,
        task=type(prompt.task)("{text} {completion} :", {"good": " good", "bad": " bad"}),
        training=ONCE,
    )
    with pytest.raises(UserError, match="template has text, completion"):
        run(pair, out)
    with pytest.raises(UserError, match="cannot write; give a model that can with `writer`"):
        run(prompt, out, writer=get("bert"))
    assert not list(tmp_path.iterdir())
