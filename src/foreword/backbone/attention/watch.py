"""Watching: what share of its attention each query pays to a prompt.

Attention is linear in its values. Over values of 1 at the prompt and 0 elsewhere, the one attention
function gives just that share, whatever it does with masks, windows, soft caps and sinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Watch:
    """Hears what share of its attention each query of each module pays to the prompt.

    ``virtual`` gives, for a module, 1 for those of its keys' tokens that are of the prompt and 0
    for the others: (B, S). ``hear`` is called with each module and the shares: (B, T, Hq).
    """

    virtual: Callable[[nn.Module], Tensor]
    hear: Callable[[nn.Module, Tensor], None]

    def marks(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return values of 1 and 0 in the place of a module's own: (B, H, S, D')."""
        own = self.virtual(module).to(device=value.device, dtype=value.dtype)
        return own[:, None, :, None].expand(value.shape)
