"""The folder of a hub id: from the hub's local cache, or downloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import (
    hf_hub_download,
    model_info,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from foreword.backbone.load.folder import architecture_of, has_tokenizer, has_weights, read_config
from foreword.backbone.load.pooling import is_sentence_encoder, pooling_files
from foreword.errors import UserError

_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "*.spm", "model*.safetensors"]
_POOLING = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_SECONDS = 10.0  # to wait for the hub's first answer


def hub_folder(name: str, *, instead: str) -> Path:
    """Return a hub model's folder in the hub's cache, downloading it where it isn't there.

    Args:
        name: `org/name`, or one of the hub's few plain names.
        instead: what else the user can do, for the tail of an error line.

    Raises:
        UserError: the hub has no such model, gives no access, or cannot be reached.
    """
    tail = f"check the name, or {instead}"
    try:
        folder = _cached(name) or _download(name)
    except UserError:
        raise
    except HFValidationError as error:
        raise UserError(f"cannot load {name!r}: not a hub id ('org/name'); {tail}") from error
    except GatedRepoError as error:
        raise UserError(
            f"cannot load {name!r}: it is gated; accept its terms on the hub and `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"cannot load {name!r}: the hub has no such model; {tail}") from error
    except RemoteEntryNotFoundError as error:
        raise UserError(f"cannot load {name!r}: it has no config.json there; {tail}") from error
    except Exception as error:
        # the client lets its HTTP library's errors through (proxies, TLS), which share no base
        raise UserError(
            f"cannot load {name!r}: not in the local cache and the hub cannot be reached; {tail}"
        ) from error
    if not has_weights(folder):
        raise UserError(
            f"cannot load {name!r}: no whole model.safetensors in the local cache or on the hub "
            f"(pickled weights are never read); {tail}"
        )
    _complete(name, folder)
    return folder


def _cached(name: str) -> Path | None:
    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if has_weights(folder) and has_tokenizer(folder) else None


def _download(name: str) -> Path:
    model_info(name, timeout=_SECONDS)  # once, where a download retries long and loudly
    print(f"downloading {name!r} from the hub", file=sys.stderr, flush=True)
    # the small file first: a model that cannot be used is refused before its weights come
    architecture_of(read_config(Path(hf_hub_download(name, "config.json")).parent, name))
    return Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=["*/*"]))


def _complete(name: str, folder: Path) -> None:
    """Fetch what says how an encoder pools, which other programs leave out of the cache.

    What the hub does not have is noted in the cache, and not asked for again. Where it cannot be
    reached, stderr says so.
    """

    def unknown(path: str) -> bool:
        return try_to_load_from_cache(name, path, revision=folder.name) is None

    def fetch(paths: Iterable[str]) -> None:
        for path in filter(unknown, paths):
            with suppress(RemoteEntryNotFoundError):
                hf_hub_download(name, path, revision=folder.name)

    if not is_sentence_encoder(folder) and architecture_of(read_config(folder, name)) != "encoder":
        return
    if not any(map(unknown, (*_POOLING, *pooling_files(folder)))):
        return
    try:
        model_info(name, timeout=_SECONDS)
        fetch(_POOLING)
        fetch(pooling_files(folder))
    except Exception:  # of any kind, as where there is no net: the model opens all the same
        print(
            f"note: how {name!r} pools is not all in the local cache and cannot be fetched; "
            "`pooling` can say it",
            file=sys.stderr,
        )
