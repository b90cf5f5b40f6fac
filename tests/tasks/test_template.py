"""Templates: what is literal, what is a field, and what is refused, with its column."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import UserError
from foreword.tasks.templates.template import Field, Slot, Template, VirtualTokens

TEXT = st.text(st.sampled_from('ab {}[]:"\\%$5é\n') | st.characters(exclude_categories=["Cs"]))


def escaped(text: str) -> str:
    return "".join(sign * 2 if sign in "{}[]" else sign for sign in text)


@given(TEXT)
def test_escaped_text_reads_as_itself(text: str) -> None:
    parts = Template.parse(escaped(text)).parts
    assert parts == ((text,) if text else ())


@given(TEXT, TEXT, TEXT)
def test_fields_and_slots_stand_between_escaped_texts(left: str, middle: str, right: str) -> None:
    source = f"{escaped(left)}{{name}}{escaped(middle)}[mask]{escaped(right)}"
    wanted = [part for part in (left, Field("name"), middle, Slot(), right) if part != ""]
    assert list(Template.parse(source).parts) == wanted


@given(TEXT, TEXT)
def test_what_fills_a_field_is_never_read_as_a_template(literal: str, value: str) -> None:
    filled = Template.parse(f"{escaped(literal)}{{name}}").fill({"name": value})
    assert "".join(filled) == literal + value  # type: ignore[arg-type]


@given(TEXT)
def test_any_source_parses_or_is_refused(source: str) -> None:
    with suppress(UserError):
        assert Template.parse(source).source == source


def test_every_kind_of_part() -> None:
    template = Template.parse('[soft:3]Review: {text}\n[soft:"It was, [so"] [mask].')
    assert template.parts == (
        VirtualTokens(3, None),
        "Review: ",
        Field("text"),
        "\n",
        VirtualTokens(None, "It was, [so"),
        " ",
        Slot(),
        ".",
    )
    assert template.soft == (VirtualTokens(3, None), VirtualTokens(None, "It was, [so"))
    assert template.without_virtual_tokens().parts == (
        "Review: ",
        Field("text"),
        "\n",
        " ",
        Slot(),
        ".",
    )


def test_fields_are_named_once_and_may_have_spaces_around() -> None:
    template = Template.parse("{a} { b } {a}")
    assert template.fields == ("a", "b")
    assert template.fill({"a": "1", "b": "2"}) == ["1 2 1"]


def test_three_braces_are_a_brace_and_a_field() -> None:
    assert Template.parse("{{{a}}}").parts == ("{", Field("a"), "}")
    assert Template.parse("[[[mask]]]").parts == ("[", Slot(), "]")


@pytest.mark.parametrize(
    "name", ["a.b", "0.__class__", "text!r", "text:>10", "text.__init__.__globals__", "0"]
)
def test_format_syntax_is_only_the_name_of_a_field_that_no_row_has(name: str) -> None:
    template = Template.parse(f"{{{name}}}")
    assert template.fields == (name,)
    assert template.fill({name: "plain"}) == ["plain"]
    with pytest.raises(UserError, match=r"rows.jsonl:3: no field '"):
        template.check({"text": "x"}, "rows.jsonl:3")


@pytest.mark.parametrize(
    ("source", "column", "what"),
    [
        ("ab{", 3, "stray '{'; write {{"),
        ("ab}", 3, "stray '}'; write }}"),
        ("a[b", 2, "stray '['; write [["),
        ("a]b", 2, "stray ']'; write ]]"),
        ("x {} y", 3, "a field without a name"),
        ("x { } y", 3, "a field without a name"),
        ("{a[0]}", 1, "stray '{'"),
        ("say [msk]", 5, "did you mean 'mask'?"),
        ("[soft:0]", 1, "zero virtual tokens"),
        ('[soft:""]', 1, "zero virtual tokens"),
        ("[soft:five]", 1, "write [soft:5]"),
        ("[soft]", 1, "write [soft:5]"),
        ("[soft:-1]", 1, "write [soft:5]"),
        (f"[soft:{'9' * 5000}]", 1, "write [soft:5]"),
    ],
)
def test_mistakes_are_named_with_their_column(source: str, column: int, what: str) -> None:
    with pytest.raises(UserError) as raised:
        Template.parse(source)
    assert f"column {column}:" in str(raised.value)
    assert what in str(raised.value)


def test_two_slots_are_refused() -> None:
    with pytest.raises(UserError, match=r"stands twice"):
        Template.parse("[mask] and [mask]")


def test_a_missing_field_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no field 'txt'.*did you mean 'text'"):
        Template.parse("{txt}").check({"text": "x", "label": "y"}, "rows.jsonl:3")
