"""Every registered export format writes what it can represent, and refuses the rest in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import contract
from composed import prompt
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.export.base import ImportFormat, NotVerified, Verified, VerifiedFormat
from foreword.export.registry import EXPORTS
from foreword.export.verify import verify
from foreword.methods.full import Full
from foreword.methods.ia3 import IA3
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft

TRACED = [pytest.mark.slow, pytest.mark.traced]
FORMATS = [pytest.param(n, marks=TRACED) if n == "onnx" else n for n in EXPORTS if n != "llama.cpp"]
"""Those that need nothing but a prompt (llama.cpp needs a GGUF)."""

METHODS = [Soft(length=3), Prefix(length=3), Lora(rank=4), IA3(), Full()]


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_answers_alike_and_what_is_not_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    form, written = EXPORTS[name](), 0
    for number, method in enumerate(METHODS):
        tuned, path = prompt(method, data={"text": "A good film."}), tmp_path / f"{number}"
        try:
            found = form.write(tuned, path)
        except UserError as error:
            said = str(error)
            assert "\n" not in said
            assert not path.exists()
            continue
        written += 1
        assert found.exists()
        with pytest.raises(UserError, match="already exists"):
            form.write(tuned, path)
        if isinstance(form, ImportFormat):
            assert tuned.on is not None
            again = form.read(found, tuned.on, tuned.task)
            assert again.predict(contract.TEXTS) == tuned.predict(contract.TEXTS)
    assert written, "no prompt can be written"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_tried_on_rows_of_the_users_or_on_texts(
    name: str, tmp_path: Path
) -> None:
    form = EXPORTS[name]()
    if not isinstance(form, VerifiedFormat):
        pytest.skip("nothing runs it here")
    tuned = prompt(Prefix(length=3))
    written = form.write(tuned, tmp_path / f"p{form.suffix}")
    found = verify(form, tuned, written)
    if isinstance(found, NotVerified):
        pytest.skip(found.reason)
    assert found.rows > 1
    assert found.equal == 1
    one = verify(form, tuned, written, as_rows([{"text": contract.TEXTS[0]}], targets=False))
    assert isinstance(one, Verified)
    assert one.rows == 1


@pytest.mark.parametrize("name", [n for n in FORMATS if isinstance(n, str)])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tuned = prompt(Prefix(length=3), data={"text": "A good film."})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as refused:
        EXPORTS[name]().write(tuned, tmp_path / "p")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
