"""Models by name: one copy in memory for all who use a model at a time."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError

_LOCK = Lock()
_IN_USE: WeakValueDictionary[tuple[str, str, str, float], Backbone] = WeakValueDictionary()
_latest: list[Backbone] = []
"""The model that was asked for last, which stays in memory between two uses."""


def shared_backbone(
    name: str | Path, architecture: str = "auto", pooling: str = "auto"
) -> Backbone:
    """Open a model as ``Backbone.load`` does, or return the copy of it that is in use.

    A copy that nobody uses is freed when another model is opened. A folder or a file that has
    changed since it was opened is opened again.

    Raises UserError where there is no such model.
    """
    with _LOCK:
        stamp = _changed(Path(name).expanduser())
        fitting = [
            backbone
            for (own, kind, mode, changed), backbone in _IN_USE.items()
            if (own, changed) == (str(name), stamp)
            and architecture in ("auto", kind)
            and pooling in ("auto", mode)
        ]
        if fitting:
            found = fitting[0]
        else:
            found = Backbone.load(str(name), architecture=architecture, pooling=pooling)
        mode = "" if found.pooling is None else str(found.pooling.mode)
        _IN_USE[str(name), found.architecture, mode, stamp] = found
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


def _changed(path: Path) -> float:
    """Return when a file, or a file of a folder, was last changed; 0 where there is none."""
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return max((file.stat().st_mtime for file in files), default=0.0)
    except OSError:
        return 0.0
