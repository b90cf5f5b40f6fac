"""What is said of sliding windows that hide a prefix elsewhere, and by how much answers part."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from composed import GENERATE, prompt
from families import GQA, Family, backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.export.past_window import HidingReader, past_window
from foreword.export.peft import Peft
from foreword.export.prefix import prefix_of
from foreword.export.vllm import VLLM
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt

IDS = tuple(range(5, 12))


def apart(tuned: Prompt) -> list[float]:
    """How far the next token's probabilities are apart behind the first 1, 2, 3 ... tokens."""
    reader = HidingReader(prefix_of(tuned, "it", ""))
    found = []
    for size in range(1, len(IDS) + 1):
        example = Example(IDS[:size], size, ((),), ((0, -1),))
        ((_, ours),) = infer(tuned.bound.backbone, tuned.injection, [example])
        theirs = reader.scores(IDS[:size])
        found.append(float((ours[0].softmax(0) - theirs.softmax(0)).abs().max()))
    assert reader.longest == len(IDS)
    return found


@pytest.mark.parametrize("name", ["mistral-window", "gemma3_text-window"])
@pytest.mark.parametrize("rule", ["hidden", "seen"])
def test_a_prefix_is_hidden_there_from_the_first_token_past_the_window(
    name: str, rule: Any
) -> None:
    tuned = prompt(Prefix(length=2, past_window=rule), name=name)
    window = tuned.bound.backbone.window
    assert window is not None
    found = apart(tuned)
    assert max(found[: window - 2]) < 1e-5
    assert min(found[window - 2 :]) > 1e-4


# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_what_is_measured_is_what_peft_computes(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    tuned = prompt(Prefix(length=2), name="gemma3_text-window")
    folder = Peft().write(tuned, tmp_path / "p")
    (said,) = Peft().notes(tuned, ())
    assert "after the first 2 it hides the prefix there" in said
    model = tuned.bound.backbone.model
    plain = type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager")
    plain.load_state_dict(model.state_dict())
    theirs = peft.PeftModel.from_pretrained(plain, folder).eval()
    reader = HidingReader(prefix_of(tuned, "it", ""))
    for size in range(1, len(IDS) + 1):
        ids = torch.tensor([IDS[:size]])
        with torch.no_grad():
            found = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
        assert torch.allclose(found, reader.scores(IDS[:size]), atol=1e-5)


def test_a_prefix_that_peft_would_hide_whole_is_refused_where_its_model_is_here(
    tmp_path: Path,
) -> None:
    tuned = prompt(Prefix(length=4, past_window="seen"), name="mistral-window")
    apart = replace(tuned, on=None).bound_as(tuned.bound)
    with pytest.raises(UserError, match="sliding window"):
        Peft().write(apart, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_window_hides_virtual_tokens_in_foreword_too() -> None:
    tuned = prompt(Soft(length=2), name="mistral-window")
    assert max(apart(tuned)) < 1e-5
    assert past_window(tuned, prefix_of(tuned, "it", ""), ()) is None


def test_by_how_much_answers_part_is_measured_on_rows_that_are_so_long() -> None:
    base = backbone(Family("mistral", "causal", GQA), sliding_window=9)
    tuned = prompt(Prefix(length=2), base=base)
    prefix = prefix_of(tuned, "it", "")
    rows = [Row({"text": text}, "row") for text in ("it", "a good film it was and it was good")]
    said = past_window(tuned, prefix, rows)
    assert said is not None
    assert "after the first 7 " in said
    found = re.search("of 2 rows 1 are so long, and .* difference (.*)", said)
    assert found is not None
    assert 1e-4 < float(found[1]) < 1
    unseen = past_window(tuned, prefix, rows[:1])
    assert unseen is not None
    assert "no row that was tried is so long" in unseen


def test_rows_and_answers_that_fit_need_no_word() -> None:
    one = replace(GENERATE.decoding, max_new_tokens=1)
    short: Any = replace(GENERATE, max_length=1, decoding=one)
    tuned = prompt(Prefix(length=2), name="mistral-window", task=short)
    prefix = prefix_of(tuned, "it", "")
    assert past_window(tuned, prefix, ()) is None
    longer: Any = replace(short, decoding=replace(one, max_new_tokens=2))
    assert past_window(replace(tuned, task=longer), prefix, ()) is not None
    tuned = prompt(Prefix(length=2))
    assert past_window(tuned, prefix_of(tuned, "it", ""), ()) is None


def test_a_server_of_vllm_refuses_such_rows_and_the_export_says_so() -> None:
    (said,) = VLLM().notes(prompt(Prefix(length=2), name="mistral-window"), ())
    assert "refuses a row that may have more than 2 tokens" in said
    assert VLLM().notes(prompt(Prefix(length=2)), ()) == []
    assert VLLM().notes(prompt(Soft(length=2), name="mistral-window"), ()) == []
