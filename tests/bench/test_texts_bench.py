"""Chat and lists side by side: what answers say, the sides of a set, what is not run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benches import open_bench
from chat_templates import chat_backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.evaluation.evaluation import Answered, Evaluation

bench, said_by, sets = (open_bench(name) for name in ("texts", "texts_said", "texts_sets"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Yes, from 900 euros on, and for 36 months.", {"900", "36"}),
        ("Call 555-0142 or write to help@a.example.", {"555-0142", "help@a.example"}),
        ("It's at 601 F Street. What else? It starts at 5:30 pm.", {"601", "f street", "5:30"}),
        (
            "There is one called Effie's Bar & Grill in Campbell.",
            {"effie's bar & grill", "campbell"},
        ),
        ("Do you want more? I do.", set()),
        ("", set()),
    ],
)
def test_values_are_numbers_addresses_and_names(text: str, values: set[str]) -> None:
    assert said_by.values_of(text) == values


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI, I have no shop.", True),
        ("I don't have access to prices.", True),
        ("I am sorry! A new one leaves today.", False),
        ("We cannot repair it before Monday.", False),
    ],
)
def test_refusals_are_told_from_other_answers(text: str, refuses: bool) -> None:
    assert said_by.is_refusal(text) is refuses


def test_what_is_said_by_hand() -> None:
    rows = [
        ("a van for 20", "It is 39 euros in May.", "It is 39 euros, or 20 in all."),  # 1 of 2 due
        ("when", "At 5:30.", "I cannot help. Ask Bob at 7 please."),  # none of 1; both stray
    ]
    row = Row({}, "r:1")
    answered = [Answered(text, gold, said, None, None, row, {}) for text, gold, said in rows]
    found = said_by.what_is_said(Evaluation("bleu", {}, answered))
    values = {name: value[0] for name, value in found.items()}
    assert values == {
        "values": pytest.approx(100 / 3, abs=0.1),  # 39, of 39, May and 5:30
        "stray": 50,  # Bob and 7, of these with 39 and 20
        "words": pytest.approx(100 * 16 / 8, abs=0.1),
        "refused": 50,
    }
    assert all(low <= value <= high for value, low, high in found.values())


def test_a_dialogue_is_on_one_side_only(tmp_path: Path) -> None:
    (tmp_path / "sgd").mkdir()
    turns = [("user", "assistant")[n % 2] for n in range(4)]
    lines = [
        {"messages": [{"role": role, "content": f"{n % 10} {i}"} for i, role in enumerate(own)]}
        for n in range(30)
        for own in (turns[:2], turns)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "sgd/train.jsonl").write_text(text)
    sides = sets.dialogues(tmp_path)
    begins = [{row.fields["messages"][0]["content"] for row in side} for side in sides]
    assert [len(own) for own in begins] == [8, 2]
    assert not begins[0] & begins[1]
    assert sum(map(len, sides)) == 60


def test_two_news_are_one_text_with_the_topics_of_both(tmp_path: Path) -> None:
    (tmp_path / "ag_news").mkdir()
    lines = [{"text": f"news {n}", "label": "AB"[n % 2]} for n in range(40)]
    for name in ("train", "test"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"ag_news/{name}.jsonl").write_text(text)
    for side in sets.topics(tmp_path):
        assert len(side) == 20
        numbers = [[int(n.split()[1]) for n in row.fields["text"].splitlines()] for row in side]
        assert sorted(n for own in numbers for n in own) == list(range(40))
        due = [sorted({"AB"[n % 2] for n in own}) for own in numbers]
        assert [row.fields["labels"] for row in side] == due
        assert {len(own) for own in due} == {1, 2}


def test_a_shop_has_a_question_of_each_rule_to_test() -> None:
    train, test = sets.shop(Path("none"))
    answers = [[row.fields["messages"][-1]["content"] for row in side] for side in (train, test)]
    asked = [{row.fields["messages"][1]["content"] for row in side} for side in (train, test)]
    assert sorted(answers[0]) == sorted(answers[1] * 2)
    assert len(set(answers[1])) == 20
    assert not asked[0] & asked[1]
    manual = (bench.SHOP / "manual.txt").read_text("utf-8").lower()
    values = {value for answer in answers[1] for value in said_by.values_of(answer)}
    assert [value for value in values if value not in manual] == []
    assert len(values) > 30


def test_every_system_answers_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = chat_backbone("qwen3")
    small = bench.Set(
        "chat",
        sets.shop,
        4,
        2,
        {"max_length": 2048, "max_new_tokens": 4},
        {"epochs": 1, "batch_size": 2},
        {"prefix": {"rate": 0.01}},
        bench.SETS["shop"].systems,
    )
    monkeypatch.setattr(bench, "SETS", {"shop": small})
    monkeypatch.setattr(bench.fw, "load", lambda *given, **options: backbone)
    out, page = tmp_path / "out.jsonl", tmp_path / "page.md"
    usual = {"data": tmp_path, "out": out}
    bench.run(["tiny"], systems=["untouched"], **usual)
    bench.run(["tiny"], **usual)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    systems = ["untouched", "demonstrations", "manual in context", "prefix", "lora"]
    assert [each["system"] for each in records] == systems
    assert all(set(bench.KEPT) <= each.keys() for each in records)
    assert [each["rows"] for each in records] == [2] * 5
    assert ["epochs" in each["settings"] for each in records] == [False] * 3 + [True] * 2
    assert ["rate" in each["settings"] for each in records] == [False] * 3 + [True, False]
    page.write_text(f"before\n{bench.MARKS[0]}\nold\n{bench.MARKS[1]}\nafter\n")
    bench.report(out=out, page=page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert len(lines) == 2 + 2 + 2 + 5
    bench.run(["tiny"], systems=["untouched", "prefix"], rows=6, **usual)
    fewer = [json.loads(line)["settings"]["rows"] for line in out.read_text().splitlines()]
    assert fewer == [4] * 5 + [6] * 2
    assert bench.table_of(bench.read_records(out, bench.KEPT))[-1].startswith("| shop, 6 rows |")
    with pytest.raises(UserError, match="--sets cafe: give some of shop"):
        bench.run(["tiny"], sets=["cafe"], **usual)


def test_a_manual_stands_in_the_system_message() -> None:
    row = sets.shop(Path("none"))[1][0]
    told: Any = bench.with_manual(row, "THE MANUAL").fields["messages"]
    assert told[0]["content"].endswith("Be brief.\n\nTHE MANUAL")
    assert told[1:] == row.fields["messages"][1:]
