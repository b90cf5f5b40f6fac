"""Random and hostile requests to a server, from its own OpenAPI description."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
from hypothesis import HealthCheck, Phase, given, seed, settings

from serve.serving import ADMIN, KEY, Served

HOSTILE: list[Any] = [
    None, True, 0, -1, 2**63, 10**30, 1e308, 0.5, "", " ", "\0", "a\u202e", "💥" * 9, "../../etc",
    "write", "talk", "sort", "model", "write@1", "write+soft", "x" * 3000, [], [[]], {}, {"": ""},
    [None], {"role": "user", "content": "a"}, [{"role": "user", "content": "a"}], ["a", 1],
]  # fmt: skip
PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/predict", "/v1/prompts", "/v1/models")
FIELDS = (
    "model", "prompt", "messages", "inputs", "temperature", "top_p", "seed", "stop", "max_tokens",
    "n", "stream", "stream_options", "logprobs", "top_logprobs", "min_probability",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "max_completion_tokens",
    "name", "file", "version", "metadata", "logit_bias", "presence_penalty", "frequency_penalty",
    "echo", "best_of", "suffix", "user", "role", "content",
)  # fmt: skip
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SCHEMAS: list[Any] = [
    {"type": "object"}, {"$ref": "#"}, {"enum": ["a", 1, None]}, {"type": "objekt"}, {"not": {}},
    {}, {"type": "string", "pattern": "^(a|b){1,9}$"}, {"type": "string", "pattern": "("},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 10**6}, {"anyOf": []}, {"minimum": 1e308},
]  # fmt: skip
TURNS: list[Any] = [
    {"role": "user", "content": "b"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "c"}, {"role": "system", "content": ""},
    {"role": "assistant", "content": "d"}, {"role": "tool", "content": []}, {"role": "user"},
    {"role": "user", "content": [{"type": "text", "text": "e"}]},
]  # fmt: skip


def likely(field: str, draws: random.Random) -> Any:
    """Return a value that a field may have, or one that is nearly so."""
    schema = draws.choice(SCHEMAS)
    function = draws.choice([TOOL, {**TOOL, "parameters": schema}, {"name": "a b"}, {}])
    named = {"type": "function", "function": {"name": "f"}}
    number = draws.choice([0, 1, 2, 0.5, -2, 7, 1e-9])
    values: dict[str, list[Any]] = {
        "model": ["write", "talk", "soft", "sort", "pair", "model", "write@1", "soft+write"],
        "prompt": ["a", ["a", "b"], [5, 6], [[5], [6, 7]], [999], "💥", " "],
        "messages": [draws.choices(TURNS, k=draws.randrange(1, 5))],
        "inputs": ["a", ["a"] * 3, {"text": "a"}, [{"text_a": "a", "text_b": "b"}], [{"text": 1}]],
        "tools": [[{"type": "function", "function": function}] * draws.randrange(1, 3)],
        "tool_choice": ["none", "auto", "required", {"type": "function", "function": TOOL}, named],
        "response_format": [
            {"type": "json_object"}, {"type": "text"},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        ],
        "logit_bias": [{"5": 100}, {"99999": 1}, {"a": 1}, {str(draws.randrange(90)): number}],
        "stop": ["a", ["a", "b"], ["\n"]],
        "stream_options": [{"include_usage": True}],
        "logprobs": [True, 0, 5],
    }  # fmt: skip
    return draws.choice(values.get(field, [number, True, False, None, "a"]))


GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "write", "prompt": "hello"},
    "/v1/chat/completions": {"model": "talk", "messages": [{"role": "user", "content": "a"}]},
    "/v1/predict": {"model": "sort", "inputs": ["a", "b"]},
    "/v1/prompts": {"name": "fuzzed", "file": "write.safetensors"},
    "/v1/models": {},
}


def mutated(draws: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Return a request that is a good one but for a few fields, its bytes, or its path."""
    path = draws.choice(PATHS)
    body: Any = dict(GOOD[path])
    for _ in range(draws.randrange(5)):
        field = draws.choice(FIELDS)
        body[field] = draws.choice(HOSTILE) if draws.random() < 0.3 else likely(field, draws)
    method = draws.choice(["POST"] * 9 + ["GET", "DELETE", "PUT", "PATCH"])
    if draws.random() < 0.1:
        path += draws.choice(["/..%2f..", "/%00", "/x/rollback", "/a%2fb", "?name=%ff", "/" * 50])
    kind = draws.random()
    if kind < 0.1:
        noise = draws.randbytes(draws.randrange(200))
        return method, path, {"content": noise, "headers": {"Content-Type": "application/json"}}
    if kind < 0.15:
        return method, path, {"content": draws.randbytes(50)}
    if kind < 0.2:
        return method, path, {"json": draws.choice(HOSTILE)}
    return method, path, {"json": body}


def send(client: httpx2.Client, draws: random.Random) -> int:
    """Send one such request; return the status."""
    method, path, more = mutated(draws)
    try:
        found = client.request(method, path, **more)
    except ValueError:  # what no client can send, such as half of a character
        return 0
    assert found.status_code < 500, (method, path, more, found.text)
    return found.status_code


def described(server: Served, count: int, number: int = 0) -> Iterator[int]:
    """Send ``count`` requests to every operation that the server describes; yield the statuses."""
    import schemathesis

    schema = schemathesis.openapi.from_dict(server.http(None).get("/openapi.json").json())
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for result in schema.get_all_operations():
        operation = result.ok()
        statuses: list[int] = []

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            found = case.call(base_url=server.url, headers=headers, timeout=120)
            assert found.status_code < 500, (case.as_curl_command(), found.text)
            statuses.append(found.status_code)  # noqa: B023

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ask()
        yield from statuses


class Watch:
    """Asks what is right between the others, and holds the answers to what they were at first."""

    def __init__(self, server: Served) -> None:
        self.server, self.client = server, server.http(KEY)
        self.right = [self.answer(path) for path in list(GOOD)[:3]]
        self.statuses: Counter[int] = Counter()

    def answer(self, path: str) -> Any:
        found = self.client.post(path, json=GOOD[path])
        assert found.status_code == 200, found.text
        body = found.json()
        return body.get("choices") or body["predictions"]

    def check(self) -> None:
        assert [self.answer(path) for path in list(GOOD)[:3]] == self.right
        assert "fault" not in self.server.log()
