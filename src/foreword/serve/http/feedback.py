"""Feedback: what the right answer was, and which answers wait for somebody to say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from foreword.errors import UserError
from foreword.serve.feedback.files import FeedbackFiles
from foreword.serve.feedback.review import Review, accuracy_by_day, new_labels
from foreword.serve.http.errors import ApiError
from foreword.serve.http.reading import StrictRoute
from foreword.serve.http.ready import Ready
from foreword.serve.http.schemas import FeedbackBody
from foreword.serve.http.service import Service

if TYPE_CHECKING:
    from foreword.data.row import Row
    from foreword.prompt.answerer import Answerer

MOST = 100
"""Answers that one request may ask to look at."""


def feedback_routes(service: Service, files: FeedbackFiles) -> APIRouter:
    """Return the routes by which a server hears of its answers."""
    review, router = service.review, APIRouter(route_class=StrictRoute)

    @router.post("/v1/feedback", status_code=201)
    async def add(body: FeedbackBody) -> dict[str, Any]:
        """Keep the right answer to an input, or to one that waits for a look; it is on the disk."""
        return await run_in_threadpool(_keep, service.ready(), files, review, body)

    @router.delete("/v1/feedback")
    async def remove(id: str | None = None, subject: str | None = None) -> dict[str, Any]:
        """Remove the row of an id, or all rows of a subject."""
        if (id is None) == (subject is None):
            raise ApiError(400, "name an id or a subject in the query: /v1/feedback?id=ID")
        gone = await run_in_threadpool(lambda: files.remove(id=id, subject=subject))
        if id is not None and not gone:
            raise ApiError(404, f"there is no feedback '{id[:100]}'", param="id")
        return {"object": "feedback", "deleted": True, "rows": gone}

    @router.get("/v1/review")
    async def waiting(model: str, limit: int = 10) -> dict[str, Any]:
        """Hand out the answers that were least sure, and say how many of those seen were right."""
        if not 1 <= limit <= MOST:
            raise ApiError(400, f"limit: from 1 to {MOST}", param="limit")
        ready = service.ready()
        whole, prompt = await run_in_threadpool(_prompt, ready, model)
        name = whole.partition("@")[0]
        rows = await run_in_threadpool(files.rows, name)
        return {
            "object": "list",
            "model": name,
            "data": [
                {
                    "id": each.id,
                    "model": each.version,
                    "input": each.fields,
                    prompt.bound.answer: each.answer,
                    "probability": each.probability,
                    "probabilities": each.probabilities,
                }
                for each in review.waiting(name, limit)
            ],
            "feedback": len(rows),
            "reviewed": await run_in_threadpool(accuracy_by_day, rows),
            "new_labels": new_labels(rows),
        }

    return router


def _prompt(ready: Ready, model: str) -> tuple[str, Answerer]:
    """Return one prompt that feedback may be about; raises ApiError, 400, for others."""
    whole, prompt = ready.prompt(model)
    if prompt is None or "+" in whole:
        raise ApiError(
            400,
            f"{whole} is no single prompt, so nothing can be said of it",
            param="model",
            code="wrong_task",
        )
    return whole, prompt


def _keep(ready: Ready, files: FeedbackFiles, review: Review, body: FeedbackBody) -> dict[str, Any]:
    whole, prompt = _prompt(ready, body.model)
    name = whole.partition("@")[0]
    about: dict[str, Any] = {"version": whole, "subject": body.subject, "answered": body.answered}
    if body.review is None:
        assert body.input is not None  # by the schema
        given: str | Mapping[str, Any] = body.input
    else:
        seen = review.find(name, body.review)
        given = dict(seen.fields)
        about |= {"version": seen.version, "answered": seen.answer, "reviewed": True}
    row, new = _row(prompt, given, body.answer)
    right = row.fields[prompt.bound.pair[1]]
    if about["answered"] is not None:
        about["right"] = not new and prompt.bound.is_right(row, about["answered"])
    id = files.add(name, row.fields, **about, new_label=right if new else None)
    if body.review is not None:
        review.done(name, body.review)
    return {"object": "feedback", "id": id, "model": about["version"], "new_label": new}


def _row(prompt: Answerer, given: str | Mapping[str, Any], right: Any) -> tuple[Row, bool]:
    """Return an input with its right answer as a row to learn from, and whether its label is new.

    Raises UserError for an input or an answer that the prompt's task cannot learn from.
    """
    from foreword.data.row import Row
    from foreword.prompt.predict import rows_of

    bound = prompt.bound
    asked = rows_of([given], bound, "input")[0]
    bound.check([asked], answers=False)
    row = Row({**asked.fields, bound.pair[1]: right}, asked.where)
    labels = getattr(prompt.task, "labels", None)
    if bound.answer == "label" and labels and isinstance(right, str) and right not in labels:
        return row, True
    try:
        bound.check([row], answers=True)
    except UserError as error:
        error.field = "label"
        raise
    return row, False
