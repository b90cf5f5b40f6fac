"""Reading JSON bodies strictly: no NaN, no half of a character, no endless nesting."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from foreword.serve.http.errors import ApiError, place

Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A body in which nothing is guessed: no text for a number, and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid")


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body; raises ApiError, 499, where the client leaves before its end."""
        try:
            async for part in super().stream():
                yield part
        except ClientDisconnect:
            raise ApiError(499, "the client has left") from None

    async def json(self) -> Any:
        """Return the body's value; raises ApiError, 400, where it is not JSON."""
        try:
            made = from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            why = " ".join(str(error).split())[:200].encode(errors="replace").decode()
            raise ApiError(400, f"the body is not JSON: {why}", code="json_invalid") from None
        for parts in _infinite(made):
            where = place(parts)
            raise ApiError(400, f"{where}: no number is so large", param=where, code="json_invalid")
        return made


def _infinite(value: Any, parts: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where numbers stand that are too large to be finite, such as 1e999."""
    if not isinstance(value, dict | list):
        return
    for key, own in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(own, dict | list):
            yield from _infinite(own, (*parts, key))
        elif own in (math.inf, -math.inf):
            yield (*parts, key)


class StrictRoute(APIRoute):
    """A route whose handler is given a :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, behind the strict request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
