"""Tokenizers built from a text: its characters, or byte-level BPE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|pad|>", "<|end|>", "<|unknown|>")
BYTES = 256
PIECE = 1 << 16


def characters(text: str, size: int | None) -> PreTrainedTokenizerFast:
    """Make a tokenizer of ``text``'s characters: the most frequent ``size``, or all for None.

    Any other character is read as one unknown token.
    """
    ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    kept = [letter for letter, _ in ranked][: None if size is None else size - len(SPECIAL)]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *kept))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[2]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return _whole(made)


def byte_pairs(text: str, size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE (Sennrich et al. 2016, Radford et al. 2019) of up to ``size`` tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_pieces(text), trainer)
    return _whole(made)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return a text's ids. It is encoded in pieces, so that a long text needs little memory."""
    inner = tokenizer.backend_tokenizer
    return [i for piece in _pieces(text) for i in inner.encode(piece, add_special_tokens=False).ids]


def _pieces(text: str) -> Iterator[str]:
    """Split a text into pieces at line starts; a line longer than a piece is cut."""
    start = 0
    while start < len(text):
        end = start + PIECE
        line = text.rfind("\n", start, end) + 1 if end < len(text) else 0
        yield text[start : line or end]
        start = line or end


def _whole(inner: Tokenizer) -> PreTrainedTokenizerFast:
    pad, end, unknown = SPECIAL
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, pad_token=pad, eos_token=end, unk_token=unknown
    )
