"""Encoders: pooled states against plain transformers models, folders, and label tasks on them."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import ROWS, random_kv, random_soft
from torch import Tensor
from transformers.cache_utils import DynamicCache

import foreword as fw
from families import ENCODERS, MASKED, backbone, family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, Example
from foreword.backbone.load.pooling import Pooling
from foreword.backbone.run.layers import LayerRange
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.tasks.labels.similar import SCALE, encode
from oracles import pooled
from plain import twin

BOUND = {"rtol": 1e-5, "atol": 1e-6}
"""Rows are of float64, but Qwen3 computes norms and positions in float32."""
MODES = ("mean", "weightedmean", "cls", "last")
PARTED = ["bert-encoder", "qwen3-encoder"]
"""One that sees a whole row, and one whose rows are packed."""


@cache
def get(name: str, mode: str = "mean", normalize: bool = False) -> Backbone:
    family = next(f for f in ENCODERS if f.name == name)
    model = family_model(family, dtype=torch.float64)
    return Backbone(
        model,
        tokenizer(),
        architecture="encoder",
        name=name,
        pooling=Pooling(mode, normalize),  # type: ignore[arg-type]
    )


def row(ids: tuple[int, ...]) -> Example:
    return Example(ids, len(ids), ((),), ((0, POOLED),))


def found(base: Backbone, injection: Injection = NOTHING, rows: Any = ROWS) -> Tensor:
    """The pooled states of rows in one batch."""
    ((order, states),) = infer(base, injection, [row(ids) for ids in rows])
    return states[torch.tensor(order).argsort()]


@pytest.mark.parametrize(
    "name",
    [pytest.param(f.name, marks=[] if f.name in PARTED else pytest.mark.slow) for f in ENCODERS],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_row_is_pooled_as_a_plain_model_is_by_hand(name: str, mode: str) -> None:
    base = get(name, mode, normalize=mode != "last")
    model = twin(base)
    expected = [pooled(base, model(torch.tensor([ids])).last_hidden_state[0]) for ids in ROWS]
    torch.testing.assert_close(found(base), torch.stack(expected), **BOUND)
    assert base.is_causal is (name == "qwen3-encoder")
    assert base.can_pack is base.is_causal


def test_a_long_row_has_its_weighted_mean_in_half_precision_too() -> None:
    base, long = get("qwen3-encoder", "weightedmean"), row(ROWS[0] * 200)
    assert len(long.ids) >= 400
    half = Backbone(
        twin(base).half(), tokenizer(), architecture="encoder", name="half", pooling=base.pooling
    )
    states = half.states([long]).double()
    torch.testing.assert_close(states, base.states([long]), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("mode", MODES)
def test_virtual_tokens_stand_before_a_row_and_do_not_count(name: str, mode: str) -> None:
    base, model = get(name, mode), twin(get(name))
    soft = random_soft(base, 5, leading=3)
    placed = [(*ids[:2], base.vocabulary + 3, base.vocabulary + 4, *ids[2:]) for ids in ROWS]
    assert soft.embeds is not None
    table = torch.cat([model.get_input_embeddings().weight, soft.embeds])
    expected = []
    for ids in placed:
        read = table[torch.tensor([160, 161, 162, *ids])][None]
        states = model(inputs_embeds=read).last_hidden_state[0, 3:]
        if "mean" in mode:
            states = states[torch.tensor(ids) < base.vocabulary]
        expected.append(pooled(base, states))
    states = found(base, soft, placed)
    torch.testing.assert_close(states, torch.stack(expected), **BOUND)


@pytest.mark.parametrize("mode", MODES)
def test_a_prefix_of_a_causal_encoder_is_what_its_cache_holds(mode: str) -> None:
    base, model = get("qwen3-encoder", mode), twin(get("qwen3-encoder"))
    kv, expected = random_kv(base, 4), []
    kv = Injection(kv=kv.kv, positions=4)
    for ids in ROWS:
        cached = DynamicCache()
        for name, own in kv.kv.items():
            cached.update(own.keys[None], own.values[None], base.sites[name].layer)
        places = torch.arange(4, 4 + len(ids))[None]
        out = model(torch.tensor([ids]), past_key_values=cached, position_ids=places)
        expected.append(pooled(base, out.last_hidden_state[0]))
    torch.testing.assert_close(found(base, kv), torch.stack(expected), **BOUND)


@pytest.mark.parametrize("name", PARTED)
def test_the_mean_under_a_prefix_is_of_the_tokens_that_a_row_has(name: str) -> None:
    base = get(name)
    kv = Injection(kv=random_kv(base, 4).kv, positions=4 if base.is_causal else 0)
    expected = []
    for ids in ROWS:
        every = tuple((0, j) for j in range(len(ids)))
        states = base.states([Example((), 0, (ids,), every)], kv)
        expected.append(states.mean(0))
    torch.testing.assert_close(found(base, kv), torch.stack(expected), **BOUND)


@pytest.mark.parametrize("name", PARTED)
def test_a_row_is_pooled_over_stored_states_and_over_a_common_lead(name: str) -> None:
    base = get(name)
    rows = [row((*ROWS[0], *ids)) for ids in ROWS]  # of one beginning, which must count too
    whole = found(base, NOTHING, [each.ids for each in rows])
    alone = torch.cat([base.states([each]) for each in rows])
    torch.testing.assert_close(whole, alone, **BOUND)
    assert base.can_skip_lower_layers(20)
    lead, below = base.lower_states(rows, NOTHING, 0, 2)
    above = base.states(rows, NOTHING, 0, LayerRange(2, (lead, *below)))
    torch.testing.assert_close(above, alone, **BOUND)


# Folders --------------------------------------------------------------------------------------


def saved(folder: Path, name: str = "bert-encoder", **files: Any) -> Path:
    """A folder of sentence-transformers, or of a plain model where no files are given."""
    family_model(next(f for f in [*ENCODERS, *MASKED] if f.name == name)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    for path, content in files.items():
        place = folder / {"pooling": "1_Pooling/config"}.get(path, path)
        place.parent.mkdir(exist_ok=True)
        place.with_suffix(".json").write_text(json.dumps(content), "utf-8")
    return folder


def modules(*kinds: str) -> list[dict[str, Any]]:
    paths = {"Pooling": "1_Pooling", "Transformer": ""}
    return [
        {
            "idx": n,
            "name": str(n),
            "path": paths.get(kind, f"{n}_{kind}"),
            "type": f"s.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]


CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
PLAIN = modules("Transformer", "Pooling")


def test_a_folder_says_how_it_pools_normalises_and_reads(tmp_path: Path) -> None:
    folder = saved(
        tmp_path,
        modules=modules("Transformer", "Pooling", "Normalize"),
        pooling=CLS,
        sentence_bert_config={"max_seq_length": 20},
        config_sentence_transformers={"prompts": {"query": "query: ", "passage": "passage: "}},
    )
    base = fw.load(str(folder))
    assert base.pooling == Pooling("cls", True, "query: ", "passage: ", 20)
    assert base.architecture == "encoder"
    assert base.longest == 20
    assert Backbone.outline(str(folder)).pooling == base.pooling
    mean = fw.load(str(folder), pooling="mean")
    assert mean.pooling is not None
    assert mean.pooling.mode == "mean"
    assert mean.fingerprint != base.fingerprint == fw.load(str(folder), pooling="cls").fingerprint
    rows = [fw.Row({"text": text, "label": text[:2]}, "r") for text in ("good", "bad film")]
    assert fw.Classify().complete(rows, base).template == "query: {text}"


def test_a_file_that_is_there_says_how_a_folder_pools_or_is_told_as_broken(tmp_path: Path) -> None:
    folder = saved(tmp_path, modules=modules("Transformer", "Pooling", "Normalize"), pooling=CLS)
    file = folder / "modules.json"
    file.write_text(file.read_text("utf-8"), "utf-8-sig")
    assert Backbone.outline(str(folder)).pooling == Pooling("cls", True)
    file.write_text("[{broken", "utf-8")
    with pytest.raises(UserError, match=r"modules\.json: cannot be read as JSON \(.*mend the file"):
        Backbone.outline(str(folder))


def test_a_plain_folder_pools_by_what_its_tokens_see(tmp_path: Path) -> None:
    for name, mode in (("bert-encoder", "mean"), ("qwen3-encoder", "last")):
        base = fw.load(str(saved(tmp_path / name, name)))
        assert base.architecture == "encoder"
        assert base.pooling == Pooling(mode)  # type: ignore[arg-type]
        assert not any("pooler" in key for key in base.model.state_dict())
        assert base.fingerprint == fw.load(str(tmp_path / name), pooling=mode).fingerprint


def test_any_model_of_one_stack_opens_as_an_encoder(tmp_path: Path) -> None:
    folder = str(saved(tmp_path, "bert"))
    assert fw.load(folder).architecture == "masked"
    base = fw.load(folder, architecture="encoder", pooling="cls")
    with torch.no_grad():
        expected = fw.load(folder).model.base_model(torch.tensor([ROWS[1]])).last_hidden_state[0, 0]
    torch.testing.assert_close(base.states([row(ROWS[1])])[0], expected)


@pytest.mark.parametrize(
    ("files", "asked", "said"),
    [
        (
            {"modules": PLAIN, "pooling": {"pooling_mode_max_tokens": True}},
            {},
            "its pooling is max_tokens, and foreword has mean, weightedmean, cls, last; choose one",
        ),
        (
            {"modules": PLAIN, "pooling": {**CLS, "pooling_mode_mean_tokens": True}},
            {},
            "cls_token and mean_tokens",
        ),
        ({"modules": PLAIN}, {}, "1_Pooling, of its modules.json, has no config.json"),
        (
            {"modules": modules("Transformer", "Pooling", "Dense"), "pooling": CLS},
            {},
            "a layer Dense after the model",
        ),
        (
            {"modules": PLAIN, "pooling": CLS},
            {"pooling": "men"},
            "unknown pooling 'men': did you mean 'mean'",
        ),
        (
            {"modules": PLAIN, "pooling": CLS},
            {"architecture": "masked"},
            "as masked: its weights lack",
        ),
    ],
)
def test_a_folder_that_pools_otherwise_is_refused_in_one_line(
    files: Any, asked: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        fw.load(str(saved(tmp_path, **files)), **asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pooling_is_no_matter_of_a_language_model(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="opened as masked, which predicts tokens and pools nothing"
    ):
        fw.load(str(saved(tmp_path, "bert")), pooling="mean")


# Tasks ----------------------------------------------------------------------------------------

LABELLED = [
    fw.Row({"text": text, "label": label}, f"r:{n}")
    for n, (text, label) in enumerate(
        [("a good film", "good"), ("it was bad", "bad"), ("so good", "good"), ("bad film", "bad")]
    )
]


def test_without_a_head_a_label_is_as_likely_as_its_name_is_similar() -> None:
    base = backbone(ENCODERS[0])
    task = fw.Classify().complete(LABELLED, base)
    assert task.template == "{text}"
    texts = ["a good film", "it was bad :"]
    bad, good = F.normalize(encode(base, ["bad", "good"]), dim=1)
    cosines = F.normalize(encode(base, texts), dim=1) @ torch.stack([bad, good]).T
    expected = torch.softmax(SCALE * cosines, 1)
    answers = task.bind(base).predict([fw.Row({"text": text}, "r") for text in texts], NOTHING)
    chances = torch.tensor([list(each["probabilities"].values()) for each in answers])
    torch.testing.assert_close(chances, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["prefix", "soft", "head"])
def test_a_prompt_of_an_encoder_is_kept_and_opened_again(method: str, tmp_path: Path) -> None:
    base = fw.load(str(saved(tmp_path / "m")), pooling="cls")
    prompt = fw.tune(base, "classify", method, LABELLED, LABELLED, epochs=1)
    path = prompt.save(tmp_path / "p.safetensors")
    again = fw.Prompt.load(path)  # the model opens as it was, with its pooling
    assert again.predict(["a good film"], probabilities=True) == prompt.predict(
        ["a good film"], probabilities=True
    )
    assert again.backbone["pooling"] == "cls"


@pytest.mark.parametrize("task", ["generate", "chat", "translate", "summarize", "answer"])
def test_what_writes_texts_says_that_an_encoder_cannot(task: str) -> None:
    fields = {"prompt": "a", "completion": "b", "source": "a", "target": "b", "question": "a"}
    more = {"context": "a", "answers": ["a"], "document": "a", "summary": "b"}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [fw.Row({**fields, **more, "messages": messages}, f"r:{n}") for n in range(4)]
    with pytest.raises(UserError, match="bert-encoder is an encoder and cannot generate"):
        fw.tune(backbone(ENCODERS[0]), task, "prefix", rows, rows)


def test_a_folder_that_lowers_its_texts_reads_them_so(tmp_path: Path) -> None:
    plain = fw.load(str(saved(tmp_path / "a", modules=PLAIN, pooling=CLS))).text
    lower = {"sentence_bert_config": {"do_lower_case": True}}
    text = fw.load(str(saved(tmp_path / "b", modules=PLAIN, pooling=CLS, **lower))).text
    assert plain.ids("A GOOD film") != plain.ids("a good film")
    assert text.ids("A GOOD film") == text.ids("a good film") == plain.ids("a good film")


def test_an_encoder_opened_as_what_it_is_not_is_refused_in_one_line(tmp_path: Path) -> None:
    folder, said = str(saved(tmp_path)), logging.Handler()
    heard: list[str] = []
    said.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(said)
    try:
        with pytest.raises(UserError, match="its weights lack"):
            fw.load(folder, architecture="masked")
    finally:
        logger.removeHandler(said)
    assert heard == []
