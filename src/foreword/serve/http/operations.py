"""Which models there are, whether the server is well, and its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from foreword.serve.http.errors import AGAIN
from foreword.serve.http.history import history
from foreword.serve.http.ready import Ready
from foreword.serve.http.service import Service
from foreword.tasks.registry import name_of

if TYPE_CHECKING:
    from foreword.prompt.answerer import Answerer


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
        if prompt is None:
            return _model(service, ready, name)
        more = _about(ready, whole, prompt)
        if more["versions"] is not None:
            base = whole.partition("@")[0]
            attempts: list[dict[str, Any]] = []
            if service.learner is not None:
                attempts = await run_in_threadpool(service.learner.attempts, base)
                more["learning"] = attempts
                more["learning_waits"] = await run_in_threadpool(service.learner.waits, base)
            more["history"] = await run_in_threadpool(history, ready.prompts, base, attempts)
        more["feedback"] = service.feedback is not None and more["versions"] is not None
        return {**_model(service, ready, name), "version": whole, **more}

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


def _about(ready: Ready, whole: str, prompt: Answerer) -> dict[str, Any]:
    """Return what a prompt answers, and what it was made of and scored."""
    bound, data = prompt.bound, prompt.data
    labels = getattr(prompt.task, "labels", None)
    one = "+" not in whole
    return {
        "task": name_of(prompt.task),
        "fields": list(bound.fields),
        "answer": bound.answer,
        "labels": list(labels) if labels else None,
        "rows": data.get("train", {}).get("rows"),
        "scores": dict(getattr(prompt, "scores", {})),
        "versions": ready.prompts.known(whole.partition("@")[0])["versions"] if one else None,
    }
