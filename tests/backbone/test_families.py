"""Every family of the table: injections against the untouched models and against definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import (
    FAMILIES,
    FULL,
    LEAD,
    LONG,
    REACHED_NAMES,
    RECURRENT_NAMES,
    ROWS,
    TWO_STACKS,
    UNFOLDABLE,
    UNREACHED_NAMES,
    WINDOWS,
    asking,
    close,
    decoded,
    get,
    loss_and_gradients,
    oracle,
    random_kv,
    random_soft,
    scores,
    twin,
    untouched,
)
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from families import MASKED, backbone, by_mechanism
from foreword.backbone.example import Example
from foreword.backbone.inside.attention_sites import Site
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture

# Exact in float64: the others compute their norms, or a softmax, in float32 whatever the weights.
DOUBLE = ["gpt2", "opt", "gpt_neox", "phi"]


# Without an injection, and with the keys and values of real text ------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_states_and_logits_equal_the_untouched_model(name: str) -> None:
    with torch.no_grad():
        found = scores(name, ROWS)
    for row, logits in zip(ROWS, found, strict=True):
        close(logits, oracle(untouched(name), row, *decoded(row)))


@pytest.mark.parametrize("name", [*FULL, *RECURRENT_NAMES])
def test_the_keys_and_values_of_text_equal_the_text(name: str) -> None:
    base = get(name)
    with torch.no_grad():
        injection = Injection(kv=base.kv(LEAD), positions=len(LEAD))
        found = scores(name, ROWS, injection)
        read = scores(name, [(*LEAD, *row) for row in ROWS])
    for row, logits, full in zip(ROWS, found, read, strict=True):
        close(logits, full[len(LEAD) :])
        close(logits, oracle(untouched(name), (*LEAD, *row))[len(LEAD) :])


@pytest.mark.parametrize("name", DOUBLE)
def test_in_float64_the_text_and_its_keys_and_values_agree_to_1e_10(name: str) -> None:
    base = get(name, torch.float64)
    with torch.no_grad():
        injection = Injection(kv=base.kv(LEAD), positions=len(LEAD))
        found = scores(name, ROWS, injection, torch.float64)
    model = twin(name, "sdpa", torch.float64)  # eager attention takes its softmax in float32
    for row, logits in zip(ROWS, found, strict=True):
        close(logits, oracle(model, (*LEAD, *row))[len(LEAD) :], 1e-10)


@pytest.mark.parametrize("name", [*FULL, *TWO_STACKS])
def test_kv_is_what_the_models_own_cache_would_hold(name: str) -> None:
    base, said = get(name), {}
    if name in TWO_STACKS:
        said = {"decoder_input_ids": torch.tensor([LEAD])}
    with torch.no_grad():
        found = base.kv(LEAD)
        held = untouched(name)(torch.tensor([LEAD]), use_cache=True, **said).past_key_values
    caches = {"self": held}
    if said:
        caches = {"self": held.self_attention_cache, "cross": held.cross_attention_cache}
    assert found.keys() == base.sites.keys()
    for site, kv in found.items():
        assert kv.keys.shape[1] == kv.values.shape[1] == len(LEAD)
        role = base.sites[site].role
        if role != "encoder":  # no cache holds what an encoder reads
            layer = caches[role].layers[base.sites[site].layer]
            close(kv.keys, layer.keys[0])
            close(kv.values, layer.values[0])


@pytest.mark.parametrize("name", [*FULL, *RECURRENT_NAMES])
def test_kv_under_a_prefix_continues_it(name: str) -> None:
    base = get(name)
    with torch.no_grad():
        whole = base.kv((*LEAD, *ROWS[0]))
        rest = base.kv(ROWS[0], Injection(kv=base.kv(LEAD), positions=len(LEAD)))
    for site, kv in rest.items():
        close(kv.keys, whole[site].keys[:, len(LEAD) :])
        close(kv.values, whole[site].values[:, len(LEAD) :])


# Learned prefixes, against attention by its definition ----------------------------------------


def definition(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    given: Mapping[nn.Module, tuple[Site, KV, bool]],
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as one unpadded row by what the site is, heedless of the masks that come in."""
    site, prefix, causal = given[module]
    queries, own = query.shape[2], key.shape[2]
    groups, width = query.shape[1] // key.shape[1], query.shape[3]
    distance = torch.arange(queries)[:, None] - torch.arange(own)[None]  # (T, S)
    hidden = torch.zeros(queries, own, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
        if site.window is not None:
            hidden |= distance >= site.window

    def attend(h: int) -> Tensor:
        keys = torch.cat([prefix.keys[h // groups], key[0, h // groups]])
        values = torch.cat([prefix.values[h // groups], value[0, h // groups]])
        found = query[0, h] @ keys.T * (width**-0.5 if scaling is None else scaling)
        if softcap is not None:
            found = softcap * torch.tanh(found / softcap)
        before, after = found[:, :-own], found[:, -own:]
        if position_bias is not None:
            after = after + position_bias[0, h]
        found = torch.cat([before, after.masked_fill(hidden, -torch.inf)], 1).exp()
        sink = 0.0 if s_aux is None else s_aux[h].exp()
        return found @ values / (found.sum(1, keepdim=True) + sink)

    return torch.stack([attend(h) for h in range(query.shape[1])], 1)[None], None


AttentionInterface.register("definition", definition)
AttentionMaskInterface.register("definition", sdpa_mask)


def defined(name: str, row: Sequence[int], injection: Injection) -> Tensor:
    """Run one row under the prefix by the definition: its logits (T, V)."""
    base, model = get(name), by_definition(name)
    given = {}
    for site in base.sites.values():
        keys = torch.zeros(site.heads, 0, site.key_width)
        empty = KV(keys, torch.zeros(site.heads, 0, site.value_width))
        causal = site.role == "self" and base.architecture != "masked"
        given[model.get_submodule(site.name)] = (site, injection.kv.get(site.name, empty), causal)
    more: dict[str, Any] = {"given": given}
    if base.architecture == "causal":
        more["position_ids"] = torch.arange(len(row))[None] + injection.positions
    return oracle(model, row, *decoded(row), **more)


@cache
def by_definition(name: str) -> PreTrainedModel:
    made = twin(name, "eager")
    made.set_attn_implementation("definition")
    return made


@pytest.mark.parametrize("name", REACHED_NAMES)
def test_a_learned_prefix_equals_the_definition(name: str) -> None:
    """Of padded rows too; and windows hide far tokens, never the prefix, whatever the length."""
    injection = random_kv(get(name), 5)
    rows = [LONG, *ROWS]
    with torch.no_grad():
        found = scores(name, rows, injection)
        bare = scores(name, rows)
    for row, logits, without in zip(rows, found, bare, strict=True):
        close(logits, defined(name, row, injection))
        assert not torch.allclose(logits, without, atol=1e-3)


@pytest.mark.parametrize("name", REACHED_NAMES)
def test_a_prefix_at_some_sites_alone_equals_the_definition(name: str) -> None:
    whole = random_kv(get(name), 4)
    some = {site: kv for site, kv in whole.kv.items() if get(name).sites[site].layer != 0}
    if len(get(name).sites) == 1:  # ALBERT: one module is every layer
        some = dict(whole.kv)
    injection = replace(whole, kv=some)
    with torch.no_grad():
        found = scores(name, ROWS, injection)
    for row, logits in zip(ROWS, found, strict=True):
        close(logits, defined(name, row, injection))


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_hides_far_tokens_and_no_part_of_the_prefix(name: str) -> None:
    base, wide = get(name), backbone(FAMILIES[name], sliding_window=100)
    assert base.window == 4
    injection = random_kv(base, 6)  # longer than the window
    with torch.no_grad():
        narrow = base.logits(base.states([asking(name, LONG)], injection))
        full = wide.logits(wide.states([asking(name, LONG)], injection))
    close(narrow[:4], full[:4])
    assert ((narrow[4:] - full[4:]).abs().amax(1) > 1e-4).all()

    # The upper layer alone, so that nothing below can have handed the prefix on to the far token.
    top = max(site.layer for site in base.sites.values())
    last = {s: kv for s, kv in injection.kv.items() if base.sites[s].layer == top}
    with torch.no_grad():
        first = {s: KV(kv.keys[:, :1], kv.values[:, :1]) for s, kv in last.items()}
        one = scores(name, [LONG], Injection(kv=first, positions=6))[0]
        none = scores(name, [LONG], Injection(positions=6))[0]
    assert ((one - none).abs().amax(1) > 1e-4).all()


# Rows of one batch under different injections -------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixture_equals_single_rows(name: str) -> None:
    base = get(name)
    parts = [NOTHING, random_soft(base, 3, leading=3), random_soft(base, 2, leading=1, seed=1)]
    if base.sites:
        parts += [random_kv(base, 5), replace(parts[2], kv=random_kv(base, 2, seed=1).kv)]
    mixture = Mixture(tuple(parts), (*range(len(parts)), 1, 0))
    inside = base.vocabulary + 1  # of parts 2 and 4, whose first one leads
    rows = [LONG, ROWS[0], (*ROWS[1], inside), ROWS[2], (inside, *ROWS[1])][: len(parts)]
    rows += [ROWS[2], ROWS[1]]
    with torch.no_grad():
        together = scores(name, rows, mixture)
        for row, part, logits in zip(rows, mixture.rows, together, strict=True):
            close(logits, scores(name, [row], parts[part])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixture_of_branching_rows_equals_single_rows(name: str) -> None:
    base = get(name)
    parts = (NOTHING, random_soft(base, 2, leading=2), random_kv(base, 4))
    branches = ((5, 6), (5, 7, 8), (9,))
    targets = ((0, 1), (1, -1), (1, 2), (2, 0))
    asked = [Example(row, len(row), branches, targets) for row in ROWS]
    with torch.no_grad():
        together = base.states(asked, Mixture(parts, (2, 0, 1)))
        single = [base.states([e], parts[r]) for e, r in zip(asked, (2, 0, 1), strict=True)]
    close(together, torch.cat(single))


# Branches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("injected", "name"),
    by_mechanism((how, name) for how in ("prefix", "nothing", "soft") for name in FAMILIES),
)
def test_branches_equal_a_run_for_each(name: str, injected: str) -> None:
    base = get(name)
    injection = {
        "nothing": NOTHING,
        "prefix": random_kv(base, 4),  # of an unreached family: nothing again
        "soft": random_soft(base, 3, leading=3),
    }[injected]
    branches = ((5, 6), (5, 7, 8), (5,), (9, 5, 6, 7), (5, 7, 9), (5, 6))
    targets = tuple((b, j) for b, branch in enumerate(branches) for j in range(-1, len(branch)))
    # The first row fits into a window alone, and with its branches it does not.
    whole = [Example(row, len(row), branches, targets) for row in [(3,), *ROWS]]
    with torch.no_grad():
        found = base.states(whole, injection)
        expected = [
            base.states(
                [replace(e, branches=(b,), targets=tuple((0, j) for j in range(-1, len(b))))],
                injection,
            )
            for e in whole
            for b in e.branches
        ]
    close(found, torch.cat(expected))


@pytest.mark.parametrize("name", [f.name for f in MASKED])
def test_masked_branches_stand_in_the_middle_of_the_row(name: str) -> None:
    base, row = get(name), ROWS[0]
    asked = Example(row, 3, ((2,), (2, 2)), ((0, 0), (1, 1), (1, 0)))
    with torch.no_grad():
        found = base.logits(base.states([asked]))
    one = oracle(untouched(name), (*row[:3], 2, *row[3:]))
    two = oracle(untouched(name), (*row[:3], 2, 2, *row[3:]))
    close(found, torch.stack([one[3], two[4], two[3]]))


# Folding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FULL, *RECURRENT_NAMES])
def test_folding_keeps_scores_and_gradients(name: str) -> None:
    base = get(name)
    assert base.can_prefill
    kv = random_kv(base, 3, seed=2)
    upper = {site: pair for site, pair in kv.kv.items() if base.sites[site].layer > 0}
    soft = random_soft(base, 5, leading=3)
    for injection in (soft, replace(soft, kv=upper, positions=kv.positions), kv):
        inside = (base.vocabulary + 3,) if injection.embeds is not None else ()
        rows = [(*inside, *row) for row in ROWS]
        whole = [asking(name, (*LEAD, *row)) for row in rows]
        whole = [replace(e, targets=e.targets[len(LEAD) :]) for e in whole]
        after = [asking(name, row) for row in rows]
        longest = max(e.length for e in whole)

        _, gradients = loss_and_gradients(base, injection, whole)
        leaves = injection.map(lambda tensor: tensor.clone().requires_grad_())
        folded = base.prefill(leaves, LEAD, longest)
        assert folded is not None
        assert folded.leading == 0
        assert folded.positions == injection.positions + injection.leading + len(LEAD)
        logits = base.logits(base.states(after, folded))
        with torch.no_grad():
            close(logits, base.logits(base.states(whole, injection)))
        F.cross_entropy(logits, torch.arange(len(logits)) + 3).backward()
        for tensor, leaf in leaves.tensors():
            if tensor == "embeds":
                leaf.grad[4:] = 0  # an embedding that no row names
            close(leaf.grad, gradients[tensor])


def test_folding_nothing_gives_it_back() -> None:
    assert get("llama").prefill(NOTHING, (), 9) is NOTHING


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_beyond_a_window_are_not_folded_and_equal_the_untouched_model(name: str) -> None:
    base = get(name)
    soft = random_soft(base, 3, leading=3)
    assert base.can_prefill
    assert base.prefill(soft, LEAD, len(LEAD) + 3) is None
    assert base.prefill(soft, LEAD[:1], 2) is None  # 3 virtual tokens, 2 real: one too many
    table = torch.cat([soft.embeds, base.embed(LONG)])
    with torch.no_grad():
        found = scores(name, [LONG], soft)[0]
    close(found, oracle(untouched(name), table)[3:])

    short = replace(soft, leading=2)
    folded = base.prefill(short, LEAD[:1], 2)  # 2 virtual tokens, 2 real: just as far as it reaches
    assert folded is not None
    table = torch.cat([soft.embeds[:2], base.embed((LEAD[0], 9))])
    with torch.no_grad():
        last = base.logits(base.states([asking(name, (9,))], folded))
    close(last[0], oracle(untouched(name), table)[-1])


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_only_causal_families_that_are_reached_fold(name: str) -> None:
    base = get(name)
    assert not base.can_prefill
    assert base.prefill(random_soft(base, 2, leading=2), LEAD, 9) is None


# Virtual tokens --------------------------------------------------------------------------------


# Marian scales what it looks up but not what it is given, so that embeddings put together by hand
# are other inputs than ids; the test after this says what holds there too.
BY_HAND = [name for name in FAMILIES if name != "marian-scaled"]


@pytest.mark.parametrize("name", BY_HAND)
def test_virtual_tokens_get_their_embeddings_wherever_they_stand(name: str) -> None:
    base = get(name)
    soft, v = random_soft(base, 5, leading=1), base.vocabulary
    rows = [(v + 3, 9, v + 1, 40, 41, v + 4), (12, 13, v + 2), (7, 8, 9, 10)]
    with torch.no_grad():
        found = scores(name, rows, soft)
    for row, logits in zip(rows, found, strict=True):
        led = (v, *row)
        table = torch.stack([soft.embeds[t - v] if t >= v else base.embed([t])[0] for t in led])
        full = oracle(untouched(name), table, *decoded(row))
        close(logits, full if base.architecture == "encoder-decoder" else full[1:])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_virtual_token_with_a_real_ones_embedding_is_that_token(name: str) -> None:
    """Also where a model scales what it embeds: real and virtual tokens go the same way."""
    base, row = get(name), ROWS[0]
    injection = Injection(embeds=base.embed([row[5], row[3]]))
    said = (*row[:3], base.vocabulary + 1, row[4], base.vocabulary, row[6])
    with torch.no_grad():
        found = scores(name, [said], injection)[0]
    close(found, oracle(untouched(name), row, *decoded(row)))


@pytest.mark.parametrize("name", UNREACHED_NAMES)
def test_families_out_of_reach_say_why_and_what_works(name: str) -> None:
    base = get(name)
    assert base.sites == {}
    with pytest.raises(UserError, match="attention interface; `method=soft` works") as caught:
        base.need_sites()
    assert type(base.model).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)
    prefix = Injection(kv={"h.0": KV(torch.zeros(4, 1, 8), torch.zeros(4, 1, 8))})
    with pytest.raises(UserError, match=r"no attention module 'h\.0'"):
        base.states([asking(name, ROWS[0])], prefix)


@pytest.mark.parametrize("name", REACHED_NAMES)
def test_sites_are_every_layer_of_every_role(name: str) -> None:
    base = get(name)
    roles = ("encoder", "self", "cross") if name in TWO_STACKS else ("self",)
    layers = 1 if name == "albert" else 3  # ALBERT: one module is every layer
    for role in roles:
        assert [site.layer for site in base.need_sites([role])] == list(range(layers))
    assert len(base.need_sites()) == layers * len(roles)
    assert all(base.model.get_submodule(n) is s.module for n, s in base.sites.items())
