"""The Prompt file: the same bytes, the same prompt, and nothing but UserError for anything else."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from families import CAUSAL, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.load.folder import Architecture
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import KV, Injection
from foreword.prompt.checks import ARCHITECTURES
from foreword.prompt.file import MAX_HEADER
from foreword.prompt.prompt import Prompt
from foreword.prompt.schema import KEY
from foreword.prompt.tensors import check_fit
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate

CLASSIFY = Classify(template="{text}:", labels={"good": (" good",), "bad": (" bad", " a bad")})


@cache
def get(name: str = "llama") -> Backbone:
    return backbone(next(f for f in CAUSAL if f.name == name))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def soft() -> Injection:
    return Injection(embeds=drawn(3, 32), leading=3)


def prefix() -> Injection:
    kv = {
        name: KV(drawn(s.heads, 2, s.key_width, seed=n), drawn(s.heads, 2, s.value_width, seed=-n))
        for n, (name, s) in enumerate(get().sites.items(), 1)
    }
    return Injection(kv=kv, positions=2)


def prompt(injection: Injection | None = None, task: Task = CLASSIFY) -> Prompt:
    base = get()
    return Prompt(
        injection=injection or soft(),
        task=task,
        backbone={
            "name": base.name,
            "architecture": base.architecture,
            "fingerprint": base.fingerprint,
        },
        method={"name": "soft", "length": 3},
        data={"train": "sha256:0"},
        seed=7,
        versions={"foreword": "0.1.0"},
        scores={"dev": {"accuracy": 91.5}},
        on=base,
    )


# There and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("injection", "task"),
    [
        (soft, CLASSIFY),
        (prefix, CLASSIFY),
        (prefix, Generate(template="é {prompt}\n", decoding=Decoding(beams=2, stop=("\n",)))),
    ],
)
def test_a_file_holds_everything(
    injection: Callable[[], Injection], task: Task, tmp_path: Path
) -> None:
    made = prompt(injection(), task)
    read = Prompt.load(made.save(tmp_path / "p.safetensors"), get())
    kept, found = dict(made.injection.tensors()), dict(read.injection.tensors())
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)
    assert read.injection.leading == made.injection.leading
    assert read.injection.positions == made.injection.positions
    for name in ("task", "backbone", "method", "data", "seed", "versions", "scores", "on"):
        assert getattr(read, name) == getattr(made, name)


@pytest.mark.parametrize("template", ["{text}:", "{text} :::", "{text} :::::::::::::::::::::"])
def test_tensors_of_a_file_lie_as_those_of_a_model_do(template: str, tmp_path: Path) -> None:
    """Aligned, wherever the header ends: else products may round otherwise than before."""
    made = prompt(prefix(), replace(CLASSIFY, template=template))
    read = Prompt.load(made.save(tmp_path / "p.safetensors"))
    assert {tensor.data_ptr() % 64 for _, tensor in read.injection.tensors()} == {0}


@pytest.mark.parametrize("injection", [soft, prefix])
def test_the_same_prompt_is_the_same_bytes(
    injection: Callable[[], Injection], tmp_path: Path
) -> None:
    first = prompt(injection()).save(tmp_path / "a").read_bytes()
    assert prompt(injection()).save(tmp_path / "b").read_bytes() == first
    assert Prompt.load(tmp_path / "a").save(tmp_path / "c").read_bytes() == first
    reordered = replace(prompt(injection()), method={"length": 3, "name": "soft"})
    assert reordered.save(tmp_path / "d").read_bytes() == first


def test_the_file_is_plain_safetensors_with_json_in_its_metadata(tmp_path: Path) -> None:
    path = prompt().save(tmp_path / "p.safetensors")
    with safe_open(str(path), "pt") as file:
        assert list(file.keys()) == ["embeds"]
        meta = json.loads(file.metadata()[KEY])
    assert meta["schema"] == 1
    assert meta["task"]["template"] == "{text}:"


def test_predictions_are_the_same_after_loading(tmp_path: Path) -> None:
    made = prompt()
    read = Prompt.load(made.save(tmp_path / "p"), get())
    assert made.predict(["a film", "it was"]) == read.predict([{"text": "a film"}, "it was"])
    with pytest.raises(
        UserError, match=r"p: no model to run it on \(.*llama.*; give the right one: "
    ):
        Prompt.load(tmp_path / "p").predict(["x"])


def test_texts_need_a_template_of_one_field() -> None:
    two = prompt(task=replace(CLASSIFY, template="{a} {b}:"))
    with pytest.raises(UserError, match=r"input 1 is a text, but the template has 2 fields \(a, b"):
        two.predict(["x"])
    with pytest.raises(UserError, match=r"input 2: no field 'text', .*; known is: body; rename"):
        prompt().predict(["x", {"body": "y"}])


def test_an_empty_cell_among_texts_is_told_as_in_a_table() -> None:
    for texts in (["a", None], pandas.DataFrame({"text": ["a", None]})):
        with pytest.raises(UserError, match='input 2: field "text" is empty; fill it or remove'):
            prompt().predict(texts)
    with pytest.raises(UserError, match='input 2: field "text" is NaN, an empty cell'):
        prompt().predict(pandas.Series(["a", float("nan")], dtype=object))


def test_virtual_tokens_that_the_template_asks_for_must_be_there() -> None:
    task = replace(CLASSIFY, template="[soft:4]{text}:")
    placed = Injection(embeds=drawn(4, 32))
    assert len(prompt(placed, task).predict(["a"])) == 1
    with pytest.raises(UserError, match=r"holds 3 virtual tokens and its task places 4"):
        prompt(Injection(embeds=drawn(3, 32)), task).predict(["a"])
    with pytest.raises(UserError, match=r"holds 3 virtual tokens and its task places 7"):
        prompt(soft(), task).predict(["a"])


def test_one_input_has_one_answer_and_many_a_list(tmp_path: Path) -> None:
    made, texts = prompt(soft()), ["a film", "it was"]
    many = made.predict(texts)
    assert isinstance(many, list)
    assert [made.predict(text) for text in texts] == many
    assert made.predict({"text": "a film"}) == many[0]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for rows in (pandas.DataFrame({"text": texts}), [Row({"text": t}, "") for t in texts], file):
        assert list(made.predict(rows)) == many


def test_rows_are_brought_to_canonical_shape_before_they_are_answered() -> None:
    made = prompt(soft(), replace(CLASSIFY, template="{prompt} :"))
    (answer,) = made.predict([{"instruction": "a film", "input": "it was"}])
    assert answer == made.predict("a film\nit was")
    own = {"instruction": "a film", "output": "bad", "prompt": "it was"}
    assert made.predict([own]) == [made.predict("it was")]


def test_a_prompt_is_shown_in_a_line_and_hashed() -> None:
    made = prompt(soft())
    assert len(repr(made)) < 120
    assert "classify on llama, Injection(virtual tokens 3, 96 numbers)" in repr(made)
    assert len({made, made, prompt(soft())}) == 2


# Refusals -------------------------------------------------------------------------------------


def test_weights_of_another_shape_are_refused() -> None:
    base = get()
    name, own = next(iter(base.model.named_parameters()))
    check_fit("f", Injection(weights={name: torch.zeros_like(own)}), base)
    for wrong in (torch.zeros(own.shape[0] + 1, *own.shape[1:]), own[:1]):
        with pytest.raises(UserError, match=f"weights of '{name}' have shape"):
            check_fit("f", Injection(weights={name: wrong}), base)
    with pytest.raises(UserError, match="has none"):
        check_fit("f", Injection(weights={"no.such": own}), base)


@pytest.mark.parametrize("held", [2, 4])
def test_a_prompt_holds_as_many_virtual_tokens_as_its_task_places(held: int) -> None:
    task = replace(CLASSIFY, template="[soft:3]{text}:")
    wrong = prompt(Injection(embeds=drawn(held, 32)), task)
    with pytest.raises(UserError, match=f"holds {held} virtual tokens and its task places 3"):
        wrong.bound()


def refused(path: Path, what: str, base: Backbone | None = None) -> None:
    with pytest.raises(UserError, match=what) as raised:
        Prompt.load(path, base)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return prompt(prefix()).save(tmp_path / "p.safetensors")


def rewritten(
    path: Path,
    change: Callable[[dict[str, Any]], Any] = lambda meta: None,
    tensors: dict[str, Tensor] | None = None,
) -> Path:
    """Write the file again with other metadata, or other tensors, by safetensors alone."""
    with safe_open(str(path), "pt") as file:
        meta = json.loads(file.metadata()[KEY])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(meta)
    save_file(kept if tensors is None else tensors, str(path), metadata={KEY: json.dumps(meta)})
    return path


def test_a_file_cut_off_anywhere_is_refused(good: Path) -> None:
    whole = good.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = {0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(whole) - 1}
    for size in sorted(places | set(range(0, len(whole), 97))):
        good.write_bytes(whole[:size])
        refused(good, "not a safetensors file|is cut off")
    good.write_bytes(whole + b"\0")
    refused(good, "damaged")


@pytest.mark.parametrize("claim", [MAX_HEADER + 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_an_oversized_header_is_refused_unread(good: Path, claim: int) -> None:
    good.write_bytes(claim.to_bytes(8, "little") + good.read_bytes()[8:])
    refused(good, f"its header claims {claim} bytes")


def test_a_header_longer_than_the_file_is_refused(good: Path) -> None:
    good.write_bytes((MAX_HEADER).to_bytes(8, "little") + good.read_bytes()[8:])
    refused(good, "is cut off")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 64,
        b"hello, this is no prompt at all",
        b'{"embeds": [1, 2]}',
        pickle.dumps({"embeds": [1.0]}),
        b"PK\x03\x04" + b"\0" * 60,
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{]",
    ],
)
def test_what_is_not_safetensors_is_refused(good: Path, content: bytes) -> None:
    good.write_bytes(content)
    refused(good, "is not a safetensors file|damaged|header claims")


def test_pickle_is_never_loaded(good: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"embeds": Bomb()}, good)
    refused(good, "is not a safetensors file|header claims")
    assert not (tmp_path / "ran").exists()


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder, not a prompt")
    refused(tmp_path / "none", "cannot be read")


def test_other_safetensors_files_are_refused(good: Path) -> None:
    save_file({"embeds": drawn(3, 32)}, str(good))
    refused(good, "no Foreword prompt")


@pytest.mark.parametrize(
    "raw", ["", "{", "nul", '{"schema": ', "[" * 100_000, '{"seed": ' + "9" * 5000 + "}"]
)
def test_metadata_that_is_not_json_is_refused(good: Path, raw: str) -> None:
    good.write_bytes(save({"embeds": drawn(3, 32)}, metadata={KEY: raw}))
    refused(good, "its metadata is not JSON")


@pytest.mark.parametrize("raw", ["[]", "1", "null", '"x"'])
def test_metadata_that_is_no_object_is_refused(good: Path, raw: str) -> None:
    good.write_bytes(save({"embeds": drawn(3, 32)}, metadata={KEY: raw}))
    refused(good, "not a JSON object")


@pytest.mark.parametrize(
    "name",
    ["method", "task", "backbone", "leading", "positions", "data", "seed", "versions", "scores"],
)
def test_a_missing_key_is_named(good: Path, name: str) -> None:
    refused(rewritten(good, lambda meta: meta.pop(name)), f"its metadata lacks '{name}'")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema": 2}, "has schema version 2, and this Foreword reads 1"),
        ({"schema": None}, "has schema version None"),
        ({"metod": {}}, "unknown metadata 'metod'; did you mean 'method'"),
        ({"leading": -1}, "'leading' is -1, not a count"),
        ({"leading": True}, "'leading' is True, not a count"),
        ({"leading": 1}, "more leading virtual tokens than there are embeddings"),
        ({"positions": 1.5}, "'positions' is 1.5, not a count"),
        ({"positions": "2"}, "'positions' is '2', not a count"),
        ({"scores": []}, "'scores' is not an object"),
        ({"method": "soft"}, "'method' is not an object"),
        ({"task": None}, "'task' is not an object"),
        ({"task": {"name": "clasify"}}, "unknown task 'clasify'; did you mean 'classify'"),
        ({"task": {"name": ["classify"]}}, "unknown task"),
        ({"task": {"name": {}}}, "unknown task"),
        ({"task": {}}, "unknown task 'None'"),
        ({"task": {"name": "classify", "tempalte": "x"}}, "did you mean 'template'"),
        ({"task": {"name": "classify", "template": 3}}, "setting 'template' is 3"),
        ({"task": {"name": "classify", "labels": {"a": 1}}}, "setting 'labels'"),
        ({"backbone": {"name": "x", "architecture": "causal"}}, "lacks 'fingerprint'"),
        (
            {"backbone": {"name": "x", "architecture": "Iausal", "fingerprint": "y"}},
            "unknown architecture 'Iausal'; did you mean 'causal'",
        ),
        ({"backbone": {"name": 1, "architecture": "x", "fingerprint": "y"}}, "lacks 'name'"),
    ],
)
def test_metadata_that_is_wrong_is_named(good: Path, change: dict[str, Any], what: str) -> None:
    refused(rewritten(good, lambda meta: meta.update(change)), what)


KEYS, VALUES = "kv.layer.keys", "kv.layer.values"
HEAD = {"head.weight": drawn(3, 32), "head.bias": drawn(3)}


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({}, "holds no tensor"),
        ({"embed": drawn(3, 32)}, "unknown tensor 'embed'"),
        ({"kv.keys": drawn(2, 3, 8), "kv.values": drawn(2, 3, 8)}, "unknown tensor 'kv.keys'"),
        ({"kv..keys": drawn(2, 3, 8)}, "unknown tensor 'kv..keys'"),
        ({KEYS: drawn(2, 3, 8)}, f"'{KEYS}' stands without '{VALUES}'"),
        ({VALUES: drawn(2, 3, 8)}, f"'{VALUES}' stands without '{KEYS}'"),
        ({KEYS: drawn(2, 3, 8), VALUES: drawn(2, 4, 8)}, "heads and lengths must agree"),
        ({KEYS: drawn(2, 3, 8), VALUES: drawn(1, 3, 8)}, "heads and lengths must agree"),
        ({KEYS: drawn(3, 8), VALUES: drawn(3, 8)}, r"has shape \(3, 8\), not 3 dimensions"),
        ({"head.scale": torch.tensor(20.0)}, "'head.scale' stands without 'head.weight'"),
        ({**HEAD, "head.scale": torch.ones(3)}, r"'head.scale' has shape \(3,\), not 0 dim"),
        ({**HEAD, "head.scale": torch.tensor(torch.nan)}, "'head.scale' holds NaN"),
        ({"embeds": drawn(32)}, r"has shape \(32,\), not 2 dimensions"),
        ({"embeds": torch.tensor(1.0)}, r"has shape \(\), not 2 dimensions"),
        ({"embeds": torch.ones(3, 32, dtype=torch.int64)}, "holds int64, not float32"),
        ({"embeds": torch.ones(3, 32, dtype=torch.bool)}, "holds bool, not float32"),
        ({"embeds": torch.ones(3, 32).to(torch.float8_e4m3fn)}, "holds F8_E4M3, not float32"),
        ({"embeds": drawn(3, 32).double()}, "holds float64, not float32"),
        ({"embeds": torch.full((3, 32), torch.nan)}, "tensor 'embeds' holds NaN or Inf"),
        ({"embeds": drawn(3, 32).index_fill(1, torch.tensor([5]), torch.inf)}, "holds NaN or Inf"),
        ({KEYS: drawn(2, 3, 8), VALUES: -drawn(2, 3, 8) / 0.0}, f"'{VALUES}' holds NaN or Inf"),
    ],
)
def test_tensors_that_are_wrong_are_named(
    good: Path, tensors: dict[str, Tensor], what: str
) -> None:
    refused(rewritten(good, tensors=tensors), what)


UP, DOWN = "patches.a.0.up", "patches.a.0.down"
PLAIN = {"reads": None, "activation": "identity"}


@pytest.mark.parametrize(
    ("tensors", "about", "what"),
    [
        ({UP: drawn(6)}, {**PLAIN, "adds_to": "output"}, "metadata of patch 'a.0' is"),
        ({UP: drawn(6)}, {"reads": None}, "metadata of patch 'a.0' is"),
        ({DOWN: drawn(2, 5)}, PLAIN, f"tensor '{DOWN}' stands without '{UP}'"),
        ({UP: drawn(6, 2)}, PLAIN, r"shape \(6, 2\); it is a matrix with 'down', and a vector"),
        ({UP: drawn(6), DOWN: drawn(2, 5)}, PLAIN, r"shape \(6,\); it is a matrix with 'down'"),
        ({UP: drawn(6), "patches.a.0.down_bias": drawn(2)}, PLAIN, f"stands without '{DOWN}'"),
        ({UP: drawn(6, 2, 1), DOWN: drawn(2, 5)}, PLAIN, r"not 1 or 2 dimensions"),
        ({"embeds": drawn(3, 32)}, PLAIN, f"has no tensor '{UP}'"),
    ],
)
def test_patches_that_are_wrong_are_named(
    good: Path, tensors: dict[str, Tensor], about: dict[str, Any], what: str
) -> None:
    change = {"patches": {"a.0": about}, "leading": 0}
    refused(rewritten(good, lambda meta: meta.update(change), tensors), what)


@pytest.mark.parametrize(
    ("injection", "what"),
    [
        (Injection(embeds=drawn(3, 31), leading=3), r"shape \(3, 31\), and llama needs \(n, 32\)"),
        (Injection(kv={"nowhere": KV(drawn(2, 3, 8), drawn(2, 3, 8))}), "no attention module"),
        (
            Injection(kv={"model.layers.0.self_attn": KV(drawn(4, 3, 8), drawn(4, 3, 8))}),
            r"shape \(4, 3, 8\), and llama needs \(2, n, 8\)",
        ),
        (
            Injection(kv={"model.layers.0.self_attn": KV(drawn(2, 3, 8), drawn(2, 3, 7))}),
            r"shape \(2, 3, 7\), and llama needs \(2, n, 8\)",
        ),
    ],
)
def test_shapes_that_the_backbone_does_not_have_are_refused(
    injection: Injection, what: str, tmp_path: Path
) -> None:
    path = prompt(injection).save(tmp_path / "p.safetensors")
    Prompt.load(path)
    refused(path, what, get())


def test_another_backbone_is_refused_unless_forced(tmp_path: Path) -> None:
    path = prompt(soft()).save(tmp_path / "p.safetensors")
    refused(path, "was tuned on llama .* and this is qwen2 .* `force`", get("qwen2"))
    forced = Prompt.load(path, get("qwen2"), force=True)
    assert forced.on is get("qwen2")
    path = prompt(prefix()).save(tmp_path / "p.safetensors")
    with pytest.raises(UserError, match=r"no attention module|has shape"):
        Prompt.load(path, get("gpt2"), force=True)


@cache
def content() -> bytes:
    """The bytes of a small file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return prompt(Injection(embeds=drawn(2, 32), leading=2)).save(f"{folder}/p").read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_user_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content())
    header = 8 + int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, header + 8) | st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'{}[]",:0e-tn\\'))
    size = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged[:size])
    with suppress(UserError):
        Prompt.load(path).on_backbone(get(), force=True)


# Writing --------------------------------------------------------------------------------------


def test_a_crash_before_the_rename_leaves_the_old_file(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = good.read_bytes()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        assert good.read_bytes() == before  # the new content lies elsewhere, whole
        assert sum(path.stat().st_size for path in good.parent.iterdir()) > len(before)
        raise Killed

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        prompt(soft()).save(good)
    assert good.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    good: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = good.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        prompt(soft()).save(good)
    assert good.read_bytes() == before
    assert list(good.parent.iterdir()) == [good]


def test_architectures_are_those_of_models() -> None:
    assert get_args(Architecture) == ARCHITECTURES


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="p: cannot be written"):
        prompt().save(tmp_path / "file" / "p")
    with pytest.raises(UserError, match="folder: is a folder; name the file to write in it"):
        prompt().save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the umask is shown by Linux")
def test_no_other_umask_is_set_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.umask")
    assert prompt().save(tmp_path / "p.safetensors").exists()


def test_missing_folders_are_made_and_the_umask_is_kept(tmp_path: Path) -> None:
    path = prompt().save(tmp_path / "a" / "b" / "p.safetensors")
    other = tmp_path / "plain"
    other.write_text("x")
    assert path.stat().st_mode == other.stat().st_mode
