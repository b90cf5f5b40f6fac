"""Evaluation: the prompt and the frozen model, on the same rows and under the same metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import language
from foreword.data.row import Row
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.injection import NOTHING
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.labels.classifier import Classifier
from foreword.training.settings import Training
from foreword.training.tune import tune
from toys import TASK, TRAINING, Counts, get, rows, toy_run, write

HELD = rows(20, 200, "test.jsonl")


@cache
def prefix() -> Prompt:
    return toy_run(None, method=Prefix(shots=3, rate=0.1))


@cache
def inside() -> Prompt:
    """A soft prompt whose virtual tokens stand in the template."""
    task = replace(TASK, template='a [soft:2] {text}[soft:"it was"] :')
    return toy_run(None, task=task, method=Soft(), training=replace(TRAINING, rate=0.3))


def accuracy(found: list[dict[str, Any]], given: list[Row]) -> float:
    right = [a["label"] == row.fields["label"] for a, row in zip(found, given, strict=True)]
    return 100 * sum(right) / len(right)


def test_the_scores_are_those_of_the_predictions() -> None:
    prompt = prefix()
    result = evaluate(prompt, HELD)
    found = prompt.bound.predict(HELD, prompt.injection)
    assert result["accuracy"] == pytest.approx(accuracy(found, HELD))
    assert result["rows"] == 20
    assert result["cut"] == 0
    assert result["accuracy"] == pytest.approx(
        sum(result["confusion"]["matrix"][i][i] for i in range(2)) / 20 * 100
    )
    low, high = result["intervals"]["accuracy"]
    assert low <= result["accuracy"] <= high
    assert "baselines" not in result


def test_a_file_and_its_rows_score_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", HELD)
    assert evaluate(prefix(), path) == evaluate(prefix(), str(path)) == evaluate(prefix(), HELD)


def test_a_learned_prompt_stands_beside_the_model_that_cannot_do_it() -> None:
    base, task = language.taught("llama", 300), language.task("llama")
    prompt = tune(
        base,
        task,
        Prefix(length=4, start="random"),
        language.rows(64, 1),
        language.rows(40, 2),
        training=Training(epochs=25, rate=0.1, patience=5),
    )
    result = evaluate(prompt, language.rows(100, 9), baselines=True)
    assert result["accuracy"] >= 90
    assert result["baselines"]["zero-shot"]["accuracy"] <= 5
    assert result["baselines"]["demonstrations"]["rows"] == 100


def test_baselines_are_scored_on_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    shown: list[str] = []
    original = Classifier.predict

    def watched(self: Classifier, given: Any, *arguments: Any, **named: Any) -> Any:
        seen.append([row.where for row in given])
        shown.append(named.get("before", ""))
        return original(self, given, *arguments, **named)

    monkeypatch.setattr(Classifier, "predict", watched)
    result = evaluate(prefix(), HELD, baselines=True)
    assert seen == [[row.where for row in HELD]] * 3
    assert shown == ["", "", "".join(prefix().data["demonstrations"])]
    assert list(result["baselines"]) == ["zero-shot", "demonstrations"]
    assert [values["rows"] for values in result["baselines"].values()] == [20, 20]


def test_zero_shot_is_the_template_and_nothing_else() -> None:
    """Virtual tokens inside the template are left out, its own words stay."""
    zero = evaluate(inside(), HELD, baselines=True)["baselines"]["zero-shot"]
    plain = replace(TASK, template="a  {text} :").bind(get())
    assert zero["accuracy"] == pytest.approx(accuracy(plain.predict(HELD, NOTHING), HELD))
    bare = inside().bound.without_prompt()
    assert bare.predict(HELD, NOTHING) == plain.predict(HELD, NOTHING)


@pytest.mark.parametrize("make", [prefix, inside])
def test_demonstrations_are_the_rows_typed_in_front_by_hand(make: Any) -> None:
    prompt = make()
    result = evaluate(prompt, HELD, baselines=True)["baselines"]["demonstrations"]
    texts = prompt.data["demonstrations"]
    shots = len(texts)
    assert shots == result["shots"]
    assert all(text.endswith((" : good\n\n", " : bad\n\n")) for text in texts)
    hard = prompt.task.template.replace("[soft:2]", "").replace('[soft:"it was"]', "")
    by_hand = replace(TASK, template="".join(texts) + hard).bind(get())
    found = by_hand.predict(HELD, NOTHING)
    assert result["accuracy"] == pytest.approx(accuracy(found, HELD))
    assert prompt.bound.without_prompt().predict(HELD, NOTHING, before="".join(texts)) == found


def test_demonstrations_come_from_the_training_rows_and_every_class() -> None:
    texts = [str(row.fields["text"]) for row in rows(12)]
    found = prefix().data["demonstrations"]
    assert len(found) == 3  # as many as the prompt itself was started from
    assert all(any(text in demonstration for text in texts) for demonstration in found)
    assert {demonstration.split()[-1] for demonstration in found} == {"good", "bad"}


def test_rows_that_lost_text_are_counted() -> None:
    prompt = replace(prefix(), task=replace(prefix().task, max_length=12))
    long = [Row({**row.fields, "text": "film " * 30}, row.where) for row in HELD[:4]]
    result = evaluate(prompt, [*HELD[4:], *long], baselines=True)
    assert result["cut"] == 4
    assert [values["cut"] for values in result["baselines"].values()] == [4, 4]


def test_an_evaluation_has_its_answers_row_by_row_and_reads_as_plain_values() -> None:
    prompt = prefix()
    found = evaluate(prompt, HELD, baselines=True)
    assert [dict(each.prediction) for each in found.rows] == prompt.answers(HELD)
    assert [each.row for each in found.rows] == HELD
    assert [each.text for each in found.rows] == [row.fields["text"] for row in HELD]
    assert [each.gold for each in found.rows] == [row.fields["label"] for row in HELD]
    assert [each.answer for each in found.rows] == prompt.predict(HELD)
    right = [each.answer == each.gold for each in found.rows]
    assert right == [each.right for each in found.rows]
    assert len(found.wrong) == right.count(False)
    for each in found.rows:
        assert each.probability == each.prediction["probabilities"][each.answer]
    table = found.to_pandas()
    assert list(table.columns) == ["text", "gold", "answer", "probability", "right"]
    assert list(table.right) == right
    assert found.headline == "accuracy"
    assert found.score == found["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert found.scores.keys() == found.intervals.keys() == found["intervals"].keys()
    assert list(found.interval) == found["intervals"]["accuracy"]
    assert set(found.baselines) == {"zero-shot", "demonstrations"}
    assert found.per_label == found["per_class"]
    assert not {"confusion", "per_class", "baselines"} & found.without_tables().keys()
    assert repr(found).startswith(f"Evaluation(accuracy={found.score:.2f} (")


def test_progress_is_told_for_every_part_to_its_end() -> None:
    counts = Counts()
    evaluate(prefix(), HELD, baselines=True, report=counts)
    assert list(counts.heard) == ["prompt", "zero-shot", "3 demonstrations"]
    assert all(sum(done) == total == 20 for total, done in counts.heard.values())


def test_an_imported_prompt_has_no_demonstrations_to_compare_with() -> None:
    prompt = replace(prefix(), data={})
    assert list(evaluate(prompt, HELD[:4], baselines=True)["baselines"]) == ["zero-shot"]


@pytest.mark.slow
def test_generations_are_scored_against_all_references() -> None:
    task = Generate(template="{text}:")
    data = [Row({**row.fields, "references": ["x", "y"]}, row.where) for row in rows(6)]
    prompt = tune(get(), task, Soft(length=2), data, data, training=Training(epochs=1))
    result = evaluate(prompt, data, baselines=True)
    assert {"exact_match", "bleu", "chrf", "rouge_l", "intervals", "rows", "cut"} <= set(result)
    assert list(result["baselines"]) == ["zero-shot", "demonstrations"]
    found = [a["text"] for a in prompt.bound.predict(data, prompt.injection)]
    referenced = [
        Row({**row.fields, "references": [text]}, "") for row, text in zip(data, found, strict=True)
    ]
    assert evaluate(prompt, referenced)["exact_match"] == 100


def test_scores_are_kept_in_the_prompt_without_the_bulk(tmp_path: Path) -> None:
    result = evaluate(prefix(), HELD, baselines=True)
    kept = with_scores(prefix(), "test", result)
    kept.save(tmp_path / "p.safetensors")
    scores = Prompt.load(tmp_path / "p.safetensors").scores
    assert scores["dev"] == prefix().scores["dev"]
    assert scores["test"]["accuracy"] == result["accuracy"]
    assert scores["test"]["zero-shot"]["rows"] == 20
    text = json.dumps(scores["test"])
    assert "confusion" not in text
    assert "per_class" not in text


def test_the_task_stays_what_it_was() -> None:
    before = inside().task
    evaluate(inside(), HELD[:4], baselines=True)
    assert inside().task == before
    assert isinstance(before, Classify)
    assert inside().bound.virtual == 4
