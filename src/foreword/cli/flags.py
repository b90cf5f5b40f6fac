"""Flags: the fields of all configurations as settings that a command takes."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter

from foreword.backbone.decode import Decoding
from foreword.methods.registry import METHODS
from foreword.tasks.registry import TASKS
from foreword.training.presets import PRESETS
from foreword.training.settings import Training

HELP = {
    "model": "smollm2 (packaged), a folder, a .gguf file, or a hub id",
    "dtype": "auto, float32, bfloat16 or float16",
    "device": "auto, cpu, cuda or mps",
    "shard": "spread the layers over the processes of torchrun; each runs all rows",
    "quantize": "int8 or int4: smaller weights in the model's linear layers",
    "task": f"{' or '.join(TASKS)}",
    "method": f"{' or '.join(METHODS)}",
    "preset": f"{', '.join(PRESETS)}: settings that were measured together; others win",
    "train": "rows to train on: JSONL, JSON, CSV, TSV, Parquet, a folder or a datasets id",
    "dev": "rows to choose the best checkpoint by; else a tenth of the training rows",
    "test": "rows to score at the end",
    "rows": "use the first N training rows after shuffling with the seed",
    "per_label": "use N training rows of each label",
    "dev_rows": "use the first N dev rows after shuffling with the seed",
    "columns": "name=column: read a field from another column",
    "out": "the prompt file to write",
    "source": "a prompt file to go on from, with its own tensors; its task's settings stay",
    "replay": "with --from: rows of that prompt's own task to mix into the batches",
    "replay_share": "the share of an epoch's rows that are these",
    "old_test": "with --from: rows of that prompt's own task, scored before and after",
    "report_to": "tensorboard, wandb, mlflow, trackio",
    "template": "a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ...",
    "labels": "label or label=word,word ...; or @FILE of many words; else found in the rows",
    "verbalizer": "search, autoprompt: found by the training rows; refine: of many, those it knows",
    "head_start": "what a head begins as: random, the label words, or prototypes of the classes",
    "calibration": "correct answers by those to blank rows: none, contextual or pmi",
    "shown": "a file of rows to stand there, instead of some of the training rows",
    "demos": "which rows stand at {demos:N}: balanced, random, or nearest to each row",
    "label_field": "the field that holds the label",
    "labels_field": "the field that holds the list of labels",
    "token_field": "the field that holds a sentence's words",
    "tag_field": "the field that holds the words' tags",
    "word_template": "what follows a sentence for each word: {left}{word}, [mask]",
    "text_field": "the field that holds the text",
    "head_field": "the field that names the head of a relation",
    "tail_field": "the field that names its tail",
    "none": "the label of rows without a relation, or without any of many labels",
    "thresholds": "label=probability ...: from where on a row has a label; else fitted on dev",
    "fit_thresholds": "one threshold for all labels, one for each, or none is fitted",
    "class_weights": "balanced: every label counts alike in the loss",
    "headline": "the score to choose by: accuracy, macro_f1 or mcc; micro_f1 of many labels",
    "low": "the lowest number of a score; else that of the rows",
    "high": "the highest number of a score; else that of the rows",
    "anchors": "number or word=number ...: the words that a score is read off",
    "completion_field": "the field that holds the completion",
    "source_field": "the field that is translated, or summarized",
    "target_field": "the field that holds the translation, or the summary",
    "language": "a language code, by which texts are cut into words for scores; else guessed",
    "stride": "tokens from one window of a long passage to the next",
    "negatives": "candidates drawn beside the answer, where rows have none of their own",
    "normalize": "a candidate's score: the mean or the sum over its tokens",
    "catalogue": "texts to choose from where rows have no candidates; else the rows' answers",
    "turns": "which of the assistant's turns are learned: last or all",
    "max_length": "tokens of a row; longer ones are cut",
    "truncate": "the side that is cut",
    "input_window": "read the first K tokens of each field alone",
    "loss": "over the labels, or over the whole vocabulary",
    "length": "virtual tokens",
    "first_layer": "the lowest layer that has a prefix",
    "upper": "the share of the layers, from the top, that have one",
    "start": "random, vocabulary, text, labels, demonstrations, a prompt, or a folder of prompts",
    "start_text": "the text of start 'text'",
    "shots": "demonstrations of that start, or of a context",
    "encoder": "what makes P-tuning's virtual tokens: lstm or mlp",
    "hidden": "its inner width",
    "attends": "where a deep prompt stands: encoder, decoder, cross; else in all there are",
    "text": "the text file that a cartridge begins as",
    "sink": "its first positions, which are not trained",
    "choice": "demonstrations of a context: balanced over the classes, random, or the first",
    "leave_one_out": "a training row does not see its own demonstration; =false turns it off",
    "token_dropout": "the chance of a context's position to be left out for a step",
    "reparameterize": "train the prefix through an MLP of this width",
    "gate": "weigh the prefix, adapters or updates by trained gates",
    "placement": "where adapters stand: houlsby, pfeiffer or parallel",
    "bottleneck": "inner width of an adapter, or of attempt's attention",
    "sources": "soft prompts of other tasks that attempt mixes: files, or folders of them",
    "activation": "relu, gelu, silu or tanh, inside an adapter",
    "scale": "what an adapter's output is multiplied by; else 4 for parallel, 1 for others",
    "rank": "rank of a LoRA update",
    "alpha": "a LoRA update is multiplied by alpha / rank",
    "rslora": "by alpha / sqrt(rank) instead",
    "targets": "linear layers that LoRA updates, by the ends of their names; else all but the last",
    "init": "how LoRA starts: kaiming, gaussian or orthogonal",
    "rate": "learning rate; else the method's own",
    "epochs": "passes over the training rows",
    "batch_size": "rows a step",
    "schedule": "linear, cosine, inverse-sqrt, plateau or constant: how the learning rate falls",
    "dropout": "leave out virtual tokens with this probability, anew in each step",
    "l2_start": "strength of an L2 penalty to where parameters started",
    "mixup": "mix rows two by two, by Beta(alpha, alpha)",
    "label_smoothing": "share of the target that is spread over all answers",
    "warmup": "share of the steps in which it rises",
    "weight_decay": "AdamW's weight decay",
    "clip": "largest norm of a gradient",
    "patience": "stop after so many evaluations that are no better",
    "seed": "decides rows, starts and order",
    "token_budget": "tokens a pass, with padding",
    "cache_gb": "gigabytes of lower layers' states in memory; more goes to a file",
    "compile": "fuse each layer's small operations: auto, on or off",
    "checkpointing": "recompute activations: less memory, more time",
    "max_new_tokens": "tokens of a completion at most",
    "beams": "beams of beam search; 1 is greedy",
    "temperature": "sample at this temperature; 0 takes the likeliest",
    "top_p": "sample among the likeliest tokens that hold this probability",
    "repetition_penalty": "above 1 discourages repeating",
    "stop": "texts that end a completion",
}
RENAMED = {"rate": "lr", "source": "from"}
RUN: dict[str, tuple[type, Any]] = {
    "model": (str, "smollm2"),
    "dtype": (str, "auto"),
    "device": (str, "auto"),
    "quantize": (str, None),
    "shard": (bool, False),
    "task": (str, "classify"),
    "method": (str, "prefix"),
    "preset": (str, None),
    "train": (str, None),
    "dev": (str, None),
    "test": (str, None),
    "rows": (int, None),
    "per_label": (int, None),
    "dev_rows": (int, None),
    "columns": (list[str], None),
    "out": (str, None),
    "report_to": (list[str], None),
    "source": (str, None),
    "replay": (str, None),
    "replay_share": (float, 0.2),
    "old_test": (str, None),
}
"""Settings that belong to no configuration, with their types and defaults."""


def _flag_type(hint: Any) -> Any:
    """Reduce a field's type to what one flag can say."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        return _flag_type(options[0])
    if get_origin(hint) is Literal or hint in (str, int, float, bool):
        return hint
    return list[str]


def fields() -> dict[str, Any]:
    """Return every setting with the type of its flag."""
    found: dict[str, Any] = {name: kind for name, (kind, _) in RUN.items()}
    for config in (*TASKS.values(), Decoding, *METHODS.values(), Training):
        hints = typing.get_type_hints(config)
        for each in dataclasses.fields(config):
            if each.name != "decoding":
                found.setdefault(each.name, _flag_type(hints[each.name]))
    return found


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{RENAMED.get(name, name).replace('_', '-')}"


def _flags(called: str, without: typing.Collection[str] = ()) -> type:
    made: list[tuple[str, Any, Any]] = []
    for name, kind in fields().items():
        if name in without:
            continue
        several = get_origin(kind) is list
        about = Parameter(name=flag(name), help=HELP[name], consume_multiple=several, negative="")
        made.append((name, Annotated[kind | None, about], dataclasses.field(default=None)))
    kind = dataclasses.make_dataclass(called, made, frozen=True, kw_only=True)
    kind.__module__ = __name__  # else it seems to be a built-in one, which cyclopts leaves alone
    return kind


Flags = _flags("Flags")
"""All settings as flags; None where one is not given."""

NO_FLAGS = Flags()

CONTINUAL = ("source", "replay", "replay_share", "old_test")
"""What only a training that goes on from a prompt has."""

Shared = _flags("Shared", ("train", "method", "preset", "out", "report_to", "shard", *CONTINUAL))
"""The settings of a comparison that all its methods share, or those that have them."""
