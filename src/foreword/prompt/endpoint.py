"""A prompt whose rows a server answers: that of ``foreword serve``, or of vLLM."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.prompt.prompt import Prompt

ROWS = 64
"""Rows of a request."""

SECONDS = 600
"""How long an answer is waited for."""


@dataclass(frozen=True, eq=False, repr=False)
class ServedPrompt(Prompt):
    """A prompt that a server has under the name ``served``; its model is opened without weights."""

    endpoint: str = ""
    served: str = ""
    key: str | None = None

    @staticmethod
    def of_prompt(
        prompt: Prompt, endpoint: str, served: str, *, model: str | None = None, key: str | None
    ) -> ServedPrompt:
        """Return a prompt as a server answers it; raises UserError for what is no address."""
        if not endpoint.startswith(("http://", "https://")):
            raise UserError(
                f"`endpoint={endpoint}`: give an address, such as http://localhost:8000"
            )
        about = prompt.backbone
        on = prompt.on or Backbone.outline(
            model or about["name"], architecture=about["architecture"]
        )
        own = {each.name: getattr(prompt, each.name) for each in fields(Prompt)}
        address = endpoint.rstrip("/").removesuffix("/v1")
        return ServedPrompt(**{**own, "on": on}, endpoint=address, served=served, key=key)

    def decoding(self, **settings: Any) -> Self:
        """Raise UserError: a request of rows says nothing of how texts are written."""
        names = ", ".join(f"`{name}`" for name in settings)
        raise UserError(
            f"{self.endpoint}: the server writes texts as the prompt was tuned; leave out {names}"
        )

    def answers(
        self, rows: Sequence[Row], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Let the server answer rows; raises UserError where it does not, with what it says."""
        self.bound.check(rows, answers=False)
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            inputs = [
                {name: row.fields[name] for name in self.bound.reads if name in row.fields}
                for row in some
            ]
            found += self._asked({"model": self.served, "inputs": inputs}, len(some))
            if progress is not None:
                progress(len(some))
        return found

    def _asked(self, body: Any, count: int) -> list[dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.endpoint}/v1/predict", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                made = json.load(answer)["predictions"]
        except urllib.error.HTTPError as error:
            raise UserError(f"{self.endpoint}: {_reason(error)}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = getattr(error, "reason", None) or error
            raise UserError(
                f"{self.endpoint}: does not answer as a server of prompts ({why})"
            ) from None
        if not isinstance(made, list) or len(made) != count:
            raise UserError(f"{self.endpoint}: answers otherwise than this prompt's task")
        return [self._read(each) for each in made]

    def _read(self, answer: Any) -> dict[str, Any]:
        """Return an answer as the task itself gives it; a text is called an answer there."""
        called = "answer" if self.bound.answer == "text" else self.bound.answer
        if not isinstance(answer, dict) or called not in answer:
            raise UserError(f"{self.endpoint}: answers otherwise than this prompt's task")
        more = {name: each for name, each in answer.items() if name not in (called, "probability")}
        return {self.bound.answer: answer[called], "cut": False, **more}


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what a server says is wrong, in one line."""
    try:
        said = json.load(error)["error"]["message"]
    except (OSError, ValueError, KeyError, TypeError):
        said = error.reason
    hint = "; set FOREWORD_API_KEY" if error.code == 401 else ""
    return f"{' '.join(str(said).split())} ({error.code}){hint}"
