"""Recurrent language models: a stack of LSTM or GRU layers, as a causal model of transformers.

A layer's state is one vector: [h; c] in an LSTM, h in a GRU. Attention sees the keys and values of
all positions before a row; a recurrent layer needs only its state after the last of them. It is
stored as a `KV` of one head, its first half as the key and its second half as the value: an LSTM's
key is its h and its value its c. So a prefix is a learned initial state, and a layer's state after
a text is a prefix from which it reads on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.attention.masked import Prefixes


@dataclass(frozen=True)
class Cell:
    """A kind of cell: its gates, the vectors in its state, and torch's run over a row."""

    gates: int
    vectors: int
    run: Callable[..., tuple[Tensor, ...]]


CELLS = {"lstm": Cell(4, 2, torch.lstm), "gru": Cell(3, 1, torch.gru)}


class RecurrentConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The sizes of a recurrent language model; ``cell`` is "lstm" or "gru".

    ``dropout`` acts in training on what goes from layer to layer, never from token to token
    (Zaremba et al. 2014, arXiv:1409.2329).
    """

    model_type = "foreword-recurrent"
    keys_to_ignore_at_inference = ("past_key_values",)

    cell: str = "lstm"
    vocab_size: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 2
    dropout: float = 0.0
    initializer_range: float = 0.1
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None


class States:
    """The layers' states (B, S) after what has been read; ``generate`` reorders them by beams."""

    is_compileable = False

    def __init__(self) -> None:
        self.layers: dict[int, Tensor] = {}

    def reorder_cache(self, rows: Tensor) -> None:
        """Let row i go on from the states of row ``rows[i]``."""
        self.layers = {n: state.index_select(0, rows) for n, state in self.layers.items()}

    def detach(self) -> States:
        """Return the same states, detached from their graph."""
        made = States()
        made.layers = {n: state.detach() for n, state in self.layers.items()}
        return made


class RecurrentLayer(nn.Module):
    """One layer of cells of the model's width W, with torch's own weights and order of gates.

    An LSTM (Hochreiter and Schmidhuber 1997) with i, f, g, o = W_i x + b_i + W_h h + b_h:
    ``c = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h = sigmoid(o) tanh(c)``. A GRU (Cho et al.
    2014, arXiv:1406.1078) with gates r, z, n: ``h = (1 - z) n + z h``.
    """

    def __init__(self, config: RecurrentConfig, number: int) -> None:
        super().__init__()
        self.cell, self.width, self.number = CELLS[config.cell], config.hidden_size, number
        size = self.cell.gates * self.width
        self.weight_ih = nn.Parameter(torch.empty(size, self.width))
        self.weight_hh = nn.Parameter(torch.empty(size, self.width))
        self.bias_ih = nn.Parameter(torch.empty(size))
        self.bias_hh = nn.Parameter(torch.empty(size))

    def forward(
        self,
        hidden_states: Tensor,
        *,
        mask: Tensor | None = None,  # (B, T) bool; a token that is False does not change the state
        states: States | None = None,
        foreword: PassContext | None = None,
    ) -> Tensor:
        """Read (B, T, W) and return h after each token: (B, T, W).

        It starts from ``states``, which then receives the last state; without them from the
        prefix, and without a prefix from zeros.
        """
        state = None if states is None else states.layers.get(self.number)
        if state is None:
            state = self._start(hidden_states, foreword)
        recording = foreword is not None and foreword.record is not None
        if recording or (mask is not None and not bool(mask.all())):
            every = self._read_by_token(hidden_states, state, mask)  # (B, T, S)
            found, state = every[..., : self.width], every[:, -1]
            if foreword is not None and foreword.record is not None:
                key, value = every[:, None].chunk(2, -1)
                foreword.record(self, hidden_states[:, None, :, :0], key, value, None)
        else:
            found, state = self._read(hidden_states, state)
        if states is not None:
            states.layers[self.number] = state
        return found

    def _start(self, hidden_states: Tensor, foreword: PassContext | None) -> Tensor:
        """Return each row's first state, (B, S): that of its prefix's last position, or zeros."""
        batch = len(hidden_states)
        prefixes = None if foreword is None else foreword.prefixes(self)
        if prefixes is None:
            return hidden_states.new_zeros(batch, self.cell.vectors * self.width)
        found = _last(prefixes)  # (R, S)
        rows = None if foreword is None else foreword.rows
        return found.expand(batch, -1) if rows is None else found[rows]

    def _read(self, hidden_states: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read a row at once: (B, T, W), (B, S) -> (B, T, W), (B, S)."""
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        parts = tuple(part.contiguous()[None] for part in state.chunk(self.cell.vectors, 1))
        before = parts if len(parts) > 1 else parts[0]
        # As in training: without dropout it is the same, and cuDNN keeps what a gradient needs.
        options = True, 1, 0.0, True, False, True
        found, *after = self.cell.run(hidden_states, before, weights, *options)
        return found, torch.cat(after, 2)[0]

    def _read_by_token(self, hidden_states: Tensor, state: Tensor, mask: Tensor | None) -> Tensor:
        """Read token by token and return the state after each: (B, T, S)."""
        found = []
        for place in range(hidden_states.shape[1]):
            after = self._read(hidden_states[:, place : place + 1], state)[1]
            state = after if mask is None else torch.where(mask[:, place, None], after, state)
            found.append(state)
        return torch.stack(found, 1)


def _last(prefixes: Prefixes) -> Tensor:
    """Return the state at the last visible position of each prefix: (R, S), zeros where none is."""
    every = torch.cat([prefixes.keys, prefixes.values], 3)[:, 0]  # (R, P, S)
    every = F.pad(every, (0, 0, 1, 0))  # zeros in front, where a prefix of no positions ends
    if prefixes.visible is None:
        return every[:, -1]
    places = torch.arange(1, every.shape[1], device=every.device)
    last = (prefixes.visible * places).amax(1)
    return every[torch.arange(len(every), device=every.device), last]


class RecurrentPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the model and its base share: the configuration and the initialization of weights."""

    config_class = RecurrentConfig
    base_model_prefix = "model"
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize as torch does, but an LSTM's forget bias to 1 (Jozefowicz et al. 2015)."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, RecurrentLayer):
            bound = module.width**-0.5
            for parameter in module.parameters():
                initialization.uniform_(parameter, -bound, bound)
            bias = torch.zeros_like(module.bias_ih)
            bias[module.width : module.cell.vectors * module.width] = 1.0  # f of an LSTM alone
            initialization.copy_(module.bias_ih, bias)


class RecurrentModel(RecurrentPreTrainedModel):
    """Embeddings and layers, from ids to last hidden states.

    Raises ValueError for an unknown cell and for sizes below 1 (for the width, 2).
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        if config.cell not in CELLS:
            raise ValueError(f"unknown cell '{config.cell}' (known: {', '.join(CELLS)})")
        if config.hidden_size < 2 or config.num_hidden_layers < 1:
            raise ValueError("a recurrent model has a width of at least 2 and at least 1 layer")
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        count = config.num_hidden_layers
        self.layers = nn.ModuleList([RecurrentLayer(config, number) for number in range(count)])
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: States | None = None,
        use_cache: bool | None = None,
        foreword: PassContext | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Read ids or embeddings (B, T), on from ``past_key_values`` where there are any.

        ``attention_mask`` (B, T or more) is 0 where a token is padding, on either side.
        """
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        states = States() if past_key_values is None and use_cache else past_key_values
        mask = None if attention_mask is None else attention_mask[:, -hidden.shape[1] :].bool()
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = self.dropout(layer(hidden, mask=mask, states=states, foreword=foreword))
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=states)  # type: ignore[arg-type]


class RecurrentForCausalLM(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent model that scores the next token, with the embeddings as its output weights."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.model = RecurrentModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: States | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        foreword: PassContext | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, vocabulary), of the last ``logits_to_keep`` tokens where given."""
        read = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            foreword=foreword,
        )
        logits = self.lm_head(read.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=read.past_key_values)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the first pass makes its own: States


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig)
AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM)
