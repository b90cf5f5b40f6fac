"""The connector: writes a prompt's keys and values where vLLM looks for those of its tokens."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
)
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)
from vllm.logger import init_logger

from foreword_vllm.bodies import PARAMETER
from foreword_vllm.errors import PromptError
from foreword_vllm.folder import kept
from foreword_vllm.prefix import Array, read_prefix

MEMORY = 2**30
"""Bytes of prefixes that a worker holds by default, those that were used last."""

logger = init_logger("vllm.foreword")  # vLLM shows the loggers below its own name


@dataclass(frozen=True)
class Load:
    """Positions ``start`` to ``stop`` of a prefix, and the blocks of the request by group."""

    sha256: str
    start: int
    stop: int
    blocks: tuple[list[int], ...]


@dataclass
class Loads(KVConnectorMetadata):  # type: ignore[misc]
    """What the workers load before a step."""

    loads: list[Load] = field(default_factory=list)


class ForewordConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """Gives requests whose first tokens stand for a prefix the keys and values of that prefix.

    Its scheduler side never raises. A prefix that a worker cannot load fails the requests for it,
    and nothing else.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        extra = self._kv_transfer_config.kv_connector_extra_config
        self.folder = Path(extra["prompts"])
        self.memory = int(extra.get("memory", MEMORY))
        self.groups = kv_cache_config.kv_cache_groups
        self._waiting: list[Load] = []
        self._failed: set[int] = set()
        self._held: OrderedDict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = OrderedDict()

    # In the scheduler ----------------------------------------------------------------------------

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """Return how many positions of the request's prefix are not in the cache yet."""
        named = _named(request)
        return (0 if named is None else max(0, named[1] - num_computed_tokens)), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note what is to be loaded, and into which blocks."""
        named = _named(request)
        if named is not None and num_external_tokens > 0:
            sha256, size = named
            ids = tuple(list(own) for own in blocks.get_block_ids())
            self._waiting.append(Load(sha256, size - num_external_tokens, size, ids))

    def build_connector_meta(self, scheduler_output: Any) -> Loads:
        """Return what is to be loaded before this step."""
        waiting, self._waiting = self._waiting, []
        return Loads(waiting)

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Keep nothing of a request that has ended."""
        return False, None

    # In a worker ---------------------------------------------------------------------------------

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Write all prefixes that begin in this step, layer by layer."""
        loads = self._get_connector_metadata().loads
        if not loads:
            return
        layers = {
            name: layer
            for name, layer in forward_context.no_compile_layers.items()
            if getattr(layer, "kv_cache", None) is not None and hasattr(layer, "impl")
        }
        ready = []
        for load in loads:
            try:
                ready.append((load, self._prefix(load.sha256, layers)))
            except (PromptError, RuntimeError) as error:
                logger.error("prefix %s: %s", load.sha256[:12], error)
                self._fail(load)
        for number, group in enumerate(self.groups) if ready else ():
            size = group.kv_cache_spec.block_size
            slots = torch.cat([_slots(load, number, size) for load, _ in ready])
            for name in group.layer_names:
                if name not in layers:
                    continue
                layer = layers[name]
                pairs = [
                    (own[name][0][load.start : load.stop], own[name][1][load.start : load.stop])
                    for load, own in ready
                ]
                keys, values = (torch.cat(each) for each in zip(*pairs, strict=True))
                layer.impl.do_kv_cache_update(
                    layer, keys, values, layer.kv_cache, slots.to(keys.device)
                )

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks whose prefix could not be loaded: their requests end in an error."""
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Return at once: what begins in a step is written before it."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Save nothing."""

    def wait_for_save(self) -> None:
        """Return at once."""

    def _fail(self, load: Load) -> None:
        for number, group in enumerate(self.groups):
            size = group.kv_cache_spec.block_size
            self._failed.update(load.blocks[number][load.start // size : -(-load.stop // size)])

    def _prefix(
        self, sha256: str, layers: Mapping[str, Any]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return a prefix by layer, (positions, heads of this worker, width), on its device."""
        if sha256 in self._held:
            self._held.move_to_end(sha256)
            return self._held[sha256]
        read, tensors = read_prefix(kept(self.folder, sha256))
        if read.sha256 != sha256:
            raise PromptError("is another one than its name says")
        dtype = self._vllm_config.model_config.dtype
        made = {name: _of_layer(name, layer, tensors, dtype) for name, layer in layers.items()}
        self._held[sha256] = made
        while len(self._held) > 1 and sum(map(_bytes, self._held.values())) > self.memory:
            self._held.popitem(last=False)
        return made


def _named(request: Any) -> tuple[str, int] | None:
    """Return the prefix that a request names, and how long it is; None where it names none."""
    named = (request.kv_transfer_params or {}).get(PARAMETER)
    if not isinstance(named, dict):
        return None
    sha256, size = named.get("sha256"), named.get("positions")
    whole = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    if not whole or type(size) is not int or not 0 < size < request.num_tokens:
        return None
    return str(sha256), size


def _slots(load: Load, group: int, size: int) -> torch.Tensor:
    """Return where in the cache each position of a load goes: (positions,)."""
    at = torch.arange(load.start, load.stop)
    blocks = torch.tensor(load.blocks[group][: -(-load.stop // size)])
    return blocks[at // size] * size + at % size


def _of_layer(
    name: str, layer: Any, tensors: Mapping[str, Array], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values of a layer for the heads that this worker has."""
    number = re.search(r"\.(\d+)\.", name)
    at = f"layers.{number[1] if number else 0}"
    if f"{at}.keys" not in tensors:
        raise PromptError(f"has nothing for '{name}'; the model has other layers")
    found = []
    for kind, width in (("keys", layer.head_size), ("values", layer.head_size_v)):
        whole = torch.from_numpy(tensors[f"{at}.{kind}"])
        heads = _heads(whole.shape[1], layer.num_kv_heads)
        if whole.shape[2] != width or heads.stop > whole.shape[1]:
            raise PromptError(f"is {tuple(whole.shape)} for '{name}', which has other sizes")
        found.append(whole[:, heads].to(layer.kv_cache.device, dtype).contiguous())
    return found[0], found[1]


def _heads(total: int, own: int) -> slice:
    """Return which of a layer's heads this worker has; where workers are more, some share one."""
    rank, ranks = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
    first = rank * own if own * ranks == total else rank * total // ranks
    return slice(first, first + own)


def _bytes(prefix: Mapping[str, Iterable[torch.Tensor]]) -> int:
    return sum(tensor.nbytes for pair in prefix.values() for tensor in pair)
