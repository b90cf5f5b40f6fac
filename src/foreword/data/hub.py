"""Data sets of the hub, and those saved to disk: what the `datasets` library reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.data.formats import first_line, neighbours
from foreword.data.row import Row
from foreword.data.values import named, plain
from foreword.errors import UserError, nearest

# The owner is required: a bare word is more likely a misspelt file, and `datasets` takes "csv" or
# "text" for a builder over the current folder.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+){1,2}")


def parse_split(source: str | Path) -> tuple[str | Path, str | None]:
    """Part a split from its data set: ``owner/name:split``, or a folder's name in its place."""
    name, colon, split = str(source).rpartition(":")
    if not colon or Path(source).exists() or not re.fullmatch(r"\w[\w.-]*", split):
        return source, None
    return (name, split) if HUB_ID.fullmatch(name) or Path(name).is_dir() else (source, None)


def is_saved(path: Path) -> bool:
    """Tell whether a folder holds what `datasets` saved to disk."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def read_saved(
    source: str | Path, path: Path, splits: Sequence[str], *, explicit: bool
) -> Iterator[Row]:
    """Read the first of ``splits`` that a saved data set has.

    Without ``explicit``, one without splits may be of any, and rows to score may be the only split
    that there is.
    """
    import datasets  # slow to import

    try:
        loaded = datasets.load_from_disk(str(path.resolve()))
    except Exception as error:  # whatever another library raises about a file is not our bug
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{source}: cannot be read as a dataset ({reason}); give a file") from None
    if isinstance(loaded, datasets.Dataset):
        own = str(loaded.split or splits[0])
        return _dataset({own: loaded}, str(source), splits if explicit else [own])
    if not explicit and splits[0] != "train" and len(loaded) == 1:
        splits = list(loaded)
    return _dataset(loaded, str(source), splits)


def read_hub(source: str, path: Path, splits: Sequence[str], *, explicit: bool) -> Iterator[Row]:
    """Read the first of ``splits`` that a data set has.

    Its name is `owner/name` or `owner/name/configuration`.
    """
    import datasets  # slow to import

    owner_name, configuration = source, None
    if source.count("/") == 2:
        owner_name, _, configuration = source.rpartition("/")
    try:
        loaded = datasets.load_dataset(owner_name, configuration)
    except Exception as error:  # the network, the hub and the builders raise nearly anything
        reason = first_line(error.__cause__ or error)
        near = neighbours(path) if path.parent.is_dir() else ""
        raise UserError(
            f"{source}: no such file or folder{near}; and no such dataset within reach ({reason}): "
            "check the spelling, or give a local file"
        ) from None
    hint = "" if explicit else f"; name one, such as {source}:{next(iter(loaded))}"
    return _dataset(loaded, source, splits, hint)


def _dataset(
    loaded: Mapping[str, Any], name: str, splits: Sequence[str], hint: str = ""
) -> Iterator[Row]:
    split = next((split for split in splits if split in loaded), None)
    if split is None:
        raise UserError(f"{name}: no split '{splits[0]}'; {nearest(splits[0], loaded)}{hint}")
    records = dataset_records(loaded[split])
    return (Row(record, f"{name}:{number}") for number, record in enumerate(records, start=1))


def dataset_records(dataset: Any) -> list[dict[str, Any]]:
    """Return the records of a `datasets.Dataset`, with class labels by name, not by number."""
    features = dataset.features.to_dict()
    return [plain(named(features, record)) for record in dataset.to_list()]
