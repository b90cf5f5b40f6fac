"""At home in Python: names and values, rows in any form, answers in the shape of what was asked."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import polars
import pytest

import foreword as fw
from foreword.backbone.shared import shared_backbone
from foreword.cli.main import run
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.answer_columns import answer_rows, usable_row
from foreword.evaluation.evaluate import with_scores
from foreword.prompt.predict import rows_of
from foreword.reporter import SILENT
from foreword.training.configure import configure
from toys import TASK, get, rows, toy_run

RECORDS = [
    {"review": str(row.fields["text"]), "stars": str(row.fields["label"])} for row in rows(24)
]
ONCE: dict[str, Any] = {"epochs": 1, "batch_size": 8, "report": SILENT}


def held(records: list[dict[str, str]], folder: Path) -> dict[str, Any]:
    """The same rows in everything that holds rows."""
    path = folder / f"rows{len(records)}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    texts, labels = ([record[name] for record in records] for name in ("review", "stars"))
    return {
        "a path": path,
        "its name": str(path),
        "dicts": records,
        "rows": [Row(record, f"r:{n}") for n, record in enumerate(records)],
        "a pair": (texts, labels),
        "arrays": (numpy.array(texts), numpy.array(labels)),
        "pandas": pandas.DataFrame(records, index=range(7, 7 + len(records))),
        "polars": polars.DataFrame(records),
        "datasets": datasets.Dataset.from_list(records),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    get().model.save_pretrained(folder)
    get().text.tokenizer.save_pretrained(folder)
    return str(folder)


def tune(model: Any, train: Any, **more: Any) -> fw.Prompt:
    return fw.tune(model, train=train, text="review", label="stars", **{**ONCE, **more})


def test_python_and_the_command_line_make_the_same_bytes(model: str, tmp_path: Path) -> None:
    """With the defaults of the command line, and whatever holds the rows."""
    every = held(RECORDS, tmp_path)
    by = [tmp_path / "cli.safetensors", tmp_path / "python.safetensors"]
    flags = ["--text-field", "review", "--label-field", "stars", "--out", str(by[0])]
    assert run(["train", "--model", model, "--train", every["its name"], *flags]) == 0
    fw.tune(model, train=every["pandas"], text="review", label="stars", out=by[1], report=fw.SILENT)
    assert by[0].read_bytes() == by[1].read_bytes()
    kept = fw.Prompt.load(by[1])
    assert kept.task.template == "{review}\nLabel:"
    assert kept.task.label_field == "stars"


def test_rows_of_every_kind_go_wherever_rows_go(model: str, tmp_path: Path) -> None:
    base, few = shared_backbone(model), RECORDS[:8]
    task, method, training = configure(
        "classify", "soft", None, {"length": 2, "epochs": 1}, text="review", label="stars"
    )
    want = tune(base, few, dev=few, method="soft", length=2)
    scores, bytes_of = fw.evaluate(want, few, report=SILENT), want.tensors()["embeds"]
    for name, dev in held(few, tmp_path).items():
        made = tune(base, dev, dev=dev, method="soft", length=2)
        assert made.tensors()["embeds"].equal(bytes_of), name
        assert made.metadata() == want.metadata(), name
        assert fw.evaluate(want, dev, report=SILENT) == scores, name
        if name != "its name":  # a string is a text to answer
            assert list(want.predict(dev)) == [row.answer for row in scores.rows], name
        data = fw.Data(dev, dev, dev, task=task)
        assert [row.fields for row in data.train] == few, name
        assert [row.fields for row in data.test] == few == [r.fields for r in data.dev or ()], name
        if name == "a pair":
            assert fw.fit([want, want], dev).rows == 8
            rates = fw.find_rate(base, task, method, dev, training=training, steps=10, high=10.0)
            assert rates.suggestion > 0


def test_a_pair_has_the_fields_of_the_task(model: str) -> None:
    texts = [record["review"] for record in RECORDS]
    made = fw.tune(model, "generate", "soft", (texts, texts), length=2, max_new_tokens=2, **ONCE)
    assert made.bound.fields == ("prompt",)
    made = fw.tune(model, "score", "soft", (texts, range(24)), length=2, **ONCE)
    assert made.bound.task.high == 23
    assert isinstance(made.predict("a film"), float)


@pytest.fixture(scope="module")
def prompt(model: str) -> fw.Prompt:
    return tune(model, RECORDS)


def test_answers_have_the_shape_of_what_was_asked(prompt: fw.Prompt) -> None:
    texts = ["a film", "it was bad", "good"]
    one = prompt.predict("a film")
    assert one in ("good", "bad")
    assert prompt.predict({"review": "a film"}) == one == prompt.predict(Row({"review": "a film"}))
    many = prompt.predict(texts)
    assert isinstance(many, list)
    assert many[0] == one
    assert prompt.predict(tuple(texts[:2])) == many[:2]
    assert prompt.predict(numpy.array(texts)) == many
    assert prompt.predict([]) == []
    table = pandas.DataFrame({"review": texts, "id": [7, 8, 9]}).set_index("id")
    for asked in (table, table.review):
        series = prompt.predict(asked)
        assert isinstance(series, pandas.Series)
        assert (list(series), list(series.index), series.name) == (many, [7, 8, 9], "label")
    for asked in (polars.DataFrame({"review": texts}), polars.Series("review", texts)):
        series = prompt.predict(asked)
        assert isinstance(series, polars.Series)
        assert (series.to_list(), series.name) == (many, "label")


def test_an_iterator_is_answered_as_it_is_read(
    prompt: fw.Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.prompt.predict.AT_ONCE", 2)
    texts, read = ["a film", "it was bad", "good", "bad film", "it"], []

    def given() -> Iterator[str]:
        for text in texts:
            read.append(text)
            yield text

    answers = prompt.predict(given())
    assert (iter(answers) is answers, read) == (True, [])
    first = next(answers)
    assert read == texts[:2]
    assert [first, *answers] == prompt.predict(texts)
    rows = ({"review": text} for text in texts)
    assert list(prompt.predict(rows)) == prompt.predict(texts)
    chances = list(prompt.predict(iter(texts[:2]), probabilities=True))
    assert chances == prompt.predict(texts[:2], probabilities=True)
    wrong = prompt.predict({"x": text} for text in texts[:1])
    with pytest.raises(fw.UserError, match="input 1: "):
        next(wrong)


def test_each_row_to_answer_is_of_its_own_shape(prompt: fw.Prompt) -> None:
    """As ``predict --data`` reads them, one after the other."""
    mixed = [{"review": "a film"}, {"review": "it", "prompt": "x", "completion": "y"}]
    mixed += [{"review": "it", "instruction": "a", "input": "b"}, {"review": "a", "text": "c"}]
    rows = [Row(fields, f"input {n}") for n, fields in enumerate(mixed, 1)]
    assert rows_of(mixed, prompt.bound) == [usable_row(row, prompt.bound) for row in rows]
    assert prompt.predict(mixed) == [answer["label"] for answer in answer_rows(prompt, rows)]  # type: ignore[index]


def test_probabilities_take_one_argument(prompt: fw.Prompt) -> None:
    one = prompt.predict("a film", probabilities=True)
    assert sum(one.values()) == pytest.approx(1)
    assert max(one, key=one.__getitem__) == prompt.predict("a film")
    assert prompt.predict(["a film"], probabilities=True) == [one]
    table = pandas.DataFrame({"review": ["a film", "it"]}, index=["x", "y"])
    found = prompt.predict(table, probabilities=True)
    assert (list(found.index), set(found.columns)) == (["x", "y"], {"good", "bad"})
    both = prompt.predict(["a film", "it"], probabilities=True)
    assert [found.loc[name].to_dict() for name in ("x", "y")] == both
    assert both[0] == pytest.approx(one, rel=1e-6)  # another batch may differ in the last bit
    assert set(fw.evaluate(prompt, RECORDS, baselines=True).baselines) >= {"zero-shot"}


def test_decoding_is_chosen_where_texts_are_written(prompt: fw.Prompt) -> None:
    writer = toy_run(None, task=fw.Generate("{text} :", decoding=fw.Decoding(max_new_tokens=9)))
    long, short = (writer.predict("a film", **more) for more in ({}, {"max_new_tokens": 1}))
    assert long.startswith(short)
    assert len(short) < len(long)
    with pytest.raises(UserError, match="unknown setting 'beam'; did you mean 'beams'"):
        writer.predict("a film", beam=2)
    with pytest.raises(UserError, match="kind classify writes no text; leave out `beams`"):
        prompt.predict("a film", beams=2)
    with pytest.raises(UserError, match="answers of Generate have no probabilities"):
        writer.predict("a film", probabilities=True)


def test_a_prompt_opens_its_model_by_itself_once_for_all(
    prompt: fw.Prompt, model: str, tmp_path: Path
) -> None:
    path = prompt.save(tmp_path / "p.safetensors")
    one, other = fw.Prompt.load(path), fw.load_prompt(path)
    assert one.predict(["a film", "it"]) == other.predict(["a film", "it"])
    assert one.bound.backbone is other.bound.backbone is shared_backbone(model)
    assert one.bound.backbone is prompt.bound.backbone
    assert fw.Ensemble((one, one), (0.5, 0.5)).predict("a film") == one.predict("a film")


def test_what_cannot_open_its_model_says_what_to_do(prompt: fw.Prompt, tmp_path: Path) -> None:
    gone = replace(prompt, on=None, backbone={**prompt.backbone, "name": "./gone"})
    path = gone.save(tmp_path / "p.safetensors")
    with pytest.raises(UserError) as caught:
        fw.Prompt.load(path).predict("a film")
    said = f"{path}: no model to run it on (cannot load './gone': no such folder or file); give"
    assert str(caught.value).startswith(said)
    assert "backbone=" in str(caught.value)
    other = replace(prompt, on=None, backbone={**prompt.backbone, "fingerprint": "sha256:other"})
    with pytest.raises(UserError, match="the model of that name is another one now"):
        other.predict("a film")


def test_a_model_that_has_changed_or_is_out_of_use_is_not_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(name: str, **more: Any) -> Any:
        loaded.append(name)
        return get("qwen2", double=len(loaded) > 1)

    monkeypatch.setattr("foreword.backbone.shared.Backbone.load", load)
    file = tmp_path / "model.gguf"
    file.write_text("one")
    first = shared_backbone(file)
    assert shared_backbone(str(file), "causal") is first
    assert loaded == [str(file)]
    os.utime(file, (1, 1))
    assert shared_backbone(file) is not first
    assert len(loaded) == 2
    gc.collect()


def test_an_older_file_in_a_model_s_folder_is_a_change_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "foreword.backbone.shared.Backbone.load", lambda name, **more: copy(get("qwen2"))
    )
    for number, file in enumerate(("model.safetensors", "config.json")):
        (tmp_path / file).touch()
        os.utime(tmp_path / file, (5, 5 + number))
    first = shared_backbone(tmp_path)
    assert shared_backbone(tmp_path) is first
    os.utime(tmp_path / "model.safetensors", (1, 1))
    assert shared_backbone(tmp_path) is not first


def test_a_name_alone_is_the_folder_s_own_form_of_a_model(tmp_path: Path) -> None:
    base = get("bert")
    base.model.save_pretrained(tmp_path)
    base.text.tokenizer.save_pretrained(tmp_path)
    pooled = shared_backbone(tmp_path, "encoder", "cls")
    own = shared_backbone(tmp_path)
    assert (pooled.architecture, own.architecture) == ("encoder", "masked")
    assert shared_backbone(tmp_path, "masked") is own is shared_backbone(tmp_path)
    assert shared_backbone(tmp_path, "encoder", "cls") is pooled
    mean = shared_backbone(tmp_path, "encoder")
    assert (mean is pooled, str(mean.pooling and mean.pooling.mode)) == (False, "mean")
    del own
    gc.collect()
    again = shared_backbone(tmp_path, "masked")
    assert shared_backbone(tmp_path) is again


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": 7}, "`model` is of type int; give smollm2, a folder, a .gguf file, a hub id"),
        ({"task": 7}, r"`task` is of type int; give a name \(classify, .*\) or .*fw.Classify\(\)"),
        ({"method": 7}, r"`method` is of type int; give a name \(soft, .*\) or .*fw.Prefix\(\)"),
        ({"training": {}}, r"`training` is of type dict; give fw.Training\(...\), or leave it out"),
        ({"task": "clasify"}, "`task=clasify`: unknown; did you mean 'classify'"),
        ({"method": "prefx"}, "`method=prefx`: unknown 'prefx'; did you mean 'prefix'"),
        ({"method": "prefix+sot"}, "unknown 'sot'; did you mean 'soft'"),
        ({"preset": "quick"}, "unknown preset 'quick'"),
        ({"preset": "fast", "method": fw.Prefix()}, "`preset` names a method too"),
        ({"preset": "fast", "method": "soft"}, "`preset=fast` is for method prefix"),
        ({"lenght": 3}, "`lenght` is no setting of task classify with method auto; did you mean"),
        ({"lr": 0.1, "rate": 0.1}, "`lr` and `rate` are one setting; leave one out"),
        ({"rank": 3}, "`rank` is no setting of task classify with method auto"),
        ({"length": "3"}, "setting 'length' is '3', expected a whole number"),
        ({"training": fw.Training(), "epochs": 2}, "`epochs` is set beside a configuration"),
        ({"training": fw.Training(), "seed": 2}, "`seed` is set beside a configuration"),
        ({"training": fw.Training(), "preset": "fast"}, "`preset` sets the training, as `training"),
        ({"task": TASK, "template": "x"}, "`template` is set beside a configuration"),
        ({"task": "chat", "text": "x"}, "`text=x`: a Chat has no single field for it"),
        ({"train": None}, r"there are no rows to train on; give `train`: a path, a list of dicts"),
        ({"train": 7}, r"rows are of type int; give a path, a list of dicts, \(texts, labels\)"),
        (
            {"train": RECORDS, "text": "reviw", "label": "stars"},
            r"row 1: no field 'reviw' \(did you mean 'review'\?\); name the field",
        ),
        ({"train": RECORDS}, "row 1: no field 'text'; name the field that is read with `text_f"),
    ],
)
def test_a_wrong_type_or_name_says_what_is_taken(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fw.tune(**{"model": get(), "train": rows(4), "report": SILENT, **given})


def test_names_and_values_make_the_same_run() -> None:
    named = configure(
        "classify",
        "prefix+lora",
        None,
        {"template": "{text}", "labels": ["a", "b"], "length": 3, "rank": 2, "epochs": 7},
    )
    joined = fw.Several((fw.Prefix(length=3), fw.Lora(rank=2)))
    task = fw.Classify(template="{text}", labels={"a": (), "b": ()})
    assert named == (task, joined, fw.Training(epochs=7))
    assert configure(task, joined, fw.Training(epochs=7), {}) == named
    assert configure("classify", None, None, {}) == (fw.Classify(), fw.Auto(), fw.Training())
    by_flag = configure("classify", "soft", None, {"lr": 0.5})
    assert by_flag == (fw.Classify(), fw.Soft(), fw.Training(rate=0.5))
    fast = configure("classify", None, None, {"preset": "fast", "epochs": 5})
    assert fast[1] == fw.Auto(rate_alone=1e-2)
    assert fast[2] == fw.Training(epochs=5, batch_size=8)
    assert configure(fw.Score(), "soft", None, {}, text="x", label="y")[0] == fw.Score(
        text_field="x", label_field="y"
    )
    sampled = configure("generate", "soft", None, {"temperature": 0.5, "seed": 3})
    assert sampled[0] == fw.Generate(decoding=fw.Decoding(temperature=0.5, seed=3))
    assert sampled[2].seed == 3
    whole = configure("generate", "soft", fw.Training(), {"temperature": 0.5, "seed": 3})
    assert (whole[0], whole[2]) == (sampled[0], fw.Training())


def test_an_input_that_is_wrong_carries_its_field(prompt: fw.Prompt) -> None:
    """As a web service needs it, which has a row and no file."""
    for given, field in (({"text": "x"}, "review"), ({"review": ""}, "review")):
        with pytest.raises(UserError) as caught:
            prompt.predict(given)
        assert caught.value.field == field
        assert str(caught.value).startswith(("input: ", 'input: field "review" is empty'))
    with pytest.raises(UserError, match="`prompt` is of type str; give what tune or"):
        fw.evaluate("p.safetensors", RECORDS)  # type: ignore[arg-type]


def test_a_task_is_bound_once_from_tuning_to_the_last_answer(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind, counted = fw.Classify.bind, []

    def counting(task: fw.Classify, backbone: fw.Backbone) -> Any:
        counted.append(task)
        return bind(task, backbone)

    monkeypatch.setattr(fw.Classify, "bind", counting)
    made = tune(model, RECORDS[:8])
    made.predict("a film")
    scores = fw.evaluate(made, RECORDS[:4], baselines=True, report=SILENT)
    kept = with_scores(made, "test", scores)
    assert kept.predict(["a film"]) == made.predict(["a film"])
    assert kept.scores["test"]["rows"] == 4
    assert len(counted) == 1


def test_models_tasks_and_methods_have_names_in_every_long_call(model: str, tmp_path: Path) -> None:
    found = fw.find_rate(model, "classify", "soft", rows(8), steps=10, high=10.0, report=SILENT)
    assert found.suggestion > 0
    tasks = [fw.Member(name, "classify", rows(8), rows(4)) for name in ("one", "two")]
    once = fw.Training(epochs=1, batch_size=8)
    made = fw.multitask(model, tasks, "soft", tmp_path, training=once, report=SILENT)
    assert set(made.prompts) == {"one", "two"}
    with pytest.raises(UserError, match="`model` is of type int"):
        fw.compress(7, fw.Cartridge(), tmp_path / "c")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="`path` is of type int; give the path of a file"):
        fw.Prompt.load(7)  # type: ignore[arg-type]


def test_words_of_labels_have_the_space_that_their_flag_gives_them(
    model: str, tmp_path: Path
) -> None:
    words = {"bad": ["bad", "as"], "good": " fine"}
    made = tune(model, RECORDS, method="soft", length=2, labels=words)
    assert made.task.labels == {"bad": (" bad", " as"), "good": (" fine",)}
    classifier = fw.sklearn.PromptClassifier(
        model, "soft", labels={0: "bad", 1: "fine"}, length=2, epochs=1
    )
    kept = classifier.fit([each["review"] for each in RECORDS], [0, 1] * 12).prompt_.task
    assert kept.labels == {"0": (" bad",), "1": (" fine",)}
    exact = fw.Classify("{review}", labels={"bad": "bad", "good": "fine"}, label_field="stars")
    assert fw.tune(model, exact, "soft", RECORDS, length=2, **ONCE).task.labels["bad"] == ("bad",)


def test_numbers_may_be_labels_and_names_of_columns(model: str) -> None:
    table = pandas.DataFrame([[each["review"], n % 2] for n, each in enumerate(RECORDS)])
    task = fw.Classify(labels={1: "good", 0: "bad"})  # type: ignore[dict-item]
    made = fw.tune(model, task, "soft", table, text=0, label=1, length=2, **ONCE)  # type: ignore[arg-type]
    assert made.task.labels == {"0": ("bad",), "1": ("good",)}
    assert set(made.predict(table)) <= {"0", "1"}


def test_an_empty_table_has_the_columns_of_its_probabilities(prompt: fw.Prompt) -> None:
    for table in (pandas.DataFrame(RECORDS), polars.DataFrame(RECORDS)):
        some = prompt.predict(table, probabilities=True)
        none = prompt.predict(table[:0], probabilities=True)
        assert (len(none), list(none.columns)) == (0, list(some.columns))


def test_what_predict_does_not_take_is_told_by_its_name(prompt: fw.Prompt) -> None:
    with pytest.raises(
        UserError, match="unknown setting 'probabilties'; did you mean 'probabilities'"
    ):
        prompt.predict("a film", probabilties=True)
    with pytest.raises(UserError, match="unknown setting 'batch_size'"):
        prompt.predict("a film", batch_size=3)
    with pytest.raises(UserError, match="classify writes no text; leave out `beams`"):
        prompt.predict("a film", beams=3)


def test_a_column_that_is_called_otherwise_can_be_renamed(prompt: fw.Prompt) -> None:
    with pytest.raises(UserError, match="rename its column"):
        prompt.predict({"Review": "a film"})
    with pytest.raises(UserError, match="rename its column"):
        fw.evaluate(prompt, [{"review": "a film", "star": "good"}])


def test_prompts_are_compared_as_they_are(prompt: fw.Prompt) -> None:
    assert fw.similarity(prompt, prompt) == pytest.approx(1)
    assert fw.similarity(prompt, prompt.injection) == pytest.approx(1)


def test_a_name_that_no_table_has_is_told(prompt: fw.Prompt) -> None:
    found = fw.evaluate(prompt, RECORDS, report=SILENT)
    with pytest.raises(UserError, match="no baseline 'probe' was scored"):
        found.lead("probe")


def test_the_first_row_that_lacks_its_label_is_named(prompt: fw.Prompt) -> None:
    with pytest.raises(UserError, match=r"^row 1: "):
        fw.explain(prompt, [{"review": each["review"]} for each in RECORDS], report=SILENT)


def test_the_engine_takes_rows_and_tokens_as_they_come(prompt: fw.Prompt) -> None:
    base = prompt.bound.backbone
    with fw.Engine(base) as engine:
        (found,) = engine.answer(prompt, pandas.DataFrame(RECORDS[:1])).result(60)
        assert found["label"] == prompt.predict(RECORDS[0])
        with pytest.raises(UserError, match=r"give `model\.text\.ids"):
            engine.generate("hello")  # type: ignore[arg-type]
        numbers = numpy.array(base.text.ids("it was"))
        how = fw.Sampling(max_new_tokens=2)
        one, same = (engine.generate(ids, None, how).result(60) for ids in (numbers, [*numbers]))
        assert one.tokens == same.tokens
