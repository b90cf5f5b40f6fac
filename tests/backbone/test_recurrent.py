"""Recurrent backbones against torch's own LSTM and GRU, and decoding against a plain loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import LEAD, ROWS, close, random_kv, random_soft
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

import contract
from families import RECURRENT, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.backbone.example import Example
from foreword.backbone.load.recurrent_model import RecurrentConfig, RecurrentForCausalLM
from foreword.backbone.tokenizer import Text
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture
from foreword.methods.base import Method
from foreword.methods.full import Full
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from plain import twin

CELLS = {family.name: family for family in RECURRENT}
NEW = 6


@cache
def get(name: str) -> Backbone:
    made = backbone(CELLS[name])
    for parameter in made.model.parameters():  # as initialized, all say one thing
        parameter.data.mul_(3)
    return made


@cache
def talking(name: str) -> Backbone:
    """The same model with a word for each of the 160 ids, so that texts show which they are."""
    made = copy.copy(get(name))
    word = Tokenizer(models.WordLevel({f"t{i}": i for i in range(160)}))
    made.text = Text(PreTrainedTokenizerFast(tokenizer_object=word, pad_token="t0", eos_token="t1"))
    return made


@cache
def torchs(name: str) -> nn.RNNBase:
    """torch's own stack of layers with the same weights."""
    base = get(name)
    made = {"lstm": nn.LSTM, "gru": nn.GRU}[name](32, 32, num_layers=3, batch_first=True)
    for number, layer in enumerate(base.model.model.layers):
        for weight, own in layer.named_parameters():
            getattr(made, f"{weight}_l{number}").data.copy_(own)
    return made.requires_grad_(False)


def halves(name: str, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The keys and the values that stand for a state."""
    return (h, c) if c is not None else (h[..., :16], h[..., 16:])


def read(
    name: str, row: Sequence[int] | Tensor, start: Injection = NOTHING
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits after each token (T, V), and each layer's last state as keys and values (n,)."""
    base, model = get(name), torchs(name)
    x = row if isinstance(row, Tensor) else base.model.model.embed_tokens(torch.tensor(row))
    h, c = torch.zeros(3, 32), torch.zeros(3, 32)
    for number, site in enumerate(base.sites):
        if site in start.kv:
            kv = start.kv[site]
            if name == "lstm":
                h[number], c[number] = kv.keys[0, -1], kv.values[0, -1]
            else:
                h[number] = torch.cat([kv.keys[0, -1], kv.values[0, -1]])
    out, after = model(x, (h, c) if name == "lstm" else h)
    ends = after if name == "lstm" else (after,)
    return base.model.lm_head(out), [halves(name, *(e[n] for e in ends)) for n in range(3)]


def states_after(name: str, ids: Sequence[int]) -> Injection:
    with torch.no_grad():
        return Injection(kv=get(name).kv(ids))


def scores(base: Backbone, row: Sequence[int], injection: Injection = NOTHING) -> Tensor:
    targets = tuple((0, j) for j in range(-1, len(row) - 1))
    asked = Example(tuple(row[:1]), 1, (tuple(row[1:]),), targets)
    return base.logits(base.states([asked], injection))


# The model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_logits_and_states_are_those_of_torchs_own_layers(name: str) -> None:
    base = get(name)
    with torch.no_grad():
        close(scores(base, ROWS[0]), read(name, ROWS[0])[0])
        found = base.kv(ROWS[0])
    assert list(found) == list(base.sites)
    for place in range(len(ROWS[0])):
        _, states = read(name, ROWS[0][: place + 1])
        for kv, (key, value) in zip(found.values(), states, strict=True):
            close(kv.keys[0, place], key)
            close(kv.values[0, place], value)


@pytest.mark.parametrize("name", CELLS)
def test_a_prefix_is_the_first_state_and_its_last_position_alone_counts(name: str) -> None:
    injection = random_kv(get(name), 3)
    last = {n: KV(kv.keys[:, -1:], kv.values[:, -1:]) for n, kv in injection.kv.items()}
    some = Injection(kv=dict(list(injection.kv.items())[1:]))
    with torch.no_grad():
        for start in (injection, some):
            close(scores(get(name), ROWS[0], start), read(name, ROWS[0], start)[0])
        found = scores(get(name), ROWS[0], injection)
        assert torch.equal(found, scores(get(name), ROWS[0], Injection(kv=last)))
        assert not torch.allclose(found, scores(get(name), ROWS[0]), atol=1e-2)


@pytest.mark.parametrize("name", CELLS)
def test_padding_on_any_side_leaves_the_state_as_it_is(name: str) -> None:
    model = get(name).model
    ids = torch.randint(3, 160, (4, 6), generator=torch.Generator().manual_seed(0))
    masks = [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0]]
    with torch.no_grad():
        out = model(ids, attention_mask=torch.tensor(masks), use_cache=True)
        for row, mask in enumerate(masks):
            seen = [at for at, one in enumerate(mask) if one]
            expected, states = read(name, ids[row, seen].tolist())
            close(out.logits[row, seen], expected)
            for number, halved in enumerate(states):
                close(out.past_key_values.layers[number][row], torch.cat(halved))


@pytest.mark.parametrize("name", CELLS)
def test_rows_go_on_from_the_states_that_a_pass_returns(name: str) -> None:
    model, ids = get(name).model, torch.tensor(ROWS[0])[None]
    with torch.no_grad():
        first = model(ids[:, :3], use_cache=True)
        rest = model(ids[:, 3:], past_key_values=first.past_key_values)
        close(torch.cat([first.logits, rest.logits], 1)[0], read(name, ROWS[0])[0])
        assert model(ids, use_cache=False).past_key_values is None
        close(model(ids, logits_to_keep=2).logits[0], read(name, ROWS[0])[0][-2:])


@pytest.mark.parametrize("name", CELLS)
def test_what_it_can_and_cannot_do_is_found_by_trying(name: str) -> None:
    base = get(name)
    assert base.can_prefill
    assert not base.can_pack
    assert not base.positions_follow_prefix
    assert base.window is None
    assert base.compilable is not None
    assert [site.layer for site in base.need_sites()] == [0, 1, 2]
    assert all(site.recurrent for site in base.sites.values())
    with pytest.raises(UserError, match="cannot recompute its layers"):
        base.checkpointing(True)
    with pytest.raises(UserError, match="cannot take an adapter"):
        base.layer_parts  # noqa: B018


@pytest.mark.parametrize("name", CELLS)
def test_new_weights_begin_in_range_and_an_lstm_forgets_little(name: str) -> None:
    torch.manual_seed(0)
    made = RecurrentForCausalLM(RecurrentConfig(cell=name, hidden_size=16, vocab_size=20))
    layer = made.model.layers[1]
    assert 0.2 < float(layer.weight_hh.detach().abs().max()) <= 0.25
    forget = layer.bias_ih[16:32]
    assert bool((forget == 1).all()) is (name == "lstm")
    assert made.lm_head.weight is made.model.embed_tokens.weight


# Folders --------------------------------------------------------------------------------------


def saved(name: str, folder: Path) -> Path:
    base = get(name)
    base.model.save_pretrained(folder)
    base.text.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CELLS)
def test_a_folder_opens_as_any_other(name: str, tmp_path: Path) -> None:
    again = Backbone.load(str(saved(name, tmp_path)))
    assert again.architecture == "causal"
    assert again.fingerprint == get(name).fingerprint
    with torch.no_grad():
        assert torch.equal(scores(again, ROWS[0]), scores(get(name), ROWS[0]))
    assert get("lstm").fingerprint != get("gru").fingerprint


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"cell": "lstn"}, r"unknown cell 'lstn' \(known: lstm, gru\)"),
        ({"hidden_size": 1}, "width of at least 2"),
        ({"num_hidden_layers": 0}, "at least 1 layer"),
        ({"cell": "gru"}, "weight"),
        ({"hidden_size": 31}, "weights and"),
    ],
)
def test_a_folder_that_does_not_fit_says_so_in_one_line(
    wrong: dict[str, Any], why: str, tmp_path: Path
) -> None:
    config = saved("lstm", tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **wrong}), "utf-8")
    with pytest.raises(UserError, match=why) as caught:
        Backbone.load(str(tmp_path))
    assert "\n" not in str(caught.value)


# Methods --------------------------------------------------------------------------------------

METHODS: dict[str, tuple[Method, Method]] = {
    "soft": (Soft(length=3), Soft(length=5, start="vocabulary")),
    "prefix": (Prefix(length=3), Prefix(length=5, start="random")),
    "prefix by MLP": (Prefix(reparameterize=4), Prefix(length=2, start="labels")),
    "upper prefix": (Prefix(first_layer=1), Prefix(upper=0.3, start="random")),
    "gated prefix": (Prefix(gate=True), Prefix(gate=True, start="random")),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_keep_their_contract(method: str, name: str, tmp_path: Path) -> None:
    one, other = METHODS[method]
    contract.gradient_reaches_every_parameter(one, get(name))
    contract.a_file_gives_the_same_prompt(one, get(name), tmp_path)
    contract.the_backbone_is_untouched(one, get(name))
    contract.a_mixed_batch_equals_single_rows(one, other, get(name))
    contract.a_mixed_batch_equals_single_rows(one, METHODS["soft"][1], get(name))


@pytest.mark.parametrize("name", CELLS)
def test_tuned_prompts_score_as_torchs_own_layers_do(name: str) -> None:
    base = get(name)

    def oracle(base: Backbone, injection: Injection, example: Example) -> Tensor:
        found = []
        for b, j in example.targets:
            x = base.embed([*example.ids, *example.branches[b]])
            lead = x[:0] if injection.embeds is None else injection.embeds
            logits, _ = read(name, torch.cat([lead, x]), injection)
            found.append(logits[len(lead) + len(example.ids) + j])
        return torch.stack(found)

    for method in ("soft", "prefix", "prefix by MLP"):
        contract.equals_a_plain_oracle(METHODS[method][0], base, oracle)


@pytest.mark.parametrize("start", ["demonstrations", "random"])
@pytest.mark.parametrize("name", CELLS)
def test_a_prefix_has_one_position_and_takes_up_none(name: str, start: str) -> None:
    _, trainable = contract.built(Prefix(length=4, start=start), get(name))
    injection = trainable()
    assert injection.positions == 0
    assert {kv.keys.shape[1] for kv in injection.kv.values()} == {1}
    assert len(injection.kv) == 3


def test_a_prefix_starts_as_the_state_after_its_text() -> None:
    base = get("lstm")
    method = Prefix(start="text", start_text="a good film")
    _, trainable = contract.built(method, base)
    ids = base.text.ids("a good film")
    with torch.no_grad():
        found = scores(base, ROWS[0], trainable())
        close(found, read("lstm", [*ids, *ROWS[0]])[0][len(ids) :])


@pytest.mark.parametrize("name", CELLS)
def test_full_tuning_trains_the_cells(name: str) -> None:
    contract.gradient_reaches_every_parameter(Full(), get(name))
    contract.the_backbone_is_untouched(Full(), get(name))


# Decoding -------------------------------------------------------------------------------------


def loop(name: str, row: Sequence[int] | Tensor, start: Injection = NOTHING) -> str:
    """Greedy decoding that reads the whole row again for each token."""
    base, said = talking(name), []
    x = row if isinstance(row, Tensor) else base.embed(row)
    while len(said) < NEW and (not said or said[-1] != base.text.end):
        logits, _ = read(name, torch.cat([x, base.embed(said)]) if said else x, start)
        said.append(int(logits[-1].argmax()))
    return base.text.decode(said)


@pytest.mark.parametrize("name", CELLS)
def test_greedy_decoding_equals_a_plain_loop(name: str) -> None:
    base, how = talking(name), Decoding(max_new_tokens=NEW)
    assert decode(base, ROWS, NOTHING, how) == [loop(name, row) for row in ROWS]
    learned, soft = random_kv(base, 2), random_soft(base, 3, leading=2)
    parts = (NOTHING, learned, states_after(name, LEAD), soft)
    inside = base.vocabulary + 2
    rows = [*ROWS, (*ROWS[1], inside, 9)]
    assert soft.embeds is not None
    told = [soft.embeds[:2], base.embed(ROWS[1]), soft.embeds[2:], base.embed([9])]
    expected = [
        loop(name, ROWS[0], learned),
        loop(name, (*LEAD, *ROWS[1])),
        loop(name, ROWS[2]),
        loop(name, torch.cat(told)),
    ]
    assert decode(base, rows, Mixture(parts, (1, 2, 0, 3)), how) == expected
    assert len(set(expected)) > 2


@pytest.mark.parametrize("how", ["beams", "sampling"])
@pytest.mark.parametrize("name", CELLS)
def test_beams_and_samples_are_those_of_generate_without_a_cache(name: str, how: str) -> None:
    base, model = talking(name), twin(get(name))
    options: dict[str, Any] = {"num_beams": 3}
    decoding = Decoding(max_new_tokens=NEW, beams=3)
    if how == "sampling":
        options = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
        decoding = Decoding(max_new_tokens=NEW, temperature=0.7, top_p=0.9)
    config = GenerationConfig(
        max_new_tokens=NEW, eos_token_id=1, pad_token_id=0, use_cache=False, **options
    )
    expected = []
    for row in ROWS:
        torch.manual_seed(row_seed(0, (*LEAD, *row)))
        ids = torch.tensor([[*LEAD, *row]])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        expected.append(base.text.decode(whole[0, ids.shape[1] :].tolist()))
    assert decode(base, ROWS, states_after(name, LEAD), decoding, lead=LEAD) == expected


def test_decoding_reads_every_token_once() -> None:
    base, seen = backbone(CELLS["lstm"]), []
    base.model.generation_config.eos_token_id = None
    layer = base.model.model.layers[2]
    layer.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    decode(base, [ROWS[0], ROWS[0]], NOTHING, Decoding(max_new_tokens=9, beams=2))
    assert seen == [len(ROWS[0]), *[1] * 8]
