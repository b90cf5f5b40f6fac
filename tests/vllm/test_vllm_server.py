"""A real server of vLLM with prompts of a tiny model, beside Foreword's own answers.

`make test-vllm` makes the environment and runs them; FOREWORD_VLLM is the Python of vLLM.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI
from prepared import LENGTHS, MESSAGES, TEXTS, prepare, tiny

from foreword_vllm.bodies import PARAMETER
from foreword_vllm.folder import PromptFolder
from foreword_vllm.launch import SERVER, arguments
from foreword_vllm.prefix import read_prefix

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

PACKAGE = Path(__file__).parents[2] / "integrations" / "vllm" / "src"
WRITING = [*(f"prefix-{size}" for size in LENGTHS), "soft"]

QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads that are bound wait for busy neighbours
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}


@dataclass(frozen=True)
class Server:
    """A server that runs, the folder of its prompts, and what they must answer."""

    url: str
    folder: Path
    answers: Mapping[str, Any]
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}{path}", json=body, timeout=300)

    def counted(self, name: str) -> float:
        metrics = httpx2.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^vllm:{name}_total\{{.*\}} (\S+)$", metrics, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def texts(self, name: str) -> list[str]:
        return [each["text"] for each in self.answers[name]]

    def written(self, name: str, **more: Any) -> list[str]:
        found = self.post("/v1/completions", {"model": name, "prompt": list(TEXTS), **more}).json()
        return [each["text"] for each in sorted(found["choices"], key=lambda c: c["index"])]


def started(folder: Path, log: Path, *more: str, bare: bool = False) -> tuple[str, Any]:
    """Start a server and wait until it answers; return its address and its process.

    A ``bare`` one has the connector and not the middleware.
    """
    python = os.environ.get("FOREWORD_VLLM")
    if not python:
        pytest.skip("FOREWORD_VLLM names no Python with vLLM; run `make test-vllm`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Chunks of 64 tokens, so that a prefix and its rows are read in several steps.
    flags = "--dtype float32 --max-model-len 512 --max-num-batched-tokens 64 --max-num-seqs 16"
    more = ("--block-size", "32", *more)  # that of a CPU is 128, more than these prefixes have
    given = [str(folder / "model"), "--prompts", str(folder / "prompts"), "--port", str(port)]
    _, made = arguments([*given, "--enforce-eager", *flags.split(), "--served-model-name", "base"])
    if bare:
        at = made.index("--middleware")
        del made[at : at + 2]
    command = [python, "-m", SERVER, *made, *more]
    env = {
        **os.environ,
        **QUIET,
        "PYTHONPATH": str(PACKAGE),
        "FOREWORD_PROMPTS": str(folder / "prompts"),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 600
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx2.get(f"{url}/health", timeout=5).status_code == 200:
                return url, process
        except httpx2.HTTPError:
            time.sleep(1)
    process.kill()
    raise AssertionError(log.read_text(errors="replace")[-4000:])


@contextmanager
def running(folder: Path, *more: str) -> Iterator[Server]:
    url, process = started(folder, folder / "server.log", *more)
    try:
        yield Server(url, folder, json.loads((folder / "answers.json").read_text()), process)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("vllm")
    prepare(folder, tiny())
    with running(folder) as found:
        yield found


def test_texts_are_those_of_foreword_token_for_token_and_again_from_the_cache(
    server: Server,
) -> None:
    for name in WRITING:
        assert server.written(name) == server.texts(name), name
    for name in WRITING:
        assert server.written(name) == server.texts(name), f"{name}, from the cache"
    assert server.counted("prefix_cache_hits") >= 32 * 2 * len(TEXTS)  # of prefixes of 32 and 45
    same = server.post("/v1/predict", {"model": "soft", "inputs": list(TEXTS)}).json()
    assert [each["answer"] for each in same["predictions"]] == server.texts("soft")


def test_labels_have_the_probabilities_of_foreword(server: Server) -> None:
    for name in ("mood", "mood-soft"):
        found = server.post("/v1/predict", {"model": name, "inputs": list(TEXTS)}).json()
        for there, here in zip(found["predictions"], server.answers[name], strict=True):
            assert there["probabilities"] == pytest.approx(here["probabilities"], abs=2e-5)
            assert there["label"] == here["label"]


def test_eight_prompts_and_plain_rows_share_batches_by_an_unchanged_client(server: Server) -> None:
    url = f"{server.url}/v1"
    client = AsyncOpenAI(base_url=url, api_key="none", timeout=300, max_retries=0)
    asked = [(name, n) for n in range(len(TEXTS)) for name in [*WRITING, "plain"]]

    async def text(name: str, n: int) -> str:
        row, model = TEXTS[n], name
        if name == "plain":
            row, model = f"Question: {row}\nAnswer:", "base"
        found = await client.completions.create(
            model=model, prompt=row, max_tokens=24, temperature=0
        )
        return found.choices[0].text.strip()

    async def label(name: str, n: int) -> str:
        found = await client.post(
            "/predict", body={"model": name, "inputs": TEXTS[n]}, cast_to=httpx2.Response
        )
        return str(found.json()["predictions"][0]["label"])

    async def chat() -> str:
        found = await client.chat.completions.create(model="shop", messages=MESSAGES)
        assert found.usage is not None
        assert found.usage.prompt_tokens < 80
        return str(found.choices[0].message.content)

    async def streamed() -> str:
        parts = await client.chat.completions.create(model="shop", messages=MESSAGES, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in parts])

    async def everything() -> tuple[list[str], list[str], list[str]]:
        async with client:
            return await asyncio.gather(
                asyncio.gather(*(text(*each) for each in asked)),
                asyncio.gather(*(label(name, 0) for name in ("mood", "mood-soft"))),
                asyncio.gather(chat(), streamed(), chat()),
            )

    texts, labels, chats = asyncio.run(everything())
    assert texts == [server.texts(name)[n].strip() for name, n in asked]
    assert labels == [server.answers[name][0]["label"] for name in ("mood", "mood-soft")]
    assert set(chats) == set(server.texts("shop"))
    with OpenAI(base_url=url, api_key="none") as other:
        listed = list(other.models.list())
    assert {each.id for each in listed} == {"base", "shop", "mood", "mood-soft", *WRITING}


def test_a_prompt_is_replaced_while_it_is_in_use(server: Server) -> None:
    path = server.folder / "prompts" / "soft.safetensors"
    before = path.read_bytes()
    assert server.written("soft") == server.texts("soft")
    new = path.with_name(".new")
    shutil.copy(server.folder / "replaced" / "soft.safetensors", new)
    new.replace(path)
    assert server.written("soft") == server.texts("replaced")
    path.write_bytes(before)
    assert server.written("soft") == server.texts("soft")
    added = path.with_name("added.safetensors")
    added.write_bytes(before)
    assert server.written("added") == server.texts("soft")
    added.unlink()
    assert server.post("/v1/completions", {"model": "added", "prompt": "a"}).status_code == 404


def test_hostile_requests_and_files_touch_no_other(server: Server) -> None:
    prompts = server.folder / "prompts"
    whole = (prompts / "soft.safetensors").read_bytes()
    bad = {"cut": whole[:-50], "text": b"a prompt", "empty": b"", "long": b"\xff" * 64}
    bad["flipped"] = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    for name, content in bad.items():
        (prompts / f"{name}.safetensors").write_bytes(content)
        found = server.post("/v1/completions", {"model": name, "prompt": "a"})
        assert found.status_code == 422, name
        assert "cannot be served" in found.json()["error"]["message"]
        (prompts / f"{name}.safetensors").unlink()
    ids = _ids(server, "soft")
    forged = {"foreword_prefix": {"sha256": "0" * 64, "positions": 3}}
    for body in (
        {"kv_transfer_params": forged},
        {"kv_transfer_params": {"foreword": "soft"}, "prompt_logprobs": 1},
        {"model": "soft", "echo": True},
        {"model": "soft", "prompt": [10**9]},
        {"model": "soft", "prompt": []},
        {"model": "soft", "prompt": "a" * 5000},
        {"model": "soft", "max_tokens": 10**9},
        {"model": ["soft"]},
    ):
        found = server.post("/v1/completions", {"model": "base", "prompt": "a", **body})
        assert 400 <= found.status_code < 500, body
    # Ids of a prompt, sent as a text of the model's: answered, and not kept as the prompt's.
    for more in ({}, {"prompt_logprobs": 1}):
        body = {"model": "base", "prompt": [*ids, 40, 41], "max_tokens": 2, **more}
        assert server.post("/v1/completions", body).status_code == 200
    for name in WRITING:
        assert server.written(name) == server.texts(name), name
    assert server.process.poll() is None


def _ids(server: Server, name: str) -> list[int]:
    return read_prefix(server.folder / "prompts" / f"{name}.safetensors")[0].ids


def test_two_workers_share_the_heads_and_a_prefix_that_is_gone_fails_its_requests_alone(
    server: Server, tmp_path: Path
) -> None:
    """The connector alone, without the middleware that would refuse what is asked here."""
    folder = tmp_path / "two"
    shutil.copytree(server.folder / "model", folder / "model")
    shutil.copytree(server.folder / "prompts", folder / "prompts")
    kept = PromptFolder(folder / "prompts")
    known = {name: kept.get(name) for name in WRITING}
    url, process = started(folder, tmp_path / "log", "--tensor-parallel-size", "2", bare=True)
    two = Server(url, folder, server.answers, process)

    def asked(name: str, sha256: str | None = None) -> httpx2.Response:
        prefix = known[name]
        assert prefix is not None
        rows = []
        for text in TEXTS:
            asked = {"model": "base", "prompt": f"Question: {text}\nAnswer:"}
            rows.append([*prefix.ids, *two.post("/tokenize", asked).json()["tokens"]])
        about = {"sha256": sha256 or prefix.sha256, "positions": prefix.positions}
        settings = {"max_tokens": 24, "temperature": 0, "cache_salt": sha256 or prefix.sha256}
        named = {"kv_transfer_params": {PARAMETER: about}}
        return two.post("/v1/completions", {"model": "base", "prompt": rows, **settings, **named})

    try:
        for name in WRITING:
            found = asked(name).json()["choices"]
            texts = [each["text"].strip() for each in sorted(found, key=lambda c: c["index"])]
            assert texts == [text.strip() for text in server.texts(name)], name
        assert asked("soft", "0" * 64).status_code >= 500
        assert asked("soft").status_code == 200
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)


def test_rows_that_are_put_off_for_want_of_room_begin_anew_behind_their_prompts(
    server: Server, tmp_path: Path
) -> None:
    folder = shutil.copytree(server.folder, tmp_path / "scant")
    with running(folder, "--num-gpu-blocks-override", "17") as scant:  # one row's most is 16

        async def everything() -> list[list[str]]:
            return await asyncio.gather(
                *(asyncio.to_thread(scant.written, name) for name in WRITING)
            )

        assert asyncio.run(everything()) == [scant.texts(name) for name in WRITING]
        assert scant.counted("num_preemptions") > 0


def test_rows_on_a_model_with_a_window_are_exact_or_refused(tmp_path: Path) -> None:
    prepare(tmp_path, tiny(window=96))
    with running(tmp_path) as sliding:
        assert sliding.written("soft") == sliding.texts("soft")  # which slides in Foreword too
        refused = 0
        for name in WRITING:
            for text, expected in zip(TEXTS, sliding.texts(name), strict=True):
                found = sliding.post("/v1/completions", {"model": name, "prompt": text})
                if found.status_code == 200:
                    assert found.json()["choices"][0]["text"] == expected, (name, text)
                else:
                    assert "sliding window of 96" in found.json()["error"]["message"]
                    refused += 1
        assert 0 < refused < len(WRITING) * len(TEXTS)
