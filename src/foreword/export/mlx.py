"""Export: a prompt as a prompt cache of mlx_lm, in the layout of mlx_lm 0.32."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from foreword.backbone.load.sources import folder_of
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.base import NotVerified, Verified
from foreword.export.beside import Reader, compare
from foreword.export.past_window import past_window
from foreword.export.peft import base_of
from foreword.export.prefix import Prefix, prefix_of
from foreword.files import write_whole
from foreword.prompt.prompt import Prompt

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Mlx:
    """A ``.safetensors`` file that ``mlx_lm``'s ``load_prompt_cache`` reads."""

    suffix: ClassVar[str] = ".safetensors"

    mlx_dtype: Literal["float32", "float16", "bfloat16"] = setting(
        "float32", help="type of the keys and values, best that of the model there", common=True
    )

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write the file; raises UserError for what keys and values cannot hold."""
        if path.exists():
            raise UserError(f"{path}: already exists; name a new file")
        prefix = _prefix(prompt)
        tensors, about = layout(prefix, base_of(prompt), DTYPES[self.mlx_dtype])
        return write_whole(path, save(tensors, metadata=about))

    def opened(self, prompt: Prompt, path: Path) -> str:
        """Return the line that loads what was written."""
        return f"cache = mlx_lm.models.cache.load_prompt_cache({str(path)!r})"

    def notes(self, prompt: Prompt, rows: Sequence[Row]) -> Sequence[str]:
        """Say from where on a sliding window hides the prompt there."""
        said = past_window(prompt, _prefix(prompt), rows)
        return [] if said is None else [said]

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> Verified | NotVerified:
        """Answer rows there with the model that the prompt names."""
        try:
            mlx_lm: Any = importlib.import_module("mlx_lm")
        except ImportError:
            return NotVerified("mlx_lm is not installed; `pip install mlx-lm`")
        runtime = f"mlx_lm {version('mlx-lm')}"
        try:
            model = folder_of(prompt.bound.backbone.name)
        except UserError as error:
            return NotVerified(str(error))
        try:
            reader = MlxReader(mlx_lm, model, path)
        except Exception as error:  # what a library that knows another layout raises is not known
            said = str(error).splitlines() or [type(error).__name__]
            return NotVerified(f"{runtime} does not load it ({said[0]}); it is written for 0.32")
        return compare(prompt, rows, reader, runtime)


def _prefix(prompt: Prompt) -> Prefix:
    return prefix_of(prompt, "mlx_lm", "merge it into the model's weights, and convert these")


def layout(
    prefix: Prefix, model: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a prompt cache.

    Of each layer L there are ``L.0``, keys of shape (1, H, n, D), ``L.1``, values, and numbers. A
    layer of a sliding window has a cache that keeps no more than that.
    """
    tensors: dict[str, Tensor] = {}
    about = {"0.model": model, "0.tokenizer_config": "{}", "2.0": ""}
    scalars = 1
    for layer, (site, kv) in enumerate(zip(prefix.sites, prefix.layers, strict=True)):
        tensors[f"{layer}.0"] = kv.keys[None].to(dtype).contiguous()
        tensors[f"{layer}.1"] = kv.values[None].to(dtype).contiguous()
        numbers = [prefix.length]  # offset
        if site.window is not None:
            numbers += [0, site.window, prefix.length]  # keep, max_size, where the next one goes
        about[f"1.{layer}"] = "KVCache" if site.window is None else "RotatingKVCache"
        for place, number in enumerate(numbers, 2):
            tensors[f"{layer}.{place}"] = torch.tensor(number, dtype=torch.int32)
            about |= {f"2.{scalars}.0": f"{layer}.{place}", f"2.{scalars}.1": "scalar"}
            scalars += 1
    return tensors, about


def rotary_settings(model: Path) -> dict[str, Any]:
    """Return what a folder that transformers 5 wrote says of positions, by the older names.

    mlx_lm reads these alone, and takes 10,000 for a base that it does not find.
    """
    rotary = json.loads((model / "config.json").read_text("utf-8")).get("rope_parameters") or {}
    if "rope_theta" not in rotary:
        return {}
    scaled = rotary.get("rope_type", "default") != "default"
    return {"rope_theta": rotary["rope_theta"], **({"rope_scaling": rotary} if scaled else {})}


class MlxReader(Reader):
    """A model of mlx_lm with a prompt cache."""

    def __init__(self, mlx_lm: Any, model: Path, path: Path) -> None:
        super().__init__()
        self._mx: Any = importlib.import_module("mlx.core")
        self._caches: Any = importlib.import_module("mlx_lm.models.cache")
        self._path = str(path)
        self._cache = self._caches.load_prompt_cache(self._path)
        self._model = mlx_lm.load(str(model), model_config=rotary_settings(model))[0]
        self._held = 0  # tokens behind the prompt

    def forget(self, kept: int) -> None:
        """Trim the cache; one that has gone round its window is loaded anew."""
        if kept == self._held:
            return
        if self._caches.can_trim_prompt_cache(self._cache):
            self._caches.trim_prompt_cache(self._cache, self._held - kept)
            self._held = kept
            return
        self._cache = self._caches.load_prompt_cache(self._path)
        self._held = 0
        if kept:
            self.go_on(self._read[:kept])

    def go_on(self, ids: list[int]) -> Tensor:
        """Read on, and return the scores of the next token."""
        scores = self._model(self._mx.array([ids]), cache=self._cache)[0, -1]
        self._held += len(ids)
        return torch.tensor(scores.astype(self._mx.float32).tolist())
