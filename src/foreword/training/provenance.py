"""What a prompt file says of how the prompt was made: method, rows, task, backbone, versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.values import plain
from foreword.data.duplicates import marks, overlap
from foreword.data.row import Row
from foreword.data.sample import digest
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.prompt.texts import check_without_texts, without_start_texts
from foreword.tasks.base import Bound, Task
from foreword.tasks.registry import name_of as task_name
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.training.settings import Training


def about_method(
    method: Method, parameters: Sequence[Tensor], training: Training
) -> dict[str, Any]:
    """Describe a method, how many numbers it trains, and the settings of its training."""
    settings = plain(method)
    return {
        "name": name_of(method),
        **(without_start_texts(settings) if training.no_texts else settings),
        "trained": sum(parameter.numel() for parameter in parameters),
        "training": plain(training),
    }


def about_task(task: Task) -> dict[str, Any]:
    """Describe a task by its name and its settings."""
    return {"name": task_name(task), **plain(task)}


def about_data(
    bound: Bound, method: Method, train: Sequence[Row], dev: Sequence[Row], training: Training
) -> dict[str, Any]:
    """Describe the data: counts and hashes, and rows as text for the baseline in context.

    ``training`` with ``refit`` "on" says that dev rows are learned too, after they were scored.

    With ``no_texts`` there are no rows as text. Raises UserError for a task that needs some.

    ``in_train`` counts dev rows whose text is in train.
    """
    if training.no_texts:
        check_without_texts(bound.task)
    most = None if method.shots is None else min(method.shots, len(train))
    if training.no_texts or most == 0:
        shots: Sequence[Row] = ()
    else:
        shots = choose_demonstrations(bound, train, most, training.seed)
    seen = [*train, *dev] if training.refit == "on" else train
    return {
        "train": about_rows(train),
        "dev": {**about_rows(dev), "in_train": len(overlap(dev, train, bound.fields))},
        "demonstrations": [bound.demonstration(row) for row in shots],
        **({"no_texts": True} if training.no_texts else {}),
        **({"marks": marks(seen, bound.fields)} if len(seen) <= MARKED else {}),
    }


MARKED = 1000
"""Training rows up to which a prompt file keeps the marks by which ``evaluate`` knows them."""


def about_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Describe rows by their number and their hash."""
    return {"rows": len(rows), "sha256": digest(rows)}


def about_files(**parts: Sequence[Row]) -> dict[str, str]:
    """Return the file that the rows of each part were read from, where that is one."""
    found = {}
    for part, rows in parts.items():
        names = {row.where.rpartition(":")[0] for row in rows}
        if len(names) == 1 and (name := names.pop()) and Path(name).is_file():
            found[part] = name
    return found


def about_backbone(backbone: Backbone) -> dict[str, str]:
    """Describe a backbone: its name and architecture, how it pools or is quantised, and a hash."""
    about = {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "fingerprint": backbone.fingerprint,
    }
    if backbone.pooling is not None:
        about["pooling"] = str(backbone.pooling.mode)
    return about if backbone.quantized is None else {**about, "quantize": backbone.quantized}


def dtype_name(backbone: Backbone) -> str:
    """Return the dtype of the backbone's weights as a word, such as float32."""
    return str(backbone.dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    """Return the versions of what a prompt was made with."""
    names = ("foreword", "torch", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def build_prompt(
    bound: Bound,
    injection: Injection,
    task: Task,
    *,
    method: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    dev: Mapping[str, Any] | None,
) -> Prompt:
    """Return the prompt of a finished run: ``dev`` is its dev score, the rest says what it is of.

    The injection's tensors are copied. ``task`` is that of ``bound`` with what it fits on dev rows.
    """
    injection = injection.map(lambda tensor: tensor.detach().clone())
    made = Prompt(
        injection=injection,
        task=task,
        backbone=about_backbone(bound.backbone),
        method=method,
        data=data,
        seed=seed,
        versions=versions(),
        scores={} if dev is None else {"dev": dev},
        on=bound.backbone,
    )
    same = task is bound.task and bound.headed == (injection.head is not None)
    return made.bound_as(bound) if same else made
