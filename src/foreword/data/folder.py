"""Folders of files of rows: which files are of which split, as the hub's data sets name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.data.formats import KNOWN, is_data_name, read_file
from foreword.data.row import Row
from foreword.errors import UserError, nearest

DEV = ("validation", "dev", "valid", "val")
TEST = ("test",)
"""What the splits of dev and of test rows are called, most usual first."""

CALLED = {
    **{name: name for name in ("train", *DEV, *TEST)},
    **{"training": "train", "testing": "test", "eval": "test", "evaluation": "test"},
}
"""Words in the names of files and folders, and the splits that they stand for."""

ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that describe rows and hold none."""

Parts = Mapping[str, Sequence[Path]]


def read_files(
    source: str | Path,
    path: Path,
    splits: Sequence[str],
    *,
    explicit: bool,
    options: Mapping[str, Any],
) -> Iterator[Row]:
    """Read all files of the first of ``splits`` that a folder has, one after the other.

    A file is of a split that its name, or a folder's that it is in, has as a word; if none is of
    any, all are of train. Beside ``train.csv`` or its numbered parts, ``zh_train.csv`` is not read.
    The README.md of a data set may name the files instead. Without ``explicit``, rows to score may
    be the only split that there is. ``options`` are those of ``read_file``.

    Raises UserError for a folder without such files, and for a split of files of several formats.
    """
    files = _files(path)
    parts = _configured(source, path) or _parts(path, files)
    if not parts:
        raise UserError(f"{source}: holds no files of rows ({', '.join(KNOWN)}); give a file")
    wanted = list(splits)
    if explicit and splits[0] in DEV:
        wanted += DEV
    elif not explicit and splits[0] != "train" and len(parts) == 1:
        wanted += parts
    chosen = next((parts[name] for name in wanted if name in parts), None)
    if chosen is None:
        chosen = [file for file in files if explicit and splits[0] == file.name.split(".")[0]]
    chosen = [file for file in chosen if _is_plain(file)] or chosen
    if not chosen:
        raise UserError(f"{source}: no split '{splits[0]}'; {nearest(splits[0], parts)}")
    names = [str(Path(source) / file.relative_to(path)) for file in chosen]
    endings = {"".join(Path(name.lower()).suffixes[-1:]): name for name in reversed(names)}
    if len(endings) > 1:
        raise UserError(
            f"{source}: has rows of '{splits[0]}' in several formats "
            f"({', '.join(sorted(endings.values()))}); give one file"
        )
    if len(names) > 1 and "report" in options:
        options["report"].line(f"{source}: rows are read from {len(names)} files, {names[0]} ...")
    return (
        row
        for file, name in zip(chosen, names, strict=True)
        for row in read_file(file, name, **options)
    )


def data_files(path: Path) -> list[Path]:
    """Return the files that a folder's rows may be read from, of all its splits."""
    parts = _configured(path, path) or _parts(path, _files(path))
    return [file for files in parts.values() for file in files]


def _files(path: Path) -> list[Path]:
    """Return all files of rows in a folder, by name, numbers in their order."""
    found = [
        file
        for file in path.rglob("*")
        if is_data_name(file.name) and file.name not in ABOUT and file.is_file()
        if not any(part.startswith((".", "__")) for part in file.relative_to(path).parts)
    ]
    return sorted(found, key=_in_order)


def _in_order(file: Path) -> list[Any]:
    parts = re.split(r"(\d+)", str(file))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _parts(path: Path, files: Sequence[Path]) -> Parts:
    parts: dict[str, list[Path]] = {}
    for file in files:
        split = _split_of(file.relative_to(path))
        if split is not None:
            parts.setdefault(split, []).append(file)
    return parts or ({"train": files} if files else {})


def _split_of(file: Path) -> str | None:
    """Return the split that a file's folders name, or the file; None where none does."""
    for part in file.parts:
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in CALLED:
                return CALLED[word]
    return None


def _is_plain(file: Path) -> bool:
    """Tell whether a file's name says its split and its number alone, unlike ``zh_train.csv``."""
    words = re.split(r"[^a-z]+", file.name.lower().split(".")[0])
    return any(word in CALLED for word in words) and {*words} <= {*CALLED, "of", ""}


def _configured(source: str | Path, path: Path) -> Parts:
    """Return the files by split that the README.md of a data set names; empty where it does not.

    Raises UserError where it names several configurations, none of which is the default, and for
    paths out of the folder.
    """
    readme = path / "README.md"
    text = readme.read_text("utf-8", errors="replace") if readme.is_file() else ""
    head = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|\Z)", text, re.DOTALL)
    if head is None:
        return {}
    import yaml  # a tenth of the time of --help, which reads no data

    try:
        about = yaml.safe_load(head[1])
    except (yaml.YAMLError, ValueError):
        about = None
    given = about.get("configs") if isinstance(about, Mapping) else None
    given = given if isinstance(given, list) else []
    configs = [each for each in given if isinstance(each, Mapping) and "data_files" in each]
    if not configs:
        return {}
    usual = [c for c in configs if c.get("default") or c.get("config_name") == "default"]
    if len(configs) > 1 and not usual:
        names = ", ".join(str(each.get("config_name")) for each in configs)
        raise UserError(
            f"{source}: its README.md names several configurations ({names}); give a file of one"
        )
    files = (usual or configs)[0]["data_files"]
    if not isinstance(files, list):
        files = [files]
    entries = [e if isinstance(e, Mapping) else {"split": "train", "path": e} for e in files]
    parts: dict[str, list[Path]] = {}
    for entry in entries:
        patterns = entry.get("path")
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            try:
                found = [file for file in path.glob(str(pattern)) if file.is_file()]
            except (ValueError, NotImplementedError):
                raise UserError(
                    f"{source}: its README.md names '{pattern}', which is no path in the folder; "
                    "mend it, or give a file"
                ) from None
            parts.setdefault(str(entry.get("split")), []).extend(sorted(found, key=_in_order))
    return {split: own for split, own in parts.items() if own}
