"""Prompts to and from PEFT adapter folders, in the layout of PEFT 0.21 and without PEFT itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import name_in_transformers
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.past_window import past_window
from foreword.export.peft_folder import read_bos, read_config, write_adapter
from foreword.export.peft_ia3 import ia3_from_peft, ia3_to_peft
from foreword.export.peft_lora import lora_from_peft, lora_to_peft
from foreword.export.peft_prompt import (
    TASK_TYPES,
    prefix_from_peft,
    prefix_to_peft,
    soft_from_peft,
    soft_to_peft,
)
from foreword.export.prefix import prefix_of
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task

AUTO = {
    "causal": "AutoPeftModelForCausalLM",
    "masked": "AutoPeftModelForFeatureExtraction",
    "encoder-decoder": "AutoPeftModelForSeq2SeqLM",
    "encoder": "AutoPeftModelForFeatureExtraction",
}
"""PEFT's class that opens an adapter and the model that it names, by architecture."""

Write = Callable[[Prompt, Injection, str], tuple[dict[str, Any], dict[str, Tensor]]]
Read = Callable[[Path, Mapping[str, Any], Backbone, Task], Injection]


@dataclass(frozen=True)
class Layout:
    """How PEFT lays out what one kind of injection holds.

    ``kinds`` are PEFT's types that are read; the first ``written`` of them can be written.
    ``write`` returns settings and tensors, and raises ValueError with the reason for what PEFT
    cannot represent.
    """

    called: str
    kinds: tuple[str, ...]
    written: int
    write: Write
    read: Read


LAYOUTS = {
    "soft": Layout(
        "virtual tokens", ("PROMPT_TUNING", "P_TUNING"), 1, soft_to_peft, soft_from_peft
    ),
    "prefix": Layout(
        "a prefix", ("PREFIX_TUNING", "CARTRIDGE"), 2, prefix_to_peft, prefix_from_peft
    ),
    "lora": Layout("low-rank updates", ("LORA",), 1, lora_to_peft, lora_from_peft),
    "ia3": Layout("rescaled states", ("IA3",), 1, ia3_to_peft, ia3_from_peft),
}
"""By the name of the method that an imported prompt is said to be of."""


@dataclass(frozen=True)
class Peft:
    """PEFT's adapter folders, as an export format."""

    suffix: ClassVar[str] = ""

    kind: str | None = setting(
        None,
        help="PEFT's type for a prefix: PREFIX_TUNING, the default, or CARTRIDGE",
        common=True,
        values=("PREFIX_TUNING", "CARTRIDGE"),
    )

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write a prompt as a folder; raises UserError as :func:`to_peft` does."""
        return to_peft(_in_hand(prompt), path, kind=self.kind)

    def opened(self, prompt: Prompt, path: Path) -> str:
        """Return the line of Python that opens what was written."""
        kind = AUTO[prompt.backbone["architecture"]]
        return f"model = peft.{kind}.from_pretrained({str(path)!r})"

    def notes(self, prompt: Prompt, rows: Sequence[Row]) -> Sequence[str]:
        """Say from where on a sliding window hides a prefix there, where its model is at hand."""
        prompt, said = _in_hand(prompt), None
        if prompt.on is not None and prompt.injection.kv:
            said = past_window(prompt, prefix_of(prompt, "PEFT", "export it as an adapter"), rows)
        if said is None:
            return ["no rows are tried: no window hides the prompt in PEFT"] if rows else []
        return [said]

    def read(self, path: Path, backbone: Backbone, task: Task) -> Prompt:
        """Read a folder as a prompt; raises UserError as :func:`from_peft` does."""
        return from_peft(path, backbone, task)


def _in_hand(prompt: Prompt) -> Prompt:
    """Return a prefix with the model that it was tuned on, where that is here; others as given."""
    causal = prompt.backbone["architecture"] == "causal"
    if prompt.on is None and prompt.injection.kv and causal:
        with suppress(UserError):
            return replace(prompt, on=prompt.bound.backbone)
    return prompt


def to_peft(prompt: Prompt, folder: str | Path, *, kind: str | None = None) -> Path:
    """Write a prompt as a PEFT adapter folder, whole or not at all, and return the folder.

    Leading virtual tokens become PROMPT_TUNING: ``prompt_embeddings`` (n, width). The prefix of a
    causal model becomes PREFIX_TUNING, or CARTRIDGE where ``kind`` says so: ``prompt_embeddings``
    (n, 2 L H D) in the order K_0, V_0, K_1, V_1 ..., keys after the rotary embedding. With a
    backbone in hand its layers are compared; without, the numbers in the names of the attention
    modules tell the layers. Low-rank updates become LORA, rescaled states IA3. The base model is
    named as transformers opens it: of the packaged one that is its hub id. Behind a prompt that
    begins with the tokenizer's first tokens (``Injection.bos``) PEFT's rows must go without them:
    ``tokenizer(text, add_special_tokens=False)``.

    Raises UserError for what PEFT cannot represent exactly, and where the folder holds something.
    """
    injection = prompt.injection.map(lambda tensor: tensor.detach().to("cpu", torch.float32))
    layout = _layout(injection)
    able = layout.kinds[: layout.written]
    if kind is not None and kind not in able:
        raise UserError(f"kind '{kind}': this prompt can become {' or '.join(able)}")
    written = kind or able[0]
    try:
        own, tensors = layout.write(prompt, injection, written)
    except ValueError as error:
        raise _cannot(str(error)) from None
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": base_of(prompt),
        "inference_mode": True,
        "modules_to_save": None,
        "peft_type": written,
        "peft_version": None,  # PEFT did not write this; on reading it fills in its own
        "revision": None,
        "task_type": TASK_TYPES[prompt.backbone["architecture"]][0],
        **own,
    }
    return write_adapter(Path(folder), config, tensors, injection.bos)


def base_of(prompt: Prompt) -> str:
    """Return the model that an adapter names, as transformers opens it."""
    return name_in_transformers(prompt.backbone["name"] if prompt.on is None else prompt.on.name)


def _layout(injection: Injection) -> Layout:
    """Return the one layout that an injection's parts have; raises UserError for several."""
    if injection.weights:
        raise _cannot("it holds all weights of the model")
    if injection.head is not None:
        raise _cannot(
            "it holds a head over classes, which PEFT would look for in the model; tune one that "
            "scores label words, with `method=prefix`, or use `foreword export --to onnx`"
        )
    patches = [patch for own in injection.patches.values() for patch in own]
    parts = {
        "soft": injection.embeds is not None,
        "prefix": bool(injection.kv),
        "lora": any(patch.down is not None for patch in patches),
        "ia3": any(patch.down is None for patch in patches),
    }
    held = [LAYOUTS[name] for name, there in parts.items() if there]
    if len(held) > 1:
        names = " and ".join(layout.called for layout in held)
        raise _cannot(f"it has {names}, and an adapter holds one of the two")
    return held[0] if held else LAYOUTS["soft"]


def _cannot(reason: str) -> UserError:
    return UserError(f"the prompt cannot become a PEFT adapter: {reason}")


def from_peft(folder: str | Path, backbone: Backbone, task: Task) -> Prompt:
    """Read a PEFT adapter folder as a prompt for ``task``, on ``backbone``.

    Reads PROMPT_TUNING, P_TUNING, PREFIX_TUNING, CARTRIDGE, LORA and IA3. PEFT saves what encoders
    and projections of prompts made, so that those need nothing but one tensor. The prompt answers
    as the adapter does; the folder does not tell whether ``backbone`` has the weights of the model
    it was trained on, only names and sizes are compared.

    Raises UserError for other kinds, for a missing, damaged or unfit file, and for what
    Foreword would run differently.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = config.get("peft_type")
    method = next((name for name, layout in LAYOUTS.items() if kind in layout.kinds), None)
    if method is None:
        known = ", ".join(known for layout in LAYOUTS.values() for known in layout.kinds)
        raise UserError(f"{folder}: is a PEFT adapter of type {kind}; {known} can be imported")
    version = config.get("peft_version")
    injection = LAYOUTS[method].read(folder, config, backbone, task)
    return Prompt(
        injection=replace(injection, bos=read_bos(folder)),
        task=task,
        backbone={
            "name": backbone.name,
            "architecture": backbone.architecture,
            "fingerprint": backbone.fingerprint,
        },
        method={
            "name": method,
            "imported_from": f"peft {kind}",
            "base_model": config.get("base_model_name_or_path"),
        },
        versions={"peft": str(version)} if version else {},
        on=backbone,
    )
