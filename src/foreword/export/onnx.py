"""ONNX: a prompt with its model as one graph, and scripts that answer with it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import torch

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.engine.groups import share
from foreword.export.base import NotVerified, Verified
from foreword.export.onnx_file import GRAPH, WEIGHTS, need, write_graph
from foreword.export.onnx_labels import label_graph
from foreword.export.onnx_recipe import (
    ANSWER,
    PADDING,
    cannot,
    labels_of,
    reading_of,
    texts_of,
)
from foreword.export.onnx_texts import TextGraph
from foreword.files import folder_written_whole
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.score import Anchors
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import Generator

Answers = Sequence[Mapping[str, Any]]

SCRIPTS = ("reading.py", "prompt.mjs", "run.mjs", "run.html")


@dataclass(frozen=True)
class Onnx:
    """A folder with a graph of the model and the prompt, its tokenizer, and scripts that run it."""

    int8: bool = setting(False, help="weights as whole numbers of 8 bits: a quarter of the size")

    suffix: ClassVar[str] = ""

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write the folder: the graph, tokenizer.json, prompt.json, and scripts that answer.

        Raises UserError for tasks, templates and models that no graph is made of.
        """
        need("onnx", "onnxscript", *(["onnxruntime"] if self.int8 else []))
        bound, injection = prompt.bound, prompt.injection
        if not isinstance(bound, Classifier | Generator):
            raise cannot("its task is none of labels or of texts that are written")
        recipe = labels_of(bound) if isinstance(bound, Classifier) else texts_of(bound)
        backbone = bound.backbone
        _check(backbone)
        behind, room = backbone.is_causal and bool(injection.bos), room_for(backbone, injection)
        longest = _longest(bound)
        most = bound.limit(room - (longest if isinstance(bound, Classifier) else 0))
        if backbone.is_causal and backbone.window is not None:
            most = min(most, backbone.window - longest - injection.leading)
        layout = reading_of(bound, most, behind)
        injection = _folded(backbone, injection, most + longest)
        kind = "labels" if isinstance(bound, Classifier) else "texts"
        with folder_written_whole(path) as folder:
            past: list[tuple[int, int]] = []
            if isinstance(bound, Classifier):
                self._labels(bound, injection, prompt.injection, folder)
            else:
                past = self._texts(bound, injection, folder)
            beside = [WEIGHTS] if (folder / WEIGHTS).exists() else []
            about = {"kind": kind, **layout, **recipe, "past": past, "external": beside}
            text = json.dumps(about, ensure_ascii=False, indent=1)
            (folder / "prompt.json").write_text(text, "utf-8")
            _write_tokenizer(backbone, folder)
            sources = resources.files("foreword.export") / "onnx_folder"
            for name in SCRIPTS:
                (folder / name).write_bytes((sources / name).read_bytes())
            (folder / "run.py").write_bytes((sources / f"run_{kind}.py").read_bytes())
        return path

    def _labels(
        self, bound: Classifier, injection: Injection, whole: Injection, folder: Path
    ) -> None:
        graph = label_graph(bound, injection, bound.blank_scores(whole))
        ids = torch.tensor([[3, 4, 5, 6, 7], [4, 3, 5, 6, PADDING]])
        if bound.backbone.fills_masks:
            ids[0, 2] = ids[1, 3] = ANSWER
        given = [("input_ids", ids, (0, 1))]
        output = "score" if isinstance(bound.labelling, Anchors) else "probabilities"
        write_graph(graph, given, [], [output], folder / GRAPH, int8=self.int8)

    def _texts(self, bound: Generator, injection: Injection, folder: Path) -> list[tuple[int, int]]:
        if injection.leading:
            raise cannot("its virtual tokens cannot be read ahead on this model; tune a prefix")
        graph = TextGraph(bound.backbone, injection)
        past = [
            (f"past.{name}", torch.randn(2, heads, 3, width))
            for name, (heads, width) in zip(graph.names, graph.shapes, strict=True)
        ]
        ids = torch.tensor([[3, 4, 5, 6], [4, 3, 5, 6]])
        outputs = ["logits", *(f"present.{name}" for name in graph.names)]
        given = [("input_ids", ids, (0, 1))]
        write_graph(graph, given, past, outputs, folder / GRAPH, int8=self.int8)
        return graph.shapes

    def opened(self, prompt: Prompt, path: Path) -> str:
        """Return the command that answers with what was written."""
        asked = '"a text"' if len(prompt.bound.fields) == 1 else "< rows.jsonl"
        return f"python {shlex.quote(str(path / 'run.py'))} {asked}"

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> Verified | NotVerified:
        """Answer rows with the folder's own run.py, in a process of its own, and with the prompt.

        Rows that are too long for the graph are left out.
        """
        try:
            import onnxruntime
        except ImportError:
            return NotVerified("onnxruntime is not installed: pip install 'foreword[onnx]'")
        bound = prompt.bound
        own = prompt if isinstance(bound, Classifier) else greedy(prompt)
        answers = zip(rows, own.answers(rows), strict=True)
        whole = [(row, answer) for row, answer in answers if not answer["cut"]]
        if not whole:
            return NotVerified("all rows are longer than the graph reads; give shorter ones")
        rows, expected = [row for row, _ in whole], [answer for _, answer in whole]
        given = [{name: str(row.fields[name]) for name in bound.fields} for row in rows]
        lines = "".join(json.dumps(row) + "\n" for row in given)
        command = [sys.executable, "-B", str(path / "run.py")]  # which leaves nothing beside it
        ran = subprocess.run(command, input=lines, capture_output=True, text=True)
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or ["no reason is given"]
            return NotVerified(f"run.py ended with {said[-1]}")
        found = [json.loads(line) for line in ran.stdout.split("\n") if line]
        same = sum(_same(a, b, bound.answer) for a, b in zip(found, expected, strict=True))
        name = f"ONNX Runtime {onnxruntime.__version__}"
        return Verified(name, len(rows), same / len(rows), _apart(found, expected))


def greedy(prompt: Prompt) -> Prompt:
    """Return a prompt of texts that writes as the graph's scripts do, greedily."""
    return prompt.decoding(beams=1, temperature=0.0, repetition_penalty=1.0)


def _check(backbone: Backbone) -> None:
    """Raise UserError for a model that cannot be traced, or not as it is opened."""
    if backbone.dtype != torch.float32 or backbone.device.type != "cpu" or backbone.quantized:
        raise cannot("its model is not open in float32 on a CPU; open it so")
    if backbone.is_causal and not (backbone.sites and backbone.can_pack):
        raise cannot(f"rows of {type(backbone.model).__name__} cannot share a pass with words")
    if not backbone.can_pad:
        raise cannot(f"rows of {type(backbone.model).__name__} see the padding beside them")


def _longest(bound: Classifier | Generator) -> int:
    """Return how many tokens may follow a row."""
    if isinstance(bound, Generator):
        return bound.decoding("").max_new_tokens
    return max(map(len, bound.verbalizer.everything.branches), default=0)


def _folded(backbone: Backbone, injection: Injection, longest: int) -> Injection:
    """Return an injection with its leading virtual tokens read, where that is exact."""
    with torch.no_grad():
        read = share(backbone.with_changes(injection), injection, (), longest).injection
    assert isinstance(read, Injection)
    return read


def _write_tokenizer(backbone: Backbone, folder: Path) -> None:
    """Write tokenizer.json, without the truncation and padding of rows that it may hold."""
    inner = json.loads(backbone.text.tokenizer.backend_tokenizer.to_str())
    inner |= {"truncation": None, "padding": None}
    text = json.dumps(inner, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, "utf-8")


def _same(one: Mapping[str, Any], other: Mapping[str, Any], answer: str) -> bool:
    if isinstance(one[answer], float):
        return bool(abs(one[answer] - other[answer]) < 1e-4)
    return bool(one[answer] == other[answer])


def _apart(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> float | None:
    pairs = zip(found, expected, strict=True)
    return max(
        (
            abs(a["probabilities"][name] - chance)
            for a, b in pairs
            for name, chance in b.get("probabilities", {}).items()
        ),
        default=None,
    )
