"""Tokens that the tokenizer has and the model does not: one line, never a virtual token."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from families import CAUSAL, MASKED, SEQ2SEQ, Family, backbone, family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.methods.cartridge import Cartridge, text_ids
from foreword.methods.parts.starts import start_ids
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.rank import Rank
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag

FAMILIES: dict[str, Family] = {f.name: f for f in (*CAUSAL, *MASKED, *SEQ2SEQ)}
BEYOND = r"token 'zorbified' \(id 16[0-9]\) is beyond the model's 160 embeddings; save the model"
TEXT = "it was zorbified"


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of as many tokens as the models have embeddings."""
    made = copy.deepcopy(tokenizer())
    made.add_tokens([f"<{n}>" for n in range(len(made), 160)])
    return made


def on(name: str, text: PreTrainedTokenizerFast) -> Backbone:
    family = FAMILIES[name]
    return Backbone(family_model(family), text, architecture=family.architecture, name=name)  # type: ignore[arg-type]


def grown(name: str = "llama", **special: str) -> Backbone:
    """A backbone whose tokenizer was given words that its model was not."""
    made = words()
    made.add_tokens(["<extra>", "zorbified"])
    made.add_special_tokens(dict(special))
    return on(name, made)


GENERATE = Generate("{text} :", decoding=Decoding(max_new_tokens=4))
CASES: list[tuple[Task, dict[str, Any]]] = [
    (Classify("{text} :", labels={"a": " good", "b": " bad"}), {"text": TEXT, "label": "a"}),
    (GENERATE, {"text": TEXT, "completion": " good"}),
    (Generate("zorbified {text}"), {"text": "it", "completion": " good"}),
    (Score("{text} :", low=1, high=5), {"text": TEXT, "label": 2}),
    (Rank("{history}"), {"history": TEXT, "candidates": ["a", "b"], "answer": "a"}),
    (Rank("{history}"), {"history": "it", "candidates": ["a", TEXT], "answer": "a"}),
]


@pytest.mark.parametrize(("task", "fields"), CASES)
def test_a_row_is_refused_to_learn_and_to_answer(task: Task, fields: dict[str, Any]) -> None:
    """Under a soft prompt too, which has embeddings for ids beyond the model's."""
    base, rows = grown(), [Row(fields, "F.jsonl:3")]
    soft = Injection(embeds=torch.zeros(4, base.width), leading=4)
    bound = task.complete(rows, base).bind(base)
    with pytest.raises(UserError, match=rf"^F\.jsonl:3: {BEYOND}") as caught:
        bound.train_example(rows[0], 99)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=rf"^F\.jsonl:3: {BEYOND}"):
        bound.predict(rows, soft)


def test_a_completion_is_refused() -> None:
    row = Row({"text": "it", "completion": TEXT}, "F.jsonl:3")
    with pytest.raises(UserError, match=rf"^F\.jsonl:3: {BEYOND}"):
        GENERATE.bind(grown()).train_example(row, 99)


def test_words_of_a_tag_are_refused() -> None:
    row = Row({"tokens": ["it", "zorbified"], "tags": ["O", "B-X"]}, "F.jsonl:3")
    base = grown()
    with pytest.raises(UserError, match=rf"^F\.jsonl:3: {BEYOND}"):
        Tag().complete([row], base).bind(base).train_example(row, 99)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_label_word_is_refused(name: str) -> None:
    template = "{text} [mask]" if name == "bert" else "{text}"
    task = Classify(template, labels={"a": "zorbified", "b": " bad"})
    with pytest.raises(UserError, match=BEYOND):
        task.bind(grown(name)).train_example(Row({"text": "it", "label": "a"}, "F:1"), 99)


def test_a_starting_text_and_a_file_are_refused(tmp_path: Path) -> None:
    base, path = grown(), tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    with pytest.raises(UserError, match=f"^{BEYOND}"):
        start_ids("text", GENERATE.bind(base), [], length=4, text=TEXT, shots=None, seed=0)
    with pytest.raises(UserError, match=rf"text\.txt: {BEYOND}"):
        text_ids(base, path)
    assert Cartridge(str(path)).length == 256


def test_a_template_of_virtual_tokens_that_begin_as_a_text_is_refused() -> None:
    task = Generate('[soft:"zorbified"]{text} :')
    with pytest.raises(UserError, match=BEYOND):
        task.bind(grown()).train_example(Row({"text": "it", "completion": "a"}, "F:1"), 99)


def test_other_texts_are_read_as_before() -> None:
    base, same = grown(), on("llama", words())
    made = [
        Prompt(NOTHING, GENERATE, {"name": "llama"}, on=one).predict(["it was", "a film"])
        for one in (base, same)
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("special", ["eos_token", "mask_token", "bos_token"])
def test_a_special_token_without_an_embedding_is_refused_where_it_is_needed(special: str) -> None:
    base = grown("bert" if special == "mask_token" else "llama", **{special: "<new>"})
    row = Row({"text": "it", "completion": " good", "label": "a"}, "F:1")
    labels = {"a": " good", "b": " bad"}
    task: Task = GENERATE
    if special == "mask_token":
        task = Classify("{text} [mask]", labels=labels)
    if special == "bos_token":  # which this tokenizer puts nowhere
        assert task.bind(base).train_example(row, 99).example.answers
        return
    with pytest.raises(UserError, match=r"token '<new>' \(id 162\) is beyond the model's 160"):
        task.bind(base).train_example(row, 99)
    if special == "eos_token":  # neither written nor needed
        assert 162 not in base.ends
        assert Classify("{text} :", labels=labels).bind(base).predict([row], NOTHING)


@pytest.mark.parametrize("name", ["bert", "t5", "llama"])
def test_a_padding_token_without_an_embedding_changes_nothing(name: str) -> None:
    base, same = grown(name, pad_token="<new>"), backbone(FAMILIES[name])
    asked = [
        Example(row, len(row), ((2,),), ((0, 0),)) for row in ((23, 51, 140), (88, 12, 47, 9, 5))
    ]
    assert 0 <= base.pad < 160
    assert torch.equal(base.states(asked), same.states(asked))


def test_negative_ids_are_refused() -> None:
    with pytest.raises(UserError, match="the token -1; ids count from 0"):
        backbone(FAMILIES["llama"]).states([Example((5, -1), 2, ((),), ((0, -1),))])


def test_text_that_a_tokenizer_has_no_token_for_is_one_line() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"it": 0})))
    with pytest.raises(UserError, match="the tokenizer cannot read 'was'") as caught:
        Text(bare, 160).ids("was")
    assert "\n" not in str(caught.value)


def narrow(scores: int) -> Backbone:
    """A backbone that has scores for fewer, or more, tokens than it can read."""
    model = family_model(FAMILIES["llama"], tie_word_embeddings=False)
    model.lm_head = nn.Linear(32, scores, bias=False)
    return Backbone(model, tokenizer(), architecture="causal", name="narrow")


def test_answers_and_labels_that_have_no_score_are_refused() -> None:
    base = narrow(70)
    assert min(base.text.ids(text)[0] for text in (" film", " good")) >= 70
    rows = [Row({"text": "a", "completion": " good film", "label": "a"}, "F:1")]
    bound = GENERATE.bind(base)
    item = bound.train_example(rows[0], 99)
    with pytest.raises(UserError, match="beyond the 70 that narrow has scores for"):
        bound.losses(torch.zeros(len(item.example.answers), 70), [item])
    task = Classify("{text}", labels={"a": " good", "b": "a"})
    with pytest.raises(UserError, match="beyond the 70 that narrow has scores for"):
        task.bind(base).predict(rows, NOTHING)


@torch.no_grad()
def test_a_token_with_a_score_and_no_embedding_is_never_written() -> None:
    base, same = narrow(200), narrow(160)
    weight = base.model.lm_head.weight
    weight[160:] *= 9
    same.model.lm_head.weight[:] = weight[:160]
    soft = Injection(embeds=torch.ones(40, base.width), leading=40)
    for injection in (NOTHING, soft):
        rows, how = [(5, 6, 44), (7, 70)], Decoding(max_new_tokens=9)
        assert decode(base, rows, injection, how) == decode(same, rows, injection, how)
