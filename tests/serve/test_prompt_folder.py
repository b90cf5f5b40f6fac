"""A folder of prompts: versions, files that change or are refused, and names that are no paths."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.prompt.prompt import Prompt
from foreword.serve.http.history import history
from foreword.serve.names import RefusedPromptError, UnknownPromptError, parse, path_inside
from foreword.serve.prompts import PromptFolder
from foreword.serve.versions import publish
from serve.serving import SORT, WRITE, prefix, prompt_of, soft
from toys import get


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PromptFolder]:
    prompt_of(get(), WRITE, prefix(get(), 1)).save(tmp_path / "write.safetensors")
    made = PromptFolder(tmp_path, get(), keep=2, taken=("base",))
    yield made
    made.close()


def file(folder: PromptFolder, name: str = "write") -> Path:
    return folder.folder / f"{name}.safetensors"


def numbers(prompt: Any) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in prompt.tensors().values()])


def saved(path: Path, seed: int, backbone: Backbone | None = None) -> Prompt:
    backbone = get() if backbone is None else backbone
    made = prompt_of(backbone, WRITE, prefix(backbone, seed))
    made.save(path)
    return made


def test_a_prompt_is_opened_once_and_answers_as_its_file_does(folder: PromptFolder) -> None:
    assert folder.names() == ["write"]
    assert folder.opened == 0
    name, prompt = folder.open("write")
    assert name == "write@1"
    assert folder.open("write") == folder.open("write@1") == (name, prompt)
    assert (folder.hits, folder.misses) == (2, 1)
    own = Prompt.load(file(folder), get())
    assert prompt.predict("a film") == own.predict("a film")


def test_a_file_that_changes_is_the_next_version_and_who_began_goes_on(
    folder: PromptFolder,
) -> None:
    _, old = folder.open("write")
    before = numbers(old)
    new = saved(file(folder), 2)
    name, prompt = folder.open("write")
    assert name == "write@2"
    assert numbers(prompt).equal(numbers(new))
    assert numbers(old).equal(before)
    assert folder.open("write@1")[1] is old
    with pytest.raises(UnknownPromptError, match="no version 3"):
        folder.open("write@3")


def damaged(path: Path, how: str) -> None:
    """Write what is no good prompt over a file."""
    good = path.read_bytes()
    size = struct.unpack("<Q", good[:8])[0]
    if how == "cut off":
        path.write_bytes(good[: len(good) // 2])
    elif how == "NaN":
        data = bytearray(good)
        data[8 + size : 12 + size] = struct.pack("<f", float("nan"))
        path.write_bytes(data)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"embeds": [1.0]}))
    elif how == "a header of 2^62 bytes":
        path.write_bytes(struct.pack("<Q", 2**62) + good[8:])
    elif how == "another backbone":
        saved(path, 1, get("gpt2"))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "deep":
        header = json.dumps({"__metadata__": {"foreword": "[" * 5000}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)


DAMAGES = {
    "cut off": "cut off|damaged",
    "NaN": "NaN",
    "pickle": "not a safetensors file",
    "a header of 2^62 bytes": "header claims 4611686018427387904 bytes",
    "another backbone": "was tuned on",
    "empty": "not a safetensors file",
    "deep": "metadata is not JSON",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_is_refused_leaves_the_version_before_it(
    folder: PromptFolder, how: str
) -> None:
    _, old = folder.open("write")
    damaged(file(folder), how)
    assert folder.open("write") == ("write@1", old)
    about = folder.about("write")
    assert (about["version"], about["versions"]) == (1, [1])
    assert about["refused"] is not None
    assert str(folder.versions.folder) not in about["refused"]
    assert re.search(DAMAGES[how], about["refused"])
    again = PromptFolder(folder.folder, get())  # a server that starts anew
    name, prompt = again.open("write")
    assert name == "write@1"
    assert numbers(prompt).equal(numbers(old))
    saved(file(folder), 3)
    assert folder.open("write")[0] == "write@2"
    assert folder.about("write")["refused"] is None


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_was_never_good_is_refused_with_the_reason(
    folder: PromptFolder, how: str
) -> None:
    damaged(file(folder), how)
    for _ in range(2):
        with pytest.raises(RefusedPromptError, match=DAMAGES[how]) as error:
            folder.open("write")
        assert str(folder.folder) not in str(error.value)
    assert os.listdir(folder.versions.folder) == []


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    folder: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import foreword.serve.versions as module

    _, old = folder.open("write")
    saved(file(folder), 2)
    copy = module.shutil.copyfile

    def replaced(source: Any, target: Any) -> Any:
        made = copy(source, target)
        saved(file(folder), 3)
        return made

    monkeypatch.setattr(module.shutil, "copyfile", replaced)
    assert folder.open("write") == ("write@1", old)
    monkeypatch.undo()
    name, prompt = folder.open("write")
    assert name == "write@2"
    assert numbers(prompt).equal(numbers(Prompt.load(file(folder))))


def test_a_file_that_cannot_be_looked_at_leaves_all_versions(
    folder: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.open("write")
    saved(file(folder), 2)
    _, old = folder.open("write")
    saved(file(folder, "other"), 3)
    real = Path.stat

    def stat(self: Path, **how: Any) -> os.stat_result:
        if self.parent == folder.folder and self.suffix == ".safetensors":
            raise OSError(5, "Input/output error")
        return real(self, **how)

    again = PromptFolder(folder.folder, get())  # a server that starts anew
    with monkeypatch.context() as broken:
        broken.setattr(Path, "stat", stat)
        assert folder.open("write") == ("write@2", old)
        assert folder.about("write")["refused"] == "cannot be read (Input/output error)"
        assert again.open("write")[0] == "write@2"
        with pytest.raises(RefusedPromptError, match=r"cannot be read \(Input/output error\)"):
            folder.open("other")
        with pytest.raises(UserError, match="cannot be removed"):
            folder.remove("write")
    about = folder.about("write")
    assert (about["versions"], about["refused"]) == ([1, 2], None)
    assert again.open("write")[0] == "write@2"
    assert folder.open("other")[0] == "other@1"
    again.close()


def test_a_file_that_replaces_an_upload_at_once_is_seen(
    folder: PromptFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(version: Path, target: Path) -> Any:
        stamp = publish(version, target)
        saved(target, 3)
        return stamp

    saved(tmp_path / "upload", 2)
    with monkeypatch.context() as busy:
        busy.setattr("foreword.serve.prompts.publish", replaced)
        assert folder.add("write", tmp_path / "upload") == 2
    name, prompt = folder.open("write")
    assert name == "write@3"
    assert numbers(prompt).equal(numbers(Prompt.load(file(folder))))


def test_uploads_are_versions_of_which_the_last_are_kept(
    folder: PromptFolder, tmp_path: Path
) -> None:
    _, first = folder.open("write")
    upload = tmp_path / "upload"
    for seed in (2, 3, 4):
        saved(upload, seed)
        assert folder.add("write", upload) == seed
        assert file(folder).read_bytes() == upload.read_bytes()
        assert folder.open("write")[0] == f"write@{seed}"
    assert folder.about("write")["versions"] == [2, 3, 4]
    with pytest.raises(UnknownPromptError):
        folder.open("write@1")
    assert first.predict("a film")
    again = PromptFolder(folder.folder, get(), keep=2)
    assert again.open("write")[0] == "write@4"
    assert again.about("write")["versions"] == [2, 3, 4]


def test_a_list_of_all_prompts_reads_the_folder_of_versions_once(
    folder: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("write-2", "write.1", "writ"), 2):
        saved(file(folder, name), number)
        for _ in range(number - 1):
            folder.add(name, file(folder, name))
    file(folder, "broken").write_text("no prompt")
    assert folder.about("broken")["refused"]
    names = folder.names()
    assert names == ["broken", "writ", "write", "write-2", "write.1"]
    expected = [folder.known(name) for name in names]
    assert [each["versions"] for each in expected] == [[], [2, 3, 4], [], [1, 2], [1, 2, 3]]
    listed: list[Path] = []
    plain = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or plain(path))
    assert folder.all_known() == expected
    assert listed.count(folder.versions.folder) == 1


def test_an_upload_that_is_refused_changes_nothing(folder: PromptFolder, tmp_path: Path) -> None:
    before, (name, old) = file(folder).read_bytes(), folder.open("write")
    upload = tmp_path / "upload"
    for how in DAMAGES:
        upload.write_bytes(before)
        damaged(upload, how)
        with pytest.raises(UserError):
            folder.add("write", upload)
        with pytest.raises(UserError):
            folder.add("new", upload)
    assert file(folder).read_bytes() == before
    assert folder.open("write") == (name, old)
    assert folder.names() == ["write"]
    assert sorted(os.listdir(folder.versions.folder)) == ["write@1.safetensors"]


def test_a_history_tells_nothing_of_a_version_that_is_damaged(folder: PromptFolder) -> None:
    folder.open("write")
    kept = folder.versions.path("write", 1)
    assert history(folder, "write", [])[0]["scores"] == {}
    save_file({"one": torch.ones(1)}, kept)  # no prompt's
    assert history(folder, "write", [])[0]["rows"] is None
    kept.write_bytes(b"\x08")
    (found,) = history(folder, "write", [])
    assert (found["version"], found["rows"], found["scores"]) == ("write@1", None, {})


def test_rolling_back_brings_older_content_as_a_new_version(
    folder: PromptFolder, tmp_path: Path
) -> None:
    contents = {1: numbers(folder.open("write")[1])}
    with pytest.raises(UnknownPromptError, match="no older version"):
        folder.roll_back("write")
    for seed in (2, 3):
        contents[seed] = numbers(saved(tmp_path / "upload", seed))
        folder.add("write", tmp_path / "upload")
    assert folder.roll_back("write") == (2, 4)
    again = PromptFolder(folder.folder, get())  # as after a restart
    told = [(each["origin"], each.get("content")) for each in history(again, "write", [])]
    assert told == [("file", None)] * 2 + [("rollback", "write@2")]
    again.close()
    assert numbers(folder.open("write")[1]).equal(contents[2])
    assert numbers(Prompt.load(file(folder))).equal(contents[2])
    with pytest.raises(UnknownPromptError, match="no version 1 to go back to"):
        folder.roll_back("write", 1)
    assert folder.roll_back("write", 3) == (3, 5)
    assert numbers(folder.open("write")[1]).equal(contents[3])
    with pytest.raises(UnknownPromptError, match="no prompt 'other'"):
        folder.roll_back("other")
    assert sorted(os.listdir(folder.versions.folder)) == [
        "write@3.safetensors",
        *("write@4.rollback", "write@4.safetensors"),
        *("write@5.rollback", "write@5.safetensors"),
    ]
    folder.remove("write")
    assert os.listdir(folder.versions.folder) == []


def test_after_a_restart_one_rolls_back_from_what_a_rollback_brought(
    folder: PromptFolder, tmp_path: Path
) -> None:
    folder.open("write")
    saved(tmp_path / "upload", 2)
    folder.add("write", tmp_path / "upload")
    assert folder.roll_back("write") == (1, 3)
    again = PromptFolder(folder.folder, get())
    with pytest.raises(UnknownPromptError, match="no older version to go back to"):
        again.roll_back("write")  # as what is current is version 1
    again.close()


def test_an_accuracy_of_a_file_is_told_with_its_interval(
    folder: PromptFolder, tmp_path: Path
) -> None:
    made = Prompt.load(file(folder))
    odd = [{"accuracy": accuracy, "rows": 10} for accuracy in (101, -1, "90")]
    for scores in odd:
        made.with_scores({"dev": scores}).save(file(folder))
        folder.open("write")
        assert history(folder, "write", [])[-1]["scores"]["dev"] == scores
    for scores in ({"accuracy": 90.0, "rows": 10}, {"span_f1": 90.0, "rows": 10}, {}):
        made.with_scores({"dev": scores}).save(file(folder))
        folder.open("write")
    found = [each["scores"]["dev"] for each in history(folder, "write", [])[-3:]]
    assert found == [
        {"accuracy": 90.0, "rows": 10, "interval": [59.58, 98.21]},  # Wilson 1927
        {"span_f1": 90.0, "rows": 10},
        {},
    ]


def test_a_prompt_that_is_removed_is_gone_with_its_versions(folder: PromptFolder) -> None:
    _, old = folder.open("write")
    folder.remove("write")
    assert not file(folder).exists()
    assert os.listdir(folder.versions.folder) == []
    for name in ("write", "write@1"):
        with pytest.raises(UnknownPromptError):
            folder.open(name)
    with pytest.raises(UnknownPromptError):
        folder.remove("write")
    assert old.predict("a film")
    saved(file(folder), 2)
    folder.open("write")
    file(folder).unlink()  # by hand
    with pytest.raises(UnknownPromptError):
        folder.open("write@1")
    assert folder.opened == 0


def test_what_another_server_writes_stays_until_it_is_old(
    folder: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder.versions.new()
    PromptFolder(folder.folder, get()).close()
    assert made.exists()
    monkeypatch.setattr("foreword.serve.versions.OLD", -1.0)
    PromptFolder(folder.folder, get()).close()
    assert not made.exists()


def test_names_are_never_paths(folder: PromptFolder, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.safetensors"
    saved(outside, 1)
    (tmp_path / "sub").mkdir()
    saved(tmp_path / "sub" / "one.safetensors", 1)
    (tmp_path / "link.safetensors").symlink_to(outside)
    bad = ["../outside", "/etc/passwd", "..", ".", "", "sub/one", "a\0b", "a b", ".versions", "-x"]
    for name in [*bad, "x" * 101, "\ud800", "write@0", "write@01", "write@", "+", "write+"]:
        with pytest.raises(UnknownPromptError):
            folder.open(name)
    for name in [*bad, "base", "a@2", "a+b"]:
        with pytest.raises(UserError):
            folder.add(name, outside)
        with pytest.raises(UnknownPromptError):
            folder.remove(name)
    hidden = f".versions/{'write@1.safetensors'}"
    for name in ("../x", str(outside), "link.safetensors", "sub", hidden, "a\0", "x" * 999):
        with pytest.raises(UserError, match="no file in the folder"):
            path_inside(folder.folder, name)
    assert path_inside(folder.folder, "sub/one.safetensors") == tmp_path / "sub" / "one.safetensors"
    with pytest.raises(UnknownPromptError, match="more than 8"):
        parse("+".join("abcdefghi"))


def test_prompts_are_joined_by_plus(folder: PromptFolder, tmp_path: Path) -> None:
    prompt_of(get(), WRITE, soft(get(), 2)).save(tmp_path / "soft.safetensors")
    prompt_of(get(), SORT, soft(get(), 2)).save(tmp_path / "sort.safetensors")
    name, joined = folder.open("write+soft")
    assert name == "write@1+soft@1"
    assert folder.open("write@1+soft")[1] is joined
    own = [folder.open(each)[1] for each in ("write", "soft")]
    assert numbers(joined).sum().isclose(sum(numbers(each).sum() for each in own))
    saved(tmp_path / "write.safetensors", 5)
    assert folder.open("write+soft")[0] == "write@2+soft@1"
    with pytest.raises(UserError, match="one kind of task"):
        folder.open("write+sort")


def test_memory_holds_the_prompts_that_were_used_last(tmp_path: Path) -> None:
    for number in range(5):
        saved(tmp_path / f"p{number}.safetensors", number)
    closed: list[Any] = []
    size = 4 * numbers(Prompt.load(tmp_path / "p0.safetensors")).numel()
    folder = PromptFolder(tmp_path, get(), memory=2 * size + 4, on_close=closed.append)
    first = folder.open("p0")[1]
    folder.open("p1")
    folder.open("p0")
    folder.open("p2")
    assert folder.opened == 2
    assert len(closed) == 1
    assert folder.open("p0")[1] is first
    again = folder.open("p1")[1]
    assert numbers(again).equal(numbers(closed[0]))
    folder.close()
    assert len(closed) == 4


def test_a_folder_that_cannot_be_written_to_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "write.safetensors", 1)
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(OSError(30, "read")))
    folder = PromptFolder(tmp_path, get())
    monkeypatch.undo()
    assert folder.open("write")[0] == "write@1"
    assert not (tmp_path / ".versions").exists()
    kept = folder.versions.folder
    assert kept.exists()
    folder.close()
    assert not kept.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PromptFolder(tmp_path / "none", get())
