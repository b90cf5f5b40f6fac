"""Gathering: the injections of a batch as what one forward pass carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.attention.masked import Prefixes
from foreword.backbone.inside.attention_sites import Site
from foreword.errors import UserError
from foreword.injection import KV, Mixture


def prefixes_for(
    sites: Mapping[str, Site], mixture: Mixture, device: torch.device, dtype: torch.dtype
) -> PassContext:
    """Gather the keys and values of a mixture, site by site, where the model is.

    Prefixes of different lengths are padded and masked; a single part is not copied, whatever
    the number of rows. Raises UserError for a part made for sites that the model has not.
    """
    kv: dict[nn.Module, Prefixes] = {}
    for name in dict.fromkeys(name for part in mixture.parts for name in part.kv):
        if name not in sites:
            raise UserError(
                f"the model has no attention module '{name}' that takes a prefix; the prompt was "
                "made for another model"
            )
        site = sites[name]
        none = KV(
            torch.zeros(site.heads, 0, site.key_width), torch.zeros(site.heads, 0, site.value_width)
        )
        parts = [part.kv.get(name, none) for part in mixture.parts]
        kv[site.module] = _stack(
            [KV(part.keys.to(device, dtype), part.values.to(device, dtype)) for part in parts]
        )
    if len(mixture.parts) == 1:
        return PassContext(kv)
    return PassContext(kv, torch.tensor(list(mixture.rows), device=device))


def _stack(parts: Sequence[KV]) -> Prefixes:
    if len(parts) == 1:
        return Prefixes(parts[0].keys[None], parts[0].values[None], None)
    sizes = [part.keys.shape[1] for part in parts]
    keys = pad_sequence([part.keys.transpose(0, 1) for part in parts], batch_first=True)
    values = pad_sequence([part.values.transpose(0, 1) for part in parts], batch_first=True)
    visible = None
    if len(set(sizes)) > 1:
        place = torch.arange(keys.shape[1], device=keys.device)
        visible = place[None] < torch.tensor(sizes, device=keys.device)[:, None]
    return Prefixes(keys.transpose(1, 2), values.transpose(1, 2), visible)
