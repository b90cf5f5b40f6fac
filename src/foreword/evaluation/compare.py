"""Comparison: methods on the same rows, each run in a separate process and recorded as it ends.

A run is one method with one seed. In a process of its own its peak memory can be measured, and a
run that crashes or is killed leaves the others alone. Every finished run is a line of a file, so
that the same comparison, started again, continues.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from foreword.backbone.backbone import Backbone
from foreword.config.values import hash_of
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.apart import call_apart
from foreword.evaluation.evaluate import evaluate, probe, score
from foreword.evaluation.evaluation import Evaluation
from foreword.evaluation.records import Record, append_record, ensure_folder, read_records
from foreword.evaluation.runs import Demonstrations, Probe, Run, Untrained
from foreword.files import write_whole
from foreword.injection import NOTHING
from foreword.reporter import SILENT, Reporter, duration
from foreword.tasks.base import Bound
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.terminal import Terminal
from foreword.training.interrupt import Interrupted
from foreword.training.tune import tune_prompt


def compare_runs(
    runs: Sequence[Run],
    out: str | Path,
    report: Reporter = SILENT,
    hears: Callable[[], Reporter] = Terminal,
) -> list[Record]:
    """Perform the runs that the file ``out`` lacks, and return the records of all runs.

    A record has ``method``, ``seed`` and ``settings``, and the results (see ``perform``), or
    ``error``, one line. Runs that failed are tried again. ``report`` gets a line about each run,
    with an estimate of the time left; ``hears`` makes what hears of each one in its own process.

    Raises UserError if ``out`` cannot be used, or for a mistake in what all methods share, such as
    a row; and KeyboardInterrupt after Ctrl-C, with a line about how to continue.
    """
    path = Path(out)
    kept = {record["key"]: record for record in read_records(path) if "error" not in record}
    abouts = {id(run.data): run.data.about() for run in runs}
    asked = []
    for run in runs:
        identity = run.identity(abouts[id(run.data)])
        asked.append({"key": hash_of(identity), **identity})
    found = [kept.get(each["key"]) for each in asked]
    done = sum(record is not None for record in found)
    if done:
        report.line(f"{path}: {done} of {len(runs)} runs are done already")
    for place, (run, identity) in enumerate(zip(runs, asked, strict=True)):
        if found[place] is not None:
            continue
        title = f"{run.name}, seed {run.training.seed}"
        report.line(f"{title}: run {done + 1} of {len(runs)}")
        began = time.monotonic()
        try:
            result = run_apart(run, ensure_folder(path), hears)
        except KeyboardInterrupt as error:  # or SIGTERM
            raise type(error)(
                f"stopped with {done} of {len(runs)} runs done; the same command goes on"
            ) from None
        if "unusable" in result:
            raise UserError(result["unusable"])
        record = {**identity, **result, "wall": round(time.monotonic() - began, 2)}
        append_record(path, record)
        found[place], done = record, done + 1
        said = record.get("error") or f"{record['headline']} {record['score']:.2f}"
        report.line(f"{title}: {said}{_time_left(found, [each.name for each in runs])}")
    return [record for record in found if record is not None]


def _time_left(found: Sequence[Record | None], names: Sequence[str]) -> str:
    """Estimate the time left from the finished runs, of the same method if there are any."""
    took: dict[str, list[float]] = {}
    for record in found:
        if record is not None and "error" not in record:
            took.setdefault(record["method"], []).append(record["wall"])
    every = [seconds for own in took.values() for seconds in own]
    coming = [name for name, record in zip(names, found, strict=True) if record is None]
    if not (coming and every):
        return ""
    left = sum(statistics.mean(took.get(name, every)) for name in coming)
    return f"; about {duration(left)} left"


# One run ---------------------------------------------------------------------------------------


class SharedError(UserError):
    """A mistake in what all methods share: the rows, the task, the model."""


def prepare_run(
    run: Run, report: Reporter = SILENT
) -> tuple[Backbone, Bound, list[Row], Sequence[Row] | None, list[Row]]:
    """Return the model, the task bound to it, and the training, dev and test rows, all checked.

    Raises SharedError for a mistake in any of these.
    """
    try:
        backbone = Backbone.load(
            run.model.name,
            architecture=run.model.architecture,
            pooling=run.model.pooling,
            dtype=run.model.dtype,
            device=run.model.device,
            quantize=run.model.quantize,
            report=report,
        )
        bound = run.task.complete(run.data.train, backbone).bind(backbone)
        rows = run.data.chosen(bound.task, run.training.seed)
        held = run.data.held(rows, bound.task, run.training.seed)
        for each in (rows, held or (), run.data.test):
            bound.check(each, answers=True)
    except UserError as error:
        raise SharedError(str(error)) from None
    return backbone, bound, rows, held, run.data.test


def perform(run: Run, folder: Path, report: Reporter = SILENT) -> Record:
    """Tune, save in ``folder`` to measure the size, and score; return the results.

    They are ``score`` and ``interval`` of the task's ``headline``, all ``scores``, ``parameters``
    (how many numbers are trained), ``bytes`` of the file, ``seconds`` of tuning, and ``peak_mib``,
    the peak memory of this process (on a GPU, of its tensors).
    """
    backbone, bound, rows, held, test = prepare_run(run, report)
    seed, task = run.training.seed, bound.task
    parameters, size, seconds = 0, 0, 0.0
    if isinstance(run.method, Probe):
        filled = bound.task.fill_from_rows(backbone, rows, seed).bind(backbone)
        scores = _probe(run, filled, rows, report)
        parameters = scores.plain["parameters"]
    elif isinstance(run.method, Untrained):
        bound, before = task.fill_from_rows(backbone, rows, seed).bind(backbone), ""
        if isinstance(run.method, Demonstrations):
            if backbone.is_encoder:
                raise UserError(f"{backbone.name} is an encoder, which reads no demonstrations")
            bound.check(rows, answers=True)
            shown = choose_demonstrations(bound, rows, run.method.shots, seed)
            before = "".join(map(bound.demonstration, shown))
        bare = bound.without_prompt()
        with report.bar("test rows", len(test)) as progress:
            scores = score(bare, test, NOTHING, before=before, seed=seed, progress=progress)
    else:
        began = time.monotonic()
        prompt = tune_prompt(
            backbone,
            task,
            run.method,
            rows,
            held,
            training=run.training,
            report=report,
        )
        seconds = time.monotonic() - began
        size = prompt.save(folder / "prompt.safetensors").stat().st_size
        parameters = prompt.method["trained"]
        scores = evaluate(prompt, test, train=rows, seed=seed, name="test rows", report=report)
    return {
        "headline": bound.headline,
        "score": scores.score,
        "interval": scores.intervals[bound.headline],
        "scores": scores.without_tables(),
        "parameters": parameters,
        "bytes": size,
        "seconds": round(seconds, 2),
        "peak_mib": round(_peak(backbone) / 2**20, 1),
    }


def _probe(run: Run, bound: Bound, rows: Sequence[Row], report: Reporter) -> Evaluation:
    if not isinstance(bound, LabelExamples):
        raise UserError("a probe predicts labels or numbers; leave `probe` out of the methods")
    return probe(bound, rows, run.data.test, run.training.seed, report)


def run_apart(run: Run, folder: Path, hears: Callable[[], Reporter] = Terminal) -> Record:
    """Perform a run in a separate process; return its results, or ``error``, one line."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compare.") as name:
        status = call_apart(_child, run, Path(name), hears, folder=Path(name))
        answer = Path(name) / "answer.json"
        if answer.exists():
            found: Record = json.loads(answer.read_text("utf-8"))
            return found
    if status == -signal.SIGKILL:
        return {"error": "its process was killed; most often the memory was not enough"}
    return {"error": f"its process ended early, with exit status {status}"}


def _child(run: Run, folder: Path, hears: Callable[[], Reporter]) -> None:
    try:
        result = perform(run, folder, hears())
    except UserError as error:
        why = "unusable" if isinstance(error, SharedError) else "error"
        result = {why: " ".join(str(error).splitlines())}
    except (Interrupted, KeyboardInterrupt):
        return
    except (MemoryError, torch.OutOfMemoryError):
        result = {"error": "the memory was not enough"}
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"a bug in Foreword, please report it ({type(error).__name__})"}
    write_whole(folder / "answer.json", json.dumps(result).encode())


def _peak(backbone: Backbone) -> int:
    """Return the peak memory of this process, in bytes."""
    if backbone.device.type == "cuda":
        return torch.cuda.max_memory_allocated(backbone.device)
    status = Path("/proc/self/status")  # ru_maxrss begins at what the parent held, on Linux
    if status.exists():
        line = next(n for n in status.read_text().splitlines() if n.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not everywhere

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
