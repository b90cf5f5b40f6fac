"""AutoPrompt's label words: against plain arithmetic, and where the right ones are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from families import backbone
from foreword.backbone.backbone import Backbone
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.classify import Classify
from foreword.tasks.labels.autoprompt import WORDS_PER_LABEL, assign_words, log_odds
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.search import opening, word_of_token
from plain import twin
from toys import FAMILIES, Lines, get, rows

KINDS = ("llama", "bert", "t5", "bart")
PLANTED = {"good": ("film", "was", "good"), "bad": ("and", "bad", "go")}
BEGINNING = {
    "good": ("was", "it", "as"),
    "bad": ("bad", "go", "od"),
}  # of one token without a space


def bound(base: Backbone) -> Classifier:
    asked = "{text} : [mask] ." if base.architecture == "masked" else "{text} :"
    return Classify(template=asked, labels={"good": " good", "bad": " bad"}).bind(base)


def inner(base: Backbone) -> Tensor:
    """What an untouched model's output embeddings meet at the answer's place of eight rows."""
    model, made = twin(base), []
    output = model.get_output_embeddings()
    assert output is not None
    seen: list[Tensor] = []
    output.register_forward_hook(lambda module, given, scores: seen.append(given[0][0]))
    for row in rows(8):
        item = opening(bound(base), row)
        if base.architecture == "masked":
            ids = [*item.ids[: item.slot], *item.branches[0], *item.ids[item.slot :]]
            model(input_ids=torch.tensor([ids]))
            made.append(seen[-1][item.slot])
        elif base.architecture == "causal":
            model(input_ids=torch.tensor([item.ids]))
            made.append(seen[-1][-1])
        else:
            begun = [model.config.decoder_start_token_id, *base.text.around[0]]
            model(input_ids=torch.tensor([item.ids]), decoder_input_ids=torch.tensor([begun]))
            made.append(seen[-1][-1])
    return torch.stack(made).detach()


@pytest.mark.parametrize("name", [*KINDS, "albert", "granite", "roberta", "gemma2"])
def test_what_output_embeddings_meet(name: str) -> None:
    base = get(name)
    states = torch.cat(states_of(base, NOTHING, [opening(bound(base), r) for r in rows(8)]))
    met = base.lm_head_inputs(states)
    assert met is not None
    torch.testing.assert_close(met[0], inner(base), rtol=1e-3, atol=1e-4)
    assert met[1] is not states
    table = base.model.get_output_embeddings().weight
    torch.testing.assert_close(met[1], table)
    assert not base.model.get_output_embeddings()._forward_hooks
    if name == "bert":  # which transforms its states first
        assert not torch.allclose(met[0], states, atol=1e-2)


@pytest.mark.parametrize("name", KINDS)
def test_words_are_those_of_a_classifier_of_states(name: str) -> None:
    base, heard = get(name), []
    asked = bound(base).task
    asked = type(asked)(template=asked.template, labels=asked.labels, verbalizer="autoprompt")
    made = asked.fill_from_rows(base, rows(8), 0, Lines(heard))
    assert isinstance(made, Classify)
    assert made.verbalizer == "manual"
    assert made.labels is not None
    states = inner(base).double().numpy()
    centred = states - states.mean(0)
    size = np.sqrt((centred**2).sum(1).mean())
    gold = np.array([row.fields["label"] == "good" for row in rows(8)])
    weight = LogisticRegression(max_iter=10_000).fit(centred / size, gold).coef_[0]
    table = base.model.get_output_embeddings().weight.detach().double().numpy()
    words = table - table.mean(0)
    speaks = (words / np.linalg.norm(words, axis=1, keepdims=True)) @ weight
    want: dict[str, list[str]] = {"good": [], "bad": []}
    taken: set[str] = set()
    for token in np.argsort(-abs(speaks), kind="stable"):
        own, word = (
            want["good" if speaks[token] > 0 else "bad"],
            word_of_token(bound(base), int(token)),
        )
        if word is not None and word.strip() not in taken and len(own) < WORDS_PER_LABEL:
            own.append(word)
            taken.add(word.strip())
    assert {label: list(own) for label, own in made.labels.items()} == want
    assert all(word in heard[-1] for own in want.values() for word in own)
    assert made.fill_from_rows(base, rows(8), 0) == made


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_words_that_were_put_where_the_labels_are_are_found(name: str) -> None:
    base = backbone(FAMILIES[name])
    task, states = bound(base), inner(base)
    planted = BEGINNING if base.architecture == "encoder-decoder" else PLANTED
    good = torch.tensor([row.fields["label"] == "good" for row in rows(8)])
    way = states[good].mean(0) - states[~good].mean(0)
    known = torch.linalg.svd((states - states.mean(0)).T, full_matrices=False).U  # where states are
    output = base.model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone())  # untied from what is read
    noise = torch.randn(output.weight.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # all words beside what tells rows apart; the planted, from it on
        output.weight.copy_(noise - noise @ known @ known.T)
        for label, sign in (("good", 1), ("bad", -1)):
            for strength, word in zip((9, 4, 2), planted[label], strict=True):
                (token,) = task.spell(f" {word}")
                output.weight[token] += sign * strength * noise[token].norm() * way / way.norm()
    asked = Classify(template=task.task.template, labels=task.words, verbalizer="autoprompt")
    found = asked.fill_from_rows(base, rows(8), 0)
    assert isinstance(found, Classify)
    assert found.labels == {k: tuple(f" {w}" for w in own) for k, own in planted.items()}


def test_the_odds_are_those_of_the_probabilities() -> None:
    noise = torch.Generator().manual_seed(0)
    weight, table = (torch.randn(n, 5, generator=noise, dtype=torch.float64) for n in (3, 40))
    words = table - table.mean(0)
    chances = (weight @ (words / words.norm(dim=1, keepdim=True)).T).softmax(0)
    torch.testing.assert_close(log_odds(weight, table), (chances / (1 - chances)).log())


def test_a_word_stands_for_one_label_and_every_label_has_one() -> None:
    base = get()
    task = Classify(template="{text} :", labels={"good": " good", "bad": " bad", "so": " so"}).bind(
        base
    )
    tokens = [base.text.ids(f" {word}")[0] for word in ("film", "was", "go", "and")]
    odds = torch.full((3, base.vocabulary), -50.0)
    odds[0, tokens] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    odds[1, tokens] = torch.tensor([1.0, -1.0, 8.5, -2.0])  # the third word is the second label's
    odds[2, tokens] = torch.tensor([-9.0, -9.0, -9.0, -3.0])  # the third is nobody's first
    found = assign_words(task, odds)
    assert found["good"] == (" film", " was", " and")
    assert found["bad"] == (" go",)
    assert len(found["so"]) == 1
    assert len({word for own in found.values() for word in own}) == 5


class Bent(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


def test_a_model_whose_scores_are_no_product_is_refused() -> None:
    base = backbone(FAMILIES["llama"])
    old = base.model.get_output_embeddings()
    bent = Bent(old.in_features, old.out_features, bias=False)
    bent.weight = old.weight
    base.model.set_output_embeddings(bent)
    asked: Any = Classify(
        template="{text} :", labels={"good": " good", "bad": " bad"}, verbalizer="autoprompt"
    )
    with pytest.raises(UserError, match=r"llama does not score words by a product .* search"):
        asked.fill_from_rows(base, rows(8), 0)


def test_a_label_without_rows_is_named() -> None:
    given = [row for row in rows(8) if row.fields["label"] == "good"]
    asked = Classify(
        template="{text} :", labels={"good": " good", "bad": " bad"}, verbalizer="autoprompt"
    )
    with pytest.raises(UserError, match="label 'bad' has no training row"):
        asked.fill_from_rows(get(), given, 0)
