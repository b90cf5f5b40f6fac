"""A catalogue finds every prompt of a folder, says what is none, and loads no model."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from composed import drawn, prompt
from foreword.backbone.backbone import Backbone
from foreword.compose import catalogue
from foreword.compose.catalogue import describe_method
from foreword.compose.ensemble import Ensemble
from foreword.compose.merge import concatenate
from foreword.compose.similar import similarity
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from toys import Counts

SCORES = {"dev": {"accuracy": 81.25, "rows": 16}, "test": {"rows": 9, "accuracy": 75.0}}


def soft(seed: int) -> Injection:
    return Injection(embeds=drawn(3, 32, seed=seed), leading=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    near = soft(1).map(lambda t: t + 0.1 * drawn(3, 32, seed=9))
    mood = Classify(template="{text}", labels={"calm": " calm", "angry": " angry"})
    prompt(Soft(), injection=soft(1), scores=SCORES).save(tmp_path / "a.safetensors")
    prompt(Soft(), injection=soft(2), task=mood).save(tmp_path / "deep" / "b.safetensors")
    prompt(Soft(), injection=near).save(tmp_path / "deep" / "c.safetensors")
    prompt(Lora(rank=2)).save(tmp_path / "lora.safetensors")
    prompt(Soft(), name="qwen2", injection=soft(1)).save(tmp_path / "other.safetensors")
    parts = (prompt(Soft(), injection=soft(1)), prompt(Prefix(length=2)))
    Ensemble(parts, (0.5, 0.5)).save(tmp_path / "z.safetensors")
    save_file({"w": drawn(2)}, tmp_path / "model.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:200])
    (tmp_path / ".hidden.safetensors").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no prompt, and no matter")
    return tmp_path


NAMES = [
    "a.safetensors",
    "deep/b.safetensors",
    "deep/c.safetensors",
    "lora.safetensors",
    "other.safetensors",
    "z.safetensors",
]


def test_every_prompt_is_found_with_what_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    found = catalogue.read_catalogue(folder)
    assert [each.file for each in found.entries] == NAMES
    first, mood, *_ = found.entries
    assert (first.task, first.labels, first.method) == ("classify", ("bad", "fine", "good"), "soft")
    assert first.bytes == (folder / "a.safetensors").stat().st_size
    assert first.scores == {"dev": ("accuracy", 81.25), "test": ("accuracy", 75.0)}
    assert mood.labels == ("angry", "calm")
    assert [each.backbone for each in found.entries][-2:] == ["qwen2", "llama"]
    assert found.entries[-1].method == "ensemble of soft, prefix"
    assert [file for file, _ in found.unreadable] == ["cut.safetensors", "model.safetensors"]
    assert all(reason for _, reason in found.unreadable)


def test_the_nearest_is_the_most_similar_of_one_backbone(folder: Path) -> None:
    found = catalogue.read_catalogue(folder)
    place, value = found.nearest(0)  # type: ignore[misc]
    assert NAMES[place] == "deep/c.safetensors"
    near = soft(1).map(lambda t: t + 0.1 * drawn(3, 32, seed=9))
    assert value == pytest.approx(similarity(soft(1), near))
    assert found.nearest(3) is None  # nothing else has patches
    assert found.nearest(4) is None  # equal tokens, another backbone
    table = found.similarities
    assert all(table[i][j] == table[j][i] for i in range(6) for j in range(6))
    assert all(table[i][i] is None for i in range(6))


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("ANGRY", ["deep/b.safetensors"]),
        ("deep/", ["deep/b.safetensors", "deep/c.safetensors"]),
        ("qwen", ["other.safetensors"]),
        ("lora", ["lora.safetensors"]),
        ("81.25", ["a.safetensors"]),
        ("nothing has this", []),
    ],
)
def test_a_text_is_looked_for_in_all_that_is_shown(
    folder: Path, text: str, files: list[str]
) -> None:
    assert [each.file for each in catalogue.read_catalogue(folder).matching(text).entries] == files


def test_prompts_like_another_come_first(folder: Path) -> None:
    like = catalogue.read_entry(folder / "deep" / "c.safetensors")
    found, values = catalogue.read_catalogue(folder).by_similarity(like)
    assert [each.file for each in found.entries][:2] == ["deep/c.safetensors", "a.safetensors"]
    assert values[0] == pytest.approx(1)
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None] * (6 - len(known))


def test_a_merged_prompt_is_named_by_its_parts(tmp_path: Path) -> None:
    inner = concatenate([prompt(Soft(), injection=soft(n)) for n in (1, 2)])
    outer = concatenate([inner, prompt(Prefix(length=2))])
    path = outer.save(tmp_path / "m.safetensors")
    assert catalogue.read_entry(path).method == "concat(concat(soft, soft), prefix)"
    assert describe_method({"name": "x", "parts": ["y"]}) == "x(?)"


def test_an_empty_library_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        catalogue.read_catalogue(tmp_path / "none")
    with pytest.raises(UserError, match="holds no prompt files"):
        catalogue.read_catalogue(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="holds no prompt; of 1"):
        catalogue.read_catalogue(tmp_path)


def test_reading_is_told_of(folder: Path) -> None:
    counts = Counts()
    catalogue.read_catalogue(folder, counts)
    ((total, done),) = counts.heard.values()
    assert sum(done) == total == 8
