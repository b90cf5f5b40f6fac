"""Which architectures of transformers run exactly: a tiny random model of each is tried.

    python bench/architectures.py [TYPE ...] [--kind causal] [--json]

Every model type that transformers knows for causal models (``--kind masked`` and
``encoder-decoder``: for those) is made small, with random weights, and run in a process of its
own. Results are set beside the model's own code in float32: the scores of three rows, a soft prompt
of a text's embeddings and a prefix of its keys and values beside the text itself, and what is
written greedily in one batch. Sizes are guessed by the names of settings; a type whose sizes do
not fit each other is not tried.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, continuations
from foreword.backbone.decoding_rules import until_end
from foreword.backbone.example import Example
from foreword.backbone.run.encoder_decoder import decoder_start
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from families import CLASSES, tokenizer

TWO_STACKS = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.keys()
KINDS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys(),
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() - TWO_STACKS,
    "encoder-decoder": TWO_STACKS,
}
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))
LEAD = (17, 90, 33, 120, 64)
NEW = 6
SECONDS = 120
"""The most that one type may take."""

NEAR = 2e-5
"""How far scores may be apart, as a share of the largest, and count as equal."""

SIZES: Sequence[tuple[str, int]] = (
    (".*vocab_size.*", 160),
    ("pad_token_id|.*kv_shared.*|chunk_size_feed_forward", 0),
    ("(bos|eos|cls|sep)_token_id|first_k_dense_replace|num_dense_layers", 1),
    ("n_group|topk_group|n_groups|mamba_n_groups|num_nextn_predict_layers|.*shared_experts", 1),
    (".*token_(id|index)|.*experts_per.*|moe_topk|top_k_experts|moe_k", 2),
    ("hidden_size|d_model|n_embd|embedding_size|dim|word_embed_proj_dim", 32),
    ("n_layers?|num_layers|num_hidden_layers|(en|de)coder_layers|num_decoder_layers", 4),
    ("num_(global_)?key_value_heads.*|num_kv_heads|multi_query_group_num", 2),
    (".*heads.*|n_head|.*experts|.*chunk.*", 4),
    ("(.*_)?head_dim|d_kv|mamba_d_head|kv_channels|.*_rank|.*state.*", 8),
    ("hidden_size_per_layer_input", 8),
    (".*intermediate.*|.*ffn.*|.*_ff|n_inner|hidden_dim|inner_dim|sliding_window", 64),
    ("max_position_embeddings|n_positions|max_target_positions", 128),
)
"""What settings are set to, by their names; other numbers above 64 become 32."""

MLA = {"qk_rope_head_dim": 8, "qk_head_dim": 16, "num_key_value_heads": 4}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
MIXED = ["mamba", "attention"] * 2
OWN: Mapping[str, Mapping[str, Any]] = {
    name: settings
    for names, settings in (
        ("axk1 axk2 bailing_hybrid deepseek_v3 deepseek_v32 glm4_moe_lite", MLA | ROPE),
        ("glm_moe_dsa hy_v4 kimi_linear longcat_flash minicpm3 youtu", MLA | ROPE),
        ("deepseek_v2", MLA | ROPE | {"num_experts_per_tok": 2}),
        ("codegen gptj", {"rotary_dim": 8}),
        ("hunyuan_v1_dense hunyuan_v1_moe ministral", {"head_dim": 8}),
        ("nemotron", {"head_dim": 8, "num_key_value_heads": 2}),
        ("bamba", {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8}),
        ("dots1", {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}),
        ("granitemoehybrid", {"layer_types": MIXED, "mamba_n_heads": 8, "mamba_d_head": 8}),
        ("jamba", {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 2}),
        ("lfm2_moe", {"layer_types": ["conv", "full_attention"] * 2}),
        ("mamba2", {"num_heads": 8, "head_dim": 8, "expand": 2}),
        ("longt5 mbart plbart switch_transformers t5", {"decoder_start_token_id": 0}),
    )
    for name in names.split()
}
"""What some types need besides."""


def shrink(config: PretrainedConfig) -> None:
    """Make a configuration small, and those inside it."""
    settings = vars(config)
    for name, value in list(settings.items()):
        if isinstance(value, PretrainedConfig):
            shrink(value)
        ids = value is None and re.fullmatch("(pad|bos|eos)_token_id", name)
        if name.startswith("_") or isinstance(value, bool) or not (ids or isinstance(value, int)):
            continue
        named = [size for form, size in SIZES if re.fullmatch(form, name)]
        if named:
            settings[name] = min(named[0], value) if "heads" in name and value == 1 else named[0]
        elif value > 64:
            settings[name] = 32
    for name in ("layer_types", "layers_block_type", "mlp_layer_types", "block_types"):
        if isinstance(kinds := settings.get(name), list) and kinds:
            settings[name] = (list(dict.fromkeys(kinds)) * 4)[:4]


def tiny(kind: str, name: str) -> PreTrainedModel:
    """Make a small model of a type, the same at every call."""
    made = CONFIG_MAPPING[name]()
    shrink(made)
    own = dict(OWN.get(name, {})) if kind != "masked" else {}
    if kind == "causal" and hasattr(made, "is_decoder"):
        own["is_decoder"] = True
    for setting, value in own.items():
        setattr(made, setting, value)
    with suppress(Exception):  # some settings follow from others
        given = {n: v for n, v in made.to_dict().items() if n not in ("model_type", "dtype")}
        made = CONFIG_MAPPING[name](**given)
    torch.manual_seed(0)
    model: PreTrainedModel = CLASSES[kind].from_config(made).float().eval().requires_grad_(False)
    for weight in model.parameters():  # some start at zero, which would hide mistakes
        if weight.dim() == 1 or not bool(weight.any()):
            weight.add_(0.1 * torch.randn_like(weight))
    return model


class Trial:
    """A model beside its own code."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.plain = kind, tiny(kind, name)
        self.start = 0
        self.own(ROWS[0])  # what cannot be run at all is not the project's
        model = copy.deepcopy(self.plain)
        self.base = Backbone(model, tokenizer(), architecture=kind, name=name)  # type: ignore[arg-type]
        self.base.check_runs()
        if kind == "encoder-decoder":
            self.start = decoder_start(self.base)

    def own(self, row: Sequence[int], said: Sequence[int] = ()) -> Tensor:
        """Return the scores of a row by the model's own code: (tokens, vocabulary)."""
        inputs = {"input_ids": torch.tensor([list(row)])}
        if self.kind == "encoder-decoder":
            inputs["decoder_input_ids"] = torch.tensor([[self.start, *said]])
        scores: Tensor = self.plain(**inputs).logits[0]
        return scores

    def apart(self, injection: Injection, lead: Sequence[int] = ()) -> float:
        """Return how far rows under an injection are from rows behind the lead's text."""
        asked, expected = [], []
        for row in ROWS:
            if self.kind == "masked":
                asked.append(Example(row, 2, ((2,),), ((0, 0),)))
                expected.append(self.own([*lead, *row[:2], 2, *row[2:]])[len(lead) + 2][None])
            elif self.kind == "causal":
                places = tuple((0, n) for n in range(-1, len(row) - 1))
                asked.append(Example(row[:1], 1, (row[1:],), places))
                expected.append(self.own([*lead, *row])[len(lead) :])
            else:
                asked.append(Example(row, len(row), ((5, 6),), ((0, -1), (0, 0), (0, 1))))
                expected.append(self.own([*lead, *row], (5, 6)))
        found = self.base.logits(self.base.states(asked, injection))
        known = torch.cat(expected)[:, : found.shape[1]]
        return float((found - known).abs().max() / known.abs().max())

    def writes_alike(self, injection: Injection, lead: Sequence[int]) -> bool:
        """Tell whether rows of one batch are continued as each is by the model's own code."""
        ends = self.base.ends
        found = continuations(self.base, ROWS, injection, Decoding(max_new_tokens=NEW))
        for row, ids in zip(ROWS, found, strict=True):
            read, said = [*lead, *row], list[int]()
            for _ in range(NEW):
                grown = read if self.kind == "encoder-decoder" else [*read, *said]
                said.append(int(self.own(grown, said)[-1].argmax()))
            if until_end(ids, ends) != until_end(said, ends):
                return False
        return True


@torch.no_grad()
def tried(kind: str, name: str) -> dict[str, Any]:
    """Return what came of one type."""
    try:
        trial = Trial(kind, name)
    except UserError as error:
        return {"type": name, "refused": str(error)}
    except Exception as error:  # of any kind: the guessed sizes do not fit
        return {"type": name, "not_built": f"{type(error).__name__}: {error}"[:150]}
    base = trial.base
    found: dict[str, Any] = {"type": name, "plain": trial.apart(NOTHING), "packed": base.can_pack}
    try:
        soft = Injection(embeds=base.embed(LEAD), leading=len(LEAD))
        known = not base.beside(torch.tensor([LEAD]), torch.zeros(1, len(LEAD), dtype=torch.bool))
        found["soft"] = trial.apart(soft, LEAD) if known else None
        if kind != "masked":
            found["written"] = trial.writes_alike(*((soft, LEAD) if known else (NOTHING, ())))
    except UserError as error:
        found["soft"] = str(error)
    try:
        base.need_sites()
        found["prefix"] = True
        if base.can_prefill:  # else a prefix is learned, and is no text's
            read = Injection(kv=base.kv(LEAD), positions=len(LEAD))
            found["prefix"] = trial.apart(read, LEAD)
    except UserError as error:
        found["prefix"] = str(error)
    return found


def _run(kind: str, name: str, answer: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answer.put(tried(kind, name))


def results(kind: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Try each type in a process of its own."""
    context = multiprocessing.get_context("fork")
    for name in names:
        answer: Any = context.SimpleQueue()
        process = context.Process(target=_run, args=(kind, name, answer), daemon=True)
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        yield {"type": name, "failed": True} if answer.empty() else answer.get()


def is_exact(found: Mapping[str, Any]) -> bool:
    """Tell whether all that could be compared was equal."""
    apart = [found[name] for name in ("plain", "soft", "prefix") if name in found]
    numbers = [each for each in apart if isinstance(each, float)]
    return "plain" in found and max(numbers) < NEAR and found.get("written", True)


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the types by what came of them."""
    kinds: dict[str, list[str]] = {}
    for each in found:
        if "plain" in each:
            prefix = "a prefix, " if not isinstance(each["prefix"], str) else "no prefix, "
            said = "exact, " if is_exact(each) else "NOT EXACT, "
            kind = said + prefix + ("packed" if each["packed"] else "padded")
        else:
            kind = next(k for k in ("refused", "not_built", "failed") if k in each)
        kinds.setdefault(kind.replace("_", " "), []).append(each["type"])
    return "\n".join(f"{kind} ({len(n)}): {', '.join(n)}" for kind, n in sorted(kinds.items()))


def main(words: Sequence[str] | None = None) -> None:
    """Try the types that are named, or all of a kind."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("types", nargs="*")
    parser.add_argument("--kind", choices=tuple(KINDS), default="causal")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    found = []
    for each in results(given.kind, given.types or sorted(KINDS[given.kind])):
        found.append(each)
        print(json.dumps(each) if given.json else f"{len(found)}: {each['type']}", flush=True)
    if not given.json:
        print(summary(found))


if __name__ == "__main__":
    main()
