"""A short name for a model and its tokenizer that other weights do not share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SAMPLES = 64

# keys that say where the model came from, how it is run, or what the tokenizer part covers
_VOLATILE = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "quantization_config",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
}

# scripts, digits, spaces, case, joined characters: its ids show the merges and the normalizer
_PROBE = (
    "The quick brown fox's 1234567 jumps,  over\tthe\n\nLAZY dog... It's naïve, isn't it?"
    " def f(x): return x**2 # ok; Größe ½ e\u0301 日本語の文 한국어 العربية हिन्दी Ελληνικά кот"
    " 🙂👩\u200d👧 https://example.org/a_b?c=d&e=100%"
)


def fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    through: torch.dtype = torch.float32,
    pooled: object = None,
) -> str:
    """Hash what identifies a backbone: its config, its tokenizer and its weights.

    Of the config, the hash covers what differs from its class's defaults; of the tokenizer, its
    vocabulary, its special tokens and the ids of a fixed text; of each tensor, its name, shape
    and 64 evenly spaced elements. Elements are rounded to bfloat16, so a model loaded in
    bfloat16 has the same hash. In float16 it may not, as rounding differs: ``through`` float16
    gives the hash that it has there. ``pooled`` says how an encoder's states become one. A change
    to elements that are not sampled is not noticed: the hash tells models apart, and does not
    protect against tampering.

    Returns:
        "sha256:" and 32 hex digits.
    """
    digest = hashlib.sha256()
    weights = _weights_part(model, through)
    parts = [_config_part(model.config), _tokenizer_part(tokenizer), weights]
    if pooled is not None:
        parts.append(_json(pooled))
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return f"sha256:{digest.hexdigest()[:32]}"


def _config_part(config: PreTrainedConfig) -> bytes:
    # against the defaults, so that an option a later transformers adds does not change the hash
    try:
        defaults = _steady(type(config)().to_dict())
    except (ValueError, TypeError):  # a config composed of others has none
        defaults = {}
    own = _steady(config.to_dict())
    differing = {key: value for key, value in own.items() if defaults.get(key) != value}
    return _json({"model_type": config.model_type, **differing})


def _steady(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _steady(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in _VOLATILE and not str(key).startswith("_")
    }


def _tokenizer_part(tokenizer: PreTrainedTokenizerBase) -> bytes:
    special = dict(tokenizer.special_tokens_map)
    special.pop("pad_token", None)  # padding is masked wherever it stands
    return _json(
        {
            "vocabulary": sorted(tokenizer.get_vocab().items()),
            "special": special,
            "probe": tokenizer(_PROBE, verbose=False)["input_ids"],
        }
    )


def _weights_part(model: PreTrainedModel, through: torch.dtype) -> bytes:
    tensors = sorted(model.state_dict().items())
    names = _json([(name, list(tensor.shape)) for name, tensor in tensors])
    # one copy off the accelerator
    samples = torch.cat([_sample(tensor, through) for _, tensor in tensors])
    return names + samples.cpu().view(torch.int16).numpy().astype("<i2").tobytes()


def _sample(tensor: torch.Tensor, through: torch.dtype) -> torch.Tensor:
    flat = tensor.detach().flatten()
    if flat.numel() > _SAMPLES:
        last = flat.numel() - 1
        steps = torch.arange(_SAMPLES, device=flat.device)
        flat = flat[steps * last // (_SAMPLES - 1)]
    return flat.to(through).to(torch.bfloat16)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
