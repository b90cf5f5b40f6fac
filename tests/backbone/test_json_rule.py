"""Completions under a JSON schema, on models that know nothing of JSON."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import random_kv

import foreword as fw
import toys
from families import CAUSAL, SEQ2SEQ, Family, family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.errors import UserError
from foreword.injection import NOTHING, Mixture
from foreword.reporter import SILENT
from foreword.serve.engine import Engine
from foreword.serve.request import Sampling
from foreword.tasks.generate import Generate
from quick import first
from toys import rows

FAMILIES: dict[str, Family] = {f.name: f for f in (*CAUSAL, *SEQ2SEQ)}
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))
INTENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"enum": ["no", "it is"]},
        "b": {"type": "array", "items": {"enum": [1, 20]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
LISTS = ([1], [20], *([a, b] for a, b in product([1, 20], repeat=2)))
ALL = {json.dumps({"a": a, "b": b}) for a, b in product(["no", "it is"], LISTS)}
"""Every text that the schema allows."""
SIGNS = ["{", "}", "[", "]", '"', ", ", "_"]
UNDER = Decoding(max_new_tokens=200, json_schema=json.dumps(INTENT))


@cache
def get(name: str = "llama") -> Backbone:
    """A tiny model whose tokenizer has what JSON is written with."""
    family, tokens = FAMILIES[name], deepcopy(tokenizer())
    tokens.add_tokens(SIGNS)
    kind: Any = family.architecture
    return Backbone(family_model(family), tokens, architecture=kind, name=name)


def tuned(task: Generate) -> fw.Prompt:
    return fw.tune(get(), task, "soft", rows(8), length=2, epochs=1, report=SILENT)


@pytest.mark.parametrize("name", first(2, ["llama", "t5", "gemma2", "gpt2"]))
def test_completions_are_json_of_the_schema(name: str) -> None:
    base = get(name)
    found = decode(base, ROWS, NOTHING, UNDER)
    assert set(found) <= ALL
    assert decode(base, ROWS[1:2], NOTHING, UNDER) == found[1:2]  # alone as in a batch
    sampled = [
        text
        for seed in range(2)
        for text in decode(base, ROWS, NOTHING, replace(UNDER, temperature=3.0, seed=seed))
    ]
    assert set(sampled) <= ALL
    assert len(set(sampled)) > 1


def test_rows_of_several_prompts_obey_it_together() -> None:
    base = get()
    parts = (NOTHING, replace(random_kv(base, 4), positions=4))
    found = decode(base, ROWS, Mixture(parts, [0, 1, 1]), UNDER)
    assert set(found) <= ALL
    assert found[1:] == decode(base, ROWS[1:], parts[1], UNDER)


def test_the_engine_obeys_it_beside_rows_that_write_freely() -> None:
    base, free = get(), Decoding(max_new_tokens=9)
    under = Sampling(max_new_tokens=200, json_schema=UNDER.json_schema)
    with Engine(base) as engine:
        bound = [engine.generate(row, None, under) for row in ROWS]
        loose = [engine.generate(row, None, Sampling(max_new_tokens=9)) for row in ROWS]
        found = [ticket.result(60) for ticket in bound]
        assert [each.text for each in found] == decode(base, ROWS, NOTHING, UNDER)
        assert {each.finish for each in found} == {"stop"}
        assert [t.result(60).text for t in loose] == decode(base, ROWS, NOTHING, free)
        with pytest.raises(UserError, match="Invalid type: objekt"):
            engine.generate(ROWS[0], None, Sampling(json_schema='{"type": "objekt"}'))


def test_a_row_that_a_stop_text_ends_leaves_the_others_to_go_on() -> None:
    base, how = get(), replace(UNDER, stop=("it",), temperature=3.0)
    found = decode(base, ROWS * 2, NOTHING, how, seeds=range(6))
    alone = zip(ROWS * 2, range(6), strict=True)
    assert found == [decode(base, [row], NOTHING, how, seeds=[seed])[0] for row, seed in alone]
    assert {text in ALL for text in found} == {True, False}
    assert set(found) <= {*ALL, '{"a": "'}


def test_what_is_too_long_is_cut_off() -> None:
    (text,) = decode(get(), ROWS[:1], NOTHING, replace(UNDER, max_new_tokens=3))
    assert any(whole.startswith(text) for whole in ALL)
    assert text not in ALL


def test_a_prompt_answers_by_a_schema_that_is_a_dict() -> None:
    prompt = tuned(Generate(template="{text}\n"))
    texts = [str(row.fields["text"]) for row in rows(3)]
    found = prompt.predict(texts, json_schema=INTENT, max_new_tokens=200)
    assert set(found) <= ALL
    assert not set(prompt.predict(texts)) & ALL


def test_the_schema_of_a_prompt_stays_with_it(tmp_path: Path) -> None:
    prompt = tuned(Generate(template="{text}\n", decoding=UNDER))
    again = fw.Prompt.load(prompt.save(tmp_path / "p.safetensors"), get())
    assert again.predict("it") in ALL
    without = prompt.decoding(json_schema=None).metadata()
    assert "json_schema" not in without["task"]["decoding"]  # as in older files


def test_a_tokenizer_that_cannot_write_json_is_refused() -> None:
    with pytest.raises(UserError, match="the tokenizer has no tokens for some of"):
        decode(toys.get(), ROWS, NOTHING, UNDER)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("nope", "is no JSON"),
        ("[1]", "is no JSON object"),
        ('{"type": "objekt"}', "cannot be followed: Invalid type: objekt"),
        (
            '{"oneOf": [{"type": "number"}, {"minimum": 4}]}',
            "where two may hold at once; take anyOf",
        ),
        ('{"type": "string", "pattern": "(?=x)"}', "look-around"),
        ('{"$ref": "#/nowhere"}', "'/nowhere' does not exist"),
    ],
)
def test_what_is_no_schema_is_one_line(schema: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(get(), ROWS, NOTHING, replace(UNDER, json_schema=schema))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_beams_and_ensembles_are_refused() -> None:
    with pytest.raises(UserError, match="goes without beams"):
        decode(get(), ROWS, NOTHING, replace(UNDER, beams=2))
    prompt = tuned(Generate(template="{text}\n", decoding=UNDER))
    with pytest.raises(UserError, match="prompt 1 decodes with json_schema"):
        fw.Ensemble((prompt, prompt), (0.5, 0.5)).predict(["a"])
