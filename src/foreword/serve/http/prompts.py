"""Prompts that come and go: the routes that exist where there is an admin key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from foreword.serve.http.errors import ApiError
from foreword.serve.http.reading import StrictRequest, StrictRoute
from foreword.serve.http.schemas import PromptBody, RollbackBody
from foreword.serve.http.service import Service
from foreword.serve.names import path_inside

BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": PromptBody.model_json_schema()},
            **BINARY,
        },
    }
}


def prompt_routes(service: Service) -> APIRouter:
    """Return the routes by which prompts are added, removed and rolled back."""
    router = APIRouter(route_class=StrictRoute)

    @router.get("/v1/prompts")
    async def listed() -> dict[str, Any]:
        """Say which prompts there are, with their versions and why a file is refused."""
        known = service.ready().prompts.all_known
        return {"object": "list", "data": await run_in_threadpool(known)}

    @router.post("/v1/prompts", status_code=201, openapi_extra=UPLOAD)
    async def add(request: Request, name: str | None = None) -> dict[str, Any]:
        """Add a prompt, or the next version of one.

        The body is a prompt file, of the name in the query; or JSON: a name, and a file that is in
        the folder.
        """
        prompts = service.ready().prompts
        if request.headers.get("content-type", "").startswith("application/json"):
            body = await StrictRequest(request.scope, request.receive).json()
            try:
                given = PromptBody.model_validate(body)
            except ValidationError as error:
                wrong = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
                raise RequestValidationError(wrong, body=body) from None
            source = await run_in_threadpool(path_inside, prompts.folder, given.file)
            number = await run_in_threadpool(prompts.add, given.name, source)
            return {"id": given.name, "object": "prompt", "version": number}
        if name is None:
            raise ApiError(400, "name: is missing in the query: /v1/prompts?name=N", param="name")
        upload = prompts.versions.new()
        try:
            with upload.open("wb") as file:
                async for part in request.stream():
                    await run_in_threadpool(file.write, part)
            number = await run_in_threadpool(prompts.add, name, upload)
        finally:
            upload.unlink(missing_ok=True)
        return {"id": name, "object": "prompt", "version": number}

    @router.get("/v1/prompts/{name}")
    async def about(name: str) -> dict[str, Any]:
        """Say a prompt's version, the versions that are kept, and why its file is refused."""
        return await run_in_threadpool(service.ready().prompts.about, name)

    @router.delete("/v1/prompts/{name}")
    async def remove(name: str) -> dict[str, Any]:
        """Remove a prompt; requests that it is answering go on."""
        await run_in_threadpool(service.ready().prompts.remove, name)
        return {"id": name, "object": "prompt", "deleted": True}

    @router.post("/v1/prompts/{name}/rollback")
    async def roll_back(name: str, body: RollbackBody | None = None) -> dict[str, Any]:
        """Bring back an older version, as a new one."""
        wanted = None if body is None else body.version
        old, new = await run_in_threadpool(service.ready().prompts.roll_back, name, wanted)
        return {"id": name, "object": "prompt", "version": new, "content_of": old}

    return router
