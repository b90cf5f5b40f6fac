"""Counts in what commands say: one row, not one rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from conftest import Answer, World
from foreword.grammar import counted, is_are, with_article

ONE_OF_MANY = re.compile(
    r"(?<![\d.,])1 ((dev|test|training) )?"
    r"(rows|steps|epochs|demonstrations|texts|of the training rows are)\b|there are 1\b|\(s\)"
)


def test_a_count_has_its_noun() -> None:
    assert [counted(n, "dev row") for n in (0, 1, 2)] == ["0 dev rows", "1 dev row", "2 dev rows"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [is_are(n) for n in (0, 1, 2)] == ["are", "is", "are"]


def test_an_article_goes_with_its_noun() -> None:
    names = ("causal", "masked", "encoder", "encoder-decoder", "albert", "T5")
    found = [with_article(name).partition(" ")[0] for name in names]
    assert found == ["a", "a", "an", "an", "an", "a"]


def test_one_row_is_said_to_be_one(
    world: World, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    rows, one = tmp_path / "two.csv", tmp_path / "one.csv"
    rows.write_text("text,label\na good film,good\na bad film,bad\n")
    one.write_text("text,label\na good film,good\n")
    out = tmp_path / "p.safetensors"
    flags = ("--model", world.path("model"), "--epochs", "1", "--train", rows, "--out", out)
    for command in (
        ("train", *flags),
        ("info", out),
        ("predict", out, "--data", one, "--out", tmp_path / "answered.csv"),
        ("eval", out, "--data", one, "--errors", tmp_path / "wrong.csv"),
        ("eval", out, "--data", one, "--baselines", "--train", one),
        ("data", "check", rows, "--task", "classify"),
        ("data", "split", one, "--out", tmp_path / "parts", "--per-label", "1"),
        ("data", "split", one, "--out", tmp_path / "parts", "--dev", "0.5", "--test", "0.1"),
        ("explain", out, "--data", one),
        ("data", "clean", one, "--out", tmp_path / "clean.csv"),
        ("search", *flags, "--minutes", "1"),
    ):
        found = cli(*command)
        said = found.out + found.err
        assert said.strip()
        assert not (wrong := ONE_OF_MANY.search(said)), (wrong, said)
