"""LoRA: trained low-rank updates of a frozen model's linear layers, placed and started by peft."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedConfig

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, Example
from foreword.backbone.inside.views import output_embeddings, with_modules
from foreword.backbone.load.quiet import without_remarks
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.injection import Patch
from foreword.methods.base import Trainable
from foreword.methods.parts.patches import Patches
from foreword.tasks.base import Bound

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL = "all-linear"
INITS: Mapping[str, bool | str] = {
    "kaiming": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
}
"""How A and B may start, and peft's names for it."""
_REFUSED = {
    **dict.fromkeys(
        ("pissa", "olora", "loftq", "corda", "mica"),
        "it starts from the model's own weights or changes them, and these stay as they are",
    ),
    **dict.fromkeys(("eva", "lora_ga"), "it needs a pass over the data before the start"),
}


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2022, arXiv:2106.09685).

    A linear layer gives ``W x + s B A x`` with trained A (``rank``, in) and B (out, ``rank``);
    s is ``alpha`` / rank, or alpha / sqrt(rank) with ``rslora`` (Kalajdzievski 2023,
    arXiv:2312.03732). ``targets`` names the layers as peft matches them: whole names, or their
    last parts; "all-linear" is all but the output layer. ``init`` "kaiming" and "gaussian" start
    B at zero and so training at the model itself; "orthogonal" starts with random rows that are
    orthogonal to each other, which moves the model a little. ``gate`` weighs each update token
    by token (parts/patches.py). peft finds the layers and draws the start on a sketch of the model.
    Weights of experts that are no linear layers are left out, which peft itself may update.
    """

    rank: int = setting(8, help="rank of a LoRA update")
    alpha: float = setting(16.0, help="a LoRA update is multiplied by alpha / rank")
    rslora: bool = setting(False, help="multiply it by alpha / sqrt(rank) instead")
    targets: tuple[str, ...] = setting(
        (ALL,), help="linear layers to update, by the ends of their names; else all but the last"
    )
    init: str = setting("kaiming", help="how LoRA starts: kaiming, gaussian or orthogonal")
    gate: bool = setting(False, help="weigh each update by a trained gate")
    rate: float = setting(1e-3, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start A and B; raises UserError for a rank, a layer or a start that cannot be."""
        backbone = task.backbone
        self._check(backbone.model)
        library = _peft()
        config = library.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            use_rslora=self.rslora,
            target_modules=ALL if self.targets == (ALL,) else list(self.targets),
            exclude_modules=_unread(backbone) if self.targets == (ALL,) else None,
            init_lora_weights=INITS[self.init],
        )
        sketch = _sketch(backbone.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            library.inject_adapter_in_model(config, sketch)
        layers = {
            name: module
            for name, module in sketch.named_modules()
            if isinstance(module, library.tuners.lora.LoraLayer)
        }
        most = min(min(each.in_features, each.out_features) for each in layers.values())
        if self.rank > most:
            raise UserError(
                f"`rank={self.rank}`: give from 1 to {most}, the smallest size of a layer that "
                "it updates"
            )
        start = {
            name: Patch(
                down=each.lora_A["default"].weight.to(backbone.device),
                up=each.lora_B["default"].weight.to(backbone.device),
                reads=name,
            )
            for name, each in layers.items()
        }
        scale = next(iter(layers.values())).scaling["default"]
        return Patches(start, scale, self.gate)

    def _check(self, model: PreTrainedModel) -> None:
        if self.rank < 1:
            raise UserError(f"`rank={self.rank}`: give at least 1")
        if not 0 < self.alpha < 1e6:
            raise UserError(f"`alpha={self.alpha:g}`: give a number above 0 and below 1e6")
        if self.init in _REFUSED:
            raise UserError(f"`init={self.init}`: {_REFUSED[self.init]}; give {' or '.join(INITS)}")
        if self.init not in INITS:
            raise UserError(f"`init={self.init}`: unknown; {nearest(self.init, INITS)}")
        if self.init == "orthogonal" and self.rank % 2:
            raise UserError(f"`init=orthogonal` with `rank={self.rank}`: give an even rank")
        last = output_embeddings(model)
        names = [n for n, m in model.named_modules() if _linear(m) and m is not last]
        if not names:
            raise UserError(
                f"{type(model).__name__} has no linear layers that LoRA could update; "
                "`method=soft` works on it"
            )
        known = sorted({name.rpartition(".")[2] for name in names})
        if not self.targets:
            raise UserError(f"`targets`: name at least one layer, or {ALL}")
        for target in self.targets if self.targets != (ALL,) else ():
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise UserError(f"`targets={target}`: no such layer; {nearest(target, known)}")


def _unread(backbone: Backbone) -> list[str] | None:
    """Return an encoder's linear layers that its states do not hang on, such as a pooler's."""
    if not backbone.is_encoder:
        return None
    layers = {name: module for name, module in backbone.model.named_modules() if _linear(module)}
    marks = [torch.zeros((), requires_grad=True, device=backbone.device) for _ in layers]

    def marked(mark: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, inputs, output: output + mark

    hooks = [
        module.register_forward_hook(marked(mark))
        for module, mark in zip(layers.values(), marks, strict=True)
    ]
    try:
        with torch.enable_grad():
            states = backbone.states([Example((3, 1), 2, ((),), ((0, POOLED),))])
    finally:
        for hook in hooks:
            hook.remove()
    found = torch.autograd.grad(states.sum(), marks, allow_unused=True)
    return [name for name, own in zip(layers, found, strict=True) if own is None] or None


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def has_peft() -> bool:
    """Whether peft is installed, without which there is no LoRA."""
    return find_spec("peft") is not None


def _peft() -> ModuleType:
    try:
        with without_remarks():  # of bitsandbytes, where it is installed
            return importlib.import_module("peft")
    except ImportError:
        raise UserError("`method=lora` needs peft: pip install 'foreword[peft]'") from None


def _sketch(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the model's outline, whose linear layers have sizes and no weights.

    peft changes what it injects into; and on an outline it need not know of transposed or
    quantized weights.
    """
    made: dict[int, nn.Module] = {}

    def sketched(module: nn.Module) -> nn.Module:
        if id(module) not in made:
            if isinstance(module, Conv1D):
                made[id(module)] = _empty(module.nx, module.nf)
            elif isinstance(module, nn.Linear):
                made[id(module)] = _empty(module.in_features, module.out_features)
            else:
                children = {n: c and sketched(c) for n, c in module._modules.items()}
                made[id(module)] = with_modules(module, children)
        return made[id(module)]

    found: PreTrainedModel = sketched(model)  # type: ignore[assignment]
    found.config = PreTrainedConfig()  # else peft turns some names into those of experts' weights
    return found


def _empty(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer whose weight is one number in memory."""
    made = nn.Linear(inputs, outputs, bias=False, device="meta")
    made.weight = nn.Parameter(torch.zeros(()).expand(outputs, inputs), requires_grad=False)
    return made
