"""Files that are not UTF-8: read as is said, or refused by a line that names the encoding."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest

from foreword.data import encodings
from foreword.data.formats import read_text
from foreword.data.read import read_rows
from foreword.data.rows import as_rows
from foreword.data.write import dialect_of
from foreword.errors import UserError

CHINESE = "text,label\n酒店很好，服务周到，下次还会再来。,好\n房间太小；隔音很差,差\n"


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".csv.gz"])
def test_an_encoding_is_named_and_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    expected = [dict(row.fields) for row in read_text(CHINESE.encode(), "a", ".csv")]
    text = {
        ".jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in expected),
        ".json": json.dumps(expected, ensure_ascii=False),
    }.get(ending, CHINESE)
    data = text.encode("gb18030")
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert "; it is probably GB18030); give `encoding=gb18030`, or save as UTF-8" in str(
        caught.value
    )
    assert [row.fields for row in read_rows(path, encoding="GBK")] == expected
    assert [row.fields for row in as_rows(path, encoding="gb18030")] == expected


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("酒店很好，服務周到，下次還會再來。", "big5"),
        ("この映画はとても面白かったです。", "shift_jis"),
        ("이 영화는 정말 재미있었습니다.", "euc_kr"),
        ("Этот фильм был очень хорошим", "cp1251"),
    ],
)
def test_the_likely_encoding(text: str, encoding: str) -> None:
    data = f"text,label\n{text},x\n".encode(encoding)
    with pytest.raises(UserError, match=f"give `encoding={encoding}`"):
        read_text(data, "a.csv", ".csv")


def test_damaged_utf_8_is_of_no_other_encoding() -> None:
    data = CHINESE.encode() + b"\xe9\x85,x\n"
    with pytest.raises(
        UserError, match=r"a\.csv:4: not UTF-8 \(byte 99 of the file is 0xe9\); save"
    ):
        read_text(data, "a.csv", ".csv")


def test_a_given_encoding_is_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CHINESE.encode("utf-8-sig"))
    assert [*read_rows(path, encoding="utf-8")[0].fields] == ["text", "label"]
    path.write_bytes(CHINESE.encode())
    with pytest.raises(UserError, match=r"a\.csv:2: not ASCII \(byte"):
        read_rows(path, encoding="ascii")
    with pytest.raises(UserError, match=r"`encoding=gb1803`: there is no such .* 'gb18030'"):
        read_rows(path, encoding="gb1803")
    with pytest.raises(UserError, match="`encoding=base64`: there is no such encoding"):
        read_rows(path, encoding="base64")
    path.write_bytes(CHINESE.replace(",", ";").encode("gb18030"))
    monkeypatch.setattr(encodings, "PART", 7)
    assert len(read_rows(path, encoding="gb18030")) == 2
    assert dialect_of(path) == (";", codecs.BOM_UTF8)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        (
            "utf-16",
            r"not UTF-16 \(UTF-16 stream .*\); give `encoding=utf-16-le`, or save as UTF-8$",
        ),
        ("utf-32", r"not UTF-32 \(.*\); give `encoding=utf-32-le`, or save as UTF-8$"),
        ("punycode", r"not PUNYCODE \(.*\); save as UTF-8$"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_what_an_encoding_cannot_be_is_one_line(
    encoding: str, said: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    data = "text,label\nhello,a\n".encode("utf-32-le" if encoding == "utf-32" else "utf-16-le")
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        read_rows(path, encoding=encoding)
