"""Folders with a trained head: their own answers, as transformers' pipeline gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    pipeline,
)

import foreword as fw
from families import ENCODERS, GQA, SMALL, backbone, tokenizer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.reporter import Reporter

KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "qwen3": GQA,
    "roberta": {"max_position_embeddings": 130},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 1, "classifier_pooling": "mean"},
    "albert": {"embedding_size": 16},
    "deberta-v2": {},
}
NAMES = {0: "good", 1: "bad", 2: "so so"}
TEXTS = ["a good film", "it was bad and a bad film :"]
ROWS = [
    fw.Row({"text": text, "label": label}, "r")
    for text, label in zip(TEXTS * 3, [*NAMES.values()] * 2, strict=True)
]


class Lines(Reporter):
    """A reporter that keeps the lines that it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def saved(
    folder: Path, kind: str, head: Any = AutoModelForSequenceClassification, **more: Any
) -> str:
    """A tiny classifier whose answers differ from text to text."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **KINDS[kind], "id2label": NAMES, **more})
    model = head.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(3).add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[] if k in ("bert", "qwen3") else pytest.mark.slow) for k in KINDS],
)
def test_the_untouched_model_answers_as_a_pipeline_does(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    base = fw.load(folder)
    assert base.architecture == "encoder"
    bound = fw.Classify().complete(ROWS, base).bind(base)
    answers = bound.predict([fw.Row({"text": text}, "r") for text in TEXTS], NOTHING)
    asked = pipeline("text-classification", folder, top_k=None)(TEXTS)
    for answer, expected in zip(answers, asked, strict=True):
        chances = {each["label"]: each["score"] for each in expected}
        assert answer["probabilities"] == pytest.approx(chances, rel=1e-3, abs=1e-5)


def test_several_labels_are_scored_apart_as_a_pipeline_does(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", problem_type="multi_label_classification")
    base, labels = fw.load(folder), {name: name for name in NAMES.values()}
    rows = [fw.Row({"text": text, "labels": []}, "r") for text in TEXTS]
    bound = fw.Multilabel(labels=labels).complete(rows, base).bind(base)
    asked = pipeline("text-classification", folder, top_k=None)(TEXTS)
    for answer, expected in zip(bound.predict(rows, NOTHING), asked, strict=True):
        chances = {each["label"]: each["score"] for each in expected}
        assert answer["probabilities"] == pytest.approx(chances, rel=1e-3, abs=1e-5)


def test_a_head_of_one_number_scores_as_a_pipeline_does(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", id2label={0: "x"}, problem_type="regression")
    base = fw.load(folder)
    rows = [fw.Row({"text": t, "label": n}, "r") for t, n in zip(TEXTS, (-90, 90), strict=True)]
    bound = fw.Score(regression=True).complete(rows, base).bind(base)
    found = [each["score"] for each in bound.predict(rows, NOTHING)]
    asked = pipeline("text-classification", folder, function_to_apply="none")(TEXTS)
    assert found == pytest.approx([each["score"] for each in asked], rel=1e-3)
    assert found[0] != pytest.approx(found[1])
    under = fw.Head(head_start="model").build(bound, rows, 0)()
    again = [each["score"] for each in bound.with_head().predict(rows, under)]
    assert again == pytest.approx(found, rel=1e-4)
    prompt = fw.tune(base, fw.Score(regression=True), "prefix", rows * 2, rows, epochs=1)
    assert prompt.injection.head is None
    for task in (fw.Score(), fw.Classify(labels={"a": "a", "b": "b"})):
        plain = task.complete(rows, base).bind(base)
        with pytest.raises(UserError, match="gives one number; use `task=score` with `regr"):
            plain.predict(rows, NOTHING)


def test_words_are_tagged_as_a_pipeline_tags_their_last_tokens(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", head=AutoModelForTokenClassification)
    base = fw.load(folder)
    rows = [fw.Row({"tokens": text.split(), "tags": []}, "r") for text in TEXTS]
    task = fw.Tag(labels={name: name for name in NAMES.values()}).complete(rows, base)
    found = task.bind(base).predict(rows, NOTHING)
    asked = pipeline("token-classification", folder, ignore_labels=[])(TEXTS)
    for text, answer, expected in zip(TEXTS, found, asked, strict=True):
        ends = [len(" ".join(text.split()[: n + 1])) for n in range(len(text.split()))]
        last = [next(each for each in expected if each["end"] == end) for end in ends]
        assert answer["tags"] == [each["entity"] for each in last]
        assert answer["chances"] == pytest.approx([e["score"] for e in last], rel=1e-3)
    with pytest.raises(UserError, match=r"the trained head of .* is of `task=tag`; train one"):
        fw.Classify().complete(ROWS, base).bind(base).predict(ROWS, NOTHING)
    assert fw.load(folder, pooling="cls").fingerprint != base.fingerprint


def test_a_prefix_learns_against_the_models_own_head(tmp_path: Path) -> None:
    base = fw.load(saved(tmp_path, "bert"))
    prompt = fw.tune(base, "classify", "prefix", ROWS, ROWS, epochs=1)
    assert prompt.injection.head is None
    again = fw.Prompt.load(prompt.save(tmp_path / "p.safetensors"))
    assert again.predict(TEXTS, probabilities=True) == prompt.predict(TEXTS, probabilities=True)


def test_a_head_is_never_left_out_in_silence(tmp_path: Path) -> None:
    base = fw.load(saved(tmp_path / "m", "bert"))
    others = [fw.Row({"text": text, "label": text[:2]}, "r") for text in TEXTS * 2]
    task = fw.Classify(labels={"a ": "good", "it": "bad"})
    assert len(task.complete(others, base).bind(base).predict(others, NOTHING)) == 4
    with pytest.raises(UserError, match="a trained head for good, bad, so so, and the task has"):
        fw.Classify().complete(others, base).bind(base).predict(others, NOTHING)
    fw.tune(base, "classify", "head", others, others, epochs=1)  # a head of its own
    with pytest.raises(UserError, match="its trained head gives 3 numbers, which no task reads"):
        fw.load(saved(tmp_path / "n", "bert", problem_type="regression"))


def test_a_head_begins_as_the_trained_one(tmp_path: Path) -> None:
    base = fw.load(saved(tmp_path / "m", "bert"))
    labels = {"b": "so so", "a": "bad", "c": "good"}  # in another order than the head's
    rows = [fw.Row({"text": text, "label": label}, "r") for text in TEXTS for label in labels]
    bound = fw.Classify(labels=labels).complete(rows, base).bind(base)
    method = fw.Head(head_start="model")
    under = method.build(bound, rows, 0)()
    found = bound.with_head().predict(rows, under)
    for one, other in zip(found, bound.predict(rows, NOTHING), strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-4)
    with pytest.raises(UserError, match="`head_start=model`: is a linear layer"):
        fw.Head(head_start="model", head_form="cosine").build(bound, rows, 0)
    others = fw.Classify(labels={"d": "fine", "e": "poor"}).complete(rows, base).bind(base)
    with pytest.raises(UserError, match="a trained head for good, bad, so so, and the task has"):
        method.build(others, rows, 0)
    plain = backbone(ENCODERS[0])
    with pytest.raises(UserError, match="bert-encoder has no trained head; use `head_start=log"):
        method.build(fw.Classify().complete(rows, plain).bind(plain), rows, 0)


def test_a_pooling_beside_a_head_that_reads_another_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    assert fw.load(folder, pooling="cls").fingerprint == fw.load(folder).fingerprint
    with pytest.raises(UserError, match=r"`pooling=mean`: the trained head of .* reads `cls`"):
        fw.load(folder, pooling="mean")


def test_the_untouched_model_goes_by_names_where_its_head_has_other_labels(tmp_path: Path) -> None:
    base, heard = fw.load(saved(tmp_path, "bert")), Lines()
    others = [fw.Row({"text": text, "label": text[:2]}, "r") for text in TEXTS * 2]
    prompt = fw.tune(base, "classify", "head", others, others, epochs=1)
    fw.evaluate(prompt, others, baselines=True, report=heard)
    said = "zero-shot goes by the labels' names"
    assert [line[: len(said)] for line in heard.lines].count(said) == 1
    same = fw.tune(base, "classify", "head", ROWS, ROWS, epochs=1)
    heard.lines.clear()
    fw.evaluate(same, ROWS, baselines=True, report=heard)
    assert not any(line.startswith(said) for line in heard.lines)


@pytest.mark.slow
def test_quantized_a_classifier_pools_for_its_head_too(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    folder = saved(tmp_path, "bert")
    small, whole = fw.load(folder, quantize="int8"), fw.load(folder)
    assert small.pooling == whole.pooling
    assert small.fingerprint == whole.fingerprint
