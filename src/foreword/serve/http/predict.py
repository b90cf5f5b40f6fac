"""``/v1/predict``: texts and rows answered by the prompt's own task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from foreword.serve.http.errors import ApiError, not_ready
from foreword.serve.http.generation import while_there
from foreword.serve.http.guard import passage
from foreword.serve.http.reading import StrictRoute
from foreword.serve.http.ready import Ready
from foreword.serve.http.schemas import PredictBody
from foreword.serve.http.service import Service
from foreword.tasks.registry import name_of

if TYPE_CHECKING:
    from foreword.data.row import Row
    from foreword.prompt.answerer import Answerer

Answers = list[dict[str, Any]]


def predict_routes(service: Service) -> APIRouter:
    """Return the route of a server that answers rows."""
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/predict")
    async def predict(request: Request, body: PredictBody) -> Response:
        """Answer texts, or rows with the fields of the prompt's template."""
        ready, own = service.ready(), passage(request.scope)
        inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
        if len(inputs) > service.limits.inputs:
            raise ApiError(
                400, f"inputs: at most {service.limits.inputs} in a request", param="inputs"
            )
        admitted = own.undone.enter_context(ExitStack())
        admitted.enter_context(service.admitted())
        own.about["model"] = body.model[:200]
        most = service.limits.tokens
        name, prompt, rows, least = await run_in_threadpool(_rows, ready, body, inputs, most)
        own.about |= {"model": name, "rows": len(rows)}
        cancelled = Event()
        answered = ready.engine.answer(prompt, rows, cancelled=cancelled)
        counted = admitted.pop_all()  # until the engine has given it up, or answered
        answered.add_done_callback(lambda done: counted.close())
        own.undone.callback(answered.cancel)
        own.undone.callback(cancelled.set)
        left = own.since + service.limits.seconds - time.monotonic()
        try:
            found = await while_there(
                request, asyncio.wait_for(asyncio.wrap_future(answered), max(0.0, left))
            )
        except TimeoutError:
            raise not_ready("the request waited too long; try again later", "timeout") from None
        made = await run_in_threadpool(_written, prompt, found, least)
        for row, answer in zip(rows, found, strict=True):
            _look(service, name, prompt, row, answer)
        return JSONResponse(
            {"object": "list", "model": name, "task": name_of(prompt.task), "predictions": made}
        )

    return router


def _rows(
    ready: Ready, body: PredictBody, inputs: Sequence[str | dict[str, Any]], most: int
) -> tuple[str, Answerer, list[Row], float | None]:
    """Return the prompt and the rows of a body, checked; texts have ``most`` tokens at most."""
    from foreword.backbone.decode import Decoding
    from foreword.prompt.abstain import least_of
    from foreword.prompt.predict import rows_of

    name, prompt = ready.prompt(body.model)
    if prompt is None:
        raise ApiError(
            400, f"{name} is the model alone, which has no task", param="model", code="wrong_task"
        )
    least = least_of(prompt, body.min_probability)
    for number, each in enumerate(inputs):
        if isinstance(each, str) and not each.strip():
            raise ApiError(400, f"inputs[{number}]: is empty", param=f"inputs[{number}]")
    rows = rows_of(list(inputs), prompt.bound)
    prompt.bound.check(rows, answers=False)
    usual = getattr(prompt.task, "decoding", None)
    if isinstance(usual, Decoding) and usual.max_new_tokens > most:
        prompt = prompt.decoding(max_new_tokens=most)
    return name, prompt, rows, least


def _written(prompt: Answerer, found: Answers, least: float | None) -> Answers:
    """Return answers as ``foreword predict --json`` writes them; those of cut rows say so."""
    from foreword.evaluation.answer_columns import answer_columns

    made = []
    for each in found:
        columns = answer_columns(prompt.bound, each, least, as_table=False)
        made.append({**columns, "cut": True} if each.get("cut") else columns)
    return made


def _look(service: Service, name: str, prompt: Answerer, row: Row, answer: dict[str, Any]) -> None:
    """Count how sure an answer is, if it has a probability, and let it wait for a look."""
    shown = name.partition("@")[0] if service.name_prompts else ""
    if (unlike := answer.get("unlike")) is not None:
        service.metrics.unlike.labels(shown).inc(unlike)
    probability = prompt.bound.probability(answer)
    if probability is None:
        return
    service.metrics.sureness.labels(shown).observe(probability)
    if service.feedback is not None and "+" not in name:
        fields = {field: row.fields[field] for field in prompt.bound.fields}
        value, of_labels = answer[prompt.bound.answer], answer.get("probabilities")
        service.review.offer(name, fields, value, probability, of_labels)
