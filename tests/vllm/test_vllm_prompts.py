"""Files for vLLM, and the package that serves them, without vLLM itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fake_server import FakeVLLM
from safetensors import safe_open
from safetensors.numpy import save_file

import foreword as fw
from composed import GENERATE, prompt
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.export.vllm import to_vllm
from foreword.injection import KV, NOTHING, Injection, Patch
from foreword.methods.head import Head
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword_vllm.errors import PromptError
from foreword_vllm.folder import KEPT, PromptFolder, kept
from foreword_vllm.labels import probabilities, questions
from foreword_vllm.launch import arguments, warning
from foreword_vllm.layout import row_ids
from foreword_vllm.middleware import Prompts
from foreword_vllm.prefix import KEY, read_prefix

JUDGE = Classify(
    template="{text} it was ", labels={"good": (" good", " good film"), "bad": " bad film"}
)


def judged(method: Any = None, shift: float = 0, **changes: Any) -> Prompt:
    made = prompt(method or Prefix(length=3), task=JUDGE, **changes)
    return replace(made, injection=made.injection.map(lambda tensor: tensor + shift))


def written(tuned: Prompt, folder: Path, name: str = "p") -> Path:
    return to_vllm(tuned, folder / f"{name}.safetensors")


# The file ------------------------------------------------------------------------------------


def test_a_prefix_is_written_as_it_is_and_its_ids_follow_from_its_tensors(tmp_path: Path) -> None:
    tuned = judged()
    path = written(tuned, tmp_path)
    found, tensors = read_prefix(path)
    for number, own in enumerate(tuned.injection.kv.values()):
        assert np.array_equal(tensors[f"layers.{number}.keys"], own.keys.transpose(0, 1).numpy())
        assert np.array_equal(
            tensors[f"layers.{number}.values"], own.values.transpose(0, 1).numpy()
        )
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name}{tensors[name].shape}".encode() + tensors[name].tobytes())
    assert found.sha256 == whole.hexdigest()
    assert found.positions == len(found.ids) == 3
    assert all(0 <= each < found.model["vocabulary"] for each in found.ids)
    again, _ = read_prefix(written(judged(shift=0.1), tmp_path, "other"))
    assert again.ids != found.ids
    assert read_prefix(written(judged(), tmp_path, "same"))[0].ids == found.ids


@pytest.mark.parametrize(
    "tuned",
    [
        prompt(Soft(length=3), task=JUDGE),
        prompt(Soft(length=3), task=GENERATE),
        prompt(Prefix(length=3), task=replace(GENERATE, template="so {text} it was")),
    ],
    ids=["labels", "text", "prefix"],
)
def test_virtual_tokens_become_keys_and_values_under_which_a_row_is_read_alike(
    tuned: Prompt, tmp_path: Path
) -> None:
    found, tensors = read_prefix(written(tuned, tmp_path))
    held = as_injection(tuned, tensors, found.positions)
    base = tuned.bound.backbone
    row = fw.Row({"text": "a film it was"}, "row")
    here = tuned.bound.predict([row], tuned.injection)[0]
    ids = asyncio.run(row_ids(found, row.fields, tokenizer(tuned)))
    if found.answer["kind"] == "text":
        assert written_after(base, ids, held) == here["text"]
        return
    there = probabilities(found.answer, scored(base, ids, held, found.answer))
    assert there == pytest.approx(here["probabilities"], abs=1e-5)


def as_injection(tuned: Prompt, tensors: Mapping[str, Any], size: int) -> Injection:
    def own(number: int, kind: str) -> torch.Tensor:
        return torch.tensor(tensors[f"layers.{number}.{kind}"]).transpose(0, 1)

    sites = list(tuned.bound.backbone.sites)
    kv = {name: KV(own(n, "keys"), own(n, "values")) for n, name in enumerate(sites)}
    return Injection(kv=kv, positions=size)


def tokenizer(tuned: Prompt) -> Any:
    async def tokenize(text: Any) -> list[int]:
        return tuned.bound.backbone.text.ids(text)

    return tokenize


def scored(base: Any, ids: list[int], held: Injection, answer: Any) -> list[dict[int, float]]:
    """What vLLM would give: log-probabilities over the whole vocabulary, question by question."""
    found: list[dict[int, float]] = [{} for _ in answer["nodes"]]
    for each in questions(answer):
        example = Example((*ids, *each.path), len(ids) + len(each.path), ((),), ((0, -1),))
        ((_, logits),) = infer(base, held, [example])
        logs = torch.log_softmax(logits[0], 0)
        found[each.node] |= {token: float(logs[token]) for token in each.tokens}
    return found


def written_after(base: Any, ids: list[int], held: Injection) -> str:
    return decode(base, [ids], held, Decoding(max_new_tokens=5))[0].strip()


def test_rows_begin_once_as_foreword_lays_them_out(tmp_path: Path) -> None:
    tuned = judged(injection=replace(judged().injection, bos=0))
    found, _ = read_prefix(written(tuned, tmp_path))
    row = fw.Row({"text": "a film"}, "row")
    base = tuned.bound.backbone
    ids = asyncio.run(row_ids(found, row.fields, tokenizer(tuned)))
    slots = tuned.bound.slot_tokens(row)  # type: ignore[attr-defined]
    assert ids == list(tuned.bound.lay_out(row, 99, slots, []).ids)  # type: ignore[attr-defined]
    assert ids[: len(base.text.around[0])] == list(base.text.around[0])
    begun = judged(injection=replace(judged().injection, bos=1))
    behind, _ = read_prefix(written(begun, tmp_path, "begun"))
    rest = asyncio.run(row_ids(behind, row.fields, tokenizer(tuned)))
    assert rest == ids[len(base.text.around[0]) :]


@pytest.mark.parametrize(
    ("tuned", "why"),
    [
        (lambda: judged(injection=low_rank()), "--enable-lora"),
        (lambda: judged(injection=NOTHING), "no virtual tokens"),
        (lambda: judged(injection=lower_half()), "of 3 layers"),
        (lambda: judged(Head()), "method=prefix`, or use `foreword export --to onnx"),
        (lambda: judged(Prefix(length=4), name="mistral-window"), "the sliding window"),
        (lambda: judged_as(calibration="contextual"), "calibration"),
        (lambda: judged_as(input_window=4), "input_window"),
        (
            lambda: prompt(
                Prefix(length=2), task=replace(GENERATE, decoding=Decoding(repetition_penalty=1.3))
            ),
            "repetition_penalty=1.3",
        ),
        (
            lambda: prompt(Prefix(length=2), task=replace(GENERATE, decoding=Decoding(beams=2))),
            "beams=2",
        ),
    ],
)
def test_what_vllm_cannot_hold_is_refused_in_a_line(tuned: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be served from vLLM") as refused:
        written(tuned(), tmp_path)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_lora_beside_a_prefix_is_not_sent_where_it_cannot_go(tmp_path: Path) -> None:
    both = replace(judged().injection, patches=low_rank().patches)
    (patch,) = low_rank().patches["lm_head"]
    adapter = Injection(patches={"lm_head": (replace(patch, activation="relu"),)})
    for injection in (both, adapter):
        with pytest.raises(UserError, match=r"it changes the model itself$"):
            written(judged(injection=injection), tmp_path)


def judged_as(**settings: Any) -> Prompt:
    return replace(judged(), task=replace(JUDGE, **settings))


def low_rank() -> Injection:
    return Injection(patches={"lm_head": (Patch(torch.zeros(4, 2), torch.zeros(2, 4)),)})


def lower_half() -> Injection:
    own = judged().injection
    return replace(own, kv=dict(list(own.kv.items())[:1]))


def damaged(path: Path, how: str) -> Path:
    meta, tensors = parts_of(path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
        return path
    if how == "text":
        path.write_text("a prompt")
        return path
    if how == "NaN":
        tensors["layers.1.keys"][0] = np.nan
    elif how == "bit":
        tensors["layers.1.keys"][0] += 1
    elif how == "shape":
        tensors["layers.1.keys"] = tensors["layers.1.keys"][:1]
    elif how == "missing":
        del tensors["layers.1.keys"]
    elif how == "format":
        meta["format"] = 9
    elif how == "size":
        meta["positions"] = -1
    elif how == "answer":
        meta["answer"] = ["labels"]
    elif how == "half":
        tensors = {name: each.astype(np.float16) for name, each in tensors.items()}
    about = {KEY: json.dumps(meta)} if how != "other" else {"foreword": "{}"}
    save_file(tensors, path, metadata=about)
    return path


def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[KEY]), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118


HURTS = ("cut", "text", "NaN", "bit", "shape", "missing", "format", "size", "answer", "half")


@pytest.mark.parametrize("how", [*HURTS, "other"])
def test_a_damaged_file_is_refused_with_its_reason(how: str, tmp_path: Path) -> None:
    path = damaged(written(judged(), tmp_path), how)
    with pytest.raises(PromptError) as refused:
        read_prefix(path)
    assert refused.value.status == 422
    assert "\n" not in str(refused.value)


# The folder ----------------------------------------------------------------------------------


def test_a_replaced_file_is_the_next_content_and_the_one_before_stays(tmp_path: Path) -> None:
    folder = PromptFolder(tmp_path)
    written(judged(), tmp_path)
    first = folder.get("p")
    assert first is not None
    assert folder.get("p") is first
    os.replace(written(judged(shift=0.1), tmp_path, "new"), tmp_path / "p.safetensors")
    second = folder.get("p")
    assert second is not None
    assert second.sha256 != first.sha256
    assert read_prefix(kept(tmp_path, first.sha256))[0] == first
    damaged(tmp_path / "p.safetensors", "cut")
    with pytest.raises(PromptError, match="prompt 'p' cannot be served"):
        folder.get("p")
    (tmp_path / "p.safetensors").unlink()
    assert folder.get("p") is None
    assert folder.names() == []
    assert not list((tmp_path / KEPT).glob("*.new"))


def test_old_contents_go_and_names_reach_nothing_else(tmp_path: Path) -> None:
    folder = PromptFolder(tmp_path)
    first = folder.get(written(judged(), tmp_path, "a").name.removesuffix(".safetensors"))
    assert first is not None
    os.utime(kept(tmp_path, first.sha256), (0, 0))
    written(judged(shift=0.1), tmp_path, "b")
    folder.get("b")
    assert kept(tmp_path, first.sha256).exists()  # a prompt has it still
    (tmp_path / "a.safetensors").unlink()
    assert folder.get("a") is None
    os.utime(kept(tmp_path, first.sha256), (0, 0))
    written(judged(shift=0.2), tmp_path, "c")
    folder.get("c")
    assert not kept(tmp_path, first.sha256).exists()
    for name in ("", "../a", ".prefixes/x", "a\0", 3, None, "a" * 5000):
        assert folder.get(name) is None


def test_two_servers_of_a_folder_leave_each_other_what_they_serve(tmp_path: Path) -> None:
    one, other = PromptFolder(tmp_path), PromptFolder(tmp_path)
    for shift, name in enumerate("abc"):
        written(judged(shift=0.1 * shift), tmp_path, name)
    asked, idle = one.get("a"), one.get("b")
    assert asked is not None
    assert idle is not None
    for each in (asked, idle):
        os.utime(kept(tmp_path, each.sha256), (0, 0))
    assert one.get("a") is asked
    other.get("c")
    assert kept(tmp_path, asked.sha256).exists()  # whose use the other has seen
    assert not kept(tmp_path, idle.sha256).exists()
    assert one.get("b") == idle
    assert kept(tmp_path, idle.sha256).exists()


# The middleware ------------------------------------------------------------------------------


def ask(
    app: Any, path: str, body: Any = None, method: str = "POST", key: bytes = b""
) -> tuple[int, Any]:
    """One request to an ASGI app: status, and JSON or the text of a stream."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts: list[bytes] = []
    about: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent, "more_body": False}

    async def send(message: Any) -> None:
        about.update(message)
        parts.append(message.get("body", b""))

    headers = [(b"authorization", key)] if key else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "app": app.app}
    asyncio.run(app(scope, receive, send))
    whole = b"".join(parts)
    if whole.startswith(b"data:"):
        return about["status"], whole.decode()
    return about["status"], json.loads(whole)


@pytest.fixture
def served(tmp_path: Path) -> tuple[Prompts, FakeVLLM]:
    written(judged(), tmp_path, "mood")
    write = prompt(Prefix(length=3), task=replace(GENERATE, template="Q {text} A: "))
    path = written(write, tmp_path, "bot")
    probe = read_prefix(path)[0].probe["log_probability"]
    mood = read_prefix(tmp_path / "mood.safetensors")[0].probe["log_probability"]
    behind = FakeVLLM(probe=(probe + mood) / 2)
    return Prompts(behind, tmp_path), behind


def test_a_request_by_the_name_of_a_prompt_is_laid_out_behind_its_ids(
    served: tuple[Prompts, FakeVLLM],
) -> None:
    app, behind = served
    status, found = ask(app, "/v1/completions", {"model": "bot", "prompt": "hi", "max_tokens": 7})
    assert status == 200
    heard = behind.heard[-1]
    prefix = app.prompts.get("bot")
    assert prefix is not None
    first = list(prefix.row["first"]) if prefix.row["begins"] else []
    text = [ord(sign) % 100 + 2 for sign in "Q hi A:"]
    assert heard["prompt"] == [[*prefix.ids, *first, *text]]
    assert heard["kv_transfer_params"] == {
        "foreword_prefix": {"sha256": prefix.sha256, "positions": 3}
    }
    assert (heard["max_tokens"], heard["temperature"], heard["repetition_penalty"]) == (7, 0, 1)
    assert len(heard["cache_salt"]) == 64
    size = len(first) + len(text)
    assert found["choices"][0]["text"] == f"text of {size + 3} tokens"
    assert found["model"] == "bot"
    assert found["usage"]["prompt_tokens"] == size
    assert found["usage"]["total_tokens"] == size + 4


def test_prompts_are_named_by_a_parameter_too_and_salted_apart(
    served: tuple[Prompts, FakeVLLM], tmp_path: Path
) -> None:
    app, behind = served
    body = {"model": "base", "prompt": [5, 6], "kv_transfer_params": {"foreword": "bot"}}
    assert ask(app, "/v1/completions", body)[0] == 200
    prefix = app.prompts.get("bot")
    assert prefix is not None
    one = behind.heard[-1]
    assert one["prompt"] == [[*prefix.ids, 5, 6]]
    assert ask(app, "/v1/completions", {**body, "cache_salt": "mine"})[0] == 200
    assert behind.heard[-1]["cache_salt"] not in (one["cache_salt"], "mine")
    assert ask(Prompts(behind, tmp_path), "/v1/completions", body)[0] == 200
    assert behind.heard[-1]["cache_salt"] != one["cache_salt"]  # of another server's secret


def test_a_chat_is_a_completion_and_comes_back_as_a_chat(served: tuple[Prompts, FakeVLLM]) -> None:
    app, behind = served
    body = {"model": "bot", "messages": [{"role": "user", "content": "hey"}]}
    status, found = ask(app, "/v1/chat/completions", {**body, "max_completion_tokens": 9})
    assert status == 200
    assert found["object"] == "chat.completion"
    assert found["choices"][0]["message"]["role"] == "assistant"
    assert found["choices"][0]["message"]["content"].startswith("text of")
    assert behind.heard[-1]["max_tokens"] == 9
    status, text = ask(app, "/v1/chat/completions", {**body, "stream": True})
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(each["choices"][0]["delta"]["content"] for each in events) == "a text"
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert {each["object"] for each in events} == {"chat.completion.chunk"}
    assert text.endswith("data: [DONE]\n\n\n") or text.rstrip().endswith("[DONE]")


def test_label_words_are_scored_node_by_node(served: tuple[Prompts, FakeVLLM]) -> None:
    app, _ = served
    status, found = ask(app, "/v1/predict", {"model": "mood", "inputs": ["a", "bc"]})
    assert status == 200
    assert found["task"] == "classify"
    prefix = app.prompts.get("mood")
    assert prefix is not None
    # The fake scores token t with -t: the right answer by hand, word by word.
    answer = prefix.answer
    logs = []
    for tokens in answer["children"]:
        weights = np.exp(-np.array(tokens, dtype=float) + min(tokens))
        logs.append(np.log(weights / weights.sum()))
    chances = dict.fromkeys(answer["labels"], 0.0)
    for label, steps in answer["words"]:
        chances[answer["labels"][label]] += float(np.exp(sum(logs[n][c] for n, c in steps)))
    assert len(found["predictions"]) == 2
    for each in found["predictions"]:
        assert each["probabilities"] == pytest.approx(chances, abs=2e-6)
        assert each["label"] == max(chances, key=chances.__getitem__)
    _, blank = ask(app, "/v1/predict", {"model": "mood", "inputs": "a", "min_probability": 1.0})
    assert blank["predictions"][0]["label"] is None
    _, texts = ask(app, "/v1/predict", {"model": "bot", "inputs": [{"text": "a"}]})
    assert texts["predictions"][0]["answer"].startswith("text of")


def test_more_label_words_than_vllm_scores_at_once_are_asked_in_turn() -> None:
    answer = {
        "labels": [f"l{n}" for n in range(45)],
        "nodes": [[]],
        "children": [list(range(45))],
        "words": [[n, [[0, n]]] for n in range(45)],
        "vocabulary": False,
    }
    asked = list(questions(answer))
    assert [len(each.tokens) for each in asked] == [20, 20, 5]
    found = probabilities(answer, [{n: -float(n) for n in range(45)}])
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/v1/completions", {"echo": True}, "echo"),
        ("/v1/completions", {"prompt_logprobs": 1}, "prompt_logprobs"),
        ("/v1/completions", {"repetition_penalty": 1.2}, "frequency_penalty"),
        ("/v1/completions", {"use_beam_search": True}, "use_beam_search"),
        ("/v1/completions", {"prompt": None}, "prompt"),
        ("/v1/completions", {"prompt": [[]]}, "prompt"),
        ("/v1/completions", {"prompt": "x" * 9999}, "at most"),
        ("/v1/completions", {"max_tokens": "9"}, "max_tokens"),
        ("/v1/completions", {"model": "mood"}, "/v1/predict"),
        ("/v1/completions", {"kv_transfer_params": {"foreword_prefix": {}}}, "server's own"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "tools": [1]},
            "tools",
        ),
        ("/v1/predict", {"inputs": []}, "inputs"),
        ("/v1/predict", {"inputs": [3]}, "inputs"),
        ("/v1/predict", {"inputs": [{"txt": "a"}]}, "'text'"),
        ("/v1/predict", {"inputs": "a", "min_probability": "high"}, "min_probability"),
    ],
)
def test_what_cannot_be_asked_is_a_400_that_says_why(
    served: tuple[Prompts, FakeVLLM], path: str, change: dict[str, Any], said: str
) -> None:
    app, _ = served
    usual = {"prompt": "a"} if path == "/v1/completions" else {}
    status, found = ask(app, path, {"model": "bot", **usual, **change})
    assert status == 400
    assert said in found["error"]["message"]


def test_what_is_not_for_a_prompt_reaches_vllm_untouched(
    served: tuple[Prompts, FakeVLLM],
) -> None:
    app, behind = served
    body = {"model": "base", "prompt": [[7]], "anything": 1}
    assert ask(app, "/v1/completions", body)[0] == 200
    assert behind.heard[-1] == body
    assert ask(app, "/v1/completions", {"model": "nobody", "prompt": [[7]]})[0] == 404
    assert ask(app, "/v1/predict", {"model": "nobody", "inputs": "a"})[0] == 404
    assert ask(app, "/v1/predict", b"\xff{")[0] == 404
    _, listed = ask(app, "/v1/models", method="GET")
    assert [each["id"] for each in listed["data"]] == ["base", "bot", "mood"]
    assert listed["data"][1]["parent"] == "base"


def test_a_damaged_prompt_is_a_422_and_the_others_go_on(
    served: tuple[Prompts, FakeVLLM], tmp_path: Path
) -> None:
    app, _ = served
    damaged(tmp_path / "bot.safetensors", "bit")
    status, found = ask(app, "/v1/completions", {"model": "bot", "prompt": "a"})
    assert status == 422
    assert "damaged" in found["error"]["message"]
    assert ask(app, "/v1/predict", {"model": "mood", "inputs": "a"})[0] == 200


def test_who_has_no_key_hears_nothing_of_prompts(
    served: tuple[Prompts, FakeVLLM], tmp_path: Path
) -> None:
    behind = FakeVLLM(probe=served[1].probe, key=b"Bearer k")
    app = Prompts(behind, tmp_path)
    damaged(tmp_path / "bot.safetensors", "bit")
    asked: list[tuple[str, Any]] = [
        ("/v1/completions", {"model": "bot", "prompt": "a"}),
        ("/v1/predict", {"model": "mood", "inputs": "a"}),
        ("/v1/predict", {"model": "mood", "inputs": []}),
        ("/v1/predict", {"model": "nobody", "inputs": "a"}),
    ]
    for known in (False, True):
        for path, body in asked:
            status, said = ask(app, path, body)
            assert (status, said["error"]["message"]) == (401, "no key")
        assert ask(app, "/v1/models", method="GET")[0] == 401
        if not known:
            assert ask(app, "/v1/predict", asked[1][1], key=b"Bearer k")[0] == 200


def test_another_model_is_noticed_by_its_sizes_and_by_what_it_scores(tmp_path: Path) -> None:
    written(judged(), tmp_path, "mood")
    found, _ = read_prefix(tmp_path / "mood.safetensors")
    body = {"model": "mood", "inputs": "a"}
    status, said = ask(Prompts(FakeVLLM(probe=-40.0), tmp_path), "/v1/predict", body)
    assert status == 422
    assert "not the one" in said["error"]["message"]
    model = SimpleNamespace(
        hf_text_config=SimpleNamespace(num_hidden_layers=found.model["layers"]),
        get_total_num_kv_heads=lambda: found.model["heads"],
        get_head_size=lambda: 99,
        get_vocab_size=lambda: found.model["vocabulary"],
    )
    transfer = SimpleNamespace(kv_connector="ForewordConnector", kv_connector_extra_config={})
    config = SimpleNamespace(kv_transfer_config=transfer, model_config=model)
    status, said = ask(Prompts(FakeVLLM(config), tmp_path), "/v1/predict", body)
    assert status == 422
    assert "this model has 99" in said["error"]["message"]
    config.kv_transfer_config = None
    status, said = ask(Prompts(FakeVLLM(config), tmp_path), "/v1/predict", body)
    assert status == 422
    assert "without the connector" in said["error"]["message"]


def test_rows_that_grow_past_a_sliding_window_are_refused(tmp_path: Path) -> None:
    path = written(prompt(Prefix(length=3), task=GENERATE), tmp_path, "bot")
    meta, tensors = parts_of(path)
    meta["model"]["window"] = 40
    save_file(tensors, path, metadata={KEY: json.dumps(meta)})
    app = Prompts(FakeVLLM(probe=meta["probe"]["log_probability"]), tmp_path)
    body = {"model": "bot", "prompt": [1] * 20, "max_tokens": 17}
    assert ask(app, "/v1/completions", body)[0] == 200
    status, said = ask(app, "/v1/completions", {**body, "max_tokens": 18})
    assert status == 400
    assert "sliding window of 40" in said["error"]["message"]


def test_the_manifest_starts_the_command_with_arguments_that_it_takes() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "vllm.yaml").read_text()
    kinds = {each["kind"]: each for each in yaml.safe_load_all(text)}
    (container,) = kinds["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    assert command[:4] == ["foreword-vllm", "/model", "--prompts", "/prompts"]
    assert {each["mountPath"] for each in container["volumeMounts"]} >= {"/model", "/prompts"}
    assert kinds["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


# The command ---------------------------------------------------------------------------------


def test_the_command_sets_up_vllms_own_server(tmp_path: Path) -> None:
    folder, made = arguments(["m", "--prompts", str(tmp_path), "--port", "9"])
    assert folder == tmp_path
    assert made[:2] == ["--model", "m"]
    connector = json.loads(made[made.index("--kv-transfer-config") + 1])
    assert connector["kv_connector_extra_config"] == {"prompts": str(tmp_path)}
    assert made[made.index("--middleware") + 1] == "foreword_vllm.middleware.Prompts"
    assert made[-2:] == ["--port", "9"]
    for wrong in ([], ["m"], ["--prompts", "x"], ["m", "--prompts", str(tmp_path / "no")]):
        with pytest.raises(SystemExit):
            arguments(wrong)


def test_another_version_of_vllm_is_said_and_none_is_refused() -> None:
    assert warning("0.32.0") == warning("0.32.1.post1") == ""
    assert "0.33.0" in warning("0.33.0")
    assert "0.3.2" in warning("0.3.2")
    with pytest.raises(SystemExit, match="not installed"):
        warning(None)
