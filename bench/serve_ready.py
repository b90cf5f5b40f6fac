"""How soon a server answers once its model is loaded, with many prompt files in its folder.

The server runs in this process, so that the moment is known at which the model's weights are
there. From then on: until ``/health`` says so, and until a prompt that was never opened has
answered its first request of one token.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from serve_http import SORT, WRITE, model_folder, workplace, write_prompts
from serve_work import report

from foreword.backbone.backbone import Backbone
from foreword.serve.http.server import address, bound_socket, run_server
from foreword.serve.http.service import Service


def ready(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    prompts: Annotated[int, Parameter(help="files in the folder")] = 1000,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure the seconds from a loaded model to answers."""
    torch.set_num_threads(threads)
    found: dict[str, Any] = {"prompts": prompts}
    with workplace() as base:
        named, folder = model_folder(model, base), base / "prompts"
        write_prompts(folder, named, 1, WRITE, 0)
        write_prompts(base / "sort", named, 1, SORT, 0)
        shutil.copy(base / "sort" / "p0.safetensors", folder / "sort.safetensors")
        for number in range(1, prompts - 1):
            shutil.copy(folder / "p0.safetensors", folder / f"p{number}.safetensors")
        loaded: list[tuple[float, float]] = []

        def load() -> Backbone:
            began = time.perf_counter()
            made = Backbone.load(named)
            loaded.append((time.perf_counter(), time.process_time()))
            found["seconds_to_load"] = loaded[0][0] - began
            return made

        bound = bound_socket("127.0.0.1", 0)
        url, service = address(bound), Service(folder, load)
        thread = threading.Thread(target=run_server, args=(service, bound), kwargs={"log": None})
        thread.daemon = True
        thread.start()
        while not _well(url):
            time.sleep(0.02)
        _since(found, "ready", loaded)
        asked = {"model": f"p{prompts // 2}", "prompt": "Hello", "max_tokens": 1}
        _post(f"{url}/v1/completions", asked)
        _since(found, "first_completion", loaded)
        _post(f"{url}/v1/predict", {"model": "sort", "inputs": "my parcel"})
        _since(found, "first_label", loaded)
        began = time.perf_counter()
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            found["models_listed"] = len(json.load(answer)["data"])
        found["seconds_to_list_models"] = time.perf_counter() - began
        service.close()
    report(found, as_json)


def _since(found: dict[str, Any], what: str, loaded: list[tuple[float, float]]) -> None:
    found[f"seconds_to_{what}"] = time.perf_counter() - loaded[0][0]
    found[f"processor_seconds_to_{what}"] = time.process_time() - loaded[0][1]


def _well(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health"):
            return True
    except (urllib.error.HTTPError, OSError):
        return False


def _post(url: str, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        answer.read()
