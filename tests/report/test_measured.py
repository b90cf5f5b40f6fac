"""What a report measures, against counts by hand, scikit-learn and the model run by itself."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from foreword.backbone.decode import Decoding
from foreword.cli.commands import app
from foreword.cli.settings import settings
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.evaluation import Answered
from foreword.injection import NOTHING
from foreword.methods.context import Context
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.registry import name_of as kind_of
from foreword.methods.soft import Soft
from foreword.metrics.paired import mcnemar
from foreword.metrics.resample import Interval
from foreword.report.answers import KeptAnswers
from foreword.report.changes import bins, label_changes, measure_changes
from foreword.report.left_out import LeftOut
from foreword.report.making import command_of, describe_making
from foreword.report.perplexity import measure_perplexity
from foreword.report.quality import Quality, System, measure_quality, verdict
from foreword.report.report import report_on
from foreword.report.robustness import measure_robustness, state_distance
from foreword.report.row_scores import row_scores
from foreword.report.side_by_side import Cell
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.registry import name_of
from foreword.tasks.score import Score
from foreword.training.log import log_path
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt
from report.pages import DEV, other, pair, subject, tuned, whole
from toys import get, rows, toy_run, write


def answered(gold: str, answer: str, chance: float = 0.5) -> Answered:
    chances = {answer: chance, "else": 1 - chance}
    said = {"label": answer, "probabilities": chances}
    return Answered("a text", gold, answer, chance, answer == gold, Row({}, ""), said)


def test_the_scores_are_those_of_evaluate() -> None:
    quality = measure_quality(subject())
    found = evaluate(tuned(), DEV, baselines=True, train=rows(12), report=SILENT)
    beside = {each.kind: each for each in quality.systems}
    assert beside["prompt"].score == found["accuracy"]
    names = {"untouched": "zero-shot", "demonstrations": "demonstrations", "probe": "probe"}
    for kind, name in names.items():
        system: Any = beside[kind]  # type: ignore[index]
        assert system.score == found.baselines[name].score
        lead = found.lead(name)
        assert lead is not None
        assert system.ahead.value == pytest.approx(lead.value)
        assert system.ahead.low == pytest.approx(lead.low)
    assert beside["training"].score == evaluate(tuned(), rows(12), report=SILENT)["accuracy"]


def test_gain_and_loss_of_labels_are_counted_row_by_row() -> None:
    gold = ["a"] * 4 + ["b"] * 3
    old, new = ["a", "b", "b", "a", "b", "b", "a"], ["a", "a", "a", "b", "b", "a", "a"]
    before = [answered(g, o) for g, o in zip(gold, old, strict=True)]
    after = [answered(g, n) for g, n in zip(gold, new, strict=True)]
    found = label_changes(before, after)
    assert not isinstance(found, LeftOut)
    assert [(e.label, e.rows, e.won, e.lost) for e in found] == [("a", 4, 2, 1), ("b", 3, 0, 1)]
    for answers, name in ((old, "before"), (new, "after")):
        recall = recall_score(gold, answers, average=None, labels=["a", "b"])
        assert [getattr(e, name) for e in found] == pytest.approx((100 * recall).tolist())


def test_confusions_before_and_after_are_scikit_learns() -> None:
    found = measure_changes(subject()).confusion
    assert not isinstance(found, LeftOut)
    frozen = tuned().bound.zero_shot().predict(DEV, NOTHING)
    gold = [row.fields["label"] for row in DEV]
    for answers, matrix in ((tuned().answers(DEV), found.after), (frozen, found.before)):
        said = [each["label"] for each in answers]
        assert np.array_equal(matrix, confusion_matrix(gold, said, labels=list(found.labels)))


def test_rows_helped_most_gain_most_of_the_right_labels_probability() -> None:
    found = measure_changes(subject()).rows
    old, new = tuned().bound.zero_shot().predict(DEV, NOTHING), tuned().answers(DEV)
    gains = sorted(
        100 * (b["probabilities"][row.fields["label"]] - a["probabilities"][row.fields["label"]])
        for row, a, b in zip(DEV, old, new, strict=True)
    )
    assert [each.by for each in found.helped] == pytest.approx(
        [gain for gain in gains[::-1][:5] if gain > 0], abs=1e-4
    )
    assert [each.by for each in found.hurt] == pytest.approx(
        [gain for gain in gains[:5] if gain < 0], abs=1e-4
    )


def test_bins_hold_answers_by_probability() -> None:
    chances = [0.55, 0.6, 0.95, 0.91, 0.99]
    found = bins([answered("a", "a" if n % 2 else "b", p) for n, p in enumerate(chances)])
    assert [each.rows for each in found] == [2, 3]
    assert found[0].probability == pytest.approx(0.575)
    assert [each.right for each in found] == pytest.approx([0.5, 1 / 3])


def test_the_verdict_says_what_is_clear_and_no_more() -> None:
    def said(low: float, high: float) -> str:
        bare = System("untouched", "untouched model", 50, 60, 50, 70, Interval(20, low, high))
        mine = System("prompt", "mine", 50, 80, 70, 90)
        return verdict(Quality("accuracy", "right answers", True, [mine, bare], None, 3, 0, []))

    assert said(10, 30) == (
        "80 of 100 answers are right (70 to 90) on 50 rows: 20 points better than the untouched "
        "model; 3 of the rows are training rows, which flatters the score."
    )
    assert "not clearly better or worse than the untouched model" in said(-1, 41)


def test_rows_that_stay_as_they_are_change_no_answer() -> None:
    found = measure_robustness(subject())
    plain = evaluate(tuned(), DEV, report=SILENT)
    assert found.rows == 40
    assert found.score == plain["accuracy"]
    names = [each.name for each in found.variants]
    assert names == ["reworded", "misspelled", "shortened to half"]
    assert any("no words of its own" in each.reason for each in found.left_out)


def test_states_of_one_kind_are_near_and_of_two_far() -> None:
    rng = np.random.default_rng(0)
    one, same = rng.normal(size=(80, 5)), rng.normal(size=(80, 5))
    near, far = state_distance(one, same), state_distance(one, same + 3)
    assert near.means < 0.5
    assert far.means == pytest.approx(3, abs=0.5)  # 3 in each of 5, over a spread of root 5
    assert far.told_apart > 99
    assert 30 < near.told_apart < 70


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_perplexity_is_that_of_the_models_own_loss(family: str) -> None:
    backbone = get(family)
    text = "film it was and a good film it was bad and good film a it was"
    found = measure_perplexity(backbone, NOTHING, [("it was", " " + text)], "texts")
    assert found.before == pytest.approx(found.after)
    assert 1 < found.before < 10 * backbone.vocabulary
    if family == "llama":
        first, words = backbone.text.around[0], backbone.text
        lead, own = [*first, *words.ids("it was")], words.ids(" " + text)
        ids = torch.tensor([[*lead, *own]])
        gold = ids.masked_fill(torch.arange(ids.shape[1]) < len(lead), -100)
        with torch.no_grad():
            loss = backbone.model(ids, labels=gold).loss
        assert found.before == pytest.approx(math.exp(float(loss)), rel=1e-4)
        assert found.tokens == len(own)


def test_answers_are_asked_for_once(tmp_path: Path) -> None:
    kept, asked = KeptAnswers(tmp_path / "kept.jsonl"), list[int]()

    def answer(given: Any) -> list[dict[str, Any]]:
        asked.append(len(given))
        return [{"label": row.where} for row in given]

    assert [e["label"] for e in kept.ask("s", DEV[:3], answer)] == [row.where for row in DEV[:3]]
    kept.ask("s", DEV[:3], answer)
    again = KeptAnswers(tmp_path / "kept.jsonl")
    again.ask("s", DEV[:5], answer)  # two more than before
    again.ask("other", DEV[:1], answer)
    assert asked == [3, 2, 1]


def test_a_probe_is_fitted_anew_where_labels_are_mended() -> None:
    kept = KeptAnswers()
    one = subject(kept=kept)
    assert not isinstance(one.probed, LeftOut)
    before = len(kept.held)
    other_way = {"good": "bad", "bad": "good"}
    train = [Row({**r.fields, "label": other_way[r.fields["label"]]}, r.where) for r in rows(12)]
    assert not isinstance(replace(one, train=train).probed, LeftOut)
    assert len(kept.held) == before + len(DEV)


def test_texts_too_short_to_score_have_no_perplexity() -> None:
    assert measure_perplexity(get(), NOTHING, [("", "good film")], "short").tokens == 0


def test_two_prompts_are_compared_by_mcnemar_and_on_every_set() -> None:
    side = pair().side_by_side
    assert side is not None
    rights = [
        [a["label"] == row.fields["label"] for a, row in zip(p.answers(DEV), DEV, strict=True)]
        for p in (tuned(), other())
    ]
    assert side.pairs[0].mcnemar == mcnemar(*rights)
    ahead = 100 * (sum(rights[0]) - sum(rights[1])) / len(DEV)
    assert side.pairs[0].ahead.value == pytest.approx(ahead)
    cell = side.cells["mine", "more"]
    assert isinstance(cell, Cell)
    assert cell.score == evaluate(tuned(), rows(12, 300), report=SILENT)["accuracy"]


def test_what_it_costs_is_in_its_file() -> None:
    cost = whole().chapters[0].cost
    assert cost is not None
    numbers = sum(tensor.numel() for tensor in tuned().tensors().values())
    assert (cost.numbers, cost.positions) == (numbers, 3)
    assert cost.bytes == 4 * numbers


@pytest.mark.parametrize(
    "method",
    [Soft(length=3, rate=0.02), Several((Prefix(length=2, upper=1), Lora(rank=2)))],
    ids=["soft", "prefix+lora"],
)
def test_the_command_makes_the_same_prompt_again(method: Any) -> None:
    training = Training(epochs=1, batch_size=4, warmup=0.2, compile="off")
    prompt = toy_run(None, method=method, training=training)
    meta = prompt.metadata()
    words = shlex.split(
        command_of(meta, {"train": "a b.jsonl", "data": "dev.jsonl"}), comments=True
    )[1:]
    _, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    made = settings(given.arguments["flags"], None)
    assert (made.plain["train"], made.plain["dev"]) == ("a b.jsonl", "dev.jsonl")
    asked, had = plain(made.training), dict(meta["method"]["training"])
    rate = asked.pop("rate") or made.method.rate  # a rate that is asked for is that of the method
    assert rate == (had.pop("rate") or method.rate)
    assert asked == had
    kept = {k: v for k, v in meta["method"].items() if k not in ("name", "trained", "training")}
    got = plain(made.method)
    for own, old in zip(got.get("methods", [got]), kept.get("methods", [kept]), strict=True):
        assert {**own, "rate": old["rate"]} == old
    assert made.task.template == prompt.task.template


@pytest.mark.parametrize(
    ("task", "method"),
    [
        (Score("{text} :", anchors={" bad": 1.0, " good": 5.0}), Soft(length=2)),
        (Score("{text} :", low=1, high=5), Lora(rank=2, targets=("q_proj",))),
        (
            Multilabel(
                "{text} :",
                {"good": (" fine",), "bad": (" poor",)},
                thresholds={"good": 0.3, "bad": 0.4},
            ),
            Context(shots=4, leave_one_out=False),
        ),
    ],
    ids=["anchors", "targets", "thresholds"],
)
def test_the_command_says_lists_and_what_is_off(task: Any, method: Any) -> None:
    of_file = replace(task, fit_thresholds="off") if isinstance(task, Multilabel) else task
    about = {
        **tuned().metadata(),
        "task": {"name": name_of(task), **plain(of_file)},
        "method": {"name": kind_of(method), **plain(method), "training": plain(Training())},
    }
    words = shlex.split(command_of(about, {"train": "t.jsonl"}))[1:]
    _, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    made = settings(given.arguments["flags"], None)
    assert (made.task, made.method) == (task, method)


def test_the_command_fits_thresholds_again() -> None:
    for fits, said in (("shared", ""), ("own", " --fit-thresholds own")):
        task = Multilabel("{text} :", None, thresholds={"good": 0.3}, fit_thresholds=fits)
        about = {**tuned().metadata(), "task": {"name": "multilabel", **plain(task)}}
        assert command_of(about, {}).count("thresholds") == bool(said)
        assert said in command_of(about, {})


def test_the_command_says_how_the_model_is_run(tmp_path: Path) -> None:
    """Where its folder does not, such as a causal model that is run as an encoder."""
    folder = tmp_path / "model"
    get().model.save_pretrained(folder)
    get().text.tokenizer.save_pretrained(folder)
    about = {**tuned().metadata()}
    own = {"name": str(folder), "architecture": "causal"}
    assert "--architecture" not in command_of({**about, "backbone": own}, {})
    other = {"name": str(folder), "architecture": "encoder", "pooling": "last"}
    for name in (str(folder), "someone/not-here"):
        command = command_of({**about, "backbone": {**other, "name": name}}, {})
        assert "--architecture encoder --pooling last" in command
    elsewhere = {**own, "name": "someone/not-here"}
    assert "--architecture" not in command_of({**about, "backbone": elsewhere}, {})


def test_a_list_that_is_too_long_for_a_command_is_left_to_the_file() -> None:
    task = Rank(catalogue=tuple(f"film {n}" for n in range(21)))
    about = {**tuned().metadata(), "task": {"name": "rank", **plain(task)}}
    command = command_of(about, {})
    assert command.endswith("  # --catalogue: as in the prompt file")
    assert "film" not in command


def test_the_command_decodes_as_the_run_did() -> None:
    task = Generate("{text} :", decoding=Decoding(max_new_tokens=7, stop=("\n",), seed=3))
    about = {**tuned().metadata(), "task": {"name": "generate", **plain(task)}}
    words = shlex.split(command_of(about, {"train": "t.jsonl"}))[1:]
    _, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    made = settings(given.arguments["flags"], None)
    assert made.task == replace(task, decoding=replace(task.decoding, seed=0))
    assert made.plain["dev"] is None


@pytest.mark.parametrize("held", ["a file", "held back", "others"])
def test_the_command_names_the_rows_of_the_run(held: str, tmp_path: Path) -> None:
    """Not those of the page, where they are others."""
    train = write(tmp_path / "train.jsonl", rows(12))
    dev = write(tmp_path / "dev.jsonl", rows(40, 100))
    out, given = tmp_path / "p.safetensors", None if held == "held back" else dev
    prompt = tune_prompt(
        get(), Classify("{text} :"), Soft(length=2), train, given, out=out, report=SILENT
    )
    if held == "others":
        log_path(out).unlink()
    page = {"train": as_rows(train), "rows": as_rows(train if held == "others" else dev)}
    about = replace(subject(replace(prompt, where=str(out))), **page)
    words = shlex.split(describe_making(about, {"train": "T", "data": "these rows"}).command)
    assert words[words.index("--train") + 1] == str(train)
    assert (str(dev) in words, "--dev" in words) == ((held == "a file"),) * 2
    some = replace(about, train=[*about.rows, *rows(50, 700)])
    comment = "  # it learned 12 of these" if held != "held back" else "  # it learned 11 of these"
    assert comment in describe_making(some, {"train": "T"}).command
    drawn = describe_making(some, {"train": "T", "per_label": "5"}).command
    assert "--per-label 5" in drawn
    assert "#" not in drawn


def test_what_a_flag_cannot_say_of_one_method_alone_is_a_comment() -> None:
    meta = tuned().metadata()
    two = {"name": "prefix+head", "methods": [{"shots": 10, "rate": 0.005}, {"shots": None}]}
    command = command_of({**meta, "method": two}, {})
    assert command.endswith("  # prefix: --shots 10")
    assert "--rate" not in command


def test_each_task_has_its_own_score_of_a_row() -> None:
    texts = [Answered("", ["a b", "c"], "a b", None, True, Row({}, ""), {"text": "a b"})]
    assert row_scores(texts).values == pytest.approx([100.0])
    number = [Answered("", 2.0, 3.5, None, None, Row({}, ""), {"score": 3.5})]
    assert row_scores(number).values == [-1.5]
    tags = [Answered("", ["x", "y"], ["x", "x"], None, False, Row({}, ""), {"tags": ["x", "x"]})]
    assert row_scores(tags).values == [50.0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no rows"),
        ([{"text": "a film", "label": "good"}] * 3, "all 3 rows have the label 'good'"),
        ([{"text": "a film", "label": "3"}, {"text": "b", "label": "bad"}], "'3'"),
        ([{"prompt": "a", "completion": "b"}], "text"),
    ],
)
def test_rows_of_another_kind_are_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        report_on(tuned(), given, report=SILENT)
