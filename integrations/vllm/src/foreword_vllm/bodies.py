"""What a request asks of vLLM: a completion of token ids behind those that stand for a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from foreword_vllm.errors import RequestError
from foreword_vllm.prefix import Prefix

PARAMETER = "foreword_prefix"
"""The key of ``kv_transfer_params`` that names a prefix to the connector; not for clients."""

NAMED = "foreword"
"""The key of ``kv_transfer_params`` by which a client may name a prompt."""

REFUSED = {
    "echo": "would show the ids that stand for the prompt",
    "prompt_logprobs": "are of the ids that stand for the prompt",
    "suffix": "is not supported",
    "prompt_embeds": "has no place behind a prompt",
    "truncate_prompt_tokens": "would cut the prompt off",
    "use_beam_search": "forgets the prompt",
    "best_of": "is not supported",
}
"""Fields of a request that cannot be had under a prompt, and why."""

CHAT = {
    "bad_words",
    "cache_salt",
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "max_tokens",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "priority",
    "request_id",
    "response_format",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "structured_outputs",
    "temperature",
    "top_k",
    "top_p",
    "user",
}
"""Fields of a chat that a completion has too."""

CHAT_IGNORED = ("model", "messages", "max_completion_tokens", "metadata", "store", "service_tier")
CHAT_EMPTY = {"tool_choice": "none", "logprobs": False, "parallel_tool_calls": True}
"""What these fields of a chat may say, since it asks for nothing."""


def check(body: Mapping[str, Any]) -> None:
    """Raise RequestError for fields that cannot be had under a prompt."""
    for name, why in REFUSED.items():
        if body.get(name):
            raise RequestError(f"{name}: {why}; leave it out")
    if body.get("repetition_penalty") not in (None, 1, 1.0):
        raise RequestError(
            "repetition_penalty: would count the ids that stand for the prompt; use "
            "frequency_penalty or presence_penalty, which count what is written"
        )
    most = body.get("max_tokens")
    if most is not None and (type(most) is not int or most < 1):
        raise RequestError("max_tokens: give a whole number above 0")


def of_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat's settings as those of a completion; raises RequestError for others."""
    for name, value in body.items():
        empty = value is None or value == [] or value == CHAT_EMPTY.get(name)
        if not (name in CHAT or name in CHAT_IGNORED or name == "kv_transfer_params" or empty):
            raise RequestError(f"{name}: is not supported under a prompt; leave it out")
    made = {name: value for name, value in body.items() if name in CHAT}
    if (most := body.get("max_completion_tokens")) is not None:
        made["max_tokens"] = most
    return made


def settings(prefix: Prefix, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a text is written: as the request says, and else as the prompt was tuned."""
    usual = prefix.answer
    if usual["kind"] != "text":
        raise RequestError("the prompt gives labels; ask /v1/predict")
    given = {name: value for name, value in body.items() if value is not None}
    made: dict[str, Any] = {
        "max_tokens": usual["max_tokens"],
        "temperature": usual["temperature"],
        "top_p": usual["top_p"],
        "stop": usual["stop"],
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        **given,
    }
    ends = dict.fromkeys([*usual["stop_token_ids"], *(given.get("stop_token_ids") or ())])
    if not made.get("ignore_eos"):
        made["stop_token_ids"] = list(ends)
    return made


def under(
    prefix: Prefix, body: Mapping[str, Any], rows: list[list[int]], served: str, secret: str
) -> dict[str, Any]:
    """Return a completion's body for rows of ids behind a prefix.

    The salt keeps what is in vLLM's cache under the prefix from requests that were not laid out
    here, whatever ids they send.
    """
    named = {PARAMETER: {"sha256": prefix.sha256, "positions": prefix.positions}}
    transfer = {k: v for k, v in (body.get("kv_transfer_params") or {}).items() if k != NAMED}
    salt = f"{secret} {prefix.sha256} {body.get('cache_salt') or ''}"
    return {
        **body,
        "model": served,
        "prompt": [[*prefix.ids, *ids] for ids in rows],
        "add_special_tokens": False,
        "kv_transfer_params": {**transfer, **named},
        "cache_salt": hashlib.sha256(salt.encode()).hexdigest(),
    }
