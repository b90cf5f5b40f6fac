"""Rows of tasks whose answers are texts, as a backbone reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.data.shapes import canonical, require
from foreword.errors import UserError
from foreword.tasks.base import Bound, Encoded
from foreword.tasks.templates.layout import (
    FilledTemplate,
    answer_ids,
    field_texts,
    fill_template,
    first_tokens,
)
from foreword.tasks.templates.template import Template
from foreword.tasks.texts.conversation import encode_conversation, render_chat, without_first_turns
from foreword.tasks.texts.spec import TextTask, Wording
from foreword.tasks.texts.windows import windows

SEAM = 4
"""Tokens to spare for a window, which may be tokenized differently inside other text."""

LEAST_WINDOW = 16
"""The fewest tokens of a window."""


class TextExamples(Bound):
    """Turns rows into examples; ``Generator`` adds what happens to the logits."""

    def __init__(self, task: TextTask, backbone: Backbone, wording: Wording) -> None:
        if task.template is None:
            raise UserError("a generation needs a template; give one, or rows with a 'prompt'")
        if not backbone.can_generate:
            raise UserError(f"{backbone.name} is a masked model and cannot generate")
        task.decoding.check()
        if not 0 <= task.label_smoothing < 1:
            raise UserError(
                f"label_smoothing is {task.label_smoothing}; give a share, from 0 to below 1"
            )
        if wording.every_turn and backbone.has_two_stacks:
            raise UserError(
                f"{backbone.name} has a decoder apart, which learns one turn; use `turns` last"
            )
        super().__init__(task, backbone, task.template)
        if "messages" in self.fields and Template.parse(task.template).roles:
            raise UserError(
                f"template {task.template!r}: {{messages}} are turns already; leave out the roles"
            )
        self.task: TextTask = task
        self.wording = wording

    def _is_chat(self, row: Row) -> bool:
        return "messages" in self.template.fields and not isinstance(row.fields["messages"], str)

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field or, with ``answers``, its text."""
        for row in rows:
            self.template.check(row.fields, row.where)
            own = self.template.fields
            require([row], [name for name in own if name != "messages" or not self._is_chat(row)])
            if self._is_chat(row):
                canonical([row], targets=answers)
            self.wording.check(row, answers)

    def _values(self, row: Row) -> dict[str, str]:
        plain = [name for name in self.template.fields if name != "messages"]
        values = field_texts(self.backbone, row, plain, self.task.input_window)
        if "messages" in self.template.fields:
            messages = row.fields["messages"]
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            elif messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            values["messages"] = render_chat(
                self.backbone.text, self._window_messages(messages), row.where
            )
        return values

    def _window_messages(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """Return messages, truncated to ``input_window`` tokens unless the assistant said them."""
        window = self.task.input_window
        return [
            m
            if m["role"] == "assistant"
            else {**m, "content": first_tokens(self.backbone, m["content"], window)}
            for m in messages
        ]

    def completion(self, row: Row) -> str:
        """Return the row's answer."""
        return self.wording.answer(row)

    def _uses_chat_template(self, row: Row) -> bool:
        """Whether the row is a chat that the tokenizer's chat template renders."""
        return self._is_chat(row) and self.backbone.text.tokenizer.chat_template is not None

    def _following(self, left: str, row: Row) -> str:
        """Return the row's answer as it is written after ``left``."""
        answer = self.completion(row)
        return answer if self._uses_chat_template(row) else self.following(left, answer)

    def _room(self, room: int, before: str) -> int:
        """Return the most tokens a row may have, with the text ``before`` it."""
        return self.limit(room - self.task.decoding.max_new_tokens, before)

    def _fill_row(self, row: Row, room: int, before: str = "") -> FilledTemplate:
        limit, given = self._room(room, before), row
        while self._is_chat(row) and len(self._values(row)["messages"]) > limit:
            said = len(self.backbone.text.ids(self._values(row)["messages"]))
            shorter = without_first_turns(row.fields["messages"]) if said > limit else None
            if shorter is None:
                break
            row = Row({**row.fields, "messages": shorter}, row.where, row.task)
        left = room - self.task.decoding.max_new_tokens
        filled = self.fill(self._values(row), left, row.where, before)
        return filled if row is given else replace(filled, truncated=True)

    def windows(self, row: Row, room: int, before: str = "") -> list[Row]:
        """Return the row, or a row for each window of its long field.

        Raises UserError where the rest of the row leaves no room for a window.
        """
        field = self.wording.windowed
        if field is None:
            return [row]
        without = Row({**row.fields, field: ""}, row.where, row.task)
        size = self._room(room, before) - len(self._fill_row(without, room, before).ids) - SEAM
        whole = first_tokens(self.backbone, str(row.fields[field]), self.task.input_window)
        if size < LEAST_WINDOW and len(self.backbone.text.ids(whole)) > size:
            raise UserError(
                f"{row.where}: the rest of the row leaves {max(0, size)} tokens for its "
                f"'{field}'; shorten it, or raise `max_length`"
            )
        stride = min(self.wording.stride, max(1, size))
        with reading(row.where):
            parts = windows(self.backbone.text, whole, size, stride)
        return [Row({**row.fields, field: part}, row.where, row.task) for part in parts]

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with its answer and the end of text as targets."""
        with reading(row.where):
            return self._train_example(row, room)

    def _train_example(self, row: Row, room: int) -> Encoded:
        if self.wording.every_turn and self._is_chat(row):
            return self._conversation(row, room)
        parts = self.windows(row, room)
        row = next((part for part in parts if self.wording.holds(part)), parts[0])
        filled = self._fill_row(row, room)
        return replace(
            self._with_answer(filled, self._following(filled.left, row)), windows=len(parts)
        )

    def _with_answer(self, filled: FilledTemplate, text: str) -> Encoded:
        """Return a filled row followed by a text and the end token, both as targets."""
        answer = answer_ids(self.backbone, filled.left, text)
        longest = self.task.decoding.max_new_tokens
        truncated = len(answer) > longest
        answer = answer[:longest]
        if (
            self.backbone.text.end is not None and not truncated
        ):  # a truncated answer does not end here
            answer = [*answer, self.backbone.text.end]
        targets = tuple((0, j) for j in range(-1, len(answer) - 1))
        example = Example(filled.ids, filled.slot, (tuple(answer[:-1]),), targets, tuple(answer))
        return Encoded(example, len(answer), truncated or filled.truncated)

    def _conversation(self, row: Row, room: int) -> Encoded:
        """Return a conversation with all replies, and the tokens that end them, as targets.

        One that is too long loses its first turns.
        """
        messages, truncated = self._window_messages(row.fields["messages"]), False
        limit = min(self.task.max_length, room)
        while True:
            said = encode_conversation(self.backbone, messages, row.where)
            own = {**row.fields, "messages": said.before}
            values = {name: str(own[name]) for name in self.template.fields}
            filled = fill_template(
                self.backbone, self.template, values, room=room, side="left", where=row.where
            )
            if len(filled.ids) + len(said.ids) <= limit:
                break
            shorter = without_first_turns(messages)
            if shorter is None:  # a single turn is truncated as any other row
                last = Row({**row.fields, "messages": messages}, row.where, row.task)
                filled = self._fill_row(last, room)
                return self._with_answer(filled, self._following(filled.left, last))
            messages, truncated = shorter, True
        targets = tuple((0, place - 1) for place in said.said)
        answers = tuple(said.ids[place] for place in said.said)
        example = Example(filled.ids, filled.slot, (said.ids[:-1],), targets, answers)
        return Encoded(example, len(answers), truncated or filled.truncated)

    def demonstration(self, row: Row) -> str:
        """Return the row's prompt and answer, ended so that another row may follow."""
        prompt = self.plain_text(self._values(row))
        answer = self._following(prompt, row)
        if self._uses_chat_template(row):
            return f"{prompt}{answer}{self.backbone.text.tokenizer.eos_token or ''}\n"
        return f"{prompt}{answer}{self.template.after}"
