"""Tagging: each word's tag beside its branch run alone, valid BIO sequences, and rows in order."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import CAUSAL, MASKED, SEQ2SEQ, backbone
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.metrics.bio import follows
from foreword.tasks.gold import texts_of
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.tag import Tag, best_bio_path, join_words, left_contexts, tag_words
from plain import next_logits, twin

FAMILIES = {f.name: f for f in [CAUSAL[0], CAUSAL[4], CAUSAL[12], MASKED[0], MASKED[1], *SEQ2SEQ]}
WORDS = {"NOUN": " film", "ADJ": (" good", " a bad"), "DET": " it"}
SENTENCE = ["a", "good", "film0123", "and", "a", "film", "电影"]
TAGS = ["DET", "ADJ", "NOUN", "NOUN", "DET", "NOUN", "NOUN"]


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def row(tokens: Any = SENTENCE, tags: Any = TAGS, line: int = 1, **more: Any) -> Row:
    return Row({"tokens": tokens, "tags": tags, **more}, f"F:{line}")


def bound(name: str, **more: Any) -> Classifier:
    task = Tag(**{"labels": WORDS, **more})
    return task.complete([row()], get(name)).bind(get(name))


def scores(task: Classifier, given: Row, injection: Injection = NOTHING) -> torch.Tensor:
    """Log-probabilities of the tags, (words, tags), by the sentence's one pass."""
    item = task.dev_example(given, task.backbone.longest)
    ((_, logits),) = infer(task.backbone, injection, [item.example], tokens=task.tokens)
    return task.verbalizer.scores(logits, [item.example] * len(SENTENCE)).double()


# Words as branches ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.architecture != "masked"])
def test_a_words_tag_equals_its_branch_run_alone(name: str) -> None:
    """A softmax over what goes on at each token, by unbatched passes of a plain model."""
    base, model = get(name), twin(get(name))
    text = base.text.ids
    sentence = text(join_words(SENTENCE))
    branches = [
        text(f"\n{' '.join([*left, word])}:")
        for word, left in zip(SENTENCE, left_contexts(SENTENCE), strict=True)
    ]
    paths = [("NOUN", text(" film")), ("ADJ", text(" good")), ("ADJ", text(" a bad"))]
    paths.append(("DET", text(" it")))
    expected = []
    for branch in branches:
        mass = dict.fromkeys(WORDS, 0.0)
        for label, path in paths:
            chance = 1.0
            for size, token in enumerate(path):
                if base.architecture == "causal":
                    logits = next_logits(model, [*sentence, *branch], path[:size])
                else:
                    logits = next_logits(model, sentence, [*branch, *path[:size]])
                on = sorted({p[size] for _, p in paths if p[:size] == path[:size]})
                chance *= float(logits[on].softmax(0)[on.index(token)])
            mass[label] += chance
        expected.append(list(mass.values()))
    found = scores(bound(name), row()).exp()
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-4, atol=1e-6)


def test_a_words_hole_stands_behind_the_sentence_and_the_word() -> None:
    base, model = get("bert"), twin(get("bert"))
    text = base.text.ids
    task = bound("bert", labels={"NOUN": " film", "ADJ": " good"})
    found = scores(task, row(tags=["NOUN"] * 7)).exp()
    for place, (word, left) in enumerate(zip(SENTENCE, left_contexts(SENTENCE), strict=True)):
        ids = [*text(join_words(SENTENCE)), *text(f"\n{' '.join([*left, word])}:")]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([[*ids, 2]])).logits[0, -1].double()
        words = [text(" film")[0], text(" good")[0]]
        torch.testing.assert_close(found[place], out[words].softmax(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_the_loss_is_the_mean_over_words(name: str) -> None:
    task = bound(name)
    item = task.train_example(row(), task.backbone.longest)
    ((_, logits),) = infer(task.backbone, NOTHING, [item.example], tokens=task.tokens)
    (loss,) = task.losses(logits, [item])
    gold = [list(WORDS).index(tag) for tag in TAGS]
    table = scores(task, row())
    assert float(loss) == pytest.approx(-float(table[range(7), gold].sum()), rel=1e-5)
    assert task.units(item) == 7
    right = sum(int(best) == g for best, g in zip(table.argmax(1), gold, strict=True))
    assert task.dev_counts(logits, [item]) == (100.0 * right, 7.0)


@pytest.mark.parametrize("name", ["llama", "bert", "bart"])
def test_sentences_of_a_mixture_are_tagged_as_alone(name: str) -> None:
    base, task = get(name), bound(name)
    parts = tuple(Injection(embeds=base.embed(range(20, 20 + n)), leading=n) for n in (2, 5))
    given = [row(), row(["good", "film"], ["ADJ", "NOUN"], 2), row(["a"], ["DET"], 3)]
    mixed = task.predict(given, Mixture(parts, (1, 0, 1)))
    for each, part, answer in zip(given, (1, 0, 1), mixed, strict=True):
        (alone,) = task.predict([each], parts[part])
        assert len(answer["tags"]) == len(each.fields["tokens"])
        assert answer["tags"] == alone["tags"]
        assert answer["chances"] == pytest.approx(alone["chances"], rel=1e-4)


def test_a_head_scores_each_word_after_its_branch() -> None:
    for name in ("llama", "bert", "t5"):
        task = bound(name).with_head()
        item = task.dev_example(row(), task.backbone.longest)
        assert len(item.example.targets) == len(SENTENCE)
        for (branch, last), word in zip(item.example.targets[:-1], SENTENCE, strict=False):
            own = item.example.branches[branch]
            assert last == len(own) - 1
            assert word in task.backbone.text.decode(list(own))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_no_two_words_look_alike(words: list[str]) -> None:
    runs = [(*left, word) for left, word in zip(left_contexts(words), words, strict=True)]
    assert len(set(runs)) == len(words)
    for place, run in enumerate(runs):
        assert tuple(words[place + 1 - len(run) : place + 1]) == run
        if words.count(words[place]) == 1:
            assert run == (words[place],)
        if len(run) > 1:  # one word fewer would not do
            short = run[1:]
            ends = range(len(short), len(words) + 1)
            assert sum(tuple(words[e - len(short) : e]) == short for e in ends) > 1


def test_scripts_without_spaces_are_joined_without() -> None:
    assert join_words(["我", "爱", "电影"]) == "我爱电影"
    assert join_words(["a", "film", "电影"]) == "a film电影"


@pytest.mark.smollm2
def test_chinese_words_and_tags_of_many_tokens() -> None:
    base = Backbone.load("smollm2")
    given = row(["我", "爱", "我"], ["名", "动", "名"])
    task = Tag(labels={"名": "名词", "动": "动词"}).complete([given], base).bind(base)
    assert task.demonstration(given) == "我爱我\n我:名词\n爱:动词\n爱我:名词\n\n"
    assert all(len(path) > 2 for _, path in task.verbalizer.words)
    (answer,) = task.predict([given], NOTHING)
    assert len(answer["tags"]) == 3


def test_a_predicate_stands_in_the_template() -> None:
    task = bound(
        "llama",
        template="{tokens}\nWho does {predicate}?",
        word_template="\n{left}{word} ({predicate}):",
    )
    given = row(["a", "film"], ["DET", "NOUN"], predicate="was")
    task.check([given], answers=True)
    assert task.demonstration(given) == ("a film\nWho does was?\na (was): it\nfilm (was): film\n\n")
    with pytest.raises(UserError, match=r"F:1: no field 'predicate'"):
        task.check([row()], answers=True)


# Valid sequences ------------------------------------------------------------------------------

BIO = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def test_viterbi_is_the_best_of_all_valid_sequences() -> None:
    for seed in range(20):
        table = np.random.default_rng(seed).normal(size=(4, 5)) * 2
        best = max(
            (
                path
                for path in itertools.product(range(5), repeat=4)
                if all(
                    follows(BIO[a] if a is not None else "O", BIO[b])
                    for a, b in zip((None, *path), path, strict=False)
                )
            ),
            key=lambda path: sum(table[n, label] for n, label in enumerate(path)),
        )
        assert best_bio_path(table, BIO) == list(best)
    assert best_bio_path(np.array([[0.0, 0, 0, 9, 0]]), BIO) != [3]


def test_predictions_are_valid_and_have_spans() -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC"]
    task = Tag().complete([row(list("abcd"), tags)], get("llama")).bind(get("llama"))
    assert task.words["I-PER"] == (" inside person",)
    (answer,) = task.predict([row()], NOTHING)
    before = "O"
    for tag in answer["tags"]:
        assert follows(before, tag)
        before = tag
    for span in answer["spans"]:
        assert answer["tags"][span["start"]] == f"B-{span['type']}"
    assert task.headline == task.metric == "span_f1"
    found = task.score([row(list("abcd"), tags)], [{"tags": ["B-PER", "O", "O", "B-LOC"]}], 0)
    assert found["span_f1"] == 50.0


def test_the_dev_score_of_spans_is_that_of_the_evaluation() -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC"]
    given = [row(list("abcd"), tags), row(["film"], ["O"], 2), row(["it", "a"], ["B-LOC", "O"], 3)]
    task = Tag().complete(given, get("llama")).bind(get("llama"))
    items = [task.dev_example(each, 99) for each in given]
    sums = [0.0] * 3
    for group, logits in infer(
        task.backbone, NOTHING, [item.example for item in items], 40, tokens=task.tokens
    ):
        for n, own in enumerate(task.dev_counts(logits, [items[i] for i in group])):
            sums[n] += own
    expected = task.score(given, task.predict(given, NOTHING), 0)["span_f1"]
    assert task.dev_score(sums) == pytest.approx(expected, abs=0.005)


# Rows -----------------------------------------------------------------------------------------


def test_texts_are_parted_at_white_space() -> None:
    assert texts_of(row("a good film", "DET ADJ NOUN"), "tokens") == ["a", "good", "film"]
    bound("llama").check([row("a good film", "DET ADJ NOUN")], answers=True)


def test_usual_words_of_tags() -> None:
    assert tag_words("SCONJ") == " subordinating conjunction"
    assert tag_words("I-ORG") == " inside organization"
    assert tag_words("B-V") == " V"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (row(tags=TAGS[:-1]), "F:1: 7 words and 6 tags; give every word one tag"),
        (row(["a", " "], ["DET", "DET"]), "F:1: word 2 is empty; remove it with its tag"),
        (row([], []), 'F:1: field "tokens" is empty; fill it or remove the row'),
        (row(["a", 3], ["DET", "DET"]), 'F:1: field "tokens" holds what is no text'),
        (row({"a": 1}, []), 'F:1: field "tokens" is an object; give a list of texts'),
        (row(["a"], ["DTE"]), "F:1: unknown label 'DTE'; did you mean 'DET'?"),
        (Row({"tokens": ["a"]}, "F:1"), "F:1: missing field 'tags'"),
    ],
)
def test_rows_that_cannot_be_used(given: Row, line: str) -> None:
    with pytest.raises(UserError) as error:
        bound("llama").check([given], answers=True)
    assert str(error.value).startswith(line)


def test_a_span_that_begins_inside_is_refused() -> None:
    labels = {"B-PER": " person", "I-PER": " inside", "O": " other"}
    task = bound("llama", labels=labels)
    task.check([row(["a", "b"], ["B-PER", "I-PER"])], answers=True)
    with pytest.raises(UserError, match=r"F:4: tag 2 is 'I-PER' after 'O'; .* 'B-PER'"):
        task.check([row(["a", "b"], ["O", "I-PER"], 4)], answers=True)
    with pytest.raises(UserError, match=r"F:4: tag 1 is 'I-PER' after 'O'"):
        task.check([row(["a"], ["I-PER"], 4)], answers=True)


def test_a_sentence_that_is_too_long_is_refused_and_not_cut() -> None:
    task = bound("llama", max_length=30)
    long = row(["film"] * 40, ["NOUN"] * 40, 7)
    with pytest.raises(UserError, match=r"F:7: too long for 30 tokens"):
        task.train_example(long, 500)
    with pytest.raises(UserError, match=r"F:7: too long"):
        task.predict([long], NOTHING)
    for answers in (True, False):  # before anything is tuned
        with pytest.raises(UserError, match=r"F:7: too long for 30 tokens"):
            task.check([row(["film"], ["NOUN"]), long], answers=answers)


def test_virtual_tokens_stand_before_all_words() -> None:
    assert bound("llama", template="[soft:3]{tokens}").virtual == 3
    with pytest.raises(UserError, match="put it in `template`"):
        bound("llama", word_template="[soft:3]{word}:")
