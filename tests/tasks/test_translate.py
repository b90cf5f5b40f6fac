"""Translations and summaries: fields, templates, references, scripts, and learning to write."""

from __future__ import annotations

from typing import Any

import pytest

import language
from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.methods.prefix import Prefix
from foreword.tasks.summarize import Summarize
from foreword.tasks.translate import Translate
from foreword.training.settings import Training
from foreword.training.tune import tune
from toys import get

ROW = Row({"en": "a good film", "de": "ein guter Film", "fr": "un bon film"}, "F:1")


def test_fields_that_are_codes_are_called_by_their_language() -> None:
    task = Translate(source_field="en", target_field="de").complete([ROW], get())
    assert task.template == "English: {en}\nGerman:"
    assert (task.language, task.decoding.stop) == ("de", ("\n",))
    bound = task.bind(get())
    item = bound.train_example(ROW, 512)
    ids = get().text.ids
    assert list(item.example.ids) == ids("English: a good film\nGerman:")
    assert list(item.example.answers) == [*ids(" ein guter Film"), 1]
    assert bound.demonstration(ROW) == "English: a good film\nGerman: ein guter Film\n\n"


@pytest.mark.parametrize(
    ("task", "fields", "template"),
    [
        (Translate(), {"prompt": "x", "completion": "y"}, "Text: {prompt}\nTranslation:"),
        (
            Translate(source_field="src", target_field="zh"),
            {"src": "x", "zh": "y"},
            "Src: {src}\nChinese:",
        ),
        (Translate(template="{en} =", source_field="en", target_field="de"), {"en": ""}, "{en} ="),
        (Summarize(), {"prompt": "x", "completion": "y"}, "{prompt}\nTL;DR:"),
        (Summarize(), {"document": "x", "summary": "y"}, "{document}\nTL;DR:"),
        (Summarize(source_field="body", target_field="tldr"), {"body": "x"}, "{body}\nTL;DR:"),
    ],
)
def test_templates_are_found(task: Any, fields: dict[str, str], template: str) -> None:
    made = task.complete([Row(fields, "F:1")], get())
    assert made.template == template
    assert made.complete([], get()) == made if made.source_field not in fields else True


@pytest.mark.parametrize("task", [Translate(), Translate(source_field="en"), Summarize()])
def test_unknown_fields_are_asked_for(task: Any) -> None:
    with pytest.raises(
        UserError, match=r"F:1: which field is read.* `(source|target)_field`, .*\(en, de, fr\)"
    ):
        task.complete([ROW], get())


def test_all_references_count() -> None:
    task = Translate(source_field="en", target_field="de").complete([ROW], get())
    rows = [Row({**ROW.fields, "references": ["ein Film", "der gute Film ist gut"]}, "F:1"), ROW]
    said = [{"text": "der gute Film ist gut"}, {"text": "ein guter Film"}]
    found = task.bind(get()).score(rows, said, 0)
    assert set(found["intervals"]) == {"bleu", "chrf"} == set(found["signatures"])
    assert found["bleu"] == pytest.approx(100)
    short = Summarize(source_field="en", target_field="de").complete([ROW], get())
    best = short.bind(get()).score(rows, said, 0)
    assert (best["rouge_1"], best["rouge_2"], best["rouge_l"]) == (100, 100, 100)
    assert short.bind(get()).headline == "rouge_l"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("我喜歡看電影", "zh"),
        ("映画を見ることが好きです", "ja-mecab|char"),
        ("أحب مشاهدة الأفلام في المساء", "13a"),
    ],
)
def test_scripts_have_their_own_words(text: str, cut: str) -> None:
    row = Row({"prompt": "film", "completion": text}, "F:1")
    bound = Translate().complete([row], get()).bind(get())
    found = bound.score([row], [{"text": text}], 0)
    assert found["bleu"] == pytest.approx(100)
    assert found["signatures"]["bleu"].split("tok:")[1].split("|")[0] in cut.split("|")
    bound.check([row], answers=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_what_the_frozen_model_does_not_write_is_learned(name: str) -> None:
    """A colour is to be turned into its opposite; the model alone repeats it."""

    def rows(n: int, seed: int) -> list[Row]:
        return [
            Row({"prompt": row.fields["text"], "completion": row.fields["label"]}, row.where)
            for row in language.rows(n, seed)
        ]

    base, held = language.taught(name, 300), rows(100, 9)
    task = Translate(template="{prompt} :", decoding=Decoding(max_new_tokens=1))
    made = tune(
        base,
        task,
        Prefix(length=4, start="random"),
        rows(64, 1),
        rows(40, 2),
        training=Training(epochs=25, batch_size=16, rate=0.1, patience=8),
    )

    def right(found: list[dict[str, Any]]) -> int:
        pairs = zip(found, held, strict=True)
        return sum(each["text"] == row.fields["completion"] for each, row in pairs)

    assert right(made.task.bind(base).predict(held, NOTHING)) <= 5
    assert right(made.answers(held)) >= 90
