"""A prompt as keys and values of every layer, for programs that take these and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import Site
from foreword.errors import UserError
from foreword.injection import KV
from foreword.prompt.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Prefix:
    """What the layers of a model see before a row, layer by layer, as float32 on the CPU.

    Keys stand after the rotary embedding, the first at position 0; rows start at ``length``.
    """

    backbone: Backbone
    sites: Sequence[Site]
    layers: Sequence[KV]  # keys (H, length, D) and values (H, length, D')

    @property
    def length(self) -> int:
        """The number of positions."""
        return self.layers[0].keys.shape[1]


@torch.no_grad()
def prefix_of(prompt: Prompt, program: str, instead: str) -> Prefix:
    """Return a prompt as a prefix of a causal model; virtual tokens are read by the model once.

    ``instead`` says what to do with a prompt that changes the model itself.

    Raises UserError for what keys and values of every layer cannot hold, and for a prefix that
    does not fit the model's sliding window.
    """

    def cannot(reason: str) -> UserError:
        return UserError(f"the prompt cannot go to {program}: {reason}")

    injection = prompt.injection
    if injection.patches or injection.weights:
        raise cannot(f"it changes the model itself; {instead}")
    if injection.head is not None:
        raise cannot(
            "it holds a head over classes, which scores states that the program does not give; "
            "tune one that scores label words, with `method=prefix`, or use "
            "`foreword export --to onnx`"
        )
    if prompt.backbone["architecture"] != "causal":
        raise cannot(f"its model is of the kind {prompt.backbone['architecture']}, not causal")
    backbone = prompt.bound.backbone
    if injection.embeds is not None:
        if len(injection.embeds) > injection.leading:
            raise cannot("its template places virtual tokens inside a row; tune it without [soft]")
        read = backbone.prefill(injection, (), 0)
        if read is None:
            raise cannot(
                f"its {injection.leading} virtual tokens cannot be read ahead on {backbone.name}"
            )
        injection = read
    if not injection.kv:
        raise cannot("nothing in it stands before a row")
    sites = backbone.need_sites(("self",))
    if any(site.recurrent for site in sites):
        raise cannot(f"{backbone.name} has layers without keys and values")
    if missing := [site for site in sites if site.name not in injection.kv]:
        raise cannot(
            f"it acts on {len(sites) - len(missing)} of {len(sites)} layers, and there a prefix "
            "acts on every one; tune it with `first_layer=0`, and without `upper`"
        )
    layers = [injection.kv[site.name] for site in sites]
    if backbone.window is not None and injection.positions >= backbone.window:
        raise cannot(
            f"its {injection.positions} positions do not fit the sliding window of "
            f"{backbone.name} ({backbone.window}), which hides them there and not in Foreword; "
            f"tune one of fewer, with `length`, or use `foreword export --to onnx`"
        )
    if sizes := {kv.keys.shape[1] for kv in layers} - {injection.positions}:
        raise cannot(
            f"it takes up {injection.positions} positions with {min(sizes)} keys, and there each "
            "key has one of its own"
        )
    plain = injection.map(lambda tensor: tensor.detach().to("cpu", torch.float32))
    return Prefix(backbone, sites, [plain.kv[site.name] for site in sites])
