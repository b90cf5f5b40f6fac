"""``foreword retune``: a folder of prompts on another model, from its own settings and rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import foreword as fw
import foreword.retuning.retune as of_retune
from conftest import Answer, World
from foreword.data.row import Row
from foreword.data.sample import digest, hold_out
from foreword.errors import UserError
from foreword.explanation.pieces import without_positions
from foreword.injection import NOTHING
from foreword.metrics.resample import proportion
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.retuning.recorded import RecordedRows, recorded_sources
from foreword.tasks.score import Score
from foreword.training.interrupt import Interrupted
from foreword.training.log import files_of

Cli = Callable[..., Answer]


@pytest.fixture
def old(world: World, tmp_path: Path) -> Path:
    """A folder with two prompts of the first model, one of them in a folder below."""
    folder = tmp_path / "old"
    (folder / "below").mkdir(parents=True)
    for name, place in (("p", folder), ("soft", folder / "below")):
        for suffix in (".safetensors", ".log.jsonl"):
            shutil.copy(world.path(f"{name}{suffix}"), place / f"{name}{suffix}")
    return folder


def test_prompts_are_made_anew_from_their_own_settings_and_rows(
    old: Path, world: World, tmp_path: Path, cli: Cli
) -> None:
    (old / "broken.safetensors").write_bytes(b"no prompt")
    out, given = tmp_path / "new", ("--model", world.path("other"), "--json")
    answer = cli("retune", str(old), "--out", str(out), *given)
    assert answer.status == 2  # one file is broken, which is no reason to leave the others
    assert "1 of 3 prompts could not be made anew" in answer.err
    found = {each["file"]: each for each in answer.json["prompts"]}
    assert found["broken.safetensors"]["outcome"] == "failed"
    assert list(out.glob(".retune")) == []
    assert ".retune" not in answer.err
    for name in ("p.safetensors", "below/soft.safetensors"):
        one, before = found[name], Prompt.load(old / name)
        assert one["start"] == "old"  # the shapes are the same
        rows = fw.as_rows(world.path("dev.jsonl"))
        assert one["old"] == fw.evaluate(before, rows, report=SILENT).score
        if one["outcome"] == "worse":
            assert one["high"] < 0
            assert not (out / name).exists()
            continue
        new = Prompt.load(out / name, fw.load(world.path("other")))
        after = fw.evaluate(new, rows, report=SILENT)
        assert one["new"] == after.score
        assert one["gain"] == pytest.approx(one["new"] - one["old"], abs=0.01)
        assert {**new.method, "trained": 0} == {**before.method, "trained": 0}
        assert new.data["train"] == before.data["train"]
        assert new.backbone["fingerprint"] != before.backbone["fingerprint"]
    again = cli("retune", str(old), "--out", str(out), *given)  # tries the broken one alone
    assert again.json == answer.json
    assert "p.safetensors (" not in again.err
    assert "broken.safetensors (2 of 3)" in again.err


def test_a_worse_prompt_is_not_kept_and_one_of_the_model_is_copied(
    old: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old / "below" / "soft.safetensors").unlink()
    out = tmp_path / "new"
    before = of_retune.row_scores
    seen: list[Any] = []

    def scored(rows: Any) -> Any:
        """All rows of the new prompt are wrong, and all of the old one right."""
        seen.append(before(rows))
        return type(seen[-1])("right answers", [100.0 * (len(seen) % 2 == 0)] * len(rows))

    with monkeypatch.context() as patched:
        patched.setattr(of_retune, "row_scores", scored)
        (one,) = fw.retune(old, world.path("other"), out, report=SILENT).prompts
    assert (one.outcome, one.gain, one.low, one.high) == ("worse", -100, -100, -100)
    assert not (out / one.file).exists()
    (again,) = fw.retune(old, world.path("other"), out, report=SILENT).prompts
    assert again == one  # it is not tuned again
    (same,) = fw.retune(old, world.path("model"), tmp_path / "same", report=SILENT).prompts
    assert same.outcome == "same model"
    for name in (same.file, "p.log.jsonl"):
        assert (tmp_path / "same" / name).read_bytes() == (old / name).read_bytes()


def test_a_pruned_prompt_is_made_anew_from_what_is_left(
    old: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old / "below" / "soft.safetensors").unlink()
    whole = Prompt.load(old / "p.safetensors")
    method = {**whole.method, "pruned": {"tokens": [5, 6], "layers": []}}
    left = without_positions(whole.injection, [5, 6])
    replace(whole, injection=left, method=method).save(old / "p.safetensors")
    right = [SimpleNamespace(values=[score] * 8, name="right answers") for score in (100.0, 0.0)]
    monkeypatch.setattr(of_retune, "row_scores", lambda rows: right.pop(0))
    (one,) = fw.retune(old, world.path("other"), tmp_path / "new", report=SILENT).prompts
    assert (one.outcome, one.reason) == ("kept", None)
    new = Prompt.load(tmp_path / "new" / "p.safetensors")
    assert {**new.method, "trained": 0} == {**whole.method, "trained": 0}


def test_it_goes_on_where_it_was_stopped_to_the_same_bytes(
    old: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "new"
    expected = fw.retune(old, world.path("other"), whole, report=SILENT)
    tuned: list[str] = []
    before = of_retune.tune_prompt

    def stopped(*arguments: Any, **more: Any) -> Prompt:
        tuned.append(more["out"].name)
        if len(tuned) == 2:
            raise Interrupted("stopped")
        return before(*arguments, **more)

    monkeypatch.setattr(of_retune, "tune_prompt", stopped)
    with pytest.raises(Interrupted):
        fw.retune(old, world.path("other"), out, report=SILENT)
    found = fw.retune(old, world.path("other"), out, report=SILENT)
    assert tuned == ["soft.safetensors", "p.safetensors", "p.safetensors"]
    assert found.prompts == expected.prompts
    for one in (each for each in found.prompts if each.outcome == "kept"):
        new, same = (Prompt.load(folder / one.file) for folder in (out, whole))
        assert {n: t.tolist() for n, t in new.tensors().items()} == {
            n: t.tolist() for n, t in same.tensors().items()
        }


def test_rows_that_moved_are_found_by_their_hash_and_others_are_refused(
    world: World, tmp_path: Path, cli: Cli
) -> None:
    rows = [json.loads(line) for line in Path(world.path("train.jsonl")).read_text().splitlines()]
    moved = tmp_path / "moved.jsonl"
    shutil.copy(world.path("train.jsonl"), moved)
    folder = tmp_path / "old"
    folder.mkdir()
    drawn = ("--rows", "20", "--seed", "3", "--train", str(moved))
    words = world.train(folder / "p.safetensors", *drawn, "--method", "soft")
    dev = words.index("--dev")
    assert cli(*words[:dev], *words[dev + 2 :]).status == 0  # a tenth of the rows is held back
    assert files_of(folder / "p.safetensors") == dict.fromkeys(("train", "dev"), str(moved))
    moved.rename(tmp_path / "there.jsonl")
    given = ("--model", world.path("other"), "--out", str(tmp_path / "new"))
    lost = cli("retune", str(folder), *given)
    assert lost.status == 2
    assert "none of the files has the 18 train rows that it was tuned with" in lost.err
    found = cli("retune", str(folder), *given, "--train", str(tmp_path / "there.jsonl"), "--json")
    assert found.status == 0, found.err
    assert found.json["prompts"][0]["outcome"] in ("kept", "worse")
    (tmp_path / "there.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    shutil.rmtree(tmp_path / "new")
    other = cli("retune", str(folder), *given, "--train", str(tmp_path / "there.jsonl"))
    assert "none of the files has the 18 train rows" in other.err


@pytest.mark.parametrize("rare", [False, True])
def test_rows_are_found_beside_those_of_other_prompts(rare: bool) -> None:
    def label(n: int) -> str:
        return str(max(n, 1)) if rare else "ab"[n % 2]

    own = fw.as_rows([{"text": f"t {n}", "intent": label(n)} for n in range(20)])
    other = fw.as_rows([{"text": f"t {n}", "mood": "good"} for n in range(20)])
    parts = dict(zip(("train", "dev"), hold_out(own, 0.1, 0, by="intent"), strict=True))
    data = {name: {"rows": len(r), "sha256": digest(r)} for name, r in parts.items()}
    task = SimpleNamespace(label_field="intent", class_field="intent")
    prompt: Any = SimpleNamespace(data=data, seed=0, where="p", task=task)
    assert RecordedRows(prompt).find([other, own]) == (parts["train"], parts["dev"])


def test_a_file_that_a_log_names_and_that_is_none_of_rows_is_left_out(
    old: Path, world: World
) -> None:
    log = old / "p.log.jsonl"
    head, _, rest = log.read_text().partition("\n")
    named = {"train": str(old / "p.safetensors"), "dev": world.path("dev.jsonl")}
    log.write_text(json.dumps({**json.loads(head), "files": named}) + f"\n{rest}")
    prompt = Prompt.load(old / "p.safetensors")
    assert list(recorded_sources(prompt, old / "p.safetensors")) == [fw.as_rows(named["dev"])]


def test_the_new_folder_may_be_above_the_old_one(old: Path, world: World, tmp_path: Path) -> None:
    made = fw.retune(old, world.path("model"), tmp_path, report=SILENT)
    assert [each.outcome for each in made.prompts] == ["same model"] * 2
    (tmp_path / of_retune.RECORD).write_text('{"sha256": "0"}\n')
    with pytest.raises(UserError, match="is no record of prompts made anew; remove it"):
        fw.retune(old, world.path("model"), tmp_path, report=SILENT)


def test_a_prompt_that_the_memory_is_too_small_for_is_left(
    old: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> Prompt:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(of_retune, "tune_prompt", full)
    made = fw.retune(old, world.path("other"), tmp_path / "new", report=SILENT)
    assert {each.reason for each in made.prompts} == {"the memory was not enough"}


def test_without_the_old_model_its_recorded_score_is_the_measure(
    old: Path, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    prompt = Prompt.load(old / "p.safetensors")
    for name, score in (("high", 101.0), ("low", 0.0)):
        about = {**prompt.backbone, "name": str(tmp_path / "gone")}
        scores = {"dev": {"accuracy": score, "rows": 8}}
        made = Prompt(
            prompt.injection, prompt.task, about, prompt.method, prompt.data, 0, {}, scores
        )
        made.save(folder / f"{name}.safetensors")
        shutil.copy(old / "p.log.jsonl", folder / f"{name}.log.jsonl")
    found = fw.retune(folder, world.path("other"), tmp_path / "new", report=SILENT)
    assert [(each.outcome, each.gain) for each in found.prompts] == [
        ("worse", None),
        ("kept", None),
    ]


def test_prompts_that_learned_their_dev_rows_are_judged_by_the_scores_before(
    world: World, tmp_path: Path, cli: Cli
) -> None:
    folder, out = tmp_path / "refit", tmp_path / "new"
    folder.mkdir()
    file = folder / "p.safetensors"
    assert cli(*world.train(str(file), "--method", "soft", "--refit", "on")).status == 0
    old = Prompt.load(file)

    def made_anew(score: float) -> dict[str, Any]:
        """What becomes of the prompt where its file has this accuracy."""
        replace(old, scores={"dev": {"accuracy": score, "rows": 8}}).save(file)
        words = ("--model", world.path("other"), "--out", str(out), "--json")
        answer = cli("retune", str(folder), *words)
        assert answer.err.count("both prompts learned their dev rows") == 1
        (one,) = answer.json["prompts"]
        assert (one["old"], one["gain"]) == (score, None)
        return dict(one)

    first = made_anew(0.0)
    assert files_of(out / "p.safetensors") == files_of(file)
    (again,) = fw.retune(out, world.path("model"), tmp_path / "again", report=SILENT).prompts
    assert again.outcome in ("kept", "worse")  # the rows are found once more
    new = Prompt.load(out / "p.safetensors").scores["dev"]["accuracy"]
    assert (first["new"], first["outcome"]) == (new, "kept")
    high = proportion(round(new * 8 / 100), 8).high
    within, beyond = (made_anew(score) for score in (high - 0.1, high + 0.1))
    assert (within["new"], within["outcome"]) == (new, "kept")
    assert (beyond["new"], beyond["outcome"]) == (new, "worse")


def test_prompts_of_several_tasks_are_tuned_alone_and_parts_of_a_shared_one_are_not(
    world: World, tmp_path: Path
) -> None:
    train, dev = world.path("train.jsonl"), world.path("dev.jsonl")
    members = [fw.Member(name, "classify", train, dev) for name in ("one", "two")]

    def made_anew(share: Any) -> list[fw.Remade]:
        """What becomes of the prompts of a run."""
        old = tmp_path / share
        sharing, training = fw.Sharing(share), fw.Training(epochs=1)
        given = {"sharing": sharing, "training": training, "report": SILENT}
        fw.multitask(world.path("model"), members, "soft", old, **given)
        new, given = tmp_path / f"new-{share}", {"train": train, "dev": dev, "report": SILENT}
        return list(fw.retune(old, world.path("other"), new, **given).prompts)

    apart = made_anew("none")
    assert {each.outcome for each in apart} <= {"kept", "worse"}
    for one in (each for each in apart if each.outcome == "kept"):
        assert "multitask" not in Prompt.load(tmp_path / "new-none" / one.file).method
    for part in made_anew("mpt"):
        assert part.outcome == "failed"
        assert "(`share=mpt`), which cannot be tuned alone" in str(part.reason)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{tmp}/empty --model {world}/other --out {tmp}/n", "holds no prompt files"),
        ("{tmp}/none --model {world}/other --out {tmp}/n", "no such folder"),
        ("{tmp}/old --model {world}/other --out {tmp}/old", "--out is the folder of the old"),
        ("{tmp}/old/p.safetensors --model {world}/other --out {tmp}/n", "is a file, not a folder"),
        ("{tmp}/old --model {tmp}/none --out {tmp}/n", "none"),
        ("{tmp}/old --model {world}/other --out {tmp}/n --train {tmp}/x.jsonl", "x.jsonl"),
    ],
)
def test_wrong_input_is_one_line(
    words: str, said: str, old: Path, world: World, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "empty").mkdir()
    answer = cli("retune", *words.format(world=world.folder, tmp=tmp_path).split())
    assert answer.status == 2
    told = [line for line in answer.err.splitlines() if line.startswith("foreword: ")]
    assert len(told) == 1
    assert said in told[0]


@pytest.mark.parametrize("model", ["model", "other"])
def test_prompts_of_ones_own_in_the_new_folder_stay(
    model: str, old: Path, world: World, tmp_path: Path, cli: Cli
) -> None:
    (own := tmp_path / "new" / "p.safetensors").parent.mkdir()
    shutil.copy(world.path("soft.safetensors"), own)
    before = own.read_bytes()
    answer = cli("retune", old, "--model", world.path(model), "--out", own.parent)
    assert answer.status == 2
    why = "is there already, and was not made anew; name another folder for --out"
    assert answer.err == f"foreword: {own}: {why}\n"
    assert own.read_bytes() == before
    assert list(own.parent.iterdir()) == [own]


def test_a_run_that_stopped_before_its_record_goes_on(
    old: Path, world: World, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "new"
    for model in ("model", "other"):  # a copy, and one that was made anew
        asked = ("retune", old, "--model", world.path(model), "--out", out)
        assert cli(*asked).status == 0
        (out / "retune.jsonl").unlink()
        assert cli(*asked).status == 0
        shutil.rmtree(out)


@pytest.mark.parametrize("by", [None, "label"])
def test_rows_of_scores_are_found_as_they_are_held_out_and_once_were(by: str | None) -> None:
    given = [Row({"text": f"{n}", "label": n if n > 20 else 0}, f"f:{n}") for n in range(40)]
    parts = dict(zip(("train", "dev"), hold_out(given, 0.1, 0, by=by), strict=True))
    about = {name: {"rows": len(own), "sha256": digest(own)} for name, own in parts.items()}
    prompt = Prompt(NOTHING, Score(), {}, data=about, seed=0)
    assert RecordedRows(prompt).find([given]) == (parts["train"], parts["dev"])
