"""What the run was made on, and its table of 80 columns."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from train_cases import CASES
from train_setting import Setting

_PACKAGES = ("foreword", "peft", "torch", "transformers", "tokenizers")


def machine(setting: Setting) -> dict[str, Any]:
    """Describe the machine, the versions, and the command that was given."""
    cuda = setting.device == "cuda"
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": setting.threads,
        "gpu": torch.cuda.get_device_name(setting.device) if cuda else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def table(cases: Mapping[str, Any]) -> Table:
    """Lay out all cases, Foreword's number before PEFT's in each pair."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("Foreword / peft")
    for name in ("s a step", "ratio (range)", "rows/s", "MiB", "floor"):
        made.add_column(name, justify="right", no_wrap=True)
    for name, case in cases.items():
        ours, theirs, ratio = case["foreword"], case["peft"], case["ratio"]
        held = ""
        if "memory" in ours:
            held = f"{ours['memory']['above']:.0f} / {theirs['memory']['above']:.0f}"
        made.add_row(
            name,
            f"{_short(ours['seconds'])} / {_short(theirs['seconds'])}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
            f"{_short(ours['rows/s'])} / {_short(theirs['rows/s'])}",
            held,
            f"{case['floor']['share']:.0%}",
        )
    return made


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def notes(cases: Mapping[str, Any]) -> list[str]:
    """Say what the table's columns mean, and how many tokens a second long rows make."""
    made = [
        "ratio: peft's time to Foreword's, pair by pair; MiB: peak above the loaded model;",
        "floor: matrix products of the real tokens alone, as a share of Foreword's time",
    ]
    for name, case in cases.items():
        if CASES[name].long:
            ours, theirs = (case[side]["tokens/s"] for side in ("foreword", "peft"))
            made.append(f"{name}: {ours:.0f} real tokens/s in Foreword, {theirs:.0f} in peft")
    return made
