"""Embeddings: what a model reads in place of token ids, and how many positions it has for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.errors import UserError


class Embeddings:
    """The input embeddings of a model, as vectors that read as their ids do."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self.model, self.name = model, name

    def over(self, model: PreTrainedModel) -> Embeddings:
        """Return the embeddings of the same model under other weights."""
        made = Embeddings(model, self.name)
        if "scale" in self.__dict__:
            made.__dict__["scale"] = self.scale
        return made

    @property
    def weight(self) -> Tensor:
        """The table itself: (vocabulary, width)."""
        table = self.model.get_input_embeddings()
        if not isinstance(table, nn.Module) or not hasattr(table, "weight"):
            raise UserError(
                f"{type(self.model).__name__} has no table of token embeddings, and cannot be "
                "used; give another model"
            )
        return cast(Tensor, table.weight)

    def of(self, ids: Tensor) -> Tensor:
        """Return the embeddings of real tokens, where the model is: (...) -> (..., width)."""
        return cast(Tensor, self.model.get_input_embeddings()(ids)) * self.scale

    def beside(self, ids: Tensor, virtual: Tensor) -> dict[str, Tensor]:
        """Return what the model takes beside embeddings, those of ``virtual`` (...) being learned.

        Nothing, but where each layer reads something of a token's id (Gemma 3n and 4). There a
        virtual token is what such models take images for: padding.
        """
        look_up = self._per_layer
        if look_up is None:
            return {}
        config = self.model.config.get_text_config()
        return {"per_layer_inputs": look_up(ids.masked_fill(virtual, config.pad_token_id or 0))}

    @cached_property
    def _per_layer(self) -> Callable[[Tensor], Tensor] | None:
        """What looks up the inputs of all layers, (B, T) -> (B, T, layers, size); None without."""
        for module in self.model.base_model.modules():
            if getattr(module, "hidden_size_per_layer_input", None):
                return cast(
                    "Callable[[Tensor], Tensor] | None",
                    getattr(module, "get_per_layer_inputs", None),
                )
        return None

    @cached_property
    def scale(self) -> float:
        """What embeddings must be multiplied by to read as their ids do; Marian scales only ids."""
        two = self.model.config.is_encoder_decoder
        stack = cast(nn.Module, self.model.get_encoder() if two else self.model.base_model)
        ids = torch.tensor([[3, 4]], device=self.weight.device)
        with torch.no_grad(), suppress(TypeError, ValueError, AttributeError, NotImplementedError):
            embeds = self.model.get_input_embeddings()(ids)
            expected = stack(input_ids=ids).last_hidden_state
            beside = self.beside(ids, torch.zeros_like(ids, dtype=torch.bool))
            near = 1e-2 * float(expected.abs().max())
            for scale in (1.0, self.weight.shape[1] ** 0.5):
                found = stack(inputs_embeds=embeds * scale, **beside).last_hidden_state
                if torch.allclose(found, expected, rtol=0, atol=near):
                    return float(scale)
        raise UserError(
            f"{self.name} cannot take virtual tokens: it reads embeddings otherwise than ids; "
            "`method=prefix` may work on it"
        )


def positions_of(model: PreTrainedModel, vocabulary: int) -> int:
    """Return the number of positions that a model was made for.

    Where rotary frequencies are others in long texts (``longrope``), only as many as have the
    usual ones: else a row's result would depend on the rows beside it.
    """
    rotary = getattr(model.config, "rope_parameters", None) or {}
    usual = [  # of all layers, or by kind of layer
        int(each["original_max_position_embeddings"])
        for each in (rotary, *rotary.values())
        if isinstance(each, dict) and each.get("rope_type") == "longrope"
    ]
    return min([_table_size(model) - first_position(model, vocabulary), *usual])


def first_position(model: PreTrainedModel, vocabulary: int) -> int:
    """Return the position of a row's first token, which is not always 0.

    Some position tables, such as RoBERTa's, keep their first rows for padding.
    """
    made = _table_size(model)
    padded = [
        table.padding_idx + 1
        for table in model.modules()
        if isinstance(table, nn.Embedding)
        and table.padding_idx is not None
        and table.num_embeddings == made != vocabulary
    ]
    return max(padded, default=0)


def _table_size(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 1_000_000)
