"""Tasks of texts, and rankings, through the command line; and the examples of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.prompt.prompt import Prompt
from foreword.tasks.rank import Rank
from quick import first

Cli = Callable[..., Any]
ROOT = Path(__file__).parent.parent.parent
SCORES = {
    "generate": {"bleu", "chrf", "rouge_l", "exact_match"},
    "translate": {"bleu", "chrf"},
    "summarize": {"rouge_1", "rouge_2", "rouge_l"},
    "answer": {"exact_match", "f1"},
    "chat": {"bleu", "chrf", "rouge_l"},
    "rank": {"hit_1", "hit_3", "ndcg_10", "mrr"},
}
TALK = [{"role": "user", "content": "good film?"}, {"role": "assistant", "content": "bad"}]
ROWS: dict[str, dict[str, Any]] = {
    "generate": {"prompt": "a film", "completion": "it was good"},
    "translate": {"prompt": "a film", "completion": "it was good"},
    "summarize": {"text": "a film and a film", "summary": "a film"},
    "answer": {"context": "it was bad and good", "question": "a film", "answers": ["bad"]},
    "chat": {"messages": TALK},
    "rank": {"history": ["it", "was"], "candidates": ["a film", "bad"], "answer": "bad"},
}


@pytest.mark.parametrize("task", SCORES)
def test_an_example_goes_from_its_rows_to_its_scores(
    task: str, world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    run = f"examples/{task}/run.yaml"
    few = ["--model", world.path("model"), "--epochs", "1", "--length", "2"]
    if task != "rank":
        few += ["--max-new-tokens", "4"]
    made = cli("train", "--config", run, *few, "--json")
    assert made.status == 0, made.err
    out = f"out/{task}.safetensors"
    dev = f"examples/{task}/dev.jsonl"
    scored = cli("eval", out, "--data", dev, "--baselines", "--json")
    assert scored.status == 0, scored.err
    for found in (scored.json, *scored.json["baselines"].values()):
        assert set(found["intervals"]) == SCORES[task]
        assert found["rows"] == 4
    assert scored.json["baselines"].keys() == {"zero-shot", "demonstrations"}
    shown = cli("eval", out, "--data", dev, "--baselines")
    assert shown.status == 0, shown.err
    assert max(map(len, shown.out.splitlines())) <= 80
    assert ("BLEU" in shown.out or "bleu" in shown.out) == ("bleu" in SCORES[task])
    answered = cli("predict", out, "--data", dev, "--json").json["predictions"]
    if task == "rank":
        assert "sample" not in made.json
    else:
        assert made.json["sample"].keys() >= {"row", "answer", "right answer"}
        assert made.json["sample"]["answer"] == answered[0]["answer"]
    assert len(answered) == 4
    assert all(("ranking" if task == "rank" else "answer") in each for each in answered)


METHODS = ["soft", "ptuning", "prefix", "deep", "adapter", "lora", "full"]
LEARNED = [(task, "soft", "model") for task in SCORES]  # every task and every method,
LEARNED += [("generate", method, "model") for method in METHODS[1:]]  # and then each with each
PAIRS = ((t, how, on) for t in SCORES for how in METHODS for on in ("model", "seq2seq"))
LEARNED += [case for case in PAIRS if case not in LEARNED]


@pytest.mark.parametrize(
    ("task", "method", "model"), first(len(SCORES) + len(METHODS) - 1, LEARNED)
)
def test_every_method_learns_every_task(
    task: str, method: str, model: str, world: Any, seq2seq: Path, cli: Cli, tmp_path: Path
) -> None:
    rows = tmp_path / "t.jsonl"
    rows.write_text(2 * (json.dumps(ROWS[task]) + "\n"), "utf-8")
    flags = ["--task", task, "--method", method, "--epochs", "1", "--train", rows, "--dev", rows]
    flags += ["--start", "random"] if method in ("soft", "prefix", "deep") else []
    flags += ["--max-new-tokens", "4"] if task != "rank" else []
    folder = world.path("model") if model == "model" else seq2seq
    made = cli("train", "--model", folder, *flags, "--out", tmp_path / "p.safetensors", "--json")
    assert made.status == 0, made.err
    assert made.json["dev"]["rows"] == 2


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import save_model

    return save_model(tmp_path_factory.mktemp("seq2seq") / "t5", "t5")


def with_field(task: str, **changed: Any) -> list[dict[str, Any]]:
    row = {**ROWS[task], **changed}
    return [ROWS[task], {name: value for name, value in row.items() if value is not None}]


@pytest.mark.parametrize(
    ("task", "rows", "flags", "parts"),
    [
        ("answer", with_field("answer", answers=["good film"]), (), ["t.jsonl:2: the answer 'g"]),
        ("answer", with_field("answer", context=" "), (), ['t.jsonl:2: field "context" is empty']),
        ("answer", with_field("answer", question=None), (), ["t.jsonl:2:", "'question'"]),
        ("answer", [ROWS["answer"]] * 2, ("--stride", "0"), ["--stride 0", "1 or more"]),
        ("answer", [ROWS["answer"]] * 2, ("--method", "head"), ["--method head", "no classes"]),
        ("answer", with_field("answer", answers=None), (), ["t.jsonl:2: missing field 'answers'"]),
        ("answer", [ROWS["answer"]] * 2, ("--language", "Chinese"), ["--language Chinese: give a"]),
        ("chat", with_field("chat", messages=[{"role": "bot", "content": ""}]), (), ["t.jsonl:2:"]),
        (
            "chat",
            with_field("chat", messages=[{"role": "user", "content": " "}, TALK[1]]),
            (),
            ['t.jsonl:2: field "messages[0].content" is empty'],
        ),
        ("chat", with_field("chat", messages=TALK[:1]), (), ["t.jsonl:2:", "ends with 'user'"]),
        ("chat", [ROWS["chat"]] * 2, ("--turns", "al"), ["al", "--turns"]),
        ("chat", [ROWS["generate"]] * 2, (), ["t.jsonl:1:", "messages"]),
        ("rank", with_field("rank", answer="c"), (), ["t.jsonl:2: the answer 'c' is not among"]),
        ("rank", with_field("rank", candidates=["bad"]), (), ["t.jsonl:2: 1 candidate to"]),
        ("rank", with_field("rank", candidates=["bad"] * 2), (), ["t.jsonl:2: the candidate 'b"]),
        ("rank", with_field("rank", answer=[]), (), ['t.jsonl:2: field "answer" is an empty list']),
        (
            "rank",
            with_field("rank", candidates=["bad", "\ud83d"]),
            (),
            ['t.jsonl:2: field "candidates[1]" holds half a character'],
        ),
        ("rank", with_field("rank", candidates=None), (), ["t.jsonl:2: missing field 'cand"]),
        ("rank", [ROWS["rank"]] * 2, ("--normalize", "max"), ["max", "--normalize"]),
        ("rank", [ROWS["rank"]] * 2, ("--method", "head"), ["--method head", "no classes"]),
        (
            "translate",
            [{"en": "a film", "de": "it"}] * 2,
            ("--source-field", "en"),
            ["t.jsonl:1: which field is read", "--target-field"],
        ),
        (
            "translate",
            [{"en": "a film", "de": "it"}, {"en": "a film"}],
            ("--source-field", "en", "--target-field", "de"),
            ["t.jsonl:2: missing field 'de'"],
        ),
        (
            "translate",
            [{"en": "a film", "de": "it"}] * 2,
            ("--source-field", "eng", "--target-field", "de"),
            ["t.jsonl:1:", "eng"],
        ),
        (
            "summarize",
            with_field("summarize", references="a film"),
            (),
            ['t.jsonl:2: field "references" is text, expected a list of texts'],
        ),
        (
            "summarize",
            with_field("summarize", references=[]),
            (),
            ['t.jsonl:2: field "references" is an empty list'],
        ),
        (
            "summarize",
            with_field("summarize", references=["a film", " "]),
            (),
            ['t.jsonl:2: field "references[1]" is empty'],
        ),
        (
            "summarize",
            [ROWS["summarize"]] * 2,
            ("--source-field", "text", "--target-field", "text"),
            ["--source-field and --target-field are both 'text'"],
        ),
        ("translate", [ROWS["translate"]] * 2, ("--language", "germn"), ["--language germn: give"]),
        ("summarize", with_field("summarize", summary=" "), (), ['t.jsonl:2: field "summary" is']),
        ("summarize", [{"body": "it"}] * 2, (), ["t.jsonl:1: which field is read", "body"]),
    ],
)
def test_mistakes_are_named(
    task: str,
    rows: list[dict[str, Any]],
    flags: tuple[str, ...],
    parts: list[str],
    world: Any,
    cli: Cli,
    tmp_path: Path,
) -> None:
    data = tmp_path / "t.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    known = ["--model", world.path("model"), "--task", task, "--train", data, "--dev", data]
    found = cli("train", *known, *flags, "--out", tmp_path / "p.safetensors")
    assert found.status == 2, found.err
    said = found.err.splitlines()
    assert [line.startswith("foreword: ") for line in said].count(True) == 1
    assert "Traceback" not in found.err
    for part in parts:
        assert part in said[-1]


def test_what_is_drawn_depends_on_the_seed(world: Any, cli: Cli, tmp_path: Path) -> None:
    data, out = tmp_path / "t.jsonl", tmp_path / "p.safetensors"
    rows = [{"history": f"it {n}", "answer": f"film {n}"} for n in range(9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    known = ["--task", "rank", "--negatives", "3", "--epochs", "1", "--seed", "5", "--method"]
    files = ["--model", world.path("model"), "--train", data, "--dev", data, "--out", out]
    made = cli("train", *known, "soft", *files, "--json")
    assert made.status == 0, made.err
    task = Prompt.load(out).task
    assert isinstance(task, Rank)
    assert (task.seed, task.negatives, len(task.catalogue or ())) == (5, 3, 9)
    found = cli("predict", out, "--data", data, "--json").json["predictions"]
    assert {len(each["ranking"]) for each in found} == {4}


@pytest.mark.parametrize("task", SCORES)
def test_masked_models_refuse(task: str, world: Any, cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "t.jsonl"
    data.write_text(2 * (json.dumps(ROWS[task]) + "\n"), "utf-8")
    known = ["--model", world.path("masked"), "--task", task, "--train", data, "--dev", data]
    found = cli("train", *known, "--out", tmp_path / "p.safetensors")
    assert found.status == 2
    assert "is a masked model" in found.err.splitlines()[-1]


def test_what_a_json_schema_is_refused_for_is_one_line(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    schema, out = tmp_path / "schema.json", tmp_path / "p.safetensors"
    schema.write_text('{"type": "integer"}', "utf-8")
    rows = ROOT / "examples" / "generate" / "train.jsonl"
    about = ["--train", str(rows), "--task", "generate", "--model", world.path("model")]
    few = ["--length", "2", "--epochs", "1", "--rows", "4", "--out", str(out)]
    wrong = cli("train", *about, *few, "--json-schema", str(tmp_path / "none.json"))
    assert wrong.status == 2
    assert "none.json: cannot be read (No such file" in wrong.err
    made = cli("train", *about, *few, "--json-schema", str(schema))
    assert made.status == 2  # its tokenizer has no braces
    assert "--json-schema cannot be followed: the tokenizer has no tokens" in made.err
    made = cli("train", *about, *few)
    assert made.status == 0, made.err
    schema.write_text('{"type": ', "utf-8")
    found = cli("predict", str(out), "a film", "--json-schema", str(schema))
    assert found.status == 2
    assert found.err.startswith("foreword: --json-schema is no JSON (")
    assert found.err.count("\n") == 1
