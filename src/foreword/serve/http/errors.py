"""Errors as OpenAI's API writes them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from foreword.errors import UserError

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's types of errors, by status; others below 500 are requests that are wrong."""

FIELDS = {"json_schema": "response_format", "grammar": "tools"}
"""What settings of the library are called in requests."""

AGAIN = {"Retry-After": "1"}


class ErrorDetail(BaseModel):
    """What was wrong; ``param`` is the field, and ``code`` a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class ApiError(HTTPException):
    """What a client is told: a status, a sentence, the field that is wrong, and a word for it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    def body(self) -> dict[str, Any]:
        """Return it as a response's body."""
        server = "server_error" if self.status_code >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.detail,
                "type": KINDS.get(self.status_code, server),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """Return it as a response."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def of_user_error(error: UserError, param: str | None = None) -> ApiError:
    """Return a mistake of a request, with the field that is wrong where it is known."""
    from foreword.serve.feedback.files import NotKeptError
    from foreword.serve.feedback.review import UnknownAnswerError
    from foreword.serve.names import RefusedPromptError, UnknownPromptError
    from foreword.serve.texts import NoTextError, TooLongError

    message = " ".join(str(error).split())
    if isinstance(error, UnknownPromptError):
        return ApiError(404, message, param="model", code="model_not_found")
    if isinstance(error, RefusedPromptError):
        return ApiError(422, message, param="model", code="prompt_refused")
    if isinstance(error, UnknownAnswerError):
        return ApiError(404, message, param="review", code="answer_not_found")
    if isinstance(error, NotKeptError):
        return ApiError(507, message, code="not_kept")
    if isinstance(error, NoTextError):
        message += f"; ask {error.ask}" if error.ask else ""
        return ApiError(400, message, param="model", code="wrong_task")
    if isinstance(error, TooLongError):
        return ApiError(400, message, param=error.field, code="context_length_exceeded")
    if (row := re.match(r"input (\d+)\b", message)) is not None:
        param = f"inputs[{int(row[1]) - 1}]" + (f".{error.field}" if error.field else "")
    elif (setting := re.match(r"`(\w+)[`=]", message)) is not None:
        param = param or FIELDS.get(setting[1], setting[1])
    return ApiError(400, message, param=param or error.field)


def overloaded(message: str) -> ApiError:
    """Return that there are too many requests."""
    return ApiError(429, message, code="queue_full", headers=AGAIN)


def not_ready(message: str, code: str) -> ApiError:
    """Return that the server cannot answer now."""
    return ApiError(503, message, code=code, headers=AGAIN)


def add_handlers(app: FastAPI) -> None:
    """Let an app answer errors of all kinds in one form."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if not isinstance(error, ApiError):
            made = ApiError(error.status_code, str(error.detail), headers=error.headers)
            if error.status_code == 404:
                made.detail = f"there is nothing at {request.url.path[:200]}"
            elif error.status_code == 405:
                made.detail = f"{request.url.path[:200]} knows no {request.method}"
            error = made
        return error.response()

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> JSONResponse:
        return of_user_error(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "")
        first = error.errors()[0]
        if first["loc"] == ("body",) and not isinstance(error.body, dict):
            message = "the body must be a JSON object"
            if "json" not in kind:
                message += ", with the header Content-Type: application/json"
            return ApiError(400, message, code=str(first["type"])).response()
        where, said = _wrong(error)
        named = re.match(r"`(\w+)`", said)
        message = f"{where}: {said}" if where else said
        param = where or (named[1] if named else None)
        return ApiError(400, message, param=param, code=str(first["type"])).response()


def _wrong(error: RequestValidationError) -> tuple[str, str]:
    """Return where a body is wrong first, and how.

    Of a value that may be of several types each has errors of its own: those that lie deepest are
    of the type that comes next to it.
    """
    found: dict[str, list[str]] = {}
    depths: dict[str, int] = {}
    top = _inside(error.body, error.errors()[0])
    for each in error.errors():
        inside = _inside(error.body, each)
        if inside[: len(top)] == top:
            said = (
                "is no field of this request" if each["type"] == "extra_forbidden" else each["msg"]
            )
            found.setdefault(place(inside), []).append(str(said).removeprefix("Value error, "))
            depths[place(inside)] = len(inside)
    where = max(depths, key=lambda name: depths[name])
    return where, " or ".join(dict.fromkeys(found[where]))


def _inside(body: Any, error: Mapping[str, Any]) -> list[str | int]:
    """Return where in a body an error lies, without the names of types."""
    parts, lacks = error["loc"], error["type"] in ("missing", "value_error")
    if parts[0] != "body":
        return list(parts)
    found: list[str | int] = []
    for part in parts[1:]:
        if isinstance(body, dict) and isinstance(part, str):
            if part in body or (lacks and part == parts[-1]):
                found.append(part)
                body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            found.append(part)
            body = body[part]
    return found


def place(parts: Sequence[str | int]) -> str:
    """Write where a value stands in a body.

    >>> place(["messages", 0, "content"])
    'messages[0].content'
    """
    written = ""
    for part in parts:
        if isinstance(part, int):
            written += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_]\w{0,40}", part, re.ASCII):
            written += f".{part}" if written else part
    return written
