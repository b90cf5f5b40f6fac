"""What the README says is run: its commands and its Python, on fewer rows than it shows."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

import char_model
import foreword as fw
from chat_templates import chat_backbone, chat_tokenizer
from foreword.cli.main import run
from foreword.tasks.registry import TASKS
from toys import get

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FEWER = {
    "train": ["--rows", "40", "--dev-rows", "8", "--epochs", "1"],
    "eval": ["--rows", "8"],
    "compare": ["--rows", "16", "--test-rows", "8", "--dev-rows", "4", "--epochs", "1"],
}


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str = README) -> list[list[str]]:
    lines = "".join(blocks("sh", page)).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("foreword ")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_one_that_is_run() -> None:
    assert len(blocks("python")) == 2
    named = [command[0] for command in commands()]
    assert named == ["train", "eval", "predict", "info", "export", "train", "compare"]


@pytest.mark.smollm2
@pytest.mark.timeout(900)
def test_the_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        status = run([*command, *FEWER.get(command[0], []), "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)


@pytest.mark.timeout(900)
def test_the_chinese_readme(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in order, and its Python, on a tiny model that reads single characters."""
    page = (ROOT / "README.zh.md").read_text("utf-8")
    written = (ROOT / "examples" / "zh" / "train.jsonl").read_text("utf-8")
    model = char_model.save(here / "model", page + written)
    for command in commands(page):
        if "--model" in command:
            command[command.index("--model") + 1] = model
        status = run([*command, *FEWER.get(command[0], []), "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)
    assert len((here / "out" / "answers.csv").read_text("utf-8").splitlines()) == 81
    (code,) = blocks("python", page)
    fewer = 'head_start="logistic", epochs=1,'
    code = code.replace("./multilingual-e5-small", model).replace('head_start="logistic",', fewer)
    exec(compile(code, "README.zh.md", "exec"), {})
    known = {json.loads(line)["label"] for line in written.splitlines()}
    assert capsys.readouterr().out.splitlines()[-1] in known


@pytest.mark.smollm2
def test_a_prompt_is_tuned_by_hand(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = Path("examples/by_hand.py").read_text("utf-8")
    fewer = code.replace("EPOCHS, BATCH, RATE = 6, 8", "EPOCHS, BATCH, RATE = 2, 8")
    assert fewer != code
    (here / "by_hand.py").write_text(fewer, "utf-8")
    runpy.run_path("by_hand.py")
    shown = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\S+),", shown)]
    assert len(losses) == 2
    assert all(0 < loss < 2 for loss in losses)
    assert "6912 trained numbers" in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_several_tasks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in order, on a tiny model; and its run file is the example's."""
    page = (ROOT / "docs" / "multitask.md").read_text("utf-8")
    example = (ROOT / "examples" / "multitask" / "run.yaml").read_text("utf-8")
    assert blocks("yaml", page)[0] in example
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    quick = example.replace("\nepochs: 2\n", "\nepochs: 1\n")
    assert quick != example
    (here / "run.yaml").write_text(f"{quick}model: model\nper-label: 3\ndev-rows: 4\n")
    for command in commands(page):
        few = ["--rows", "20", "--dev-rows", "4", "--epochs", "1", "--model", "model"]
        if command[0] == "multitask":
            command[1], few = "run.yaml", []
        status = run([*command, *few, "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["labels", "templates"])
def test_the_pages_on_labels(here: Path, capsys: pytest.CaptureFixture[str], page: str) -> None:
    """Their commands in order, on a tiny model."""
    page = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    for command in commands(page):
        few = ["--dev-rows", "3", "--epochs", "1"] if command[0] == "train" else []
        few += ["--rows", "24"] if command[0] == "train" and "--train" in command else []
        status = run([*command, *few, "--model", "model", "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_long_texts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in order, on a tiny model and a text of as few words as its positions hold."""
    page = (ROOT / "docs" / "compress.md").read_text("utf-8")
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    (here / "manual.txt").write_text("the film was good and so it is fine " * 9, "utf-8")
    (here / "questions.jsonl").write_text('{"prompt": "it was", "completion": "good"}\n' * 12)
    fewer = {"--text": "manual.txt", "--test": "questions.jsonl", "--length": "8", "--epochs": "1"}
    for command in commands(page):
        if command[0] == "compress":
            for flag, value in fewer.items():
                command[command.index(flag) + 1] = value
            command += ["--questions", "questions.jsonl", "--max-new-tokens", "4"]
        status = run([*command, "--model", "model", "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in order, on a tiny model that writes few words."""
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    few = {
        "data": [],
        "train": ["--epochs", "1", "--model", "model"],
        "eval": ["--rows", "6"],
        "augment": ["--epochs", "1", "--max-new-tokens", "4"],
    }
    for command in commands(page):
        if command[0] == "augment":
            command[command.index("--count") + 1] = "2"
        elif "--input-window" in command:
            command += ["--rows", "60", "--dev-rows", "4"]
        status = run([*command, *few[command[0]], "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)
    assert (here / "out" / "few" / "test.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_texts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in order, on a tiny model."""
    page = (ROOT / "docs" / "texts.md").read_text("utf-8")
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    for command in commands(page):
        few = ["--epochs", "1", "--length", "2", "--max-new-tokens", "4"]
        if "rank" in command[-1]:
            few = few[:-2]
        status = run(
            [*command, *(few if command[0] == "train" else []), "--model", "model", "--json"]
        )
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert isinstance(json.loads(printed.out), dict)


def test_the_shop(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands in order, on a tiny model."""
    chat_backbone("qwen3").model.save_pretrained(here / "model")
    chat_tokenizer("qwen3").save_pretrained(here / "model")
    page = (ROOT / "examples" / "shop" / "README.md").read_text("utf-8")
    train, chat = commands(page)
    assert run([*train, "--model", "model", "--rows", "4", "--json"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("When are you open?\n"))
    assert run([*chat, "--model", "model", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out


WHO = ["user", "assistant"] * 2
SHAPES: dict[str, list[dict[str, object]]] = {
    "sst2": [{"text": "a good film", "label": "positive"}, {"text": "bad", "label": "negative"}],
    "stsb": [{"text_a": "a film", "text_b": "it", "label": n} for n in (0.5, 4.5)],
    "ud_ewt": [{"tokens": ["a", "film"], "tags": ["DET", "NOUN"]}],
    "semeval2010_task8": [
        {"text": "the film of it", "head": "film", "tail": "it", "label": f"Part-Whole({way})"}
        for way in ("e1,e2", "e2,e1")
    ],
    "e2e": [{"prompt": "name[A], area[B]", "completion": "A is in B", "references": ["A is in B"]}],
    "multi30k": [{"en": "a good film", "de": "ein guter Film"}],
    "scitldr": [{"prompt": "a film , it was good", "completion": "good", "references": ["good"]}],
    "squad_xquad": [{"context": "it was a film", "question": "what?", "answers": ["a film"]}],
    "sgd": [
        {"messages": [{"role": r, "content": t} for r, t in zip(WHO, said, strict=True)]}
        for said in (["hi", "hello", "a table", "for when?"], ["hi", "hello", "a taxi", "where?"])
    ],
}
"""Rows of the shapes that the page's data sets have, not theirs."""


def numbered(row: dict[str, object], number: int) -> dict[str, object]:
    return {
        field: f"{value} {number}" if field in ("text", "completion") else value
        for field, value in row.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_of_all_tasks(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands in order, on a tiny model and rows of the same shapes; no task is left out."""
    page = (ROOT / "docs" / "tasks.md").read_text("utf-8")
    get().model.save_pretrained(here / "model")
    get().text.tokenizer.save_pretrained(here / "model")
    for name, shapes in SHAPES.items():
        for part in ("train", "dev", "test", "zh_train", "zh_dev", "zh_test"):
            made = [numbered(row, n) for n in range(20) for row in shapes]
            (here / "D" / name).mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in made)
            (here / "D" / name / f"{part}.jsonl").write_text(lines)
            with gzip.open(here / "D" / name / f"{part}.jsonl.gz", "wt") as file:
                file.write(lines)
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    convert = importlib.import_module("rows").main
    lines = "".join(blocks("sh", page)).replace("\\\n", " ").replace("$D", "D").splitlines()
    sizes = {
        "train": {"--rows": "6", "--dev-rows": "2", "--epochs": "1", "--model": "model"},
        "eval": {"--rows": "2"},
        "augment": {"--count": "1", "--epochs": "1", "--max-new-tokens": "4"},
        "data": {"--per-label": "3"},
    }
    asked = set()
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["python"]:
            convert(words[2:])
        if words[:1] != ["foreword"]:
            continue
        command = words[1:]
        asked.add(command[command.index("--task") + 1] if "--task" in command else "classify")
        few = "out/few/train.jsonl" in command
        for flag, value in sizes[command[0]].items():
            if flag in command:
                command[command.index(flag) + 1] = value
            elif flag != "--per-label" and not (few and flag == "--rows"):
                command += [flag, value]
        status = run([*command, "--json"])
        printed = capsys.readouterr()
        assert status == 0, (line, printed.err)
        assert isinstance(json.loads(printed.out), dict)
    assert asked == set(TASKS)


@pytest.mark.smollm2
@pytest.mark.timeout(900)
def test_the_ten_lines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the README has them but for one epoch, and the same as the example's file."""
    source = blocks("python")[0]
    code = (ROOT / "examples" / "reviews.py").read_text("utf-8")
    assert source.strip() in code
    once = code.replace(
        'dev="examples/reviews/dev.jsonl",',
        'dev="examples/reviews/dev.jsonl", training=fw.Training(epochs=1),',
    )
    assert once != code
    script = here / "reviews.py"
    script.write_text(once, "utf-8")
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out in ("positive\n", "negative\n")
    assert (here / "out" / "reviews.safetensors").stat().st_size > 1000


def test_the_estimator_of_the_readme(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the README has it, on a tiny model."""
    model = char_model.save(here / "model")
    exec(blocks("python")[1].replace('"smollm2"', f'"{model}", epochs=1'), {})
    assert re.fullmatch(r"\[[\d. ]+\]\n", capsys.readouterr().out)
    found = fw.Prompt.load("out/reviews.safetensors").predict("a wonderful, heartfelt film")
    assert found in ("negative", "positive")


def test_the_rooms_of_the_architecture_are_those_of_the_house() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    (block,) = [each for each in blocks("", page) if each.startswith("errors, files")]
    named = re.findall(r"^(\w+(?:, \w+)*)/? {2,}\S", block, re.MULTILINE)
    paths = (ROOT / "src" / "foreword").glob("[!_]*")
    there = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for names in named for name in names.split(", ")} == there


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
