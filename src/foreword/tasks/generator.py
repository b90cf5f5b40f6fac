"""The machine of all tasks whose answers are texts: what is read, learned and written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example, common_lead
from foreword.data.read import Row
from foreword.data.shapes import canonical, require
from foreword.engine import buckets, infer, share
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.tasks.conversation import later, rendered, talk
from foreword.tasks.layout import Laid, answer_ids, begun, lay, room_for, values_of
from foreword.tasks.task import Encoded, Task, mean
from foreword.tasks.template import Template
from foreword.tasks.templated import Templated
from foreword.tasks.windows import windows
from foreword.tasks.wording import TextTask, Wording

ROWS_TOKENS = 4096
"""Tokens, prompts and completions together, that are decoded side by side."""

SEAM = 4
"""Tokens that a window may have more between other text than alone, at its two ends."""

LEAST_WINDOW = 16
"""Tokens that a window must have to be worth reading."""


@dataclass(frozen=True)
class Asked:
    """Rows of token ids to be continued, what each is run under, and whether it was cut."""

    ids: list[tuple[int, ...]]
    injection: Mixture
    cut: list[bool]


class Generator(Templated):
    """A task of texts bound to a backbone."""

    metric = "log-likelihood"
    answer = "text"
    tokens = None  # all are scored
    classes = 0
    measured = staticmethod(mean)

    def __init__(self, task: TextTask, backbone: Backbone, wording: Wording) -> None:
        if task.template is None:
            raise UserError("a generation needs a template; give one, or rows with a 'prompt'")
        if backbone.architecture == "masked":
            raise UserError(f"{backbone.name} is a masked model and cannot generate")
        task.decoding.check()
        if not 0 <= task.label_smoothing < 1:
            raise UserError(
                f"label_smoothing is {task.label_smoothing}; give a share, from 0 to below 1"
            )
        if wording.every_turn and backbone.architecture != "causal":
            raise UserError(
                f"{backbone.name} has a decoder apart, which learns one turn; use --turns last"
            )
        super().__init__(backbone, task.template)
        if "messages" in self.fields and Template.parse(task.template).roles:
            raise UserError(
                f"template {task.template!r}: {{messages}} are turns already; leave out the roles"
            )
        self.task: TextTask = task
        self.wording = wording

    @property
    def headline(self) -> str:
        """The score by which prompts are compared."""
        return self.wording.headline

    def bare(self) -> Generator:
        """Return the task with the virtual tokens left out of its template."""
        made = Generator(self.task, self.backbone, self.wording)
        made.template = self.template.hard()
        return made

    def headed(self) -> Generator:
        """Raise UserError: a text has no classes that a head could score."""
        raise UserError("a generation has no classes for a head; leave the head out of --method")

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
            self.wording.check(row, answers)

    def _values(self, row: Row) -> dict[str, str]:
        plain = [name for name in self.template.fields if name != "messages"]
        values = values_of(self.backbone, row, plain, self.task.input_window)
        if "messages" in self.template.fields:
            messages = row.fields["messages"]
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            elif messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            values["messages"] = rendered(self.backbone.text, self._heard(messages), row.where)
        return values

    def _heard(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """Return messages, of those that the assistant has not said the first tokens alone."""
        window = self.task.input_window
        return [
            m
            if m["role"] == "assistant"
            else {**m, "content": begun(self.backbone, m["content"], window)}
            for m in messages
        ]

    def completion(self, row: Row) -> str:
        """Return the row's answer."""
        return self.wording.answer(row)

    def _templated(self, row: Row) -> bool:
        """Whether the row is a chat that the tokenizer's own template renders, to the letter."""
        return self._chat(row) and self.backbone.text.tokenizer.chat_template is not None

    def _following(self, left: str, row: Row) -> str:
        """Return the row's answer as it is written after ``left``."""
        answer = self.completion(row)
        return answer if self._templated(row) else self.following(left, answer)

    def _room(self, room: int, before: str) -> int:
        """Return how many tokens a row may have, the text ``before`` it counted in."""
        limit = self.task.max_length + len(self.backbone.text.ids(before))
        return min(limit, room - self.task.decoding.max_new_tokens)

    def _laid(self, row: Row, room: int, before: str = "") -> Laid:
        limit, given = self._room(room, before), row
        while self._chat(row) and len(self._values(row)["messages"]) > limit:
            said = len(self.backbone.text.ids(self._values(row)["messages"]))
            shorter = later(row.fields["messages"]) if said > limit else None
            if shorter is None:
                break
            row = Row({**row.fields, "messages": shorter}, row.where, row.task)
        laid = lay(
            self.backbone,
            self.template,
            self._values(row),
            room=limit,
            side=self.task.truncate,
            where=row.where,
            before=before,
        )
        return laid if row is given else replace(laid, cut=True)

    def windows(self, row: Row, room: int, before: str = "") -> list[Row]:
        """Return the row, or a row for each window of its long field.

        Raises UserError where the rest of the row leaves no room for a window.
        """
        field = self.wording.windowed
        if field is None:
            return [row]
        without = Row({**row.fields, field: ""}, row.where, row.task)
        size = self._room(room, before) - len(self._laid(without, room, before).ids) - SEAM
        whole = begun(self.backbone, str(row.fields[field]), self.task.input_window)
        if size < LEAST_WINDOW and len(self.backbone.text.ids(whole)) > size:
            raise UserError(
                f"{row.where}: the rest of the row leaves {max(0, size)} tokens for its "
                f"'{field}'; shorten it, or raise --max-length"
            )
        parts = windows(self.backbone.text, whole, size, min(self.wording.stride, max(1, size)))
        return [Row({**row.fields, field: part}, row.where, row.task) for part in parts]

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with its answer and the end of text as targets."""
        if self.wording.every_turn and self._chat(row):
            return self._conversation(row, room)
        parts = self.windows(row, room)
        row = next((part for part in parts if self.wording.holds(part)), parts[0])
        laid = self._laid(row, room)
        return replace(self._taught(laid, self._following(laid.left, row)), windows=len(parts))

    dev_example = train_example

    def _taught(self, laid: Laid, text: str) -> Encoded:
        """Return a laid row with a text after it as targets, and its end."""
        answer = answer_ids(self.backbone, laid.left, text)
        longest = self.task.decoding.max_new_tokens
        cut = len(answer) > longest
        answer = answer[:longest]
        if self.backbone.text.end is not None and not cut:  # what was cut does not end here
            answer = [*answer, self.backbone.text.end]
        targets = tuple((0, j) for j in range(-1, len(answer) - 1))
        example = Example(laid.ids, laid.slot, (tuple(answer[:-1]),), targets, tuple(answer))
        return Encoded(example, len(answer), cut or laid.cut)

    def _conversation(self, row: Row, room: int) -> Encoded:
        """Return a conversation with all replies as targets, and the tokens that end them.

        One that is too long loses its first turns.
        """
        messages, cut = self._heard(row.fields["messages"]), False
        limit = min(self.task.max_length, room)
        while True:
            said = talk(self.backbone, messages, row.where)
            own = {**row.fields, "messages": said.before}
            values = {name: str(own[name]) for name in self.template.fields}
            laid = lay(
                self.backbone, self.template, values, room=room, side="left", where=row.where
            )
            if len(laid.ids) + len(said.ids) <= limit:
                break
            shorter = later(messages)
            if shorter is None:  # one turn alone is cut as any other row
                last = Row({**row.fields, "messages": messages}, row.where, row.task)
                laid = self._laid(last, room)
                return self._taught(laid, self._following(laid.left, last))
            messages, cut = shorter, True
        targets = tuple((0, place - 1) for place in said.said)
        answers = tuple(said.ids[place] for place in said.said)
        example = Example(laid.ids, laid.slot, (said.ids[:-1],), targets, answers)
        return Encoded(example, len(answers), cut or laid.cut)

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
        """Return the summed log-likelihood of the answers' tokens, and their number."""
        return -float(self._entropies(logits, items, 0.0).sum()), sum(item.gold for item in items)

    def finished(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task as it is."""
        return self.task

    def instruction(self) -> str:
        """Return the default text to start from."""
        return self.wording.instruction

    def label_text(self) -> str:
        """Return nothing: a text has no labels."""
        return ""

    def class_of(self, row: Row) -> str | None:
        """Return None: a text has no classes."""
        return None

    def demonstration(self, row: Row) -> str:
        """Return the row's prompt with its answer, ended as the next row begins."""
        filled = self.template.fill(self._values(row))
        prompt = "".join(piece for piece in filled if isinstance(piece, str))
        answer = self._following(prompt, row)
        if self._templated(row):
            return f"{prompt}{answer}{self.backbone.text.tokenizer.eos_token or ''}\n"
        return f"{prompt}{answer}{self.template.after}"

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return an answer for each row; of one in windows, the likeliest of theirs."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        parted = [self.windows(row, room, before) for row in rows]
        owners = [n for n, own in enumerate(parted) for _ in own]
        flat = [part for own in parted for part in own]
        mixture = Mixture.of(injection, len(rows)).of_rows(owners)
        under = mixture if isinstance(injection, Mixture) else injection
        texts, cut = self._written(flat, under, before, owners, progress)
        several = [n for n, own in enumerate(owners) if len(parted[own]) > 1]
        chances = dict.fromkeys(range(len(flat)), 0.0)
        if several:
            chosen = mixture.of_rows(several) if isinstance(injection, Mixture) else injection
            said = [(flat[n], texts[n]) for n in several]
            chances.update(zip(several, self._chances(said, chosen, room, before), strict=True))
        found: list[dict[str, Any]] = [{} for _ in rows]
        for n in sorted(range(len(flat)), key=lambda n: chances[n]):
            own = {"windows": len(parted[owners[n]])} if self.wording.windowed else {}
            found[owners[n]] = {"text": texts[n], "cut": cut[n], **own}
        return found

    def _written(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        before: str,
        owners: Sequence[int],
        progress: Any,
    ) -> tuple[list[str], list[bool]]:
        """Decode each row; progress hears of an owner once, with the last of its rows."""
        asked = self.asked(rows, injection, before=before)
        texts = [""] * len(rows)
        decoding = self._decoding(before)
        sizes = [len(ids) + decoding.max_new_tokens for ids in asked.ids]
        left = Counter(owners)
        for group in buckets(sizes, ROWS_TOKENS):
            ids, part = [asked.ids[i] for i in group], asked.injection.of_rows(group)
            for i, text in zip(group, decode(self.backbone, ids, part, decoding), strict=True):
                texts[i] = text.strip()
            left.subtract(owners[i] for i in group)
            if progress is not None:
                progress(len({owners[i] for i in group if not left[owners[i]]}))
        return texts, asked.cut

    def _chances(
        self,
        said: Sequence[tuple[Row, str]],
        injection: Injection | Mixture,
        room: int,
        before: str,
    ) -> list[float]:
        """Return the mean log-probability of each text's tokens after its row; no text has none."""
        items = []
        for row, text in said:
            laid = self._laid(row, room, before)
            items.append(self._taught(laid, self.following(laid.left, text)))
        found = [-math.inf] * len(items)
        for group, logits in infer(self.backbone, injection, [item.example for item in items]):
            own = [items[i] for i in group]
            for i, loss in zip(group, self._entropies(logits, own, 0.0).tolist(), strict=True):
                if said[i][1]:
                    found[i] = -loss / items[i].gold
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
        """Compare answers with all of a row's references, as the task is measured.

        ``windowed`` counts the rows that were read in windows.
        """
        references = [self.wording.references(row) for row in rows]
        found = self.wording.measure([str(p["text"]) for p in predictions], references, seed)
        if self.wording.windowed is None:
            return found
        return {**found, "windowed": sum(p.get("windows", 1) > 1 for p in predictions)}
