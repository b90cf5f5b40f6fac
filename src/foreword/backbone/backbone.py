"""Backbone: a frozen model that runs examples under injections. Nothing else runs a model."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.example import Batch, Example, Line, batch
from foreword.backbone.inside.attention_sites import Role, Site, find_sites
from foreword.backbone.inside.layer_parts import LayerPart, find_layer_parts
from foreword.backbone.inside.patched import patch_model
from foreword.backbone.load.fingerprint import fingerprint
from foreword.backbone.load.quantize import check_kind
from foreword.backbone.load.quantize import quantize as quantize_model
from foreword.backbone.load.sources import Architecture, open_source
from foreword.backbone.run import encoder_decoder, probes, single_stack
from foreword.backbone.run.embeddings import Embeddings, positions_of
from foreword.backbone.run.gradient_checkpointing import recompute_layers
from foreword.backbone.run.inputs import virtual
from foreword.backbone.run.layers import WHOLE, LayerRange, Stack, no_compiler
from foreword.backbone.run.lm_head import Scores
from foreword.backbone.run.prefixes import prefixes_for
from foreword.backbone.run.sharding import shard_layers
from foreword.backbone.tokenizer import Text
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, ClassHead, Injection, Mixture, in_turn


class Backbone:
    """A frozen model with its tokenizer, its attention sites and its fingerprint.

    ``architecture`` is "causal", "masked" or "encoder-decoder". ``vocabulary`` is the number of
    rows of the input embedding, ``width`` their size. Weights never change here: parameters ask
    for no gradient, and dropout is off.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        architecture: Architecture,
        name: str,
        quantized: str | None = None,
    ) -> None:
        model.train(False)
        model.requires_grad_(False)
        self.model = model
        self.text = Text(tokenizer)
        self.architecture = architecture
        self.name = name
        if quantized is not None:
            self.fingerprint  # noqa: B018 (that of the weights as they were: kept from here on)
            quantize_model(model, quantized)
        self.quantized = quantized
        self.sharded = False
        self.head: ClassHead | None = None
        self.changed = False
        self.sites = find_sites(model)
        self._scores = Scores(model)
        self._embeddings = Embeddings(model, name)
        self.vocabulary: int = self._embeddings.weight.shape[0]
        self.width: int = self._embeddings.weight.shape[1]
        # Right padding needs no mask on a causal model; the pad token would make some warn of that.
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.pad = (pad + 1) % self.vocabulary if architecture == "causal" else pad

    @staticmethod
    def load(
        name: str = "smollm2",
        *,
        architecture: Architecture | str = "auto",
        dtype: str = "auto",
        device: str = "auto",
        quantize: str | None = None,
    ) -> Backbone:
        """Open the packaged model (``smollm2``), a folder, a ``.gguf`` file or a hub id.

        ``quantize`` "int8" or "int4" shrinks its linear layers once they are loaded; prompts
        tuned on either form may be used on the other, as with ``dtype``.

        Raises UserError where there is no such model, or it is of no supported kind.
        """
        if quantize is not None:
            check_kind(quantize)
        source = open_source(name, architecture=architecture, dtype=dtype, device=device)  # type: ignore[arg-type]
        return Backbone(
            source.model,
            source.tokenizer,
            architecture=source.architecture,
            name=source.name,
            quantized=quantize,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the configuration, the tokenizer and sampled weights."""
        return fingerprint(self.model, self.text.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self._embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self._embeddings.weight.dtype

    @property
    def positions_follow_prefix(self) -> bool:
        """Whether a row's tokens are numbered from where a prefix before them ends."""
        return self.architecture == "causal" and "position_ids" in self.accepted

    @property
    def longest(self) -> int:
        """The number of positions the model was made for."""
        return positions_of(self.model, self.vocabulary)

    @cached_property
    def state_width(self) -> int:
        """The size of a last hidden state, which some models embed tokens narrower than."""
        with torch.no_grad():
            return self.states([Example((3, 1), 2, ((),), ((0, -1),))]).shape[1]

    def need_sites(self, roles: Sequence[Role] = ("self", "encoder", "cross")) -> list[Site]:
        """Return the attention sites of these roles, or say why this model has none."""
        found = [site for site in self.sites.values() if site.role in roles]
        if not found:
            raise UserError(
                f"{type(self.model).__name__} cannot take a prefix: its attention does not go "
                "through transformers' attention interface; --method soft works on it"
            )
        return found

    def with_changes(self, injection: Injection | Mixture) -> Backbone:
        """Return the backbone as an injection's patches, weights and head change it.

        Itself where the injection changes nothing; else a view that shares all that stays the
        same. The parts of a mixture must change it alike (:meth:`Mixture.groups_by_change`).

        Raises UserError for changes of another model, and for a model that is spread over
        processes.
        """
        part = injection.parts[0] if isinstance(injection, Mixture) else injection
        if next(part.changes(), None) is None:
            return self
        if self.sharded:
            raise UserError("--shard: layers that are spread cannot be changed; leave it out")
        _ = (
            self.fingerprint,
            self.can_pack,
            self.can_prefill,
        )  # the view has those of the frozen model
        view = copy.copy(self)
        view.changed, view.head = True, part.head
        if part.patches or part.weights:
            view.model = patch_model(self.model, part)
            modules = dict(view.model.named_modules())
            view.sites = {n: replace(s, module=modules[n]) for n, s in self.sites.items()}
            view._scores = self._scores.over(view.model)
            view._embeddings = self._embeddings.over(view.model)
            view.__dict__.pop("stack", None)
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
        if self.stack is None or self.quantized or self.architecture == "encoder-decoder":
            why = "is quantized" if self.quantized else "has no one list of layers to spread"
            raise UserError(f"--shard: {type(self.model).__name__} {why}; leave out one of the two")
        _ = self.fingerprint  # of the whole weights
        shard_layers(self.stack.layers, self.device)
        self.sharded = True

    # Running ---------------------------------------------------------------------------------

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the model's input embeddings of real tokens: (n, width)."""
        return self.embedded(torch.tensor(list(ids), device=self.device))

    def embedded(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of real tokens, where the model is: (...) -> (..., width)."""
        return self._embeddings.of(ids)

    def states(
        self,
        examples: Sequence[Example],
        injection: Injection | Mixture = NOTHING,
        lead: int = 0,
        cut: LayerRange = WHOLE,
    ) -> Tensor:
        """Run examples and return the last hidden states at their targets: (N, width).

        Targets come in the order of the examples and of each one's ``targets``. The first
        ``lead`` tokens, which all examples must share, are run once where that is exact.
        """
        if self.architecture == "encoder-decoder":
            return encoder_decoder.read(
                self, examples, Mixture.of(injection, len(examples)), cut=cut
            )
        laid, read = self._read(examples, injection, lead, cut)
        return read.at(laid.places)

    def lower_states(
        self, examples: Sequence[Example], injection: Injection, lead: int, layer: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers below ``layer`` and return what enters it, on the CPU.

        The states of the first ``lead`` tokens, (lead, width), which all examples share; and of
        each example's other tokens, (tokens, width). Where the lead cannot be run apart it is
        empty, and each example has its own. The layers are those of :attr:`stack`.
        """
        if self.architecture == "encoder-decoder":
            mixture = Mixture.of(injection, len(examples))
            ids = [example.ids for example in examples]
            carried = self.pass_context(mixture)[0]
            found, _ = encoder_decoder.encode(self, ids, mixture, carried, LayerRange(last=layer))
            each = [states[: len(row)].cpu() for states, row in zip(found, ids, strict=True)]
            return found[0, :0].cpu(), each
        laid, read = self._read(examples, injection, lead, LayerRange(last=layer))
        rows = [torch.cat([read.of(line) for line in own]).cpu() for own in laid.owned]
        return read.hidden[: read.lead].cpu(), rows

    def _read(
        self,
        examples: Sequence[Example],
        injection: Injection | Mixture,
        lead: int,
        cut: LayerRange,
    ) -> tuple[Batch, single_stack.Read]:
        """Lay examples out and run them, packed where that is exact and else padded."""
        mixture = Mixture.of(injection, len(examples))
        within = self._within_window(
            max(
                e.length + mixture.parts[r].leading
                for e, r in zip(examples, mixture.rows, strict=True)
            )
        )
        packing = within and self.can_pack
        shared = examples[0].ids[:lead] if packing else ()
        laid = batch([example.after(len(shared)) for example in examples], tree=packing)
        mixture = replace(mixture, rows=[mixture.rows[owner] for owner in laid.owners])
        if cut.given:
            rows = zip(cut.given[1:], laid.owned, strict=True)
            parts = [torch.split(r, [len(laid.lines[n].tokens) for n in own]) for r, own in rows]
            cut = replace(cut, given=(cut.given[0], *itertools.chain.from_iterable(parts)))
        if packing:
            return laid, single_stack.packed(self, laid.lines, mixture, shared, cut)
        return laid, single_stack.padded(self, laid.lines, mixture, cut)

    def logits(self, states: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        """Return the scores of vocabulary tokens: (N, width) -> (N, tokens), all for None.

        Under an injection with a head they are those of its classes: (N, C).
        """
        if self.head is not None:
            weight, bias = self.head.weight.to(states.device), self.head.bias.to(states.device)
            return F.linear(states.to(weight.dtype), weight, bias)
        return self._scores.of(states, tokens)

    def lm_head_inputs(self, states: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what output embeddings meet of states, and them: (N, inner), (vocabulary, inner).

        None for a model whose scores are no product of the two.
        """
        return self._scores.lm_head_inputs(states)

    def kv(self, ids: Sequence[int], injection: Injection = NOTHING) -> dict[str, KV]:
        """Return what every attention site holds after reading ``ids`` under ``injection``.

        Encoder-decoders read the ids in both stacks. The keys of prefixes that ``injection``
        brings are not among the result. Keeps the graph where gradients are on.
        """
        found: dict[str, KV] = {}
        names = {site.module: name for name, site in self.sites.items()}

        def record(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
        ) -> None:
            found[names[module]] = KV(key[0], value[0])

        mixture = Mixture((injection,), (0,))
        if self.architecture == "encoder-decoder":
            reading = Example(tuple(ids), len(ids), (tuple(ids[1:]),), ())
            encoder_decoder.read(self, [reading], mixture, record, ids[0])
        else:
            single_stack.padded(self, [Line(tuple(ids))], mixture, record=record)
        return found

    # Sharing what is the same for all rows -----------------------------------------------------

    @cached_property
    def can_prefill(self) -> bool:
        """Whether reading on after stored keys and values equals reading everything."""
        return probes.can_prefill(self)

    @cached_property
    def can_pack(self) -> bool:
        """Whether rows may lie end to end in one row of tokens, parted by attention alone."""
        return probes.can_pack(self)

    @cached_property
    def layer_parts(self) -> tuple[LayerPart, ...]:
        """Where the attention and the feed-forward part of each layer end."""
        return find_layer_parts(self.model, self.sites)

    @cached_property
    def stack(self) -> Stack | None:
        """The layers as a list, those of the encoder where there are two; None without a list."""
        two = self.architecture == "encoder-decoder"
        base = cast(nn.Module, self.model.get_encoder() if two else self.model.base_model)
        own = {n: s for n, s in self.sites.items() if s.role == ("encoder" if two else "self")}
        return Stack.find(base, own)

    def can_skip_lower_layers(self, longest: int) -> bool:
        """Whether upper layers may run on stored states of rows of up to ``longest`` tokens."""
        if self.stack is None or len(self.stack.layers) < 2 or self.sharded:
            return False
        return self._parted and (self.architecture != "causal" or self._within_window(longest))

    @cached_property
    def _parted(self) -> bool:
        """Whether running below a layer and then above it equals running whole."""
        return probes.parted(self)

    @cached_property
    def window(self) -> int | None:
        """The shortest sliding window among the sites, None where all attention is full."""
        return min((s.window for s in self.sites.values() if s.window is not None), default=None)

    def prefill(self, injection: Injection, lead: Sequence[int], longest: int) -> Injection | None:
        """Read leading virtual tokens and ``lead`` once, and return them as keys and values.

        Under the returned injection a row without ``lead`` scores as it did with it. None where
        that would not hold: ``can_prefill`` is false, or the longest row (``longest`` tokens with
        its lead) reaches beyond a sliding window. Keeps the graph where gradients are on.
        """
        if not self._within_window(longest + injection.leading) or not self.can_prefill:
            return None
        return self.folded(injection, lead)

    def folded(self, injection: Injection, lead: Sequence[int]) -> Injection:
        """Return what :meth:`fold` does, wherever it holds."""
        ids = [*virtual(self, injection.leading), *lead]
        if not ids:
            return injection
        kv = in_turn(injection.kv, self.kv(ids, replace(injection, leading=0)))
        positions = injection.positions + len(ids)
        return replace(injection, leading=0, kv=kv, positions=positions)

    def _within_window(self, length: int) -> bool:
        """Whether rows of this length may be cut up: attention is reached, and sees them whole."""
        if self.architecture != "causal" or not self.sites:
            return False
        return self.window is None or length <= self.window

    # The inside of a pass ----------------------------------------------------------------------

    def pass_context(self, mixture: Mixture) -> tuple[PassContext, list[int]]:
        """Gather a mixture for the attention function; return it and each row's first position."""
        for part in mixture.parts:
            assert self.changed or next(part.changes(), None) is None, "run it with with_changes()"
        carried = prefixes_for(self.sites, mixture, self.device, self.dtype)
        return carried, [mixture.parts[row].positions for row in mixture.rows]

    def to_device(self, tensor: Tensor) -> Tensor:
        """Bring a tensor from the CPU to the model, on a GPU without waiting for it."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @cached_property
    def accepted(self) -> set[str]:
        """The arguments that the model's forward names."""
        return set(inspect.signature(self.model.base_model.forward).parameters)
