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
        tokenizer: Any = backbone.text.tokenizer
        self.form, self.required = form, tools.choice == "required"
        added = {str(own): (n, own.special) for n, own in tokenizer.added_tokens_decoder.items()}
        self.hidden = [name for name, (_, special) in added.items() if special]

        def write(matcher: Any, tokens: Any) -> str:
            apart = {name: n for name, (n, _) in added.items() if tokens.is_special_token(n)}
            shown = [
                n
                for name, n in apart.items()
                if name not in self.hidden and not form.begin.startswith(name)
            ]
            return str(matcher.grammar_from_lark(self._lark(tools, schema, apart, shown)))

        signs = SIGNS + self._visible(form.begin + form.between + form.last)
        super().__init__("tools", write, tokenizer, backbone.ends, signs)

    def reader(self) -> ToolReader:
        """Return what parts one answer into its text and its calls."""
        form = self.form
        again = None if form.again is None else self._visible(form.again)
        begin, between = self._visible(form.begin).lstrip(), self._visible(form.between)
        return ToolReader(begin, between, again, required=self.required)

    def _visible(self, text: str) -> str:
        """Return a text without the special tokens that an answer is given without."""
        for name in self.hidden:
            text = text.replace(name, "")
        return text

    def _lark(
        self, tools: Tools, schema: str | None, apart: Mapping[str, int], shown: Sequence[int]
    ) -> str:
        """Write the grammar, in llguidance's kind of Lark.

        Tokens that stand ``apart`` in it are no text there, though some may be ``shown`` among it.
        """
        form, functions = self.form, tools.callable
        names = "|".join(map(re.escape, sorted(apart, key=len, reverse=True))) or "(?!)"

        def literal(text: str) -> str:
            return " ".join(
                f"<[{apart[part]}]>" if part in apart else json.dumps(part, ensure_ascii=False)
                for part in re.split(f"({names})", text)
                if part
            )

        several = tools.parallel and form.again is not None
        more = f"({literal(form.again)} call)*" if several and form.again is not None else ""
        calls = f"call {more} {literal(form.last)}"
        rules = [f"call: {' | '.join(f'call_{n}' for n in range(len(functions)))}"]
        for number, own in enumerate(functions):
            parameters = {**_arguments(own["parameters"]), "x-guidance": WRITTEN}
            rules.append(
                f"call_{number}: {literal(own['name'] + form.between)} "
                f"%json {json.dumps(parameters, ensure_ascii=False)}"
            )
        if tools.choice == "required":
            rules.append(f"start: {literal(form.begin)} {calls}")
        elif schema is not None:
            own = {**json.loads(schema), "x-guidance": WRITTEN}
            rules.append(f"start: said | {literal(form.begin)} {calls}")
            rules.append(f"said: %json {json.dumps(own, ensure_ascii=False)}")
        else:
            # Text that begins as a call does, up to the end of its tag, goes on as one; what the
            # reader takes for a call is always one.
            begin = self._visible(form.begin).lstrip()
            tag = re.match(r"<[^\s>]*>?", begin)
            sign = begin if tag is None else tag[0]
            head = f"head {literal(rest) if (rest := begin.removeprefix(sign)) else ''}"
            if re.match(names, form.begin):
                head = f"({head} | text* {literal(form.begin)})"
            rules += [
                f"start: text* | text* {head} {calls}",
                f"text: {' | '.join(['TEXT', *(f'<[{n}]>' for n in shown)])}",
                f"head[lazy]: TEXT {json.dumps(sign, ensure_ascii=False)}",
                "TEXT: /(.|\\n)*/",
            ]
        return "\n".join(["%llguidance {}", *rules, ""])


def _arguments(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a call's arguments: none where the parameters name none."""
    says = parameters.keys() - {"type", "required", "title", "description", "$schema"}
    if says - {"properties"} or parameters.get("properties"):
        return parameters
    return {**parameters, "additionalProperties": False}


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
