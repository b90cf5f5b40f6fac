"""The app: its routes behind their guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from foreword.serve.http.completions import text_routes
from foreword.serve.http.errors import ErrorBody, add_handlers
from foreword.serve.http.feedback import feedback_routes
from foreword.serve.http.guard import Guard, log_line
from foreword.serve.http.operations import operation_routes
from foreword.serve.http.page import page_routes
from foreword.serve.http.predict import predict_routes
from foreword.serve.http.prompts import prompt_routes
from foreword.serve.http.service import Service


def make_app(service: Service, *, log: Callable[..., None] | None = log_line) -> FastAPI:
    """Return the ASGI app of a service; the model is loaded once the app starts.

    ``log`` is given what each line of the log says, None for no log.
    """
    if log is not None:
        service.say = log

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="Foreword",
        version=version("foreword"),
        description="Many prompts on one frozen model.",
        lifespan=living,
        responses={
            "4XX": {"model": ErrorBody, "description": "The request is wrong."},
            "5XX": {"model": ErrorBody, "description": "The server cannot answer it."},
        },
        docs_url=None,
        redoc_url=None,
    )
    add_handlers(app)
    app.include_router(operation_routes(service))
    app.include_router(text_routes(service))
    app.include_router(predict_routes(service))
    if service.feedback is not None:
        app.include_router(feedback_routes(service, service.feedback))
    app.include_router(page_routes())
    if service.access.admin_keys:
        app.include_router(prompt_routes(service))
    app.add_middleware(Guard, service=service, log=log)
    return app
