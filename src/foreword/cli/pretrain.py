"""The command that makes a recurrent language model of a text file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Json, Resume
from foreword.recurrent.pretrain import pretrain as do
from foreword.recurrent.streams import Pretraining
from foreword.report import tables
from foreword.training.terminal import Terminal

USUAL = Pretraining()


def pretrain(
    *,
    text: Annotated[Path, Parameter(help="the text to read, in UTF-8")],
    out: Annotated[Path, Parameter(help="the folder to write; it opens as --model FOLDER")],
    arch: Annotated[str, Parameter(help="lstm or gru")] = USUAL.arch,
    tokens: Annotated[str, Parameter(help="char or bpe")] = USUAL.tokens,
    vocabulary: Annotated[
        int | None, Parameter(help="tokens at most; else all characters, or 4096 of bpe")
    ] = USUAL.vocabulary,
    width: Annotated[int, Parameter(help="numbers in a state")] = USUAL.width,
    layers: Annotated[int, Parameter(help="layers, one on the other")] = USUAL.layers,
    dropout: Annotated[float, Parameter(help="between the layers, in training")] = USUAL.dropout,
    epochs: Annotated[int, Parameter(help="passes over the text")] = USUAL.epochs,
    steps: Annotated[int | None, Parameter(help="steps, instead of epochs")] = USUAL.steps,
    batch_size: Annotated[int, Parameter(help="streams of text in a step")] = USUAL.batch_size,
    sequence: Annotated[int, Parameter(help="tokens of a stream in a step")] = USUAL.sequence,
    rate: Annotated[float, Parameter(name="--lr", help="learning rate")] = USUAL.rate,
    seed: Annotated[int, Parameter(help="decides the first weights")] = USUAL.seed,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or mps")] = "auto",
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Make an LSTM or GRU language model of a text file, to tune prompts for."""
    began = time.monotonic()
    settings = Pretraining(
        arch=arch,
        tokens=tokens,  # type: ignore[arg-type]
        vocabulary=vocabulary,
        width=width,
        layers=layers,
        dropout=dropout,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        sequence=sequence,
        rate=rate,
        seed=seed,
    )
    report = Terminal("reading", "tokens")
    made = do(text, out, settings, device=device, resume=resume, report=report)
    made = {"out": str(out), **made, "seconds": round(time.monotonic() - began, 2)}
    if as_json:
        tables.emit(made)
        return
    tables.line(
        f"{out}: {made['parameters']} numbers, {made['tokens']} tokens; held-out perplexity "
        f"{made['perplexity']:.2f}, {made['bits_per_character']:.3f} bits per character; "
        f"{made['seconds']:.0f} s"
    )
