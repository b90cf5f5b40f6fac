"""Peak memory of one side, measured in a process that runs nothing else."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_cases import Case, rows_for
from train_foreword import ForewordSide, begin
from train_peft import PeftSide
from train_setting import Setting, wait

SIDES = ("foreword", "peft")
_MIB = 2**20
_STATUS = Path("/proc/self/status")


def keep(path: Path, prompt: Tensor, batches: list[dict[str, Tensor]]) -> None:
    """Write what PEFT's process needs, so that it need not load Foreword's model to get it."""
    tensors = {
        f"{n}.{name}": tensor for n, batch in enumerate(batches) for name, tensor in batch.items()
    }
    save_file({"prompt": prompt.contiguous(), **tensors}, path)


def ask(side: str, case: Case, setting: Setting, given: Path) -> dict[str, float]:
    """Start a process for one side and return what :func:`worker` prints there."""
    script = Path(__file__).with_name("train.py")
    command = [sys.executable, str(script), "--cases", case.name, *setting.arguments()]
    done = subprocess.run(
        [*command, "--worker", side, "--given", str(given)], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def worker(side: str, case: Case, setting: Setting, given: Path) -> dict[str, float]:
    """Take a step on every batch and return the peak of memory, in MiB.

    ``loaded`` is what the process holds before its first step, ``peak`` the most that it has
    held since: resident memory on a CPU, allocated tensors on a GPU.
    """
    made: Any
    if side == "foreword":
        backbone = setting.backbone()
        rows = rows_for(case, setting.files, setting.batches, setting.seed, backbone.text)
        made = ForewordSide(begin(backbone, case, rows, setting.seed, setting.compiled))
        count = len(rows) // case.batch
    else:
        prompt, batches = _kept(given, setting.device)
        model = setting.open().model
        for weights in model.parameters():  # they may lie in their file, and a step reads them all
            weights.sum()
        made = PeftSide(model, case, prompt, batches)
        count = len(batches)
    gc.collect()
    loaded = begin_peak(setting.device)
    for number in range(count):
        made.step(number)
    wait(setting.device)
    # The kernel counts the two apart, and the peak can come out a page below what is held.
    return {"loaded": loaded, "peak": max(loaded, peak(setting.device))}


def _kept(path: Path, device: str) -> tuple[Tensor, list[Mapping[str, Tensor]]]:
    tensors = load_file(path, device)
    prompt = tensors.pop("prompt")
    batches: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".")
        batches.setdefault(int(number), {})[name] = tensor
    return prompt, [batches[number] for number in sorted(batches)]


def begin_peak(device: str) -> float:
    """Return the memory held now, and let the peak begin anew from here where that can be."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / _MIB
    if not _STATUS.exists():
        return peak(device)
    with suppress(OSError):  # where it may not be, the peak holds that of loading, on both sides
        Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak(device: str) -> float:
    """Return the most memory held since, in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    # On Linux ru_maxrss begins at what the parent held when it started this process.
    if _STATUS.exists():
        return status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def status(name: str) -> float:
    """Return what the kernel says of this process by that name, in MiB."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) / 1024
