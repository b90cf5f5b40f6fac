"""Sharding: layers whose weights are spread over the processes of a run (FSDP2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard_layers(layers: Sequence[nn.Module], device: torch.device) -> None:
    """Leave each process a part of every layer's weights; they are gathered while a layer runs.

    Every process must run the same passes in the same order (PyTorch's fully_shard; Zhao et al.
    2023, arXiv:2304.11277).
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
