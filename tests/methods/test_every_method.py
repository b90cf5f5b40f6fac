"""Every registered method keeps the contract, or refuses a model in one line.

A new method needs no test of its own for that: its line in the registry is a case of each of these.
Only what its file says beyond the contract does, such as another library's numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import contract
import families
from composed import drawn
from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.parts.several import Several
from foreword.methods.registry import METHODS
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.training.provenance import about_backbone
from oracles import by_hand, get

REFUSALS = [*families.UNREACHED[:1], *families.RECURRENT[:1]]
"""Models that not every method can be put on: without attention sites, and without attention."""


def text(folder: Path, base: Backbone) -> dict[str, Any]:
    path = folder / "t.txt"
    path.write_text("the film was good and it was fine as a bad film is so bad", "utf-8")
    return {"text": str(path), "length": 4}


def sources(folder: Path, base: Backbone) -> dict[str, Any]:
    files = []
    for seed in (1, 2):
        own = Injection(embeds=0.1 * drawn(3, base.width, seed=seed), leading=3)
        path = folder / f"{base.name}{seed}.safetensors"
        files.append(str(Prompt(own, contract.task_on(base), about_backbone(base)).save(path)))
    return {"sources": tuple(files), "bottleneck": 4}


NEEDED: dict[str, Callable[[Path, Backbone], dict[str, Any]]] = {
    "attempt": sources,
    "cartridge": text,
    "context": lambda folder, base: {"shots": 3},  # of four rows
}
"""Settings without which a method cannot be started here; all others keep their defaults."""


def method(kind: str, folder: Path, base: Backbone) -> Method:
    """A method as it is by default."""
    return METHODS[kind](**(NEEDED[kind](folder, base) if kind in NEEDED else {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("needed")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "name",
    [
        "llama",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("gpt2", "bert", "t5", *(f.name for f in families.ENCODERS))
        ),
    ],
)
def test_a_method_keeps_the_contract(kind: str, name: str, folder: Path, tmp_path: Path) -> None:
    base = get(name)
    made = method(kind, folder, base)
    injection = contract.trained(made, base)()
    if base.is_causal or not injection.kv:
        contract.equals_a_plain_oracle(made, base, by_hand)
    contract.gradient_reaches_every_parameter(made, base)
    contract.a_file_gives_the_same_prompt(made, base, tmp_path)
    contract.the_backbone_is_untouched(made, base)
    other: Method = Soft(length=3)
    if injection.head is not None:  # rows are scored by heads, or by words, all alike
        other = Several((other, made))
    contract.a_mixed_batch_equals_single_rows(made, other, base)
    contract.checkpointing_changes_nothing(made, base)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("family", REFUSALS, ids=lambda family: family.name)
def test_what_cannot_take_a_method_says_so(
    kind: str, family: families.Family, folder: Path, tmp_path: Path
) -> None:
    """Or takes it: then its prompt is saved and read again as on any other model."""
    base, said = families.backbone(family), None
    try:
        made = method(kind, folder, base)
        contract.built(made, base)
    except UserError as error:
        said = str(error)
    if said is None:
        contract.a_file_gives_the_same_prompt(made, base, tmp_path)
    else:
        assert kind not in ("soft", "full"), "these work on every model"
        assert re.search(r"; .*`method=\w+`", said), "it names a method that works"
