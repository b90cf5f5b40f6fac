"""A text begins once: rows behind a prompt that starts from text go without BOS.

The oracle is plain transformers, which reads the same text in front of the row, with one BOS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from chat_templates import chat_backbone
from families import CAUSAL, MASKED, RECURRENT, SEQ2SEQ, Family, backbone, family_model
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.compose.ensemble import Ensemble
from foreword.compose.merge import average, concatenate
from foreword.compression.compress import compress
from foreword.compression.distil import Distillation
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.peft import from_peft, to_peft
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.attempt import Attempt
from foreword.methods.base import Method
from foreword.methods.cartridge import Cartridge
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.parts.several import Several
from foreword.methods.parts.start_from_prompt import mean_loss
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.prompt.schema import KEY
from foreword.reporter import SILENT
from foreword.tasks.base import Bound
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.training.examples import encode
from foreword.training.regularise import dropped
from foreword.training.settings import Training
from foreword.training.several_tasks import MixedObjective
from plain import twin

TEXT = "it was a good film and a bad film\n"
OTHER = "the sky is blue\n"
CLASSIFY = Classify(template="{text}\nMood:", labels={"good": " good", "bad": " bad"})
GENERATE = Generate(
    template="{text}\nMood:", completion_field="label", decoding=Decoding(max_new_tokens=4)
)
ROLES = Classify(template="[user]{text}[assistant]", labels={"good": "good", "bad": "bad"})
ROWS = [
    Row({"text": f"film {n}", "label": name}, f"F:{n}")
    for n, name in enumerate(["good", "bad"] * 3)
]


@cache
def base() -> Backbone:
    """A Llama whose tokenizer begins a text with BOS, and which heeds what stands before a row."""
    made = deepcopy(chat_backbone("llama3").model)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    tokens = chat_backbone("llama3").text.tokenizer
    return Backbone(made, tokens, architecture="causal", name="llama3")


@cache
def plain() -> Any:
    return twin(base())


def ids(text: str) -> list[int]:
    return base().text.ids(text)


BOS = list(chat_backbone("llama3").text.around[0])


@torch.no_grad()
def after(*tokens: int) -> Tensor:
    """Log-probabilities of what follows these tokens, by one plain pass: (vocabulary,)."""
    scores: Tensor = plain()(input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(0)
    return scores


def chances(front: list[int], row: Row, words: tuple[str, str] = (" good", " bad")) -> list[float]:
    """The probabilities of the labels where a row stands behind these tokens."""
    logs = after(*front, *ids(f"{row.fields['text']}\nMood:"))
    return torch.stack([logs[ids(word)[0]] for word in words]).softmax(0).tolist()


def answered(task: Bound, injection: Injection | Mixture) -> list[list[float]]:
    found = [each["probabilities"] for each in task.predict(ROWS, injection)]
    return [[each["good"], each["bad"]] for each in found]


def largest(one: list[list[float]], other: list[list[float]]) -> float:
    """The largest difference of two tables."""
    return float((torch.tensor(one) - torch.tensor(other)).abs().max())


def shown(*rows: Row) -> list[int]:
    return ids("".join(f"{r.fields['text']}\nMood: {r.fields['label']}\n\n" for r in rows))


def text_file(folder: Path) -> str:
    path = folder / "text.txt"
    path.write_text(TEXT * 3)
    return str(path)


WORDS = {"start": "text", "start_text": TEXT}
SIZE = 1 + len(ids(TEXT))
TWO = [Soft(length=SIZE, **WORDS), Prefix(**WORDS)]
STARTS: dict[str, tuple[Callable[[Path], Method], list[int]]] = {
    "soft": (lambda _: Soft(length=SIZE, **WORDS), ids(TEXT)),
    "soft, cut": (lambda _: Soft(length=5, **WORDS), ids(TEXT)[-4:]),
    "soft, repeated": (lambda _: Soft(length=SIZE + 3, **WORDS), (ids(TEXT) * 2)[-SIZE - 2 :]),
    "soft, labels": (lambda _: Soft(length=3, start="labels"), ids(" good bad")),
    "ptuning": (lambda _: PTuning(length=SIZE, **WORDS), ids(TEXT)),
    "prefix": (lambda _: Prefix(**WORDS), ids(TEXT)),
    "prefix, cut": (lambda _: Prefix(length=5, **WORDS), ids(TEXT)[-4:]),
    "prefix, with its BOS": (
        lambda _: Prefix(start="text", start_text="<|begin_of_text|>" + TEXT),
        ids(TEXT),
    ),
    "reparameterized": (lambda _: Prefix(reparameterize=4, **WORDS), ids(TEXT)),
    "deep": (lambda _: Deep(**WORDS), ids(TEXT)),
    "context": (lambda _: Context(shots=2, choice="first"), shown(*ROWS[:2])),
    "cartridge": (lambda f: Cartridge(text_file(f), length=9), (ids(TEXT * 3))[:8]),
    "prefix+soft": (
        lambda _: Several((Prefix(**WORDS), Soft(len(ids(OTHER)), "text", OTHER))),
        ids(TEXT) + ids(OTHER),
    ),
    "soft+prefix": (
        lambda _: Several((Soft(len(ids(OTHER)), "text", OTHER), Prefix(**WORDS))),
        ids(TEXT) + ids(OTHER),
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_row_behind_a_text_reads_as_one_text(name: str, tmp_path: Path) -> None:
    make, front = STARTS[name]
    task = CLASSIFY.bind(base())
    injection = make(tmp_path).build(task, ROWS, 0)()
    assert injection.bos == len(BOS)
    expected = [chances([*BOS, *front], row) for row in ROWS]
    twice = [chances([*BOS, *front, *BOS], row) for row in ROWS]
    assert largest(answered(task, injection), expected) < 1e-5
    assert largest(twice, expected) > 1e-4


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gru"])
def test_it_does_so_whatever_the_model(name: str) -> None:
    tokens = base().text.tokenizer
    family = next(each for each in [*CAUSAL, *RECURRENT] if each.name == name)
    model = family_model(family, vocab_size=len(tokens))
    other = Backbone(model, tokens, architecture="causal", name=name)
    task, untouched = CLASSIFY.bind(other), twin(other)
    for method in TWO:
        found = answered(task, method.build(task, ROWS, 0)())
        for row, own in zip(ROWS, found, strict=True):
            read = [*BOS, *ids(TEXT), *ids(f"{row.fields['text']}\nMood:")]
            logits = untouched(input_ids=torch.tensor([read])).logits[0, -1]
            expected = torch.stack([logits[ids(word)[0]] for word in (" good", " bad")]).softmax(0)
            assert own == pytest.approx(expected.tolist(), abs=1e-5)


def test_demonstrations_read_as_they_do_in_context() -> None:
    task = CLASSIFY.bind(base())
    made = Prefix(start="demonstrations", shots=2).build(task, ROWS, 0)()
    before = "".join(map(task.demonstration, choose_demonstrations(task, ROWS, 2, 0)))
    in_context = task.zero_shot().predict(ROWS, NOTHING, before=before)
    for one, other in zip(answered(task, made), in_context, strict=True):
        assert one == pytest.approx(list(other["probabilities"].values()), abs=1e-5)


def test_rows_of_the_untouched_model_keep_theirs() -> None:
    task = CLASSIFY.bind(base())
    made = Prefix(**WORDS).build(task, ROWS, 0)()
    mixture = Mixture((made, NOTHING), [n % 2 for n in range(len(ROWS))])
    mixed = answered(task, mixture)
    for n, row in enumerate(ROWS):
        assert mixed[n] == pytest.approx(
            chances([*BOS, *(() if n % 2 else ids(TEXT))], row), abs=1e-5
        )
    for row, found in zip(ROWS, answered(task.zero_shot(), NOTHING), strict=True):
        assert found == pytest.approx(chances(BOS, row), abs=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        Prefix(start="random"),
        Prefix(start="vocabulary"),
        Soft(start="random"),
        Soft(start="vocabulary"),
        Prefix(first_layer=1, **WORDS),  # the layers below read no text but the row
    ],
)
def test_what_does_not_begin_a_text_leaves_rows_alone(method: Method) -> None:
    task = CLASSIFY.bind(base())
    outline = method.build(task, ROWS, 0).outline
    assert outline.bos == 0
    assert "bos" not in outline.settings()
    made = encode(base(), task, outline, ROWS, ROWS[:2], Training(), SILENT)
    assert all(item.example.ids[: len(BOS)] == tuple(BOS) for item in (*made.train, *made.dev))


def test_virtual_tokens_inside_a_template_hold_no_bos() -> None:
    task = Classify("{text} [soft:9]", labels={"good": " good", "bad": " bad"}).bind(base())
    made = Soft(start="text", start_text=OTHER).build(task, ROWS, 0)()
    words = (ids(OTHER) * 9)[-9:]
    assert torch.equal(made.embeds, base().embed(words).float())
    assert made.bos == 0
    row = [*BOS, *ids(f"{ROWS[0].fields['text']} "), *words]
    logs = after(*row)
    expected = torch.stack([logs[ids(word)[0]] for word in (" good", " bad")]).softmax(0).tolist()
    assert answered(task, made)[0] == pytest.approx(expected, abs=1e-5)


# Training, generation, chat -----------------------------------------------------------------------


@pytest.mark.parametrize("method", TWO, ids=["soft", "prefix"])
def test_a_step_learns_the_rows_that_are_answered(method: Method) -> None:
    task = GENERATE.bind(base())
    trainable = method.build(task, ROWS, 0)
    made = encode(base(), task, trainable.outline, ROWS, ROWS[:2], Training(), SILENT)
    losses = []
    for row, item in zip(ROWS, made.train, strict=True):
        said = [*ids(f" {row.fields['label']}"), base().text.end]
        front = ids(f"{row.fields['text']}\nMood:")
        assert item.example.ids == tuple(front)
        read = [*BOS, *ids(TEXT), *front]
        losses.append(-sum(float(after(*read, *said[:n])[token]) for n, token in enumerate(said)))
    assert [item.example.ids for item in made.dev] == [i.example.ids for i in made.train[:2]]
    units = sum(map(task.units, made.train))
    assert mean_loss(task, trainable(), ROWS) == pytest.approx(sum(losses) / units, abs=1e-5)


def test_each_of_several_tasks_goes_by_its_own_prompt() -> None:
    task = CLASSIFY.bind(base())
    outline = Mixture((Prefix(**WORDS).build(task, ROWS, 0)(), NOTHING), range(2))
    rows = [replace(row, task=n % 2) for n, row in enumerate(ROWS)]
    objective = MixedObjective([task, task])
    made = encode(base(), objective, outline, rows, rows[:2], Training(), SILENT)
    for items in (made.train, made.dev):
        assert all((item.example.ids[:1] == tuple(BOS)) == bool(item.task) for item in items)


@pytest.mark.parametrize("method", TWO, ids=["soft", "prefix"])
def test_a_generation_continues_one_text(method: Method) -> None:
    task = GENERATE.bind(base())
    found = task.predict(ROWS, method.build(task, ROWS, 0)())
    for row, answer in zip(ROWS, found, strict=True):
        read = [*BOS, *ids(TEXT), *ids(f"{row.fields['text']}\nMood:")]
        said: list[int] = []
        while len(said) < 4 and not {*said} & {*base().ends}:
            said.append(int(after(*read, *said).argmax()))
        assert answer["text"] == base().text.decode(said).strip()


def test_a_chat_templates_own_bos_is_left_out_too() -> None:
    """With roles in a template, and with messages of which all turns are learned."""
    tokenizer = base().text.tokenizer
    task = ROLES.bind(base())
    made = Prefix(**WORDS).build(task, ROWS, 0)()
    for row, found in zip(ROWS, answered(task, made), strict=True):
        said = [{"role": "user", "content": row.fields["text"]}]
        written = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        assert ids(written)[: len(BOS)] == BOS
        logs = after(*BOS, *ids(TEXT), *ids(written)[len(BOS) :])
        expected = torch.stack([logs[ids(word)[0]] for word in ("good", "bad")]).softmax(0)
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
    talk = [
        {"role": "user", "content": "film 1"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "film 2"},
        {"role": "assistant", "content": "bad"},
    ]
    rows = [Row({"messages": talk}, "F:1")]
    for turns in ("all", "last"):
        chat = Chat(template="{messages}", turns=turns).bind(base())  # type: ignore[arg-type]
        whole = chat.train_example(rows[0], 512).example
        (item,) = encode(base(), chat, made, rows, rows, Training(), SILENT).train
        assert [*whole.ids[: len(BOS)]] == BOS
        assert (item.example.ids, item.example.branches) == (whole.ids[len(BOS) :], whole.branches)
        assert item.example.slot == len(item.example.ids)


def test_a_step_with_dropout_keeps_the_first_position() -> None:
    task = CLASSIFY.bind(base())
    chance = torch.Generator().manual_seed(0)
    for method in (Soft(length=8, **WORDS), Prefix(length=8, **WORDS)):
        whole = method.build(task, ROWS, 0)()
        for _ in range(8):
            part = dropped(whole, 0.9, chance)
            assert isinstance(part, Injection)
            for (_, one), (_, other) in zip(whole.tensors(), part.tensors(), strict=True):
                first = (slice(0, 1),) if one.dim() == 2 else (slice(None), slice(0, 1))
                assert torch.equal(one[first], other[first])


def test_who_distils_a_text_begins_it_once() -> None:
    task = GENERATE.bind(base())
    full = base().prefill(NOTHING, [*BOS, *ids(TEXT)], 200)
    assert full is not None
    teacher = replace(full, bos=len(BOS))
    distilled = Distillation(task, teacher, ROWS)
    assert distilled.agreement(teacher, ROWS)["kl"] < 1e-6
    first = next(iter(distilled.states.values()))
    item = task.train_example(ROWS[0], 200).example
    read = [*BOS, *ids(TEXT), *item.ids[len(BOS) :], *item.branches[0]]
    for place in range(len(first)):
        logs = base().logits(first[place : place + 1])[0].log_softmax(0)
        expected = after(*read[: len(read) - len(first) + place + 1])
        torch.testing.assert_close(logs, expected, atol=1e-4, rtol=1e-4)


def test_a_compressed_text_is_compared_with_texts_that_begin_once(tmp_path: Path) -> None:
    """The whole text, its beginning and no text, each with one BOS and the same row behind it."""
    task = Generate(" {prompt} :", decoding=Decoding(max_new_tokens=3))
    asked = [Row({"prompt": f"film {n}", "completion": "good"}, f"Q:{n}") for n in range(8)]
    method = Cartridge(text_file(tmp_path), 9, rate=1e-9)
    out = tmp_path / "c.safetensors"
    made = compress(
        *(base(), method, out),
        task=task,
        questions=asked,
        test=asked[:1],
        training=Training(epochs=1),
        report=SILENT,
    )
    assert made.prompt.injection.bos == Prompt.load(out).injection.bos == len(BOS)
    item = task.bind(base()).train_example(asked[0], 200).example
    row = [*item.ids[len(BOS) :], *item.branches[0]]
    whole = [*BOS, *ids(TEXT * 3)]
    places = range(1, len(row) + 1)
    full = [after(*whole, *row[:n]) for n in places]
    for front, name in ((whole[:9], "kl"), (whole[:9], "kl_truncated"), (BOS, "kl_none")):
        parts = [after(*front, *row[:n]) for n in places]
        apart = [(f.exp() * (f - p)).sum() for f, p in zip(full, parts, strict=True)]
        assert made.report.to_dict()[name] == pytest.approx(
            float(torch.stack(apart).mean()), abs=1e-4
        )


# Files and other prompts --------------------------------------------------------------------------


def prompt(method: Method, task: Any = CLASSIFY) -> Prompt:
    made = method.build(task.bind(base()), ROWS, 0)().map(lambda t: t.detach())
    about = {"name": "llama3", "architecture": "causal", "fingerprint": base().fingerprint}
    return Prompt(made, task, about, method={"name": "prefix"}, on=base())


def test_a_file_keeps_it_and_one_without_answers_as_before(tmp_path: Path) -> None:
    made = prompt(Prefix(**WORDS))
    path = made.save(tmp_path / "p.safetensors")
    again = Prompt.load(path, base())
    assert again.injection.bos == len(BOS)
    assert again.save(tmp_path / "q.safetensors").read_bytes() == path.read_bytes()
    assert again.answers(ROWS) == made.answers(ROWS)
    with safe_open(str(path), "pt") as file:
        meta = json.loads(file.metadata()[KEY])
    tensors = load_file(path)
    assert meta.pop("bos") == len(BOS)
    save_file(tensors, path, {KEY: json.dumps(meta)})
    old = Prompt.load(path, base())
    for row, found in zip(ROWS, answered(old.bound, old.injection), strict=True):
        assert found == pytest.approx(chances([*BOS, *ids(TEXT), *BOS], row), abs=1e-5)
    for wrong in (-1, True, "1"):
        save_file(tensors, path, {KEY: json.dumps({**meta, "bos": wrong})})
        with pytest.raises(UserError, match=r"metadata 'bos' is .*, not a count"):
            Prompt.load(path)


def test_starts_from_a_prompt_begin_as_it_does(tmp_path: Path) -> None:
    task = CLASSIFY.bind(base())
    prefix = prompt(Prefix(**WORDS)).save(tmp_path / "p.safetensors")
    soft = prompt(Soft(length=SIZE, **WORDS)).save(tmp_path / "s.safetensors")
    for method in (Prefix(start=str(prefix)), Soft(start=str(soft))):
        found = answered(task, method.build(task, ROWS, 0)())
        assert found[0] == pytest.approx(chances([*BOS, *ids(TEXT)], ROWS[0]), abs=1e-5)
    assert Prefix(first_layer=1, start=str(prefix)).build(task, ROWS, 0).outline.bos == 0
    assert Attempt((str(soft),), **WORDS).build(task, ROWS, 0).outline.bos == len(BOS)


def test_prompts_that_begin_otherwise_are_composed_or_refused(tmp_path: Path) -> None:
    one, plain_one = prompt(Prefix(length=4, **WORDS)), prompt(Prefix(length=4, start="vocabulary"))
    assert average([one, one]).injection.bos == len(BOS)
    for pair in ([one, plain_one], [plain_one, one]):
        with pytest.raises(UserError, match=r"begins with the tokenizer's first tokens") as error:
            average(pair)
        assert "\n" not in str(error.value)
        assert concatenate(pair).injection.bos == len(BOS)
    assert concatenate([plain_one, plain_one]).injection.bos == 0
    both = Ensemble((one, plain_one), (0.5, 0.5)).answers(ROWS)
    each = [torch.tensor(answered(p.bound, p.injection)).log() for p in (one, plain_one)]
    expected = (0.5 * each[0] + 0.5 * each[1]).softmax(1).tolist()
    for answer, (good, bad) in zip(both, expected, strict=True):
        assert answer["probabilities"] == pytest.approx({"good": good, "bad": bad}, abs=1e-5)


@pytest.mark.parametrize("method", TWO, ids=["soft", "prefix"])
def test_a_peft_folder_says_it_to_an_import(method: Method, tmp_path: Path) -> None:
    made = prompt(method)
    folder = to_peft(made, tmp_path / "peft")
    assert json.loads((folder / "foreword.json").read_text()) == {"bos": 1}
    again = from_peft(folder, base(), CLASSIFY)
    assert again.answers(ROWS) == made.answers(ROWS)
    (folder / "foreword.json").unlink()
    assert from_peft(folder, base(), CLASSIFY).injection.bos == 0
    (folder / "foreword.json").write_text('{"bos": "x"}')
    with pytest.raises(UserError, match=r"foreword.json: 'bos' is 'x', not a count"):
        from_peft(folder, base(), CLASSIFY)


# Models that keep it ------------------------------------------------------------------------------


def test_a_tokenizer_without_bos_has_none() -> None:
    other = backbone(CAUSAL[0])
    task = CLASSIFY.bind(other)
    for method in (Soft(length=4, **WORDS), Prefix(**WORDS), Context(shots=2)):
        outline = method.build(task, ROWS, 0).outline
        assert outline.settings().keys() == {"leading", "positions"}


@pytest.mark.parametrize("family", [MASKED[0], SEQ2SEQ[0]], ids=lambda family: family.name)
def test_rows_of_other_models_keep_their_first_token(family: Family) -> None:
    tokens = deepcopy(base().text.tokenizer)
    tokens.mask_token = "<|eot_id|>"
    model = family_model(family, vocab_size=len(tokens))
    other = Backbone(model, tokens, architecture=family.architecture, name="other")  # type: ignore[arg-type]
    template = "{text} [mask]" if family.architecture == "masked" else "{text}"
    task = Classify(template, labels={"good": " good", "bad": " bad"}).bind(other)
    for method in TWO:
        outline = method.build(task, ROWS, 0).outline
        assert outline.bos == 0
        made = encode(other, task, outline, ROWS, ROWS[:1], Training(), SILENT)
        assert all(item.example.ids[: len(BOS)] == tuple(BOS) for item in made.train)
    soft = Soft(length=4, **WORDS).build(task, ROWS, 0)()
    assert torch.equal(soft.embeds, other.embed(other.text.ids(TEXT)[-4:]).float())
