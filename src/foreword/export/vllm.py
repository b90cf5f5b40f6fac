"""Prompts for vLLM: keys and values by layer, as the package in integrations/vllm serves them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, behind
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.export.base import NotVerified
from foreword.export.vllm_answer import answer_of, row_of
from foreword.files import write_whole
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Bound
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import fill_template
from foreword.tasks.templates.template import Demos, Field, VirtualTokens

KEY = "foreword-vllm"
FORMAT = 1
SUFFIX = ".safetensors"

PROBE = "The quick brown fox jumps over the lazy"
"""What the server reads under a prompt to see that it has the model that it was tuned on."""


@dataclass(frozen=True)
class VLLM:
    """A file for vLLM, which ``foreword-vllm`` serves."""

    suffix: ClassVar[str] = SUFFIX

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write a prompt as a file; raises UserError as :func:`to_vllm` does."""
        return to_vllm(prompt, path)

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> NotVerified:
        """Say that vLLM has an environment of its own, and tries the file there."""
        return NotVerified(
            "vLLM runs in an environment of its own; its server reads a few tokens under the "
            "prompt when it is first asked for, and refuses it where they are scored otherwise"
        )

    def notes(self, prompt: Prompt, rows: Sequence[Row]) -> Sequence[str]:
        """Say how long a row may be where a sliding window hides the prompt from longer ones."""
        backbone = prompt.bound.backbone
        if backbone.window is None or not prompt.injection.kv:
            return []
        room = backbone.window - _as_prefix(prompt.injection, prompt.bound)[0].positions
        return [
            f"{backbone.name} has a sliding window ({backbone.window}): the server refuses a row "
            f"that may have more than {room} tokens with its answer, since vLLM would hide the "
            "prompt from them, and Foreword does not"
        ]

    def opened(self, prompt: Prompt, path: Path) -> str:
        """Return the command that serves the folder of what was written."""
        return f"foreword-vllm MODEL --prompts {shlex.quote(str(path.parent))}"


def to_vllm(prompt: Prompt, path: str | Path) -> Path:
    """Write a prompt as one file for vLLM, whole or not at all, and return its path.

    ``layers.N.keys`` and ``layers.N.values`` are (P, H, D), float32, keys after the rotary
    embedding. Virtual tokens become keys and values here, with whatever stands before the last of
    them in the template. The metadata says how a row is laid out, and how its answer is read.

    Raises UserError for what vLLM cannot hold: changes of the model itself, a head, a prefix in
    some layers alone, and templates or answers that differ from row to row in ways that only
    Foreword knows.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: already exists; name a new file")
    bound = prompt.bound
    backbone = bound.backbone
    try:
        injection, rest = _as_prefix(prompt.injection, bound)
        layers = _layers(injection, backbone)
        size = injection.positions
        row = row_of(bound, rest, injection)
        answer = answer_of(bound)
    except ValueError as error:
        raise UserError(f"the prompt cannot be served from vLLM: {error}") from None
    tensors = {
        f"layers.{number}.{kind}": each.transpose(0, 1).contiguous()
        for number, own in enumerate(layers)
        for kind, each in zip(("keys", "values"), own, strict=True)
    }
    keys, values = layers[0]
    about = {
        "format": FORMAT,
        "sha256": digest(tensors),
        "positions": size,
        "model": {
            "name": backbone.name,
            "fingerprint": prompt.backbone["fingerprint"],
            "layers": len(layers),
            "heads": keys.shape[0],
            "key_width": keys.shape[2],
            "value_width": values.shape[2],
            "vocabulary": backbone.vocabulary,
            # Virtual tokens slide out of it in Foreword too.
            "window": backbone.window if prompt.injection.kv else None,
        },
        "task": name_of(prompt.task),
        "row": row,
        "answer": answer,
        "probe": _probe(backbone, injection),
    }
    text = json.dumps(about, ensure_ascii=False, sort_keys=True)
    return write_whole(path, save(tensors, metadata={KEY: text}))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, by name, shape and bytes, as 64 hex digits."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name}{tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def _as_prefix(injection: Injection, bound: Bound) -> tuple[Injection, tuple[Any, ...]]:
    """Return an injection of keys and values alone, and the parts of the template behind it.

    Raises ValueError with the reason for what cannot become them.
    """
    backbone = bound.backbone
    if backbone.architecture != "causal":
        raise ValueError(f"{backbone.name} is no causal model; serve it with `foreword serve`")
    if injection.head is not None:
        raise ValueError(
            "it holds a head over classes, which vLLM has no place for; tune one that scores label "
            "words, with `method=prefix`, or use `foreword export --to onnx`"
        )
    if injection.patches or injection.weights:
        raise ValueError(f"it changes the model itself{_by_itself(injection)}")
    parts = bound.template.parts
    last = max((n for n, part in enumerate(parts) if isinstance(part, VirtualTokens)), default=-1)
    before, rest = parts[: last + 1], parts[last + 1 :]
    if any(isinstance(part, Field | Demos) for part in before):
        raise ValueError("its template has virtual tokens behind a field, which differ by row")
    lead: tuple[int, ...] = ()
    if before:
        filled = fill_template(
            backbone,
            replace(bound.template, parts=before),
            {},
            room=10**9,
            side="right",
            where="the template",
        )
        lead = behind([Example(filled.ids, 0, (), (), (), filled.bos)], injection)[0].ids
    if not (injection.leading or lead):
        return injection, rest
    read = backbone.prefill(injection, lead, len(lead) + 1)
    if read is None:
        raise ValueError("the model cannot read on after keys and values that are stored")
    begins = injection.bos or int(bool(lead))  # a row behind text of the template begins no text
    return replace(read, embeds=None, leading=0, bos=begins), rest


def _by_itself(injection: Injection) -> str:
    """Say how vLLM serves a LoRA that stands alone; nothing of what PEFT's folders cannot hold."""
    patches = [each for own in injection.patches.values() for each in own]
    low = all(each.down is not None and each.activation == "identity" for each in patches)
    if not low or injection.weights or injection.kv or injection.embeds is not None:
        return ""
    return "; serve a LoRA with vLLM's own `--enable-lora`, from `--to peft`"


def _layers(injection: Injection, backbone: Backbone) -> list[tuple[Tensor, Tensor]]:
    """Return keys and values of all layers in order, (H, P, D); raises ValueError."""
    if not injection.kv:
        raise ValueError("it has no virtual tokens and no prefix")
    missing = [name for name in backbone.sites if name not in injection.kv]
    if missing:
        raise ValueError(
            f"its prefix stands in {len(injection.kv)} of {len(backbone.sites)} layers, and vLLM "
            "has one length for all; tune it with a prefix in every layer"
        )
    if backbone.window is not None and injection.positions >= backbone.window:
        raise ValueError(
            f"its {injection.positions} positions do not fit the sliding window of "
            f"{backbone.name} ({backbone.window}); tune one of fewer, with `length`"
        )
    own = [injection.kv[name] for name in backbone.sites]
    found = [(each.keys.detach().float().cpu(), each.values.detach().float().cpu()) for each in own]
    shapes = {(*keys.shape, values.shape[2]) for keys, values in found}
    if len(shapes) > 1 or found[0][0].shape[1] != injection.positions:
        raise ValueError("its layers have keys of different sizes, or at positions of their own")
    return found


def _probe(backbone: Backbone, injection: Injection) -> dict[str, Any]:
    """Return a few tokens, and how likely the model holds the likeliest one after them."""
    first = () if injection.bos else backbone.text.around[0]
    ids = (*first, *backbone.text.ids(PROBE))
    example = Example(ids, len(ids), ((),), ((0, -1),))
    ((_, logits),) = infer(backbone, injection, [example])
    scores = torch.log_softmax(logits[0].float(), 0)
    token = int(scores.argmax())
    return {"ids": list(ids), "token": token, "log_probability": float(scores[token])}
