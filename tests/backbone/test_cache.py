from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from foreword.backbone.load.cache_folder import cache_root, publish
from foreword.errors import UserError


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "a.txt").write_text("whole")


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("FOREWORD_CACHE", "")
    assert cache_root().name == "foreword"


def test_a_published_folder_is_whole_and_alone(tmp_path: Path) -> None:
    target = publish(fill, tmp_path / "deep" / "model")
    assert (target / "inner" / "a.txt").read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_folder_that_is_there_is_kept_and_not_built(tmp_path: Path) -> None:
    target = publish(fill, tmp_path / "model")
    publish(lambda folder: pytest.fail("built again"), target)
    assert (target / "inner" / "a.txt").read_text() == "whole"


def test_the_loser_of_a_race_keeps_the_winners_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def overtaken(folder: Path) -> None:
        (folder / "mine").touch()
        publish(fill, target)

    assert publish(overtaken, target) == target
    assert [path.name for path in target.iterdir()] == ["inner"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad")])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def half(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        publish(half, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    def full(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(UserError, match=r"no space left on the disk.*FOREWORD_CACHE") as caught:
        publish(full, tmp_path / "model")
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_root_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # works for root too, who may write anywhere
    with pytest.raises(UserError, match="FOREWORD_CACHE"):
        publish(fill, tmp_path / "file" / "models" / "model")


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".model.old", ".model.new", ".else.old"))
    for folder in (old, young, other):
        folder.mkdir()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    publish(fill, tmp_path / "model")
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def test_a_folder_that_another_process_has_just_renamed_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([folder / ".model.renamed"]))
    assert publish(fill, tmp_path / "model").is_dir()
