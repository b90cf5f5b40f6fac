"""A prompt restored into a slot of llama-server, asked as docs/runtimes.md asks it.

`make test-llama` builds the server; FOREWORD_LLAMA_SERVER is its path.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from test_llama_cpp import gemma3

from composed import GENERATE, prompt
from foreword.backbone.decode import continuations
from foreword.data.row import Row
from foreword.export.llama_cpp import LlamaCpp
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from gguf_files import write_gguf

PAGE = Path(__file__).parents[2] / "docs" / "runtimes.md"
SERVER = os.environ.get("FOREWORD_LLAMA_SERVER")

pytestmark = [
    pytest.mark.skipif(not SERVER, reason="FOREWORD_LLAMA_SERVER is not set (make test-llama)"),
    pytest.mark.timeout(600),
]

TEXTS = ("a good film", "it was a bad film and it was good", "film")


@contextmanager
def serving(gguf: Path, *more: str) -> Iterator[str]:
    """Run the server on the folder of a GGUF; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = f"-c 512 -np 1 -fa off -ctk f32 -ctv f32 --no-warmup -t 1 --port {port}".split()
    saved = ["--slot-save-path", str(gguf.parent)]
    command = [str(SERVER), "-m", str(gguf), *given, *saved, *more]
    with (gguf.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while not healthy(url):
            assert process.poll() is None, (gguf.parent / "log").read_text("utf-8", "replace")
            assert time.monotonic() < end
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def client(url: str, file: Path) -> dict[str, Any]:
    """The functions of the page, for this server and this file; rows are given as token ids."""
    (code,) = (
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "def post" in c
    )
    code = code[: code.index("\nprint(")]
    for old, new in (("http://127.0.0.1:8080", url), ("out/intents.bin", str(file))):
        assert old in code
        code = code.replace(old, new)
    found: dict[str, Any] = {}
    exec(code, found)
    ask = found["post"]  # the made-up words of tiny models are no tokens of theirs
    found["post"] = lambda path, body: (
        {"tokens": json.loads(body["content"])} if path == "/tokenize" else ask(path, body)
    )
    return found


def written(tuned: Prompt, folder: Path) -> tuple[Path, Path]:
    """A GGUF of the prompt's model, and the file for it."""
    assert tuned.on is not None
    gguf = folder / "model.gguf"
    write_gguf(gguf, tuned.on.model)
    form = LlamaCpp(gguf=str(gguf), cache_type="f32", flash_attention="off")
    return gguf, form.write(tuned, folder / "p.bin")


def ours(tuned: Prompt, text: str) -> tuple[list[int], list[int]]:
    """A row's tokens, and those that Foreword writes after it."""
    bound: Any = tuned.bound
    ids = list(bound.lay_out([Row({"text": text}, "row")], tuned.injection)[0][0].ids)
    whole = replace(bound.decoding(""), max_new_tokens=12)
    (found,) = continuations(bound.backbone, [ids], tuned.injection, whole)
    return ids, list(found)


def until_end(tokens: list[int]) -> list[int]:
    """Those before the token that the GGUF says ends a text."""
    return tokens[: tokens.index(1)] if 1 in tokens else tokens


@pytest.mark.parametrize("method", [Prefix(length=5), Soft(length=5)], ids=["prefix", "soft"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_a_restored_slot_writes_token_for_token_what_foreword_writes(
    method: Any, name: str, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (make test-llama)")
    base = gemma3() if name == "gemma3" else None  # some layers of which have a window
    tuned = prompt(method, name=name, task=GENERATE, base=base)
    (tmp_path / "of").mkdir()
    sizes: Any = {"base": gemma3()} if base is None else {"name": "llama"}
    _, other = written(prompt(method, **sizes), tmp_path / "of")
    other.rename(tmp_path / "other.bin")
    gguf, file = written(tuned, tmp_path)
    with serving(gguf, *(["--swa-full"] if name == "gemma3" else [])) as url:
        page = client(url, file)
        settings = {"n_predict": 12, "return_tokens": True}
        for again in range(2):
            for text in TEXTS:
                ids, expected = ours(tuned, text)
                found = page["complete"](json.dumps(ids), **settings)
                assert until_end(found["tokens"]) == until_end(expected), (text, again)
                assert found["timings"]["cache_n"] >= page["count"]
            # A request that takes the slot is noticed at the next one, which restores it.
            taken = page["post"]("/completion", {"prompt": [5, 6, 7], "n_predict": 1, "id_slot": 0})
            assert taken["timings"]["cache_n"] < page["count"]
        for bad in ("model.gguf", "other.bin"):
            with pytest.raises(HTTPError) as refused:
                page["post"]("/slots/0?action=restore", {"filename": bad})
            assert refused.value.code == 400
            refused.value.close()
