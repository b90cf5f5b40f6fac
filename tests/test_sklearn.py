"""PromptClassifier: what scikit-learn asks of an estimator, and what people do with one."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    _check_name,
    check_estimator,
    estimator_checks_generator,
)

import char_model
import foreword as fw
import processes
from foreword.backbone import shared
from foreword.sklearn import PromptClassifier

TEXTS = [f"{word} {n}" for n in range(8) for word in ("good", "bad", "so so")]
LABELS = np.array(["yes", "no", "maybe"] * 8)

QUICK = {
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_estimators_unfitted",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_complex_data",
    "check_estimators_empty_data_messages",
    "check_estimator_sparse_array",
    "check_estimators_nan_inf",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_supervised_y_no_nan",
    "check_get_params_invariance",
    "check_set_params",
    "check_fit2d_1sample",
    "check_fit1d",
    "check_requires_y_none",
    "check_n_features_in",
}
"""The checks that train nothing, or little."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return char_model.save(tmp_path_factory.mktemp("model"))


def quick(model: Any, **more: Any) -> PromptClassifier:
    """An estimator that learns at once: the means of the classes, in the frozen model."""
    start = {"head_start": "prototypes"}
    usual = {"method": "head", "epochs": 1, "max_length": 24, "settings": start}
    return PromptClassifier(model, **{**usual, **more})


@pytest.fixture(scope="module")
def fitted(model: str) -> PromptClassifier:
    return quick(model).fit(TEXTS, LABELS)


# What scikit-learn asks --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:X holds no text", "ignore::sklearn.exceptions.SkipTestWarning")
def test_the_checks_of_scikit_learn_that_train_little(model: str) -> None:
    done = set()
    for estimator, check in estimator_checks_generator(quick(model)):
        if _check_name(check) in QUICK:
            check(estimator)
            done.add(_check_name(check))
    assert done == QUICK


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_all_checks_of_scikit_learn(model: str) -> None:
    results = check_estimator(quick(model), on_skip=None)
    passed = [each["check_name"] for each in results if each["status"] == "passed"]
    others = {each["check_name"] for each in results if each["status"] != "passed"}
    assert len(passed) > 50
    assert others <= {"check_array_api_input"}  # skipped where SCIPY_ARRAY_API is not set


@pytest.mark.parametrize("name", ["seed", "text"])
def test_settings_do_not_repeat_what_the_estimator_says(name: str, model: str) -> None:
    with pytest.raises(ValueError, match=f"settings holds '{name}'"):
        quick(model, settings={name: 1}).fit(TEXTS, LABELS)


def test_parameters_of_the_same_names_are_those_of_tune(model: str) -> None:
    estimator = quick(model, method="soft", length=3, rate=np.float64(0.02), seed=np.int64(5))
    estimator.set_params(settings={"start": "random"})
    made = estimator.fit(TEXTS, LABELS).prompt_
    same = fw.tune(
        model,
        method="soft",
        train=(TEXTS, LABELS),
        length=3,
        rate=0.02,
        seed=5,
        epochs=1,
        max_length=24,
        start="random",
        report=fw.SILENT,
    )
    assert made.injection.embeds.equal(same.injection.embeds)
    assert made.metadata() == same.metadata()
    assert estimator.rate.dtype == np.float64  # as it was given


# Texts and labels --------------------------------------------------------------------------------


def test_texts_may_be_held_in_anything(fitted: PromptClassifier) -> None:
    want = fitted.predict_proba(TEXTS)
    column = np.array(TEXTS, dtype=object)
    for texts in (
        tuple(TEXTS),
        column,
        np.array(TEXTS),
        column[:, None],
        [[text] for text in TEXTS],
        pandas.Series(TEXTS, index=range(9, 33)),
        polars.Series(TEXTS),
    ):
        assert fitted.predict_proba(texts) == pytest.approx(want, abs=0)
    assert want.sum(1) == pytest.approx(1, abs=1e-6)
    assert list(fitted.predict(TEXTS[:3])) == ["yes", "no", "maybe"]
    assert fitted.score(TEXTS, LABELS) == 1


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(["no", "yes"], "<U3"), ([3, 7], int), ([False, True], bool), ([-1, 1], np.int8)],
)
def test_labels_come_back_as_they_were(model: str, classes: list[Any], dtype: Any) -> None:
    y = np.array(classes * 8, dtype=dtype)
    texts = [f"{'good' if n % 2 else 'bad'} {n}" for n in range(16)]
    found = quick(model).fit(texts, list(y) if dtype is int else y)
    assert found.classes_.tolist() == classes
    assert found.predict(texts).dtype == y.dtype
    assert (found.predict(texts) == y).all()


def test_a_class_has_words_of_its_own(model: str) -> None:
    texts, y = TEXTS[:2] * 6, [1, 0] * 6
    labels = {0: "poor", 1: ("good", "fine"), 2: "of another fold"}
    task = quick(model, labels=labels).fit(texts, y).prompt_.task
    assert task.labels == {"0": (" poor",), "1": (" good", " fine")}
    with pytest.raises(ValueError, match="labels has no word for class 1; add one"):
        quick(model, labels={0: "poor", "one": "good"}).fit(texts, y)


def test_a_class_is_read_as_its_name_as_it_follows_the_template(model: str) -> None:
    task = quick(model, template="{text}：").fit(TEXTS, LABELS).prompt_.task
    assert task.labels == {name: (name,) for name in set(LABELS)}


def test_a_table_is_read_by_its_columns(model: str) -> None:
    table = pandas.DataFrame({"label": TEXTS, "price": range(24)})
    found = quick(model).fit(table, LABELS)
    assert found.prompt_.task.template == "{label}\n{price}\nLabel:"
    assert list(found.feature_names_in_) == ["label", "price"]
    named = quick(model, template="{price}: {text} is").fit(
        table.rename(columns={"label": "text"})[["price", "text"]], LABELS
    )
    assert named.prompt_.bound.fields == ("price", "text")
    one = quick(model, template="{text} is").fit(table[["label"]], LABELS)
    assert one.prompt_.bound.fields == ("label",)
    assert one.predict(table[["label"]]).shape == (24,)
    with pytest.warns(UserWarning, match="X holds no text; its numbers are read as text"):
        quick(model).fit(np.arange(24.0)[:, None], LABELS)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("a film", r"X is one text; give a list of texts: \['a film'\]"),
        ([], "Found array with 0 sample"),
        (["a film", None], "X contains NaN: column 'text' of row 1 is empty"),
        (["a film", " "], "X contains no text: column 'text' of row 1 is empty"),
        (pandas.Series(["a film", None]), "X contains NaN: column 'text' of row 1"),
        ([3, 4], "Expected 2D array, got 1D array instead"),
        (np.array([["a", "b"]]), "X has 2 features, but PromptClassifier is expecting 1 features"),
    ],
)
def test_what_is_no_text_is_a_value_error(fitted: PromptClassifier, texts: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted.predict(texts)


# In scikit-learn's tools -------------------------------------------------------------------------


def test_it_works_in_pipelines_and_searches(model: str) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    scores = cross_val_score(make_pipeline(lower, quick(model)), TEXTS, LABELS, cv=2)
    assert list(scores) == [1, 1]
    table = pandas.DataFrame({"review": TEXTS})
    search = GridSearchCV(quick(model), {"max_length": np.array([12, 24])}, cv=2)
    search.fit(table, LABELS)
    assert search.best_score_ == 1
    assert search.best_estimator_.prompt_.task.max_length == 12


SEARCH = f"""
import sys
from sklearn.model_selection import GridSearchCV, cross_val_score
from foreword.sklearn import PromptClassifier

texts, labels = {TEXTS!r}, {LABELS.tolist()!r}
start = {{"head_start": "prototypes"}}
classifier = PromptClassifier(sys.argv[1], "head", epochs=1, max_length=24, settings=start)
values = {{"method": ["head", "head+soft"]}}
found = [
    GridSearchCV(classifier, values, cv=2, n_jobs=jobs, error_score="raise").fit(texts, labels)
    for jobs in (1, 2)
]
one, two = (each.cv_results_["mean_test_score"].tolist() for each in found)
assert one == two, (one, two)
assert (found[0].predict(texts) == found[1].predict(texts)).all()
print(cross_val_score(classifier, texts, labels, cv=2, n_jobs=2).tolist())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_searches_run_in_two_processes(model: str, tmp_path: Path) -> None:
    """In a Python of its own, with which the processes that joblib keeps end."""
    with (tmp_path / "said").open("w") as said:
        python = processes.launch(sys.executable, "-c", SEARCH, model, stdout=said)
        assert python.wait() == 0
    assert (tmp_path / "said").read_text() == "[1.0, 1.0]\n"


def test_a_pickle_holds_the_prompt_and_names_the_model(
    fitted: PromptClassifier, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = pickle.dumps(fitted)
    weights = sum(p.numel() * 4 for p in fitted.prompt_.on.model.parameters())
    assert len(written) < weights / 5
    opened = []
    load = shared.Backbone.load
    monkeypatch.setattr(shared, "_IN_USE", {})
    monkeypatch.setattr(
        shared.Backbone, "load", lambda name, **more: opened.append(name) or load(name, **more)
    )
    one, other = pickle.loads(written), pickle.loads(written)
    assert (one.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert (other.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert opened == [model]  # once for both


def test_a_backbone_stays_in_its_process(model: str) -> None:
    backbone = fw.load(model)
    estimator = clone(quick(backbone)).fit(TEXTS, LABELS)
    assert estimator.model is backbone is clone(estimator).model is estimator.prompt_.on
    assert list(cross_val_score(estimator, TEXTS, LABELS, cv=2)) == [1, 1]
    with pytest.raises(TypeError, match="give the model's name, such as model='smollm2'"):
        pickle.dumps(estimator)


def test_a_fitted_prompt_is_kept_as_a_file(fitted: PromptClassifier, tmp_path: Path) -> None:
    path = fitted.prompt_.save(tmp_path / "p.safetensors")
    assert fw.Prompt.load(path).predict(TEXTS) == list(fitted.predict(TEXTS))


def test_progress_is_shown_where_it_is_asked_for(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(model).fit(TEXTS, LABELS)
    assert capsys.readouterr().err == ""
    quick(model, verbose=True).fit(TEXTS, LABELS)
    assert "no dev rows given: 2 of the training rows are held back" in capsys.readouterr().err
