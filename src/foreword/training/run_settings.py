"""What a run reads and writes, and which task, method and model it is of."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.config.settings import FILE, setting


@dataclass(frozen=True)
class RunSettings:
    """What a run reads and writes, and which task and method it is of, all by name."""

    train: str | None = setting(
        None,
        help="rows to train on: CSV, XLSX, JSONL, JSON, Parquet, a folder or a datasets id",
        panel="data",
        common=True,
        values=FILE,
    )
    dev: str | None = setting(
        None,
        help="rows to choose the best step by; else a tenth of the training rows",
        panel="data",
        common=True,
        values=FILE,
    )
    test: str | None = setting(
        None, help="rows to score at the end", panel="data", common=True, values=FILE
    )
    rows: int | None = setting(
        None, help="use the first N training rows after shuffling with the seed", panel="data"
    )
    per_label: int | None = setting(
        None, help="use N training rows of each label", panel="data", common=True
    )
    dev_rows: int | None = setting(
        None, help="use the first N dev rows after shuffling with the seed", panel="data"
    )
    columns: tuple[str, ...] | None = setting(
        None, help="name=column: read a field from another column", panel="data"
    )
    delimiter: str | None = setting(
        None,
        help="the sign between cells of a CSV file, or tab; else it is found",
        panel="data",
        values=("comma", "semicolon", "tab", "bar"),
    )
    encoding: str | None = setting(
        None,
        help="that of files that are not UTF-8, such as gb18030",
        panel="data",
        values=("gb18030", "big5", "shift_jis", "euc_kr", "cp1251"),
    )
    skip_bad: bool = setting(
        False,
        help="leave out rows that cannot be used, such as those with an empty field, and say which",
        panel="data",
    )
    task: str = setting("classify", help="what is learned", panel="task", common=True)
    model: str = setting(
        "smollm2",
        help="smollm2 (packaged), a folder, a .gguf file, or a hub id",
        panel="model",
        common=True,
        values=FILE,
    )
    architecture: str = setting(
        "auto",
        help="what the model is run as: auto (as its folder says), causal, masked, "
        "encoder-decoder, or encoder, which predicts no tokens",
        panel="model",
        values=("auto", "causal", "masked", "encoder-decoder", "encoder"),
    )
    pooling: str = setting(
        "auto",
        help="how an encoder's states become one: auto (as its folder says), mean, weightedmean "
        "(later tokens weigh more), cls or last",
        panel="model",
        values=("auto", "mean", "weightedmean", "cls", "last"),
    )
    method: str = setting(
        "auto",
        help="what is tuned; auto is the best for the labels and rows, such as prefix+head",
        panel="method",
        common=True,
    )
    preset: str | None = setting(
        None,
        help="settings that were measured together; those that are given win",
        panel="method",
        common=True,
    )
    dtype: str = setting(
        "auto",
        help="auto, float32, bfloat16 or float16",
        panel="model",
        values=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = setting(
        "auto",
        help="auto, cpu, cuda or mps",
        panel="model",
        values=("auto", "cpu", "cuda", "mps"),
    )
    quantize: str | None = setting(
        None,
        help="bfloat16, int8 or int4: smaller weights in the model's linear layers",
        panel="model",
        values=("bfloat16", "int8", "int4"),
    )
    threads: int | None = setting(None, help="threads of the CPU; else one a core", panel="model")
    shard: bool = setting(
        False,
        help="spread the layers over the processes of torchrun; each runs all rows",
        panel="model",
    )
    source: str | None = setting(
        None,
        help="the prompt file to continue training from; its task's settings stay",
        panel="continuing from a prompt",
        values=FILE,
    )
    replay: str | None = setting(
        None,
        help="with --from: rows of that prompt's task to mix into the batches",
        panel="continuing from a prompt",
        values=FILE,
    )
    replay_share: float = setting(
        0.2, help="fraction of an epoch's rows that are these", panel="continuing from a prompt"
    )
    old_test: str | None = setting(
        None,
        help="with --from: rows of that prompt's task, scored before and after",
        panel="continuing from a prompt",
        values=FILE,
    )
    out: str | None = setting(
        None, help="the prompt file to write", panel="output", common=True, values=FILE
    )
    report_to: tuple[str, ...] | None = setting(
        None,
        help="tensorboard, wandb, mlflow, trackio",
        panel="output",
        values=("tensorboard", "wandb", "mlflow", "trackio"),
    )
