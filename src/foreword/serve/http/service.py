"""What all routes share: the model while it is loaded and after, its prompts, and who is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foreword.errors import UserError
from foreword.serve.feedback.files import FeedbackFiles
from foreword.serve.feedback.review import Review
from foreword.serve.http.errors import not_ready, overloaded
from foreword.serve.http.limits import Access, Limits
from foreword.serve.http.metrics import Metrics
from foreword.serve.http.ready import Ready

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.prompt.answerer import Answerer
    from foreword.serve.engine import Engine
    from foreword.serve.feedback.learner import Learner
    from foreword.serve.feedback.learning import Learning


@dataclass
class Service:
    """A folder of prompts on a model that is loaded in a thread of its own."""

    folder: Path
    load: Callable[[], Backbone]
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    slots: int = 64
    memory: int = 2**30
    keep: int = 3
    name_prompts: bool = False
    feedback: FeedbackFiles | None = None
    review: Review = field(default_factory=Review)
    learning: Learning | None = None
    say: Callable[..., None] = lambda **values: None
    when_ready: Callable[[Ready], None] = lambda ready: None
    when_failed: Callable[[BaseException], None] = lambda error: None
    state: Literal["loading", "ready", "failed", "closed"] = "loading"
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))
    learner: Learner | None = None
    _ready: Ready | None = None
    _asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to load the model, and return at once."""
        self._thread = threading.Thread(target=self._load, name="foreword-load", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            made = self._opened()
        except BaseException as error:  # told by whoever started the server
            self.state = "failed"
            self.when_failed(error)
            return
        with self._lock:
            if self.state == "loading":
                self._ready, self.state = made, "ready"
        if self.state == "ready":
            if self.feedback is not None and self.learning is not None:
                from foreword.serve.feedback.learner import Learner

                self.learner = Learner(made, self.feedback, self.learning, self.say)
                self.learner.start()
            self.metrics.watch(made)
            self.when_ready(made)

    def _opened(self) -> Ready:
        from foreword.serve.engine import Engine
        from foreword.serve.prompts import PromptFolder
        from foreword.serve.texts import TextRequests

        backbone = self.load()
        name = Path(backbone.name).name
        engine = Engine(backbone, slots=self.slots, memory=self.memory)
        prompts = PromptFolder(
            self.folder,
            backbone,
            keep=self.keep,
            memory=self.memory,
            taken=(name,),
            on_close=lambda prompt: release(engine, prompt),
        )
        return Ready(name, backbone, prompts, engine, TextRequests(backbone))

    def ready(self) -> Ready:
        """Return the loaded model; raises ApiError, 503, where there is none."""
        if self._ready is None or self.state != "ready":
            raise not_ready(f"the model is {self.state}", f"model_{self.state}")
        return self._ready

    @contextmanager
    def admitted(self, count: int = 1) -> Iterator[None]:
        """Count requests while they are answered; raises ApiError, 429, beyond the limit."""
        with self._lock:
            if self._asked and self._asked + count > self.limits.queue:
                self.metrics.turned_away.inc()
                raise overloaded(
                    f"{self._asked} requests are being answered or wait already; try again later"
                )
            self._asked += count
        self.metrics.admitted.set(self._asked)
        try:
            yield
        finally:
            with self._lock:
                self._asked -= count
            self.metrics.admitted.set(self._asked)

    def close(self) -> None:
        """Let the engine end what it has begun, and close the prompts."""
        with self._lock:
            made, self._ready, self.state = self._ready, None, "closed"
        if self.learner is not None:
            self.learner.close()
        if made is not None:
            made.engine.close()
            made.prompts.close()


def release(engine: Engine, prompt: Answerer) -> None:
    """Let the engine forget a prompt, unless it is closed itself."""
    from foreword.serve.prompts import injections_of

    with suppress(UserError):
        for injection in injections_of(prompt):
            engine.release(injection, wait=False)
