"""The model behind the middleware, and whether it is the one that a prompt was tuned on."""

from __future__ import annotations

import math
from typing import Any

from foreword_vllm import bodies
from foreword_vllm.asked import Asked
from foreword_vllm.inner import Scope
from foreword_vllm.prefix import Prefix

CONNECTOR = "ForewordConnector"

APART = 0.5
"""How far the log-probability of a likely token may be from that of the tuning.

Types of numbers and quantized weights move it by a tenth or two; other weights of the same sizes by
several.
"""


def check_model(scope: Scope, prefix: Prefix) -> str:
    """Return why the server cannot have the prompt's model, by its sizes; "" where it can."""
    config = getattr(getattr(scope.get("app"), "state", None), "vllm_config", None)
    if config is None:
        return ""
    transfer = config.kv_transfer_config
    if transfer is None or CONNECTOR not in _named(transfer):
        return "the server was started without the connector; use the command foreword-vllm"
    model, own = config.model_config, prefix.model
    if getattr(model, "use_mla", False):
        return "the model's attention keeps no keys and values (MLA)"
    sizes = {
        "layers": model.hf_text_config.num_hidden_layers,
        "heads": model.get_total_num_kv_heads(),
        "key_width": model.get_head_size(),
        "vocabulary": model.get_vocab_size(),
    }
    for name, size in sizes.items():
        if own[name] != size:
            called = name.replace("_", " ")
            return (
                f"it was tuned on {own['name']} ({own[name]} {called}), and this model has {size}"
            )
    return ""


def _named(transfer: Any) -> list[Any]:
    """Return the names of all connectors that are set up."""
    extra = transfer.kv_connector_extra_config or {}
    return [
        transfer.kv_connector,
        [each.get("kv_connector") for each in extra.get("connectors", [])],
    ]


async def check_probe(asked: Asked, prefix: Prefix, secret: str) -> str:
    """Return why the server has not the prompt's model, by what it scores; "" where it has.

    A few tokens are read under the prefix, as they were at the export.
    """
    probe = prefix.probe
    body = {
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": [probe["token"]],
        "return_tokens_as_token_ids": True,
    }
    served = await asked.model_name()
    made = bodies.under(prefix, body, [probe["ids"]], served, secret)
    found = await asked.get("/v1/completions", made)
    (tops,) = found["choices"][0]["logprobs"]["top_logprobs"]
    here, there = tops.get(f"token_id:{probe['token']}", -math.inf), probe["log_probability"]
    if abs(here - there) <= APART:
        return ""
    return (
        f"the model is not the one that it was tuned on ({prefix.model['name']}): a token that has "
        f"log-probability {there:.2f} there has {here:.2f} here"
    )
