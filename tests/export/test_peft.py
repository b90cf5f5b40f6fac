"""PEFT folders against the real PEFT: the same logits both ways, the same bits there and back."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import (
    CartridgeConfig,
    LoHaConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from families import (
    CAUSAL,
    CLASSES,
    MASKED,
    SEQ2SEQ,
    UNREACHED,
    WINDOWED,
    Family,
    backbone,
    by_mechanism,
)
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.load.sources import name_in_transformers
from foreword.errors import UserError
from foreword.export.peft import Peft, from_peft, to_peft
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify

# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

FAMILIES = {f.name: f for f in [*CAUSAL, *MASKED, *SEQ2SEQ, *UNREACHED]} | {
    "gemma3-window": WINDOWED[1],
    "gemma3-wide": Family("gemma3_text", "causal", {**WINDOWED[1].config, "sliding_window": 10}),
    "deep": Family("gpt_neox", "causal", {"num_hidden_layers": 11}),  # 10 sorts before 2
    "hybrid": Family(
        "lfm2",
        "causal",
        {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention", "conv"]},
    ),
}
TYPES = {"causal": "CAUSAL_LM", "masked": "FEATURE_EXTRACTION", "encoder-decoder": "SEQ_2_SEQ_LM"}
ROWS = ((23, 51, 140, 9, 77, 31), (88, 12, 47), (5, 133, 64, 29))
REPLY = (17, 90, 33)
LENGTH = 4
MAKE: dict[str, Callable[..., Any]] = {
    "prompt": PromptTuningConfig,
    "p-tuning-mlp": lambda **k: PromptEncoderConfig(encoder_hidden_size=8, **k),
    "p-tuning-lstm": lambda **k: PromptEncoderConfig(
        encoder_hidden_size=8, encoder_reparameterization_type="LSTM", **k
    ),
    "prefix": PrefixTuningConfig,
    "projected": lambda **k: PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=8, **k),
    "cartridge": lambda **k: CartridgeConfig(num_frozen_tokens=1, **k),
}


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TINY = ("llama", "gpt2", "qwen2", "opt")
PREFIX = ("PREFIX_TUNING", "CARTRIDGE")


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def twin(name: str) -> Any:
    """The same weights in a model that Foreword has not touched."""
    model = get(name).model
    kind = CLASSES[FAMILIES[name].architecture]
    made = kind.from_config(copy.deepcopy(model.config), attn_implementation="eager")
    made.load_state_dict(model.state_dict())
    return made.eval()


def task(name: str, text: str = "{text} :") -> Classify:
    mask = " [mask]" if FAMILIES[name].architecture == "masked" else ""
    return Classify(text + mask, {"good": "good", "bad": "bad"})


def theirs(model: Any, architecture: str) -> Tensor:
    """PEFT's logits of every token of right-padded rows; the virtual tokens' own are cut off."""
    ids = pad_sequence([torch.tensor(row) for row in ROWS], batch_first=True)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in ROWS])).long()
    reply: dict[str, Tensor] = {}
    if architecture == "encoder-decoder":
        start = model.config.decoder_start_token_id
        reply["decoder_input_ids"] = torch.tensor([[start, *REPLY]] * len(ROWS))
    logits = model(input_ids=ids, attention_mask=mask, **reply).logits
    if reply:
        return logits.flatten(0, 1)
    logits = logits[:, logits.shape[1] - ids.shape[1] :]
    return torch.cat([row[: len(own)] for row, own in zip(logits, ROWS, strict=True)])


def ours(on: Backbone, injection: Injection) -> Tensor:
    """Foreword's logits of the same tokens."""
    made = []
    for row in ROWS:
        if on.architecture == "encoder-decoder":
            places = tuple((0, j) for j in range(-1, len(REPLY)))
            made.append(Example(row, len(row), (REPLY,), places))
        else:
            made.append(Example(row, 0, ((),), tuple((0, j) for j in range(len(row)))))
    with torch.no_grad():
        return on.logits(on.states(made, injection))


def trained(name: str, kind: str, **config: Any) -> Any:
    """An adapter of PEFT after two of its own steps, so that nothing is at its start."""
    architecture = FAMILIES[name].architecture
    torch.manual_seed(1)
    settings = {"task_type": TYPES[architecture], "num_virtual_tokens": LENGTH, **config}
    model = get_peft_model(twin(name), MAKE[kind](**settings))
    model.eval()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        theirs(model, architecture).logsumexp(1).mean().backward()
        optimizer.step()
    return model


def made_here(name: str, kind: str) -> Prompt:
    """A prompt of virtual tokens, or of keys and values, near those of four real tokens."""
    on = get(name)
    noise = torch.Generator().manual_seed(2)

    def moved(tensor: Tensor) -> Tensor:
        return tensor + tensor.std() * torch.randn(tensor.shape, generator=noise)

    with torch.no_grad():
        if kind == "soft":
            injection = Injection(embeds=on.embed((3, 9, 27, 81)), leading=LENGTH)
        else:
            injection = Injection(kv=on.kv((3, 9, 27, 81)), positions=LENGTH)
    about = {"name": on.name, "architecture": on.architecture, "fingerprint": on.fingerprint}
    return Prompt(injection.map(moved), task(name), about)


def read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CONFIG).read_text()))


def same(found: Injection, wanted: Injection) -> bool:
    """Whether all is equal, tensors bit for bit; the order of the layers in a file is free."""
    one, other = dict(found.tensors()), dict(wanted.tensors())
    assert (found.leading, found.positions) == (wanted.leading, wanted.positions)
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5


CAUSAL_NAMES = [family.name for family in CAUSAL]
SOFT = ("prompt", "p-tuning-mlp", "p-tuning-lstm")
TRAINED = [
    *((name, kind) for name in ("llama", "gpt2", "qwen2", "opt") for kind in MAKE),
    *((name, kind) for name in ("bert", "t5", "bart") for kind in SOFT),
    *((name, "prefix") for name in (*CAUSAL_NAMES, "gemma3-wide") if name not in TINY),
    *((name, "prompt") for name in ("bloom", "gemma2", "electra", "marian")),
]
WRITTEN = [
    *((name, kind) for name in (*TINY, "gemma3-wide") for kind in ("soft", *PREFIX)),
    ("deep", "PREFIX_TUNING"),
    *((name, "soft") for name in ("bert", "albert", "electra", "t5", "bart", "marian", "falcon")),
]


@pytest.mark.parametrize(("kind", "name"), by_mechanism((k, n) for n, k in TRAINED))
def test_an_adapter_that_peft_trained_scores_the_same_here(
    name: str, kind: str, tmp_path: Path
) -> None:
    on = get(name)
    model = trained(name, kind)
    model.save_pretrained(tmp_path)
    prompt = from_peft(tmp_path, on, task(name))
    with torch.no_grad():
        wanted = theirs(model, on.architecture)
    close(ours(on, prompt.injection), wanted)
    assert (wanted - ours(on, Injection())).abs().max() > 1e-3  # the adapter does something
    config = model.peft_config["default"]
    assert prompt.method["imported_from"] == f"peft {config.peft_type.value}"
    assert prompt.method["name"] == ("soft" if kind in SOFT else "prefix")
    assert prompt.versions == {"peft": peft.__version__}
    saved = Prompt.load(prompt.save(tmp_path / "p.safetensors"), on)  # a whole, checked file
    assert same(saved.injection, prompt.injection)


@pytest.mark.parametrize(("name", "kind"), WRITTEN)
def test_a_prompt_scores_the_same_in_peft(name: str, kind: str, tmp_path: Path) -> None:
    prompt = made_here(name, kind)
    to_peft(prompt, tmp_path / "out", kind=None if kind == "soft" else kind)
    loaded: Any = PeftModel.from_pretrained(twin(name), tmp_path / "out")
    loaded.eval()
    with torch.no_grad():
        found = theirs(loaded, FAMILIES[name].architecture)
    close(found, ours(get(name), prompt.injection))
    assert (found - ours(get(name), Injection())).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kind"), WRITTEN)
def test_there_and_back_is_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    prompt = made_here(name, kind)
    on = get(name)
    filed = Prompt.load(prompt.save(tmp_path / "p.safetensors"))  # in the order of a file
    for number, given in enumerate((prompt, filed, replace(filed, on=on))):
        folder = to_peft(given, tmp_path / str(number), kind=None if kind == "soft" else kind)
        assert same(from_peft(folder, on, prompt.task).injection, prompt.injection)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_back_and_there_is_bit_for_bit(name: str, tmp_path: Path) -> None:
    kind = "prefix" if name == "llama" else "p-tuning-mlp"
    trained(name, kind).save_pretrained(tmp_path / "theirs")
    to_peft(from_peft(tmp_path / "theirs", get(name), task(name)), tmp_path / "ours")
    wanted = load_file(tmp_path / "theirs" / WEIGHTS)["prompt_embeddings"][:LENGTH]
    assert torch.equal(load_file(tmp_path / "ours" / WEIGHTS)["prompt_embeddings"], wanted)


@pytest.mark.parametrize(
    ("kind", "mine"),
    [("prompt", "PROMPT_TUNING"), ("prefix", "PREFIX_TUNING"), ("cartridge", "CARTRIDGE")],
)
def test_the_files_are_those_that_peft_writes(kind: str, mine: str, tmp_path: Path) -> None:
    trained("llama", kind).save_pretrained(tmp_path / "theirs")
    prompt = made_here("llama", "soft" if kind == "prompt" else mine)
    to_peft(prompt, tmp_path / "ours", kind=mine)
    wanted, found = read_config(tmp_path / "theirs"), read_config(tmp_path / "ours")
    assert set(found) == set(wanted)
    for key in ("peft_type", "task_type", "num_virtual_tokens", "token_dim", "inference_mode"):
        assert found[key] == wanted[key]
    assert found["base_model_name_or_path"] == "llama"
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == [CONFIG, WEIGHTS]
    for folder in ("ours", "theirs"):
        with safe_open(tmp_path / folder / WEIGHTS, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            assert list(file.keys()) == ["prompt_embeddings"]


def test_an_exported_folder_names_a_model_that_peft_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder by its whole path, also where the prompt was tuned in another working folder."""
    base = get("llama")
    base.model.save_pretrained(tmp_path / "model")
    base.text.tokenizer.save_pretrained(tmp_path / "model")
    prompt = made_here("llama", "soft")
    named = replace(prompt, backbone={**prompt.backbone, "name": "model"}, on=None)
    monkeypatch.chdir(tmp_path)
    folder = to_peft(named, Path("ours"))
    assert Peft().opened(named, folder) == (
        "model = peft.AutoPeftModelForCausalLM.from_pretrained('ours')"
    )
    monkeypatch.chdir(tmp_path.parent)
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "ours")
    held = opened.get_prompt_embedding_to_save("default")
    assert torch.equal(held, prompt.injection.embeds)
    assert opened.get_base_model().name_or_path == str(tmp_path / "model")


def test_the_packaged_model_is_named_by_its_hub_id(tmp_path: Path) -> None:
    prompt = made_here("llama", "soft")
    named = replace(prompt, backbone={**prompt.backbone, "name": "smollm2"}, on=None)
    found = read_config(to_peft(named, tmp_path / "ours"))
    assert found["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert name_in_transformers("someone/a-model") == "someone/a-model"


def test_layers_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"model.layers.{n}.self_attn" for n in range(12)]
    kv = {
        name: KV(torch.full((2, 3, 5), n), torch.full((2, 3, 5), n + 0.5))
        for n, name in enumerate(names)
    }
    prompt = made_here("llama", "PREFIX_TUNING")
    wide = replace(prompt, injection=Injection(kv={n: kv[n] for n in sorted(names)}, positions=3))
    tensor = load_file(to_peft(wide, tmp_path / "out") / WEIGHTS)["prompt_embeddings"]
    assert tensor.shape == (3, 12 * 2 * 10)
    assert tensor[0].view(24, 10)[:, 0].tolist() == [n / 2 for n in range(24)]


def test_neither_way_needs_peft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it now raises
    module = importlib.reload(sys.modules["foreword.export.peft"])
    folder = module.to_peft(made_here("llama", "soft"), tmp_path / "out")
    assert module.from_peft(folder, get("llama"), task("llama")).injection.leading == LENGTH


def test_numbers_of_half_precision_are_read(tmp_path: Path) -> None:
    folder = to_peft(made_here("llama", "soft"), tmp_path / "out")
    tensor = load_file(folder / WEIGHTS)["prompt_embeddings"].bfloat16()
    save_file({"prompt_embeddings": tensor}, folder / WEIGHTS)
    embeds = from_peft(folder, get("llama"), task("llama")).injection.embeds
    assert embeds is not None
    assert embeds.dtype == torch.float32
    assert torch.equal(embeds, tensor.float())


# What cannot be ------------------------------------------------------------------------------


def changed(name: str, kind: str, change: Callable[[Injection], Injection]) -> Prompt:
    prompt = made_here(name, kind)
    return replace(prompt, injection=change(prompt.injection))


def without_first(injection: Injection) -> Injection:
    return replace(injection, kv=dict(list(injection.kv.items())[1:]))


def first_wider(injection: Injection) -> Injection:
    name = next(iter(injection.kv))
    wide = KV(torch.ones(4, LENGTH, 8), torch.ones(4, LENGTH, 8))
    return replace(injection, kv={**injection.kv, name: wide})


UNWRITABLE: dict[str, tuple[Callable[[], Prompt], str]] = {
    "placed": (
        lambda: changed("llama", "soft", lambda i: replace(i, leading=0)),
        "template places 4 virtual tokens",
    ),
    "both": (
        lambda: changed(
            "llama", "PREFIX_TUNING", lambda i: replace(i, embeds=torch.ones(1, 32), leading=1)
        ),
        "virtual tokens and a prefix",
    ),
    "nothing": (lambda: changed("llama", "soft", lambda i: Injection()), "no virtual token"),
    "upper layers": (
        lambda: changed("llama", "PREFIX_TUNING", without_first),
        "acts on layers 1, 2, .* `first_layer=0`",
    ),
    "lower layers": (
        lambda: replace(
            changed(
                "llama",
                "PREFIX_TUNING",
                lambda i: replace(i, kv=dict(list(i.kv.items())[:2])),
            ),
            on=get("llama"),
        ),
        "2 of 3 layers",
    ),
    "widths": (lambda: changed("llama", "PREFIX_TUNING", first_wider), "one for all layers"),
    "positions": (
        lambda: changed("llama", "PREFIX_TUNING", lambda i: replace(i, positions=0)),
        "0 positions with 4 keys",
    ),
    "masked": (lambda: made_here("bert", "PREFIX_TUNING"), "on a masked model PEFT counts"),
    "two stacks": (lambda: made_here("bart", "PREFIX_TUNING"), "decoder's self-attention alone"),
    "window": (
        lambda: replace(made_here("gemma3-window", "PREFIX_TUNING"), on=get("gemma3-window")),
        r"sliding window of gemma3_text \(4\)",
    ),
    "hybrid": (
        lambda: replace(made_here("hybrid", "PREFIX_TUNING"), on=get("hybrid")),
        "1 of its 3 layers",
    ),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_peft_cannot_represent_is_refused(case: str, tmp_path: Path) -> None:
    make, reason = UNWRITABLE[case]
    with pytest.raises(UserError, match=reason):
        to_peft(make(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_kind_that_the_prompt_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'CARTRIDGE': this prompt can become PROMPT_TUNING$"):
        to_peft(made_here("llama", "soft"), tmp_path / "out", kind="CARTRIDGE")
    with pytest.raises(UserError, match=r"'PREFIX': .* PREFIX_TUNING or CARTRIDGE"):
        to_peft(made_here("llama", "PREFIX_TUNING"), tmp_path / "out", kind="PREFIX")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    prompt = made_here("llama", "soft")
    (tmp_path / "empty").mkdir()
    full = to_peft(prompt, tmp_path / "empty")
    before = {path.name: path.read_bytes() for path in full.iterdir()}
    with pytest.raises(UserError, match="already exists"):
        to_peft(made_here("llama", "PREFIX_TUNING"), full)
    assert {path.name: path.read_bytes() for path in full.iterdir()} == before
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        to_peft(prompt, file)
    with pytest.raises(UserError, match="cannot be written"):
        to_peft(prompt, file / "below")
    assert file.read_text() == "mine"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        to_peft(made_here("llama", "soft"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def with_tensors(change: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        tensor = load_file(folder / WEIGHTS)["prompt_embeddings"]
        save_file(change(tensor), folder / WEIGHTS)

    return write


def with_config(**changes: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(read_config(folder) | changes))

    return write


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])


def nested(folder: Path) -> None:
    (folder / "default").mkdir()
    (folder / CONFIG).rename(folder / "default" / CONFIG)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), "lacks adapter_config.json$"),
    "config below": (nested, "did you mean .*default"),
    "no JSON": (lambda f: (f / CONFIG).write_text("{"), "cannot be read as JSON"),
    "no text": (lambda f: (f / CONFIG).write_bytes(b"\xff"), "cannot be read as JSON"),
    "no object": (lambda f: (f / CONFIG).write_text("[]"), "not a JSON object"),
    "no type": (with_config(peft_type=None), "of type None"),
    "other task": (with_config(task_type="SEQ_2_SEQ_LM"), "SEQ_2_SEQ_LM, .* causal model"),
    "head": (with_config(task_type="SEQ_CLS"), "SEQ_CLS, .* needs CAUSAL_LM"),
    "count": (with_config(num_virtual_tokens="4"), "num_virtual_tokens is '4'"),
    "too many": (with_config(num_virtual_tokens=10**9), "takes 1 to"),
    "fewer": (with_config(num_virtual_tokens=3), r"shape \(4, 32\), .* needs \(3, 32\)"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "lacks adapter_model.safetensors"),
    "pickle": (pickled, "is a pickle, and only safetensors"),
    "cut": (cut, "cut off or damaged"),
    "text": (lambda f: (f / WEIGHTS).write_text("no tensors"), "cut off or damaged"),
    "name": (with_tensors(lambda t: {"other": t}), "no tensor 'prompt_embeddings'"),
    "more": (
        with_tensors(lambda t: {"prompt_embeddings": t, "score.weight": t.clone()}),
        "also holds 'score.weight'",
    ),
    "integers": (with_tensors(lambda t: {"prompt_embeddings": t.long()}), "not floats"),
    "NaN": (with_tensors(lambda t: {"prompt_embeddings": t * float("nan")}), "NaN or Inf"),
    "width": (
        with_tensors(lambda t: {"prompt_embeddings": t[:, :5].contiguous()}),
        r"shape \(4, 5\), and llama",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_no_fit_is_refused(case: str, tmp_path: Path) -> None:
    spoil, reason = BROKEN[case]
    folder = to_peft(made_here("llama", "soft"), tmp_path / "out")
    spoil(folder)
    with pytest.raises(UserError, match=reason) as caught:
        from_peft(folder, get("llama"), task("llama"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MAKE)
def test_a_setting_that_is_not_known_is_refused(kind: str, tmp_path: Path) -> None:
    """Of every kind: the same folder without it is read."""
    trained("llama", kind).save_pretrained(tmp_path)
    from_peft(tmp_path, get("llama"), task("llama"))
    for changes in ({"from_the_future": 1}, {"modules_to_save": ["lm_head"]}):
        with_config(**{"from_the_future": None, "modules_to_save": None, **changes})(tmp_path)
        name, value = next(iter(changes.items()))
        with pytest.raises(UserError, match=rf"its {name} is {re.escape(repr(value))}, which cann"):
            from_peft(tmp_path, get("llama"), task("llama"))


def test_other_adapters_are_refused_by_name(tmp_path: Path) -> None:
    settings = LoHaConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    made: Any = get_peft_model(twin("llama"), settings)
    made.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="type LOHA; PROMPT_TUNING, P_TUNING, PREFIX_TUNING, CART"):
        from_peft(tmp_path, get("llama"), task("llama"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", "masked model PEFT counts"),
        ("bart", "decoder's self-attention alone"),
        ("bloom", "cannot take a prefix"),
        ("hybrid", "attends in 1 of its 3 layers"),
        ("gemma3-window", "sliding window of gemma3_text"),
        ("phi", r"shape \(4, 96\), and phi with its num_virtual_tokens needs \(4, 192\)"),
    ],
)
def test_a_prefix_that_runs_otherwise_here_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    folder = to_peft(made_here("llama", "PREFIX_TUNING"), tmp_path / "out")
    with_config(task_type=TYPES[FAMILIES[name].architecture])(folder)
    with pytest.raises(UserError, match=reason):
        from_peft(folder, get(name), task(name))


def test_a_template_with_virtual_tokens_is_refused(tmp_path: Path) -> None:
    folder = to_peft(made_here("llama", "soft"), tmp_path / "out")
    with pytest.raises(UserError, match="places 3 virtual tokens"):
        from_peft(folder, get("llama"), task("llama", "[soft:3] {text} :"))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        from_peft(tmp_path / "absent", get("llama"), task("llama"))
