"""Files are written whole: links are followed, and nothing but a regular file is replaced."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.data.write import check_writable, write_rows
from foreword.display.pictures import check_picture
from foreword.errors import UserError
from foreword.evaluation.records import append_record, read_records
from foreword.files import file_to_write, folder_written_whole, write_jsonl, write_whole
from foreword.recurrent import pretrain
from toys import toy_run

ROW = {"text": "a"}
WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_whole(path, b"new"),
    "JSON lines": lambda path: write_jsonl(path, [ROW]),
    "rows": lambda path: write_rows(path, [ROW]),
    "rows to come": check_writable,
    "a picture to come": check_picture,
    "records": lambda path: append_record(path, ROW) if read_records(path) else read_records(path),
    "a run": toy_run,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_device_is_refused_and_stays(writer: str, tmp_path: Path) -> None:
    path = tmp_path / ("pipe.png" if "picture" in writer else "pipe.jsonl")
    os.mkfifo(path)
    link = path.with_stem("link")
    link.symlink_to(path)
    for given in (path, link):
        with pytest.raises(UserError, match=rf"^{given}: is a device or a pipe, not a file; name"):
            WRITERS[writer](given)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, link.name])


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "rows.csv", tmp_path / "here" / "rows.csv"
    link.parent.mkdir()
    link.symlink_to(Path("..") / "far" / "rows.csv")
    for text in ("first", "second"):  # which makes the target, and which replaces it
        assert write_rows(link, [{"text": text}]) == link
        assert target.read_text("utf-8") == f"text\n{text}\n"
    assert link.is_symlink()
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["rows.csv"]
    assert file_to_write(link) == target


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(UserError, match=rf"^{one}: cannot be written \(Too many levels"):
        write_whole(one, b"new")


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "f", b"old")
    path.chmod(0o600)
    write_whole(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


def test_a_prompt_its_log_and_its_checkpoint_follow_their_links(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    for name in ("p.safetensors", "p.log.jsonl"):
        (tmp_path / name).symlink_to(far / name)
    toy_run(tmp_path / "p.safetensors")
    assert sorted(each.name for each in far.iterdir()) == ["p.log.jsonl", "p.safetensors"]
    assert all(each.is_symlink() for each in tmp_path.iterdir() if each != far)


def test_of_a_folder_that_cannot_be_written_whole_nothing_is_left(tmp_path: Path) -> None:

    def full() -> None:
        with folder_written_whole(tmp_path / "new") as folder:
            (folder / "f").write_bytes(b"begun")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"new: cannot be written \(No space left on device\)"):
        full()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    with pytest.raises(UserError, match="already exists"), folder_written_whole(tmp_path / "old"):
        pytest.fail("written over")
    assert [each.name for each in tmp_path.iterdir()] == ["old"]


def test_the_link_to_a_folder_stays_when_the_folder_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, link = tmp_path / "far" / "adapter", tmp_path / "adapter"
    far.mkdir(parents=True)
    link.symlink_to(far)
    with folder_written_whole(link) as folder:
        (folder / "f").write_bytes(b"new")
    assert (far / "f").read_bytes() == b"new"

    class Written:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            (folder / "g").write_bytes(b"newer")

    pretrain._write(link, Written(), Written())  # type: ignore[arg-type]
    assert [each.name for each in far.iterdir()] == ["g"]
    assert link.is_symlink()
    assert [each.name for each in far.parent.iterdir()] == ["adapter"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adapter", "far"]
