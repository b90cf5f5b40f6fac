"""The page: what it says is escaped, and a real browser shows it without asking for anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import Tab, browser, chromium
from foreword.explanation.explanation import (
    Attribution,
    Contribution,
    Description,
    Descriptions,
    Explanation,
    Importance,
    LayerAttention,
    LayerProbabilities,
    Measured,
)
from foreword.report.page.figures import drawing
from foreword.report.report import Chapter, Report, report_on
from foreword.reporter import SILENT
from report.pages import DEV, pair, tuned, whole

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{a}{b}$ & \"'"
ONE, NONE = Measured("the prompt", 90.0, 0.2), Measured("untouched", 50.0, 0.7)
EXPLAINED = Explanation(
    method="prefix",
    task="classify",
    model="m",
    importance=Importance("accuracy", 8, ONE, NONE, (ONE, NONE), (NONE, ONE, ONE), (ONE, NONE)),
    attention=(LayerAttention("a", (0.1, 0.9)), LayerAttention("b", (0.0, 1.0))),
    words=Descriptions(
        "accuracy",
        8,
        ONE,
        NONE,
        (
            Description(MARKUP, "inspect", "layer 3", 80.0, 0.3, 0.75),
            Description("A tree.", "control", "nothing", 60.0, 0.5, 0.25),
        ),
    ),
    attribution=Attribution(
        MARKUP, "good", -0.1, -0.9, 0.01, (Contribution(MARKUP, 0.5),), (Contribution("p1", -0.3),)
    ),
    layers=LayerProbabilities(
        MARKUP, ("good", MARKUP), ("0", "1"), ((0.5, 0.5), (0.9, 0.1)), ((0.5, 0.5), (0.4, 0.6))
    ),
    left_out={"importance: layers": MARKUP},
)


def explained() -> Report:
    return Report("explained", [Chapter("mine", "about", explanation=EXPLAINED)])


@cache
def shown(make: Callable[[], Report]) -> str:
    return make().to_html()


class Seen(HTMLParser):
    """The elements of a page, its ids and what it points to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += attrs

    def all(self, name: str) -> list[str]:
        return [value or "" for key, value in self.found if key == name]


@pytest.mark.parametrize("make", [whole, pair, explained], ids=["one", "two", "explained"])
def test_a_page_needs_nothing_from_elsewhere(make: Any) -> None:
    seen = Seen(page := shown(make))
    assert not {"script", "iframe", "img", "object", "embed"} & {*seen.tags}
    pointed = [*seen.all("href"), *seen.all("src"), *seen.all("xlink:href")]
    assert all(each.startswith(("#", "data:")) for each in pointed)
    ids = seen.all("id")
    assert len({*ids}) == len(ids)
    assert {each[1:] for each in pointed if each.startswith("#")} <= {*ids}
    assert not re.search(r"#010a0\d", page)  # every colour is one of the page's
    assert len(page) < 3e6


def test_sections_come_in_their_order_and_only_where_asked_for() -> None:
    def titles(page: str) -> list[str]:
        return re.findall(r'<span class="number">(\d)</span>', page)

    assert titles(shown(whole)) == ["1", "2", "4", "5"]
    made = report_on(tuned(), DEV[:4], sections=["making"], report=SILENT)
    assert titles(made.to_html()) == ["5"]
    assert titles(shown(explained)) == ["3"]
    assert "explains 75% of the gain; a line that says nothing of any task, 25%." in shown(
        explained
    )


def test_a_text_with_markup_is_shown_and_not_run() -> None:
    dirty = [
        {"text": f"{MARKUP} film {n} it was {'good' * (n % 7)}", "label": ("good", "bad")[n % 2]}
        for n in range(20)
    ]
    sections = ("changes", "making")
    named = {"data": MARKUP}
    made = report_on({MARKUP: tuned()}, dirty, names=named, sections=sections, report=SILENT)
    for page in (made.to_html(), shown(explained)):
        assert "&lt;script&gt;alert(1)" in page
        assert not {"script", "img"} & {*Seen(page).tags}


def test_names_that_hold_long_numbers_stay_as_they_are() -> None:
    with drawing("Labels", 2) as made:
        made.axes.set_xticks([0.123456, 1.987654], ["v1.1252", "v1.1279"])
    assert ">v1.1252<" in made.svg
    assert ">v1.1279<" in made.svg
    assert not re.search(r"<[^>]*\d\.\d{3}", made.svg)


def test_a_description_beside_a_better_control_is_not_said_to_recover_nothing() -> None:
    assert EXPLAINED.words is not None
    texts = tuple(replace(each, loss=1 - each.loss) for each in EXPLAINED.words.texts)
    words = replace(EXPLAINED.words, texts=texts)
    assert words.best is None
    page = Report("e", [Chapter("mine", "about", explanation=replace(EXPLAINED, words=words))])
    assert "or more of it than a line that says nothing" in page.to_html()


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    frame = explained()._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert Seen(frame).tags == ["iframe"]


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_a_real_browser_shows_it(tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        for make in (whole, pair, explained):
            path = tmp_path / f"{make.__name__}.html"
            path.write_text(shown(make), "utf-8")
            for width in (1280, 390):
                tab.open(path, width, dark=width == 390)
                assert tab.logged() == []
                assert tab.asked_for() == []
                assert tab.value("document.documentElement.scrollWidth") <= width
                assert _visible(tab)


def _visible(tab: Tab) -> bool:
    """Whether the figures have a size, and their text the colour of the page."""
    return bool(
        tab.value(
            "[...document.querySelectorAll('figure svg')].every("
            "s => s.getBoundingClientRect().width > 100) && "
            "getComputedStyle(document.body).backgroundColor != "
            "getComputedStyle(document.body).color"
        )
    )
