"""Relations: what is asked, which words answer, and rows that name what is not there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from families import CAUSAL, MASKED, SEQ2SEQ, backbone
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.metrics.relations import relations
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.relate import Relate, phrase

FAMILIES = {f.name: f for f in (CAUSAL[0], MASKED[0], SEQ2SEQ[0])}
SEMEVAL = [
    f"{name}({way})"
    for name in (
        "Cause-Effect",
        "Component-Whole",
        "Content-Container",
        "Entity-Destination",
        "Entity-Origin",
        "Instrument-Agency",
        "Member-Collection",
        "Message-Topic",
        "Product-Producer",
    )
    for way in ("e1,e2", "e2,e1")
] + ["Other"]
ROWS = [
    Row({"text": "rain after wind", "head": "wind", "tail": "rain", "label": label}, f"F:{n}")
    for n, label in enumerate(["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other"], 1)
]
MORE = [
    Row({"text": f"{a} after {b}", "head": b, "tail": a, "label": label}, f"F:{a}{b}")
    for a, b, label in [("rain", "wind", "Other"), ("film", "bad", "A(e1,e2)"), ("a", "b", "Other")]
]


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def test_all_relations_of_semeval_have_words_of_their_own() -> None:
    words = {phrase(label) for label in SEMEVAL}
    assert len(words) == 19
    assert {" component and whole", " whole and component", " other"} <= words
    assert phrase("founded_by(e1,e2)") == " founded by"
    assert phrase("per:children(e2,e1)") == " children and per"
    assert phrase("place_of_birth") == " place of birth"


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_asked_for_the_relation_of_head_and_tail(name: str) -> None:
    task = Relate().complete(ROWS, get(name)).bind(get(name))
    task.check(ROWS, answers=True)
    end = "." if name == "bert" else ""
    shown = "rain after wind\nwind and rain are"
    assert task.demonstration(ROWS[0]) == f"{shown} cause and effect{end}\n\n"
    assert task.demonstration(ROWS[1]) == f"{shown} effect and cause{end}\n\n"
    found = task.predict(ROWS, NOTHING)
    assert set(found[0]["probabilities"]) == {row.fields["label"] for row in ROWS}
    assert task.headline == task.metric == "official_f1"


def test_the_dev_score_is_that_of_the_evaluation() -> None:
    task = Relate().complete(ROWS, get("llama")).bind(get("llama"))
    rows = [row for _ in range(3) for row in ROWS]
    items = [task.dev_example(row, 200) for row in rows]
    sums = [0.0] * 3 * len(task.labels)
    for group, logits in infer(
        task.backbone, NOTHING, [item.example for item in items], 60, tokens=task.tokens
    ):
        found = task.dev_counts(logits, [items[i] for i in group])
        sums = [a + b for a, b in zip(sums, found, strict=True)]
    scores = task.score(rows, task.predict(rows, NOTHING), 0)
    assert task.dev_score(sums) == pytest.approx(scores["official_f1"], abs=0.005)
    gold, guess = [str(r.fields["label"]) for r in rows], [*task.labels] * 3
    own = task.score(rows, [{"label": label} for label in guess], 0)
    assert own["official_f1"] == relations(gold, guess, task.labels, "Other")["official_f1"]
    assert {"accuracy", "macro_f1", "official_f1"} <= own["intervals"].keys()


def test_a_head_that_is_not_in_the_text_is_refused() -> None:
    task = Relate().complete(ROWS, get("llama")).bind(get("llama"))
    wrong = Row({**ROWS[0].fields, "tail": "snow"}, "F:9")
    with pytest.raises(UserError, match=r"F:9: tail 'snow' does not occur in the text"):
        task.check([wrong], answers=False)
    with pytest.raises(UserError, match=r"F:9: no field 'head'"):
        task.check([Row({"text": "a", "tail": "a"}, "F:9")], answers=False)
    bare = Relate(template="{text}:", labels={"A": " a", "B": " b"}).bind(get("llama"))
    with pytest.raises(UserError, match=r"F:9: missing field 'head'"):
        bare.check([Row({"text": "a", "tail": "a"}, "F:9")], answers=False)


def asked(name: str, **changes: object) -> Relate:
    end = "[mask] ." if get(name).architecture == "masked" else ""
    labels = {"A(e1,e2)": " good", "Other": " bad"}
    settings = {"template": f"{{text}} : {{head}} {{tail}} {end}", "labels": labels}
    return Relate(**{**settings, **changes})  # type: ignore[arg-type]


def chances(task: Relate, name: str, rows: list[Row]) -> np.ndarray:
    found = task.bind(get(name)).predict(rows, NOTHING)
    return np.array([list(each["probabilities"].values()) for each in found])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("way", "blanks"), [("contextual", ["N/A", "", "[[MASK]]"]), ("pmi", [""])]
)
def test_calibration_blanks_every_field(name: str, way: str, blanks: list[str]) -> None:
    plain, raw = asked(name).template or "", chances(asked(name), name, MORE)
    prior = 0
    for text in blanks:
        written = plain.replace("{text}", text).replace("{head}", text).replace("{tail}", text)
        prior = prior + chances(asked(name, template=written), name, MORE[:1])
    want = raw / prior
    found = chances(asked(name, calibration=way), name, MORE)
    np.testing.assert_allclose(found, want / want.sum(1, keepdims=True), rtol=1e-4)
    assert abs(found - raw).max() > 1e-3


@pytest.mark.parametrize("choice", ["balanced", "random", "nearest"])
@pytest.mark.parametrize(
    "template", ["{demos:2}{text}\n{head} and {tail} are", "{demos:2}{text} :"]
)
def test_rows_are_shown_with_their_relations(choice: str, template: str) -> None:
    made = asked("llama", template=template, demos=choice).fill_from_rows(get("llama"), MORE, 0)
    assert isinstance(made, Relate)
    assert made.shown is not None
    assert all(set(row) == {"text", "head", "tail", "label"} for row in made.shown)
    bound = made.bind(get("llama"))
    assert isinstance(bound, Classifier)
    for row in MORE:
        others = {bound.demonstration(other) for other in MORE if other is not row}
        shown = bound.demos_before([row])[0]
        assert set(shown) == others
        asks = template.removeprefix("{demos:2}")
        own = asked("llama", template="".join(shown).replace("{", "{{") + asks).bind(get("llama"))
        assert bound.dev_example(row, 10**6).example == own.dev_example(row, 10**6).example
    assert made.fill_from_rows(get("llama"), MORE, 1) == made


def test_relations_to_show_are_checked() -> None:
    task = asked("llama", template="{demos:1}{text} :", shown=[{"text": "a b", "label": "Other"}])
    with pytest.raises(UserError, match="demonstration 1: missing field 'head'"):
        task.bind(get("llama")).predict(MORE, NOTHING)
    with pytest.raises(UserError, match=r"the template has no \{demos:N\}"):
        asked("llama", demos="nearest").fill_from_rows(get("llama"), MORE, 0)
