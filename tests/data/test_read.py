"""Reading files, folders and hub ids, and bringing rows to their canonical shapes."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from foreword.data.folder import DEV, TEST
from foreword.data.read import read_rows
from foreword.data.row import Row, kind
from foreword.data.rows import as_rows
from foreword.data.shapes import canonical, require
from foreword.errors import UserError
from foreword.reporter import Reporter

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROWS = [{"text": "good film", "label": "pos"}, {"text": "bad — très", "label": "neg"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fields(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in rows]


def wheres(rows: list[Row]) -> list[str]:
    return [row.where for row in rows]


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


# Formats -----------------------------------------------------------------------------------------

JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = "text,label\ngood film,pos\nbad — très,neg\n"
TEXTS = {
    "a.jsonl": JSONL,
    "a.ndjson": JSONL.rstrip("\n"),
    "a.JSONL": JSONL.replace("\n", "\r\n"),
    "a.json": json.dumps(ROWS, indent=2),
    "b.json": json.dumps({"version": 1, "data": ROWS}),
    "a.csv": CSV,
    "b.csv": CSV.replace("text,label", "text, label").replace("\n", "\r\n"),
    "a.tsv": CSV.replace(",", "\t"),
}


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("zipped", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_formats_give_the_same_rows(name: str, zipped: bool, mark: str) -> None:
    data = (mark + TEXTS[name]).encode()
    name += ".gz" * zipped
    Path(name).write_bytes(gzip.compress(data) if zipped else data)
    rows = read_rows(name)
    assert fields(rows) == ROWS
    first = 2 if "sv" in name else 1
    assert wheres(rows) == [f"{name}:{first}", f"{name}:{first + 1}"]


def test_parquet(folder: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), "a.parquet")
    rows = read_rows(folder / "a.parquet")
    assert fields(rows) == ROWS
    assert wheres(rows) == [f"{folder}/a.parquet:1", f"{folder}/a.parquet:2"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n" + JSONL.encode())))
    rows = read_rows("-")
    assert fields(rows) == ROWS
    assert wheres(rows) == ["<stdin>:2", "<stdin>:3"]


def test_jsonl_counts_blank_lines_and_keeps_odd_separators() -> None:
    odd = "a\u2028b\u0085c"
    line = json.dumps({"text": odd}, ensure_ascii=False)
    Path("a.jsonl").write_text(f'{{"text": "x"}}\n\n  \n{line}\n\n', encoding="utf-8")
    rows = read_rows("a.jsonl")
    assert fields(rows) == [{"text": "x"}, {"text": odd}]
    assert wheres(rows) == ["a.jsonl:1", "a.jsonl:4"]


def test_csv_lines_are_physical() -> None:
    Path("a.csv").write_text(
        '\ntext,label\n"two\nlines, ""quoted""",pos\n\n   \nlast,neg\n', encoding="utf-8"
    )
    rows = read_rows("a.csv")
    assert wheres(rows) == ["a.csv:3", "a.csv:7"]
    assert rows[0].fields["text"] == 'two\nlines, "quoted"'


def test_columns_are_renamed() -> None:
    Path("a.csv").write_text("sentence,text,id\nhello,old,7\n", encoding="utf-8")
    assert fields(read_rows("a.csv", columns={"text": "sentence"})) == [
        {"text": "hello", "id": "7"}
    ]
    swapped = read_rows("a.csv", columns={"text": "sentence", "sentence": "text"})
    assert fields(swapped) == [{"text": "hello", "sentence": "old", "id": "7"}]


# Mistakes in files -------------------------------------------------------------------------------

MISTAKES = [
    ("a.jsonl", b"", "a.jsonl: the file is empty; write at least one row"),
    ("a.csv", b"\n \n", "a.csv: the file is empty; write at least one row"),
    ("a.csv", b"text,label\n", "a.csv: no rows; write at least one"),
    ("a.csv", b'""\n', "a.csv: no rows; write at least one"),
    ("a.json", b"[]", "a.json: no rows; write at least one"),
    (
        "a.jsonl",
        b'{"text": "x"}\n{"text": "caf\xe9"}\n',
        "a.jsonl:2: not UTF-8 (byte 27 of the file is 0xe9); save as UTF-8",
    ),
    (
        "a.csv",
        "text\n\u6587\n".encode("gbk"),
        "a.csv:2: not UTF-8 (byte 5 of the file is 0xce); save as UTF-8, in Excel as CSV UTF-8",
    ),
    (
        "a.csv",
        "text\nx\n".encode("utf-16")[:-1],
        "a.csv:2: not UTF-16-LE (byte 14 of the file is 0x0a); save as UTF-8, in Excel as CSV "
        "UTF-8",
    ),
    (
        "a.jsonl",
        b'{"text": "x"}\n\n{"text": "y" "label": 1}\n',
        "a.jsonl:3: not valid JSON at column 14 (Expecting ',' delimiter); write one object a line",
    ),
    (
        "a.jsonl",
        b'[\n{"text": "x"}\n]\n',
        "a.jsonl:1: not valid JSON at column 2 (Expecting value); rename it to .json",
    ),
    (
        "a.jsonl",
        b'[{"text": "x"}]\n',
        'a.jsonl:1: expected an object such as {"text": ..., "label": ...}, found a list; '
        "rename it to .json",
    ),
    (
        "a.jsonl",
        b'{"text": "x"}\n"y"\n',
        'a.jsonl:2: expected an object such as {"text": ..., "label": ...}, found text; '
        "write one object a line",
    ),
    (
        "a.jsonl",
        b'{"text": ' + b"[" * 100_000,
        "a.jsonl:1: JSON nested too deeply, or a number too long; store it as text",
    ),
    (
        "a.jsonl",
        b'{"text": ' + b"9" * 5000 + b"}",
        "a.jsonl:1: JSON nested too deeply, or a number too long; store it as text",
    ),
    (
        "a.json",
        b'[\n {"text": "x"},\n {"text": }\n]',
        "a.json:3: not valid JSON at column 11 (Expecting value); mend the JSON there",
    ),
    (
        "a.json",
        b'{"text": "x"}\n{"text": "y"}\n',
        "a.json:2: not valid JSON at column 1 (Extra data); "
        "name it .jsonl if it holds one object a line",
    ),
    (
        "a.json",
        b'[{"text": "x"}, null]',
        'a.json:2: expected an object such as {"text": ..., "label": ...}, found null; '
        "write each row as one",
    ),
    (
        "a.json",
        b'{"rows": []}',
        'a.json:1: expected a list of objects or {"data": [...]}, found an object without such a '
        "list; put the rows in one",
    ),
    (
        "a.json",
        b"3",
        'a.json:1: expected a list of objects or {"data": [...]}, found a number; '
        "put the rows in one",
    ),
    (
        "a.csv",
        b"text,label\nx,pos\nwell, then,neg\n",
        "a.csv:3: cells in this row: 3, in the header: 2 (text, label); fill the row, or quote a "
        "cell that holds a comma",
    ),
    (
        "a.tsv",
        b"text\tlabel\nx\n",
        "a.tsv:2: cells in this row: 1, in the header: 2 (text, label); fill the row, or quote a "
        "cell that holds a tab",
    ),
    ("a.csv", b"\ntext, text\nx,y\n", "a.csv:2: two columns are named 'text'; rename one"),
    (
        "a.csv",
        b"text,,\nx,,\nx,,y\n",
        "a.csv:3: cells in this row: 3, in the header: 1 (text); "
        "fill the row, or quote a cell that holds a comma",
    ),
    ("a.csv", b"a,,,b\nx,,,y\n", "a.csv:1: two columns have no name; name them"),
    (
        "a.xls",
        b"",
        "a.xls: cannot tell its format from the ending '.xls'; save it as CSV (in Excel: Save As, "
        "CSV UTF-8)",
    ),
    (
        "a.txt",
        b"hello",
        "a.txt: cannot tell its format from the ending '.txt'; "
        "known are: .jsonl, .ndjson, .json, .csv, .tsv, .xlsx, .parquet",
    ),
    (
        "a.jsonlines",
        b"{}",
        "a.jsonlines: cannot tell its format from the ending '.jsonlines'; "
        "did you mean '.jsonl'? (known: .jsonl, .ndjson, .json, .csv, .tsv, .xlsx, .parquet)",
    ),
    (
        "a.csv.gz",
        b"text\nx\n",
        "a.csv.gz: not a whole gzip file (Not a gzipped file (b'te')); compress it again",
    ),
    (
        "a.csv.gz",
        gzip.compress(b"text\nx\n" * 9)[:-12],
        "a.csv.gz: not a whole gzip file (Compressed file ended before the end-of-stream marker "
        "was reached); compress it again",
    ),
]


@pytest.mark.parametrize(("name", "data", "line"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_file_mistakes(name: str, data: bytes, line: str) -> None:
    Path(name).write_bytes(data)
    assert complaint(lambda: read_rows(name)) == line


def test_bad_parquet() -> None:
    pytest.importorskip("pyarrow")
    Path("a.parquet").write_bytes(b"PAR1 not really")
    line = complaint(lambda: read_rows("a.parquet"))
    assert line.startswith("a.parquet: not a whole Parquet file (")
    assert line.endswith("); write it again")


def test_parquet_of_broken_texts() -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken}), "a.parquet")
    line = complaint(lambda: read_rows("a.parquet"))
    assert line.startswith("a.parquet: not a whole Parquet file ('utf-8' codec can't decode")


def test_missing_files() -> None:
    assert complaint(lambda: read_rows("train.jsonl")) == (
        "train.jsonl: no such file or folder; the folder '.' holds none"
    )
    assert complaint(lambda: read_rows(Path("no/train"))) == (
        "no/train: no such file or folder; the folder 'no' does not exist either"
    )
    for name in ("trian.jsonl", "dev.jsonl", "notes.md"):
        Path(name).touch()
    assert complaint(lambda: read_rows("train.jsonl")) == (
        "train.jsonl: no such file or folder; did you mean 'trian.jsonl'? "
        "(known: trian.jsonl, dev.jsonl)"
    )


@pytest.mark.parametrize("name", ["", ":train"])
def test_an_empty_name_is_not_this_folder(name: str) -> None:
    Path("train.csv").write_text(CSV, "utf-8")
    assert complaint(lambda: read_rows(name)) == (
        "an empty name was given for rows; give a file, a folder or a hub id"
    )
    assert fields(read_rows(".")) == ROWS


def test_missing_file_in_a_large_folder_names_few() -> None:
    for number in range(50):
        Path(f"part-{number}.csv").touch()
    assert complaint(lambda: read_rows("part-7b.csv")).count("part-") == 1 + 1 + 5


def test_unreadable_file(folder: Path) -> None:
    Path("a.jsonl").write_text(JSONL, encoding="utf-8")
    Path("a.jsonl").chmod(0)
    if os.access("a.jsonl", os.R_OK):
        pytest.skip("this user may read anything")
    assert complaint(lambda: read_rows("a.jsonl")) == (
        "a.jsonl: cannot be read (Permission denied); check the file"
    )


def test_name_too_long_for_the_system() -> None:
    name = "x" * 5000 + ".jsonl"
    assert complaint(lambda: read_rows(name)).endswith(
        "x.jsonl: cannot be read (File name too long); check the file"
    )


def test_absent_column() -> None:
    Path("a.jsonl").write_text('{"sentence": "x"}\n{"sentnce": "y"}\n', encoding="utf-8")
    assert complaint(lambda: read_rows("a.jsonl", columns={"text": "sentence"})) == (
        "a.jsonl:2: no column 'sentence' to read 'text' from; "
        "did you mean 'sentnce'? (known: sentnce)"
    )


def test_split_of_one_file() -> None:
    Path("a.jsonl").write_text(JSONL, encoding="utf-8")
    assert complaint(lambda: read_rows("a.jsonl", split="dev")) == (
        "a.jsonl: is one file, so there is no split 'dev' to pick; leave the split out"
    )


# Folders and hub ids -----------------------------------------------------------------------------


def test_folder_of_plainly_named_files_keeps_lines() -> None:
    Path("set").mkdir()
    Path("set/train.jsonl").write_text(JSONL, encoding="utf-8")
    Path("set/dev.jsonl.gz").write_bytes(gzip.compress(JSONL.encode() + b"oops\n"))
    Path("set/train.md").touch()
    assert wheres(read_rows("set")) == ["set/train.jsonl:1", "set/train.jsonl:2"]
    line = complaint(lambda: read_rows("set", split="dev"))
    assert line.startswith("set/dev.jsonl.gz:3: not valid JSON")


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return module


def test_a_folder_is_read_as_its_files_are() -> None:
    """No value changes: `datasets` would make 1 of 01, 1.5 of 1.50 and a date of a text."""
    texts = {
        "train-00000-of-00002.csv": "id,text,label\n01,1.50,NA\n",
        "train-00001-of-00002.csv": "id,text,label\n002,true,null\n1e3,x\n",
        "data/test.jsonl": '{"text": "2024-01-01", "label": 1}\n',
        "validation/part-10.jsonl": '{"text": "last", "label": "01"}\n',
        "validation/part-2.jsonl": '{"text": "first", "label": "01"}\n',
        "README.md": "---\nlicense: mit\n---\n",
        ".cache/train.csv": "id\n1\n",
        "dataset_infos.json": "{}",
    }
    for name, text in texts.items():
        Path("text", name).parent.mkdir(parents=True, exist_ok=True)  # also a builder of `datasets`
        Path("text", name).write_text(text, "utf-8")
    errors: list[UserError] = []
    rows = read_rows("text", on_bad=errors.append)
    assert [list(row.values()) for row in fields(rows)] == [
        ["01", "1.50", "NA"],
        ["002", "true", "null"],
    ]
    assert wheres(rows) == ["text/train-00000-of-00002.csv:2", "text/train-00001-of-00002.csv:2"]
    assert [str(error).partition(": ")[0] for error in errors] == [
        "text/train-00001-of-00002.csv:3"
    ]
    assert fields(read_rows("text", split=TEST)) == [{"text": "2024-01-01", "label": 1}]
    assert [row["text"] for row in fields(read_rows("text", split=DEV))] == ["first", "last"]
    assert read_rows("text:dev") == read_rows("text", split=DEV)
    assert complaint(lambda: read_rows("text:trian")) == (
        "text: no split 'trian'; did you mean 'train'? (known: test, train, validation)"
    )


def test_a_folder_reads_the_files_that_have_no_other_name() -> None:
    Path("set").mkdir()
    for name in ("zh_train", "train_notes"):
        Path(f"set/{name}.jsonl").write_text('{"text": "x", "label": "y"}\n', "utf-8")
    assert len(read_rows("set")) == 2
    Path("set/train.csv").write_text(CSV, encoding="utf-8")
    assert wheres(read_rows("set")) == ["set/train.csv:2", "set/train.csv:3"]
    assert wheres(read_rows("set:zh_train")) == ["set/zh_train.jsonl:1"]


def test_a_folder_says_what_it_is_read_from() -> None:
    class Lines(Reporter):
        heard: ClassVar[list[str]] = []

        def line(self, text: str) -> None:
            self.heard.append(text)

    Path("set").mkdir()
    for part in (1, 2):
        Path(f"set/train_{part}.jsonl").write_text(JSONL, encoding="utf-8")
    assert len(read_rows("set", report=Lines())) == 4
    assert Lines.heard == ["set: rows are read from 2 files, set/train_1.jsonl ..."]
    Path("set/train.csv").write_text(CSV, encoding="utf-8")
    assert complaint(lambda: read_rows("set")) == (
        "set: has rows of 'train' in several formats (set/train.csv, set/train_1.jsonl); give one "
        "file"
    )


def test_a_readme_says_which_files_are_of_a_split() -> None:
    Path("set/more").mkdir(parents=True)
    for name, text in (("a.csv", CSV), ("more/b.csv", CSV), ("more/c.csv", "text,label\nx,y\n")):
        Path("set", name).write_text(text, encoding="utf-8")
    named = "data_files: [{split: train, path: [a.csv, more/b.csv]}, {split: held, path: more/c*}]"
    one = f"- config_name: one\n  {named}\n"
    for head in (f"configs:\n{one}", f"configs:\n{one}  default: true\n- {{config_name: two}}\n"):
        Path("set/README.md").write_text(f"---\n{head}---\n# A set\n", "utf-8")
        assert fields(read_rows("set")) == ROWS * 2
        assert fields(read_rows("set:held")) == [{"text": "x", "label": "y"}]
    other = "- config_name: two\n  data_files: a.csv\n"
    Path("set/README.md").write_text(f"---\nconfigs:\n{one}{other}---\n", "utf-8")
    assert complaint(lambda: read_rows("set")) == (
        "set: its README.md names several configurations (one, two); give a file of one"
    )


def test_a_readme_that_says_nothing_of_use_is_told_or_left() -> None:
    Path("set").mkdir()
    Path("set/a.csv").write_text(CSV, encoding="utf-8")
    Path("set/README.md").write_text("---\nconfigs: 5\n---\n", "utf-8")
    assert fields(read_rows("set")) == ROWS
    for path in ("/abs/*.csv", ""):
        head = f"configs: [{{data_files: [{{split: train, path: '{path}'}}]}}]"
        Path("set/README.md").write_text(f"---\n{head}\n---\n", "utf-8")
        assert complaint(lambda: read_rows("set")) == (
            f"set: its README.md names '{path}', which is no path in the folder; mend it, or give "
            "a file"
        )


def test_folder_without_rows() -> None:
    Path("set").mkdir()
    Path("set/state.txt").touch()
    assert complaint(lambda: read_rows("set")) == (
        "set: holds no files of rows (.jsonl, .ndjson, .json, .csv, .tsv, .xlsx, .parquet); give a "
        "file"
    )


def test_class_labels_have_their_names_wherever_rows_are(datasets: Any) -> None:
    """In one file, in shards, saved, and in memory; alone, in lists and in objects."""
    import pyarrow.parquet

    label = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(
        text=datasets.Value("string"),
        label=label,
        tags=datasets.Sequence(label),
        about={"kind": label},
        parts=[{"kind": label}],
    )
    about = [{"tags": [0, 1], "about": {"kind": 1}, "parts": [{"kind": 0}]} for _ in range(3)]
    rows = [{"text": f"t{n}", "label": n, **about[n]} for n in (1, 0, -1)]
    made = datasets.Dataset.from_list(rows, features=features)
    Path("set").mkdir()
    for name in ("one.parquet", "set/train-0.parquet"):
        made.to_parquet(name)
    made.save_to_disk("saved")
    seen = {"tags": ["neg", "pos"], "about": {"kind": "pos"}, "parts": [{"kind": "neg"}]}
    expected = [
        {"text": "t1", "label": "pos", **seen},
        {"text": "t0", "label": "neg", **seen},
        {"text": "t-1", "label": None, **seen},
    ]
    for source in ("one.parquet", "set", "saved", made, pyarrow.parquet.read_table("one.parquet")):
        assert fields(as_rows(source)) == expected
    assert wheres(read_rows("set"))[2] == "set/train-0.parquet:3"


def test_saved_folder_names_its_labels(datasets: Any) -> None:
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
    )
    rows = [{"text": "x", "label": 1}, {"text": "y", "label": 0}, {"text": "z", "label": -1}]
    part = datasets.Dataset.from_list(rows, features=features, split="dev")
    datasets.DatasetDict(dev=part).save_to_disk("several")
    part.save_to_disk("one")
    expected = [
        {"text": "x", "label": "pos"},
        {"text": "y", "label": "neg"},
        {"text": "z", "label": None},
    ]
    assert fields(read_rows("several", split="dev")) == expected
    assert fields(read_rows("one")) == expected  # a single part needs no split to be named
    assert complaint(lambda: read_rows("one", split="train")) == (
        "one: no split 'train'; known is: dev"
    )
    assert complaint(lambda: read_rows("several")) == "several: no split 'train'; known is: dev"


@pytest.mark.parametrize("source", ["glue/sst2", "owner/name/configuration"])
def test_hub_id_out_of_reach(datasets: Any, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    asked = []

    def offline(*given: object) -> object:
        asked.append(given)
        raise ConnectionError("Couldn't reach it on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert complaint(lambda: read_rows(source)) == (
        f"{source}: no such file or folder; and no such dataset within reach (Couldn't reach it on "
        "the Hub): check the spelling, or give a local file"
    )
    assert asked == [("owner/name", "configuration") if source.count("/") == 2 else (source, None)]


def test_misspelt_folder_is_compared_with_its_neighbours(
    datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> object:
        raise datasets.exceptions.DatasetNotFoundError("Not on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    Path("data/sst2").mkdir(parents=True)
    assert complaint(lambda: read_rows("data/sst-2")) == (
        "data/sst-2: no such file or folder; did you mean 'sst2'? (known: sst2); and no such "
        "dataset within reach (Not on the Hub): check the spelling, or give a local file"
    )


def test_bare_word_is_no_hub_id(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked the hub"))
    Path("sst2").mkdir()
    assert complaint(lambda: read_rows("sst3")) == (
        "sst3: no such file or folder; did you mean 'sst2'? (known: sst2)"
    )


def test_hub_id_in_reach(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = datasets.DatasetDict(validation=datasets.Dataset.from_list(ROWS))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: loaded)
    rows = read_rows("owner/name", split="validation")
    assert fields(rows) == ROWS
    assert wheres(rows) == ["owner/name:1", "owner/name:2"]


def test_the_split_of_a_data_set_goes_by_what_its_rows_are_for(
    datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: [{"text": name, "label": "a"}] for name in ("train", "validation", "test")}
    loaded = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(loaded))
    assert fields(read_rows("owner/name")) == parts["train"]
    assert fields(read_rows("owner/name", split=DEV)) == parts["validation"]
    assert fields(read_rows("owner/name", split=TEST)) == parts["test"]
    assert fields(read_rows("owner/name:test", split=DEV)) == parts["test"]
    assert fields(read_rows("owner/name/configuration:validation")) == parts["validation"]
    del loaded["validation"]
    assert complaint(lambda: read_rows("owner/name", split=DEV)) == (
        "owner/name: no split 'validation'; known are: train, test; "
        "name one, such as owner/name:train"
    )


def test_a_folder_of_rows_without_splits_is_read_for_any_use(datasets: Any) -> None:
    Path("rows").mkdir()
    Path("rows/one.jsonl").write_text(JSONL, encoding="utf-8")
    assert fields(read_rows("rows", split=TEST)) == fields(read_rows("rows"))
    Path("rows/dev.jsonl").write_text('{"text": "held", "label": "a"}\n', encoding="utf-8")
    assert fields(read_rows("rows", split=DEV)) == [{"text": "held", "label": "a"}]
    assert fields(read_rows("rows:dev")) == [{"text": "held", "label": "a"}]
    assert complaint(lambda: read_rows("rows/one.jsonl:dev")) == (
        "rows/one.jsonl: is one file, so there is no split 'dev' to pick; leave the split out"
    )


# Shapes ------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SHAREGPT = [
    {"from": "system", "value": "be kind"},
    {"from": "human", "value": "hi"},
    {"from": "gpt", "value": "hello"},
]
ALPACA = {"instruction": "Translate.", "input": "oui", "output": "yes"}

SHAPES = [
    ({"text": "x", "label": "a", "id": 1}, "text,label", {}),
    ({"text_a": "x", "text_b": "y", "label": 2.5}, "text_a,text_b,label", {}),
    ({"prompt": "x", "completion": "y"}, "prompt,completion", {}),
    ({"prompt": "x", "completion": "y", "references": ["y", "z"]}, "prompt,completion", {}),
    (ALPACA, "instruction,input,output", {"prompt": "Translate.\noui", "completion": "yes"}),
    (
        ALPACA | {"input": ""},
        "instruction,input,output",
        {"prompt": "Translate.", "completion": "yes"},
    ),
    ({"messages": CHAT}, "messages", {}),
    ({"messages": [{"role": "system", "content": ""}, *CHAT], "prompt": "x"}, "messages", {}),
    ({"sentence": "x", "label": 1}, "fields", {}),
    ({"text": "x"}, "fields", {}),
]


@pytest.mark.parametrize(("given", "name", "made"), SHAPES)
def test_shapes(given: dict[str, Any], name: str, made: dict[str, Any]) -> None:
    assert canonical([Row(given, "a.jsonl:1")]) == (name, [Row({**given, **made}, "a.jsonl:1")])


def test_sharegpt_becomes_messages() -> None:
    name, rows = canonical([Row({"conversations": SHAREGPT, "id": 3}, "a.jsonl:1")])
    system = {"role": "system", "content": "be kind"}
    assert name == "conversations"
    assert rows == [Row({"id": 3, "messages": [system, *CHAT]}, "a.jsonl:1")]


@pytest.mark.parametrize(
    ("given", "name", "made"),
    [
        ({"text": "x"}, "text,label", {}),
        ({"text_a": "x", "text_b": "y"}, "text_a,text_b,label", {}),
        ({"prompt": "x"}, "prompt,completion", {}),
        ({"instruction": "Do."}, "instruction,input,output", {"prompt": "Do."}),
        ({"messages": CHAT[:1]}, "messages", {}),
    ],
)
def test_rows_to_predict_need_no_targets(
    given: dict[str, Any], name: str, made: dict[str, Any]
) -> None:
    rows = [Row(given, "a.jsonl:1")]
    assert canonical(rows, targets=False) == (name, [Row({**given, **made}, "a.jsonl:1")])


def test_no_rows_have_no_shape() -> None:
    assert canonical([]) == ("fields", [])


def turn(role: object, content: object) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}, CHAT[1]]}


SHAPE_MISTAKES = [
    (
        [{"text": "x", "label": "a"}, {"txt": "y", "label": "a"}],
        "a:2: missing field 'text'; did you mean 'txt'? (known: txt, label)",
    ),
    (
        [{"prompt": "x", "completion": "y", "references": "y"}],
        'a:1: field "references" is text, expected a list of texts; make it one',
    ),
    (
        [{"prompt": "x", "completion": "y", "references": []}],
        'a:1: field "references" is an empty list; fill it or leave it out',
    ),
    (
        [{"prompt": "x", "completion": "y", "references": ["y", None]}],
        'a:1: field "references" holds null, expected texts; mend or remove item 1',
    ),
    (
        [{"prompt": "x", "completion": "y", "references": ["y", " "]}],
        'a:1: field "references[1]" is empty; fill it or remove the row',
    ),
    (
        [ALPACA | {"instruction": " "}],
        'a:1: field "instruction" is empty; fill it or remove the row',
    ),
    (
        [ALPACA, ALPACA | {"input": ["oui"]}],
        'a:2: field "input" is a list, expected text; write it as one string',
    ),
    (
        [{"messages": []}],
        'a:1: field "messages" is an empty list, expected a list of '
        '{"role": ..., "content": ...}; fill it or remove the row',
    ),
    (
        [{"conversations": "hi"}],
        'a:1: field "conversations" is text, expected a list of '
        '{"from": ..., "value": ...}; fill it or remove the row',
    ),
    (
        [{"messages": [CHAT[0], "hello"]}],
        'a:1: messages[1] is not an object with "role" and "content"; write it so',
    ),
    (
        [{"messages": [{"who": "user", "value": "hi"}]}],
        'a:1: messages[0] is not an object with "role" and "content"; write it so',
    ),
    (
        [turn("usr", "x")],
        "a:1: messages[0] has the unknown \"role\" 'usr'; did you mean 'user'? "
        "(known: system, user, assistant)",
    ),
    (
        [turn(["user"], "x")],
        "a:1: messages[0] has the unknown \"role\" ['user']; did you mean 'user'? "
        "(known: system, user, assistant)",
    ),
    (
        [{"conversations": [{"from": "humn", "value": "x"}]}],
        "a:1: conversations[0] has the unknown \"from\" 'humn'; did you mean 'human'? "
        "(known: system, human, gpt)",
    ),
    (
        [turn("user", None)],
        "a:1: messages[0].content is null, expected text; write it as one string",
    ),
    (
        [turn("user", [{"type": "text"}])],
        'a:1: messages[0].content[0] is not {"type": "text", "text": ...}; write it so',
    ),
    (
        [turn("user", "\ud83d")],
        'a:1: field "messages[0].content" holds half a character (\\ud83d); remove it',
    ),
    (
        [{"messages": CHAT}, {"messages": CHAT[:1]}],
        "a:2: field \"messages\" ends with 'user', but the last turn is what is learned; "
        "end with the assistant's, or remove the row",
    ),
    (
        [{"conversations": SHAREGPT[:2]}],
        "a:1: field \"conversations\" ends with 'human', but the last turn is what is learned; "
        "end with the assistant's, or remove the row",
    ),
    (
        [{"messages": [CHAT[0], {"role": "assistant", "content": ""}]}],
        'a:1: field "messages[1].content" is empty; fill it or remove the row',
    ),
]


@pytest.mark.parametrize(("given", "line"), SHAPE_MISTAKES, ids=[m[1][:60] for m in SHAPE_MISTAKES])
def test_shape_mistakes(given: list[dict[str, Any]], line: str) -> None:
    rows = [Row(row, f"a:{n}") for n, row in enumerate(given, start=1)]
    assert complaint(lambda: canonical(rows)) == line


# Required fields ---------------------------------------------------------------------------------

UNFIT = [
    ({}, "a:2: missing field 'text'; none is known"),
    ({"tekst": "x"}, "a:2: missing field 'text'; did you mean 'tekst'? (known: tekst)"),
    ({"text": ""}, 'a:2: field "text" is empty; fill it or remove the row'),
    ({"text": " \n\u3000"}, 'a:2: field "text" is empty; fill it or remove the row'),
    ({"text": None}, 'a:2: field "text" is empty; fill it or remove the row'),
    (
        {"text": float("nan")},
        'a:2: field "text" is NaN, an empty cell to most tools; fill it or remove the row',
    ),
    ({"text": ["x"]}, 'a:2: field "text" is a list, expected text; write it as one string'),
    ({"text": {"x": 1}}, 'a:2: field "text" is an object, expected text; write it as one string'),
    ({"text": b"x"}, 'a:2: field "text" is of type bytes, expected text; write it as one string'),
    ({"text": "x\udc00"}, 'a:2: field "text" holds half a character (\\udc00); remove it'),
]


@pytest.mark.parametrize(("second", "line"), UNFIT, ids=[u[1][:50] for u in UNFIT])
def test_require_refuses(second: dict[str, Any], line: str) -> None:
    rows = [Row({"text": "fine"}, "a:1"), Row(second, "a:2")]
    assert complaint(lambda: require(rows, iter(["text"]))) == line


@pytest.mark.parametrize("value", ["x", "\U0001f600", 0, -1, 2.5, False, True])
def test_require_accepts(value: object) -> None:
    require([Row({"text": value, "other": None}, "a:1")], ["text"])


def test_kinds() -> None:
    values = [None, True, 3, 2.5, "x", [], {}]
    assert [kind(v) for v in values] == (
        ["null", "true or false", "a number", "a number", "text", "a list", "an object"]
    )


# Real sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "count", "shape"),
    [
        ("sst2/train.jsonl", 6920, "text,label"),
        ("chnsenticorp/dev.jsonl", 800, "text,label"),
        ("stsb/dev.jsonl", 1500, "text_a,text_b,label"),
        ("e2e/train.jsonl.gz", 42061, "prompt,completion"),
        ("e2e/dev.jsonl", 547, "prompt,completion"),
        ("sgd/dev.jsonl", 412, "messages"),
        ("multi30k/dev.jsonl", 1014, "fields"),
        ("sst2", 6920, "text,label"),
    ],
)
def test_real_sets(source: str, count: int, shape: str) -> None:
    path = SHARED / source
    if not path.exists():
        pytest.skip(f"{source} is not on this machine")
    name, rows = canonical(read_rows(path))
    assert (name, len(rows)) == (shape, count)
    assert rows[-1].where.endswith(f":{count}")


def test_a_formula_that_was_never_computed_is_no_empty_cell(tmp_path: Path) -> None:
    """Found by fuzzing: what openpyxl or pandas write has formulas without their values."""
    from openpyxl import Workbook

    book = Workbook()
    assert book.active is not None
    for row in (["text", "label"], ["a", ""], ["=1+1", "b"]):
        book.active.append(row)
    book.save(tmp_path / "f.xlsx")
    with pytest.raises(UserError, match=r"f\.xlsx:3: a formula here has no value"):
        read_rows(tmp_path / "f.xlsx")
    book.active["A3"] = "1+1"
    book.save(tmp_path / "f.xlsx")
    assert [row.fields["text"] for row in read_rows(tmp_path / "f.xlsx")] == ["a", "1+1"]
