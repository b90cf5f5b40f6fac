"""Checkpoints: all that a run needs to go on as if it had not been stopped, in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from foreword.errors import UserError
from foreword.files import read_tensors, write_whole

KEY = "foreword-checkpoint"
SEAL = "sha256"


@dataclass
class Progress:
    """How far a run is. ``run`` hashes what it is a run of."""

    run: str
    step: int = 0
    best_score: float | None = None
    own_scores: list[float] = field(default_factory=list)  # each task's, of what is kept
    worse: int = 0  # evaluations since the best one
    halved: int = 0  # times that a plateau has halved the rate


def path_for(out: Path, part: str = "") -> Path:
    """Return where the checkpoint of a run that writes ``out`` stands: hidden, beside it.

    Of several runs that write it one after another, each ``part`` has its own.
    """
    return out.with_name(f".{out.name}{f'.{part}' if part else ''}.checkpoint")


def write(
    path: Path,
    progress: Progress,
    trainable: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
) -> None:
    """Write parameters, optimizer state, best parameters so far, and the place in the run."""
    tensors = {f"now.{name}": tensor for name, tensor in trainable.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(asdict(progress))
    write_whole(path, save(kept, metadata={KEY: text, SEAL: _seal(text, kept)}))


def remove(path: Path) -> bool:
    """Remove a checkpoint, and tell whether there was one."""
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def read(
    path: Path, run: str, trainable: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Put a run back where its checkpoint stands; None where there is no checkpoint.

    Raises UserError for a checkpoint of another run, or a damaged one.
    """
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            meta = file.metadata() or {}
            tensors = read_tensors(file)
        if meta[SEAL] != _seal(meta[KEY], tensors):
            raise ValueError("its content is not what was written")
        progress = Progress(**json.loads(meta[KEY]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); remove it to start anew") from None
    if progress.run != run:
        raise UserError(
            f"{path}: is of a run with other data, model or settings; repeat its command to resume "
            "it, or remove the file to start anew"
        )
    groups: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor
    trainable.load_state_dict(groups["now"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in groups["optimizer"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress, groups["best"]


def _seal(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the content, so that a damaged checkpoint is not taken for a whole one."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
