"""Backbone: a frozen model that runs examples under injections. Nothing else runs a model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import ModelOutput

from foreword.backbone.attention import Carried
from foreword.backbone.carry import gather
from foreword.backbone.example import Example, Line, depths, lines
from foreword.backbone.fingerprint import fingerprint
from foreword.backbone.masks import ancestors, padding, shifted
from foreword.backbone.recompute import recompute_layers
from foreword.backbone.shell import head
from foreword.backbone.sites import Role, Site, find_sites
from foreword.backbone.sources import Architecture, open_source
from foreword.backbone.text import Text
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture


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
    ) -> None:
        model.train(False)
        model.requires_grad_(False)
        self.model = model
        self.text = Text(tokenizer)
        self.architecture = architecture
        self.name = name
        self.sites = find_sites(model)
        self.vocabulary: int = self._table.shape[0]
        self.width: int = self._table.shape[1]
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
    ) -> Backbone:
        """Open the packaged model (``smollm2``), a folder, a ``.gguf`` file or a hub id.

        Raises UserError where there is no such model, or it is of no supported kind.
        """
        source = open_source(name, architecture=architecture, dtype=dtype, device=device)  # type: ignore[arg-type]
        return Backbone(
            source.model, source.tokenizer, architecture=source.architecture, name=source.name
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the configuration, the tokenizer and sampled weights."""
        return fingerprint(self.model, self.text.tokenizer)

    @property
    def _table(self) -> Tensor:
        """The input embeddings' weight: (vocabulary, width)."""
        return cast(Tensor, self.model.get_input_embeddings().weight)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self._table.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self._table.dtype

    @property
    def longest(self) -> int:
        """The number of positions the model was made for."""
        made = int(getattr(self.model.config, "max_position_embeddings", None) or 1_000_000)
        padded = [  # position tables that keep their first rows for padding, as RoBERTa's does
            table.padding_idx + 1
            for table in self.model.modules()
            if isinstance(table, nn.Embedding)
            and table.padding_idx is not None
            and table.num_embeddings == made != self.vocabulary
        ]
        return made - max(padded, default=0)

    def need_sites(self, roles: Sequence[Role] = ("self", "encoder", "cross")) -> list[Site]:
        """Return the attention sites of these roles, or say why this model has none."""
        found = [site for site in self.sites.values() if site.role in roles]
        if not found:
            raise UserError(
                f"{type(self.model).__name__} cannot take a prefix: its attention does not go "
                "through transformers' attention interface; --method soft works on it"
            )
        return found

    def checkpointing(self, on: bool) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations.

        Dropout stays off. Raises UserError for a model whose layers cannot do it.
        """
        recompute_layers(self.model, on)

    # Running ---------------------------------------------------------------------------------

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the model's input embeddings of real tokens: (n, width)."""
        return self._embedded(torch.tensor(list(ids), device=self.device))

    def _embedded(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.model.get_input_embeddings()(ids)) * self._scale

    @cached_property
    def _scale(self) -> float:
        """What embeddings must be multiplied by to read as their ids do; Marian scales only ids."""
        two = self.architecture == "encoder-decoder"
        stack = cast(nn.Module, self.model.get_encoder() if two else self.model.base_model)
        ids = torch.tensor([[3, 4]], device=self.device)
        with torch.no_grad():
            embeds = self.model.get_input_embeddings()(ids)
            expected = stack(input_ids=ids).last_hidden_state
            near = 1e-2 * float(expected.abs().max())
            for scale in (1.0, self.width**0.5):
                found = stack(inputs_embeds=embeds * scale).last_hidden_state
                if torch.allclose(found, expected, rtol=0, atol=near):
                    return scale
        raise UserError(
            f"{self.name} cannot take virtual tokens: it reads embeddings otherwise than ids; "
            "--method prefix may work on it"
        )

    def states(
        self, examples: Sequence[Example], injection: Injection | Mixture = NOTHING
    ) -> Tensor:
        """Run examples and return the last hidden states at their targets: (N, width).

        Targets come in the order of the examples and of each one's ``targets``.
        """
        mixture = Mixture.of(injection, len(examples))
        if self.architecture == "encoder-decoder":
            return self._two_stacks(examples, mixture)
        tree = self._within_window(
            max(
                e.length + mixture.parts[r].leading
                for e, r in zip(examples, mixture.rows, strict=True)
            )
        )
        laid: list[Line] = []
        owners: list[int] = []
        rows: list[int] = []
        columns: list[int] = []
        for number, example in enumerate(examples):
            made, places = lines(example, tree=tree)
            rows += [len(laid) + line for line, _ in places]
            columns += [token for _, token in places]
            laid += made
            owners += [number] * len(made)
        mixture = replace(mixture, rows=[mixture.rows[owner] for owner in owners])
        hidden, leads = self._one_stack(laid, mixture)
        shifted = [column + leads[row] for row, column in zip(rows, columns, strict=True)]
        return hidden[
            torch.tensor(rows, device=self.device), torch.tensor(shifted, device=self.device)
        ]

    def logits(self, states: Tensor) -> Tensor:
        """Return the scores of every vocabulary token: (N, width) -> (N, vocabulary)."""
        return head(self.model, states, self._answer)

    @cached_property
    def _answer(self) -> type[ModelOutput]:
        """The class in which the base model returns its states."""
        ids = torch.tensor([[3, 1]], device=self.device)
        two = {"decoder_input_ids": ids} if self.architecture == "encoder-decoder" else {}
        base = self.model.base_model
        if two and base is self.model:
            return BaseModelOutputWithPastAndCrossAttentions
        with torch.no_grad():
            return type(base(input_ids=ids, **two))

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
            self._two_stacks([reading], mixture, record=record, start=ids[0])
        else:
            self._one_stack([Line(tuple(ids))], mixture, record=record)
        return found

    # Sharing what is the same for all rows -----------------------------------------------------

    @cached_property
    def foldable(self) -> bool:
        """Whether reading on after stored keys and values equals reading everything.

        True of causal transformers; false of bidirectional models, of models with a recurrent
        state, and where no attention site is reached. Tried on four tokens, not looked up.
        """
        if self.architecture != "causal" or not self.sites:
            return False
        whole = Example((3, 1, 2, 4), 4, ((),), ((0, -1),))
        with torch.no_grad():
            plain = self.states([whole])
            folded = self.states([whole.after(2)], self._folded(NOTHING, (3, 1)))
        bound = 1e-3 if self.dtype == torch.float32 else 5e-2
        return bool((plain - folded).abs().max() <= bound * plain.abs().max())

    @cached_property
    def window(self) -> int | None:
        """The shortest sliding window among the sites, None where all attention is full."""
        return min((s.window for s in self.sites.values() if s.window is not None), default=None)

    def fold(self, injection: Injection, lead: Sequence[int], longest: int) -> Injection | None:
        """Read leading virtual tokens and ``lead`` once, and return them as keys and values.

        Under the returned injection a row without ``lead`` scores as it did with it. None where
        that would not hold: ``foldable`` is false, or the longest row (``longest`` tokens with
        its lead) reaches beyond a sliding window. Keeps the graph where gradients are on.
        """
        if not self._within_window(longest + injection.leading) or not self.foldable:
            return None
        return self._folded(injection, lead)

    def _within_window(self, length: int) -> bool:
        """Whether rows of this length may be cut up: attention is reached, and sees them whole."""
        if self.architecture != "causal" or not self.sites:
            return False
        return self.window is None or length <= self.window

    def _folded(self, injection: Injection, lead: Sequence[int]) -> Injection:
        virtual = range(self.vocabulary, self.vocabulary + injection.leading)
        ids = [*virtual, *lead]
        if not ids:
            return injection
        read = self.kv(ids, replace(injection, leading=0))
        for site, before in injection.kv.items():
            after = read[site]
            read[site] = KV(
                torch.cat([before.keys.to(after.keys), after.keys], 1),
                torch.cat([before.values.to(after.values), after.values], 1),
            )
        return replace(injection, leading=0, kv=read, positions=injection.positions + len(ids))

    # The inside of a pass ----------------------------------------------------------------------

    def carry(self, mixture: Mixture) -> tuple[Carried, list[int]]:
        """Gather a mixture for the attention function; return it and each row's first position."""
        carried = gather(self.sites, mixture, self.device, self.dtype)
        return carried, [mixture.parts[row].positions for row in mixture.rows]

    def inputs(self, rows: Sequence[Sequence[int]], mixture: Mixture) -> dict[str, Tensor]:
        """Pad rows on the right; embed them here where any holds a virtual token."""
        padded = pad_sequence(
            [torch.tensor(list(row), dtype=torch.long) for row in rows],
            batch_first=True,
            padding_value=self.pad,
        ).to(self.device)  # (B, T)
        virtual = padded >= self.vocabulary
        if not bool(virtual.any()):
            return {"input_ids": padded}
        sizes = [0 if part.embeds is None else len(part.embeds) for part in mixture.parts]
        first = torch.tensor([sum(sizes[:row]) for row in mixture.rows], device=self.device)
        held = torch.tensor(sizes, device=self.device)[list(mixture.rows)][:, None]
        if bool((padded - self.vocabulary >= held).any()):
            raise UserError("a row has virtual tokens that its prompt has no embeddings for")
        table = torch.cat([p.embeds for p in mixture.parts if p.embeds is not None])
        real = self._embedded(padded.masked_fill(virtual, self.pad))
        index = (padded - self.vocabulary + first[:, None])[virtual]
        made = table.to(device=real.device, dtype=real.dtype)[index]
        return {"inputs_embeds": real.masked_scatter(virtual[..., None], made)}

    def with_lead(
        self, rows: Sequence[Sequence[int]], mixture: Mixture
    ) -> tuple[list[list[int]], list[int]]:
        """Write each row's leading virtual tokens before it; return the rows and the counts."""
        leads = [mixture.parts[row].leading for row in mixture.rows]
        made = [
            [*range(self.vocabulary, self.vocabulary + lead), *row]
            for lead, row in zip(leads, rows, strict=True)
        ]
        return made, leads

    def _one_stack(
        self, laid: Sequence[Line], mixture: Mixture, record: Any = None
    ) -> tuple[Tensor, list[int]]:
        """Run lines through a model of one stack: hidden states (B, T, width), leads."""
        rows, leads = self.with_lead([line.tokens for line in laid], mixture)
        carried, offsets = self.carry(mixture)
        inputs: dict[str, Any] = self.inputs(rows, mixture)
        length = max(map(len, rows))
        if self.architecture == "masked":
            inputs["attention_mask"] = padding(rows, length).to(self.device)
        elif any(line.parents is not None for line in laid):
            trees = [shifted(line, lead) for line, lead in zip(laid, leads, strict=True)]
            inputs["attention_mask"] = ancestors(trees, length).to(self.device)
            positions = [
                [offset + depth for depth in depths(tree)]
                for offset, tree in zip(offsets, trees, strict=True)
            ]
            inputs["position_ids"] = pad_sequence(
                [torch.tensor(p) for p in positions], batch_first=True
            ).to(self.device)
        elif "position_ids" in self._accepted:
            count = torch.arange(length, device=self.device)
            if len(set(offsets)) == 1:
                inputs["position_ids"] = (count + offsets[0])[None].expand(len(rows), -1)
            else:
                start = torch.tensor(offsets, device=self.device)[:, None]
                inputs["position_ids"] = count + start
        if "use_cache" in self._accepted:
            inputs["use_cache"] = False
        if self.sites:
            inputs["foreword"] = replace(carried, record=record)
        return self.model.base_model(**inputs).last_hidden_state, leads

    @cached_property
    def _accepted(self) -> set[str]:
        return set(inspect.signature(self.model.base_model.forward).parameters)

    def encode(
        self, rows: Sequence[Sequence[int]], mixture: Mixture, carried: Carried | None
    ) -> tuple[Tensor, Tensor]:
        """Run an encoder-decoder's encoder: states (B, S, width) and mask (B, S)."""
        led, _ = self.with_lead(rows, mixture)
        mask = padding(led, max(map(len, led))).to(self.device)
        extra = {} if carried is None else {"foreword": carried}
        encoder = self.model.get_encoder()
        inputs = self.inputs(led, mixture)
        return encoder(**inputs, attention_mask=mask, **extra).last_hidden_state, mask

    def _two_stacks(
        self,
        examples: Sequence[Example],
        mixture: Mixture,
        record: Any = None,
        start: int | None = None,
    ) -> Tensor:
        """Run encoder and decoder; each branch is a decoder row over its example's encoding."""
        carried, _ = self.carry(mixture)
        carried = replace(carried, record=record)
        extra = {"foreword": carried} if self.sites else {}
        encoded, mask = self.encode([e.ids for e in examples], mixture, carried if extra else None)
        first = self.start if start is None else start
        rows = [[first, *branch] for example in examples for branch in example.branches]
        owners = [n for n, example in enumerate(examples) for _ in example.branches]
        index = torch.tensor(owners, device=self.device)
        if extra and carried.rows is not None:
            extra = {"foreword": replace(carried, rows=carried.rows[index])}
        ids = pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=self.pad
        ).to(self.device)
        decoder = cast(nn.Module, self.model.get_decoder())  # type: ignore[no-untyped-call]
        hidden: Tensor = decoder(
            input_ids=ids,
            encoder_hidden_states=encoded[index],
            encoder_attention_mask=mask[index],
            use_cache=False,
            **extra,
        ).last_hidden_state
        offsets = [0]
        for example in examples:
            offsets.append(offsets[-1] + len(example.branches))
        places = [
            (offsets[n] + b, 1 + j)
            for n, example in enumerate(examples)
            for b, j in example.targets
        ]
        row, column = torch.tensor(places, device=self.device, dtype=torch.long).reshape(-1, 2).T
        return hidden[row, column]

    @property
    def start(self) -> int:
        """The token with which an encoder-decoder's decoder starts."""
        config = self.model.config
        found = getattr(config, "decoder_start_token_id", None)
        if found is None:
            found = getattr(self.model.generation_config, "decoder_start_token_id", None)
        if found is None:
            raise UserError(f"{self.name}: its configuration has no decoder_start_token_id")
        return int(found)
