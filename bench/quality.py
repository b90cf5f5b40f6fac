"""Time to quality: the seconds until a system first scores what PEFT's soft prompt scores at best.

    python bench/quality.py --sst2 train.jsonl dev.jsonl --banking77 train.jsonl dev.jsonl \\
        --tldr train.jsonl dev.jsonl

PEFT's soft prompt, prefix and LoRA, and Foreword's presets, train on the same rows of the same
frozen model. All that a user waits for is counted but the loading of the model and the scoring of
dev rows, which is Foreword's own for all of them. A whole run takes hours: each finished run of a
system is a line of ``--out``, and the same command goes on after the last of them.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
from cyclopts import App, CycloptsError, Parameter
from quality_foreword import ForewordRun, Presets, presets, system
from quality_peft import SYSTEMS, PeftRun
from quality_records import KEPT, Record, find, versions
from quality_report import NOTES, REFERENCE, best, race_tables, summary
from quality_tasks import RACES, Files, Race, Rows, rows_for
from quality_trace import Point, Run, trace

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import PACKAGED, open_source
from foreword.config.values import plain
from foreword.data.sample import digest
from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.evaluation.records import append_record, read_records
from foreword.reporter import Reporter

ASKED = (*SYSTEMS, "fast", "balanced", "best")
"""The systems that are run unless others are asked for."""

app = App(name="bench", help="Seconds to the same dev score.", version_flags=[])


class Saying(Reporter):
    """Says the lines of a run, and no more."""

    def line(self, text: str) -> None:
        console.say(text)


@dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    model: str
    threads: int
    scores: int
    files: Mapping[str, Files]
    presets: Presets


@app.default
def run(
    *,
    sst2: Annotated[Files | None, Parameter(help="rows with text and label: TRAIN DEV")] = None,
    banking77: Annotated[Files | None, Parameter(help="the same: TRAIN DEV")] = None,
    tldr: Annotated[Files | None, Parameter(help="prompt and completion: TRAIN DEV")] = None,
    systems: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, negative="", help=", ".join(ASKED)),
    ] = None,
    model: Annotated[str, Parameter(help="a name, a folder or a file")] = PACKAGED,
    epochs: Annotated[int | None, Parameter(help="of PEFT; else the task's: 5, 5, 2")] = None,
    rows: Annotated[int | None, Parameter(help="to train on; of each label in banking77")] = None,
    dev_rows: Annotated[int | None, Parameter(help="to score on")] = None,
    seeds: Annotated[int | None, Parameter(help="else the task's: 3, 1, 1")] = None,
    scores: Annotated[int, Parameter(help="dev scores an epoch")] = 4,
    threads: Annotated[int | None, Parameter(help="of the CPU; else torch's choice")] = None,
    preset_file: Annotated[
        Path | None, Parameter(name="--presets", help="JSON of presets; else Foreword's own")
    ] = None,
    out: Annotated[Path, Parameter(help="a line a run is added here")] = Path("out/quality.jsonl"),
    report_only: Annotated[bool, Parameter(negative="", help="run nothing")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Run what is not in the file yet, and report."""
    given = {"sst2": sst2, "banking77": banking77, "tldr": tldr}
    sizes = {"epochs": epochs, "rows": rows, "dev_rows": dev_rows, "seeds": seeds}
    changes: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    setting = Setting(
        model=model,
        threads=torch.get_num_threads() if threads is None else threads,
        scores=scores,
        files={name: files for name, files in given.items() if files is not None},
        presets=presets(preset_file),
    )
    for name, value in {**changes, "scores": scores, "threads": setting.threads}.items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if not report_only:
        torch.set_num_threads(setting.threads)
        _run_all(_chosen(systems, setting.presets), changes, setting, out)
    records = read_records(out, KEPT)
    if not records:
        raise UserError(f"{out}: holds no run; give rows, as in --sst2 TRAIN DEV")
    found = summary(records)
    if as_json:
        console.emit(found)
        return
    for table in race_tables(found):
        console.out().print(table)
        console.line("")
    for note in NOTES:
        console.line(note)


def _chosen(names: Sequence[str] | None, known: Presets) -> list[str]:
    """Return the systems asked for, else PEFT's and the presets; all of them are looked up."""
    asked = [name for given in names or ASKED for name in given.split(",")]
    for name in asked:
        if name not in (*SYSTEMS, *known):
            raise UserError(f"--systems {name}: unknown; {nearest(name, (*SYSTEMS, *known))}")
        if name not in SYSTEMS:
            system(name, known)  # which says what is wrong with it, before hours have passed
    return list(dict.fromkeys(asked))


def _order(setting: Setting, changes: Mapping[str, Any]) -> Iterator[tuple[Race, int]]:
    """Yield races and seeds: every race once, then further seeds; says which are left out."""
    races = []
    for race in RACES.values():
        if race.name in setting.files:
            races.append(replace(race, **changes))
        else:
            console.say(f"{race.name}: left out; give its rows with --{race.name} TRAIN DEV")
    for seed in range(max((race.seeds for race in races), default=0)):
        yield from ((race, seed) for race in races if seed < race.seeds)


def _run_all(
    systems: Sequence[str], changes: Mapping[str, Any], setting: Setting, out: Path
) -> None:
    """Run all that the file does not hold; what PEFT's soft prompt reaches comes first."""
    systems = sorted(systems, key=lambda name: name != REFERENCE)
    ahead = [(race, seed, name) for race, seed in _order(setting, changes) for name in systems]
    target: float | None = None
    for number, (race, seed, name) in enumerate(ahead):
        if name == systems[0]:
            target = None
        records = read_records(out, KEPT)
        where = f"{race.name}, {name}, seed {seed}"
        began = time.monotonic()
        backbone, attention, rows = _load(race, seed, setting)
        # PEFT's others are there to be timed; the presets run to their end.
        until = target if name in SYSTEMS else None
        asked = _asked(race, seed, name, rows, until, setting)
        record = find(records, asked)
        if record is None:
            left = _left(records, ahead[number:])
            console.say(f"{where}: run {number + 1} of {len(ahead)}{left}")
            made: Run
            if name in SYSTEMS:
                made = PeftRun(name, backbone, attention, race, rows, seed)
            else:
                chosen = system(name, setting.presets)
                made = ForewordRun(chosen, backbone, race, rows, seed, Saying())
            with closing(made):
                curve = trace(made, setting.scores, until, _Progress(where))
            wall = round(time.monotonic() - began, 1)
            record = {**asked, "curve": curve, "wall": wall, "steps": made.steps}
            append_record(out, {**record, "versions": versions()})
            del made
        else:
            console.say(f"{where}: is in {out} already")
        if name == REFERENCE:
            target = best([Point(*point) for point in record["curve"]])
        del backbone
        gc.collect()


def _load(race: Race, seed: int, setting: Setting) -> tuple[Backbone, str, Rows]:
    """Load a model that no run has touched, and the rows.

    The name of its own attention comes with it: a backbone sets the model to Foreword's.
    """
    source = open_source(setting.model, dtype="float32", device="cpu")
    if source.architecture != "causal":
        raise UserError(f"{setting.model}: is {source.architecture}; PEFT runs on causal models")
    attention: str = source.model.config._attn_implementation
    backbone = Backbone(source.model, source.tokenizer, architecture="causal", name=source.name)
    return backbone, attention, rows_for(race, setting.files[race.name], seed, backbone)


def _asked(
    race: Race, seed: int, name: str, rows: Rows, until: float | None, setting: Setting
) -> dict[str, Any]:
    """Return what tells a run from another: a record of the same is not run again."""
    common = plain(race)
    del common["seeds"]
    common.update(model=setting.model, threads=setting.threads, scores=setting.scores)
    common["dtype"] = "float32"
    own = SYSTEMS[name] if name in SYSTEMS else setting.presets[name]
    data = {"train": digest(rows.train), "dev": digest(rows.dev)}
    settings = {"common": common, "own": dict(own), "until": until, "data": data}
    return {"task": race.name, "system": name, "seed": seed, "settings": settings}


def _left(records: Sequence[Record], ahead: Sequence[tuple[Race, int, str]]) -> str:
    """Say how long the runs ahead take, as far as runs of the same kind tell; an upper bound."""
    times: dict[tuple[str, str], float] = {(r["task"], r["system"]): r["wall"] for r in records}
    if not times:
        return ""
    total = 0.0
    for race, _, name in ahead:
        same = [t for (task, _), t in times.items() if task == race.name]
        total += times.get((race.name, name), mean(same or times.values()))
    return f"; about {_minutes(total)} for all that are left"


class _Progress:
    """Says each score on standard error, and how long the run will still take."""

    def __init__(self, where: str) -> None:
        self.where, self.began = where, 0.0

    def __call__(self, point: Point, steps: int) -> None:
        left = ""
        if not point.step:
            self.began = time.monotonic()
        elif point.step < steps:
            each = (time.monotonic() - self.began) / point.step
            left = f"; at most {_minutes(each * (steps - point.step))} to go"
        console.say(
            f"{self.where}: step {point.step} of {steps}, "
            f"{point.score:.6g} after {point.seconds:.1f} s{left}"
        )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, 2 for a user's mistake, 130 where the user has stopped it."""
    # PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing.", FutureWarning)
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        command(*bound.args, **bound.kwargs)
    except (UserError, CycloptsError) as error:
        console.say(f"bench: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        console.say("bench: stopped; the same command goes on after the last finished run")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
