"""SetFit or FastFit on one set of rows: run by ``encoders.py`` with a Python that has them.

A job comes on stdin as JSON: system, model, train and test (rows of text and label), seed, threads
and the file ``out``, to which the rows that are right and the seconds of the training go.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def setfit(job: dict[str, Any]) -> tuple[int, float]:
    """Contrastive pairs through the whole encoder, then a logistic regression (arXiv:2209.11055).

    Settings are SetFit's own but for the pairs: five times two a row, since all take hours here.
    """
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(job["model"])
    rows = Dataset.from_list(job["train"])
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, num_iterations=5, seed=job["seed"], report_to="none"
        )
        began = time.monotonic()
        Trainer(model=model, args=arguments, train_dataset=rows).train()
        seconds = time.monotonic() - began
    predicted = model.predict([row["text"] for row in job["test"]])
    pairs = zip(predicted, job["test"], strict=True)
    return sum(str(label) == row["label"] for label, row in pairs), seconds


def fastfit(job: dict[str, Any]) -> tuple[int, float]:
    """Batch contrastive learning of texts and label names, token by token (arXiv:2404.12365).

    Settings are those of its own readme, but for half precision, which a CPU has not. It would
    fetch the code of its metric from the net; here it is given an accuracy.
    """
    import datasets
    from datasets import Dataset, DatasetDict

    datasets.load_metric = lambda *_, **__: Accuracy()
    from fastfit import FastFitTrainer

    rows = {name: Dataset.from_list(job[name]) for name in ("train", "test")}
    with tempfile.TemporaryDirectory() as scratch:
        trainer = FastFitTrainer(
            model_name_or_path=job["model"],
            label_column_name="label",
            text_column_name="text",
            num_train_epochs=40,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            max_text_length=128,
            dataloader_drop_last=False,
            num_repeats=4,
            optim="adafactor",
            clf_loss_factor=0.1,
            output_dir=scratch,
            overwrite_output_dir=True,
            seed=job["seed"],
            report_to="none",
            dataset=DatasetDict({**rows, "validation": rows["test"].select(range(8))}),
        )
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
        found = trainer.test()
        accuracy = next(value for name, value in found.items() if name.endswith("accuracy"))
    return round(accuracy * len(job["test"])), seconds


class Accuracy:
    """The metric that FastFit asks for."""

    def compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        """Return the share of predictions that are right."""
        pairs = list(zip(predictions, references, strict=True))
        return {"accuracy": sum(bool(a == b) for a, b in pairs) / len(pairs)}


SYSTEMS = {"setfit": setfit, "fastfit": fastfit}


def main() -> None:
    """Run the job, and write what came of it."""
    import torch

    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    right, seconds = SYSTEMS[job["system"]](job)
    made = {"right": right, "seconds": round(seconds, 1)}
    Path(job["out"]).write_text(json.dumps(made))


if __name__ == "__main__":
    main()
