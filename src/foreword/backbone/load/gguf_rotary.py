"""The rotary settings of a GGUF file, of which transformers reads no more than the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from foreword.backbone.load.gguf_header import Header
from foreword.backbone.load.gguf_weights import unpack
from foreword.backbone.load.quiet import one_line_errors
from foreword.errors import UserError
from foreword.grammar import with_article

DIVISORS, LONG, SHORT = ROTARY_TENSORS = (
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
)
"""What frequencies are divided by: always, in long texts, in others."""

_UNTURNED = 1e29  # llama.cpp divides by 1e30 what shall not turn
_NEEDS = {
    "none": set[str](),
    "linear": {"factor"},
    "yarn": {"factor", "original_context_length"},
    "longrope": {"original_context_length", LONG, SHORT},
    "divided": {DIVISORS},
}
_TAKES = {
    "none": {"factor"},
    "yarn": {"attn_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"},
    "longrope": {"attn_factor", "factor"},
}
_BETAS = ("beta_fast", "beta_slow")
_WITHOUT_EFFECT = {"type", "finetuned", "original_context_length"}
_PLAIN = {  # what changes nothing
    "factor": (0, 1),
    "attn_factor": (1,),
    "yarn_attn_factor": (1,),
    "yarn_ext_factor": (1,),
}


def read_rotary(header: Header) -> dict[str, Any]:
    """Return what a file asks of a config's `rope_parameters` beside the base.

    Raises:
        UserError: it asks for what transformers has no type for.
    """
    start = f"{header.architecture}.rope.scaling."
    found: dict[str, Any] = {
        key.removeprefix(start): value
        for key, (value, _) in header.values.items()
        if key.startswith(start)
    }
    older = header.values.get(f"{header.architecture}.rope.scale_linear")
    if older is not None:
        found.setdefault("factor", older[0])
    found = {key: value for key, value in found.items() if value not in _PLAIN.get(key, ())}
    found |= _tensors(header)
    kind = _kind(found)
    needs = _NEEDS.get(kind)
    strange = found.keys() - (needs or set()) - _TAKES.get(kind, set()) - _WITHOUT_EFFECT
    if needs is None or strange or not needs <= found.keys():
        told = ", ".join(f"{key} = {_short(found[key])}" for key in sorted(found))
        raise UserError(
            f"cannot load '{header.path}': its rotary settings are not among those that are read "
            f"({told}); give the model's transformers folder"
        )
    with one_line_errors(str(header.path)):
        return {} if kind == "none" else _parameters(kind, found, header)


def _kind(found: Mapping[str, Any]) -> str:
    if found.keys() & {LONG, SHORT}:
        return "longrope"
    kind = str(found.get("type", "linear"))
    if kind in ("linear", "yarn") and "factor" not in found:
        kind = "none"
    return "divided" if kind == "none" and DIVISORS in found else kind


def _parameters(kind: str, found: Mapping[str, Any], header: Header) -> dict[str, Any]:
    if kind == "linear":
        return {"rope_type": kind, "factor": found["factor"]}
    if kind == "yarn":
        return _yarn(found)
    context = int(header.values[f"{header.architecture}.context_length"][0])
    if kind == "longrope":
        original, attention = found["original_context_length"], found.get("attn_factor", 1.0)
        return _longrope(found[SHORT], found[LONG], original, context, attention)
    divisors = found[DIVISORS]
    if all(each == 1 or each > _UNTURNED for each in divisors):
        turned = sum(each == 1 for each in divisors) / len(divisors)
        return {"rope_type": "proportional", "partial_rotary_factor": turned}
    return _longrope(divisors, divisors, context, context, 1.0)  # Llama 3's are at every length


def _yarn(found: Mapping[str, Any]) -> dict[str, Any]:
    factor = found["factor"]
    attention = found.get("attn_factor", 1.0) * found.get("yarn_attn_factor", 1.0)
    made = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": found["original_context_length"],
        "attention_factor": attention * (1 + 0.1 * math.log(factor)),
    }
    betas = {key: found[f"yarn_{key}"] for key in _BETAS if f"yarn_{key}" in found}
    return made | betas


def _longrope(
    short: list[float], long: list[float], original: int, context: int, attention: float
) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "factor": context / original,
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
        "attention_factor": attention,
    }


def _tensors(header: Header) -> dict[str, list[float]]:
    """Return the tensors of rotary settings, with a list of numbers each."""
    found = {}
    with header.path.open("rb") as file:
        for stored in header.tensors:
            if stored.name in ROTARY_TENSORS:
                file.seek(stored.start)
                found[stored.name] = unpack(file.read(stored.size), stored).ravel().tolist()
    return found


def _short(value: Any) -> str:
    return f"{len(value)} numbers" if isinstance(value, list) else str(value)


def set_rotary(config: PreTrainedConfig, rotary: Mapping[str, Any], header: Header) -> None:
    """Write into a config what `read_rotary` found, and how much of a head turns.

    Raises:
        UserError: the model does not turn so.
    """
    every: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    own = every.get("full_attention", every)  # llama.cpp scales no layers of a window
    if not own and rotary:
        raise UserError(
            f"cannot load '{header.path}': it has rotary settings, and "
            f"{with_article(config.model_type)} model has none; give the model's "
            "transformers folder"
        )
    if not own:
        return
    count = header.values.get(f"{header.architecture}.rope.dimension_count")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if own is every and count is not None and "partial_rotary_factor" in own:
        own["partial_rotary_factor"] = count[0] / width
    own.update(rotary)
    if hasattr(config, "original_max_position_embeddings"):  # transformers prefers it
        config.original_max_position_embeddings = own.get(
            "original_max_position_embeddings", config.original_max_position_embeddings
        )
    turning = int(width * own.get("partial_rotary_factor", 1.0))
    for key in ("short_factor", "long_factor"):
        if 2 * len(own.get(key, ())) not in (0, turning):
            raise UserError(
                f"cannot load '{header.path}': it divides {len(own[key])} frequencies, and the "
                f"model has {turning // 2}; give the model's transformers folder"
            )
    with one_line_errors(str(header.path)):
        config.validate_rope()
