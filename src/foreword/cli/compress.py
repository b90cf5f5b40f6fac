"""The command that presses a long text into a short prefix."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from foreword.cli import panels
from foreword.cli.common import USUALLY, Json, Loaded, Resume
from foreword.cli.completion import File
from foreword.cli.flags import defaults
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.cli.words import unescaped
from foreword.display import comparison, console
from foreword.files import check_place_of_tensors
from foreword.grammar import counted
from foreword.training.settings import BATCH, Training

CARTRIDGE = defaults("foreword.methods.cartridge:Cartridge")
STUDY = defaults("foreword.compression.self_study:SelfStudy")
EPOCHS = 5
TRAINING = Training(epochs=EPOCHS)


def compress(
    *,
    text: Annotated[Path, Parameter(help="the text, in UTF-8")],
    out: Annotated[Path, Parameter(help="the prompt file to write")],
    length: Annotated[Whole, Parameter(help="positions that stand for it")] = CARTRIDGE["length"],
    questions: Annotated[
        Path | None, Parameter(help="rows with questions, and answers where there are some")
    ] = None,
    test: Annotated[
        Path | None, Parameter(help="such rows to report on; else some are held back")
    ] = None,
    count: Annotated[
        Whole, Parameter(help="questions that the model asks itself, where none are given")
    ] = STUDY["count"],
    template: Annotated[
        str | None, Parameter(help="how a question stands after the text, in place of the usual")
    ] = None,
    max_new_tokens: Annotated[
        Whole, Parameter(help="most tokens of an answer", group=("Decoding", panels.FURTHER))
    ] = 48,
    sink: Annotated[
        Whole,
        Parameter(help="first positions that are not trained", group=("Method", panels.FURTHER)),
    ] = CARTRIDGE["sink"],
    epochs: Annotated[
        Whole, Parameter(help="passes over the questions", group=panels.TRAINING)
    ] = EPOCHS,
    batch_size: Annotated[
        Whole, Parameter(help="questions a step", group=(panels.TRAINING, panels.FURTHER))
    ] = BATCH,
    rate: Annotated[
        float, Parameter(name="--lr", help="learning rate", group=(panels.TRAINING, panels.FURTHER))
    ] = CARTRIDGE["rate"],
    seed: Annotated[
        Seed,
        Parameter(help="decides questions and order", group=(panels.TRAINING, panels.FURTHER)),
    ] = TRAINING.seed,
    past_window: Annotated[
        Literal["hidden", "seen"],
        Parameter(
            help="positions past a sliding window: hidden, as those of text are, or seen",
            group=(panels.TRAINING, panels.FURTHER),
        ),
    ] = CARTRIDGE["past_window"],
    model: Annotated[
        File,
        Parameter(
            help="smollm2 (packaged), a folder, a .gguf file, or a hub id", group=panels.MODEL
        ),
    ] = "smollm2",
    loading: Loaded = USUALLY,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Press a long text into a short prefix that answers questions about it in its place."""
    from foreword.compression.compress import DECODING, TEMPLATE
    from foreword.compression.compress import compress as do
    from foreword.compression.self_study import SelfStudy
    from foreword.methods.cartridge import Cartridge
    from foreword.tasks.generate import Generate

    began = time.monotonic()
    check_place_of_tensors(out)
    training = replace(TRAINING, epochs=epochs, batch_size=batch_size, seed=seed)
    training.check()
    decoding = replace(DECODING, max_new_tokens=max_new_tokens)
    found = do(
        loading.load(model),
        Cartridge(str(text), length, sink, rate, past_window=past_window),
        out,
        task=Generate(TEMPLATE if template is None else unescaped(template), decoding=decoding),
        study=SelfStudy(count=count, seed=seed),
        questions=questions,
        test=test,
        training=training,
        resume=resume,
        report=CommandTerminal("compressing", "questions"),
    )
    report: dict[str, Any] = {
        "out": str(out),
        **found.report.to_dict(),
        "seconds": round(time.monotonic() - began, 2),
    }
    if as_json:
        console.emit(report)
        return
    console.line(
        f"{out}: {report['tokens']} tokens in {length} positions ({report['ratio']:.1f} to 1); "
        f"{report['seconds']:.0f} s"
    )
    asked = report["questions"]
    console.line(
        f"learned from {counted(asked['train'], 'question')}; below, on "
        f"{counted(asked['test'], 'other')}"
    )
    console.out().print(comparison.cartridge(report))
