"""Real models, given by their paths (make test-models): what is exact on tiny ones is on these.

`FOREWORD_MODELS=/path/qwen:/path/gemma.gguf` names them; without it, these tests are skipped.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import foreword as fw
from foreword.backbone.example import Example
from foreword.backbone.load.sources import folder_of
from foreword.engine.passes import differentiate, infer
from foreword.export.peft import to_peft
from foreword.injection import NOTHING, Injection, Mixture
from foreword.reporter import Reporter
from foreword.training import loop

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
]

NAMES = [name for name in os.environ.get("FOREWORD_MODELS", "").split(os.pathsep) if name]
TEXT = "Reviews of hotels, films and books, and what their writers felt: 酒店、电影与书的评论。"
ROWS = (
    "The room was small and noisy, and nobody answered the phone.",
    "服务很好，下次还会来。",
    "Good.",
    "A film that begins slowly and never ends, though its actors do what they can with it; "
    "the book was better, shorter and cheaper, and could be put down.",
)
LABELS = {"good": "good", "bad": "bad"}
LABELLED = [
    {"text": text, "label": label}
    for text, label in zip(ROWS * 2, ["bad", "good"] * 4, strict=True)
]


@pytest.fixture(scope="module", params=NAMES or [None], ids=lambda name: Path(str(name)).name)
def base(request: pytest.FixtureRequest) -> fw.Backbone:
    if request.param is None:
        pytest.skip("FOREWORD_MODELS names no model")
    return opened(request.param)


@cache
def opened(name: str) -> fw.Backbone:
    return fw.load(str(a_file(Path(name))), device="cpu")


def a_file(path: Path) -> Path:
    """A model's folder, or the only GGUF file that is in it."""
    files = list(path.glob("*.gguf")) if path.is_dir() else []
    return files[0] if len(files) == 1 else path


@cache
def untouched(name: str) -> PreTrainedModel:
    """transformers' own model of the same file."""
    made: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder_of(name), dtype=torch.float32, attn_implementation="eager"
    )
    return made.eval().requires_grad_(False)


def ids_of(base: fw.Backbone, text: str) -> tuple[int, ...]:
    return (*base.text.around[0], *base.text.ids(text))


def close(found: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    """Equal but for rounding, which grows with the numbers that are added up."""
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= bound * scale


@torch.no_grad()
def their_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    found: Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0]
    return found


def every_token(ids: Sequence[int]) -> Example:
    return Example(tuple(ids), 0, ((),), tuple((0, j) for j in range(len(ids))))


@torch.no_grad()
def our_logits(
    base: fw.Backbone, rows: Sequence[Sequence[int]], injection: Injection | Mixture = NOTHING
) -> list[Tensor]:
    """Logits of every token of rows that run together."""
    found = base.logits(base.states([every_token(row) for row in rows], injection))
    return list(torch.split(found, [len(row) for row in rows]))


def test_rows_together_equal_the_untouched_model(base: fw.Backbone) -> None:
    rows = [ids_of(base, text) for text in ROWS]
    model = untouched(base.name)
    for row, found in zip(rows, our_logits(base, rows), strict=True):
        close(found, their_logits(model, row))


@pytest.mark.parametrize("as_what", ["keys and values", "virtual tokens"])
def test_a_text_and_what_stands_for_it_are_one(base: fw.Backbone, as_what: str) -> None:
    lead, rows = ids_of(base, TEXT), [tuple(base.text.ids(text)) for text in ROWS]
    with torch.no_grad():
        if as_what == "virtual tokens":
            injection = Injection(embeds=base.embed(lead), leading=len(lead))
        else:
            injection = Injection(kv=base.kv(lead), positions=len(lead))
    for row, found in zip(rows, our_logits(base, rows, injection), strict=True):
        close(found, their_logits(untouched(base.name), (*lead, *row))[len(lead) :])


def test_a_batch_of_several_prompts_equals_each_alone(base: fw.Backbone) -> None:
    rows = [tuple(base.text.ids(text)) for text in ROWS]
    leads = [ids_of(base, text) for text in (TEXT, ROWS[1])]
    with torch.no_grad():
        parts = tuple(Injection(kv=base.kv(lead), positions=len(lead)) for lead in leads)
    parts = (*parts, NOTHING)
    owners = (1, 0, 2, 0)
    found = our_logits(base, rows, Mixture(parts, owners))
    for row, owner, logits in zip(rows, owners, found, strict=True):
        close(logits, our_logits(base, [row], parts[owner])[0])


def test_a_loss_and_its_gradient_equal_plain_ones(base: fw.Backbone) -> None:
    """Biases, tied or untied heads, and a vocabulary that is scored a part at a time."""
    lead, rows = ids_of(base, ROWS[1]), [ids_of(base, text) for text in ROWS]
    start = base.embed(lead).detach()
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    examples = [
        Example(row[:1], 1, (row[1:],), tuple((0, j) for j in range(-1, len(row) - 2)))
        for row in rows
    ]

    def loss(group: Sequence[int], logits: Tensor) -> Tensor:
        gold = torch.cat([torch.tensor(rows[i][1:]) for i in group])
        return F.cross_entropy(logits, gold, reduction="sum")

    longest = max(example.length for example in examples) + len(lead)
    found = differentiate(
        base,
        lambda: Injection(embeds=ours, leading=len(lead)),
        examples,
        (),
        longest,
        2 * longest,
        loss,
    )
    model, total = untouched(base.name), torch.zeros(())
    for row in rows:
        own = model.get_input_embeddings()(torch.tensor(row))
        logits = model(inputs_embeds=torch.cat([theirs, own])[None]).logits[0, len(lead) :]
        each = F.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="sum")
        each.backward()
        total += each.detach()
    assert found == pytest.approx(float(total), rel=1e-5)
    assert ours.grad is not None
    assert theirs.grad is not None
    close(ours.grad, theirs.grad, 1e-4)


def test_the_scores_of_the_vocabulary_never_stand_in_memory_at_once(base: fw.Backbone) -> None:
    """1,272 targets on Gemma's vocabulary are 1.3 GB, and with their gradient twice that."""
    row = (ids_of(base, TEXT) * 20)[:160]
    example = Example(row[:1], 1, (row[1:],), tuple((0, j) for j in range(-1, len(row) - 2)))
    start = base.embed(row[:4]).detach().requires_grad_()
    seen: list[int] = []

    def loss(group: Sequence[int], logits: Tensor) -> Tensor:
        seen.append(logits.numel())
        return torch.logsumexp(logits, 1).sum()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build = lambda: Injection(embeds=start, leading=0)  # noqa: E731
    differentiate(base, build, [example] * 8, (), example.length, 300, loss)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    whole = 4 * 8 * 159 * base.vocabulary
    assert 4 * max(seen) <= whole / 8
    assert grown < whole


def test_peft_scores_the_same(base: fw.Backbone, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    task = fw.Classify(template="{text}\nMood:", labels=LABELS)
    rows = [ids_of(base, text) for text in ROWS[:2]]
    about = {
        "name": base.name,
        "architecture": base.architecture,
        "fingerprint": base.fingerprint,
    }
    lead = ids_of(base, ROWS[1])
    with torch.no_grad():
        made: dict[str, Any] = {
            "soft": Injection(embeds=base.embed(lead), leading=len(lead)),
            "prefix": Injection(kv=base.kv(lead), positions=len(lead)),
        }
    for name, injection in made.items():
        prompt = fw.Prompt(injection, task, about, on=base)
        folder = to_peft(prompt, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(
            folder_of(base.name), dtype=torch.float32, attn_implementation="eager"
        )
        theirs = peft.PeftModel.from_pretrained(model, folder).eval()
        for row in rows:
            with torch.no_grad():
                expected = theirs(input_ids=torch.tensor([row])).logits[0, -len(row) :]
            close(our_logits(base, [row], injection)[0], expected)


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    base: fw.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    class KilledError(Exception):
        pass

    class Kills(Reporter):
        def step(self, number: int, values: Mapping[str, float]) -> None:
            if number == 3:
                raise KilledError

    def run(out: Path, **more: Any) -> bytes:
        fw.tune(
            base,
            fw.Classify(template="{text}\nMood:", labels=LABELS),
            fw.Prefix(length=5, start="text"),
            LABELLED,
            LABELLED[:4],
            training=fw.Training(epochs=2, batch_size=4),
            out=out,
            **more,
        )
        return out.read_bytes()

    whole = run(tmp_path / "whole.safetensors")
    out = tmp_path / "p.safetensors"
    with pytest.raises(KilledError):
        run(out, report=Kills())
    assert not out.exists()
    assert run(out, resume=True) == whole


def test_labels_alone_are_scored_as_among_all(base: fw.Backbone) -> None:
    row = ids_of(base, ROWS[0])
    wanted = (base.text.ids(" good")[0], base.text.ids(" bad")[0])
    example = Example(row, len(row), ((),), ((0, -1),))
    ((_, found),) = infer(base, NOTHING, [example], tokens=wanted)
    close(found[0], their_logits(untouched(base.name), row)[-1, list(wanted)])
