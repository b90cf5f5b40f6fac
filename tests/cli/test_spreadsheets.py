"""From a spreadsheet to an answered one: what commands read, keep, leave out and write."""

from __future__ import annotations

import csv
import io
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_mistakes import refused

from test_pages import commands
from toys import rows

Cli = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "spreadsheets.md"
EXAMPLE = PAGE.parents[1] / "examples" / "support_csv.py"
FEW = ("--rows", "32", "--epochs", "1")


def tickets(path: Path, count: int = 30, *more: str) -> Path:
    """Write a table as Excel does in Germany: semicolons, Windows-1252."""
    lines = ["id;Anfrage;Kategorie"]
    for number, row in enumerate(rows(count)):
        lines.append(f'{number:02d};{row.fields["text"]} "für" dich, ja;{row.fields["label"]}')
    path.write_bytes("\r\n".join([*lines, *more, ""]).encode("windows-1252"))
    return path


def table(path: Path, sign: str = ";") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), delimiter=sign))


@pytest.fixture(scope="module")
def tuned(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt for the columns of the table, and not for `text` and `label`."""
    from foreword.cli.main import run

    folder = tmp_path_factory.mktemp("tables")
    out = folder / "p.safetensors"
    train = ["train", "--train", str(tickets(folder / "t.csv")), "--out", str(out)]
    named = ["--text-field", "Anfrage", "--label-field", "Kategorie"]
    assert run([*train, *named, "--model", world.path("model"), "--epochs", "1"]) == 0
    return out


def test_the_commands_of_the_page(
    world: Any, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 rows of a spreadsheet to an answered table: three commands, and two columns' names."""
    openpyxl = pytest.importorskip("openpyxl")
    monkeypatch.chdir(tmp_path)
    book = openpyxl.Workbook()
    book.active.append(["id", "Anfrage", "Kategorie"])
    for number, row in enumerate(rows(300)):
        book.active.append([f"{number:03d}", row.fields["text"], row.fields["label"]])
    book.save("tickets.xlsx")
    book.active.delete_cols(3)
    book.save("new.xlsx")
    first, train, predict, unsure, errors = commands(PAGE)
    for command in (first, [*train, *FEW, "--model", world.path("model")], predict):
        answer = cli(*command)
        assert answer.status == 0, answer.err
    answered = Path("answered.csv")
    found = table(answered, ",")
    assert [row["id"] for row in found] == [f"{number:03d}" for number in range(300)]
    assert list(found[0]) == ["id", "Anfrage", "label", "probability"]
    assert all(row["label"] in ("good", "bad") for row in found)
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found)
    assert answered.read_bytes().startswith(b"\xef\xbb\xbf"), "by which Excel knows UTF-8"
    book.active.delete_rows(20, 300)
    book.save("new.xlsx")
    for command in (unsure, [*errors, "--rows", "20"]):
        answer = cli(*command)
        assert answer.status == 0, answer.err
    assert {row["label"] for row in table(answered, ",")} == {""}
    assert table(Path("wrong.csv"), ",")[0]["gold"] in ("good", "bad")


def test_rows_keep_their_columns_order_and_texts(tuned: Path, tmp_path: Path, cli: Cli) -> None:
    data, out = tickets(tmp_path / "n.csv", 12), tmp_path / "a.csv"
    answer = cli("predict", tuned, "--data", data, "--out", out, "--min-probability", "0.99")
    assert answer.status == 0, answer.err
    assert f"{data}: is not UTF-8; read as Windows-1252" in answer.err
    assert "12 of 12 answers are below 0.99 and left blank" in answer.err
    found = table(out)
    assert [row["id"] for row in found] == [f"{n:02d}" for n in range(12)]
    assert found[3]["Anfrage"].endswith(' "für" dich, ja')
    assert {row["label"] for row in found} == {""}
    assert all(row["probability"] for row in found)
    # a second time: the columns of the first are kept
    again, more = tmp_path / "b.csv", tmp_path / "c.csv"
    answer = cli("predict", tuned, "--data", out, "--out", again)
    assert "column 'label' is there already; the new one is 'predicted_label'" in answer.err
    assert list(table(again)[0])[-2:] == ["predicted_label", "predicted_probability"]
    assert {row["label"] for row in table(again)} == {""}
    assert cli("predict", tuned, "--data", again, "--out", more).status == 0
    assert list(table(more)[0])[-1] == "predicted_predicted_probability"


def test_a_table_of_another_encoding(tuned: Path, tmp_path: Path, cli: Cli) -> None:
    data, out = tmp_path / "n.csv", tmp_path / "a.csv"
    data.write_bytes(
        "id;Anfrage\n01;这部电影很好看，我很喜欢\n02;很差的一部电影\n".encode("gb18030")
    )
    line = "it is probably GB18030); give --encoding gb18030, or save as UTF-8"
    predict, check = ("predict", tuned, "--data", data, "--out", out), ("data", "check", data)
    for command in (predict, check):
        answer = cli(*command)
        assert answer.status == 2
        (said,) = [each for each in answer.err.splitlines() if "not UTF-8" in each]
        assert line in said
        assert cli(*command, "--encoding", "gb18030").status == 0
    assert [row["Anfrage"] for row in table(out)] == ["这部电影很好看，我很喜欢", "很差的一部电影"]


def test_one_empty_cell_stops_nothing_if_bad_rows_may_be_skipped(
    tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    data, out = tickets(tmp_path / "n.csv", 6, "06;;x", "07;zu;viele;Zellen"), tmp_path / "a.csv"
    named = ("predict", tuned, "--data", data, "--out", out)
    refused(cli(*named), f"{data}:9: cells in this row: 4, in the header: 3")
    assert not out.exists()
    answer = cli(*named, "--skip-bad")
    assert answer.status == 0, answer.err
    assert answer.err.splitlines()[1:5] == [
        "1 row is left out:",
        f"  {data}:9: cells in this row: 4, in the header: 3 (id, Anfrage, Kategorie)",
        "1 row is left without an answer:",
        f'  {data}:8: field "Anfrage" is empty',
    ]
    found = table(out)
    assert [row["id"] for row in found] == [f"{n:02d}" for n in range(7)]
    assert [bool(row["label"]) for row in found] == [True] * 6 + [False]
    told = cli(*named, "--skip-bad", "--json").json
    assert (told["rows"], len(told["skipped"])) == (7, 2)
    empty = tmp_path / "e.csv"
    empty.write_text("Anfrage;x\n;1\n;2\n", "utf-8")
    refused(
        cli("predict", tuned, "--data", empty, "--skip-bad"),
        f'{empty}:2: field "Anfrage" is empty',
        "(and so for 1 more)",
    )


def test_training_and_scoring_leave_out_the_same_rows(
    world: Any, tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    bad = ("90;;good", "91;kein Etikett;", "92;kurz")
    data = tickets(tmp_path / "t.csv", 30, *bad)
    out = tmp_path / "p.safetensors"
    flags = ["--text-field", "Anfrage", "--label-field", "Kategorie", "--epochs", "1"]
    train = ["train", "--model", world.path("model"), "--train", data, *flags, "--out", out]
    refused(cli(*train), f"{data}:34: cells in this row: 2")
    made = cli(*train, "--skip-bad")
    assert made.status == 0, made.err
    assert "3 rows are left out:" in made.err
    assert "27 rows, 3 dev rows" in made.err
    assert cli("eval", tuned, "--data", data, "--skip-bad", "--json").json["rows"] == 30
    found = cli("data", "check", data, "--label-field", "Kategorie")
    assert found.status == 2
    assert "error: unreadable" in found.out
    assert f"  {data}:34" in found.out


def test_a_delimiter_that_is_given_wins(tuned: Path, tmp_path: Path, cli: Cli) -> None:
    data = tmp_path / "n.csv"
    data.write_text("id~Anfrage\n1~a film; or two\n", "utf-8")
    refused(cli("predict", tuned, "--data", data), "no field 'Anfrage'", "(known: id~Anfrage)")
    told = cli("predict", tuned, "--data", data, "--delimiter", "~", "--json").json
    assert told["predictions"][0]["Anfrage"] == "a film; or two"
    refused(
        cli("predict", tuned, "--data", data, "--delimiter", "semi"),
        "--delimiter semi: give one sign, or one of the words comma, semicolon, tab, bar",
    )


@pytest.mark.parametrize("text", ["id;Anfrage\n01;a film\n", '{"id": "01", "Anfrage": "a film"}\n'])
def test_standard_input(text: str, tuned: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    told = cli("predict", tuned, "--data", "-", "--json").json["predictions"]
    assert (told[0]["id"], told[0]["Anfrage"]) == ("01", "a film")
    assert told[0]["probability"] == max(told[0]["probabilities"].values())


def test_a_text_shows_its_probability(tuned: Path, cli: Cli) -> None:
    answer = cli("predict", tuned, "a film", "it")
    assert all(line.endswith("%)") for line in answer.out.splitlines())
    answer = cli("predict", tuned, "a film", "--min-probability", "0.99")
    assert answer.out.startswith("-  (unsure: ")
    refused(cli("predict", tuned, "a", "--min-probability", "7"), "--min-probability 7.0: give a")


def test_errors_are_written_with_gold_answer_and_probability(
    tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    data, out = tickets(tmp_path / "t.csv", 20), tmp_path / "wrong.csv"
    answer = cli("eval", tuned, "--data", data, "--errors", out, "--json")
    assert answer.status == 0, answer.err
    found = table(out)
    count = round(20 * (1 - answer.json["accuracy"] / 100))
    assert (len(found), answer.json["errors"]) == (count, {"file": str(out), "rows": count})
    assert list(found[0]) == ["id", "Anfrage", "Kategorie", "gold", "answer", "probability"]
    assert all(row["gold"] == row["Kategorie"] != row["answer"] for row in found)
    shown = cli("eval", tuned, "--data", data, "--errors", out)
    assert f"{out}: {count} of 20 rows, with gold and answer" in shown.out
    right = tmp_path / "right.csv"
    lines = [f"{row['Anfrage']};{row['answer']}" for row in found]
    right.write_text("\n".join(["Anfrage;Kategorie", *lines]) + "\n", "utf-8")
    assert cli("eval", tuned, "--data", right, "--errors", out).status == 0
    assert out.read_text("utf-8") == "Anfrage;Kategorie;gold;answer\n"


def test_errors_stand_beside_columns_of_their_names(tuned: Path, tmp_path: Path, cli: Cli) -> None:
    data, out = tickets(tmp_path / "t.csv", 20), tmp_path / "wrong.csv"
    data.write_text(data.read_text("windows-1252"), "utf-8")
    before = table(data)
    lines = [f"{row['Anfrage']};{row['Kategorie']};{n};own {n}" for n, row in enumerate(before)]
    data.write_text("\n".join(["Anfrage;Kategorie;answer;gold", *lines]) + "\n", "utf-8")
    shown = cli("eval", tuned, "--data", data, "--errors", out)
    assert "rows, with right_answer and predicted_answer" in shown.out
    found = table(out)
    assert list(found[0])[2:] == [
        *("answer", "gold", "right_answer", "predicted_answer", "probability"),
    ]
    assert all(row["gold"] == f"own {row['answer']}" for row in found)
    assert all(row["right_answer"] == row["Kategorie"] != row["predicted_answer"] for row in found)
    refused(
        cli("eval", tuned, "--data", data, "--errors", out, "--windows", "2"),
        "--windows scores the prompt alone; leave out --errors",
    )


def test_a_missing_column_is_named_with_the_flag_that_mends_it(
    world: Any, tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    data = tmp_path / "t.csv"
    data.write_text("text;Label\n" + 3 * "a;b\nc;d\n", "utf-8")
    train = ["train", "--model", world.path("model"), "--out", tmp_path / "p.safetensors"]
    refused(
        cli(*train, "--train", data),
        f"{data}:2: missing field 'label'; did you mean 'Label'? (known: text, Label); "
        "name its column with --label-field",
    )
    found = ["search", "--model", world.path("model"), "--out", tmp_path / "p.safetensors"]
    for command in ([*train, "--per-label", "1"], found):
        refused(cli(*command, "--train", data), "name its column with --label-field")
    refused(
        cli(*train, "--train", tickets(data), "--label-field", "Kategorie"),
        "no field 'text'; name the field that is read with --text-field",
    )
    data.write_text("Anfrage;x\na;b\n", "utf-8")
    refused(
        cli("eval", tuned, "--data", data),
        f"{data}:2: missing field 'Kategorie'",
        "name it with --columns Kategorie=COLUMN",
    )
    refused(
        cli("predict", tuned, "--data", data, "--columns", "Anfrage=y"), "no column 'y' to read"
    )


def test_data_commands_write_tables(tmp_path: Path, cli: Cli) -> None:
    data = tickets(
        tmp_path / "t.csv", 20, "19;gleich;good", "20;gleich;good", "21;;", "zu;viele;;;x"
    )
    out = tmp_path / "clean.csv"
    told = cli("data", "clean", data, "--label-field", "Kategorie", "--out", out, "--json").json
    assert (told["read"], told["kept"]) == (24, 21)
    assert told["changes"]["dropped: cannot be read"]["places"] == [f"{data}:25"]
    assert told["changes"]["dropped: empty"]["places"] == [f"{data}:24"]
    assert told["changes"]["dropped: duplicate"]["places"] == [f"{data}:23"]
    assert out.read_bytes().startswith("\ufeffid;Anfrage;Kategorie\n00;".encode())
    parts = tmp_path / "parts"
    named = ["--label-field", "Kategorie", "--out", parts, "--fields", "Anfrage"]
    assert cli("data", "split", out, *named).status == 0
    assert sorted(path.name for path in parts.iterdir()) == ["dev.csv", "test.csv", "train.csv"]
    assert sum(len(table(path)) for path in parts.iterdir()) == 21
    refused(
        cli("data", "clean", out, "--out", tmp_path / "x.xls"),
        "x.xls: cannot tell what to write from the ending '.xls'",
    )
    lists = tmp_path / "l.jsonl"
    lists.write_text('{"text": "a", "labels": ["x"]}\n')
    refused(
        cli("data", "clean", lists, "--out", tmp_path / "l.csv"), "field 'labels'; write .jsonl"
    )


def test_check_says_how_many_more_and_calls_empty_texts_empty(tmp_path: Path, cli: Cli) -> None:
    data = tmp_path / "t.jsonl"
    lines = [{"text": "", "label": "a"}, {"text": " ", "label": "b"}]
    lines += [{"text": "same", "label": "a"}] * 6
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = cli("data", "check", data)
    assert "error: empty in" in found.out
    assert "label conflict" not in found.out
    assert f"duplicate in {data}: 5" in found.out
    assert "  and 2 more" in found.out.splitlines()


def test_the_example_answers_its_tickets(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--model", world.path("model"), "--folder", "there", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["support_csv.py", *flags])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr()
    assert said.out.count("$ foreword ") == 3
    assert "1 row is left without an answer:" in said.err
    assert "of 8 answers are below 0.6" in said.err
    found = table(tmp_path / "there" / "answered.csv")
    assert [row["Nr"] for row in found] == [f"{n:04d}" for n in range(101, 110)]
    assert list(found[0]) == ["Nr", "Anfrage", "Status", "label", "probability"]
    assert found[3]["Anfrage"] == 'Der Toaster ist kaputt; er zeigt nur "Fehler 3".'
