"""Generate: a completion for a prompt; the loss is taken on the completion alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example, common_lead
from foreword.data.read import Row
from foreword.data.shapes import canonical, require
from foreword.engine import buckets, share
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.metrics.generation import generation
from foreword.tasks.layout import (
    Laid,
    Side,
    answer_ids,
    begun,
    lay,
    room_for,
    soft_size,
    spaced,
    values_of,
)
from foreword.tasks.task import Encoded
from foreword.tasks.template import Template


@dataclass(frozen=True)
class Generate:
    """A template for the prompt, the field that holds the completion, and how to decode.

    Rows of ``messages`` are read through the tokenizer's chat template: the last message is the
    completion. Prompts of more than ``max_length`` tokens lose text on the side ``truncate``,
    completions of more than ``decoding.max_new_tokens`` at their end. Of each field, or message, no
    more than its first ``input_window`` tokens are read. ``label_smoothing`` spreads
    that share of each target evenly over the vocabulary (Szegedy et al. 2016, arXiv:1512.00567).
    """

    template: str | None = None
    completion_field: str = "completion"
    max_length: int = 512
    truncate: Side = "left"
    input_window: int | None = None
    label_smoothing: float = 0.0
    decoding: Decoding = field(default_factory=Decoding)

    def completed(self, rows: Sequence[Row], shape: str, backbone: Backbone) -> Generate:
        """Find a template for the rows' shape where none is given."""
        if self.template is not None:
            return self
        if "messages" in rows[0].fields:
            return replace(self, template="{messages}")
        if "prompt" in rows[0].fields:
            return replace(self, template="{prompt}\n")
        raise UserError(
            f"{rows[0].where}: no field 'prompt' or 'messages'; say how a row reads with "
            f"--template, from its fields ({', '.join(rows[0].fields)})"
        )

    def bind(self, backbone: Backbone) -> Generator:
        """Return the task on a backbone; the template must be known by now."""
        return Generator(self, backbone)


@dataclass(frozen=True)
class Asked:
    """Rows of token ids to be continued, what each is run under, and whether it was cut."""

    ids: list[tuple[int, ...]]
    injection: Mixture
    cut: list[bool]


class Generator:
    """A generation bound to a backbone."""

    metric = "log-likelihood"
    headline = "bleu"
    answer = "text"
    tokens = None  # all are scored

    def __init__(self, task: Generate, backbone: Backbone) -> None:
        if task.template is None:
            raise UserError("a generation needs a template; give one, or rows with a 'prompt'")
        if backbone.architecture == "masked":
            raise UserError(f"{backbone.name} is a masked model and cannot generate")
        task.decoding.check()
        if not 0 <= task.label_smoothing < 1:
            raise UserError(
                f"label_smoothing is {task.label_smoothing}; give a share, from 0 to below 1"
            )
        self.task = task
        self.backbone = backbone
        self.template = Template.parse(task.template)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""
        return self.template.fields

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""
        return sum(size for size, _ in self.starts())

    def starts(self) -> list[tuple[int, str | None]]:
        """The template's runs of virtual tokens: size and starting text of each."""
        return [(soft_size(self.backbone, soft), soft.text) for soft in self.template.soft]

    def headed(self) -> Generator:
        """Raise UserError: a completion has no classes that a head could score."""
        raise UserError("a generation has no classes for a head; leave the head out of --method")

    @property
    def classes(self) -> int:
        """The number of classes, none."""
        return 0

    def bare(self) -> Generator:
        """Return the task with the virtual tokens left out of its template."""
        made = Generator(self.task, self.backbone)
        made.template = self.template.hard()
        return made

    # Rows to examples --------------------------------------------------------------------------

    def _chat(self, row: Row) -> bool:
        return "messages" in self.template.fields and not isinstance(row.fields["messages"], str)

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field or, with ``answers``, its text."""
        for row in rows:
            self.template.check(row.fields, row.where)
            own = self.template.fields
            require([row], [name for name in own if name != "messages" or not self._chat(row)])
            if self._chat(row):
                canonical([row], targets=answers)
            elif answers:
                require([row], [self.task.completion_field])

    def _values(self, row: Row) -> dict[str, str]:
        plain = [name for name in self.template.fields if name != "messages"]
        values = values_of(self.backbone, row, plain, self.task.input_window)
        if "messages" in self.template.fields:
            messages = row.fields["messages"]
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            elif messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            values["messages"] = self._rendered(messages)
        return values

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        tokenizer, window = self.backbone.text.tokenizer, self.task.input_window
        messages = [{**m, "content": begun(self.backbone, m["content"], window)} for m in messages]
        if tokenizer.chat_template is None:
            turns = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages]
            return "\n".join([*turns, "Assistant:"])
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        first = tokenizer.decode(list(self.backbone.text.around[0]))
        return str(text).removeprefix(str(first))  # which laying out puts there

    def completion(self, row: Row) -> str:
        """Return the row's answer."""
        if self._chat(row):
            return str(row.fields["messages"][-1]["content"])
        return str(row.fields[self.task.completion_field])

    def _templated(self, row: Row) -> bool:
        """Whether the row is a chat that the tokenizer's own template renders, to the letter."""
        return self._chat(row) and self.backbone.text.tokenizer.chat_template is not None

    def _following(self, left: str, row: Row) -> str:
        """Return the row's answer as it is written after ``left``."""
        answer = self.completion(row)
        return answer if self._templated(row) else spaced(left, answer)

    def _laid(self, row: Row, room: int, before: str = "") -> Laid:
        limit = self.task.max_length + len(self.backbone.text.ids(before))
        return lay(
            self.backbone,
            self.template,
            self._values(row),
            room=min(limit, room - self.task.decoding.max_new_tokens),
            side=self.task.truncate,
            where=row.where,
            before=before,
        )

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with its completion and the end of text as targets."""
        laid = self._laid(row, room)
        answer = answer_ids(self.backbone, laid.left, self._following(laid.left, row))
        longest = self.task.decoding.max_new_tokens
        cut = len(answer) > longest
        answer = answer[:longest]
        if self.backbone.text.end is not None and not cut:  # what was cut does not end here
            answer = [*answer, self.backbone.text.end]
        targets = tuple((0, j) for j in range(-1, len(answer) - 1))
        example = Example(laid.ids, laid.slot, (tuple(answer[:-1]),), targets, tuple(answer))
        return Encoded(example, len(answer), cut or laid.cut)

    dev_example = train_example

    # Logits to answers -------------------------------------------------------------------------

    def weight(self, item: Encoded) -> int:
        """Count the target tokens."""
        return item.gold

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's cross-entropy in nats, summed over its targets: (rows,)."""
        return self._entropies(logits, items, self.task.label_smoothing)

    def _entropies(self, logits: Tensor, items: Sequence[Encoded], smoothing: float) -> Tensor:
        sizes = torch.tensor([item.gold for item in items], device=logits.device)
        answers = [token for item in items for token in item.example.answers]
        target = torch.tensor(answers, device=logits.device)
        each = F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=smoothing)
        return each.new_zeros(len(items)).index_add(0, torch.repeat_interleave(sizes), each)

    def judge(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return the summed log-likelihood of the completions' tokens, and their number."""
        return -float(self._entropies(logits, items, 0.0).sum()), sum(item.gold for item in items)

    def instruction(self) -> str:
        """Return the default text to start from."""
        return "Answer the request below.\n\n"

    def label_text(self) -> str:
        """Return nothing: a generation has no labels."""
        return ""

    def class_of(self, row: Row) -> str | None:
        """Return None: a generation has no classes."""
        return None

    def demonstration(self, row: Row) -> str:
        """Return the row's prompt with its completion, ended as the next row begins."""
        filled = self.template.fill(self._values(row))
        prompt = "".join(piece for piece in filled if isinstance(piece, str))
        answer = self._following(prompt, row)
        if self._templated(row):
            return f"{prompt}{answer}{self.backbone.text.tokenizer.eos_token or ''}\n"
        return f"{prompt}{answer}\n\n"

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a completion for each row."""
        asked = self.asked(rows, injection, before=before)
        found: list[dict[str, Any]] = [{} for _ in rows]
        decoding = self._decoding(before)
        sizes = [len(ids) + decoding.max_new_tokens for ids in asked.ids]
        for group in buckets(sizes, ROWS_TOKENS):
            ids, part = [asked.ids[i] for i in group], asked.injection.of_rows(group)
            for i, text in zip(group, decode(self.backbone, ids, part, decoding), strict=True):
                found[i] = {"text": text.strip(), "cut": asked.cut[i]}
            if progress is not None:
                progress(len(group))
        return found

    @torch.no_grad()
    def asked(
        self, rows: Sequence[Row], injection: Injection | Mixture, *, before: str = ""
    ) -> Asked:
        """Return what is to be continued; what all rows begin with is read by now."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        laid = [self._laid(row, room, before) for row in rows]
        examples = [Example(each.ids, each.slot, ((),), ()) for each in laid]
        more = self.task.decoding.max_new_tokens
        longest = max((e.length for e in examples), default=0) + more
        mixture = Mixture.of(injection, len(rows))
        lead = () if isinstance(injection, Mixture) else common_lead(examples)
        read = [share(self.backbone.under(p), p, lead, longest) for p in mixture.parts]
        parts = tuple(each.injection for each in read if isinstance(each.injection, Injection))
        ids = [example.ids[read[0].lead :] for example in examples]
        return Asked(ids, Mixture(parts, mixture.rows), [each.cut for each in laid])

    def _decoding(self, before: str) -> Decoding:
        """Stop at the blank line that parts demonstrations, where there are some."""
        stop = self.task.decoding.stop
        return replace(self.task.decoding, stop=(*stop, "\n\n")) if before else self.task.decoding

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return exact match, BLEU, chrF and ROUGE-L against all of a row's references."""
        references = [
            [str(r) for r in row.fields.get("references") or [self.completion(row)]] for row in rows
        ]
        return generation([str(p["text"]) for p in predictions], references, seed=seed)


ROWS_TOKENS = 4096
"""Tokens, prompts and completions together, that are decoded side by side."""
