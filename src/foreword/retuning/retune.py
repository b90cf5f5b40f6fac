"""Prompts made anew on another model: their settings and rows are those that their files name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.compose.catalogue import files_below
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.files import check_place, write_whole
from foreword.methods.base import Method
from foreword.metrics.paired import paired_difference
from foreword.metrics.resample import proportion
from foreword.prompt.file import read_file
from foreword.prompt.prompt import Prompt
from foreword.report.row_scores import row_scores
from foreword.reporter import Reporter, Reporters
from foreword.retuning.recorded import RecordedRows, recorded_method, recorded_sources
from foreword.retuning.remade import Remade, Retuned, Start
from foreword.terminal import usual_reporter
from foreword.training.checkpoint import path_for
from foreword.training.log import log_path
from foreword.training.started import started_from
from foreword.training.tune import tune_prompt

RECORD = "retune.jsonl"
"""The file in the new folder that says what became of each prompt."""

WORK = ".retune"
"""The folder in the new one that holds what is not finished."""


def retune(
    folder: str | Path,
    model: Backbone | str | Path,
    out: str | Path,
    *,
    train: Sequence[Rows] | str | Path = (),
    dev: Sequence[Rows] | str | Path = (),
    report: Reporter | None = None,
) -> Retuned:
    """Make each prompt of a folder anew on another model, and keep those that are not worse.

    A prompt is tuned by the settings in its file, on rows that have the hashes in its file: of the
    files that its log names, or of ``train`` and ``dev`` (one or several). It starts from the old
    numbers where they fit the new model. Both are scored on the same dev rows. A new prompt is
    written, under the same name in the folder ``out``, unless the mean score of a row is lower
    beyond chance (the 95% interval of the paired difference). A prompt of this very model is
    copied. Prompts that learned their dev rows as well (``refit``) are judged by the scores
    that they had before that.

    What cannot be made anew is named with its reason. The same call goes on where it was stopped.

    Raises UserError where the folder has no prompts, for a model or rows that cannot be read, and
    where ``out`` holds another prompt of the same name, which would be written over; Interrupted
    after Ctrl-C, when all that is done is kept.
    """
    folder, out = Path(folder), Path(out)
    report = usual_reporter() if report is None else report
    if out.resolve() == folder.resolve():
        raise UserError("`out` is the folder of the old prompts, which stay; name another one")
    files = files_below(folder)
    if folder.resolve() in out.resolve().parents:  # the new prompts are no old ones
        files = [file for file in files if out.resolve() not in file.resolve().parents]
    if not files:
        raise UserError(f"{folder}: holds no prompt files (*.safetensors), nor do folders below it")
    check_place(out / RECORD)
    given = [as_rows(each, report=report) for each in (*_several(train), *_several(dev))]
    backbone = backbone_of(model)
    record = _Record(out / RECORD, backbone.fingerprint)
    for file in files:
        record.check_free(str(file.relative_to(folder)), file)
    made = []
    for number, file in enumerate(files, 1):
        name = str(file.relative_to(folder))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if (known := record.find(name, digest)) is None:
            report.line(f"{name} ({number} of {len(files)})")
            try:
                known = _remake(file, name, backbone, out, given, report)
            except (UserError, MemoryError, torch.OutOfMemoryError) as error:
                short = isinstance(error, UserError)
                said = " ".join(str(error).split()) if short else "the memory was not enough"
                known = Remade(name, "failed", reason=said.removeprefix(f"{file}: "))
                report.line(f"{name}: failed: {known.reason}")
            record.add(digest, known)
        made.append(known)
    shutil.rmtree(out / WORK, ignore_errors=True)
    return Retuned(backbone.name, str(out), made)


def _several(given: Sequence[Rows] | str | Path) -> list[Any]:
    """Return several sources of rows as they are, and one as a list of it."""
    if isinstance(given, str | Path) or not isinstance(given, list | tuple):
        return [given]
    one = bool(given) and isinstance(given[0], Row | Mapping)
    return [given] if one else list(given)


class _Record:
    """What became of each prompt, as lines of a file: of which old file, and on which model."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        try:
            read = [json.loads(line) for line in lines]
            self.made = [(e["sha256"], e["model"], Remade(**e["prompt"])) for e in read]
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}: is no record of prompts made anew; remove it") from None

    def find(self, name: str, digest: str) -> Remade | None:
        """Return what became of a file, None where it is to be made, or failed before."""
        for sha256, model, made in reversed(self.made):
            same = (sha256, model) == (digest, self.fingerprint)
            if made.file == name and same and made.outcome != "failed":
                there = (self.path.parent / name).is_file()
                return made if there or made.outcome == "worse" else None
        return None

    def check_free(self, name: str, old: Path) -> None:
        """Raise UserError where a file of this name stands beside the record and is none of ours.

        It is ours where the record has it, and where a run was stopped before that: where it says
        itself that it was made anew, or is a copy of the ``old`` one.
        """
        target = self.path.parent / name
        written = {made.file for *_, made in self.made if made.outcome in ("kept", "same model")}
        if not target.exists() or name in written:
            return
        with suppress(UserError):
            if "retuned" in read_file(target).meta.get("data", {}):
                return
        if target.read_bytes() != old.read_bytes():
            raise UserError(
                f"{target}: is there already, and was not made anew; name another folder for `out`"
            )

    def add(self, digest: str, made: Remade) -> None:
        """Keep what became of a file."""
        self.made.append((digest, self.fingerprint, made))
        lines = [{"sha256": s, "model": m, "prompt": asdict(each)} for s, m, each in self.made]
        write_whole(self.path, "".join(json.dumps(each) + "\n" for each in lines).encode())


def _remake(
    file: Path,
    name: str,
    backbone: Backbone,
    out: Path,
    given: Sequence[Sequence[Row]],
    report: Reporter,
) -> Remade:
    """Make one prompt anew; raises UserError where that cannot be."""
    old = Prompt.load(file)
    if backbone.has_fingerprint(old.backbone["fingerprint"]):
        write_whole(out / name, file.read_bytes())
        _keep_log(file, out / name)
        return Remade(name, "same model")
    train, dev = RecordedRows(old).find(chain(given, recorded_sources(old, file)))
    work = out / WORK / backbone.fingerprint[-12:]
    new, start = _tuned(old, backbone, work, name, train, dev, report)
    judged = _judge(old, new, dev, report)
    made = replace(judged, file=name, start=start)
    if made.outcome == "kept":
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        new.save(out / name)
        _keep_log(work / start / name, out / name)
    return made


def _keep_log(old: Path, new: Path) -> None:
    """Keep the log of a prompt, where there is one, beside its new file: it names the rows."""
    if (log := log_path(old)).is_file():
        write_whole(log_path(new), log.read_bytes())


class _Within(Reporters):
    """Hears of a run within the hidden folder; lines that name files there are left out."""

    def line(self, text: str) -> None:
        """Pass on a line that is of the prompt."""
        if f"{WORK}/" not in text:
            super().line(text)


def _tuned(
    old: Prompt,
    backbone: Backbone,
    work: Path,
    name: str,
    train: list[Row],
    dev: list[Row],
    report: Reporter,
) -> tuple[Prompt, Start]:
    """Tune a prompt by its recorded settings, and say from what it started."""
    method, training = recorded_method(old)

    def tune(start: Start, method: Method) -> Prompt:
        target = work / start / name
        target.parent.mkdir(parents=True, exist_ok=True)
        new = tune_prompt(
            backbone,
            old.task,
            method,
            train,
            dev,
            training=training,
            out=target,
            resume=path_for(target).exists(),
            report=_Within([report]),
        )
        about = {**old.method, "trained": new.method["trained"]}
        about.pop("multitask", None)  # it is tuned alone
        about.pop("pruned", None)  # and nothing of it was dropped
        before = {"model": old.backbone["fingerprint"], "start": start}
        return replace(new, method=about, data={**new.data, "retuned": before})

    if (from_old := started_from(old, method, backbone, work / "starts" / name)) is not None:
        try:
            return tune("old", from_old), "old"
        except UserError as error:
            said = str(error).removeprefix(f"{work / 'starts' / name}: ")
            report.line(f"{name}: it starts as at first, not from the old prompt ({said})")
    return tune("own", method), "own"


def _judge(old: Prompt, new: Prompt, dev: Sequence[Row], report: Reporter) -> Remade:
    """Score both prompts on the same rows, and decide which one is kept."""
    if new.method["training"].get("refit") == "on":
        report.line("both prompts learned their dev rows; they are judged by what they had before")
        return _by_record(old, new, _recorded_interval(new))
    after = evaluate(new, dev, name="new", report=report)
    metric = after.headline
    try:
        before = evaluate(old, dev, name="old", report=report)
    except UserError as error:
        report.line(f"the old prompt is not scored again: {error}")
        return _by_record(old, new, after.intervals)
    scored, other = row_scores(after.rows), row_scores(before.rows)
    gain = paired_difference(scored.values, other.values)
    low, high = gain.bounds()
    return Remade(
        "",
        "worse" if high < 0 else "kept",
        metric,
        before.score,
        after.score,
        scored.name,
        round(gain.value, 2),
        low,
        high,
    )


def _recorded_interval(prompt: Prompt) -> dict[str, list[float]]:
    """Return the interval of an accuracy in a prompt's file; of another score there is none."""
    dev = prompt.scores["dev"]
    if "accuracy" not in dev:
        return {}
    right = round(dev["accuracy"] * dev["rows"] / 100)
    return {"accuracy": proportion(right, dev["rows"]).bounds()}


def _by_record(old: Prompt, new: Prompt, intervals: Mapping[str, Sequence[float]]) -> Remade:
    """Judge by the dev scores in the files, of which the old one's stands for its answers."""
    metric = next(name for name in new.scores["dev"] if name != "rows")
    before, after = old.scores.get("dev", {}).get(metric), new.scores["dev"][metric]
    if before is None:
        raise UserError(f"{old.where}: has no dev score to judge the new prompt by")
    least = intervals[metric][1] if metric in intervals else after
    return Remade("", "worse" if least < before else "kept", metric, before, after)
