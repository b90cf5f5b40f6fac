"""Mutation test: how many small faults in the core the fast tests notice.

    python bench/mutants.py --out bench/mutants.jsonl

Draws mutants of the core's source by a seed (a comparison, an operator, a constant, a returned
value or a statement is changed) and tests each in a copy of the repository; the working tree stays
as it is: first by the test files that are likeliest to notice, then the survivors by all fast
tests that run the changed line, and what is left by the slow ones that do. Which tests run which
lines is found once, by coverage.py, and kept beside ``--out`` (to be deleted where tests have
changed). Each result is a line of ``--out``, and the same command goes on after the last of them.
Processes are forked from one that has imported torch.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutants_tests import ROOT, LinesRun, Only, copy_to, tests

SOURCE = Path("src/foreword")
LIKELY: dict[str, tuple[str, ...]] = {
    "backbone/attention": ("backbone/test_packing", "backbone/test_attention", "test_engine"),
    "backbone/run/layers": ("backbone/test_parts", "test_trunk"),
    "backbone/run/single_stack": ("test_engine", "backbone/test_packing", "backbone/test_families"),
    "backbone/run/encoder_decoder": ("backbone/test_families", "test_engine", "methods/test_deep"),
    "engine/lower_layers": ("test_trunk",),
    "engine/spill_file": ("test_trunk",),
    "engine/mixup": ("test_regularise",),
    "engine": ("test_engine", "test_trunk", "test_regularise"),
    "tasks/labels/verbalizer": ("tasks/test_classify", "tasks/test_labelling", "tasks/test_aids"),
    "metrics": ("metrics",),
    "training/loop": ("test_train", "test_resume", "test_regularise"),
    "training/step": ("test_train", "test_resume", "test_regularise"),
    "training/examples": ("test_train", "test_resume", "test_regularise"),
    "training/dev_score": ("test_train", "test_resume", "test_multitask"),
    "training/run_state": ("test_train", "test_resume", "test_multitask"),
    "prompt": ("test_prompt", "test_old_files", "compose/test_ensemble"),
}  # fmt: skip
"""The core, and the test files (below ``tests``) that are asked first."""

COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
COUNTED: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "//",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A piece of a file, from one offset to another in bytes, and what stands in its place."""

    file: str
    line: int
    kind: str
    start: int
    stop: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """The mutant as a line: it is known by this in the file of results."""
        before, after = " ".join(self.before.split()), " ".join(self.after.split())
        return f"{self.file}:{self.line}:{self.start} {before} -> {after}"

    def apply(self, folder: Path) -> None:
        path = folder / SOURCE / self.file
        source = path.read_bytes()
        assert source[self.start : self.stop].decode() == self.before
        path.write_bytes(source[: self.start] + self.after.encode() + source[self.stop :])


def changed(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the kinds of change of a node, and the code that each puts in its place."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARED:
            sign = COMPARED[type(op)]
            yield "comparison", f"({ast.unparse(left)} {sign} {ast.unparse(right)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COUNTED:
            sign = COUNTED[type(op)]
            yield "arithmetic", f"(({ast.unparse(left)}) {sign} ({ast.unparse(right)}))"
        case ast.BoolOp(op=op, values=values):
            joint = " or " if isinstance(op, ast.And) else " and "
            yield "boolean", "(" + joint.join(f"({ast.unparse(each)})" for each in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "boolean", f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield "constant", str(not value)
        case ast.Constant(value=int() | float() as value):
            yield "constant", str(value + 1)
        case ast.Return(value=ast.AST() as value) if not is_none(value):
            yield "return", "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "deleted statement", "pass"


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def visited(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree's nodes but for types, messages and decorators, which are no behaviour."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "msg", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and not checking:
                yield from visited(child)


def mutants_of(file: str) -> list[Mutant]:
    source = (ROOT / SOURCE / file).read_bytes()
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = []
    for node in visited(ast.parse(source)):
        for kind, after in changed(node):
            start = lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            stop = lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            before = source[start:stop].decode()
            found.append(Mutant(file, node.lineno, kind, start, stop, before, after))  # type: ignore[attr-defined]
    return found


def core() -> list[str]:
    files = sorted(path.relative_to(ROOT / SOURCE) for path in (ROOT / SOURCE).rglob("*.py"))
    return [str(file) for file in files if likely(str(file))]


def likely(file: str) -> tuple[str, ...]:
    """Return the test files of the longest entry of LIKELY that a file is of; () outside."""
    known = [key for key in LIKELY if file.startswith((f"{key}/", f"{key}.py"))]
    return LIKELY[max(known, key=len)] if known else ()


# Asking tests ---------------------------------------------------------------------------------


MARKED = {
    "fast": "not slow and not smollm2 and not vllm and not models",
    "slow": "(slow or smollm2) and not vllm and not models and not traced",
}
"""What pytest chooses for a stage."""


def lines_of(stage: str, out: Path) -> dict[str, dict[int, set[str]]]:
    """Return the tests of a stage that run each line of each file of the core, found only once."""
    from coverage import CoverageData

    path = out.with_suffix(f".{stage}.coverage")
    if not path.with_suffix(".json").exists():
        print(f"which lines the {stage} tests run: takes as long as they do", flush=True)
        with tempfile.TemporaryDirectory(prefix="lines-") as name:
            folder = Path(name)
            copy_to(folder)
            files = [folder / SOURCE / file for file in core()]
            plugin = LinesRun(path.resolve(), files)
            end, by = tests(folder, ["-m", MARKED[stage]], float("inf"), plugin)
        if end != "passed":
            print(f"without a mutant {by} fails too", flush=True)
    shared = json.loads(path.with_suffix(".json").read_text())
    data = CoverageData(str(path))
    data.read()
    found = {}
    for measured in data.measured_files():
        file = measured.rpartition(f"/{SOURCE}/")[2]
        found[file] = {
            line: {test for each in contexts for test in shared.get(each, [each])}
            for line, contexts in data.contexts_by_lineno(measured).items()
        }
    return found


def where_it_shows(mutant: Mutant) -> range:
    """Return the lines of which a test must run one to notice a mutant.

    They are those of its statement (of its head, where it holds others); of the whole function for
    its defaults, and of the whole file for what runs when that is imported.
    """
    tree = ast.parse((ROOT / SOURCE / mutant.file).read_bytes())
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= mutant.line <= (node.end_lineno or 0)
    ]
    inmost = around[-1]  # a walk comes to what is inside later
    stop = (inmost.end_lineno or 0) + 1
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    if not any(isinstance(node, functions) for node in around):
        return range(sys.maxsize)
    body = getattr(inmost, "body", None)
    if body and not isinstance(inmost, functions):
        stop = max(body[0].lineno, mutant.line + 1)
    return range(inmost.lineno, stop)


def chosen(mutant: Mutant) -> list[str]:
    """Return the likeliest test files."""
    name = Path(mutant.file)
    asked = [f"{name.parent}/test_{name.stem}", *likely(mutant.file)]
    paths = [Path("tests", each).with_suffix(suffix) for each in asked for suffix in ("", ".py")]
    return list(dict.fromkeys(str(path) for path in paths if (ROOT / path).exists()))


def ask(
    mutant: Mutant, stage: str, limit: float, lines: dict[str, dict[int, set[str]]]
) -> dict[str, object]:
    """Test a mutant. Where the likely tests do not end, they notice; all of them only run out."""
    began = time.monotonic()
    arguments, plugins = ["-x", *chosen(mutant)], []
    if stage != "likely":
        of_file = lines.get(mutant.file, {})
        reached = where_it_shows(mutant)
        names = set().union(*(tests for line, tests in of_file.items() if line in reached))
        files = sorted({name.partition("::")[0] for name in names})
        if not files:
            return {"stage": stage, "noticed": False, "end": "not run", "by": "", "seconds": 0.0}
        arguments, plugins = ["-x", "-m", MARKED[stage], *files], [Only(names)]
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy_to(folder)
        mutant.apply(folder)
        end, by = tests(folder, arguments, limit, *plugins)
    noticed = end == "failed" or (end == "late" and stage == "likely")
    seconds = round(time.monotonic() - began, 1)
    return {"stage": stage, "noticed": noticed, "end": end, "by": by, "seconds": seconds}


def main() -> None:
    """Draw mutants, test those that are not in the file, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path("bench/mutants.jsonl"))
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each set of tests")
    parser.add_argument("--stages", type=int, default=3, help="1: likely tests, 2: fast, 3: slow")
    parser.add_argument("--report", action="store_true", help="only print what is in the file")
    options = parser.parse_args()
    every = [mutant for file in core() for mutant in mutants_of(file)]
    drawn = random.Random(options.seed).sample(every, min(options.count, len(every)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done: dict[str, list[dict[str, object]]] = {}
    for line in lines:
        record = json.loads(line)
        done.setdefault(record.pop("mutant"), []).append(record)
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.dont_write_bytecode = True
    if not options.report:
        for name in ("torch", "transformers", "peft", "datasets", "coverage"):
            importlib.import_module(name)
    stages = [] if options.report else ["likely", "fast", "slow"][: options.stages]
    for stage in stages:
        lines = {} if stage == "likely" else lines_of(stage, options.out)
        for number, mutant in enumerate(drawn, 1):
            before = done.setdefault(mutant.name, [])
            if any(record["noticed"] or record["stage"] == stage for record in before):
                continue
            before.append(ask(mutant, stage, options.limit, lines))
            with options.out.open("a") as file:
                file.write(json.dumps({"mutant": mutant.name, **before[-1]}) + "\n")
            end = before[-1]["end"]
            print(f"{stage} {number}/{len(drawn)} {mutant.name}: {end}", flush=True)
    report({mutant.name: done.get(mutant.name, []) for mutant in drawn}, len(every))


def report(done: dict[str, list[dict[str, object]]], every: int) -> None:
    """Print how many were noticed by which tests, and those that no test has noticed."""
    noticed = Counter(str(r["stage"]) for each in done.values() for r in each if r["noticed"])
    asked = Counter(str(r["stage"]) for each in done.values() for r in each)
    print(f"{len(done)} of {every} mutants")
    for stage in asked:
        print(f"{stage} tests: {asked[stage]} asked of, {noticed[stage]} noticed")
    for name, each in done.items():
        if each and not any(record["noticed"] for record in each):
            print(f"not by {', '.join(str(record['stage']) for record in each)} tests: {name}")


if __name__ == "__main__":
    main()
