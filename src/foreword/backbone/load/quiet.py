"""Context managers around calls of transformers: what is said and raised in them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from transformers.utils import logging as transformers_logging

from foreword.errors import UserError
from foreword.reporter import Reporter


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Silence what libraries log while they are imported, about kernels for other machines."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Silence transformers' own progress bars while the block runs."""
    # the hook, as the switch also turns the hub's bars off and on, against what the user set
    before = transformers_logging.set_tqdm_hook(_disabled)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _disabled(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **(options | {"disable": True}))


@contextlib.contextmanager
def bars_to(report: Reporter, name: str) -> Iterator[None]:
    """Show transformers' progress over a model's weights as a bar of the reporter's."""

    def hook(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        items = args[0] if args else options.get("iterable")
        return _disabled(bar, args, options) if items is None else counted(list(items))

    def counted(items: list[Any]) -> Iterator[Any]:
        with report.bar(name, len(items)) as move:
            for item in items:
                yield item
                move(1)

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """Silence what is said of missing and unused weights, which the caller judges itself."""
    # a filter and not a level: from WARNING up, this logger's level turns on another check's table
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_load_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_load_report)


def _is_no_load_report(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    return "LOAD REPORT" not in said and "checkpoint seem corrupted" not in said


@contextlib.contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Turn what transformers raises for a bad file into one line; wrap nothing but its calls."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # safetensors, tokenizers and GGUF readers raise without a base
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        lines = said.strip().splitlines() or [type(error).__name__]
        raise UserError(f"cannot load {name!r}: {lines[0].strip()}") from error
