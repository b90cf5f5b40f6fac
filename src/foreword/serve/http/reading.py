"""Reading JSON bodies strictly: no NaN, no half of a character, no endless nesting."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from foreword.serve.http.errors import ApiError

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
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            why = " ".join(str(error).split())[:200].encode(errors="replace").decode()
            raise ApiError(400, f"the body is not JSON: {why}", code="json_invalid") from None


class StrictRoute(APIRoute):
    """A route whose handler is given a :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, behind the strict request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
