"""Cases for all commands: mostly right ones, in the many ways that people write them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from foreword.data.read import read_rows
from fuzzing.plain_rows import plain_rows
from fuzzing.world import Answer, World, call

WORDS = ["film", "it", "was", "a", "good", "bad", "and", "3.5", "-1", "N/A", "it's", "1,5", "x;y"]
ODD = ['"', "''", "é", "\u2028", "\u200b", "日本", "🙂", "{text}", "[mask]", "\\n", "=1+1", "<end>"]
LABELS = [("good", "bad"), ("1", "0"), ("-1", "1"), ("yes", "no", "don't know"), ("A-1", "B-2")]

words = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(ODD))
texts = st.lists(words, min_size=1, max_size=6).map(" ".join).filter(str.strip)
plain_texts = st.lists(st.sampled_from(WORDS[:6]), min_size=1, max_size=6).map(" ".join)


@dataclass(frozen=True)
class Table:
    """A file of rows, and how it is written."""

    ending: str
    rows: tuple[dict[str, Any], ...]
    sign: str = ","
    quoting: int = csv.QUOTE_MINIMAL
    end: str = "\n"
    mark: bool = False
    margin: bool = False
    blank: int | None = None  # a blank line behind this row
    spoilt: tuple[str, int] | None = None  # something that is wrong, and where

    def write(self, file: Path) -> Path:
        """Write the file."""
        file = file.with_suffix(self.ending)
        if self.ending == ".xlsx":
            from openpyxl import Workbook

            book = Workbook()
            assert book.active is not None
            book.active.append(list(self.rows[0]))
            for row in self.rows:
                book.active.append(list(row.values()))
            book.save(file)
            return file
        if self.ending == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(list(self.rows)), file)
            return file
        if self.ending in (".csv", ".tsv"):
            lines = self._cells()
        elif self.ending == ".json":
            lines = [json.dumps(self.rows, ensure_ascii=bool(len(self.rows) % 2))]
        else:
            lines = [json.dumps(row, ensure_ascii=bool(len(self.rows) % 2)) for row in self.rows]
        if self.blank is not None and self.ending != ".json":
            lines.insert(min(self.blank + 1, len(lines)), "")
        text = self.end.join([*lines, ""])
        if self.spoilt is not None:
            what, where = self.spoilt
            at = where % (len(text) + 1)
            text = text[:at] + what + text[at:]
        file.write_bytes(text.encode("utf-8-sig" if self.mark else "utf-8", "surrogatepass"))
        return file

    def _cells(self) -> list[str]:
        sign, lines = self.sign, []
        for row in [list(self.rows[0]), *(list(row.values()) for row in self.rows)]:
            text = io.StringIO()
            csv.writer(text, delimiter=sign, quoting=self.quoting, lineterminator="").writerow(row)
            line = text.getvalue()
            if self.margin:  # "a, b": a space behind each delimiter, as people type
                line = f"{sign} ".join(_quoted(str(cell), sign) for cell in row)
            lines.append(line)
        return lines


def _quoted(cell: str, sign: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if sign in cell or '"' in cell else cell


@st.composite
def tables(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]], *, least: int = 2) -> Table:
    """Files of rows with these fields, one in eight of them spoilt."""
    count = draw(st.integers(least, least + 4))
    more = draw(st.sampled_from([{}, {"id": st.integers(0, 99).map(str)}, {"note": texts}]))
    made = [{name: draw(each) for name, each in {**more, **fields}.items()} for _ in range(count)]
    ending = draw(
        st.sampled_from([".csv", ".csv", ".jsonl", ".jsonl", ".tsv", ".json", ".ndjson", ".xlsx"])
    )
    listed = any(not isinstance(value, str) for row in made for value in row.values())
    if listed and ending in (".csv", ".tsv", ".xlsx"):
        ending = ".jsonl"
    if ending == ".xlsx" and draw(st.booleans()):
        ending = ".parquet"
    sign = "\t" if ending == ".tsv" else draw(st.sampled_from([",", ",", ";", "|"]))
    spoilt = None
    if ending not in (".xlsx", ".parquet") and draw(st.integers(0, 7)) == 0:
        wrong = ["{", '"', "\n", "\x00", "]", sign, "\ud800", '{"text": 1}', "\\", "\r"]
        spoilt = draw(st.sampled_from(wrong)), draw(st.integers(0, 500))
    return Table(
        ending,
        tuple(made),
        sign,
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(st.sampled_from(["\n", "\n", "\r\n"])),
        draw(st.integers(0, 3)) == 0,
        ending == ".csv" and draw(st.integers(0, 5)) == 0,
        draw(st.sampled_from([None, None, 0, 1])),
        spoilt,
    )


def labelled(*, odd: bool = True, least: int = 2) -> st.SearchStrategy[Table]:
    """Rows of texts and labels."""
    given = texts if odd else plain_texts
    return st.sampled_from(LABELS).flatmap(
        lambda labels: tables({"text": given, "label": st.sampled_from(labels)}, least=least)
    )


@dataclass(frozen=True)
class Case:
    """A command and its words; ``check`` raises AssertionError for a wrong answer."""

    command: str
    words: tuple[object, ...]
    check: Callable[[Answer], None] = lambda answer: None


Make = Callable[[st.DataObject, World], Case]


def same_rows(table: Table, file: Path) -> list[dict[str, Any]]:
    """Read a file as Foreword does, and hold it to the plain reader; return its rows."""
    found = [dict(row.fields) for row in read_rows(file, delimiter=_sign(table))]
    if table.spoilt is None:
        expected = plain_rows(file, table.sign, margin=table.margin)
        assert found == expected, f"{file.name}: read {found}, is {expected}"
    return found


def _sign(table: Table) -> str | None:
    return table.sign if table.ending in (".csv", ".tsv") else None


def _flags(table: Table) -> list[object]:
    return ["--delimiter", table.sign] if table.ending in (".csv", ".tsv") else []


def check(data: st.DataObject, world: World) -> Case:
    table = data.draw(labelled(), "table")
    file = table.write(world.fresh / "rows")

    def right(answer: Answer) -> None:
        count = len(same_rows(table, file))
        assert json.loads(answer.out)["splits"] is not None
        assert count

    words = ["data", "check", file, *_flags(table), "--json"]
    return Case("data check", tuple(words), right)


def clean(data: st.DataObject, world: World) -> Case:
    table = data.draw(labelled(), "table")
    folder = world.fresh
    file, out = table.write(folder / "rows"), folder / "out.jsonl"

    def right(answer: Answer) -> None:
        kept = plain_rows(out)
        if table.spoilt is not None:  # what cannot be read is left out
            return
        read = same_rows(table, file)
        assert 0 < len(kept) <= len(read)
        assert json.loads(answer.out)["kept"] == len(kept)
        assert all(list(row) == list(read[0]) for row in kept)

    return Case(
        "data clean", ("data", "clean", file, *_flags(table), "--out", out, "--json"), right
    )


def split(data: st.DataObject, world: World) -> Case:
    table = data.draw(labelled(least=12), "table")
    folder = world.fresh
    file, out = table.write(folder / "rows"), folder / "parts"
    share = data.draw(st.sampled_from(["0.3", "0.3", "0.4", "0.4", "0.9", "-0.1"]), "share")

    def right(answer: Answer) -> None:
        read = same_rows(table, file)
        sign = written if (written := _sign(table)) in (";", "\t") else ","
        parts = [row for part in sorted(out.iterdir()) for row in plain_rows(part, sign)]
        assert len(parts) == len(read)
        told = json.loads(answer.out)
        assert sum(each["rows"] for each in told.values()) == len(read)

    words = ("data", "split", file, *_flags(table), "--out", out, f"--dev={share}", "--test=0.3")
    return Case("data split", (*words, "--json"), right)


def predict(data: st.DataObject, world: World) -> Case:
    table = data.draw(labelled(), "table")
    folder = world.fresh
    file = table.write(folder / "rows")
    ending = data.draw(st.sampled_from([".jsonl", ".csv", ".tsv"]), "out")
    out = folder / f"out{ending}"
    prompt = data.draw(st.sampled_from(["classify", "soft", "lora"]), "prompt")
    skip = data.draw(st.sampled_from([[], [], ["--skip-bad"]]), "skip")

    def right(answer: Answer) -> None:
        if table.spoilt is not None:
            return
        read, sign = same_rows(table, file), "\t" if ending == ".tsv" else ","
        if ending == ".csv" and table.ending == ".csv" and table.sign == ";":
            sign = ";"
        lines = plain_rows(out, sign)
        texts = [{name: str(value) for name, value in row.items()} for row in read]
        assert [{name: str(line[name]) for name in read[0]} for line in lines] == texts
        assert {line["predicted_label"] for line in lines} <= {"good", "bad"}

    words = ["predict", world[f"{prompt}.safetensors"], "--data", file, "--out", out, *skip]
    return Case("predict", (*words, *_flags(table)), right)


def predict_texts(data: st.DataObject, world: World) -> Case:
    given = data.draw(st.lists(texts, min_size=1, max_size=3), "texts")
    prompt = data.draw(st.sampled_from(["classify", "generate"]), "prompt")

    def right(answer: Answer) -> None:
        lines = json.loads(answer.out)["predictions"]
        field = "text" if prompt == "classify" else "prompt"
        assert [line[field] for line in lines] == given

    words = ("predict", world[f"{prompt}.safetensors"], "--json", "--", *given)
    return Case("predict", words, right)


def evaluate(data: st.DataObject, world: World) -> Case:
    fields = {"text": texts, "label": st.sampled_from(["good", "bad"])}
    table = data.draw(tables(fields), "table")
    file = table.write(world.fresh / "rows")

    def right(answer: Answer) -> None:
        if table.spoilt is None:
            read = same_rows(table, file)
            said = json.loads(
                call("predict", *words[1:2], "--data", file, "--json", *_flags(table)).out
            )
            golds = [row["label"] for row in read]
            guesses = [line["predicted_label"] for line in said["predictions"]]
            accuracy = 100 * sum(map(str.__eq__, golds, guesses)) / len(golds)
            told = json.loads(answer.out)
            assert abs(told["accuracy"] - accuracy) < 0.006

    prompt = data.draw(st.sampled_from(["classify", "soft"]), "prompt")
    words = ("eval", world[f"{prompt}.safetensors"], "--data", file, "--json", *_flags(table))
    return Case("eval", words, right)


# Shapes ------------------------------------------------------------------------------------------

ROLES = {"messages": ("role", "content"), "conversations": ("from", "value")}
NAMES = {"role": ("user", "assistant", "system"), "from": ("human", "gpt", "system")}


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of a conversation in either shape."""
    field = draw(st.sampled_from(list(ROLES)))
    who, what = ROLES[field]
    user, assistant, system = NAMES[who]
    turns = [{who: system, what: draw(texts)}] if draw(st.integers(0, 3)) == 0 else []
    for _ in range(draw(st.integers(1, 2))):
        turns += [{who: user, what: draw(texts)}, {who: assistant, what: draw(texts)}]
    if draw(st.integers(0, 7)) == 0:
        wrong = [[], {who: "nobody"}, "text", {what: 1, who: user}, None]
        turns.insert(draw(st.integers(0, len(turns))), draw(st.sampled_from(wrong)))
    return {field: turns}


SHAPES: dict[str, tuple[str, dict[str, st.SearchStrategy[Any]]]] = {
    "prompt,completion": ("generate", {"prompt": texts, "completion": texts}),
    "instruction,input,output": (
        "generate",
        {"instruction": texts, "input": st.one_of(st.just(""), texts), "output": texts},
    ),
    "text_a,text_b,label": (
        "classify",
        {"text_a": texts, "text_b": texts, "label": st.sampled_from(["yes", "no"])},
    ),
    "numbers": ("score", {"text": texts, "score": st.floats(-5, 5).map(lambda x: round(x, 2))}),
    "lists": (
        "multilabel",
        {"text": texts, "labels": st.lists(st.sampled_from(["a", "b"]), unique=True)},
    ),
    "odd": ("classify", {"text": st.one_of(texts, st.none(), st.integers()), "label": texts}),
}


def shapes(data: st.DataObject, world: World) -> Case:
    kind = data.draw(st.sampled_from([*SHAPES, "conversation", "conversation"]), "kind")
    if kind == "conversation":
        given = data.draw(st.lists(conversations(), min_size=1, max_size=3), "rows")
        table = Table(data.draw(st.sampled_from([".jsonl", ".json"])), tuple(given))
    else:
        table = data.draw(tables(SHAPES[kind][1]), "table")
    file = table.write(world.fresh / "rows")

    def right(answer: Answer) -> None:
        same_rows(table, file)
        assert json.loads(answer.out)

    return Case("data check", ("data", "check", file, "--json", *_flags(table)), right)


# Runs --------------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "template": (
        ["{text} :", "{text}\nLabel:", "- {text} ->", "{text}", "Film: {text} ?", "{{x}} {text}"],
        ["{txet}", "{text", "", "[soft:0] {text}", "{demos:99} {text}", "{text} {", "[user]"],
    ),
    "method": (["soft", "prefix", "lora"], ["perfix", "", 1, "soft+"]),
    "epochs": ([1], [0, -1, "two", 1.5, True]),
    "rate": ([1e-3, "1e-3", 0.01], [-1, "fast", []]),
    "seed": ([0, 1, 7], [-1, None, "x"]),
    "batch_size": ([2, 4], [0, "4 rows"]),
    "max_length": ([64, 512], [0, 1, "long"]),
    "label_smoothing": ([0.0, 0.1], [1, -0.5, "some"]),
    "unknown": ([], [1]),
}
"""Settings of a run file: values that are right, and those that are not."""
ALWAYS = ("template", "method", "epochs")


def train(data: st.DataObject, world: World) -> Case:
    table = data.draw(labelled(odd=False, least=5), "table")
    folder = world.fresh
    file, out = table.write(folder / "rows"), folder / "p.safetensors"
    spoilt = data.draw(st.sampled_from([*[None] * 15, *SETTINGS]), "spoilt")
    lines: dict[str, Any] = {"model": str(world["model"]), "train": str(file)}
    for name, (right_ones, wrong_ones) in SETTINGS.items():
        if name == spoilt:
            lines[name] = data.draw(st.sampled_from(list(wrong_ones)), name)
        elif name in ALWAYS or (right_ones and data.draw(st.integers(0, 3), name) == 0):
            lines[name] = data.draw(st.sampled_from(list(right_ones)), name)
    if _sign(table) is not None:
        lines["delimiter"] = table.sign
    run = folder / data.draw(st.sampled_from(["run.yaml", "run.toml"]), "run file")
    kept = {name: value for name, value in lines.items() if value is not None}
    # JSON is YAML; and its texts, numbers and booleans are TOML's.
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in kept.items())
    run.write_text(json.dumps(kept) if run.suffix == ".yaml" else text)

    def right(answer: Answer) -> None:
        assert out.is_file()
        told = json.loads(call("info", out, "--json").out)
        assert told["method"]["name"] == lines["method"]
        assert told["task"]["template"] == lines["template"]
        if table.spoilt is None:
            labels = {row["label"] for row in same_rows(table, file)}
            assert set(told["task"]["labels"]) == labels

    return Case("train", ("train", "--config", run, "--out", out), right)


# Prompt files ------------------------------------------------------------------------------------


def info(data: st.DataObject, world: World) -> Case:
    name = data.draw(st.sampled_from(["classify", "soft", "lora", "generate"]), "prompt")
    whole = world[f"{name}.safetensors"].read_bytes()
    how = data.draw(st.sampled_from(["whole", "whole", "whole", "cut", "byte", "empty"]), "how")
    place = data.draw(st.integers(0, min(4000, len(whole) - 1)), "place")
    byte = data.draw(st.integers(0, 255), "byte")
    file = world.fresh / "p.safetensors"
    file.write_bytes(
        {
            "whole": whole,
            "cut": whole[:place],
            "byte": whole[:place] + bytes([byte]) + whole[place + 1 :],
            "empty": b"",
        }[how]
    )
    command = data.draw(
        st.sampled_from(["info", "info", "library", "predict", "export"]), "command"
    )
    folder = file.parent
    words = {
        "info": ("info", file, "--json"),
        "library": ("library", folder, "--json"),
        "predict": ("predict", file, "a film"),
        "export": ("export", file, folder / "peft"),
    }[command]

    def right(answer: Answer) -> None:
        assert how != "empty"
        if command == "info" and how == "whole":
            assert json.loads(answer.out)["task"]
        if command == "export" and how == "whole":
            assert (folder / "peft" / "adapter_config.json").is_file()

    return Case(command, words, right)


def exchange(data: st.DataObject, world: World) -> Case:
    folder = world.fresh
    name = data.draw(st.sampled_from(["classify", "soft", "lora"]), "prompt")
    source, peft = world[f"{name}.safetensors"], folder / "peft"
    assert call("export", source, peft).status == 0
    config = json.loads((peft / "adapter_config.json").read_text())
    if data.draw(st.booleans(), "changed"):
        key = data.draw(st.sampled_from(sorted(config)), "key")
        config[key] = data.draw(st.sampled_from([None, 0, "x", [], {}, config[key]]), "value")
        (peft / "adapter_config.json").write_text(json.dumps(config))
    out = folder / "back.safetensors"

    def right(answer: Answer) -> None:
        assert call("info", out, "--json").status == 0

    words = ("import", peft, out, "--model", world["model"], "--template", "{text} :")
    return Case("import", (*words, "--labels", "good", "bad"), right)


def compose(data: st.DataObject, world: World) -> Case:
    names = data.draw(
        st.lists(st.sampled_from(["classify", "soft", "lora", "generate"]), min_size=2, max_size=3),
        "prompts",
    )
    how = data.draw(
        st.sampled_from(
            [
                ["--how", "ensemble"],
                ["--how", "ensemble", "--weights", "0.4", "0.6"],
                ["--how", "average"],
                ["--how", "concat"],
                ["--how", "sum"],
            ]
        ),
        "how",
    )
    out = world.fresh / "all.safetensors"
    files = [world[f"{name}.safetensors"] for name in names]

    def right(answer: Answer) -> None:
        assert call("info", out, "--json").status == 0

    return Case("compose", ("compose", *files, "--out", out, *how), right)


HEAVY: dict[str, Sequence[str]] = {
    "compare": ("--methods", "soft", "--out", "{out}", "--epochs", "1"),
    "search": ("--train", "{train}", "--out", "{out}", "--minutes", "0"),
    "augment": ("--model", "{model}", "--out", "{out}", "--per-label", "1"),
    "compress": ("--model", "{model}", "--text", "{train}", "--out", "{out}", "--length", "2"),
    "pretrain": ("--text", "{train}", "--out", "{out}", "--epochs", "1"),
    "multitask": (
        "--out",
        "{out}",
    ),
    "plot": ("{train}", "--out", "{out}"),
    "report": ("{train}", "--data", "{train}", "--out", "{out}"),
    "demo": ("--nothing",),
}


def words_alone(data: st.DataObject, world: World) -> Case:
    """Commands whose work takes long, with words that are wrong, and the help of all."""
    command = data.draw(st.sampled_from(sorted(HEAVY)), "command")
    if data.draw(st.booleans(), "help"):
        return Case(command, (command, "--help"), lambda answer: None)
    places = {"out": world.fresh / "out.x", "model": world["model"], "train": world["none.txt"]}
    words = [word.format(**places) for word in HEAVY[command]]
    at = data.draw(st.integers(0, len(words)), "at")
    words.insert(
        at, data.draw(st.sampled_from(["--epochs=many", "--nonsense", "--seed=x"]), "word")
    )
    return Case(command, (command, *words), lambda answer: None)


KINDS: dict[str, tuple[Make, int]] = {
    "readers": (check, 24),
    "clean": (clean, 12),
    "split": (split, 6),
    "shapes": (shapes, 16),
    "predict": (predict, 4),
    "texts": (predict_texts, 2),
    "eval": (evaluate, 2),
    "run files and templates": (train, 2),
    "prompt files": (info, 8),
    "formats of others": (exchange, 2),
    "compose": (compose, 2),
    "words": (words_alone, 2),
}
"""How cases are made, and how many of them there are among others."""
