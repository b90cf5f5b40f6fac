"""Lockstep decoding writes what plain models write whose scores are added up token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

import contract
from composed import GENERATE, drawn, prompt
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.compose import lockstep
from foreword.compose.ensemble import Ensemble
from foreword.injection import Injection
from foreword.methods.full import Full
from foreword.methods.lora import Lora
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.generate import Generate
from oracles import get
from plain import next_logits, twin

SOFT, PREFIX = Soft(length=3), Prefix(length=2)
TEXTS = ["a good film", "it", "bad film and a good film : it was"]

Next = Callable[[Sequence[int], Sequence[int]], Tensor]
"""The scores of the token after a row's ids and what was said so far."""


def of_soft(base: Backbone, injection: Injection) -> Next:
    """By the plain model, with the virtual tokens' embeddings in front of all tokens."""
    model, table = twin(base), base.model.get_input_embeddings()

    def scores(ids: Sequence[int], said: Sequence[int]) -> Tensor:
        assert injection.embeds is not None
        own = list(ids) if base.architecture == "encoder-decoder" else [*ids, *said]
        row = torch.cat([injection.embeds, table(torch.tensor(own, dtype=torch.long))])[None]
        if base.architecture == "encoder-decoder":
            start = model.config.decoder_start_token_id
            out = model(inputs_embeds=row, decoder_input_ids=torch.tensor([[start, *said]]))
        else:
            out = model(inputs_embeds=row)
        return out.logits[0, -1].double()

    return torch.no_grad()(scores)


def of_model(model: PreTrainedModel) -> Next:
    return lambda ids, said: next_logits(model, ids, said)


def with_lora(base: Backbone, injection: Injection) -> PreTrainedModel:
    model = twin(base)
    for name, (patch,) in injection.patches.items():
        model.get_submodule(name).weight.data += patch.up @ patch.down
    return model


def by_hand(
    base: Backbone, task: Generate, models: Sequence[Next], weights: Sequence[float]
) -> list[str]:
    """Take the likeliest token under the weighted sum of log-probabilities, one row at a time."""
    bound = task.bind(base)
    written = []
    for text in TEXTS:
        ids = bound._fill_row(contract.Row({"text": text}, "F:1"), 100).ids
        said: list[int] = []
        while len(said) < task.decoding.max_new_tokens:
            logs = [w * m(ids, said).log_softmax(0) for w, m in zip(weights, models, strict=True)]
            said.append(int(torch.stack(logs).sum(0).argmax()))
            if said[-1] == base.text.end:
                break
        written.append(base.text.decode(said).strip())
    return written


def soft(seed: int, name: str = "llama", length: int = 3) -> Prompt:
    """A soft prompt of drawn tokens: those that were trained for a label write little else."""
    own = Injection(embeds=0.7 * drawn(length, 32, seed=seed), leading=length)
    return prompt(SOFT, name=name, task=GENERATE, injection=own)


def tuned(method: Any, name: str = "llama") -> Prompt:
    """A prompt of another method, as it stands after a step."""
    return prompt(method, name=name, task=GENERATE)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "mistral-window", "bloom"])
def test_two_soft_prompts_write_as_their_fused_scores_do(name: str) -> None:
    members = (soft(1, name), soft(2, name, length=5))
    base = get(name)
    models = [of_soft(base, member.injection) for member in members]
    seen = set()
    for weights in ((0.5, 0.5), (0.8, 0.2), (0.05, 0.95)):
        found = Ensemble(members, weights).predict(TEXTS)
        assert found == by_hand(base, GENERATE, models, weights)
        seen.add(tuple(found))
    assert len(seen) > 1 or name in ("mistral-window", "bloom")  # elsewhere the weights tell


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_soft_prompt_beside_a_tuned_model_is_fusion(name: str) -> None:
    members = (soft(1, name), tuned(Lora(rank=2), name), tuned(Full(), name))
    base = get(name)
    whole = twin(base)
    whole.load_state_dict(dict(members[2].injection.weights), strict=False)
    models = [
        of_soft(base, members[0].injection),
        of_model(with_lora(base, members[1].injection)),
        of_model(whole),
    ]
    for weights in ((0.4, 0.3, 0.3), (0.1, 0.8, 0.1)):
        found = Ensemble(members, weights).predict(TEXTS)
        assert found == by_hand(base, GENERATE, models, weights)


@pytest.mark.parametrize("method", [SOFT, PREFIX, Lora(rank=2)], ids=["soft", "prefix", "lora"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "qwen3_moe"])
def test_a_prompt_with_itself_writes_what_it_writes_alone(name: str, method: Any) -> None:
    one = soft(3, name) if method is SOFT else tuned(method, name)
    assert Ensemble((one,), (1.0,)).predict(TEXTS) == one.predict(TEXTS)
    assert Ensemble((one, one), (0.3, 0.7)).predict(TEXTS) == one.predict(TEXTS)


@pytest.mark.parametrize("stop", ["film", "22", "o"])
def test_stop_texts_end_a_completion(stop: str) -> None:
    task = replace(GENERATE, decoding=Decoding(max_new_tokens=6, stop=(stop,)))
    one, other = (replace(p, task=task) for p in (soft(1), tuned(PREFIX)))
    assert Ensemble((one, one), (0.5, 0.5)).predict(TEXTS) == one.predict(TEXTS)
    for text in Ensemble((one, other), (0.5, 0.5)).predict(TEXTS):
        assert stop not in text


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_a_prompt_and_itself_write_alike_whatever_the_models_configuration(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = GenerationConfig(
        min_new_tokens=4, no_repeat_ngram_size=1, forced_eos_token_id=7, length_penalty=3.0
    )
    before = soft(3, name).predict(TEXTS)
    monkeypatch.setattr(get(name).model, "generation_config", odd)
    one = soft(3, name)
    assert one.predict(TEXTS) == before
    assert Ensemble((one,), (1.0,)).predict(TEXTS) == before


def test_a_stop_text_is_not_read_across_the_end_of_the_row() -> None:
    """Rows end in ":", and the stop text begins with it."""
    one = soft(1)
    plainly = one.predict(TEXTS)
    stop = tuple({f":{text[:1]}" for text in plainly if text} - {":"})
    task = replace(GENERATE, decoding=replace(GENERATE.decoding, stop=stop))
    stopped = replace(one, task=task)
    assert stopped.predict(TEXTS) == plainly
    assert Ensemble((stopped, stopped), (0.5, 0.5)).predict(TEXTS) == plainly


def test_rows_in_small_batches_are_the_same_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Ensemble((soft(1), tuned(Lora(rank=2))), (0.5, 0.5))
    rows = [contract.Row({"text": text}, "F:1") for text in TEXTS]
    whole = made.answers(rows)
    monkeypatch.setattr(lockstep, "ROWS_TOKENS", 10)
    told: list[int] = []
    assert made.answers(rows, progress=told.append) == whole
    assert told == [1, 1, 1]
    assert made.answers([]) == []


def test_what_all_rows_begin_with_is_read_under_the_changed_model() -> None:
    """Eight tokens or more that all rows share are run once; LoRA changes what they give."""
    task = replace(GENERATE, template="it was a good film and it was a good film {text} :")
    members = tuple(replace(p, task=task) for p in (soft(1), tuned(Lora(rank=2))))
    base = get("llama")
    models = [
        of_soft(base, members[0].injection),
        of_model(with_lora(base, members[1].injection)),
    ]
    found = Ensemble(members, (0.3, 0.7)).predict(TEXTS)
    assert found == by_hand(base, task, models, (0.3, 0.7))
    assert members[1].predict(TEXTS) == by_hand(base, task, models[1:], (1.0,))


def test_what_goes_wrong_in_one_pass_ends_all() -> None:
    vote = lockstep.Vote(3)

    def write(number: int) -> list[Tensor]:
        said = [vote.taken(number, torch.full((1, 2), float(number)))]
        if number == 1:
            raise ValueError("broken")
        return [*said, vote.taken(number, torch.ones(1, 2))]

    with pytest.raises(ValueError, match="broken"):
        vote.in_step(write)
    assert vote.fused.tolist() == [[3.0, 3.0]]
