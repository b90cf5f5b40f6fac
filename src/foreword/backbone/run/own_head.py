"""A model's own head: what its folder was trained to say of a text, apart from its last layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.inside.agreement import agree
from foreword.backbone.inside.views import Given, with_modules
from foreword.backbone.load.pooling import PoolingMode
from foreword.errors import UserError
from foreword.injection import ClassHead


@dataclass(frozen=True, eq=False)
class OwnHead:
    """The last linear layer of a text classifier, its labels, and how it pools.

    What stands between the pooled state and that layer, such as a dense layer, is part of what
    the encoder gives (:func:`features`). ``several`` says that a text may have any number of the
    labels, and that they are scored apart; ``tokens`` that each token is labelled, by its state.
    """

    head: ClassHead
    labels: tuple[str, ...]
    mode: PoolingMode
    path: str
    several: bool
    tokens: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it gives one number, and no labels."""
        return len(self.labels) < 2

    def scores(
        self, labels: Sequence[Sequence[str]], name: str, none: str | None, *, words: bool
    ) -> ClassHead:
        """Return the head for the labels of a task, each by its names, in their order.

        ``none`` is the label that stands for no label; ``words`` says that words are labelled.
        Raises UserError where they are others.
        """
        if self.tokens != words:
            fitting = "task=tag" if self.tokens else "task=classify"
            raise UserError(f"the trained head of {name} is of `{fitting}`; train one with `head`")
        if self.is_number:
            raise UserError(
                f"the trained head of {name} gives one number; use `task=score` with "
                "`regression=true`, or train a head of its own with a method that ends in `+head`"
            )
        if self.several != (none is not None):
            fitting = "task=multilabel" if self.several else "task=classify"
            raise UserError(f"the trained head of {name} is of `{fitting}`; train one with `head`")
        rows = []
        for names in labels:
            if none is not None and none in names:
                rows.append(-1)
                continue
            found = sorted({self.labels.index(each) for each in names if each in self.labels})
            if len(found) != 1:
                raise UserError(
                    f"{name} has a trained head for {', '.join(self.labels)}, and the task has the "
                    f"label {names[0]}; name its label as a word (`labels={names[0]}=...`), or "
                    "train a head of its own with a method that ends in `+head`"
                )
            rows.append(found[0])
        width = self.head.weight.shape[1]
        weight = torch.cat([self.head.weight, self.head.weight.new_zeros(1, width)])
        bias = torch.cat([self.head.bias, self.head.bias.new_zeros(1)])
        return ClassHead(weight[rows], bias[rows])


@torch.no_grad()
def find_own_head(model: PreTrainedModel, name: str) -> OwnHead | None:
    """Find a model's own head by running it once; None for a base model alone.

    Raises UserError for a head that is not a pooled state, some layers, and a linear one.
    """
    if model.base_model is model:
        return None
    base = {id(module) for module in model.base_model.modules()}
    layers = [
        (path, module)
        for path, module in model.named_modules()
        if type(module) is nn.Linear and id(module) not in base
    ]
    ids = torch.tensor([[3, 4, 5, 6]], device=model.device)
    config: Any = model.config
    labels = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if config.problem_type == "regression" and len(labels) > 1:
        raise UserError(
            f"cannot load {name!r}: its trained head gives {len(labels)} numbers, which no task "
            "reads; foreword runs heads that score labels, or give one number"
        )
    states, scores = model.base_model(input_ids=ids).last_hidden_state[0], model(ids).logits[0]
    by_token = scores.dim() == 2
    pooled: dict[PoolingMode, Tensor]
    pooled = {"cls": states[0], "last": states[-1], "mean": states.mean(0)}
    for path, layer in reversed(layers):
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        if by_token:
            fits = weight.shape[1] == states.shape[1] and len(weight) == scores.shape[1]
            if fits and agree(states @ weight.T + bias, scores):
                return OwnHead(ClassHead(weight, bias), labels, "last", path, False, tokens=True)
            continue
        for mode, state in pooled.items():
            found = features(model, path, state[None])
            if found.shape[1] == weight.shape[1] and agree(found[0] @ weight.T + bias, scores):
                several = config.problem_type == "multi_label_classification"
                return OwnHead(ClassHead(weight, bias), labels, mode, path, several)
    raise UserError(
        f"cannot load {name!r}: foreword cannot run the trained head of {type(model).__name__} "
        "apart from its model; save the model without it (`model.base_model.save_pretrained`)"
    )


def check_pooling(head: OwnHead | None, asked: str, name: str) -> None:
    """Raise UserError for a pooling that is asked for beside a head that was trained on another."""
    if head is not None and not head.tokens and asked not in ("auto", head.mode):
        raise UserError(
            f"`pooling={asked}`: the trained head of {name!r} reads `{head.mode}`; leave it out"
        )


def features(model: PreTrainedModel, path: str, pooled: Tensor) -> Tensor:
    """Run what stands between pooled states and the last layer: (N, width) -> (N, features).

    The model's own code runs on rows of one token, whose state is the pooled one.
    """
    states, base = pooled[:, None], model.base_model
    kind = type(base(input_ids=torch.tensor([[3, 4]], device=model.device)))
    answer = kind(last_hidden_state=states)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        answer["pooler_output"] = _through(base, pooler, states)
    view = _replaced(model, path.split("."), nn.Identity())
    view._modules[model.base_model_prefix] = Given(base, answer)
    view.config = copy.copy(model.config)
    view.config.pad_token_id = 0
    ones = torch.ones(len(pooled), 1, dtype=torch.long, device=pooled.device)
    made: Tensor = view(input_ids=3 * ones, attention_mask=ones).logits
    return made


def _through(base: nn.Module, pooler: nn.Module, states: Tensor) -> Tensor:
    """Run a base model's pooler; some are a bare layer, whose activation stands beside it."""
    if not isinstance(pooler, nn.Linear):
        made: Tensor = pooler(states)
        return made
    activation: Any = base.pooler_activation
    active: Tensor = activation(pooler(states[:, 0]))
    return active


def _replaced(module: Any, path: Sequence[str], instead: nn.Module) -> Any:
    """Return a view of a module with another one at a path."""
    first, *rest = path
    inner = instead if not rest else _replaced(module.get_submodule(first), rest, instead)
    return with_modules(module, {**module._modules, first: inner})
