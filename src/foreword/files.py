"""Files are written whole, by renaming, or not at all; tensors are copied out of them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
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


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file under another name beside it and rename: readers see all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another `out`"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing was changed"
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, whole or not at all; what JSON does not know is written as text."""
    lines = (json.dumps(dict(row), ensure_ascii=False, default=str) for row in rows)
    return write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
