"""A prompt as an ONNX graph answers as the prompt does, by the scripts that are written with it."""

from __future__ import annotations

import errno
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from browser import browser, chromium
from chat_templates import chat_backbone
from composed import GENERATE, prompt
from foreword.backbone.example import behind
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export import onnx as exporting
from foreword.export.base import Verified
from foreword.export.onnx import Onnx
from foreword.export.onnx_recipe import ANSWER, PADDING
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.score import Score
from foreword.tasks.templates.layout import room_for

TEXTS = ["a good film", "it was", "", "  bad film and a good film :", "film 0123 it was it was"]
ROWS = [Row({"text": text}, f"F:{n}") for n, text in enumerate(TEXTS, 1)]
LABELS = {"good": (" good", " good film"), "bad": " bad", "fine": " it was a film"}


def written(tuned: Prompt, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write all of the folder but its graph."""
    monkeypatch.setattr(exporting, "write_graph", lambda *given, **how: given[-1].touch())
    return Onnx().write(tuned, folder)


def reading(folder: Path) -> Any:
    """Return the folder's own module that reads rows."""
    spec = spec_from_file_location("reading", folder / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reader(folder: Path) -> Callable[[Row], list[int]]:
    """Return the folder's own way from a row to token ids."""
    module = reading(folder)
    return lambda row: list(module.tokens(row.fields))


def laid_out(tuned: Prompt, row: Row) -> list[int]:
    """Return a row as Foreword reads it behind the prompt, with the answer's place where needed."""
    bound = tuned.bound
    assert isinstance(bound, Classifier)
    room = room_for(bound.backbone, tuned.injection)
    slots = bound.slot_tokens(row)
    filled = bound.lay_out(row, room, slots, ())
    example = bound.example(filled, slots, bound.verbalizer.everything)
    (found,) = behind([example], tuned.injection)
    ids = list(found.ids)
    if bound.backbone.fills_masks:
        ids.insert(found.slot, ANSWER)
    return ids


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("llama", "{text}\nMood:"),
        ("llama", "It said: {text} "),
        ("bert", "{text} it was [mask]."),
        ("bert", "[mask] : {text}"),
        ("t5", "{text} it was"),
        ("bert-encoder", "{text}"),
        ("qwen3-encoder", "film: {text}"),
    ],
)
def test_scripts_read_rows_as_foreword_does(
    name: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = prompt(Soft(length=2), name=name, task=Classify(template=template, labels=LABELS))
    tokens = reader(written(tuned, tmp_path / "p", monkeypatch))
    for row in ROWS if "film:" in template or "was" in template else ROWS[:2]:
        assert tokens(row) == laid_out(tuned, row)


def test_scripts_read_lines_and_numbers_as_foreword_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Classify(template="{text} it was", labels=LABELS)
    tuned = prompt(Soft(length=2), task=task)
    module = reading(written(tuned, tmp_path / "p", monkeypatch))
    for value in (5, 0.5, True):
        row = Row({"text": value}, "F:1")
        assert module.tokens(row.fields) == laid_out(tuned, row)
    lines = '\ufeff{"text": "a"}\n\n  \n{"text": "b"}\n[1]\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    monkeypatch.setattr("sys.argv", ["run.py"])
    rows = module.asked()
    assert [next(rows), next(rows)] == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(SystemExit, match=r"line 5 is no object in JSON; write one with \['text'\]"):
        next(rows)


@pytest.mark.parametrize("template", ["{text} :", "{text}", "[user]{text}[assistant]"])
@pytest.mark.parametrize("bos", [0, 1], ids=["", "begun"])
@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_scripts_begin_rows_as_foreword_does(
    name: str, bos: int, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that write the tokenizer's first token themselves, or nothing at all."""
    base = chat_backbone(name)
    first = base.text.first
    about = {"name": name, "architecture": "causal", "fingerprint": base.fingerprint}
    injection = Injection(embeds=base.embed((5, 6)).detach(), leading=2, bos=bos)
    task = Classify(template=template, labels={"good": "good", "bad": "bad"})
    tuned = Prompt(injection=injection, task=task, backbone=about, on=base)
    tokens = reader(written(tuned, tmp_path / "p", monkeypatch))
    for text in (*TEXTS, first, f"{first}film", f"{first}{first} it was"):
        row = Row({"text": text}, "row")
        assert tokens(row) == laid_out(tuned, row)


def test_a_row_that_is_too_long_or_has_no_text_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Classify(template="{text} :", labels=LABELS, max_length=6)
    tokens = reader(written(prompt(Soft(length=2), task=task), tmp_path / "p", monkeypatch))
    with pytest.raises(SystemExit, match=r"a row takes \d+ tokens, of at most 6; shorten it"):
        tokens(Row({"text": "it was a good film and a bad film"}, "row"))
    for other in ({"words": "it was"}, {"text": None}, {"text": ["it was"]}):
        with pytest.raises(SystemExit, match="a row has no text 'text'"):
            tokens(Row(other, "row"))


REFUSED: list[tuple[Task, str, str]] = [
    (Rank(template="{text} :"), "llama", "its task"),
    (Classify(template="{text} :", labels=LABELS, input_window=3), "llama", "input_window"),
    (Classify(template="{text} :", labels=LABELS), "bloom", "cannot share a pass"),
    (replace(GENERATE, template="{text}"), "t5", "encoder-decoder"),
]


@pytest.mark.parametrize(("task", "name", "said"), REFUSED)
def test_what_no_graph_is_made_of_is_refused(
    task: Task, name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        Onnx().write(prompt(Soft(length=2), name=name, task=task), tmp_path / "p")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'foreword\[onnx\]'"):
        Onnx().write(prompt(Soft(length=2)), tmp_path / "p")


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **how: Any) -> None:
        given[-1].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "write_graph", full)
    with pytest.raises(UserError, match="No space left on device"):
        Onnx().write(prompt(Soft(length=2)), tmp_path / "p")
    assert not list(tmp_path.iterdir())


# What is traced takes seconds each ---------------------------------------------------------------

HEADED = Several((Prefix(length=2), Head()))
TRACED: list[tuple[str, Method, Task | None]] = [
    ("llama", HEADED, None),
    ("llama", Soft(length=3), GENERATE),
    ("bert", Soft(length=3), None),
    ("t5", Prefix(length=3), None),
]
MORE: list[tuple[str, Method, Task | None]] = [
    ("llama", Prefix(length=3), None),
    ("llama", Lora(rank=2), None),
    ("llama", Soft(length=2), Classify("{text} :", LABELS, calibration="contextual")),
    ("llama", Soft(length=2), Multilabel("{text} :", {**LABELS, "none": " a"})),
    ("llama", Soft(length=2), Score("{text} :", anchors={"bad": 1.0, "good": 5.0})),
    ("llama", Prefix(length=3), GENERATE),
    ("gpt2", Soft(length=3), None),
    ("gemma2", Prefix(length=3), None),
    ("roberta", Prefix(length=3), None),
    ("bert", HEADED, None),
    ("bart", Soft(length=3), None),
    ("bert-encoder", HEADED, Classify("{text}", LABELS)),
    ("qwen3-encoder", Soft(length=2), Classify("{text}", LABELS)),
]
CASES = [*TRACED, *(pytest.param(*case, marks=pytest.mark.traced) for case in MORE)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method", "task"), CASES)
def test_a_graph_answers_as_the_prompt(
    name: str, method: Method, task: Task | None, tmp_path: Path
) -> None:
    tuned = prompt(method, name=name, task=task)
    found = Onnx().verify(tuned, Onnx().write(tuned, tmp_path / "p"), ROWS[:2])
    assert isinstance(found, Verified)
    assert found.equal == 1
    assert found.difference is None or found.difference < 1e-5


@pytest.mark.slow
def test_rows_of_other_lengths_side_by_side_change_nothing(tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    tuned = prompt(Prefix(length=3))
    folder = Onnx().write(tuned, tmp_path / "p")
    rows = [row for row in ROWS if row.fields["text"]]
    ids = [laid_out(tuned, row) for row in rows]
    longest = max(map(len, ids))
    padded = np.array([[*own, *[PADDING] * (longest - len(own))] for own in ids], np.int64)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {"input_ids": padded})
    expected = tuned.predict(rows, probabilities=True)
    assert found.shape == (len(rows), len(LABELS))
    for own, chances in zip(found, expected, strict=True):
        assert own == pytest.approx(list(chances.values()), abs=1e-5)


# In JavaScript -----------------------------------------------------------------------------------

NEEDED = ("onnxruntime-web", "@huggingface/tokenizers")


def modules() -> Path | None:
    """Return where npm has put what run.mjs and run.html need: beside the project, or above it."""
    places = [each / "node_modules" for each in Path(__file__).resolve().parents]
    return next((p for p in places if all((p / name).is_dir() for name in NEEDED)), None)


needs_npm = pytest.mark.skipif(modules() is None, reason=f"npm has not installed {NEEDED}")


@pytest.fixture(scope="module", params=["labels", "texts", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = request.param == "texts"
    tuned = prompt(Prefix(length=3), task=GENERATE if texts else None)
    path = tmp_path_factory.mktemp("onnx") / request.param
    Onnx(int8=request.param == "int8").write(tuned, path)
    found = modules()
    assert found is not None
    (path / "node_modules").symlink_to(found)
    return path


def answers(command: list[str], folder: Path) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(row.fields) + "\n" for row in ROWS)
    ran = subprocess.run(
        command, input=lines, cwd=folder, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def agree(one: dict[str, Any], other: dict[str, Any], within: float) -> bool:
    if "text" in one:
        return bool(one == other)
    chances = one["probabilities"]
    return bool(
        one["label"] == other["label"]
        and all(abs(chances[name] - other["probabilities"][name]) < within for name in chances)
    )


@pytest.mark.slow
@needs_npm
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node here")
def test_node_answers_as_python(folder: Path) -> None:
    within = 1e-2 if folder.name == "int8" else 1e-5
    python = answers([sys.executable, "run.py"], folder)
    node = answers(["node", "run.mjs"], folder)
    assert len(node) == len(ROWS)
    assert all(agree(a, b, within) for a, b in zip(python, node, strict=True))


@pytest.mark.slow
@needs_npm
@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_chromium_answers_as_python(folder: Path, tmp_path: Path) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browser(tmp_path) as tab:
            address = f"http://127.0.0.1:{server.server_address[1]}/run.html"
            tab.ask("Page.navigate", url=address)
            asked = json.dumps([dict(row.fields) for row in ROWS])
            waited = f"""(async () => {{
                while (typeof window.answer !== "function")
                    await new Promise((go) => setTimeout(go, 50));
                const found = [];
                for (const row of {asked}) found.push(await window.answer(row));
                return JSON.stringify(found);
            }})()"""
            found = tab.ask(
                "Runtime.evaluate", expression=waited, awaitPromise=True, returnByValue=True
            )
            assert "exceptionDetails" not in found, found
            shown = json.loads(found["result"]["value"])
    finally:
        server.shutdown()
        server.server_close()
    within = 1e-2 if folder.name == "int8" else 1e-5
    python = answers([sys.executable, "run.py"], folder)
    assert all(agree(a, b, within) for a, b in zip(python, shown, strict=True))
