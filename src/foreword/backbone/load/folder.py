"""A transformers folder, read into a model and its tokenizer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers.normalizers import Lowercase, Sequence
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from foreword.backbone.inside.views import output_embeddings
from foreword.backbone.load.memory import check_fits, stored_size, weight_files
from foreword.backbone.load.pooling import is_sentence_encoder, lowers_text
from foreword.backbone.load.quiet import (
    bars_to,
    one_line_errors,
    without_load_report,
)
from foreword.backbone.load.recurrent_model import RecurrentConfig, RecurrentForCausalLM
from foreword.errors import UserError, nearest
from foreword.garbage import without_collection
from foreword.grammar import with_article
from foreword.machine import let_go, return_freed
from foreword.reporter import SILENT, Reporter

Architecture = Literal["causal", "masked", "encoder-decoder", "encoder"]

_TABLES: Mapping[Architecture, Mapping[str, str]] = {
    "causal": {
        **MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        RecurrentConfig.model_type: RecurrentForCausalLM.__name__,
    },
    "masked": MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "encoder-decoder": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "encoder": {
        kind: name
        for kind, name in MODEL_MAPPING_NAMES.items()
        if isinstance(name, str) and kind not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    },
}
_LOADERS: Mapping[Architecture, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
}
_CLASSIFIERS = set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values())
_TAGGERS = set(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values())
ALIGNMENT = 64
"""Bytes to which torch aligns what it allocates."""

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.spm")


def open_folder(
    folder: Path,
    name: str,
    architecture: Architecture | str,
    dtype: torch.dtype | Literal["auto"],
    report: Reporter = SILENT,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Architecture]:
    """Load the model (in evaluation mode, on the CPU) and the tokenizer that a folder holds.

    Only safetensors are read, no code in the folder is run, and nothing is downloaded. A
    tokenizer without a padding token is given one. Error messages, and the bar
    that `report` shows over the weights, call the folder `name`.

    Raises:
        UserError: the folder is not a whole model of that architecture.
    """
    config = read_config(folder, name)
    kind = kind_of(folder, config, name, architecture)
    tokenizer = _tokenizer(folder, name, kind)
    return _model(folder, name, config, kind, dtype, report), tokenizer, kind


def open_outline(
    folder: Path, name: str, architecture: Architecture | str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Architecture]:
    """Return the model that a folder describes, without its weights, and its tokenizer.

    Raises UserError as :func:`open_folder` does, but for weights.
    """
    config = read_config(folder, name)
    kind = kind_of(folder, config, name, architecture)
    with torch.device("meta"), one_line_errors(name):
        model: PreTrainedModel = _loader(config, kind).from_config(
            config,
            trust_remote_code=False,
            dtype=torch.bfloat16,  # the products of experts have no other shape on meta
        )
    _drop_pooler(model, kind)
    model.config.pad_token_id = None  # by which models look whether a row holds padding
    return model.train(False), _tokenizer(folder, name, kind), kind


def kind_of(
    folder: Path, config: PreTrainedConfig, name: str, asked: Architecture | str
) -> Architecture:
    """Return the architecture of a folder's model: by its config, unless it was saved to pool.

    Raises UserError for one that is asked for, and that is unknown or none of the model's.
    """
    if asked == "auto":
        return "encoder" if is_sentence_encoder(folder) else architecture_of(config)
    check_architecture(asked)
    known = next(each for each in _TABLES if each == asked)
    if config.model_type not in _TABLES[known]:
        forms = [form for form, table in _TABLES.items() if config.model_type in table]
        raise UserError(
            f"cannot load {name!r} as {asked}: {with_article(config.model_type)} model has no "
            f"such form (it has: {', '.join(forms) or 'none that predicts tokens'})"
        )
    return known


def check_architecture(asked: str) -> None:
    """Raise UserError for what is neither "auto" nor an architecture."""
    if asked not in ("auto", *_TABLES):
        raise UserError(f"unknown architecture {asked!r}: {nearest(asked, ['auto', *_TABLES])}")


def _loader(config: PreTrainedConfig, kind: Architecture) -> Any:
    """Return what loads a model; one that was saved with a trained head is loaded with it."""
    saved = set(config.architectures or ()) if kind == "encoder" else set()
    if saved & _TAGGERS:
        return AutoModelForTokenClassification
    return AutoModelForSequenceClassification if saved & _CLASSIFIERS else _LOADERS[kind]


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Return the architecture of a model from its config.

    `is_encoder_decoder` decides first, then the saved class where only one of transformers' tables
    lists it, then the model type's table. A type that both the causal and the masked table list is
    an encoder that can be run as a decoder, and `is_decoder` says whether it is. What predicts no
    tokens is an "encoder".

    Raises:
        UserError: no table lists the model type as one that reads text.
    """
    if config.is_encoder_decoder:
        return "encoder-decoder"
    for saved in config.architectures or []:
        if saved in (*_CLASSIFIERS, *_TAGGERS):
            return "encoder"
        listed = [kind for kind, table in _TABLES.items() if saved in table.values()]
        decoder = listed == ["encoder"] and config.to_dict().get("is_decoder")
        if len(listed) == 1 and not decoder:
            return listed[0]
    causal, masked = (config.model_type in _TABLES[kind] for kind in ("causal", "masked"))
    if causal and masked:
        return "causal" if config.to_dict().get("is_decoder") else "masked"
    if causal or masked:
        return "causal" if causal else "masked"
    if config.model_type in _TABLES["encoder"] and hasattr(config, "vocab_size"):
        return "encoder"
    raise UserError(
        f"{with_article(config.model_type)} model reads no text; foreword needs a language "
        "model, such as smollm2, or an encoder of texts"
    )


def read_config(folder: Path, name: str) -> PreTrainedConfig:
    """Read a folder's config.

    Raises:
        UserError: there is none, or transformers' own code does not know its model type.
    """
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"cannot load {name!r}: it holds a PEFT adapter; name its base model")
    if not (folder / "config.json").is_file():
        files = sorted(each.name for each in folder.glob("*.gguf"))
        instead = f"; name the file in it, such as {folder / files[0]}" if files else ""
        raise UserError(
            f"cannot load {name!r}: it has no config.json, so it is no model folder{instead}"
        )
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = raw["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot load {name!r}: its config.json names no model_type") from error
    if kind not in CONFIG_MAPPING:
        why = "needs code of its own, which foreword never runs" if "auto_map" in raw else "unknown"
        raise UserError(
            f"cannot load {name!r}: its model type {kind!r} is not one of transformers' ({why})"
        )
    with one_line_errors(name):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    return config


def _tokenizer(folder: Path, name: str, kind: Architecture) -> PreTrainedTokenizerBase:
    missing = f"cannot load {name!r}: it has no tokenizer; save one beside the model"
    if not has_tokenizer(folder):
        raise UserError(missing)
    with one_line_errors(name), without_collection():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    _forget_copies(tokenizer)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes an empty one at need
        raise UserError(missing)
    if tokenizer.pad_token_id is None:
        # padding is masked wherever it stands, so any token will do, the least misleading first
        tokenizer.pad_token = (
            tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
        )
    if kind == "encoder" and lowers_text(folder):
        inner: Any = getattr(tokenizer, "backend_tokenizer", None)
        if inner is None:
            raise UserError(
                f"cannot load {name!r}: its texts are to be in lower case (`do_lower_case`), and "
                "its tokenizer is of a kind that cannot do so; leave that setting out"
            )
        steps = [Lowercase(), *([] if inner.normalizer is None else [inner.normalizer])]
        inner.normalizer = Sequence(steps)
    return tokenizer


def _forget_copies(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let go of the vocabulary that transformers keeps beside the tokenizer that it made of it.

    That is 155 MB for 262,144 pieces with their merges, and as much again stays with the C library.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return
    for name in ("_vocab", "_merges"):
        vars(tokenizer).pop(name, None)
    return_freed()


def _model(
    folder: Path,
    name: str,
    config: PreTrainedConfig,
    kind: Architecture,
    dtype: torch.dtype | Literal["auto"],
    report: Reporter,
) -> PreTrainedModel:
    if not has_weights(folder):
        raise UserError(
            f"cannot load {name!r}: it has no complete model.safetensors "
            "(pickled weights such as pytorch_model.bin are never read: they can run code)"
        )
    check_fits(name, stored_size(folder, dtype), str(dtype).removeprefix("torch."))
    opening = bars_to(report, f"opening {Path(name).name}")
    with opening, without_load_report(), one_line_errors(name):
        model, info = _loader(config, kind).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # judged below, with a line that says which
        )
    for key, found, expected in info["mismatched_keys"]:
        raise UserError(
            f"cannot load {name!r}: {key} is {list(found)} in the weights and {list(expected)} "
            "by its config.json"
        )
    missing = set(info["missing_keys"]) - _drop_pooler(model, kind)
    if missing:
        raise UserError(
            f"cannot load {name!r} as {kind}: its weights lack {first_of(missing)}; "
            "it was saved without them, so they would be random"
        )
    if info["unexpected_keys"]:
        unused = first_of(info["unexpected_keys"])
        print(f"note: {name!r} as {kind} leaves {unused} of its weights unused", file=sys.stderr)
    loaded: PreTrainedModel = model
    _align(loaded)
    return loaded


def _drop_pooler(model: PreTrainedModel, kind: Architecture) -> set[str]:
    """Take away a layer that an encoder's last states do not go through; return its weights' names.

    Many folders lack its weights.
    """
    pooler = getattr(model, "pooler", None)
    if (
        kind != "encoder"
        or model.base_model is not model
        or not isinstance(pooler, torch.nn.Module)
    ):
        return set()
    setattr(model, "pooler", None)  # noqa: B010  (declared as a module)
    return {f"pooler.{key}" for key, _ in pooler.named_parameters()}


def _align(model: PreTrainedModel) -> None:
    """Copy weights that are not aligned in memory, as those mapped from a file may be.

    Matrix products may round differently on them, so that one model in two files would differ.
    Input embeddings of which rows are only looked up stay in the file.
    """
    read: Any = getattr(model.get_input_embeddings(), "weight", None)
    written = getattr(output_embeddings(model), "weight", None)
    for tensor in (*model.parameters(), *model.buffers()):
        looked_up = tensor is read and read is not written
        if tensor.data_ptr() % (tensor.itemsize if looked_up else ALIGNMENT):
            mapped = tensor.data
            tensor.data = mapped.clone()
            let_go([(mapped.data_ptr(), mapped.nbytes)])


def first_of(keys: set[str]) -> str:
    """Return the first of some names and how many more there are."""
    first = sorted(keys)[0]
    return first if len(keys) == 1 else f"{first} and {len(keys) - 1} more"


def has_weights(folder: Path) -> bool:
    """Whether all shards of the safetensors are there."""
    names = weight_files(folder)
    return bool(names) and all((folder / name).is_file() for name in names)


def has_tokenizer(folder: Path) -> bool:
    """Whether any file of a tokenizer is there."""
    return any(True for pattern in _TOKENIZER_FILES for _ in folder.glob(pattern))
