"""Pooling: how the states of a text's tokens become one vector, as an encoder's folder says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from foreword.errors import UserError, nearest

PoolingMode = Literal["mean", "weightedmean", "cls", "last"]

_MODES: dict[str, PoolingMode] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "weightedmean_tokens": "weightedmean",
    "weightedmean": "weightedmean",
    "cls_token": "cls",
    "cls": "cls",
    "lasttoken": "last",
}
"""The modes by the names that sentence-transformers gives them."""

_QUERY = ("classification", "query")
_PASSAGE = ("passage", "document")


@dataclass(frozen=True)
class Pooling:
    """What an encoder gives for a text: one vector, out of the last states of its tokens.

    ``mode`` "mean" is the mean over all tokens of the row but virtual ones, "weightedmean" the
    same with weights 1, 2, 3, ... from the first to the last (SGPT, Muennighoff 2022,
    arXiv:2202.08904), "cls" the state of the first token and "last" that of the last; None leaves
    it to the model ("last" where tokens see only those before them, else "mean"). With
    ``normalize`` its length is 1. ``prompt`` is what the model was trained to read before a text,
    ``passage`` before a text that is searched for; ``longest`` is the number of tokens that it was
    trained on.
    """

    mode: PoolingMode | None = None
    normalize: bool = False
    prompt: str = ""
    passage: str = ""
    longest: int | None = None


def is_sentence_encoder(folder: Path) -> bool:
    """Whether sentence-transformers saved the folder, as a model that pools."""
    return any(_kind(module) == "Pooling" for module in _modules(folder))


def lowers_text(folder: Path) -> bool:
    """Whether sentence-transformers gives the model's tokenizer all text in lower case."""
    return _read(folder / "sentence_bert_config.json").get("do_lower_case") is True


def pooling_files(folder: Path) -> list[str]:
    """Return the files of a sentence-transformers folder that stand in folders of their own."""
    pools = [module for module in _modules(folder) if _kind(module) == "Pooling"]
    return [f"{module.get('path', '')}/config.json" for module in pools]


def check_mode(mode: str) -> None:
    """Raise UserError for what is neither "auto" nor a mode of pooling."""
    known = ("auto", *get_args(PoolingMode))
    if mode not in known:
        raise UserError(f"unknown pooling {mode!r}: {nearest(mode, known)}")


def read_pooling(folder: Path, name: str, mode: str = "auto") -> Pooling:
    """Return what the files of sentence-transformers in a folder say; ``mode`` stands over theirs.

    Raises UserError for what is asked for there and not done here.
    """
    modules = _modules(folder)
    for module in modules:
        if _kind(module) not in ("Transformer", "Pooling", "Normalize"):
            raise UserError(
                f"cannot load {name!r}: its modules.json has a layer {_kind(module)} after the "
                "model, which foreword does not run"
            )
    first, asked = _prompts(folder)
    pools = [
        folder / str(module.get("path", "")) for module in modules if _kind(module) == "Pooling"
    ]
    own = _mode_of(pools[0], name, mode, prompted=bool(first)) if pools else None
    chosen = next((each for each in get_args(PoolingMode) if each == mode), own)
    longest = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    return Pooling(
        chosen,
        any(_kind(module) == "Normalize" for module in modules),
        first,
        asked,
        longest if isinstance(longest, int) and longest > 0 else None,
    )


def _mode_of(folder: Path, name: str, asked: str, *, prompted: bool) -> PoolingMode | None:
    """Return the mode of a pooling module; None where another one is asked for."""
    if asked != "auto":
        return None
    about = _read(folder / "config.json")
    if not about:
        raise UserError(
            f"cannot load {name!r}: {folder.name}, of its modules.json, has no config.json; "
            "add the file, or choose a `pooling`"
        )
    start = "pooling_mode_"
    modes = [key.removeprefix(start) for key, on in about.items() if key.startswith(start) and on]
    if "pooling_mode" in about:
        given = about["pooling_mode"]
        modes = [str(each) for each in (given if isinstance(given, list) else [given])]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise UserError(
            f"cannot load {name!r}: its pooling is {' and '.join(modes) or 'none'}, "
            f"and foreword has {', '.join(get_args(PoolingMode))}; choose one with `pooling`"
        )
    if prompted and about.get("include_prompt") is False and "mean" in _MODES[modes[0]]:
        raise UserError(
            f"cannot load {name!r}: its pooling leaves the tokens of its prompt out of the mean, "
            "which foreword does not do; choose a `pooling`"
        )
    return _MODES[modes[0]]


def _prompts(folder: Path) -> tuple[str, str]:
    """Return what stands before a text, and before one that is searched for; empty for nothing."""
    about = _read(folder / "config_sentence_transformers.json")
    given = about.get("prompts")
    prompts = (
        {str(key): str(text) for key, text in given.items()} if isinstance(given, dict) else {}
    )
    lower = {key.lower(): text for key, text in prompts.items()}
    usual = prompts.get(str(about.get("default_prompt_name")))
    first = next((lower[key] for key in _QUERY if key in lower), "") if usual is None else usual
    return first, next((lower[key] for key in _PASSAGE if key in lower), usual or "")


def _modules(folder: Path) -> list[dict[str, Any]]:
    found = _read(folder / "modules.json", list)
    return [each for each in found if isinstance(each, dict)]


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _read(path: Path, kind: type = dict) -> Any:
    """Return what a JSON file holds; empty where it is missing or holds another kind of value.

    Raises UserError for a file that cannot be read as JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); mend the file") from None
    return found if isinstance(found, kind) else kind()
