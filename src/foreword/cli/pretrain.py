"""The command that makes a recurrent language model of a text file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Device, Json, Resume
from foreword.cli.flags import given, parameters_of
from foreword.cli.panels import MODEL
from foreword.cli.terminal import CommandTerminal
from foreword.display import console

Pretrained = parameters_of("foreword.recurrent.streams:Pretraining", "network")

USUAL = Pretrained()


def pretrain(
    *,
    text: Annotated[Path, Parameter(help="the text to read, in UTF-8")],
    out: Annotated[Path, Parameter(help="the folder to write; it opens as --model FOLDER")],
    flags: Annotated[Pretrained, Parameter(name="*")] = USUAL,  # type: ignore[valid-type]
    device: Annotated[Device, Parameter(help="auto, cpu, cuda or mps", group=MODEL)] = "auto",
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Make an LSTM or GRU language model of a text file, to tune prompts for."""
    from foreword.config.values import plain
    from foreword.recurrent.pretrain import pretrain as do
    from foreword.recurrent.streams import Pretraining

    began = time.monotonic()
    settings = Pretraining(**given(flags))
    report = CommandTerminal("reading", "tokens")
    found = do(text, out, settings, device=device, resume=resume, report=report)
    made = {"out": str(out), **plain(found), "seconds": round(time.monotonic() - began, 2)}
    if as_json:
        console.emit(made)
        return
    console.line(
        f"{out}: {made['parameters']} numbers, {made['tokens']} tokens; held-out perplexity "
        f"{made['perplexity']:.2f}, {made['bits_per_character']:.3f} bits per character; "
        f"{made['seconds']:.0f} s"
    )
