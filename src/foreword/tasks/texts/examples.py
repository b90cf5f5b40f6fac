"""Rows of tasks whose answers are texts, as a backbone reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.data.shapes import canonical, require
from foreword.errors import UserError
from foreword.tasks.base import Bound
from foreword.tasks.gold import check_learned, learned_turns
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import (
    FilledTemplate,
    answer_ids,
    field_texts,
    fill_template,
    first_tokens,
    room_beside,
)
from foreword.tasks.templates.template import Field, Template
from foreword.tasks.texts.conversation import (
    Conversation,
    encode_conversation,
    without_first_turns,
)
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
            kind = "an encoder" if backbone.is_encoder else "a masked model"
            raise UserError(f"{backbone.name} is {kind} and cannot generate; give a causal model")
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
        if self.template.parts[:1] == (Field("messages"),) and backbone.text.chat is not None:
            self.template = replace(self.template, chat=True)

    def _is_chat(self, row: Row) -> bool:
        return "messages" in self.template.fields and not isinstance(row.fields["messages"], str)

    @property
    def reads(self) -> tuple[str, ...]:
        """The template's fields; with messages the tools that they may call."""
        return (*self.fields, "tools") if "messages" in self.fields else self.fields

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field or, with ``answers``, its text."""
        for row in rows:
            self.template.check(row.fields, row.where)
            own = self.template.fields
            require([row], [name for name in own if name != "messages" or not self._is_chat(row)])
            if self._is_chat(row):
                (row,) = canonical([row], targets=answers)[1]
                if answers:
                    check_learned(row, every=self.wording.every_turn)
            self.wording.check(row, answers)

    def _talk(self, row: Row, messages: Sequence[Mapping[str, Any]] | None = None) -> Conversation:
        """Return a row's conversation, or the part of it that is given.

        What others than the assistant say is truncated to ``input_window`` tokens.
        """
        given = row.fields["messages"] if messages is None else messages
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        window = self.task.input_window
        read = [
            m
            if m["role"] == "assistant"
            else {**m, "content": first_tokens(self.backbone, m["content"], window)}
            for m in given
        ]
        return Conversation(self.backbone.text, read, row.fields.get("tools") or (), row.where)

    def _asked(self, row: Row) -> Conversation:
        """Return a row's conversation up to where the assistant answers."""
        messages = row.fields["messages"]
        if isinstance(messages, list) and messages[-1]["role"] == "assistant":
            return self._talk(row, messages[:-1])
        return self._talk(row)

    def _values(self, row: Row) -> dict[str, str]:
        plain = [name for name in self.template.fields if name != "messages"]
        values = field_texts(self.backbone, row, plain, self.task.input_window)
        if "messages" in self.template.fields:
            values["messages"] = self._written(self._asked(row).asked())
        return values

    def _written(self, prompt: str) -> str:
        """Return a rendered conversation as it stands in the template."""
        return prompt if self.template.chat else prompt.removeprefix(self.backbone.text.first)

    def completion(self, row: Row) -> str:
        """Return the row's answer; a turn that calls tools as the chat template writes it."""
        if self._is_chat(row) and row.fields["messages"][-1].get("tool_calls"):
            return self.answer_of(self.backbone.text.without_special(self._talk(row).last().said))
        return self.wording.answer(row)

    def references(self, row: Row) -> Sequence[str]:
        """Return all right answers of a row."""
        given = self.wording.references(row)
        if row.fields.get("references") is None and given == [self.wording.answer(row)]:
            return [self.completion(row)]
        return given

    def answer_of(self, written: str) -> str:
        """Return the answer in what the model wrote: without the empty thoughts before it."""
        chat = self.backbone.text.chat
        opening = chat.opening.strip() if chat is not None else ""
        return written.strip().removeprefix(opening).strip()

    def _answer(self, left: str, row: Row) -> tuple[str, tuple[int, ...]]:
        """Return the row's answer as it is written after ``left``, and the tokens that end it."""
        text = self.backbone.text
        ends = () if text.end is None else (text.end,)
        if self._is_chat(row) and text.chat is not None:
            turn = self._talk(row).last()
            return turn.said, text.turn_end if turn.end else ends
        return self._ended(left, self.completion(row))

    def _ended(self, left: str, answer: str) -> tuple[str, tuple[int, ...]]:
        """Return an answer as it follows ``left``, and the tokens that end it."""
        text = self.backbone.text
        if self.template.answer is not None:
            answer = self.template.answer.read(answer)
            return self.following(left, answer), text.turn_end
        return self.following(left, answer), () if text.end is None else (text.end,)

    def _room(self, room: int, before: str) -> int:
        """Return the most tokens a row may have, with the text ``before`` it."""
        return self.limit(self._beside_answer(room), before)

    def _beside_answer(self, room: int) -> int:
        return room_beside(self.backbone, room, self.task.decoding.max_new_tokens)

    def _fill_row(self, row: Row, room: int, before: str = "") -> FilledTemplate:
        left = self._beside_answer(room)
        if "messages" not in self.template.fields:
            return self.fill(self._values(row), left, row.where, before)
        return self._fill_chat(row, self._asked(row), left, before)

    def _fill_chat(
        self, row: Row, talk: Conversation, room: int, before: str = ""
    ) -> FilledTemplate:
        """Fill the template with a conversation up to an answer.

        One that is too long loses its first turns, and then words of the longest message that is
        left, the system's last; never what the chat template writes around them.
        """
        plain = [name for name in self.template.fields if name != "messages"]
        values = field_texts(self.backbone, row, plain, self.task.input_window)
        messages, shortened = talk.messages, False
        limit = self.limit(room, before)
        while True:
            known = {f"messages[{n}]": turn["content"] for n, turn in enumerate(messages)}
            system = [
                f"messages[{n}]" for n, turn in enumerate(messages) if turn["role"] == "system"
            ]

            def compose(texts: Mapping[str, str], messages: Any = messages) -> dict[str, str]:
                own = [
                    {**turn, "content": texts[f"messages[{n}]"]} for n, turn in enumerate(messages)
                ]
                prompt = replace(talk, messages=own).asked()
                return {**texts, "messages": self._written(prompt)}

            shorter = without_first_turns(messages)
            if shorter is None:
                break
            whole = fill_template(
                self.backbone,
                self.template,
                {**values, **known},
                room=self.backbone.longest + 10**9,
                side="left",
                where=row.where,
                before=before,
                compose=compose,
            )
            if len(whole.ids) <= limit:
                return replace(whole, truncated=shortened)
            messages, shortened = shorter, True
        filled = self.fill(
            {**values, **known}, room, row.where, before, compose=compose, spared=system
        )
        return replace(filled, truncated=filled.truncated or shortened)

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
            self._with_answer(filled, *self._answer(filled.left, row)), windows=len(parts)
        )

    def _with_answer(self, filled: FilledTemplate, text: str, end: Sequence[int]) -> Encoded:
        """Return a filled row followed by a text and the tokens that end it, all as targets."""
        answer = answer_ids(self.backbone, filled.left, text)
        longest = self.task.decoding.max_new_tokens
        truncated = len(answer) > longest
        answer = answer[:longest] if truncated else [*answer, *end]  # what is cut does not end here
        targets = tuple((0, j) for j in range(-1, len(answer) - 1))
        branches, answers = (tuple(answer[:-1]),), tuple(answer)
        example = Example(filled.ids, filled.slot, branches, targets, answers, filled.bos)
        return Encoded(example, len(answer), truncated or filled.truncated)

    def _conversation(self, row: Row, room: int) -> Encoded:
        """Return a conversation with all replies, and the tokens that end them, as targets.

        One that is too long loses its first turns.
        """
        talk, truncated = self._talk(row), False
        limit = min(self.task.max_length, room)
        while True:
            said = encode_conversation(self.backbone, talk)
            own = {**row.fields, "messages": self._written(said.before)}
            values = {name: str(own[name]) for name in self.template.fields}
            filled = fill_template(
                self.backbone,
                self.template,
                values,
                room=limit + 10**9,
                side="left",
                where=row.where,
            )
            if len(filled.ids) + len(said.ids) <= limit:
                break
            shorter = without_first_turns(talk.messages)
            if shorter is None or not learned_turns(shorter):  # as the last turn alone is truncated
                last_one = talk.messages[: learned_turns(talk.messages)[-1] + 1]
                last = Row({**row.fields, "messages": last_one}, row.where, row.task)
                filled = self._fill_row(last, room)
                return self._with_answer(filled, *self._answer(filled.left, last))
            talk, truncated = replace(talk, messages=shorter), True
        targets = tuple((0, place - 1) for place in said.said)
        answers = tuple(said.ids[place] for place in said.said)
        branches = (said.ids[:-1],)
        example = Example(filled.ids, filled.slot, branches, targets, answers, filled.bos)
        return Encoded(example, len(answers), truncated or filled.truncated)

    def demonstration(self, row: Row) -> str:
        """Return the row's prompt and answer, ended so that another row may follow."""
        prompt, text = self.plain_text(self._values(row)), self.backbone.text
        answer, _ = self._answer(prompt, row)
        if self._is_chat(row) and text.chat is not None:
            return f"{prompt}{answer}{text.after_turn}"
        return f"{prompt}{answer}{self.template.after}"
