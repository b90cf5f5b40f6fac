"""Results as values: comparisons by name, short reprs, and tables that a notebook shows."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import foreword as fw
from foreword.errors import UserError
from foreword.evaluation.records import Record
from foreword.evaluation.runs import Run
from foreword.html import html_table
from foreword.notebook import Notebook
from foreword.reporter import SILENT
from foreword.terminal import Terminal, usual_reporter
from toys import get, rows, toy_run


def record(run: Run) -> Record:
    """What a run leaves, with a score that is made up."""
    about = {"key": run.name, **run.identity({"rows": None})}
    if run.name == "soft":
        return {**about, "error": "no room"}
    score = {"zero-shot": 20.0, "prefix": 60.0 + run.training.seed}[run.name]
    found = {"headline": "accuracy", "score": score, "interval": [score - 5, score + 5]}
    return {**about, **found, "scores": {}, "parameters": 7, "bytes": 9, "seconds": 1.0} | {
        "peak_mib": 3.0
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that a comparison asks for; none is done."""
    runs: list[Run] = []

    def perform(given: list[Run], *_: Any) -> list[Record]:
        runs.extend(given)
        return [record(run) for run in given]

    monkeypatch.setattr("foreword.evaluation.comparison.compare_runs", perform)
    return runs


def compare(**more: Any) -> fw.Comparison:
    given = {"methods": ["zero-shot", "soft", "prefix"], "train": rows(20), "report": SILENT}
    return fw.compare(**{"model": "model", **given, **more})


def test_methods_are_compared_by_name_with_the_settings_that_they_have(asked: list[Run]) -> None:
    found = compare(
        test=rows(4, 50), seeds=2, length=3, epochs=2, template="{text} :", label="label"
    )
    assert [(run.name, run.training.seed) for run in asked] == [
        ("zero-shot", 0),
        ("soft", 0),
        ("prefix", 0),
        ("soft", 1),
        ("prefix", 1),
    ]
    assert asked[1].method == fw.Soft(length=3)
    assert asked[2].method == fw.Prefix(length=3)
    assert {run.training.epochs for run in asked} == {2}
    assert {run.task for run in asked} == {fw.Classify(template="{text} :")}
    assert (len(asked[0].data.train), len(asked[0].data.test)) == (20, 4)
    assert found.headline == "accuracy"
    assert found["prefix"].score == 60.5
    assert found["prefix"].interval == (55.5, 65.5)
    assert found["soft"].error == "no room"
    assert found.best is found["prefix"]
    assert repr(found) == "Comparison(accuracy: zero-shot 20.00, soft failed, prefix 60.50)"
    with pytest.raises(UserError, match="no method 'prefx' was compared; did you mean 'prefix'"):
        found["prefx"]


def test_a_setting_with_several_values_is_swept_and_lists_are_not(asked: list[Run]) -> None:
    found = compare(methods=["prefix"], length=[2, 4], labels=["good", "bad"])
    assert [run.method.length for run in asked] == [2, 4]  # type: ignore[union-attr]
    assert [entry.settings for entry in found] == [{"length": 2}, {"length": 4}]
    assert (len(asked[0].data.train), len(asked[0].data.test)) == (16, 4)
    table = found.to_pandas()
    assert list(table.length) == ["2", "4"]
    assert list(table.accuracy) == [60.0, 60.0]
    assert found.to_text("markdown").startswith("| length |")
    assert "<th>length</th><th>accuracy</th>" in found._repr_html_()


def test_learning_rates_are_entries_of_their_own_and_no_seeds(asked: list[Run]) -> None:
    found = compare(methods=["prefix", "zero-shot"], lr=[0.1, 0.2])
    assert {run.training.rate for run in asked if run.name == "prefix"} == {0.1, 0.2}
    swept = [entry for entry in found if entry.method == "prefix"]
    assert [entry.settings for entry in swept] == [{"rate": 0.1}, {"rate": 0.2}]
    assert [entry.spread for entry in swept] == [None, None]


def test_names_of_methods_have_commas_between_and_spaces(asked: list[Run]) -> None:
    assert [entry.method for entry in compare(methods="zero-shot, prefix")] == [
        "zero-shot",
        "prefix",
    ]


def test_methods_may_be_configurations_with_names_of_their_own(asked: list[Run]) -> None:
    compare(methods={"zero-shot": fw.ZeroShot(), "prefix": fw.Prefix(length=9)}, task=fw.Classify())
    assert asked[1].method == fw.Prefix(length=9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["prefx"]}, "`methods=prefx`: unknown 'prefx'; did you mean 'prefix'"),
        ({"lenght": 3}, "`lenght` is no setting of Classify or of any of the methods zero-shot, s"),
        ({"lr": 1.0, "rate": [1.0]}, "`lr` and `rate` are one setting; leave one out"),
        ({"train": None}, "there are no rows to train on; give `train`"),
        ({"seeds": 0}, "`seeds=0`: give 1 or more"),
        ({"seeds": "2"}, "'seeds' is '2', expected a whole number"),
        ({"seed": [1, 2]}, r"`seed=\[1, 2\]`: give one value; `seeds` says how many"),
        ({"headline": ["accuracy", "macro_f1"]}, "give one value; all entries are compared by"),
        ({"rows": [5, 10]}, r"'rows' is \[5, 10\], expected a whole number"),
        ({"per_label": [1, 2]}, r"'per_label' is \[1, 2\], expected a whole number"),
        ({"length": []}, r"`length=\[\]`: there is no value in it"),
        ({"methods": None}, "`methods=None`: name one or more"),
        ({"test": []}, "`test` holds no rows; give one or more"),
        ({"model": get()}, "`model` is a backbone, and each run opens its own"),
    ],
)
def test_a_comparison_says_what_is_wrong(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fw.compare(
            **{"train": rows(8), "methods": ["zero-shot", "soft"], "report": SILENT, **given}
        )


def test_what_a_notebook_shows_is_escaped() -> None:
    prompt = toy_run(None)
    other = replace(prompt, task=replace(prompt.task, template="<b>{text}</b>"))
    shown = other._repr_html_()
    assert "&lt;b&gt;{text}&lt;/b&gt;" in shown
    assert "<tr><th>method</th><td>soft</td></tr>" in shown
    scored = prompt.with_scores({"dev": {"rows": 4, "accuracy": 75.0, "intervals": {}}})
    assert "<tr><th>dev</th><td>accuracy 75.00</td></tr>" in scored._repr_html_()
    held = [fw.Row({**row.fields, "text": f"<i>{row.fields['text']}</i>"}) for row in rows(9, 50)]
    found = fw.evaluate(prompt, held, baselines=True, report=SILENT)
    shown = found._repr_html_()
    assert "<i>" not in shown
    assert "<th>accuracy</th>" in shown
    assert "<td>zero-shot</td>" in shown
    assert f"{len(found.wrong)} of 9 rows were answered wrongly" in shown
    assert html_table((), [("a", "b\nc")]) == "<table><tr><th>a</th><td>b<br>c</td></tr></table>"


def test_reprs_are_short() -> None:
    prompt = toy_run(None)
    ensemble = fw.Ensemble((prompt, prompt), (0.5, 0.5))
    for value in (prompt, prompt.injection, get(), ensemble):
        assert 10 < len(repr(value)) < 130, repr(value)
    assert repr(get()).startswith("Backbone(llama, causal, ")
    assert repr(ensemble) == "Ensemble(classify on llama, 2 prompts, weights 0.50 0.50)"


class Display:
    """Stands in for IPython, and keeps what each place of an output shows."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def display(self, value: Any, display_id: bool) -> Any:
        place = len(self.places)
        self.places.append(value._repr_html_())

        def update(value: Any) -> None:
            self.places[place] = value._repr_html_()

        return SimpleNamespace(update=update)


def test_progress_shows_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(usual_reporter(), Terminal)
    shell, shown = SimpleNamespace(config={"IPKernelApp": {}}), Display()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    assert isinstance(usual_reporter(), Notebook)
    prompt = fw.tune(get(), toy_run(None).task, "soft", rows(8), length=2, epochs=1, batch_size=4)
    assert "no dev rows given" in capsys.readouterr().out
    (bar,) = [place for place in shown.places if place]
    assert bar.startswith('tuning <progress value="2" max="2"></progress> 2 of 2 loss')
    prompt.predict(["<b>", "it"])
    assert shown.places[-1] == ""
    with Notebook().bar("<b>", 3) as move:
        move(1)
        assert shown.places[-1].startswith('&lt;b&gt; <progress value="1" max="3">')


def test_bars_of_a_notebook_take_the_place_of_those_that_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, reporter = Display(), Notebook()
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    for name in ("reading", "scoring"):
        with reporter.bar(name, 2), reporter.bar("inside", 2) as move:
            move(1)
            assert sum(place.startswith("inside <progress") for place in shown.places) == 1
    assert shown.places == ["", ""]


def test_checked_rows_show_what_is_wrong_with_them() -> None:
    given = [{"text": f"film {n}", "label": "ab"[n % 2]} for n in range(12)]
    fine = fw.check(given, model=get())
    assert repr(fine) == "Checked(train: 12 rows; nothing is wrong)"
    assert "<p>nothing is wrong</p>" in fine._repr_html_()
    wrong = fw.check([*given, {**given[0], "label": "b"}], model=get())
    assert "train: 13 rows; error: label conflict in train: 2" in repr(wrong)
    shown = wrong._repr_html_()
    assert "<td>label conflict</td><td>train</td><td>2</td>" in shown


def test_a_notebook_shows_a_users_mistake_as_one_line() -> None:
    with pytest.raises(UserError) as caught:
        fw.read_rows("none.csv")
    (line,) = caught.value._render_traceback_()
    assert line == f"UserError: {caught.value}"
    assert "none.csv: no such file" in line


@pytest.mark.parametrize(("command", "said"), [("train", "tune("), ("eval", "evaluate(")])
def test_a_command_of_another_name_in_python_is_told(command: str, said: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute") as caught:
        getattr(fw, command)
    assert f"foreword {command} is foreword.{said}" in str(caught.value)
    assert not hasattr(fw, command)
