from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from tiny_files import LOADERS, tiny_folder, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.fingerprint import fingerprint
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("causal", "llama")


def test_it_is_a_short_hash_that_does_not_change(model: PreTrainedModel) -> None:
    first = fingerprint(model, tiny_tokenizer())
    assert re.fullmatch(r"sha256:[0-9a-f]{32}", first)
    assert fingerprint(copy.deepcopy(model), tiny_tokenizer()) == first


@pytest.mark.parametrize(
    ("kind", "model_type"), [("causal", "llama"), ("masked", "bert"), ("encoder-decoder", "t5")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_and_loading_keeps_it(
    tmp_path: Path, kind: str, model_type: str, dtype: torch.dtype
) -> None:
    made = tiny_folder(tmp_path, kind, model_type)
    loaded = LOADERS[kind].from_pretrained(tmp_path, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert fingerprint(loaded, tokenizer) == fingerprint(made, tiny_tokenizer())


def test_how_a_model_is_run_does_not_matter(model: PreTrainedModel) -> None:
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    other.config.use_cache = False
    other.config.pad_token_id = 7
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "<eos>"
    tokenizer(["a", "a film"], padding=True, truncation=True, max_length=3)  # leaves traces
    assert fingerprint(other, tokenizer) == fingerprint(model, tiny_tokenizer())


def test_tied_weights_count_alike_whether_shared_or_copied(model: PreTrainedModel) -> None:
    copied = copy.deepcopy(model)
    copied.lm_head.weight = torch.nn.Parameter(copied.lm_head.weight.detach().clone())
    assert fingerprint(copied, tiny_tokenizer()) == fingerprint(model, tiny_tokenizer())


def test_every_weight_counts(model: PreTrainedModel) -> None:
    names = [name for name, _ in model.named_parameters()]
    seen = {fingerprint(model, tiny_tokenizer())}
    for name in names:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.get_parameter(name).mul_(1.5)
        seen.add(fingerprint(other, tiny_tokenizer()))
    assert len(seen) == len(names) + 1


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": 2}, {"rms_norm_eps": 1e-3}, {"max_position_embeddings": 9}]
)
def test_the_config_counts_where_the_weights_are_the_same(
    model: PreTrainedModel, change: dict[str, float]
) -> None:
    other = copy.deepcopy(model)
    for key, value in change.items():
        setattr(other.config, key, value)
    assert fingerprint(other, tiny_tokenizer()) != fingerprint(model, tiny_tokenizer())


def test_the_tokenizer_counts(model: PreTrainedModel) -> None:
    plain, added, special = (tiny_tokenizer() for _ in range(3))
    added.add_tokens(["seaside!"])
    special.eos_token = "<unk>"
    fewer_merges = tiny_tokenizer()
    backend = fewer_merges.backend_tokenizer
    backend.pre_tokenizer = None  # the same vocabulary, read differently
    hashes = {fingerprint(model, one) for one in (plain, added, special, fewer_merges)}
    assert len(hashes) == 4


def test_a_model_is_known_again_in_any_dtype(tmp_path: Path) -> None:
    """Float16 rounds otherwise, whether the prompt or the model that is at hand is in it."""
    tiny_folder(tmp_path / "a")
    tiny_folder(tmp_path / "b", "masked", "bert")
    base = {
        dtype: Backbone.load(str(tmp_path / "a"), dtype=dtype)
        for dtype in ("float32", "bfloat16", "float16")
    }
    small = Backbone.load(str(tmp_path / "a"), dtype="float16", quantize="int8")
    hashes = {name: each.fingerprint for name, each in base.items()}
    assert hashes["float16"] != hashes["float32"] == hashes["bfloat16"]
    for each in (*base.values(), small):
        assert all(map(each.has_fingerprint, hashes.values()))
    other = Backbone.load(str(tmp_path / "b"), dtype="float16")
    assert not any(map(other.has_fingerprint, hashes.values()))
    width = base["float32"].width
    for made, used in (("float16", "float32"), ("float32", "float16"), ("float16", "bfloat16")):
        about = {"name": "a", "architecture": "causal", "fingerprint": hashes[made]}
        held = Injection(embeds=torch.zeros(1, width), leading=1)
        prompt = Prompt(held, Classify(template="{text}", labels={"a": "a", "b": "b"}), about)
        path = prompt.save(tmp_path / f"{made}-{used}.safetensors")
        assert Prompt.load(path, base[used]).on is base[used]
        with pytest.raises(UserError, match=r"was tuned on a .* and this is .*b in float16 \("):
            Prompt.load(path, other)
