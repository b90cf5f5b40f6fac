"""The page of a server, in a real browser and by keyboard alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import pytest

from browser import Tab, browser, chromium
from foreword.prompt.prompt import Prompt
from serve.serving import Served, served

MARKUP = "<img src=x onerror='document.title = 1'> it was <b>good</b>"
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    with served(folder, "--feedback", str(folder / "kept"), keys=False) as made:
        yield made


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide", "phone"])
def tab(
    request: pytest.FixtureRequest, server: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tab]:
    width, dark = request.param
    with browser(tmp_path_factory.mktemp("profile")) as made:
        made.open(f"{server.url}/", width, dark)
        made.until("document.querySelector('textarea')")
        yield made
        assert made.logged() == []
        assert all(url.startswith(f"{server.url}/") for url in made.asked_for())
        assert made.value("document.documentElement.scrollWidth") <= width
        assert made.value("document.title") == "Foreword"


def walk(tab: Tab, condition: str) -> None:
    """Press Tab until what has the focus fulfils a condition."""
    for _ in range(60):
        if tab.value(f"!!(e => {condition})(document.activeElement)"):
            return
        tab.press("Tab", 9)
    raise AssertionError(f"the keyboard does not reach {condition}")


def choose(tab: Tab, place: str, name: str) -> None:
    """Choose a prompt by the arrow keys."""
    walk(tab, f"e.id === '{place}'")
    tab.press("Home", 36)
    for _ in range(20):
        if tab.value(f"document.getElementById('{place}').value") == name:
            return
        tab.press("ArrowDown", 40)
    raise AssertionError(f"the arrow keys do not reach {name}")


def ask(tab: Tab, text: str) -> None:
    walk(tab, "e.name")
    tab.value("document.activeElement.select()")
    tab.ask("Input.insertText", text=text)
    tab.press("Enter", 13, control=True)
    tab.until("document.getElementById('status').textContent.startsWith('answered')")


def complaints(tab: Tab) -> list[str]:
    """What axe finds wrong with what a screen reader is given."""
    tab.value(AXE.read_text("utf-8") + "; 1")
    found = tab.value(
        "axe.run().then(r => JSON.stringify(r.violations.map(v => [v.id, v.help,"
        " v.nodes.map(n => n.html)])))"
    )
    return [str(each) for each in json.loads(found)]


def test_a_label_is_asked_for_and_mended_by_keyboard_alone(tab: Tab, server: Served) -> None:
    assert complaints(tab) == []
    choose(tab, "first", "sort")
    tab.until("document.querySelector('textarea').name === 'text'")
    choose(tab, "second", "write")
    ask(tab, MARKUP)
    right = server.prompts["sort"].predict(MARKUP, probabilities=True)
    best = max(right, key=right.__getitem__)
    assert tab.value("document.querySelector('.answer').textContent") == best
    shares = tab.value("[...document.querySelectorAll('.share')].map(e => e.textContent)")
    assert shares == [f"{100 * share:.1f}%" for share in sorted(right.values(), reverse=True)]
    written = tab.value("document.querySelector('.text').textContent")
    assert written == server.prompts["write"].predict(MARKUP)
    versions = tab.value("[...document.querySelectorAll('#answers li')].map(e => e.textContent)")
    assert "sort@1: from a file" in versions
    assert complaints(tab) == []
    walk(tab, "e.tagName === 'BUTTON' && e.closest('.labels')")
    tab.press("Enter", 13, text="\r")
    tab.until("document.getElementById('status').textContent.startsWith('kept')")
    kept = (server.folder.parent / "kept" / "sort.jsonl").read_text("utf-8").splitlines()
    row = json.loads(kept[-1])
    assert (row["text"], row["label"], row["feedback"]["right"]) == (MARKUP, best, True)


def test_a_late_answer_about_an_earlier_choice_changes_nothing(tab: Tab) -> None:
    tab.value("""(async () => {
        const plain = window.fetch, first = document.getElementById('first');
        const late = () => new Promise((done) => setTimeout(done, 500));
        window.fetch = async (url, ...more) => {
            if (String(url).includes('write')) await late();
            return plain(url, ...more);
        };
        for (const name of ['write', 'sort']) {
            first.value = name;
            first.dispatchEvent(new Event('change'));
        }
        await late(); await late();
    })()""")
    tab.until("document.getElementById('first').value === 'sort'")
    assert tab.value("document.querySelector('textarea').name") == "text"


def test_answers_that_wait_are_looked_at(tab: Tab, server: Served) -> None:
    choose(tab, "first", "sort")
    tab.until("document.querySelector('textarea').name === 'text'")
    ask(tab, f"{MARKUP} again")
    walk(tab, "e.id === 'more'")
    tab.press("Enter", 13, text="\r")
    tab.until("document.querySelector('#waiting li')")
    asked = tab.value("[...document.querySelectorAll('.asked')].map(e => e.textContent)")
    assert f"{MARKUP} again" in asked
    assert complaints(tab) == []
    walk(tab, "e.closest('#waiting')")
    tab.press("Enter", 13, text="\r")
    tab.until(f"document.querySelectorAll('#waiting li').length === {len(asked) - 1}")
    assert tab.value("document.activeElement.tagName") == "BUTTON"
    walk(tab, "e.id === 'more'")
    tab.press("Enter", 13, text="\r")
    tab.until("document.querySelector('#reviewed .share')")
    shown = tab.value("document.querySelector('#reviewed tr').textContent")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d, sort@\d\d+% of \d+ \(\d+ to \d+\)", shown)
    assert complaints(tab) == []


def test_a_version_that_came_since_is_told_with_its_score(tab: Tab, server: Served) -> None:
    choose(tab, "first", "sort")
    tab.until("document.querySelector('textarea').name === 'text'")
    ask(tab, MARKUP)
    one = tab.value("document.querySelector('#answers h2').textContent")
    path = server.folder / "sort.safetensors"
    prompt = Prompt.load(path)
    prompt.with_scores({"dev": {"accuracy": 80.0, "rows": 20}}).save(path)
    score = "accuracy 80.0 (58.4 to 91.9)"
    ask(tab, MARKUP)
    two = f"sort@{int(one[-1]) + 1}"
    assert tab.value("document.querySelector('#answers h2').textContent") == two
    versions = tab.value("[...document.querySelectorAll('#answers li')].map(e => e.textContent)")
    assert f"{two}: from a file, {score} on 20 dev rows, in place of {one}" in versions


def test_the_page_waits_for_the_model(tab: Tab) -> None:
    tab.value("""{
        const real = window.fetch;
        window.asked = 0;
        window.fetch = (...given) => ++window.asked > 2 ? real(...given) : Promise.resolve(
            Response.json({ error: { message: "the model is loading" } }, { status: 503 }));
        document.getElementById('first').replaceChildren();
        tried(list);
    } 1""")
    tab.until("document.getElementById('status').textContent.includes('loading; waiting')")
    tab.until("document.getElementById('first').options.length > 2")
    tab.until("document.getElementById('status').textContent === ''")


def test_a_mistake_is_said_on_the_page(tab: Tab) -> None:
    choose(tab, "first", "sort")
    tab.until("document.querySelector('textarea').name === 'text'")
    walk(tab, "e.name")
    tab.ask("Input.insertText", text="long " * 2000)
    tab.value("document.getElementById('first').options[0].value = 'gone'")
    tab.value("document.getElementById('first').selectedIndex = 0")
    tab.press("Enter", 13, control=True)
    tab.until("document.getElementById('status').classList.contains('bad')")
    assert "gone" in tab.value("document.getElementById('status').textContent")
    tab.events[:] = [e for e in tab.events if e["method"] != "Log.entryAdded"]  # the 404 itself
