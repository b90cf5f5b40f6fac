"""Classification: label probabilities against word-by-word, token-by-token runs of plain models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from families import CAUSAL, MASKED, SEQ2SEQ, UNREACHED, WINDOWED, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, common_lead, lines
from foreword.data.row import Row
from foreword.engine.groups import buckets, share
from foreword.engine.passes import infer, passes
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.label_tree import LabelTree
from foreword.tasks.labels.verbalizer import normalize
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.tag import Tag
from foreword.tasks.templates.layout import room_for
from foreword.tasks.words import words_of
from plain import next_logits, twin

LEFT_TO_RIGHT = {
    f.name: f
    for f in [CAUSAL[0], CAUSAL[4], CAUSAL[8], CAUSAL[12], CAUSAL[13], *SEQ2SEQ, *UNREACHED[:2]]
} | {"mistral-window": WINDOWED[0]}
CLOZE = {f.name: f for f in [*MASKED, *UNREACHED[2:]]}
END = 1

WORDS: dict[str, tuple[str, ...]] = {
    "good": (" good",),  # begins " good film", so <end> closes it
    "bad": (" bad", " a bad film", " bad bad"),
    "better": (" good film",),
    "none": (" XYZ",),
}
TEXTS = ["a good film", "it was", "bad film and a good film :", "film 0123"]


@cache
def get(name: str) -> Backbone:
    return backbone((LEFT_TO_RIGHT | CLOZE)[name])


@cache
def plain(name: str) -> PreTrainedModel:
    return twin(get(name))


def rows(labels: Sequence[str] = tuple(WORDS)) -> list[Row]:
    made = [{"text": t, "label": label} for t, label in zip(TEXTS, labels, strict=True)]
    return [Row(fields, f"F:{n}") for n, fields in enumerate(made, 1)]


def bound(name: str, **more: Any) -> Classifier:
    base = get(name)
    template = "{text} it was [mask]." if base.architecture == "masked" else "{text}\nMood:"
    return Classify(**{"template": template, "labels": WORDS, **more}).bind(base)


def everything(task: Classifier, given: Sequence[Row], injection: Injection = NOTHING) -> Tensor:
    """The log-probabilities of all labels, row by row."""
    items = [task.dev_example(row, room_for(task.backbone, injection)) for row in given]
    found: list[Tensor] = [torch.empty(0)] * len(items)
    for group, logits in infer(
        task.backbone, injection, [item.example for item in items], 64, tokens=task.tokens
    ):
        scores = task.verbalizer.scores(logits, [items[i].example for i in group])
        for i, row in zip(group, scores, strict=True):
            found[i] = row
    return torch.stack(found).double()


def own_losses(task: Classifier, given: Sequence[Row], injection: Injection = NOTHING) -> Tensor:
    items = [task.train_example(row, room_for(task.backbone, injection)) for row in given]
    lead = common_lead([item.example for item in items])
    shared = share(task.backbone, injection, lead, 100)
    examples = [item.example for item in items]
    groups = buckets([e.length for e in examples], 64)
    found = torch.zeros(len(items))
    for group, states in passes(task.backbone, shared, examples, groups):
        index = torch.tensor(group)
        logits = task.backbone.logits(states, task.tokens)
        found = found.index_add(0, index, task.losses(logits, [items[i] for i in group]))
    return found


def spelled(name: str) -> list[tuple[str, list[int]]]:
    """Every word's label and tokens, closed by <end> where another word goes on."""
    text, answer = get(name).text, str.strip if get(name).architecture != "causal" else str
    found = [(label, text.ids(answer(w))) for label, words in WORDS.items() for w in words]
    return [
        (
            label,
            [*path, END] if any(p != path and p[: len(path)] == path for _, p in found) else path,
        )
        for label, path in found
    ]


def by_hand(name: str, text: str, *, vocabulary: bool = False) -> Tensor:
    """Each label's log-probability: words apart, a pass a token, a softmax over what goes on."""
    ids = get(name).text.ids(f"{text}\nMood:")
    words = spelled(name)
    mass = dict.fromkeys(WORDS, 0.0)
    for label, path in words:
        log = 0.0
        for size, token in enumerate(path):
            logits = next_logits(plain(name), ids, path[:size])
            if vocabulary:
                log += float(logits.log_softmax(0)[token])
            else:
                on = sorted({p[size] for _, p in words if p[:size] == path[:size]})
                log += float(logits[on].log_softmax(0)[on.index(token)])
        mass[label] += float(torch.tensor(log, dtype=torch.float64).exp())
    return torch.tensor(list(mass.values()), dtype=torch.float64).log()


# The tree of label words ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LEFT_TO_RIGHT)
def test_labels_equal_the_words_run_apart(name: str) -> None:
    found = everything(bound(name), rows())
    expected = torch.stack([by_hand(name, text) for text in TEXTS])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected.exp().sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["llama", "t5", "bloom"])
def test_over_the_vocabulary_words_are_scored_whole(name: str) -> None:
    task = bound(name, loss="vocabulary")
    expected = torch.stack([by_hand(name, text, vocabulary=True) for text in TEXTS])
    found = everything(task, rows())
    torch.testing.assert_close(found, expected.log_softmax(1), rtol=1e-4, atol=1e-5)
    losses = own_losses(task, rows()).double()
    torch.testing.assert_close(losses, -expected.diagonal(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*LEFT_TO_RIGHT, *CLOZE])
def test_the_loss_is_minus_the_labels_own_score(name: str) -> None:
    order = ["bad", "none", "good", "better"]
    task = bound(name)
    found = own_losses(task, rows(order)).double()
    scores = everything(task, rows(order))
    expected = torch.stack([-scores[n, task.labels.index(label)] for n, label in enumerate(order)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_vocabulary_loss_is_refused_on_masked_models() -> None:
    with pytest.raises(UserError, match="not for masked models"):
        bound("bert", loss="vocabulary")


@pytest.mark.parametrize(
    ("name", "loss"),
    [(n, loss) for n in ("llama", "t5", "bloom") for loss in ("labels", "vocabulary")]
    + [("bert", "labels")],
)
def test_gradients_are_finite_and_there(name: str, loss: str) -> None:
    base = get(name)
    embeds = base.embed([20, 30, 40]).clone().requires_grad_()
    injection = Injection(embeds=embeds, leading=3)
    own_losses(bound(name, loss=loss), rows(), injection).sum().backward()
    assert embeds.grad is not None
    assert bool(torch.isfinite(embeds.grad).all())
    assert bool((embeds.grad.abs().sum(1) > 0).all())


def test_a_node_is_read_only_where_words_part() -> None:
    tree = LabelTree.grow([(0, (5, 6, 7)), (1, (5, 8, 9, 4)), (1, (5,))], 2, END, vocabulary=False)
    assert tree.nodes == ((5,),)
    assert set(tree.children[(5,)]) == {6, 8, END}
    assert tree.everything.branches == ((5,),)


def test_words_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UserError, match=r"no end-of-text token"):
        LabelTree.grow([(0, (5,)), (1, (5, 6))], 2, None, vocabulary=False)
    with pytest.raises(UserError, match=r"same tokens"):
        LabelTree.grow([(0, (5, 6)), (1, (5, 6))], 2, END, vocabulary=False)
    same = LabelTree.grow([(0, (5, 6)), (0, (5, 6)), (1, (7,))], 2, END, vocabulary=False)
    assert len(same.words) == 2


class Counter:
    """Counts the tokens that a model runs."""

    def __init__(self, base: Backbone) -> None:
        self.tokens = 0
        module = (
            base.model.get_decoder() if base.architecture != "causal" else base.model.base_model
        )
        self.hook = module.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids")
        self.tokens += (kwargs["inputs_embeds"][..., 0] if given is None else given).numel()


def test_77_labels_cost_one_sequence_a_row() -> None:
    words = [f" {a} {b}" for a in ("go", "bad", "fi", "it", "X", "was", "0") for b in "abcdefghijk"]
    labels = {f"intent{n}": word for n, word in enumerate(words)}
    assert len(labels) == 77
    task = bound("llama", labels=labels)
    given = [Row({"text": t, "label": f"intent{n}"}, "F") for n, t in enumerate(TEXTS * 3)]
    own_losses(task, given)  # tries once whether the model can be shared
    train = [task.train_example(r, 512).example for r in given]
    dev = [task.dev_example(r, 512).example for r in given]
    assert common_lead(dev) == ()

    def tokens(examples: Sequence[Example]) -> int:
        return sum(len(line.tokens) for e in examples for line in lines(e, tree=True)[0])

    counter = Counter(task.backbone)
    task.predict(given, NOTHING)
    assert counter.tokens == tokens(dev)
    assert counter.tokens < sum(len(e.ids) for e in dev) + 77 * len(given)
    own_losses(task, given)
    assert counter.tokens == tokens(dev) + tokens(train)
    counter.hook.remove()


def test_all_branches_of_many_labels_leave_the_room_to_the_text() -> None:
    labels = {f"l{a}{b}": f" {a} {b}" for a in "abcdefg" for b in "abcdefghijk"}
    base = backbone(CAUSAL[0], max_position_embeddings=64)
    task = Classify(template="{text}:", labels=labels).bind(base)
    deepest = max(map(len, task.verbalizer.everything.branches))
    item = task.dev_example(Row({"text": " film" * 90, "label": "laa"}, "F"), base.longest)
    assert item.truncated
    assert len(item.example.ids) == 64 - deepest


# The hole of a masked model -------------------------------------------------------------------


def cloze(name: str, text: str) -> Tensor:
    """PET: the mean log-probability of a word's tokens, as many masks as it has."""
    base = get(name)
    tokens = base.text.ids
    logs = dict.fromkeys(WORDS, 0.0)
    for label, words in WORDS.items():
        for word in words:
            path = tokens(word)
            left, right = tokens(f"{text} it was"), tokens(".")
            ids = torch.tensor([[*left, *[2] * len(path), *right]])
            with torch.no_grad():
                out = plain(name)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            table = out.double().log_softmax(1)[len(left) : len(left) + len(path)]
            mean = table[torch.arange(len(path)), torch.tensor(path)].mean()
            logs[label] += float(mean.exp())
    return torch.tensor(list(logs.values()), dtype=torch.float64).log().log_softmax(0)


@pytest.mark.parametrize("name", CLOZE)
def test_a_hole_equals_pet(name: str) -> None:
    found = everything(bound(name), rows())
    expected = torch.stack([cloze(name, text) for text in TEXTS])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(4, dtype=torch.float64))


def test_a_word_given_without_its_space_has_it_in_the_hole() -> None:
    bare = {label: [word.strip() for word in words] for label, words in WORDS.items()}
    with_space, plainly = bound("roberta").verbalizer, bound("roberta", labels=bare).verbalizer
    assert with_space.words == plainly.words


# The task around it ---------------------------------------------------------------------------


def test_predictions_are_the_rows_probabilities_in_order() -> None:
    found = bound("llama").predict(rows(), NOTHING)
    for text, answer in zip(TEXTS, found, strict=True):
        expected = by_hand("llama", text).exp()
        values = torch.tensor(list(answer["probabilities"].values()), dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
        assert answer["label"] == [*WORDS][int(expected.argmax())]
        assert answer["cut"] is False
    assert bound("llama").predict([], NOTHING) == []


@pytest.mark.parametrize("name", ["llama", "t5", "bert"])
def test_rows_of_a_mixture_are_predicted_as_alone(name: str) -> None:
    base, task = get(name), bound(name)
    parts = tuple(Injection(embeds=base.embed(range(20, 20 + n)), leading=n) for n in (2, 9))
    mixed = task.predict(rows(), Mixture((NOTHING, *parts), (1, 0, 2, 1)))
    for row, number, answer in zip(rows(), (1, 0, 2, 1), mixed, strict=True):
        (alone,) = task.predict([row], (NOTHING, *parts)[number])
        assert answer["probabilities"] == pytest.approx(alone["probabilities"], rel=1e-4)


def test_text_before_rows_is_read_before_them() -> None:
    task = bound("llama")
    (found,) = task.predict([rows()[0]], NOTHING, before="bad film\n\n")
    (expected,) = task.predict([Row({"text": f"bad film\n\n{TEXTS[0]}"}, "F")], NOTHING)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], rel=1e-5)


def test_demonstrations_read_as_rows_with_their_word() -> None:
    row = Row({"text": "a film", "label": "bad"}, "F")
    assert bound("llama").demonstration(row) == "a film\nMood: bad\n\n"
    assert bound("bert").demonstration(row) == "a film it was bad.\n\n"
    soft = bound("llama", template="[soft:3]{text}\n")
    assert soft.demonstration(row) == "a film\nbad\n\n"
    assert soft.virtual == 3
    assert soft.without_prompt().virtual == 0


def test_labels_and_template_are_found_in_the_rows() -> None:
    given = [
        Row({"text": "x", "label": "card_not-working"}, "F:1"),
        Row({"text": "y", "label": "topUp"}, "F:2"),
        Row({"text": "z", "label": "topUp"}, "F:3"),
    ]
    task = Classify().complete(given, get("llama"))
    assert task.template == "{text}\nLabel:"
    assert task.labels == {"card_not-working": (" card not working",), "topUp": (" top Up",)}
    masked = Classify().complete(given, get("bert"))
    assert masked.template == "{text}\nLabel: [mask]"
    masked.bind(get("bert"))
    with pytest.raises(UserError, match=r"F:1: no field 'text'"):
        Classify().complete([Row({"body": "x", "label": "a"}, "F:1")], get("llama"))


def test_words_of_names() -> None:
    assert words_of("card_arrival") == " card arrival"
    assert words_of("Not/So-Good") == " Not So Good"
    assert words_of("CamelCase") == " Camel Case"
    assert words_of("良い") == "良い"
    assert words_of("___") == " ___"
    for kept in ("-1", "+1", "1-2", "-x", "1.5", "1/2", "24/7", "C++", "C#", ".NET", "COVID-19"):
        assert words_of(kept) == f" {kept}"
    for hyphens in ("état-civil", "état--civil", "état_civil", "état/civil"):
        assert words_of(hyphens) == " état civil"


@pytest.mark.parametrize("names", [(-1, 0, 1), ("-", "+"), ("C", "C#", "C++"), (1.5, 15, "1/5")])
def test_names_that_differ_in_signs_have_words_that_do(names: tuple[Any, ...]) -> None:
    """A sign that is dropped gives two labels one word, or one label another's."""
    given = [Row({"text": f"t{n}", "label": name}, f"F:{n}") for n, name in enumerate(names)]
    words = Classify().complete(given, get("llama")).labels
    assert words == {str(name): (f" {name}",) for name in names}
    tags = [Row({"tokens": ["a"], "tags": [str(name)]}, "F:1") for name in names]
    assert Tag().complete(tags, get("llama")).labels == words
    many = [Row({"text": "a", "labels": [str(name)]}, "F:1") for name in names]
    assert Multilabel().complete(many, get("llama")).labels == {**words, "none": (" none",)}


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"a": " x"}, "at least two labels"),
        ({"a": " x", "b": []}, "label 'b' has no word"),
        ({"a": " x", "b": "  "}, "label 'b' has no word"),
        ({"a": " x", "b": "x"}, "share the word"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        normalize(labels)


def test_words_that_tokenize_to_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"label 'b': the tokenizer drops its word 'éé'"):
        _ = bound("llama", labels={"a": "a", "b": "éé"}).verbalizer


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_words_that_tokenize_alike_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"labels 'a' and 'b' have words of the same tokens"):
        _ = bound(name, labels={"a": "good", "b": "goodé"}).verbalizer


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"txt": "x", "label": "good"}, "F:2: no field 'text'.*did you mean 'txt'"),
        ({"text": " ", "label": "good"}, 'F:2: field "text" is empty'),
        ({"text": "x"}, "F:2: missing field 'label'"),
        ({"text": "x", "label": "god"}, "F:2: unknown label 'god'; did you mean 'good'"),
        ({"text": ["x"], "label": "good"}, 'F:2: field "text" is a list'),
    ],
)
def test_bad_rows_are_named(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        bound("llama").check([rows()[0], Row(fields, "F:2")], answers=True)


def test_what_is_missing_before_binding_is_named() -> None:
    with pytest.raises(UserError, match=r"needs a template and labels"):
        Classify(template="{text}").bind(get("llama"))
    with pytest.raises(UserError, match=r"has no \[mask\]"):
        Classify(template="{text}", labels=WORDS).bind(get("bert"))


def test_judge_counts_the_rows_whose_label_is_likeliest() -> None:
    task = bound("llama")
    best = [task.labels[int(i)] for i in everything(task, rows()).argmax(1)]
    given = rows([*best[:3], next(w for w in WORDS if w != best[3])])
    items = [task.dev_example(row, 512) for row in given]
    (done,) = infer(task.backbone, NOTHING, [i.example for i in items], tokens=task.tokens)
    assert task.dev_counts(done[1], [items[i] for i in done[0]]) == (300.0, 4)
    found = task.score(given, task.predict(given, NOTHING), seed=0)
    assert found["accuracy"] == 75.0


def test_long_rows_are_cut_and_say_so() -> None:
    task = replace(bound("llama").task, max_length=12).bind(get("llama"))
    found = task.predict([Row({"text": " film" * 30}, "F"), Row({"text": "a"}, "F")], NOTHING)
    assert [answer["cut"] for answer in found] == [True, False]
