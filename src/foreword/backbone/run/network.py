"""Network: a frozen model and what was found in it. The code that runs a model takes one of these.

It knows no tokenizer and no way to run examples; :class:`~foreword.backbone.backbone.Backbone`
adds both.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.inside.attention_sites import Role, Site, find_sites
from foreword.backbone.inside.layer_parts import LayerPart, find_layer_parts
from foreword.backbone.inside.patched import patch_model
from foreword.backbone.inside.views import output_embeddings
from foreword.backbone.load.pooling import Pooling
from foreword.backbone.load.sources import Architecture
from foreword.backbone.run.embeddings import Embeddings, first_position, positions_of
from foreword.backbone.run.layers import Stack
from foreword.backbone.run.lm_head import LMHead
from foreword.backbone.run.own_head import OwnHead, features, find_own_head
from foreword.backbone.run.prefixes import prefixes_for
from foreword.errors import UserError
from foreword.injection import ClassHead, Injection, Mixture


class Network:
    """A frozen model with its attention sites, its layers, its embeddings and its LM head.

    ``is_causal`` says whether each token sees those before it alone.

    ``architecture`` is "causal", "masked", "encoder-decoder" or "encoder", which predicts no tokens
    and has ``pooling``, how its states become one, and ``own_head`` if it was saved with one.
    ``vocabulary`` is the number of rows of the input embedding, ``width`` their size, ``pad`` the
    token that rows are padded with. ``head`` scores classes in place of the vocabulary, and
    ``changed`` says that the model runs under an injection's changes (:meth:`changed_by`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        architecture: Architecture,
        name: str,
        pad: int | None,
        pooling: Pooling | None = None,
    ) -> None:
        self.model = model
        self.architecture = architecture
        self.name = name
        self.sites, self._why_no_sites = find_sites(model)
        self.is_causal = architecture == "causal" or (
            architecture == "encoder" and sees_the_past_alone(model)
        )
        for site in self.sites.values():
            if site.role == "self" and (self.is_causal or self.has_two_stacks):
                module: Any = site.module
                module.is_causal = True  # attention goes by it; PEGASUS-X leaves it to the mask
        self.own_head = find_own_head(model, name) if architecture == "encoder" else None
        self.pooling: Pooling | None = None
        if architecture == "encoder":
            self.pooling = pooling_for(pooling, causal=self.is_causal, own=self.own_head)
        self.head: ClassHead | None = None
        self.changed = False
        self._lm_head = LMHead(model)
        self._embeddings = Embeddings(model, name)
        self.vocabulary: int = self._embeddings.weight.shape[0]
        self.width: int = self._embeddings.weight.shape[1]
        # Right padding needs no mask on a causal model; the pad token would make some warn of that.
        pad = pad if pad is not None and 0 <= pad < self.vocabulary else 0
        self.pad = (pad + 1) % self.vocabulary if self.is_causal else pad

    # What the model is -----------------------------------------------------------------------

    @property
    def fills_masks(self) -> bool:
        """Whether it predicts the token that a mask stands for."""
        return self.architecture == "masked"

    @property
    def has_two_stacks(self) -> bool:
        """Whether an encoder reads the text, and a decoder the answer."""
        return self.architecture == "encoder-decoder"

    @property
    def can_generate(self) -> bool:
        """Whether it can continue a text token by token."""
        return not (self.fills_masks or self.is_encoder)

    @property
    def is_encoder(self) -> bool:
        """Whether it predicts no tokens, and gives states alone."""
        return self.architecture == "encoder"

    @property
    def device(self) -> torch.device:
        """The device that the model's inputs must be on."""
        return self._embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that the model computes in."""
        return self._embeddings.weight.dtype

    @cached_property
    def scored(self) -> int:
        """The number of tokens that the model has scores for."""
        weight = getattr(output_embeddings(self.model), "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            return self.vocabulary
        return int(weight.shape[0])

    @property
    def longest(self) -> int:
        """The number of positions that the model was trained for."""
        positions = positions_of(self.model, self.vocabulary)
        trained = None if self.pooling is None else self.pooling.longest
        return positions if trained is None else min(positions, trained)

    @cached_property
    def first_position(self) -> int:
        """The position of a row's first token where nothing stands before it."""
        return first_position(self.model, self.vocabulary)

    @cached_property
    def accepted(self) -> set[str]:
        """The arguments that the model's forward names."""
        return set(inspect.signature(self.model.base_model.forward).parameters)

    @property
    def positions_follow_prefix(self) -> bool:
        """Whether a row's tokens are numbered from where a prefix before them ends."""
        return self.is_causal and "position_ids" in self.accepted

    @cached_property
    def stack(self) -> Stack | None:
        """The layers as a list, those of the encoder where there are two; None without a list."""
        two = self.has_two_stacks
        base = cast(nn.Module, self.model.get_encoder() if two else self.model.base_model)
        own = {n: s for n, s in self.sites.items() if s.role == ("encoder" if two else "self")}
        return Stack.find(base, own)

    @cached_property
    def layer_parts(self) -> tuple[LayerPart, ...]:
        """Where the attention and the feed-forward part of each layer end."""
        return find_layer_parts(self.model, self.sites)

    @cached_property
    def window(self) -> int | None:
        """The shortest sliding window among the sites, None where all attention is full."""
        return min((s.window for s in self.sites.values() if s.window is not None), default=None)

    def fits_window(self, length: int) -> bool:
        """Whether rows of this length may be cut up: attention is reached, and sees them whole."""
        if not self.is_causal or not self.sites:
            return False
        return self.window is None or length <= self.window

    def need_sites(self, roles: Sequence[Role] = ("self", "encoder", "cross")) -> list[Site]:
        """Return the attention sites of these roles; raises UserError where there are none."""
        found = [site for site in self.sites.values() if site.role in roles]
        if not found:
            raise UserError(
                f"{type(self.model).__name__} cannot take a prefix: {self._why_no_sites}; "
                "`method=soft` works on it"
            )
        return found

    def changed_by(self, injection: Injection) -> Self:
        """Return a view of the network under an injection's patches, weights and head.

        The view shares all that stays the same. Raises UserError for changes of another model.
        """
        view = copy.copy(self)
        view.changed, view.head = True, injection.head
        if injection.patches or injection.weights:
            view.model = patch_model(self.model, injection)
            modules = dict(view.model.named_modules())
            view.sites = {n: replace(s, module=modules[n]) for n, s in self.sites.items()}
            view._lm_head = self._lm_head.over(view.model)
            view._embeddings = self._embeddings.over(view.model)
            view.__dict__.pop("stack", None)
        return view

    # What a pass takes and gives -------------------------------------------------------------

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the input embeddings of real tokens, on the device: (...) -> (..., width)."""
        if not isinstance(ids, Tensor):
            ids = torch.tensor(list(ids), device=self.device)
        return self._embeddings.of(ids)

    def beside(self, ids: Tensor, virtual: Tensor) -> dict[str, Tensor]:
        """Return what the model takes beside the embeddings of ids, some of them ``virtual``."""
        return self._embeddings.beside(ids, virtual)

    def pass_context(self, mixture: Mixture) -> tuple[PassContext, list[int]]:
        """Gather a mixture for the attention function; return it and each row's first position."""
        for part in mixture.parts:
            assert self.changed or next(part.changes(), None) is None, "run it with with_changes()"
        context = prefixes_for(self.sites, mixture, self.device, self.dtype)
        first = self.first_position
        return context, [first + mixture.parts[row].positions for row in mixture.rows]

    def to_device(self, tensor: Tensor) -> Tensor:
        """Bring a tensor from the CPU to the model, on a GPU without waiting for it."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def features(self, pooled: Tensor) -> Tensor:
        """Return an encoder's pooled states as it gives them, of length 1 where it does so.

        Those of a text classifier are what its own last layer reads.
        """
        assert self.pooling is not None
        if self.own_head is not None and not self.own_head.tokens:
            pooled = features(self.model, self.own_head.path, pooled)
        return F.normalize(pooled, dim=-1) if self.pooling.normalize else pooled

    def logits(self, states: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        """Return the scores of vocabulary tokens: (N, width) -> (N, tokens), all for None.

        Under an injection with a head they are those of its classes: (N, C). An encoder has no
        scores of its own, and gives the states themselves: (N, width).
        """
        if self.head is not None:
            return self.head.scores(states)
        if self.is_encoder:
            return states
        if tokens is not None:
            self.check_scored(tokens)
        return self._lm_head.scores(states, tokens)

    def check_scored(self, tokens: Iterable[int]) -> None:
        """Raise UserError for the id of a token that the model can read and not write."""
        if (last := max(tokens, default=0)) >= self.scored:
            raise UserError(
                f"token {last} is beyond the {self.scored} that {self.name} has scores for; an "
                "answer or a label cannot be of it"
            )

    def lm_head_inputs(self, states: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the LM head's inputs and its weight matrix: (N, inner), (vocabulary, inner).

        None for a model whose scores are no product of the two.
        """
        return self._lm_head.inputs(states)


@torch.no_grad()
def sees_the_past_alone(model: PreTrainedModel) -> bool:
    """Try whether a token's state is the same whatever follows it."""
    ids = torch.tensor([[3, 4, 5], [3, 4, 6]], device=model.device)
    first, second = model.base_model(input_ids=ids).last_hidden_state[:, 0]
    return bool(torch.equal(first, second))


def pooling_for(given: Pooling | None, *, causal: bool, own: OwnHead | None) -> Pooling:
    """Return how an encoder pools: for its own head; else as given; else by what has seen all."""
    pooling = given or Pooling()
    if own is not None and not own.tokens:
        return replace(pooling, mode=own.mode)
    if pooling.mode is not None:
        return pooling
    return replace(pooling, mode="last" if causal else "mean")
