"""The command that serves a folder of prompts over HTTP."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Loaded
from foreword.cli.completion import File
from foreword.cli.panels import ACCESS, FEEDBACK, FURTHER, LIMITS, MODEL, OUTPUT
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.serve.feedback.learning import Learning
from foreword.serve.http.limits import Access, Keys, Limits

if TYPE_CHECKING:
    from foreword.serve.http.ready import Ready

USUAL = Limits()
LEARNING = Learning()


def serve(
    folder: Annotated[Path, Parameter(help="the folder of prompt files")],
    /,
    *,
    model: Annotated[File, Parameter(help="the model that all prompts run on", group=MODEL)] = (
        "smollm2"
    ),
    host: Annotated[str, Parameter(help="the address to listen at; 0.0.0.0 is all")] = "127.0.0.1",
    port: Annotated[Whole, Parameter(help="the port to listen at; 0 is a free one")] = 8000,
    api_key: Annotated[
        list[str] | None,
        Parameter(help="a key that requests need, or several", group=ACCESS),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        Parameter(
            help="a file of such keys, one a line; FOREWORD_API_KEY has some too", group=ACCESS
        ),
    ] = None,
    admin_key: Annotated[
        list[str] | None,
        Parameter(
            help="a key for adding and removing prompts; else that is not there", group=ACCESS
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        Parameter(help="a file of such keys; FOREWORD_ADMIN_KEY has some too", group=ACCESS),
    ] = None,
    slots: Annotated[Whole, Parameter(help="rows that are written at once", group=LIMITS)] = 64,
    prompt_memory: Annotated[
        float, Parameter(help="GiB of memory in which prompts are kept open", group=LIMITS)
    ] = 1.0,
    keep: Annotated[
        Whole, Parameter(help="older versions of a prompt that are kept", group=(LIMITS, FURTHER))
    ] = 3,
    queue: Annotated[
        Whole, Parameter(help="most requests that are answered or wait", group=LIMITS)
    ] = USUAL.queue,
    max_tokens: Annotated[
        Whole, Parameter(help="most tokens written for a request", group=LIMITS)
    ] = USUAL.tokens,
    max_seconds: Annotated[
        float, Parameter(help="most seconds that a request takes", group=LIMITS)
    ] = USUAL.seconds,
    max_body: Annotated[
        Whole, Parameter(help="most bytes of a request", group=(LIMITS, FURTHER))
    ] = USUAL.body,
    max_upload: Annotated[
        Whole, Parameter(help="most bytes of an uploaded prompt", group=(LIMITS, FURTHER))
    ] = USUAL.upload,
    max_choices: Annotated[
        Whole, Parameter(help="most choices of a request", group=(LIMITS, FURTHER))
    ] = USUAL.choices,
    max_inputs: Annotated[
        Whole, Parameter(help="most inputs of a prediction", group=(LIMITS, FURTHER))
    ] = USUAL.inputs,
    feedback: Annotated[
        Path | None,
        Parameter(help="a folder in which right answers are kept that people send", group=FEEDBACK),
    ] = None,
    feedback_days: Annotated[
        float | None, Parameter(help="days for which they are kept; else for ever", group=FEEDBACK)
    ] = None,
    learn: Annotated[
        bool,
        Parameter(help="train prompts further on it, and swap in what is no worse", group=FEEDBACK),
    ] = False,
    learn_every: Annotated[
        Whole, Parameter(help="new rows after which a version is made", group=FEEDBACK)
    ] = LEARNING.every,
    learn_held: Annotated[
        Whole, Parameter(help="rows held back that judge a version, the newest", group=FEEDBACK)
    ] = LEARNING.held,
    learn_bound: Annotated[
        float,
        Parameter(help="lowest paired 95% bound of its gain, in points", group=FEEDBACK),
    ] = LEARNING.bound,
    learn_cpu: Annotated[
        Whole, Parameter(help="threads that training takes", group=FEEDBACK)
    ] = LEARNING.threads,
    learn_roll_back: Annotated[
        bool,
        Parameter(help="take a version back that later rows show to be worse", group=FEEDBACK),
    ] = False,
    learn_replay: Annotated[
        Path | None,
        Parameter(help="a folder of older rows, NAME.jsonl, to mix in", group=(FEEDBACK, FURTHER)),
    ] = None,
    learn_config: Annotated[
        Path | None,
        Parameter(
            help="a run file of foreword train with what it is to do otherwise, such as lr",
            group=(FEEDBACK, FURTHER),
        ),
    ] = None,
    name_prompts: Annotated[
        bool, Parameter(help="name prompts in /metrics and in the log", group=OUTPUT)
    ] = False,
    quiet: Annotated[bool, Parameter(help="write no line for each request", group=OUTPUT)] = False,
    loading: Loaded = USUALLY,
) -> None:
    """Serve all prompts of a folder on one model, over HTTP.

    The API is OpenAI's: /v1/models, /v1/completions and /v1/chat/completions, with a prompt's file
    name as the model; a+b joins two. /v1/predict answers by the prompts' own tasks. Files that
    come, change or go while it runs are seen at once. Ctrl-C or SIGTERM end it when all that it is
    asked is answered.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UserError("foreword serve needs a few packages more: pip install 'foreword[serve]'")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds prompt files")
    limits = Limits(
        queue=queue,
        tokens=max_tokens,
        seconds=max_seconds,
        body=max_body,
        upload=max_upload,
        choices=max_choices,
        inputs=max_inputs,
    )
    limits.check()
    for name, value in (("slots", slots), ("prompt_memory", prompt_memory)):
        if not 0 < value < math.inf:
            raise UserError(f"`{name}={value}`: give a finite number above 0")
    if keep < 0:
        raise UserError(f"`keep={keep}`: give 0 or more")
    access = Access(
        Keys(_keys(api_key, api_key_file, "FOREWORD_API_KEY")),
        Keys(_keys(admin_key, admin_key_file, "FOREWORD_ADMIN_KEY")),
    )
    if feedback_days is not None and feedback is None:
        raise UserError("`feedback_days` is of no use without `feedback`; name its folder")
    if feedback_days is not None and not feedback_days > 0:
        raise UserError(f"`feedback_days={feedback_days}`: give a number above 0")
    if learn and feedback is None:
        raise UserError("`learn` needs rows to learn from; name the folder of `feedback`")
    if learn_config is not None and not learn_config.is_file():
        raise UserError(f"{learn_config}: no such file; name a run file, YAML")
    learning = Learning(
        learn_every,
        learn_held,
        learn_bound,
        learn_cpu,
        learn_replay,
        learn_roll_back,
        () if learn_config is None else ("--config", str(learn_config.resolve())),
    )
    learning.check()
    if learning != LEARNING and not learn:
        raise UserError("the settings of learning are of no use without `learn`; add it")
    from foreword.serve.feedback.files import FeedbackFiles
    from foreword.serve.http.server import address, bound_socket, run_server
    from foreword.serve.http.service import Service

    heard = None if feedback is None else FeedbackFiles(feedback, days=feedback_days)
    bound, screen = bound_socket(host, port), CommandTerminal()
    where = address(bound)

    def say(ready: Ready) -> None:
        for name in ready.prompts.left_out():
            screen.line(
                f"{folder / name}: is not served, for its name; letters, digits, . _ - may be, but "
                "not the model's own name"
            )
        count = len(ready.prompts.names())
        prompts = counted(count, "prompt")
        screen.line(f"{where}/v1 serves {ready.name} and the {prompts} of {folder}; Ctrl-C ends it")

    screen.line(f"{where}: listening; loading {model}")
    if host not in ("127.0.0.1", "localhost", "::1") and not access.api_keys:
        screen.line(f"warning: anyone who reaches {host} may ask; --api-key asks for a key")
    service = Service(
        folder,
        lambda: loading.load(model),
        limits,
        access,
        slots=slots,
        memory=int(prompt_memory * 2**30),
        keep=keep,
        name_prompts=name_prompts,
        feedback=heard,
        learning=learning if learn else None,
        when_ready=say,
    )
    if quiet:
        run_server(service, bound, log=None)
    else:
        run_server(service, bound)
    screen.line("all that was asked is answered")


def _keys(given: list[str] | None, file: Path | None, variable: str) -> list[str]:
    """Return keys of flags, of a file and of the environment."""
    keys = list(given or ())
    if file is not None:
        try:
            keys += [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error})") from None
        if not any(keys):
            raise UserError(f"{file}: holds no key; write one a line")
    keys += os.environ.get(variable, "").split()
    if given is not None and not all(key.strip() for key in given):
        raise UserError("a key is empty; give one of letters and digits")
    return [key for key in keys if key]
