"""The writer: a prompt with which a model writes texts of a given label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from foreword.augmentation.rounds import Augment
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.data.sample import digest, hold_out
from foreword.engine.groups import buckets
from foreword.errors import UserError
from foreword.methods.base import Method
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.generate import Generate
from foreword.tasks.texts.generator import ROWS_TOKENS, Generator
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt

TEMPLATES = {True: "Label: {label}\nKeywords: {keywords}\nText:", False: "Label: {label}\nText:"}
"""What a writer reads, with keywords and without; by these a file of its prompt is known."""


def writer_task(settings: Augment) -> Generate:
    """Return the task of writing a text for a label."""
    return Generate(TEMPLATES[settings.keywords > 0], decoding=settings.decoding(0))


def write_texts(
    writer: Prompt, requests: Sequence[Row], decoding: Decoding, progress: Callable[[int], None]
) -> list[str]:
    """Sample a text for each request of a round; those that read alike get texts of their own."""
    bound = cast(Generator, writer.bound)
    inputs = bound.decoding_inputs(requests, writer.injection)
    texts = [""] * len(requests)
    sizes = [len(ids) + decoding.max_new_tokens for ids in inputs.ids]
    for group in buckets(sizes, ROWS_TOKENS):
        found = decode(
            bound.backbone,
            [inputs.ids[n] for n in group],
            inputs.injection.of_rows(group),
            decoding,
            lead=inputs.lead,
            seeds=[row_seed(decoding.seed, (n,)) for n in group],
        )
        for n, text in zip(group, found, strict=True):
            texts[n] = text
        progress(len(group))
    return texts


def tune_writer(
    backbone: Backbone,
    rows: Sequence[Row],
    path: Path,
    settings: Augment,
    method: Method,
    training: Training,
    resume: bool,
    report: Reporter,
) -> Prompt:
    """Tune the prompt that writes texts, or load it from ``path`` if it has the same settings.

    A tenth of each label's rows is held out to choose the best state. Raises UserError for a model
    that cannot write, and where ``path`` holds a prompt that is no writer's.
    """
    if not backbone.can_generate:
        raise UserError(f"{backbone.name} cannot write; give a model that can with `writer`")
    task = writer_task(settings)
    learned, held = hold_out(rows, 0.1, settings.seed, by="own")
    if path.exists():
        there = Prompt.load(path)
        if there.task.template not in TEMPLATES.values():
            raise UserError(
                f"{path}: is a prompt for another task, which the writer's would replace; move it, "
                "or name another `out`"
            )
        how = training.settled()
        made = {"name": name_of(method), **plain(method), "training": plain(how)}
        data = {name: there.data.get(name, {}).get("sha256") for name in ("train", "dev")}
        if (
            {**made, "trained": there.method.get("trained")} == there.method
            and data == {"train": digest(learned), "dev": digest(held)}
            and there.task == task
            and backbone.has_fingerprint(there.backbone["fingerprint"])
        ):
            report.line(f"{path}: is there already")
            return there.on_backbone(backbone)
    return tune_prompt(
        backbone,
        task,
        method,
        learned,
        held,
        training=training,
        out=path,
        resume=resume,
        report=report,
    )
