"""Files are written whole, by renaming, or not at all; tensors are copied out of them.

A link is followed, and what is no regular file is refused: a rename would replace it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(file: Any) -> dict[str, Tensor]:
    """Copy all tensors out of a safetensors file that ``safe_open`` has opened.

    What safetensors returns is a view of the file, which begins where the header happens to end.
    A product over unaligned memory may be summed in another order, and so round otherwise than
    the same product before the tensors were saved.
    """
    return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def file_to_write(path: Path) -> Path:
    """Return the file that a path names, links followed; it need not be there yet.

    Raises UserError for a folder, and for what is no regular file, such as a device or a pipe.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except OSError as error:  # such as links that lead to one another
        raise _unwritable(path, error) from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name the file to write in it")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a device or a pipe, not a file; name a file to write")
    return target


def check_place(path: Path) -> Path:
    """Return the file that a path names; raises UserError where none can be written there.

    A file without a name is tried in the nearest folder that is there, and nothing is left behind.
    """
    target = file_to_write(path)
    folder = next(each for each in target.parents if each.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(path, error) from None
    return target


def check_place_of_tensors(path: Path, read: Path | None = None) -> Path:
    """Return the file that a path names, as :func:`check_place` does.

    Raises UserError also for a file that is there, and by its name and what it holds is none of
    tensors, such as rows: it is kept. So is the prompt that is ``read``.
    """
    target = check_place(path)
    if read is not None and target.exists() and read.exists() and target.samefile(read):
        raise UserError(f"{path}: is the prompt that is read, which stays; name another file")
    try:
        with target.open("rb") as file:
            head = file.read(9)  # the length of a header in eight bytes, and how it begins
    except FileNotFoundError:
        return target
    except OSError as error:
        raise _unwritable(path, error) from None
    if head and head[8:] != b"{" and target.suffix != ".safetensors":
        raise UserError(f"{path}: is there already and is no prompt file; name another file")
    return target


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> Path:
    """Write a file under another name beside it and rename: readers see all of it or nothing.

    A file that is replaced keeps its permissions. Content that comes in parts is not held.
    """
    target = file_to_write(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, target.stat().st_mode if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing was changed"
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write files into, which at the end is renamed to ``folder``.

    A link is followed. Where the block raises, nothing is left of it. Raises UserError for a
    folder that holds something, and where it cannot be written.
    """
    whole = Path(os.path.realpath(folder))
    temporary = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}")
    try:
        if whole.exists() and (not whole.is_dir() or any(whole.iterdir())):
            raise UserError(f"{folder}: already exists; name a new folder")
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        os.replace(temporary, whole)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); name another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beside(out: Path, ending: str) -> Path:
    """Return the path of a file that belongs to a prompt file: its name with another ending.

    >>> str(beside(Path("p/v.1.safetensors"), "log.jsonl"))
    'p/v.1.log.jsonl'
    """
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.{ending}")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, whole or not at all; what JSON does not know is written as text."""
    return write_whole(path, (json_line(row) for row in rows))


def json_line(value: Mapping[str, Any], default: Callable[[Any], Any] = str) -> bytes:
    r"""Return an object as a line of JSON in UTF-8; half of a surrogate pair as its escape.

    JSON has no NaN and no infinity: they are null.

    >>> json_line({"text": "ü \ud83d", "score": float("nan")}).decode()
    '{"text": "ü \\ud83d", "score": null}\n'
    """
    try:
        line = json.dumps(dict(value), ensure_ascii=False, default=default, allow_nan=False)
    except ValueError:
        line = json.dumps(_finite(dict(value)), ensure_ascii=False, default=default)
    return f"{line}\n".encode("utf-8", "backslashreplace")  # in JSON an escape looks the same


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror}); name another file")


def _umask() -> int:
    """Return the umask; Linux shows it, elsewhere it has to be set to be read."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
