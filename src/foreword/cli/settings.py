"""Settings of a run: the fields of the configurations as flags, merged over a run file."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from cyclopts import Parameter

from foreword.backbone.decode import Decoding
from foreword.compare import UNTRAINED, Demonstrations, ZeroShot
from foreword.config import from_plain
from foreword.errors import UserError, nearest
from foreword.methods.continued import Continued
from foreword.methods.method import Method
from foreword.methods.registry import METHODS, kinds, together
from foreword.presets import PRESETS, settings_of
from foreword.tasks.generate import Generate
from foreword.tasks.registry import TASKS
from foreword.tasks.task import Task
from foreword.training import Training

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
    "template": 'a row as the model reads it: {field}, [mask], [soft:5], [soft:"text"]',
    "labels": "label or label=word,word ...; found in the rows where none are given",
    "label_field": "the field that holds the label",
    "low": "the lowest number of a score; else that of the rows",
    "high": "the highest number of a score; else that of the rows",
    "anchors": "number or word=number ...: the words that a score is read off",
    "completion_field": "the field that holds the completion",
    "max_length": "tokens of a row; longer ones are cut",
    "truncate": "the side that is cut",
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


def _fields() -> dict[str, Any]:
    found: dict[str, Any] = {name: kind for name, (kind, _) in RUN.items()}
    for config in (*TASKS.values(), Decoding, *METHODS.values(), Training):
        hints = typing.get_type_hints(config)
        for each in dataclasses.fields(config):
            if each.name != "decoding":
                found.setdefault(each.name, _flag_type(hints[each.name]))
    return found


def _flag(name: str) -> str:
    return f"--{RENAMED.get(name, name).replace('_', '-')}"


def _flags(called: str, without: typing.Collection[str] = ()) -> type:
    made: list[tuple[str, Any, Any]] = []
    for name, kind in _fields().items():
        if name in without:
            continue
        flag = _flag(name)
        several = get_origin(kind) is list
        about = Parameter(name=flag, help=HELP[name], consume_multiple=several, negative="")
        made.append((name, Annotated[kind | None, about], dataclasses.field(default=None)))
    kind = dataclasses.make_dataclass(called, made, frozen=True, kw_only=True)
    kind.__module__ = __name__  # else it seems to be a built-in one, which cyclopts leaves alone
    return kind


Flags = _flags("Flags")
"""All settings as flags; None where one is not given."""

CONTINUAL = ("source", "replay", "replay_share", "old_test")
"""What only a training that goes on from a prompt has."""

Shared = _flags("Shared", ("train", "method", "preset", "out", "report_to", "shard", *CONTINUAL))
"""The settings of a comparison that all its methods share, or those that have them."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's settings: the plain ones, and the configurations made of the rest."""

    plain: Mapping[str, Any]
    task: Task
    method: Method
    training: Training


def settings(flags: Any, file: Path | None) -> Settings:
    """Merge flags over a run file, and make the configurations.

    Raises UserError for a setting that is unknown, of the wrong type, or not one of the chosen
    method or task.
    """
    where = "settings" if file is None else f"settings ({file} and flags)"
    return settings_from(over_preset(merged(flags, file)), where)


def settings_from(given: dict[str, Any], where: str) -> Settings:
    """Make the configurations of settings by name; raises UserError as :func:`settings` does."""
    source = going_on(given)
    plain = {name: given.pop(name, default) for name, (_, default) in RUN.items()}
    task = task_from(_kind(TASKS, plain["task"], "task"), given, where)
    method = source or method_from(plain["method"], given, where)
    training_values = {f.name for f in dataclasses.fields(Training)}
    training = from_plain(
        Training, {k: given.pop(k) for k in list(given) if k in training_values}, where
    )
    if given:
        by = f"with method {plain['method']}" if source is None else "that goes on with --from"
        raise UserError(f"{_flag(next(iter(given)))} is no setting of task {plain['task']} {by}")
    return Settings(plain, task, method, training)


def going_on(given: dict[str, Any]) -> Continued | None:
    """Return what goes on from the prompt that ``--from`` names, None where it names none.

    The prompt's task settings are put under those that are given, where the task is of its kind.
    Raises UserError for flags that need ``--from``, or that it does without.
    """
    if given.get("source") is None:
        for name in CONTINUAL:
            if name in given:
                raise UserError(f"{_flag(name)} needs --from P: the prompt that is gone on from")
        return None
    for name in ("preset", "method"):
        if given.get(name) is not None:
            raise UserError(
                f"--{name} beside --from: what goes on keeps its method; to begin another method "
                "with the prompt give --start instead of --from"
            )
    if "replay_share" in given and given.get("replay") is None:
        raise UserError("--replay-share needs --replay F: the rows that are mixed in")
    made, task = Continued.of(given["source"], given.get("rate"))
    under = {name: value for name, value in task.items() if name not in ("name", "decoding")}
    under |= {n: v for n, v in task.get("decoding", {}).items() if n != "seed"}
    if given.setdefault("task", task["name"]) == task["name"]:
        for name, value in under.items():
            given.setdefault(name, value)
    return made


def method_from(name: str, given: dict[str, Any], where: str) -> Method:
    """Make a method, or several joined by +, of the settings that are its own.

    Takes them out of ``given``; those of several methods go to each that has them.
    """
    made: list[Method] = []
    taken: set[str] = set()
    for kind in kinds(name):
        own = dict(given)
        made.append(_take(kind, own, where))
        taken |= given.keys() - own.keys()
    for setting in taken:
        del given[setting]
    return together(made)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A comparison's settings: the plain ones, and the configurations made of the rest."""

    plain: Mapping[str, Any]
    task: Task
    methods: Mapping[str, Method | ZeroShot | Demonstrations]
    training: Training


def compared(flags: Any, names: typing.Sequence[str]) -> Compared:
    """Make the methods of a comparison; a setting goes to each of them that has it.

    Raises UserError for an unknown method, and for a setting that none of them has.
    """
    given = merged(flags, None)
    plain = {name: given.pop(name, default) for name, (_, default) in RUN.items()}
    task = task_from(_kind(TASKS, plain["task"], "task"), given, "settings")
    methods: dict[str, Method | ZeroShot | Demonstrations] = {}
    taken: set[str] = set()
    for name in names:
        own = dict(given)
        methods[name] = _comparable(name, own)
        taken |= given.keys() - own.keys()
    known = {f.name for f in dataclasses.fields(Training)}
    training = from_plain(Training, {k: v for k, v in given.items() if k in known}, "settings")
    for setting in given:
        if setting not in taken | known:
            raise UserError(
                f"{_flag(setting)} is no setting of task {plain['task']} with any of the methods "
                f"{', '.join(methods)}"
            )
    return Compared(plain, task, methods, training)


def _comparable(name: str, given: dict[str, Any]) -> Method | ZeroShot | Demonstrations:
    """Make what a comparison calls a method, taking its settings out of ``given``."""
    if name in UNTRAINED:
        made: ZeroShot | Demonstrations = _take(UNTRAINED[name], given, "settings")
        return made
    for part in name.split("+"):
        if part not in METHODS:
            known = [*UNTRAINED, *METHODS]
            raise UserError(f"--methods {name}: unknown '{part}'; {nearest(part, known)}")
    return method_from(name, given, "settings")


def over_preset(given: dict[str, Any]) -> dict[str, Any]:
    """Put the settings of a preset, where one is named, under those that are given."""
    if given.get("preset") is None:
        return given
    under = settings_of(given["preset"])
    if given.get("method", under["method"]) != under["method"]:
        raise UserError(
            f"--preset {given['preset']} is for method {under['method']}; "
            f"leave out --method {given['method']}, or the preset"
        )
    if "first_layer" in given:
        del under["upper"]
    return {**under, **given}


def merged(flags: Any, file: Path | None) -> dict[str, Any]:
    """Return the settings that are given: those of the run file, and over them the flags."""
    given = {} if file is None else read_run_file(file)
    for each in dataclasses.fields(flags):
        value = getattr(flags, each.name)
        if value is not None:
            given[each.name] = unescaped(value) if each.name in ESCAPED else value
    return given


ESCAPED = ("template", "start_text", "stop")


def unescaped(value: Any) -> Any:
    """Read the two signs \\n in a flag as a new line; a shell's quotes leave them as they are."""
    if isinstance(value, str):
        return value.replace("\\n", "\n")
    return [unescaped(each) for each in value]


def task_alone(flags: Any) -> tuple[dict[str, Any], Task]:
    """Make the task of a prompt that comes from elsewhere; return the plain settings with it."""
    given = merged(flags, None)
    for name in given.keys() & (RUN.keys() - {"model", "dtype", "device", "task", "out"}):
        raise UserError(f"{_flag(name)} is no setting of an import")
    plain = {name: given.pop(name, default) for name, (_, default) in RUN.items()}
    task = task_from(_kind(TASKS, plain["task"], "task"), given, "settings")
    given.pop("seed", None)  # of sampling, where the task samples
    if given:
        raise UserError(f"{_flag(next(iter(given)))} is no setting of task {plain['task']}")
    return plain, task


def task_from(kind: type[Task], given: dict[str, Any], where: str) -> Task:
    """Make a task of the settings that are its own, taking them out of ``given``."""
    if isinstance(given.get("labels"), list | tuple):
        given["labels"] = parse_labels(given["labels"])
    if isinstance(given.get("anchors"), list | tuple):
        given["anchors"] = parse_anchors(given["anchors"])
    if kind is Generate:
        seed = {"seed": given["seed"]} if "seed" in given else {}
        names = {f.name for f in dataclasses.fields(Decoding)} - {"seed"}
        decoding = {k: given.pop(k) for k in list(given) if k in names} | seed
        given["decoding"] = from_plain(Decoding, decoding, where)
    made: Task = _take(kind, given, where, shared=())
    return made


def parse_labels(words: typing.Sequence[str]) -> dict[str, Any]:
    """Read ``label`` or ``label=word,word`` ...; a word gets a space in front where it has none."""
    from foreword.tasks.verbalizer import words_of

    made: dict[str, Any] = {}
    for entry in words:
        if not isinstance(entry, str):
            raise UserError(f"labels hold {entry!r}, which is no text; put it in quotes")
        name, sign, given = entry.partition("=")
        if not name or (sign and not given):
            raise UserError(f"--labels {entry!r}: write label, or label=word,word")
        if name in made:
            raise UserError(f"--labels names '{name}' twice")
        own = given.split(",") if sign else [name]
        made[name] = [w if w.startswith(" ") else words_of(w) for w in own]
    return made


def parse_anchors(words: typing.Sequence[str]) -> dict[str, float]:
    """Read ``number`` or ``word=number`` ...; a word gets a space in front where it has none."""
    made: dict[str, float] = {}
    for entry in words:
        word, _, given = str(entry).rpartition("=")
        word = (word or given).strip()
        try:
            number = float(given)
        except ValueError:
            raise UserError(f"--anchors {entry!r}: write number, or word=number") from None
        if made.setdefault(f" {word}", number) != number:
            raise UserError(f"--anchors gives the word '{word}' two numbers; choose one")
    return made


def _take(kind: type[Any], given: dict[str, Any], where: str, shared: Any = ("rate",)) -> Any:
    """Make a configuration of its own settings; ``shared`` ones stay for the next."""
    names = {f.name for f in dataclasses.fields(kind)}
    own = {k: given.pop(k) for k in list(given) if k in names and k not in shared}
    decoding = own.pop("decoding", None)
    made = from_plain(kind, own, where)
    return made if decoding is None else dataclasses.replace(made, decoding=decoding)


def _kind(registry: Mapping[str, type[Any]], name: str, what: str) -> type[Any]:
    if name not in registry:
        raise UserError(f"--{what} {name}: unknown; {nearest(name, registry)}")
    return registry[name]


def read_run_file(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file of settings, named as the flags are (dashes or underscores)."""
    return named(read_mapping(path), str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or TOML file that is a mapping; raises UserError for any other."""
    try:
        text = path.read_text("utf-8")
        read = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(read, dict):
        raise UserError(f"{path}: a run file is a mapping of settings to values")
    return {str(key): value for key, value in read.items()}


def named(read: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings by their names in code; raises UserError for unknown ones and wrong types."""
    back = {flag: name for name, flag in RENAMED.items()}
    known = _fields()
    made = {}
    for key, value in read.items():
        name = key.replace("-", "_")
        name = back.get(name, name)
        if name not in known:
            raise UserError(f"{where}: unknown setting '{key}'; {nearest(key, known)}")
        made[name] = _number(value) if known[name] is float else value
    for name, (kind, _) in RUN.items():
        if name in made and not _is(made[name], kind):
            expected = {
                str: "text",
                int: "a whole number",
                float: "a number",
                bool: "true or false",
            }
            wanted = expected.get(kind, "a list of texts")
            raise UserError(f"{where}: setting '{name}' is {made[name]!r}, expected {wanted}")
    return made


def _number(value: Any) -> Any:
    """Read ``1e-3``, which YAML takes for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return type(value) is kind


def columns(given: typing.Sequence[str] | None) -> dict[str, str]:
    """Read ``field=column`` ...; raises UserError for entries of another form."""
    made = {}
    for entry in given or ():
        name, sign, column = entry.partition("=")
        if not (name and sign and column):
            raise UserError(f"--columns {entry!r}: write field=column")
        made[name] = column
    return made
