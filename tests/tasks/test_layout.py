"""Layout: where tokens stand, what is cut, and where the answer's space belongs."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from families import CAUSAL, MASKED, SEQ2SEQ, backbone, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import Text
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import FilledTemplate, answer_ids, fill_template, room_for
from foreword.tasks.templates.template import Template

FAMILIES = {"causal": CAUSAL[0], "masked": MASKED[0], "encoder-decoder": SEQ2SEQ[1]}


@cache
def get(architecture: str) -> Backbone:
    return backbone(FAMILIES[architecture])


@cache
def framed(architecture: str) -> Backbone:
    """With a tokenizer that puts <mask> (2) before and <end> (1) after a text."""
    made = backbone(FAMILIES[architecture])
    inner = type(tokenizer().backend_tokenizer).from_str(tokenizer().backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(
        single="<mask> $A <end>", special_tokens=[("<mask>", 2), ("<end>", 1)]
    )
    made.text = Text(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    return made


def laid(base: Backbone, source: str, room: int = 10_000, **more: str) -> FilledTemplate:
    side = more.pop("side", "right")
    before = more.pop("before", "")
    template = Template.parse(source)
    return fill_template(base, template, more, room=room, side=side, where="F:1", before=before)  # type: ignore[arg-type]


def ids(text: str) -> list[int]:
    return get("causal").text.ids(text)


# Where things stand ---------------------------------------------------------------------------


def test_a_causal_row_ends_where_its_answer_begins() -> None:
    found = laid(get("causal"), "Review: {text}\nMood:", text="a good film")
    assert list(found.ids) == ids("Review: a good film\nMood:")
    assert (found.slot, found.left, found.truncated) == (
        len(found.ids),
        "Review: a good film\nMood:",
        False,
    )


@pytest.mark.parametrize("space", ["", " ", "  "])
def test_a_space_before_the_answer_is_left_to_the_answer(space: str) -> None:
    found = laid(get("causal"), f"{{text}} Mood:{space}[mask]", text="good")
    assert list(found.ids) == ids("good Mood:")
    assert found.left == f"good Mood:{space}"


def test_first_tokens_stand_first_and_last_ones_only_where_text_goes_on() -> None:
    text = ids("it was good")
    assert list(laid(framed("causal"), "{a}", a="it was good").ids) == [2, *text]
    assert list(laid(framed("encoder-decoder"), "{a}", a="it was good").ids) == [2, *text, 1]
    masked = laid(framed("masked"), "{a} [mask].", a="it was good")
    assert list(masked.ids) == [2, *text, *ids("."), 1]
    assert masked.slot == 1 + len(text)


def test_text_before_a_row_stands_after_the_first_tokens() -> None:
    found = laid(framed("causal"), "{a}", a="good", before="bad film : ")
    assert list(found.ids) == [2, *ids("bad film : good")]
    soft = laid(framed("causal"), "[soft:2]{a}", a="good", before="bad film")
    assert list(soft.ids) == [2, *ids("bad film"), 160, 161, *ids("good")]


def test_virtual_tokens_are_numbered_in_place() -> None:
    found = laid(get("causal"), 'a[soft:2]{t}[soft:"it was"]b', t="film")
    size = len(ids("it was"))
    wanted = [*ids("a"), 160, 161, *ids("film"), *range(162, 162 + size), *ids("b")]
    assert list(found.ids) == wanted


def test_an_encoder_reads_all_and_the_answer_is_the_decoders() -> None:
    found = laid(get("encoder-decoder"), "{a} [mask] film", a="good")
    assert list(found.ids) == [*ids("good"), *ids(" film")]


def test_a_causal_model_cannot_answer_before_text() -> None:
    with pytest.raises(UserError, match=r"text after \[mask\] is never seen by a causal model"):
        laid(get("causal"), "{a} [mask].", a="good")


# Cutting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_longest_field_loses_text_on_the_side_that_is_said(side: str) -> None:
    words = [f"film {i}" for i in range(9)]
    long = " and ".join(words)
    whole = laid(get("causal"), "{a}:{b}", a="a good film", b=long)
    found = laid(get("causal"), "{a}:{b}", len(whole.ids) - 7, side=side, a="a good film", b=long)
    assert found.truncated
    assert not whole.truncated
    text = get("causal").text.decode(list(found.ids))
    kept = text.removeprefix("a good film:")
    assert text != kept  # the shorter field is whole
    assert long.startswith(kept) if side == "right" else long.endswith(kept)
    assert len(found.ids) == len(whole.ids) - 7


def test_the_longest_is_counted_in_tokens() -> None:
    few, many = " film" * 6, "XYZXYZXYZ0123456789"
    assert len(few) > len(many)
    assert len(ids(few)) < len(ids(many))
    room = len(ids(f"{few}:{many}")) - 2
    text = get("causal").text.decode(list(laid(get("causal"), "{a}:{b}", room, a=few, b=many).ids))
    assert text == f"{few}:{many[:-2]}"


def test_a_character_of_many_bytes_is_not_cut_in_two() -> None:
    made = backbone(FAMILIES["causal"])
    made.text = Text(_bytes())
    assert len(made.text.ids("é")) == 2
    for room in range(2, 9):
        found = laid(made, "{t}", room, t="éééé é")
        assert "\ufffd" not in made.text.decode(list(found.ids))
        assert len(found.ids) <= room


def _bytes() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({sign: n for n, sign in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


WORDS = st.lists(st.sampled_from(["good", "film", "a", "XY", "\n", ":", "0", "  "]), max_size=12)


@settings(max_examples=60)
@given(WORDS, WORDS, st.integers(0, 40), st.sampled_from(["left", "right"]))
def test_a_row_always_fits_or_is_refused(a: list[str], b: list[str], room: int, side: str) -> None:
    values = {"a": " ".join(a), "b": "".join(b)}
    template = "x {a} y {b}:"
    if len(ids("x  y :")) > room:
        with pytest.raises(UserError, match="the template alone takes"):
            laid(get("causal"), template, room, side=side, **values)
        return
    found = laid(get("causal"), template, room, side=side, **values)
    assert len(found.ids) <= room
    whole = laid(get("causal"), template, **values)
    assert found.truncated == (len(whole.ids) > room)
    if not found.truncated:
        assert found == whole


def test_a_template_that_does_not_fit_is_refused_with_both_numbers() -> None:
    size = len(ids("Review: \nMood:"))
    with pytest.raises(UserError, match=rf"F:1: the template alone takes {size} .* room for 3"):
        laid(get("causal"), "Review: {t}\nMood:", 3, t="a good film")
    with pytest.raises(UserError, match=r"the template alone takes 9 tokens and .* room for 8"):
        laid(get("causal"), "[soft:9]", 8)


# Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["causal", "masked"])
@pytest.mark.parametrize(
    ("left", "answer", "wanted"),
    [
        ("Mood:", " good", " good"),
        ("Mood: ", " good", " good"),
        ("Mood: ", "good", " good"),
        ("Mood:  ", "good", " good"),
        ("Mood:", "good", "good"),
        ("Mood\n", " good", "good"),
        ("Mood\n", "good", "good"),
        ("", " good", " good"),
        (",", "good", "good"),
    ],
)
def test_one_space_between_words(architecture: str, left: str, answer: str, wanted: str) -> None:
    assert answer_ids(get(architecture), left, answer) == ids(wanted)
    row = laid(get("causal"), left) if left else FilledTemplate((), 0, "", False)
    joined = [*row.ids, *answer_ids(get("causal"), row.left, answer)]
    assert get("causal").text.decode(joined) == left.rstrip(" ") + wanted


def test_a_decoder_begins_a_text_of_its_own() -> None:
    assert answer_ids(get("encoder-decoder"), "Mood:", " good") == ids("good")
    assert answer_ids(framed("encoder-decoder"), "Mood: ", "good") == [2, *ids("good")]


def test_room_is_what_the_longest_part_of_a_mixture_leaves() -> None:
    base = get("causal")
    short, long = Injection(positions=3), Injection(positions=5, leading=2)
    assert room_for(base, short) == base.longest - 3
    assert room_for(base, Mixture((short, long), (0, 1))) == base.longest - 7


def test_a_row_that_is_cut_to_nothing_is_named() -> None:
    with pytest.raises(UserError, match=r"F:1: there is no room for any token of the row; raise"):
        laid(get("causal"), "{t}", 0, t="a good film")
    assert laid(get("causal"), "{t}", 1, t="a good film").ids == (*ids("a"),)


@pytest.mark.parametrize("name", ["causal", "encoder-decoder"])
def test_a_row_of_nothing_but_unknown_signs_is_named(name: str) -> None:
    base = get(name)
    assert base.text.ids("~~") == []
    task = Generate("{prompt}").bind(base)
    with pytest.raises(UserError, match=r"F:1: the row has no tokens, and the template no text"):
        task.predict([Row({"prompt": "~~"}, "F:1")], NOTHING)


@pytest.mark.parametrize("room", range(4, 9))
def test_no_letter_of_a_word_that_is_cut_is_left(room: int) -> None:
    """Pieces of words read otherwise alone in WordPiece, so that a cut falls between words."""
    words = ["[UNK]", "un", "##af", "##ford", "##able", "film", "un", "a", "##n", "ford", "f"]
    inner = Tokenizer(models.WordPiece({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))  # type: ignore[call-arg]
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    made = Text(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]"))
    text = "film unaffordable film an unaffordable"
    ids = made.ids(text)
    left = made.ending(text, room)
    assert left.strip() in ("unaffordable", "an unaffordable", "film an unaffordable")
    assert made.ids(left) == ids[len(ids) - len(made.ids(left)) :]
    assert room - 3 <= len(made.ids(left)) <= room
    assert made.beginning(text, room) == text[: len(made.beginning(text, room))]
