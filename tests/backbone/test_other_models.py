"""Models that are built otherwise than most: run exactly, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from families import GQA, REACHED, SMALL, Family, backbone
from foreword.backbone.attention import interface
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, continuations, decode
from foreword.backbone.decoding_rules import until_end
from foreword.backbone.example import Example
from foreword.backbone.run import probes
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.serve.engine import Engine
from foreword.serve.request import Sampling
from plain import twin

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 99}
TWO = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_start_token_id": 0,
}
SWITCH = {
    "d_model": 32,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_heads": 4,
    "d_kv": 8,
    "num_experts": 2,
    "expert_capacity": 4,
    "decoder_start_token_id": 0,
}
BAMBA = {
    "num_key_value_heads": 2,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 4,
}
LLAMA4 = {**GQA, "intermediate_size_mlp": 64, "num_local_experts": 2, "no_rope_layers": [1, 1, 0]}
MAMBA = {"num_key_value_heads": 2, "mamba_d_state": 4, "mamba_dt_rank": 2}
LINEAR = {
    **GQA,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
FALCON = {
    "num_key_value_heads": 2,
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
    "lm_head_multiplier": 0.5,
}
NEMOTRON = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "layers_block_type": ["mamba", "attention", "mamba"],
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 1,
    "ssm_state_size": 8,
    "chunk_size": 4,
}
MIX = ["linear_attention", "full_attention", "linear_attention"]
HYBRIDS = [
    Family("jamba", "causal", {**MAMBA, "attn_layer_period": 3, "attn_layer_offset": 1}),
    Family("qwen3_next", "causal", {**LINEAR, "layer_types": MIX}),
    Family("lfm2", "causal", {"num_key_value_heads": 2, "layer_types": ["conv", MIX[1], "conv"]}),
    Family("falcon_h1", "causal", FALCON),
    Family("nemotron_h", "causal", NEMOTRON),
]
UNRUNNABLE = [
    Family("jamba", "causal", MAMBA),  # none of its three layers attends
    Family("qwen3_next", "causal", LINEAR),
]
PER_LAYER = {
    **GQA,
    "global_head_dim": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 160,
    "num_kv_shared_layers": 1,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "activation_sparsity_pattern": [0.0, 0.0, 0.0],
}
INKLING = {
    **GQA,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "d_rel": 8,
    "rel_extent": 32,
    "log_scaling_n_floor": 32,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid"],
}
LANDMARKS = {"num_landmarks": 4, "segment_means_seq_len": 64}
FSMT = {**TWO, "src_vocab_size": 160, "tgt_vocab_size": 160, "langs": ["en", "de"]}
OTHERS = {
    f.name: f
    for f in (
        Family("fnet", "masked", {"tpu_short_seq_length": 64}),
        Family("convbert", "masked", {"embedding_size": 32}),
        Family("yoso", "masked"),
        Family("ibert", "masked"),
        Family("nystromformer", "masked", LANDMARKS),
        Family("ctrl", "causal", {**GPT, "dff": 64}),
        Family("openai-gpt", "causal", GPT),
        Family("bamba", "causal", BAMBA),
        Family("llama4_text", "causal", LLAMA4),
        Family("switch_transformers", "encoder-decoder", SWITCH),
        Family("nllb-moe", "encoder-decoder", {**TWO, "num_experts": 4, "expert_capacity": 4}),
        Family("pegasus_x", "encoder-decoder", TWO),
        Family("bigbird_pegasus", "encoder-decoder", TWO),
        Family("fsmt", "encoder-decoder", FSMT),
        Family("bert", "masked"),
        Family("roberta", "causal", {"is_decoder": True, "max_position_embeddings": 65}),
        Family("inkling2_text", "causal", INKLING),
        Family("doge", "causal", {"num_key_value_heads": 2, "keep_window_size": 4}),
        Family("rwkv", "causal", {"attention_hidden_size": 32}),
        Family("bart", "causal", TWO),
        Family("mamba", "causal", {"state_size": 4}),
        Family("gemma4_text", "causal", PER_LAYER),
        Family("gemma3n_text", "causal", {**PER_LAYER, "laurel_rank": 8, "altup_num_inputs": 2}),
    )
}
ROWS = (tuple(range(30, 50)), (88, 12, 47), (5, 133, 64, 29, 101))
LEAD = (17, 20, 33)


@cache
def get(name: str) -> Backbone:
    return backbone(OTHERS[name])


@pytest.mark.parametrize("name", ["fnet", "convbert", "yoso", "bert"])
@torch.no_grad()
def test_the_padding_beside_a_longer_row_changes_no_score(name: str) -> None:
    """FNet mixes all places of a row, ConvBERT and YOSO look at what stands beside a token."""
    base, model = get(name), twin(get(name))
    assert base.can_pad == (name == "bert")
    assert not base.can_skip_lower_layers(9) or name == "bert"
    targets = ((1, 1), (0, 0), (1, 0))
    asked = [Example(row, 2, ((2,), (2, 2)), targets) for row in ROWS]
    found = base.logits(base.states(asked)).view(3, 3, -1)
    for row, logits in zip(ROWS, found, strict=True):
        one = model(torch.tensor([[*row[:2], 2, *row[2:]]])).logits[0]
        two = model(torch.tensor([[*row[:2], 2, 2, *row[2:]]])).logits[0]
        expected = torch.stack([two[3], one[2], two[2]])
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_hide_no_convolution_over_padding(dtype: torch.dtype) -> None:
    """It adds a hundredth of a state on this model, as rounding can."""
    assert not backbone(OTHERS["convbert"], dtype=dtype).can_pad
    assert backbone(OTHERS["bert"], dtype=dtype).can_pad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_are_padded_where_only_rounding_parts_them(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, plainly = backbone(OTHERS["bert"], dtype=dtype), probes.states

    def rounded(network: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        """Let a pass of two rows come out three hundredths larger, as a deep model can."""
        return plainly(network, rows, *rest, **options) * (1.03 if len(rows) > 1 else 1)

    monkeypatch.setattr(probes, "states", rounded)
    assert base.can_pad


def test_rows_without_padding_keep_their_prompts_and_gradients() -> None:
    base = get("fnet")
    soft = torch.randn(2, base.width, generator=torch.Generator().manual_seed(0))
    embeds = soft.clone().requires_grad_()
    asked = [Example(row, 2, ((2,),), ((0, 0),)) for row in ROWS]
    mixture = Mixture((NOTHING, Injection(embeds=embeds, leading=2)), (0, 1, 0))
    found = base.logits(base.states(asked, mixture))
    found[1].logsumexp(0).backward()
    assert embeds.grad is not None
    assert float(embeds.grad.abs().sum()) > 0
    read = torch.cat([soft, base.embed((*ROWS[1][:2], 2, *ROWS[1][2:]))])
    with torch.no_grad():
        expected = twin(base)(inputs_embeds=read[None]).logits[0, 4]
    torch.testing.assert_close(found[1].detach(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ctrl", "openai-gpt", "bamba"])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_soft_prompt_goes_before_generated_text(name: str, beams: int) -> None:
    """Their ``generate`` takes no embeddings."""
    base, how = get(name), Decoding(max_new_tokens=5, beams=beams)
    with torch.no_grad():
        soft = Injection(embeds=base.embed(LEAD), leading=3)
    found = decode(base, ROWS, soft, how)
    assert found == [decode(base, [(*LEAD, *row)], NOTHING, how)[0] for row in ROWS]


def written(scores: Callable[[list[int]], Tensor], row: Sequence[int]) -> list[int]:
    """Continue a row by what scores it whole: five tokens, or those before the end."""
    ids = list(row)
    for _ in range(5):
        ids.append(int(scores(ids).argmax()))
    return until_end(ids[len(row) :], (1,))


def continued(base: Backbone, parts: Sequence[Injection]) -> list[list[list[int]]]:
    """Continue ``ROWS`` under each part in a batch, and all of them at once in the engine."""
    made = [continuations(base, ROWS, part, Decoding(max_new_tokens=5)) for part in parts]
    with Engine(base) as engine:
        how = Sampling(max_new_tokens=5)
        tickets = [[engine.generate(row, part, how) for row in ROWS] for part in parts]
        for batch, answers in zip(made, tickets, strict=True):
            found = [list(ticket.result(60).tokens) for ticket in answers]
            assert found == [until_end(ids, base.ends) for ids in batch]
    return [[until_end(ids, base.ends) for ids in batch] for batch in made]


@pytest.mark.parametrize("name", ["rwkv", "bart", "mamba"])
@torch.no_grad()
def test_rows_of_several_lengths_are_continued_as_they_are_alone(name: str) -> None:
    """RWKV reads padding as text, and a decoder of BART counts it among the positions."""
    base, model = get(name), twin(get(name))

    def scores(ids: list[int]) -> Tensor:
        return model(torch.tensor([ids])).logits[0, -1]

    assert base.can_decode_together == (name == "mamba")
    soft = Injection(embeds=base.embed(LEAD), leading=3)
    assert continued(base, (NOTHING, soft)) == [
        [written(scores, (*lead, *row)) for row in ROWS] for lead in ((), LEAD)
    ]


@pytest.mark.parametrize("name", ["gemma4_text", "gemma3n_text"])
def test_every_layer_reads_of_a_virtual_token_what_it_reads_of_padding(name: str) -> None:
    """Their layers look up a token's id, which a learned vector does not have."""
    base, model = get(name), twin(get(name))
    look_up: Any = model.base_model.get_per_layer_inputs
    made = torch.randn(3, base.width, generator=torch.Generator().manual_seed(0))
    own, plain = (made.clone().requires_grad_() for _ in range(2))

    def scores(ids: list[int]) -> Tensor:
        embeds = torch.cat([plain, base.embed(ids)])[None]
        beside = look_up(torch.tensor([[0, 0, 0, *ids]]))
        found = model.base_model(inputs_embeds=embeds, per_layer_inputs=beside)
        return model.lm_head(found.last_hidden_state[0, -1])

    asked = [Example(row, len(row), ((),), ((0, -1),)) for row in ROWS]
    found = base.states(asked, Injection(embeds=own, leading=3)) @ model.lm_head.weight.T
    expected = torch.stack([scores(list(row)) for row in ROWS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found.logsumexp(1).sum().backward()
    expected.logsumexp(1).sum().backward()
    torch.testing.assert_close(own.grad, plain.grad, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        said = continued(base, [Injection(embeds=made, leading=3)])
        assert said == [[written(scores, row) for row in ROWS]]


def check_as_alone_and_behind_text(base: Backbone) -> None:
    """Compare a batch of rows, without and with a text's virtual tokens, with the model's own."""
    model, asked = twin(base), [Example(row, len(row), ((),), ((0, -1),)) for row in ROWS]
    for lead in ((), LEAD):
        soft = Injection(embeds=base.embed(lead), leading=3) if lead else NOTHING
        found = base.logits(base.states(asked, soft))
        expected = [model(torch.tensor([[*lead, *row]])).logits[0, -1] for row in ROWS]
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["inkling2_text", "doge"])
@torch.no_grad()
def test_attention_of_a_kind_of_its_own_is_run_as_it_is(name: str) -> None:
    """Inkling hands its sinks down by another name, and Doge's mask follows from its values."""
    base = get(name)
    check_as_alone_and_behind_text(base)
    assert not base.can_pack
    if name == "inkling2_text":
        with pytest.raises(UserError, match="its own attention does more than transformers' inter"):
            base.need_sites()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_that_comes_to_something_else_takes_no_prefix(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only rounding parts does: in half types the first module is asked, coarsely."""
    for family in REACHED:
        assert backbone(family, dtype=dtype).sites
    real = interface.sdpa_attention_forward

    def halved(*given: Any, **more: Any) -> tuple[Tensor, None]:
        return real(*given, **more)[0] / 2, None

    monkeypatch.setattr(interface, "sdpa_attention_forward", halved)
    base = backbone(Family("llama", "causal", GQA), dtype=dtype)
    with pytest.raises(UserError, match="its own attention does more than transformers' inter"):
        base.need_sites()


@torch.no_grad()
def test_a_saving_that_a_model_cannot_take_is_left_out() -> None:
    """Gemma 3n has four states a token between its layers, so that its lower ones are not kept."""
    base = get("gemma3n_text")
    base.check_runs()
    assert base.can_pack
    assert not base.can_skip_lower_layers(9)


@torch.no_grad()
def test_experts_that_rows_of_a_pass_share_are_given_one_row() -> None:
    """Switch: an expert takes so many tokens of a pass, whichever rows they are of."""
    base, model = get("switch_transformers"), twin(get("switch_transformers"))
    asked = [Example(row, len(row), ((5,),), ((0, 0),)) for row in ROWS]
    found = base.logits(base.states(asked))
    for row, logits in zip(ROWS, found, strict=True):
        said = torch.tensor([[0, 5]])
        expected = model(torch.tensor([list(row)]), decoder_input_ids=said).logits[0, -1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["switch_transformers", "nllb-moe"])
def test_encoder_decoders_of_experts_generate_alone_as_in_a_batch(name: str) -> None:
    base, how = get(name), Decoding(max_new_tokens=5)
    with torch.no_grad():
        soft = Injection(embeds=base.embed(LEAD), leading=3)
    for injection in (NOTHING, soft):
        found = decode(base, ROWS, injection, how)
        assert found == [decode(base, [row], injection, how)[0] for row in ROWS]


@pytest.mark.parametrize("name", ["pegasus_x", "bigbird_pegasus", "nllb-moe"])
@torch.no_grad()
def test_decoders_that_leave_the_past_to_their_mask_see_it_alone(name: str) -> None:
    base = get(name)
    one, other = (
        base.states([Example(ROWS[2], 5, ((8, 9, *end),), ((0, 1),))]) for end in ((3, 4), (5, 6))
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    said = torch.tensor([[0, 8, 9]])
    expected = twin(base)(torch.tensor([ROWS[2]]), decoder_input_ids=said).logits[:, -1]
    torch.testing.assert_close(base.logits(one), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["pegasus_x", "roberta"])
def test_what_would_write_by_what_comes_after_is_refused(name: str) -> None:
    base = backbone(OTHERS[name])
    for site in base.sites.values():
        site.module.is_causal = False  # type: ignore[assignment]
    if name == "roberta":
        base.model.config.is_decoder = False  # its mask is then made to see all
    with pytest.raises(UserError, match="a token's state changes with those after it"):
        base.check_runs()


@pytest.mark.parametrize("name", ["llama4_text", "fsmt", "nystromformer"])
def test_what_does_not_run_as_others_is_refused_in_one_line(name: str) -> None:
    base = get(name)
    branch: tuple[int, ...] = (2,) if base.fills_masks else ()
    asked = [Example(row, len(row), (branch,), ((0, len(branch) - 1),)) for row in ROWS]
    kind = type(base.model).__name__
    calls: list[Any] = [lambda: base.states(asked)]
    if name == "fsmt":
        calls.append(lambda: decode(base, ROWS, NOTHING, Decoding(max_new_tokens=2)))
    for call in calls:
        with pytest.raises(UserError, match=f"^{kind} is run otherwise than other ") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ibert", "fsmt", "llama4_text"])
def test_what_takes_no_embeddings_refuses_virtual_tokens(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} cannot take virtual tokens"):
        get(name).embed(LEAD)


@pytest.mark.parametrize("family", HYBRIDS, ids=lambda family: family.name)
@torch.no_grad()
def test_hybrids_run_as_they_are_alone_and_behind_a_prefix(family: Family) -> None:
    """Layers without attention see what stands before a row, so rows are not cut up or packed."""
    base = backbone(family)
    check_as_alone_and_behind_text(base)
    assert not base.can_pack
    assert not base.can_prefill
    assert not base.can_skip_lower_layers(9)
    assert base.need_sites()


@torch.no_grad()
def test_rows_begin_where_a_position_table_has_kept_rows_for_padding() -> None:
    base, how = get("roberta"), Decoding(max_new_tokens=5)
    model, soft = twin(base), Injection(embeds=base.embed(LEAD), leading=3)
    assert base.longest == 64
    assert base.can_pack
    asked = [Example(row, len(row), ((),), ((0, -1),)) for row in ROWS]
    read = base.prefill(soft, (), 30)
    assert read is not None
    for lead, under in (((), NOTHING), (LEAD, soft), (LEAD, read)):
        rows = [[*lead, *row] for row in ROWS]
        expected = torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows])
        alone = torch.cat([base.states([each], under) for each in asked])
        for states in (base.states(asked, under), alone):
            torch.testing.assert_close(base.logits(states), expected, atol=1e-5, rtol=0)
        for _ in range(how.max_new_tokens):
            for row in rows:
                row.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
        said = [row[-how.max_new_tokens :] for row in rows]
        assert continuations(base, ROWS, under, how) == said
        with Engine(base) as engine:
            tickets = [engine.generate(row, under, Sampling(max_new_tokens=5)) for row in ROWS]
            assert [list(ticket.result(60).tokens) for ticket in tickets] == said


@pytest.mark.parametrize("family", UNRUNNABLE, ids=lambda family: family.name)
def test_what_cannot_be_looked_at_is_refused_in_one_line(family: Family) -> None:
    base = backbone(family)
    with pytest.raises(UserError, match="is run otherwise than other causal models") as caught:
        base.check_runs()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="its attention cannot be run through transformers'"):
        base.need_sites()


@torch.no_grad()
def test_a_decoder_starts_as_its_own_model_begins_what_it_learns() -> None:
    """T5Gemma names no token to start with, and puts one of its own before labels."""
    stack = {**SMALL, **GQA, "bos_token_id": 7, "sliding_window": 64}
    base = backbone(Family("t5gemma", "encoder-decoder", {"encoder": stack, "decoder": stack}))
    model, how = twin(base), Decoding(max_new_tokens=5)
    said = model.prepare_decoder_input_ids_from_labels(torch.tensor([[8, 9, 1]]))
    assert said.tolist() == [[7, 8, 9]]
    asked = [Example(ROWS[2], 5, ((8, 9),), ((0, 1),))]
    expected = model(torch.tensor([ROWS[2]]), decoder_input_ids=said).logits[:, -1]
    torch.testing.assert_close(base.logits(base.states(asked)), expected, atol=1e-5, rtol=0)
    own = torch.tensor([[7]])
    for _ in range(how.max_new_tokens):
        scores = model(torch.tensor([ROWS[2]]), decoder_input_ids=own).logits[0, -1]
        own = torch.cat([own, scores.argmax()[None, None]], 1)
    found = continuations(base, [ROWS[2]], NOTHING, how)[0]
    assert until_end(found, base.ends) == until_end(own[0, 1:].tolist(), base.ends)


def test_a_model_without_a_table_of_embeddings_is_refused_in_one_line() -> None:
    sizes = {"d_model": 32, "d_latents": 32, "num_latents": 4, "num_blocks": 1}
    heads = {"num_self_attention_heads": 4, "num_cross_attention_heads": 4}
    family = Family("perceiver", "masked", {**sizes, **heads, "num_self_attends_per_block": 2})
    with pytest.raises(UserError, match=r"^PerceiverForMaskedLM has no table of token embeddings"):
        backbone(family)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
@torch.no_grad()
def test_frequencies_that_depend_on_the_length_are_the_same_for_every_row(kind: str) -> None:
    own = {
        "longrope": {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        "dynamic": {"factor": 4.0},
    }[kind]
    family = Family("phi3" if kind == "longrope" else "llama", "causal")
    base = backbone(
        family,
        rope_parameters={"rope_type": kind, "rope_theta": 10000.0, **own},
        max_position_embeddings=64 if kind == "longrope" else 16,
        original_max_position_embeddings=16,
    )
    assert base.longest == 16
    rows = [tuple(range(3, 3 + size)) for size in (base.longest, base.longest - 5)]
    long, short = [Example(row, len(row), ((),), ((0, -1),)) for row in rows]
    alone, whole = base.states([short]), base.states([long])
    torch.testing.assert_close(base.states([short, long]), torch.cat([alone, whole]))
    lead = base.prefill(NOTHING, long.ids[:5], base.longest)
    torch.testing.assert_close(base.states([long.after(5)], lead), whole)
    torch.testing.assert_close(base.states([short]), alone)
