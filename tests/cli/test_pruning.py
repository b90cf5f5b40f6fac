"""``foreword prune``: what it writes, says and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import Answer, World

Cli = Callable[..., Answer]


def test_a_prompt_is_pruned_and_kept_in_fewer_bytes(world: World, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "q.safetensors"
    asked = ("prune", world.path("p.safetensors"), "--data", world.path("dev.jsonl"), "--out", out)
    answer = cli(*asked, "--drop", "nothing", "--store", "float16")
    assert answer.status == 0, answer.err
    assert "nothing dropped" in answer.out
    assert max(map(len, answer.out.splitlines()[1:])) <= 80
    found = cli(*asked, "--rows", "4", "--tolerance", "100", "--json").json
    assert found["dropped"]["tokens"]
    assert found["file_bytes"]["after"] == out.stat().st_size < found["file_bytes"]["before"]
    counts = found["dropped"]
    said = cli(*asked, "--rows", "4", "--tolerance", "100").out.splitlines()[0]
    for name in ("token", "layer"):
        if count := len(counts[f"{name}s"]):
            assert f" {count} {name}{'s' * (count > 1)}" in said
    assert cli("predict", out, "it was a good film").status == 0
    answer = cli(*asked, "--drop", "heads")
    assert answer.status == 2
    assert answer.err.endswith("known are: tokens, layers, both, nothing\n")
    answer = cli(*asked, "--store", "int4")
    assert answer.status == 2
    assert "int4" in answer.err


def test_rows_of_one_class_another_model_and_a_bad_place_are_refused(
    world: World, cli: Cli, tmp_path: Path
) -> None:
    (one := tmp_path / "one.jsonl").write_text('{"text": "it was", "label": "good"}\n' * 3)
    asked = ("prune", world.path("p.safetensors"), "--out", tmp_path / "q.safetensors")
    answer = cli(*asked, "--data", one)
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "all 3 rows have the label 'good'; give rows of two labels or more" in answer.err
    other = cli(*asked, "--data", world.path("dev.jsonl"), "--model", world.path("other"))
    assert (other.status, other.err.count("\n")) == (2, 1)
    assert "was tuned on" in other.err
    asked = ("prune", world.path("p.safetensors"), "--data", world.path("dev.jsonl"))
    nowhere = cli(*asked, "--out", "/dev/null/q.safetensors")
    assert (nowhere.status, nowhere.err.count("\n")) == (2, 1)  # before anything is measured
    assert "/dev/null/q.safetensors: cannot be written" in nowhere.err


def test_a_prompt_is_not_written_over_by_what_is_left_of_it(
    world: World, cli: Cli, tmp_path: Path
) -> None:
    (own := tmp_path / "p.safetensors").write_bytes(Path(world.path("p.safetensors")).read_bytes())
    (link := tmp_path / "link.safetensors").symlink_to(own)
    whole = own.read_bytes()
    for command, flag in (("prune", "--out"), ("explain", "--save-text")):
        for out in (own, link):
            answer = cli(command, own, "--data", world.path("dev.jsonl"), flag, out)
            assert answer.status == 2
            assert answer.err == (
                f"foreword: {out}: is the prompt that is read, which stays; name another file\n"
            )
    assert own.read_bytes() == whole
