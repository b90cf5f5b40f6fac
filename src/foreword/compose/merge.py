"""Merging: one prompt out of several, made of their tensors alone; no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from foreword.compose.together import check_together, check_weights, equal_weights
from foreword.errors import UserError
from foreword.injection import Injection, Patch, in_turn
from foreword.prompt.prompt import Prompt
from foreword.prompt.schema import LARGE


def concatenate(prompts: Sequence[Prompt]) -> Prompt:
    """Concatenate prompts; the result has the first one's task.

    Leading virtual tokens follow one another, and so do the keys and values of each module. The
    keys of every part keep the positions that they were tuned at, from 0 up, and rows begin after
    the longest part: parts of equal length keep their distance from the row. Eyuboglu et al. 2025
    (arXiv:2506.06266) concatenate cartridges so, without training. Patches are added up
    (``Injection.joined``).

    Raises UserError for different backbones or kinds of task, for virtual tokens inside a
    template, and where two parts hold something of which there can be only one.
    """
    check_together(prompts)
    for number, prompt in enumerate(prompts, 1):
        embeds = prompt.injection.embeds
        if embeds is not None and prompt.injection.leading < len(embeds):
            raise UserError(
                f"prompt {number} has virtual tokens inside its template; only those in front of a "
                "row can follow one another: use `how=ensemble`"
            )
    _check_heads(prompts)
    return _as_prompt(prompts, reduce(_append, (prompt.injection for prompt in prompts)), "concat")


def _append(one: Injection, other: Injection) -> Injection:
    """Return both in one, the virtual tokens, keys and values of ``other`` last."""
    try:
        changed = _changes(one).joined(_changes(other))
    except ValueError as error:
        raise UserError(
            f"two of the prompts bring {error}, of which there can be only one; use `how=average` "
            "or ensemble"
        ) from None
    embeds = [each for each in (one.embeds, other.embeds) if each is not None]
    return replace(
        changed,
        embeds=torch.cat(embeds) if embeds else None,
        leading=one.leading + other.leading,
        kv=in_turn(one.kv, other.kv),
        positions=max(one.positions, other.positions),
        bos=one.bos or other.bos,
    )


def _changes(injection: Injection) -> Injection:
    """Return what changes the model itself, without what rows read."""
    return Injection(patches=injection.patches, weights=injection.weights, head=injection.head)


def average(prompts: Sequence[Prompt], weights: Sequence[float] | None = None) -> Prompt:
    """Return the weighted mean of prompts, ``sum_i w_i P_i``, with the first one's task.

    Virtual tokens, keys and values, weights and heads are averaged number by number. A patch is
    averaged as a function, so that shapes may differ: what reads a
    module's input stands beside the others with its ``up`` times its weight; adapters that read
    a module's output become one whose bottleneck holds all of theirs; vectors that rescale the
    same states become their mean.

    Raises UserError for weights that are negative or do not add up to 1, and for prompts that
    differ in what they hold, or in its shapes.
    """
    check_together(prompts)
    given = equal_weights(len(prompts)) if weights is None else weights
    used = check_weights(given, len(prompts))
    parts = [prompt.injection for prompt in prompts]
    tables = [_numbers(part) for part in parts]
    for number, (part, table) in enumerate(zip(parts[1:], tables[1:], strict=True), 2):
        _check_alike(number, table, tables[0])
        if (part.leading, part.positions) != (parts[0].leading, parts[0].positions):
            raise UserError(
                f"prompt {number} has {part.leading} leading virtual tokens and {part.positions} "
                f"positions, and prompt 1 {parts[0].leading} and {parts[0].positions}; average "
                "prompts of one length, or use `how=ensemble`"
            )
        if part.bos != parts[0].bos:
            began, other = (number, 1) if part.bos else (1, number)
            raise UserError(
                f"prompt {began} begins with the tokenizer's first tokens, so that its rows go "
                f"without them, and prompt {other} does not; use `how=ensemble`"
            )
    _check_heads(prompts)
    means = {
        name: torch.stack([w * table[name] for w, table in zip(used, tables, strict=True)]).sum(0)
        for name in tables[0]
    }
    plain = Injection.from_tensors(means, replace(parts[0], patches={}).settings())
    return _as_prompt(prompts, replace(plain, patches=_patches(parts, used)), "average", used)


def _numbers(injection: Injection) -> dict[str, Tensor]:
    """Return the tensors that are averaged number by number: all but those of patches."""
    return dict(replace(injection, patches={}).tensors())


def _check_alike(number: int, table: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> None:
    for name in {**first, **table}:
        if name not in table or name not in first:
            lacking = (1, number) if name in table else (number, 1)
            raise UserError(
                f"prompt {lacking[1]} has '{name}', which prompt {lacking[0]} lacks; average "
                "prompts of one method and the same layers, or use `how=ensemble`"
            )
        if table[name].shape != first[name].shape:
            raise UserError(
                f"'{name}' has shape {tuple(first[name].shape)} in prompt 1 and "
                f"{tuple(table[name].shape)} in prompt {number}; average prompts of one length, or "
                "use `how=concat` or ensemble"
            )


def _check_heads(prompts: Sequence[Prompt]) -> None:
    """Raise UserError where a head scores other classes than the first prompt's task has."""
    first = prompts[0].task.class_names
    for number, prompt in enumerate(prompts, 1):
        own = prompt.task.class_names
        if prompt.injection.head is not None and own != first:
            raise UserError(
                f"the head of prompt {number} scores {', '.join(own)}, and the task of prompt 1 "
                f"has {', '.join(first)}; heads need the same classes"
            )


def _patches(parts: Sequence[Injection], weights: Sequence[float]) -> dict[str, tuple[Patch, ...]]:
    """Return patches that add ``sum_i w_i f_i(x)`` to each module's output."""
    made: dict[str, tuple[Patch, ...]] = {}
    for module in dict.fromkeys(name for part in parts for name in part.patches):
        averaged: list[Patch] = []
        for side in ("input", "output"):
            held = [
                [patch for patch in part.patches.get(module, ()) if patch.adds_to == side]
                for part in parts
            ]
            pairs = zip(weights, held, strict=True)
            scaled = [_scale(patch, weight) for weight, own in pairs for patch in own if weight]
            if any(patch.reads is None for patch in scaled):
                scaled = [_average_block(module, scaled, max(map(len, held)))]
            averaged += scaled
        if averaged:
            made[module] = tuple(averaged)
    return made


def _scale(patch: Patch, weight: float) -> Patch:
    bias = patch.up_bias
    return replace(patch, up=weight * patch.up, up_bias=None if bias is None else weight * bias)


def _average_block(module: str, patches: Sequence[Patch], most: int) -> Patch:
    """Return one patch that adds what all of them add to the states that each of them reads.

    One after the other they would read what the ones before have added.
    """
    if len(patches) == 1:
        return patches[0]
    alike = {(patch.activation, patch.reads, patch.down is None) for patch in patches}
    if most > 1 or len(alike) > 1 or any(patch.gate is not None for patch in patches):
        raise UserError(
            f"the adapters behind '{module}' have no exact average, for their gates, different "
            "activations, or patches beside them; use `how=ensemble`"
        )
    downs = [patch.down for patch in patches if patch.down is not None]
    if not downs:
        return replace(patches[0], up=torch.stack([patch.up for patch in patches]).sum(0))
    pairs = zip(patches, downs, strict=True)
    biases = [
        (_or(p.down_bias, down.new_zeros(len(down))), _or(p.up_bias, p.up.new_zeros(len(p.up))))
        for p, down in pairs
    ]
    return replace(
        patches[0],
        down=torch.cat(downs),
        up=torch.cat([patch.up for patch in patches], 1),
        down_bias=torch.cat([down for down, _ in biases]),
        up_bias=torch.stack([up for _, up in biases]).sum(0),
    )


def _or(tensor: Tensor | None, otherwise: Tensor) -> Tensor:
    return otherwise if tensor is None else tensor


def _as_prompt(
    prompts: Sequence[Prompt],
    injection: Injection,
    how: str,
    weights: Sequence[float] | None = None,
) -> Prompt:
    """Return an injection as a prompt, with a record of the prompts it is composed of."""
    first = prompts[0]
    about: dict[str, Any] = {"name": how, "parts": [dict(prompt.method) for prompt in prompts]}
    if weights is not None:
        about["weights"] = list(weights)
    data: dict[str, Any] = {
        "parts": [{k: v for k, v in p.data.items() if k not in LARGE} for p in prompts]
    }
    kept = ("demonstrations", "no_texts")
    data |= {name: first.data[name] for name in kept if name in first.data}
    return Prompt(
        injection=injection.map(lambda tensor: tensor.clone()),
        task=first.task,
        backbone=first.backbone,
        method=about,
        data=data,
        versions=first.versions,
        on=first.on,
    )
