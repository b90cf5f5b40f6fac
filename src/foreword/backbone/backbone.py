"""Backbone: a frozen model with its tokenizer. It runs examples under injections."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.example import Example
from foreword.backbone.inside.views import frozen_view, of_unchanged
from foreword.backbone.load.fingerprint import fingerprint
from foreword.backbone.load.folder import open_outline
from foreword.backbone.load.pooling import Pooling
from foreword.backbone.load.quantize import check_kind
from foreword.backbone.load.quantize import quantize as quantize_model
from foreword.backbone.load.sources import Architecture, folder_of, open_source, pooling_of
from foreword.backbone.run import examples as run
from foreword.backbone.run import probes
from foreword.backbone.run.gradient_checkpointing import recompute_layers
from foreword.backbone.run.layers import WHOLE, LayerRange, no_compiler
from foreword.backbone.run.network import Network, pooling_for, sees_the_past_alone
from foreword.backbone.run.own_head import check_pooling, find_own_head
from foreword.backbone.run.sharding import shard_layers
from foreword.backbone.tokenizer import NoEmbeddingError, Text
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture
from foreword.reporter import SILENT, Reporter


class Backbone(Network):
    """A frozen model with its tokenizer and its fingerprint, which runs examples.

    Weights never change: parameters ask for no gradient, and dropout is off. ``model`` itself
    stays as it was, in its mode and its attention too: the backbone runs a view of it that
    shares its weights. With ``in_place`` it sets up ``model`` and keeps no other, so that
    layers which are quantized are freed. See :class:`Network` for what it knows of the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        architecture: Architecture,
        name: str,
        pooling: Pooling | None = None,
        quantized: str | None = None,
        in_place: bool = False,
    ) -> None:
        model = model.train(False).requires_grad_(False) if in_place else frozen_view(model)
        if quantized is not None:
            if architecture == "encoder":
                own = find_own_head(model, name)
                pooling = pooling_for(pooling, causal=sees_the_past_alone(model), own=own)
            self.pooling = pooling
            self.fingerprint = self._hash(model, tokenizer)  # of the weights as they were
            self.fingerprint_in_half = self._hash(model, tokenizer, torch.float16)
            quantize_model(model, quantized, own=in_place)
        self.quantized = quantized
        self.sharded = False
        self.unchanged: Backbone | None = None  # the frozen model, where this is a view of it
        super().__init__(
            model, architecture=architecture, name=name, pad=tokenizer.pad_token_id, pooling=pooling
        )
        self.text = Text(tokenizer, self.vocabulary)

    @staticmethod
    def load(
        name: str = "smollm2",
        *,
        architecture: Architecture | str = "auto",
        pooling: str = "auto",
        dtype: str = "auto",
        device: str = "auto",
        quantize: str | None = None,
        report: Reporter = SILENT,
    ) -> Backbone:
        """Open the packaged model (``smollm2``), a folder, a ``.gguf`` file or a hub id.

        ``architecture`` "encoder" opens any model of one stack without what predicts tokens; its
        ``pooling`` is "mean", "weightedmean", "cls", "last" or "auto": as its folder says.
        ``quantize`` "bfloat16", "int8" or "int4" shrinks its linear layers once they are loaded;
        prompts tuned on either form may be used on the other, as with ``dtype``. ``report`` shows a
        bar while the weights are read.

        Raises UserError where there is no such model, or it is of no supported kind.
        """
        if quantize is not None:
            check_kind(quantize)
        source = open_source(
            name,
            architecture=architecture,
            pooling=pooling,
            dtype=dtype,
            device=device,
            report=report,
        )
        made = Backbone(
            source.model,
            source.tokenizer,
            architecture=source.architecture,
            name=source.name,
            pooling=source.pooling,
            quantized=quantize,
            in_place=True,
        )
        check_pooling(made.own_head, pooling, name)
        return made

    @staticmethod
    def outline(
        name: str = "smollm2", *, architecture: str = "auto", pooling: str = "auto"
    ) -> Backbone:
        """Open a model without its weights: its tokenizer, and what its configuration says.

        Rows can be laid out on it, and not run. A model whose code needs numbers to look at is
        opened whole. Raises UserError as :meth:`load` does.
        """
        folder = folder_of(name)
        model, tokenizer, kind = open_outline(folder, name, architecture)
        how: Any = {"architecture": kind, "pooling": pooling_of(folder, name, kind, pooling)}
        try:
            return Backbone(model, tokenizer, name=name, in_place=True, **how)
        except (RuntimeError, NotImplementedError):  # its code asks for numbers
            return Backbone.load(name, architecture=architecture, pooling=pooling, device="cpu")

    def __repr__(self) -> str:
        numbers = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Backbone({self.name}, {self.architecture}, {numbers / 1e6:.3g}M numbers)"

    def __deepcopy__(self, memo: object) -> Backbone:
        """Return the backbone itself, whose weights never change."""
        return self

    @of_unchanged
    def fingerprint(self) -> str:
        """A hash of the configuration, the tokenizer and sampled weights."""
        return self._hash(self.model, self.text.tokenizer)

    @of_unchanged
    def fingerprint_in_half(self) -> str:
        """The hash that these weights have in float16, which rounds otherwise."""
        return self._hash(self.model, self.text.tokenizer, torch.float16)

    @cached_property
    def fingerprints_of_file(self) -> tuple[str, str]:
        """Both hashes of the weights as the model's own file has them, which is read again."""
        source = open_source(self.name, architecture=self.architecture, device="cpu")
        held = source.model, source.tokenizer
        return self._hash(*held), self._hash(*held, torch.float16)

    def _hash(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        through: torch.dtype = torch.float32,
    ) -> str:
        """Return the fingerprint of a model and of how its states are pooled."""
        pooled = None if self.pooling is None else (self.pooling.mode, self.pooling.normalize)
        return fingerprint(model, tokenizer, through, pooled)

    def has_fingerprint(self, wanted: str) -> bool:
        """Whether this is the model with a fingerprint, in whatever dtype that was taken."""
        if wanted == self.fingerprint or wanted == self.fingerprint_in_half:  # each takes a while
            return True
        if self.dtype == torch.float32:
            return False
        try:
            return wanted in self.fingerprints_of_file
        except UserError:  # it did not come from a file
            return False

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end what the model writes, each once; empty where nothing does.

        The tokenizer's end of text, the end of a turn in its chat template, and all that the
        model's ``generation_config`` names.
        """
        known = getattr(self.model, "generation_config", None)
        named = getattr(known, "eos_token_id", None)
        own = [self.text.tokenizer.eos_token_id]
        with suppress(NoEmbeddingError):  # which the model cannot write
            own += self.text.turn_end[-1:]
        own += named if isinstance(named, list | tuple) else [named]
        ends = dict.fromkeys(int(end) for end in own if end is not None)
        return tuple(end for end in ends if 0 <= end < self.vocabulary)

    @property
    def state_width(self) -> int:
        """The size of a last hidden state; some models have embeddings of another width."""
        self.check_runs()
        return int(self._first_run.width)

    # How the model runs ----------------------------------------------------------------------

    def with_changes(self, injection: Injection | Mixture) -> Backbone:
        """Return the backbone as an injection's patches, weights and head change it.

        Itself where the injection changes nothing; else a view that shares all that stays the
        same. The parts of a mixture must change it alike (:meth:`Mixture.groups_by_change`).

        Raises UserError for changes of another model, and for a model spread over processes.
        """
        part = injection.parts[0] if isinstance(injection, Mixture) else injection
        if next(part.changes(), None) is None:
            return self
        if self.sharded:
            raise UserError("`shard`: layers that are spread cannot be changed; leave it out")
        self.check_runs()
        view = self.changed_by(part)
        view.unchanged = self.unchanged or self
        if part.patches or part.weights:
            view.compilable = "what is tuned stands inside the layers"
        return view

    def checkpointing(self, on: bool) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations.

        Dropout stays off. Raises UserError for a model whose layers cannot do it.
        """
        recompute_layers(self.model, on)

    @cached_property
    def compilable(self) -> str | None:
        """Why layers cannot be compiled here; None where they can."""
        if self.sharded:
            return "the model is spread over processes"
        if self.stack is None or not self.can_pack:
            return f"{type(self.model).__name__} has no list of layers that can run packed"
        return no_compiler(self.device)

    def compiling(self, on: bool) -> None:
        """Run layers compiled where gradients are wanted, or as they are again."""
        if self.stack is not None:
            self.stack.compile(on)

    def shard(self) -> None:
        """Spread the layers' weights over the processes of this run, for a model too large for one.

        From then on all of them must run the same rows, in step. Raises UserError for a model
        whose layers do not stand in a list, or are quantized.
        """
        if self.stack is None or self.quantized or self.has_two_stacks:
            why = "is quantized" if self.quantized else "has no one list of layers to spread"
            raise UserError(f"`shard`: {type(self.model).__name__} {why}; leave out one of the two")
        _ = self.fingerprint, self._first_run, self.can_pad  # of the whole weights
        shard_layers(self.stack.layers, self.device)
        self.sharded = True

    # Running ---------------------------------------------------------------------------------

    def states(
        self,
        examples: Sequence[Example],
        injection: Injection | Mixture = NOTHING,
        lead: int = 0,
        layers: LayerRange = WHOLE,
    ) -> Tensor:
        """Run examples and return the last hidden states at their targets: (N, width).

        Targets come in the order of the examples and of each one's ``targets``. The first
        ``lead`` tokens, which all examples must share, are run once where that is exact. A row
        without any other beside it is run without trying whether rows can be packed.

        Raises UserError for a model that does not run as others of its architecture.
        """
        self.check_runs()
        if not self.can_pad:
            return run.one_by_one(self, examples, injection)
        alone = len(examples) == 1 and len(examples[0].branches) == 1 and layers is WHOLE
        pack = not (alone and not lead and not torch.is_grad_enabled()) and self.can_pack
        return run.states(self, examples, injection, lead, layers, pack=pack)

    def lower_states(
        self, examples: Sequence[Example], injection: Injection, lead: int, layer: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers below ``layer`` and return what enters it, on the CPU.

        The states of the first ``lead`` tokens, (lead, width), which all examples share; and of
        each example's others, (tokens, width). A lead that cannot be run apart is empty, and each
        example has its own. The layers are those of :attr:`stack`.
        """
        below = LayerRange(last=layer)
        return run.lower_states(self, examples, injection, lead, below, pack=self.can_pack)

    def kv(self, ids: Sequence[int], injection: Injection = NOTHING) -> dict[str, KV]:
        """Return what every attention site holds after reading ``ids`` under ``injection``.

        Encoder-decoders read the ids in both stacks. The keys of prefixes that ``injection``
        brings are not among the result. Keeps the graph where gradients are on.
        """
        return run.keys_and_values(self, ids, injection)

    def prefill(self, injection: Injection, lead: Sequence[int], longest: int) -> Injection | None:
        """Read leading virtual tokens and ``lead`` once, and return them as keys and values.

        Under the returned injection a row without ``lead`` scores as it did with it. None where
        that would not hold: ``can_prefill`` is false, or the longest row (``longest`` tokens with
        its lead) reaches beyond a sliding window. Keeps the graph where gradients are on.
        """
        if not self.fits_window(longest + injection.leading) or not self.can_prefill:
            return None
        return run.prefill(self, injection, lead)

    def check_runs(self) -> None:
        """Raise UserError for a model that does not run as others of its architecture."""
        if (why := self._first_run.why_not) is not None:
            raise UserError(
                f"{type(self.model).__name__} is run otherwise than other {self.architecture} "
                f"models, and cannot be used ({why}); give another model"
            )

    @of_unchanged
    def _first_run(self) -> probes.FirstRun:
        return probes.first_run(self)

    @of_unchanged
    def can_pad(self) -> bool:
        """Whether the states of a row are the same beside rows of other lengths."""
        return probes.can_pad(self)

    @of_unchanged
    def can_decode_together(self) -> bool:
        """Whether rows of several lengths are continued in one batch as they are alone."""
        if self.has_two_stacks:
            return bool(self.can_pad)
        return bool(self.can_pack) or probes.can_pad_left(self)

    # Savings that are exact for this model ---------------------------------------------------

    @of_unchanged
    def can_prefill(self) -> bool:
        """Whether reading on after stored keys and values equals reading everything."""
        return probes.can_prefill(self, pack=self.can_pack)

    @of_unchanged
    def can_pack(self) -> bool:
        """Whether rows may lie end to end in one row of tokens, separated by attention alone."""
        self.check_runs()
        return probes.can_pack(self)

    def can_skip_lower_layers(self, longest: int) -> bool:
        """Whether upper layers may run on stored states of rows of up to ``longest`` tokens."""
        if self.stack is None or len(self.stack.layers) < 2 or self.sharded or not self.can_pad:
            return False
        return self._can_split and (not self.is_causal or self.fits_window(longest))

    @cached_property
    def _can_split(self) -> bool:
        """Whether running below a layer and then above it equals running whole."""
        return probes.can_split(self, pack=self.can_pack)
