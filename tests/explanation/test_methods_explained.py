"""Explanations, their page and pruning of every method of a prompt, on every kind of model.

What a method cannot show is left out, with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.data import sample
from foreword.evaluation.evaluate import evaluate
from foreword.explanation import candidates, search_words
from foreword.explanation.explanation import Measured
from foreword.explanation.pieces import positions_of, virtual_of
from foreword.explanation.prune import prune
from foreword.injection import NOTHING, Injection
from foreword.methods.cartridge import Cartridge
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from quick import first
from toys import get, rows

ROWS = rows(12)
LABELS = {"good": " good", "bad": " bad"}
METHODS: dict[str, Any] = {
    "soft": Soft(length=3),
    "ptuning": PTuning(length=3),
    "prefix": Prefix(length=4),
    "deep": Deep(length=3),
    "context": Context(shots=2),
    "cartridge": Cartridge(length=4),
}
FAMILIES = ("llama", "bert", "t5")
NO_STATES = "keys and values have no hidden states that could be put elsewhere"
NO_EMBEDDINGS = "keys and values are no embeddings, to which tokens could be near"
WRITES_NOTHING = "a model of kind masked writes no texts"
OF_TWO_STACKS = "the layers of a decoder that reads an encoder cannot be left out"


def tuned(method: str, family: str, folder: Path) -> Prompt:
    """A prompt of a method as it starts, and a little away from there."""
    base, made = get(family), METHODS[method]
    if method == "cartridge":
        (text := folder / "text.txt").write_text("a good film and a bad film it was a film")
        made = Cartridge(text=str(text), length=4)
    template = "{text} : [mask]" if family == "bert" else "{text} :"
    task = Classify(template=template, labels=LABELS)
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        injection = made.build(task.bind(base), ROWS, 0)()
        injection = injection.map(
            lambda t: t.detach() + 0.3 * t.std() * torch.randn(t.shape, generator=chance)
        )
    about = {"name": base.name, "architecture": base.architecture, "fingerprint": base.fingerprint}
    return Prompt(injection, task, about, method={"name": method}, on=base)


def left_out(method: str, family: str) -> dict[str, str]:
    """What cannot be shown, and why."""
    found: dict[str, str] = {}
    embeds = method in ("soft", "ptuning")
    if embeds and family != "llama":
        kind = {"bert": "masked", "t5": "encoder-decoder"}[family]
        why = f"virtual tokens see the row ({kind} model), and have no keys and values alone"
        found |= {"importance: layers": why, "importance: sides": why}
    if family == "bert":
        found["words: asked"] = WRITES_NOTHING
        found["words: inspect"] = WRITES_NOTHING if embeds else NO_STATES
    if not embeds:
        found |= {"words: inspect": NO_STATES, "words: nearest": NO_EMBEDDINGS}
    if family == "t5":
        found["layers"] = OF_TWO_STACKS
    return found


def loss_of(prompt: Prompt, injection: Injection) -> float:
    """The mean loss of the right labels, from the probabilities that the task gives."""
    bound = prompt.bound if injection is prompt.injection else prompt.bound.zero_shot()
    answers = bound.predict(ROWS, injection)
    chances = [
        answer["probabilities"][str(row.fields["label"])]
        for answer, row in zip(answers, ROWS, strict=True)
    ]
    return float(-torch.tensor(chances).log().mean())


CASES = [(method, family) for family in FAMILIES for method in METHODS]
DIAGONAL = [("context", "llama"), ("ptuning", "t5"), ("deep", "bert")]


@pytest.mark.parametrize(
    ("method", "family"), first(3, [*DIAGONAL, *(case for case in CASES if case not in DIAGONAL)])
)
def test_every_method_is_explained_shown_and_pruned(
    method: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "WRITTEN", 2)
    monkeypatch.setattr(search_words, "ROUNDS", 1)
    prompt = tuned(method, family, tmp_path)
    page = prompt.report(ROWS, sections=["explanation"], report=SILENT)
    found = page.chapters[0].explanation
    assert found is not None
    assert found.left_out == left_out(method, family)
    shown = page.to_html()
    assert all(why in shown for why in found.left_out.values())
    assert found.importance is not None
    whole, bare = found.importance.prompt, found.importance.untouched
    assert whole.loss == pytest.approx(loss_of(prompt, prompt.injection), abs=1e-4)
    assert bare.loss == pytest.approx(loss_of(prompt, NOTHING), abs=1e-4)
    pieces = virtual_of(prompt.injection) or positions_of(prompt.injection)
    assert len(found.importance.tokens) == pieces
    measured: list[Measured] = [*found.importance.tokens, *found.importance.layers]
    assert all(each.loss != whole.loss for each in measured)
    assert found.words is not None
    assert found.words.texts
    assert found.attribution is not None
    added = sum(v.value for v in (*found.attribution.tokens, *found.attribution.virtual))
    missed = added - (found.attribution.answered - found.attribution.baseline)
    assert missed == pytest.approx(found.attribution.delta, abs=1e-3)
    assert found.attention

    pruned = prune(prompt, ROWS, tolerance=100, store="float16", report=SILENT)
    pruned.prompt.save(tmp_path / "small.safetensors", store="float16")
    again = Prompt.load(tmp_path / "small.safetensors", prompt.on)
    judged = sample.first(ROWS, len(ROWS), 0)[::2]
    scored = dict(evaluate(again, judged, report=SILENT))["accuracy"]
    assert scored == pytest.approx(pruned.after.score, abs=0.01)
    assert pruned.after.tokens <= pruned.before.tokens
