"""The page at ``/``: a prompt, a text, its answer, and what that should have been."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
"""The page's files and their types; it has no others."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser allows the page: its own files, and requests to its own server."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> APIRouter:
    """Return the routes of the page; it holds no text of anyone's, and needs no key."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def page() -> Response:
        return _file("index.html")

    @router.get("/page.css")
    def style() -> Response:
        return _file("page.css")

    @router.get("/page.js")
    def script() -> Response:
        return _file("page.js")

    return router


def _file(name: str) -> Response:
    content = (files("foreword.serve") / "page" / name).read_bytes()
    return Response(content, media_type=f"{KINDS[name]}; charset=utf-8", headers=HEADERS)
