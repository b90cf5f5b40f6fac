"""Tools that an answer may call: the grammar of such answers, and what becomes of their text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foreword.backbone.backbone import Backbone
from foreword.backbone.json_rule import SIGNS, WRITTEN, TextRule
from foreword.errors import UserError
from foreword.serve.tool_form import ToolForm
from foreword.serve.tool_reader import ToolReader

Choice = Literal["auto", "required"]


@dataclass(frozen=True)
class Tools:
    """Tools by OpenAI's names, all of type ``function``, and whether one must be called.

    With ``parallel`` an answer may have several calls. The model reads of all ``functions``, of
    which ``named`` alone may be called, unless it is None.
    """

    functions: Sequence[Mapping[str, Any]]
    choice: Choice = "auto"
    parallel: bool = True
    named: str | None = None

    @property
    def callable(self) -> list[Mapping[str, Any]]:
        """The functions that may be called, without what is around each."""
        own = [tool["function"] for tool in self.functions]
        return [each for each in own if self.named in (None, each["name"])]


class ToolRule(TextRule):
    """What an answer may be where tools may be called.

    Under ``auto`` it is any text, and calls end it; ``schema`` is that of an answer without calls.
    Raises UserError for parameters that cannot be followed token by token.
    """

    def __init__(
        self, tools: Tools, form: ToolForm, backbone: Backbone, schema: str | None = None
    ) -> None:
        text = backbone.text
        self.form, self.special = form, _special(text.tokenizer)

        def write(matcher: Any, tokens: Any) -> str:
            ids = {name: n for name, n in self.special.items() if tokens.is_special_token(n)}
            return str(matcher.grammar_from_lark(_lark(tools, form, schema, ids)))

        signs = SIGNS + self._visible(form.begin + form.between + form.last)
        super().__init__("tools", write, text.tokenizer, backbone.ends, signs)

    def reader(self) -> ToolReader:
        """Return what parts one answer into its text and its calls."""
        form = self.form
        again = None if form.again is None else self._visible(form.again)
        return ToolReader(self._visible(form.begin).lstrip(), self._visible(form.between), again)

    def _visible(self, text: str) -> str:
        """Return a text without the special tokens that an answer is given without."""
        for name in self.special:
            text = text.replace(name, "")
        return text


def _special(tokenizer: Any) -> dict[str, int]:
    """Return the special tokens of a tokenizer, the longest first."""
    ids = {str(tokenizer.convert_ids_to_tokens(n)): int(n) for n in tokenizer.all_special_ids}
    return dict(sorted(ids.items(), key=lambda pair: -len(pair[0])))


def _lark(tools: Tools, form: ToolForm, schema: str | None, special: Mapping[str, int]) -> str:
    """Write the grammar, in llguidance's kind of Lark."""

    def literal(text: str) -> str:
        parts = re.split("|".join(f"({re.escape(name)})" for name in special) or "(?!)", text)
        return " ".join(
            f"<[{special[part]}]>" if part in special else json.dumps(part, ensure_ascii=False)
            for part in parts
            if part
        )

    several = tools.parallel and form.again is not None
    more = f"({literal(form.again)} call)*" if several and form.again is not None else ""
    calls = f"call {more} {literal(form.last)}"
    functions = tools.callable
    rules = [f"call: {' | '.join(f'call_{n}' for n in range(len(functions)))}"]
    for number, own in enumerate(functions):
        parameters = {**own["parameters"], "x-guidance": WRITTEN}
        rules.append(
            f"call_{number}: {literal(own['name'] + form.between)} "
            f"%json {json.dumps(parameters, ensure_ascii=False)}"
        )
    if tools.choice == "required":
        start = [f"start: {literal(form.begin)} {calls}"]
    elif schema is not None:
        own = {**json.loads(schema), "x-guidance": WRITTEN}
        start = [f"start: said | {literal(form.begin)} {calls}", f"said: %json {json.dumps(own)}"]
    else:
        start = _freely(form.begin, calls, literal, special)
    return "\n".join(["%llguidance {}", *start, *rules, ""])


def _freely(begin: str, calls: str, literal: Any, special: Mapping[str, int]) -> list[str]:
    """Return the rules of an answer of any text, in which calls may begin.

    Text that begins as a call does, up to the end of its tag, goes on as one. A form without a tag
    or a token of its own is looked for where an answer begins.
    """
    if any(begin.startswith(name) for name in special):
        return [f"start: TEXT | TEXT? {literal(begin)} {calls}", "TEXT: /(.|\\n)+/"]
    if begin.startswith("<"):
        sign = re.match(r"[^\s>]*>?", begin)
        assert sign is not None
        rest = begin[sign.end() :]
        return [
            f"start: TEXT | head {literal(rest) if rest else ''} {calls}",
            f"head[lazy]: TEXT {literal(sign[0])}",
            "TEXT: /(.|\\n)*/",
        ]
    first = re.escape(begin.lstrip()[0])
    return [f"start: TEXT | {literal(begin)} {calls}", f"TEXT: /([^{first}](.|\\n)*)?/"]


def check_tools(tools: Tools) -> None:
    """Raise UserError for tools of one name, parameters that are no object, or no ``named`` one."""
    names: set[str] = set()
    for tool in tools.functions:
        name, kind = tool["function"]["name"], tool["function"]["parameters"]["type"]
        if name in names:
            raise UserError(f"`tools`: two have the name {name!r}; give each its own")
        if kind != "object":
            raise UserError(
                f"`tools`: the parameters of {name!r} are of type {kind!r}; a function takes an "
                "object"
            )
        names.add(name)
    if tools.choice == "required" and not names:
        raise UserError("`tool_choice`: there are no `tools`; give some, or leave it out")
    if tools.named is not None and tools.named not in names:
        raise UserError(f"`tool_choice`: there is no function {tools.named!r} among `tools`")
