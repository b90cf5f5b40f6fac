"""Tasks whose rows are Chinese: templates, instructions and words, found and recorded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.backbone.backbone import Backbone
from foreword.compression.self_study import openings_about
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.explanation.candidates import asked, controls
from foreword.injection import NOTHING
from foreword.prompt.file import read_prompt
from foreword.prompt_search.templates import READY, READY_IN_CHINESE, find_templates
from foreword.reporter import SILENT
from foreword.tasks.answer import Answer
from foreword.tasks.classify import Classify
from foreword.tasks.gold import found_in, labels_of
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.phrases import CHINESE
from foreword.tasks.rank import Rank
from foreword.tasks.registry import TASKS
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.summarize import Summarize
from foreword.tasks.translate import Translate
from toys import TASK, get, rows, toy_run

TEXT = "房间很干净，服务也不错"
ENDS = {"head": "房间", "tail": "服务"}
TASKS_AND_FIELDS: list[tuple[Any, dict[str, Any], str]] = [
    (Classify(), {"text": TEXT, "label": "好"}, "{text}\n类别："),
    (Classify(), {"text_a": TEXT, "text_b": TEXT, "label": "好"}, "{text_a}\n{text_b}\n类别："),
    (Multilabel(), {"text": TEXT, "labels": ["服务"]}, "{text}\n标签："),
    (Score(), {"text": TEXT, "label": 3.5}, "{text}\n评分："),
    (Relate(), {"text": TEXT, "label": "无关", **ENDS}, "{text}\n{head}和{tail}的关系："),
    (
        Answer(),
        {"context": TEXT, "question": "什么很干净？", "answers": ["房间"]},
        "{context}\n问题：{question}\n答案：",
    ),
    (Summarize(), {"text": TEXT, "summary": "好评"}, "{text}\n摘要："),
]


def rows_of(fields: dict[str, Any]) -> list[Row]:
    """Two rows, of two labels where they have one."""
    other = {"好": "差", "无关": "因果"}
    label = fields.get("label")
    more = {"label": other.get(label, 1.0) if isinstance(label, str) else 1.0} if label else {}
    return [Row(fields, "F:1"), Row({**fields, **more}, "F:2")]


@pytest.mark.parametrize(("task", "fields", "template"), TASKS_AND_FIELDS)
def test_the_language_of_rows_is_found(task: Any, fields: dict[str, Any], template: str) -> None:
    made = task.complete(rows_of(fields), get())
    assert (made.template, made.language) == (template, "zh")
    said = made.bind(get()).instruction()
    assert not any(char.isascii() and char.isalpha() for char in said.replace("none", ""))
    english = dataclasses.replace(task, language="en").complete(rows_of(fields), get())
    assert english.template.isascii()
    assert english.language == "en"


def test_a_mask_stands_behind_a_full_width_colon_without_a_space() -> None:
    made = Classify().complete(rows_of({"text": TEXT, "label": "好"}), get("bert"))
    assert made.template == "{text}\n类别：[mask]"
    related = Relate().complete(rows_of({"text": TEXT, "label": "无关", **ENDS}), get("bert"))
    assert related.template == "{text}\n{head}和{tail}的关系：[mask]。"


def test_words_of_names_and_numbers_have_no_space_behind_a_full_width_colon() -> None:
    rated = Score(low=1, high=3).complete(rows_of({"text": TEXT, "label": 2.0}), get())
    assert list(rated.anchors or ()) == ["1", "2", "3"]
    review = [Row({"text": TEXT, "label": label}, "F:1") for label in ("good", "bad")]
    assert Classify().complete(review, get()).labels == {"bad": ("bad",), "good": ("good",)}
    masked = Multilabel().complete(rows_of({"text": TEXT, "labels": ["Wi-Fi"]}), get("bert"))
    assert masked.labels == {"Wi-Fi": ("Wi Fi",), "none": ("无",)}
    english = Classify(template="{text} It is").complete(review, get())
    assert english.labels == {"bad": (" bad",), "good": (" good",)}
    given = Classify(labels={"good": " fine", "bad": " bad"}).complete(review, get())
    assert given.labels == {"good": (" fine",), "bad": (" bad",)}


def test_what_is_given_stands() -> None:
    given = rows_of({"text": TEXT, "label": "好"})
    made = Classify(template="评论：{text}\n情感：").complete(given, get())
    assert (made.template, made.language) == ("评论：{text}\n情感：", "zh")
    assert Classify(language="zh-Hant").complete(given, get()).language == "zh-Hant"
    with pytest.raises(UserError, match="`language=Chinese`: give a language code"):
        Classify(language="Chinese").complete(given, get())
    many = Multilabel().complete(rows_of({"text": TEXT, "labels": ["服务"]}), get())
    assert many.labels == {"服务": ("服务",), "none": ("无",)}


def test_a_translation_has_the_language_that_it_is_into() -> None:
    pair = [Row({"source": "the room is clean", "target": "房间很干净"}, "F:1")]
    into = Translate(source_field="source", target_field="target")
    assert into.complete(pair, get()).language == "zh"
    back = Translate(source_field="target", target_field="source")
    assert back.complete(pair, get()).language is None


def test_rows_of_other_languages_are_asked_in_english() -> None:
    made = Classify().complete(rows(4), get())
    assert (made.template, made.language) == ("{text}\nLabel:", None)
    japanese = Rank().complete(
        [
            Row(
                {"history": "駅はどこですか", "candidates": ["あそこです", "はい"], "answer": 0},
                "F:1",
            )
        ],
        get(),
    )
    assert japanese.language == "ja"
    assert japanese.bind(get()).instruction().isascii()


def test_every_task_has_the_setting_and_its_file_holds_it(tmp_path: Path) -> None:
    for name in TASKS:
        assert "language" in {each.name for each in TASKS.settings(name)}
    plain, spoken = tmp_path / "plain.safetensors", tmp_path / "zh.safetensors"
    toy_run(plain)
    toy_run(spoken, task=dataclasses.replace(TASK, language="zh"))
    assert "language" not in read_prompt(plain).meta["task"]  # as in files of older versions
    assert read_prompt(plain).task["language"] is None
    assert read_prompt(spoken).task["language"] == "zh"


def test_an_answer_is_found_in_its_passage_whatever_its_forms() -> None:
    row = Row({"context": "增长了１２％，ＩＢＭ说", "answers": ["12%", "IBM", "13%"]}, "F:1")
    assert found_in(row) == ["１２％", "ＩＢＭ"]


def test_lists_that_are_text_may_have_chinese_commas() -> None:
    for text in ("服务，卫生", "服务、卫生", "服务, 卫生"):
        assert labels_of(Row({"labels": text}, "F:1"), "labels") == ["服务", "卫生"]
    assert labels_of(Row({"labels": ["衣、食"]}, "F:1"), "labels") == ["衣、食"]


def test_questions_about_a_chinese_text_begin_in_chinese() -> None:
    assert "为什么" in openings_about("本机保修两年，进水不保。")
    assert " Why" in openings_about("The warranty is two years.")


def test_a_prompt_of_chinese_rows_is_asked_in_chinese_what_it_says() -> None:
    task = dataclasses.replace(TASK, language="zh").bind(get())
    sources = {each.source for each in asked(task, NOTHING, 1, 0)}
    assert sources == {"asked: 换句话说，这个任务是 ...", "asked: 总之，对每段文本应当 ..."}
    assert all(not each.text.isascii() for each in controls("zh"))
    assert all(each.text.isascii() for each in controls(None))


def test_ready_templates_of_a_search_are_chinese_too() -> None:
    assert READY.keys() == READY_IN_CHINESE.keys()
    for name, forms in READY.items():
        assert len(READY_IN_CHINESE[name]) == len(forms)
    task = dataclasses.replace(TASK, template=None, language="zh").complete(rows(20), get())
    scored = find_templates(task, rows(20), get(), 0, math.inf, SILENT)
    assert scored[0].template == "{text}\n类别："
    forms = {form.replace("<>", "{text}") for form in READY_IN_CHINESE["classify"]}
    assert {each.template for each in scored if each.source == "ready"} <= forms
    assert any(each.source == "ready" for each in scored)


def test_chinese_phrases_hold_what_the_english_ones_do() -> None:
    for english, chinese in CHINESE.items():
        for name in ("{context}", "{question}", "HEAD", "TAIL", "LOW", "HIGH"):
            assert (name in english) == (name in chinese)


@pytest.mark.smollm2
def test_label_words_of_several_pieces_are_scored_piece_by_piece() -> None:
    base = Backbone.load("smollm2")
    words = {"满意": "非常满意", "失望": "非常失望", "一般": "还行"}
    task = Classify(template="评论：{text}\n情感：", labels=words).complete(
        [Row({"text": TEXT}, "")], base
    )
    (answer,) = task.bind(base).predict([Row({"text": TEXT}, "F:1")], NOTHING)
    before = base.text.ids(f"评论：{TEXT}\n情感：")
    pieces = {label: tuple(base.text.ids(word)) for label, word in words.items()}
    assert min(map(len, pieces.values())) > 1
    for label, own in pieces.items():
        chance = 1.0  # at each piece among those with which a word goes on from here
        for n, piece in enumerate(own):
            nexts = sorted({other[n] for other in pieces.values() if other[:n] == own[:n]})
            with torch.no_grad():
                scores = base.model(torch.tensor([[*before, *own[:n]]])).logits[0, -1]
            chance *= float(scores[nexts].softmax(0)[nexts.index(piece)])
        assert answer["probabilities"][label] == pytest.approx(chance, rel=1e-3)
