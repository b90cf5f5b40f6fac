"""Models by name: one copy in memory for all who use a model at a time."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import form_of
from foreword.errors import UserError

Files = tuple[tuple[str, int, int], ...]

_LOCK = Lock()
_IN_USE: WeakValueDictionary[tuple[str, Files, str, str], Backbone] = WeakValueDictionary()
"""Models by name, files, architecture and pooling: those that were asked for, and those found."""
_latest: list[Backbone] = []
"""The model that was asked for last, which stays in memory between two uses."""


def shared_backbone(
    name: str | Path, architecture: str = "auto", pooling: str = "auto"
) -> Backbone:
    """Open a model as ``Backbone.load`` does, or return the copy of it that is in use.

    A copy that nobody uses is freed when another model is opened. A folder or a file that has
    changed since it was opened is opened again. "auto" is the form that the folder itself gives,
    in whatever other form it is in use.

    Raises UserError where there is no such model.
    """
    with _LOCK:
        files = _files(Path(name).expanduser())
        found = _IN_USE.get((str(name), files, architecture, pooling))
        if found is None and any(key[:2] == (str(name), files) for key in _IN_USE):
            own = form_of(str(name), architecture, pooling)
            found = _IN_USE.get((str(name), files, *own))
        if found is None:
            found = Backbone.load(str(name), architecture=architecture, pooling=pooling)
        mode = pooling if found.pooling is None else str(found.pooling.mode)
        for form in product({architecture, found.architecture}, {pooling, mode}):
            _IN_USE[str(name), files, *form] = found
        _latest[:] = [found]
        return found


def backbone_of(model: Backbone | str | Path) -> Backbone:
    """Return a backbone as it is, or open the model of that name; raises UserError for neither."""
    if isinstance(model, Backbone):
        return model
    if isinstance(model, str | Path):
        return shared_backbone(model)
    raise UserError(
        f"`model` is of type {type(model).__name__}; give smollm2, a folder, a .gguf file, a hub "
        "id, or what fw.load gives"
    )


def _files(path: Path) -> Files:
    """Return the name, size and time of a file, or of each of a folder; nothing without one."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        about = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in about)
