"""Starts from other prompts: one that is named, or the closest of a folder of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import first
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.injection import Injection
from foreword.prompt.tensors import check_fit, opened
from foreword.tasks.base import Bound
from foreword.tasks.templates.layout import room_for

ROWS = 64
"""Training rows by which the prompts of a folder are told apart."""


def choose_start(
    start: str,
    task: Bound,
    rows: Sequence[Row],
    seed: int,
    fitting: Callable[[str, Injection], Injection],
) -> tuple[Injection, tuple[str, ...]]:
    """Return the injection to start from, and what a person should know of the choice.

    ``start`` is a prompt file, or a folder of which the prompt with the smallest mean loss on up
    to 64 training rows is taken. SPoT (Vu et al. 2022, arXiv:2110.07904) chooses by the
    similarity of prompts tuned on both tasks; the loss needs no tuning. ``fitting`` takes from a
    prompt what the method can start from, and raises UserError where there is none.

    Raises UserError for a prompt of another kind or backbone, and for a folder without one that
    fits.
    """
    path, backbone = Path(start), task.backbone
    if not path.is_dir():
        return fitting(start, read_on_backbone(path, backbone)), ()
    files = prompt_files(path, "to start from")
    asked = first(rows, min(ROWS, len(rows)), seed)
    least, best, chosen, reasons = math.inf, None, path, []
    for file in files:
        try:
            found = fitting(str(file), read_on_backbone(file, backbone))
            loss = mean_loss(task, found, asked)
        except UserError as error:
            reasons.append(str(error))
            continue
        if loss < least:
            least, best, chosen = loss, found, file
    if best is None:
        why = reasons[0] if reasons else "no loss is finite"
        raise UserError(f"{path}: no prompt there can be a start; the first: {why}")
    fit = len(files) - len(reasons)
    note = (
        f"starting from {chosen}: of {counted(fit, 'prompt that fits', 'prompts that fit')}, "
        f"it has the smallest loss on {counted(len(asked), 'training row')} ({least:.4f})"
    )
    return best, (note,)


def prompt_files(folder: Path, what: str) -> list[Path]:
    """Return the prompt files in a folder; raises UserError where it has none ``what``."""
    files = sorted(f for f in folder.glob("*.safetensors") if not f.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: holds no prompt files (*.safetensors) {what}")
    return files


def read_on_backbone(path: Path, backbone: Backbone) -> Injection:
    """Read a prompt of this very backbone, onto its device."""
    meta, injection = opened(path)
    if not backbone.has_fingerprint(meta["backbone"]["fingerprint"]):
        raise UserError(
            f"{path}: was tuned on {meta['backbone']['name']}, and this is {backbone.name}; "
            "name that one with `model`, or start with a prompt of the same model"
        )
    check_fit(str(path), injection, backbone)
    return injection.map(lambda tensor: tensor.to(backbone.device))


def mean_loss(task: Bound, injection: Injection, rows: Sequence[Row]) -> float:
    """Return the mean training loss of rows under an injection, without gradients."""
    room = room_for(task.backbone, injection)
    items = [task.train_example(row, room) for row in rows]
    examples = [item.example for item in items]
    total = torch.zeros(())
    for group, logits in infer(task.backbone, injection, examples, tokens=task.tokens):
        total += task.losses(logits, [items[i] for i in group]).sum().cpu()
    return float(total) / sum(task.units(item) for item in items)
