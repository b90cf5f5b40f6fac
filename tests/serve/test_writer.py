"""Texts of tokens that come one by one, on a tokenizer of Llama's kind."""

from __future__ import annotations

import random
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from chat_templates import chat_tokenizer
from foreword.backbone.decode import completion
from foreword.backbone.tokenizer import Text
from foreword.serve.http.logprobs import Offsets, of_chat, of_text
from foreword.serve.request import TokenLogprob
from foreword.serve.texts import Trimmed, Untouched
from foreword.serve.writer import Writer

WORDS = ("▁", "▁▁", "▁a", "a", "▁good", "good", "STOP", "ST", "OP", "\n", "é")


@cache
def llama() -> Any:
    """A backbone's text: spaces stand before words, and unknown characters are bytes."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *WORDS]
    made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="<unk>"))
    made.decoder = decoders.Sequence(  # type: ignore[assignment]
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>", "<hidden>")]
    made.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    return SimpleNamespace(text=Text(tokenizer), ends=(tokenizer.eos_token_id,))


def ids(*names: str) -> list[int]:
    found = llama().text.tokenizer.convert_tokens_to_ids(list(names))
    assert None not in found
    return list(found)


def in_bytes(text: str) -> list[int]:
    return ids(*(f"<0x{byte:02X}>" for byte in text.encode()))


def told(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """The pieces of a text, and the whole."""
    writer, pieces = Writer(llama(), stop), []
    for token in tokens:
        if writer.add(token):
            break
        pieces.append(writer.more())
    whole = writer.whole()
    return [*pieces, writer.rest(whole)], whole


@pytest.mark.parametrize("stop", [(), ("STOP",), ("a g", "\n"), (" good",)])
def test_pieces_join_to_the_whole_text(stop: tuple[str, ...]) -> None:
    draws = random.Random(0)
    kinds = [*map(ids, WORDS), ids("<hidden>"), *map(in_bytes, "é日😀")]
    for _ in range(300):
        tokens = [token for kind in draws.choices(kinds, k=draws.randint(1, 12)) for token in kind]
        pieces, whole = told(tokens[: draws.randint(1, len(tokens))], stop)
        assert "".join(pieces) == whole


def test_a_hidden_token_takes_no_space_and_repeats_nothing() -> None:
    pieces, whole = told(ids("▁good", "<hidden>", "▁a", "▁good"))
    assert pieces == ["good", "", " a", " good", ""]
    assert whole == "good a good"


def test_characters_that_are_whole_stay_where_the_last_is_not() -> None:
    for size in range(3, 6):
        assert told(in_bytes("日日")[:size])[1] == "日"
    assert told([*ids("a"), *in_bytes("日")[:2]])[1] == "a\ufffd\ufffd"
    assert completion(llama(), in_bytes("日日")[:5], ("日",)) == ""


def test_tokens_of_logprobs_are_told_apart() -> None:
    """As OpenAI writes them: with their spaces, and by bytes where they are no characters."""
    text, (space, bare, byte, other, twin) = (
        llama().text,
        [*ids("▁good", "good"), *in_bytes("日")[:2], *in_bytes("a")],
    )
    top = tuple((token, -1.0 - n) for n, token in enumerate((space, bare, byte, other)))
    found = [TokenLogprob(space, -1.0, top), TokenLogprob(twin, -9.0, ((*ids("a"), -0.5),))]
    made = of_text(text, found, Offsets(text, Untouched()))
    assert made["tokens"] == [" good", "a"]
    assert made["top_logprobs"] == [
        {" good": -1.0, "good": -2.0, "bytes:\\xe6": -3.0, "bytes:\\x97": -4.0},
        {"a": -0.5, "bytes:\\x61": -9.0},  # the written one is told though others are likelier
    ]
    chat = of_chat(text, found)["content"][0]["top_logprobs"]
    assert [(each["token"], each["bytes"]) for each in chat] == [
        (" good", [*b" good"]),
        ("good", [*b"good"]),
        ("\ufffd", [0xE6]),
        ("\ufffd", [0x97]),
    ]


@pytest.mark.parametrize("trimmed", [False, True])
def test_offsets_are_places_in_the_answer(trimmed: bool) -> None:
    text = llama().text
    tokens = [*ids("▁▁", "▁good", "<hidden>", "▁a"), *in_bytes("日"), *ids("▁", "good")]
    answer = text.decode(tokens).strip() if trimmed else text.decode(tokens)
    offsets = Offsets(text, Trimmed() if trimmed else Untouched())
    places = [offsets.add(token) for token in tokens]
    at = len(answer) - len("good a日 good")
    assert places == [0, max(at - 1, 0), *(at + n for n in (4, 4, 6, 6, 6, 7, 8))]


def test_bytes_of_tokens_join_to_those_of_the_text() -> None:
    qwen = Text(chat_tokenizer("qwen2"))
    for text, tokens in (
        (qwen, qwen.ids(" good 日")),
        (llama().text, [*ids("▁good", "▁"), *in_bytes("日")]),
    ):
        assert b"".join(map(text.spelled_bytes, tokens)).decode() == " good 日"
