"""Calibration, demonstrations in a template, and searched label words, against plain arithmetic."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.base import Method
from foreword.methods.head import Head
from foreword.methods.parts.head_starts import words as words_head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.search import TRIALS, choose_words
from foreword.tasks.rank import Rank
from foreword.tasks.score import Score
from foreword.tasks.templates.demonstrations import draw_pool, mean_states
from foreword.training.settings import Training
from foreword.training.tune import tune
from plain import twin
from toys import Counts, Lines, get, rows

FEW = ("llama", "gpt2", "bert", "t5")
WORDS = {"good": " good", "bad": " bad"}


def task(name: str, **changes: Any) -> Classify:
    asked = "{text} : [mask] ." if get(name).architecture == "masked" else "{text} :"
    return Classify(**{"template": asked, "labels": WORDS, **changes})


def chances(bound: Classifier, given: list[Row], injection: Any = NOTHING) -> np.ndarray:
    found = bound.predict(given, injection)
    return np.array([list(each["probabilities"].values()) for each in found])


# Calibration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("way", "blanks"), [("contextual", ["N/A", "", "[MASK]"]), ("pmi", [""])])
def test_calibration_divides_by_the_blank_rows(name: str, way: str, blanks: list[str]) -> None:
    given = rows(5)
    raw = chances(task(name).bind(get(name)), given)
    bare = task(name).template or ""
    texts = [text.replace("[", "[[").replace("]", "]]") for text in blanks]
    written = [replace(task(name), template=bare.replace("{text}", text)) for text in texts]
    empty = [chances(each.bind(get(name)), given[:1]) for each in written]
    prior = np.concatenate(empty).mean(0)
    want = raw / prior
    found = chances(task(name, calibration=way).bind(get(name)), given)
    np.testing.assert_allclose(found, want / want.sum(1, keepdims=True), rtol=1e-4)


def test_each_part_of_a_mixture_has_blank_rows_of_its_own() -> None:
    base, given = get(), rows(4)
    bound = task("llama", calibration="contextual").bind(base)
    parts = []
    for seed in (0, 1):
        with torch.no_grad():
            made = Prefix(length=3, start="random").build(bound, given, seed)()
        assert not isinstance(made, Mixture)
        parts.append(made.map(lambda t, seed=seed: t + seed))
    mixed = chances(bound, given, Mixture(tuple(parts), [0, 1, 1, 0]))
    apart = [chances(bound, given, part) for part in parts]
    np.testing.assert_allclose(
        mixed, np.stack([apart[n][i] for i, n in enumerate([0, 1, 1, 0])]), rtol=1e-4
    )


def test_no_rows_are_no_mistake() -> None:
    assert task("llama", calibration="pmi").bind(get()).predict([], NOTHING) == []


def test_a_template_of_a_field_alone_has_no_blank_row() -> None:
    bound = task("llama", template="{text}", calibration="pmi").bind(get())
    assert not bound.backbone.text.around[0]
    with pytest.raises(UserError, match="no text of its own"):
        bound.predict(rows(1), NOTHING)


# Demonstrations in the template ----------------------------------------------------------------


def drawn(name: str, given: list[Row], **changes: Any) -> Classifier:
    asked = "say what it is \n{demos:2}{text} :"
    made = task(name, template=asked, **changes).fill_from_rows(get(name), given, 0)
    bound = made.bind(get(name))
    assert isinstance(bound, Classifier)
    return bound


@pytest.mark.parametrize("choice", ["balanced", "random", "nearest"])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_rows_are_shown_as_text_and_none_sees_itself(name: str, choice: str) -> None:
    given = rows(8)
    twice = [*given, *(replace(row, where="again") for row in given)]
    bound = drawn(name, twice, demos=choice)
    base = get(name)
    for row in given:
        shown = bound.demos_before([row])[0]
        assert len(set(shown)) == 2
        assert bound.demonstration(row) not in shown
        whole = "say what it is \n" + "".join(shown) + f"{row.fields['text']} :"
        plain = Classify(template="{text}", labels=WORDS).bind(base)
        want = plain.dev_example(Row({"text": whole, "label": row.fields["label"]}, ""), 10**6)
        assert bound.dev_example(row, 10**6).example.ids == want.example.ids


def test_balanced_ones_are_of_all_classes_and_do_not_repeat_the_description() -> None:
    bound = drawn("llama", rows(8))
    shown = bound.demos_before([Row({"text": "a new text"}, "")])[0]
    assert {text.split()[-1] for text in shown} == {"good", "bad"}
    assert not any("say" in text for text in shown)


def test_the_nearest_is_by_the_cosine_of_mean_states() -> None:
    given = rows(10)
    bound = drawn("llama", given, demos="nearest")
    asked = "a film it was a"
    model = twin(get())

    def mean(text: str) -> Tensor:
        ids = [*get().text.around[0], *get().text.ids(text)]
        out = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        return out[len(get().text.around[0]) :].mean(0).detach()

    pool = torch.stack([mean(str(row.fields["text"])) for row in given])
    near = torch.cosine_similarity(pool - pool.mean(0), mean(asked) - pool.mean(0))
    want = [bound.demonstration(given[int(n)]) for n in near.argsort(descending=True)[:2]]
    assert bound.demos_before([Row({"text": asked}, "")])[0] == want[::-1]


@pytest.mark.parametrize("verbalizer", ["search", "refine", "autoprompt"])
def test_what_is_read_before_a_training_is_counted(verbalizer: str) -> None:
    given, counts = rows(12), Counts()
    task("llama", verbalizer=verbalizer).fill_from_rows(get(), given, 0, counts)
    total, moves = counts.heard["choosing label words"]
    assert total == sum(moves) == (24 if verbalizer == "search" else 12)


def test_demonstrations_are_embedded_once_and_counted() -> None:
    bound, counts = drawn("llama", rows(10), demos="nearest"), Counts()
    expected = drawn("llama", rows(10), demos="nearest").demos_before(rows(3, 50))
    for _ in range(2):
        bound.embed_demonstrations(counts)
    total, moves = counts.heard["reading demonstrations"]
    assert total == sum(moves) == 10
    assert bound.demos_before(rows(3, 50)) == expected
    drawn("llama", rows(10)).embed_demonstrations(other := Counts())
    assert not other.heard


def test_a_long_row_loses_demonstrations_before_its_own_text() -> None:
    bound = drawn("llama", rows(8))
    row = Row({"text": "a new text", "label": "good"}, "f:1")
    full = len(bound.dev_example(row, 10**6).example.ids)
    short = bound.dev_example(row, full - 1)
    assert short.truncated
    text = get().text.decode(list(short.example.ids))
    last = bound.demos_before([row])[0][-1].split()[0]
    assert "text" in text
    assert last in text
    with pytest.raises(UserError, match="template alone"):
        bound.dev_example(row, 4)


def test_a_prompt_file_alone_shows_its_rows(tmp_path: Any) -> None:
    given = rows(12)
    asked = task("llama", template="{demos:2}{text} :", demos="nearest", calibration="contextual")
    made = tune(
        get(),
        asked,
        Soft(length=2),
        given,
        rows(4, 50),
        training=Training(epochs=1),
        out=tmp_path / "p.safetensors",
    )
    again = Prompt.load(tmp_path / "p.safetensors", get())
    new = rows(3, 70)
    assert again.answers(new) == made.answers(new)
    kept = again.task
    assert isinstance(kept, Classify)
    assert kept.shown is not None
    assert len(kept.shown) == 12


def test_too_few_rows_to_show() -> None:
    with pytest.raises(UserError, match="needs 3 training rows of different texts"):
        drawn("llama", rows(2) * 3)
    with pytest.raises(UserError, match="rows are there to show"):
        task("llama", template="{demos:2}{text} :").bind(get()).predict(rows(1), NOTHING)
    with pytest.raises(UserError, match=r"has no \{demos:N\}"):
        task("llama", demos="nearest").fill_from_rows(get(), rows(4), 0)


# Search ----------------------------------------------------------------------------------------


def test_the_best_combination_is_that_of_trying_all() -> None:
    table = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    gold = torch.tensor([0, 1, 2] * 4)
    lists = [[0, 1, 2, 3], [2, 3, 4, 5], [6, 7, 8, 0]]
    found = choose_words(table, gold, lists)

    def worth(chosen: tuple[int, ...]) -> tuple[int, float]:
        scores = table.numpy()[:, list(chosen)].astype(float)
        own = scores[range(12), gold.numpy()] - np.log(np.exp(scores).sum(1))
        return int((scores.argmax(1) == gold.numpy()).sum()), round(float(own.mean()), 5)

    every = [c for c in product(*lists) if len(set(c)) == 3]
    assert worth(tuple(found)) == max(map(worth, every))


def test_many_labels_are_searched_one_by_one() -> None:
    size = 12
    assert 8**size > TRIALS
    table = torch.eye(size).repeat(2, 1) + 0.1 * torch.randn(
        2 * size, size, generator=torch.Generator().manual_seed(0)
    )
    gold = torch.arange(size).repeat(2)
    assert choose_words(table, gold, [list(range(size))] * size) == list(range(size))


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "bart"])
def test_found_words_are_one_token_each_and_no_worse(name: str) -> None:
    given, heard = rows(12), []
    made = task(name, verbalizer="search").fill_from_rows(get(name), given, 0, Lines(heard))
    assert isinstance(made, Classify)
    assert made.verbalizer == "manual"
    assert made.labels is not None
    bound = made.bind(get(name))
    begins = get(name).text.around[0] if get(name).architecture == "encoder-decoder" else ()
    for own in bound.words.values():
        assert len(own) == 1
        assert len(bound.spell(own[0])) == len(begins) + 1
        assert own[0] in heard[-1]

    def right(bound: Classifier) -> int:
        found = bound.predict(given, NOTHING)
        return sum(f["label"] == r.fields["label"] for f, r in zip(found, given, strict=True))

    assert right(bound) >= right(task(name).bind(get(name))) or name == "bert"
    assert made.fill_from_rows(get(name), given, 0) == made


def test_refining_keeps_the_likelier_half() -> None:
    many = {"good": [" good", " film", " was"], "bad": [" bad", " it", " and"]}
    base, given = get(), rows(6)
    made = task("llama", labels=many, verbalizer="refine").fill_from_rows(base, given, 0)
    assert isinstance(made, Classify)
    assert made.labels is not None
    prior = torch.zeros(base.vocabulary)
    model = twin(base)
    for row in given:
        ids = [*base.text.around[0], *base.text.ids(f"{row.fields['text']} :")]
        prior += model(torch.tensor([ids])).logits[0, -1].detach().softmax(0)
    spelled = task("llama", labels=many).bind(base).spell
    p = {word: float(prior[spelled(word)[0]]) for own in many.values() for word in own}
    least = sorted(p.values())[3]
    for label, own in many.items():
        want = [w for w in own if p[w] >= least] or [max(own, key=lambda w: p[w])]
        assert list(made.labels[label]) == want


def test_a_label_without_rows_cannot_be_searched() -> None:
    given = [row for row in rows(8) if row.fields["label"] == "good"]
    with pytest.raises(UserError, match="label 'bad' has no training row"):
        task("llama", verbalizer="search").fill_from_rows(get(), given, 0)


# Heads that begin as words or prototypes -------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "granite", "phi"])
def test_a_head_of_words_gives_the_verbalizers_scores(name: str) -> None:
    bound, given = task(name).bind(get(name)), rows(4)
    assert all(len(bound.spell(words[0])) == 1 for words in bound.words.values())
    with torch.no_grad():
        made = Head(head_start="words").build(bound, given, 0)()
    want = chances(bound, given)
    np.testing.assert_allclose(chances(bound.with_head(), given, made), want, rtol=2e-3)


def test_scores_that_are_not_linear_are_refused() -> None:
    bound = task("bert").bind(get("bert"))
    with pytest.raises(UserError, match="transforms or caps"):
        words_head(bound, None)
    with pytest.raises(UserError, match="has no label words"):
        words_head(Rank(template="{history}").bind(get()), None)


def test_a_head_may_begin_as_the_words_of_a_score() -> None:
    bound = Score(template="{text} :", anchors={" good": 1.0, " bad": 0.0}).bind(get())
    given = [Row({"text": "a film"}, "F:1"), Row({"text": "it was"}, "F:2")]
    injection = Injection(head=words_head(bound, None))
    expected = [answer["score"] for answer in bound.predict(given, NOTHING)]
    found = [answer["score"] for answer in bound.with_head().predict(given, injection)]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", FEW)
def test_prototypes_are_nearest_class_means(name: str) -> None:
    given, new = rows(10), rows(4, 40)
    bound = task(name).bind(get(name))
    with torch.no_grad():
        made = Head(head_start="prototypes").build(bound, given, 0)()
    headed = bound.with_head()

    def states(own: list[Row]) -> np.ndarray:
        items = [headed.dev_example(row, 10**6).example for row in own]
        return torch.cat(states_of(get(name), NOTHING, items)).double().numpy()

    known, asked = states(given), states(new)
    mean, spread = known.mean(0), known.std(0)
    labels = np.array([row.fields["label"] for row in given])
    centres = np.stack([((known - mean) / spread)[labels == n].mean(0) for n in ("good", "bad")])
    z = (asked - mean) / spread
    scores = -((z[:, None] - centres) ** 2).sum(2) / z.shape[1]
    want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(chances(headed, new, made), want, rtol=2e-3)


@pytest.mark.parametrize("start", ["words", "prototypes"])
@pytest.mark.parametrize("method", [Soft(length=2), Prefix(length=2)])
def test_such_heads_are_trained_beside_others(start: Any, method: Method) -> None:
    made = tune(
        get(),
        task("llama"),
        Several((method, Head(head_start=start))),
        rows(8),
        rows(4, 50),
        training=Training(epochs=1),
    )
    assert made.injection.head is not None
    assert len(made.answers(rows(3, 80))) == 3


def test_prototypes_need_rows_of_every_class() -> None:
    given = [row for row in rows(8) if row.fields["label"] == "good"]
    with pytest.raises(UserError, match="there are none for bad"):
        Head(head_start="prototypes").build(task("llama").bind(get()), given, 0)


# Languages -------------------------------------------------------------------------------------


@pytest.mark.smollm2
@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["فيلم جميل جدا", "فيلم سيئ"], {"pos": " جيد", "neg": " سيئ"}),
        (["סרט נהדר", "סרט גרוע"], {"pos": " טוב", "neg": " רע"}),
        (["很好的酒店", "很差的酒店"], {"pos": "满意极了", "neg": "非常失望"}),
    ],
    ids=["arabic", "hebrew", "chinese"],
)
def test_words_of_several_tokens_in_any_script(texts: list[str], labels: dict[str, str]) -> None:
    smollm2 = Backbone.load("smollm2")
    given = [Row({"text": t, "label": n}, "") for t, n in zip(texts, labels, strict=True)] * 2
    asked = Classify(template="{demos:1}{text}\n答:", labels=labels, calibration="contextual")
    made = asked.fill_from_rows(smollm2, given, 0)
    bound = made.bind(smollm2)
    assert isinstance(bound, Classifier)
    assert all(len(bound.spell(words[0])) > 1 for words in bound.words.values())
    for row in given:
        example = bound.dev_example(row, 10**6).example
        text = smollm2.text.decode(list(example.ids))
        assert str(row.fields["text"]) in text
        assert bound.demos_before([row])[0][0] in text
    np.testing.assert_allclose(chances(bound, given).sum(1), 1, rtol=1e-5)


def test_the_states_of_an_empty_text_are_finite() -> None:
    for name in FEW:
        assert bool(mean_states(get(name), ["", "a film"]).isfinite().all())


def test_drawing_is_by_the_seed() -> None:
    given, bound = rows(12), task("llama").bind(get())
    keys = [bound.key(row) for row in given]
    one, two = (draw_pool(bound, keys, given, 3, "random", seed) for seed in (0, 1))
    assert one == draw_pool(bound, keys, given, 3, "random", 0) != two
