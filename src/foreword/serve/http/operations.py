"""Which models there are, whether the server is well, and its counts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from foreword.serve.http.errors import AGAIN
from foreword.serve.http.ready import Ready
from foreword.serve.http.service import Service


def operation_routes(service: Service) -> APIRouter:
    """Return the routes that are there for those who look after a server."""
    router = APIRouter()

    @router.get("/health", responses={503: {"description": "The model is not loaded."}})
    async def health() -> Response:
        """Say whether requests are answered: 503 while the model is loaded."""
        if service.state == "ready":
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": service.state}, 503, AGAIN)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Return the counts in Prometheus' text format."""
        content = await run_in_threadpool(service.metrics.text)
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model and all prompts; none is opened for it."""
        ready = service.ready()
        names = await run_in_threadpool(ready.prompts.names)
        return {"object": "list", "data": [_model(service, ready, n) for n in (ready.name, *names)]}

    @router.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """Show one of them; a prompt is opened for it."""
        ready = service.ready()
        whole, prompt = await run_in_threadpool(ready.prompt, name)
        more = {} if prompt is None else {"version": whole}
        return {**_model(service, ready, name), **more}

    return router


def _model(service: Service, ready: Ready, name: str) -> dict[str, Any]:
    """Return a model or a prompt as OpenAI's API lists it."""
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "foreword",
        "root": ready.name,
        "parent": None if name == ready.name else ready.name,
    }
