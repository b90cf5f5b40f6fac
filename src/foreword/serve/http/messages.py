"""Messages of conversations and the tools they speak of, as bodies of requests have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import from_json

from foreword.serve.http.reading import Strict, Text


class ContentPart(Strict):
    """A part of a message, of which only texts are read."""

    type: Literal["text"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def _readable(cls, kind: Any) -> Any:
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"the model reads texts alone, and no {kind[:40]!r}; leave it out")
        return kind


class CalledFunction(Strict):
    """A function that was called, its arguments as JSON in a text."""

    name: Text
    arguments: str


class Call(Strict):
    """A call of a tool, as an answer has it."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description="is not used")

    def plain(self) -> dict[str, Any]:
        """Return it as chat templates read it: the arguments are an object, where they are one."""
        try:
            arguments = from_json(self.function.arguments, allow_inf_nan=False)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            arguments = self.function.arguments
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class Message(Strict):
    """A message of a conversation; an assistant's may call tools, which answer in ``tool`` ones."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: list[Call] | None = None
    content: str | Annotated[list[ContentPart], Field(min_length=1)] | None = Field(
        None, validate_default=True
    )
    name: str | None = Field(None, description="is not used")
    tool_call_id: str | None = None
    refusal: None = None
    annotations: list[Any] | None = Field(None, description="is not used")
    audio: None = None
    function_call: None = None

    @field_validator("tool_calls")
    @classmethod
    def _assistant(cls, calls: list[Call] | None, info: ValidationInfo) -> list[Call] | None:
        if calls and info.data.get("role") != "assistant":
            raise ValueError("an assistant's message alone has calls")
        return calls

    @field_validator("content")
    @classmethod
    def _there(cls, content: Any, info: ValidationInfo) -> Any:
        if content is None and not info.data.get("tool_calls"):
            raise ValueError("is missing")
        return content

    def plain(self) -> dict[str, Any]:
        """Return it as the library has messages."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        made: dict[str, Any] = {"role": role, "content": content}
        if self.tool_calls:
            made["tool_calls"] = [each.plain() for each in self.tool_calls]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        return made


class Function(Strict):
    """A function that may be called; its arguments obey ``parameters``, ``strict`` or not."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(None, description="is not used")

    def plain(self) -> dict[str, Any]:
        """Return it as chat templates read it."""
        given = {"type": "object", "properties": {}, **(self.parameters or {})}
        return {"name": self.name, "description": self.description or "", "parameters": given}


class Tool(Strict):
    """A tool, of which there are functions alone."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """The name of a function."""

    name: str


class NamedTool(Strict):
    """The function that is to be called."""

    type: Literal["function"]
    function: FunctionName
