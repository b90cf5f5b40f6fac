"""Bodies of requests. A field that is not there, or not supported, is refused by its name."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from foreword.serve.http.messages import Message, NamedTool, Tool
from foreword.serve.http.reading import Strict, Text

Stop = Annotated[str, Field(min_length=1, max_length=200)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Token = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class StreamOptions(Strict):
    """What a stream holds besides its pieces."""

    include_usage: bool = False
    include_obfuscation: bool = False


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": (None, ""),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "moderation": (None,),
    "prompt_cache_options": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
    "top_k": (None, -1, 0),
    "min_p": (None, 0),
}
"""Fields that are not supported, with the values under which they ask for nothing."""


class TextBody(Strict):
    """What asking for a completion and for an answer in a chat have in common."""

    model: Text
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="by vLLM's name; OpenAI has none"
    )
    logit_bias: Annotated[dict[Token, Bias], Field(max_length=1024)] | None = None
    user: str | None = Field(None, description="is not used")
    metadata: dict[str, str] | None = Field(None, description="is not used")
    safety_identifier: str | None = Field(None, description="is not used")
    prompt_cache_key: str | None = Field(None, description="is not used")
    prompt_cache_retention: str | None = Field(None, description="is not used")

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, given: Any) -> Any:
        """Leave out fields that ask for nothing; raises ValueError for what is not there."""
        if not isinstance(given, dict):
            return given
        kept = dict(given)
        for name in NEUTRAL.keys() & kept.keys() - cls.model_fields.keys():
            if not any(kept[name] == value for value in NEUTRAL[name]):
                raise ValueError(f"`{name}` is not supported yet; leave it out")
            del kept[name]
        return kept

    def settings(self) -> dict[str, Any]:
        """Return the settings of sampling that are given."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": None if stop is None else tuple(stop),
            "max_new_tokens": self.max_tokens,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": tuple((int(n), bias) for n, bias in (self.logit_bias or {}).items()),
        }
        return {name: value for name, value in given.items() if value is not None}


def _kind_of_prompt(given: Any) -> str | None:
    """Return what a prompt is by what it begins with, so that the rest is checked as that alone."""
    if isinstance(given, str):
        return "text"
    if not isinstance(given, list):
        return None
    kinds = {str: "texts", int: "ids", list: "rows of ids"}
    return kinds.get(type(given[0])) if given else None


class CompletionBody(TextBody):
    """A text to continue, or several; token ids are read as they are."""

    prompt: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[Ids, Tag("ids")]
        | Annotated[list[Text], Field(min_length=1), Tag("texts")]
        | Annotated[list[Ids], Field(min_length=1), Tag("rows of ids")],
        Discriminator(
            _kind_of_prompt,
            custom_error_type="prompt_type",
            custom_error_message="give a text, a list of texts, token ids, or a list of such ids",
        ),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1)] | None = Field(None, description="as many as `n`, or 1")

    @model_validator(mode="after")
    def _possible(self) -> CompletionBody:
        if self.best_of not in (None, 1, self.n):
            raise ValueError("`best_of` is not supported yet; ask for `n`, and leave it out")
        return self

    def prompts(self) -> list[str | list[int]]:
        """Return the texts, or rows of token ids, that are continued."""
        given: Any = self.prompt
        one = isinstance(given, str) or isinstance(given[0], int)
        return [given] if one else given


class JsonSchemaFormat(Strict):
    """A JSON schema by OpenAI's names; ``strict`` or not, answers obey it."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = Field(None, description="is not used")
    strict: bool | None = Field(None, description="is not used")


class ResponseFormat(Strict):
    """What an answer is: any text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _whole(self) -> ResponseFormat:
        if (self.type == "json_schema") is (self.json_schema is None):
            raise ValueError("`json_schema` goes with the type json_schema, and with no other")
        return self

    def schema_text(self) -> str | None:
        """Return the JSON schema that answers obey, None where they may be any text."""
        if self.type == "json_object":
            return '{"type": "object"}'
        return None if self.json_schema is None else json.dumps(self.json_schema.schema_)


class ChatBody(TextBody):
    """A conversation that the assistant goes on with."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @field_validator("messages")
    @classmethod
    def _asks(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role == "assistant":
            raise ValueError("the last message must be the user's, or a tool's, which is answered")
        return messages

    def settings(self) -> dict[str, Any]:
        """Return the settings of sampling that are given."""
        schema = None if self.response_format is None else self.response_format.schema_text()
        more = {"max_new_tokens": self.max_completion_tokens, "json_schema": schema}
        given = {name: value for name, value in more.items() if value is not None}
        return super().settings() | given


class PredictBody(Strict):
    """Texts or rows that the prompt's own task answers."""

    model: Text
    inputs: str | dict[str, Any] | Annotated[list[str | dict[str, Any]], Field(min_length=1)]
    min_probability: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = None


class FeedbackBody(Strict):
    """The right answer to an input; ``chosen`` is what a label is called where one is chosen."""

    model: Text
    input: Text | dict[str, Any] | None = None
    review: str | None = Field(None, description="in place of an input, the id of one to review")
    label: Any = None
    chosen: Any = None
    answered: Any = Field(None, description="what the prompt had answered")
    subject: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="whose row it is, by which it can be removed"
    )

    @model_validator(mode="after")
    def _whole(self) -> FeedbackBody:
        if (self.input is None) is (self.review is None):
            raise ValueError("`input` or `review` says what it is about; give one of them")
        if (self.label is None) is (self.chosen is None):
            raise ValueError("`label` or `chosen` is the right answer; give one of them")
        return self

    @property
    def answer(self) -> Any:
        """The right answer."""
        return self.chosen if self.label is None else self.label


class PromptBody(Strict):
    """A file in the folder of prompts that becomes the current version of a name."""

    name: str
    file: str


class RollbackBody(Strict):
    """The version that comes back; by default the one before the current one."""

    version: Annotated[int, Field(ge=1)] | None = None
