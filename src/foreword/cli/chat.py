"""The command that talks with a prompt, and what it shares with ``predict --interactive``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.advice import with_flags
from foreword.cli.common import USUALLY, Force, Loaded, Model, on_backbone
from foreword.cli.completion import File
from foreword.cli.whole import Seed, Whole
from foreword.display import console
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.prompt.answerer import Answerer
    from foreword.serve.talk import Talk

DECODING = "Decoding"
FLAGS = ("--max-new-tokens", "--temperature", "--top-p", "--seed")
"""Flags that an answer to a line depends on."""

COMMANDS = "/reset begins anew, /save FILE.jsonl keeps the conversation, /exit or Ctrl-D ends it"


def chat(
    prompt: Annotated[File | None, Parameter(help="a prompt file; else the model alone")] = None,
    /,
    *,
    system: Annotated[str | None, Parameter(help="what the assistant is told first")] = None,
    max_new_tokens: Annotated[
        Whole | None, Parameter(help="most tokens of an answer", group=DECODING)
    ] = None,
    temperature: Annotated[
        float | None, Parameter(help="0 takes the likeliest token", group=DECODING)
    ] = None,
    top_p: Annotated[
        float | None,
        Parameter(help="sample among the likeliest tokens of this probability", group=DECODING),
    ] = None,
    seed: Annotated[Seed | None, Parameter(help="seed of sampling", group=DECODING)] = None,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
) -> None:
    """Talk with a prompt, or with the model alone, in several turns.

    Answers are written as they come. In a pipe each line is a turn, and each answer a line.
    """
    from foreword.serve.engine import Engine
    from foreword.serve.talk import Talk
    from foreword.serve.texts import NoTextError

    tuned: Answerer | None = None
    if prompt is None:
        backbone = loading.load("smollm2" if model is None else model)
    else:
        from foreword.compose.ensemble import load_prompt

        tuned = on_backbone(load_prompt(prompt), Path(prompt), model, loading, force=force)
        backbone = tuned.bound.backbone
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    with Engine(backbone, slots=1) as engine:
        talk = Talk(engine, tuned, system=system, settings=settings)
        try:
            talk.check()
        except NoTextError as error:
            raise UserError(f"{prompt}: {error}; `foreword predict` answers by it") from None
        if sys.stdin.isatty():
            console.say(COMMANDS)
        converse(lambda line: _say(talk, line), lambda line: _command(talk, line))


def _say(talk: Talk, line: str) -> Iterable[str]:
    """Return the answer to a line, and say what is forgotten for it."""
    before = talk.forgotten
    answer = talk.say(line)
    if talk.forgotten > before:
        console.say(f"the first {talk.forgotten} turns do not fit any more and are left out")
    return answer


def _command(talk: Talk, line: str) -> None:
    """Do what a line that begins with a slash commands; raises UserError for what is none."""
    word, _, rest = line.partition(" ")
    if word == "/reset":
        talk.reset()
        console.say("the conversation begins anew")
    elif word == "/save":
        if not rest.strip():
            raise UserError("/save needs the name of a file, as in /save talk.jsonl")
        talk.save(Path(rest.strip()))
        console.say(f"{rest.strip()}: the conversation is added")
    else:
        raise UserError(f"{word}: unknown; {COMMANDS}")


def converse(
    answer: Callable[[str], Iterable[str]], command: Callable[[str], None] | None = None
) -> None:
    """Answer line after line until there are no more; a mistake is one line, and it goes on.

    On a terminal answers are shown as they are written. In a pipe each is one line, in which a new
    line is written as \\n; a line that cannot be answered is answered by an empty one, and an empty
    line by none. With ``command`` lines that begin with a slash are commands, such as /exit.
    """
    shown = sys.stdout.isatty() and sys.stdin.isatty()
    for line in _lines():
        if not line.strip():
            continue
        if command is not None and line.startswith("/"):
            if line.strip() in ("/exit", "/quit"):
                return
            _heard(lambda: command(line))  # noqa: B023  (called at once)
            continue
        made: list[str] = []

        def write(line: str = line, made: list[str] = made) -> None:
            _check(line)
            for piece in answer(line):
                made.append(piece)
                if shown:
                    sys.stdout.write(piece)
                    sys.stdout.flush()

        try:
            _heard(write)
        except KeyboardInterrupt:
            if not shown:
                raise
        if shown:
            sys.stdout.write("\n" if made else "")
        else:
            sys.stdout.write("".join(made).replace("\n", "\\n") + "\n")
        sys.stdout.flush()


def _check(line: str) -> None:
    """Raise UserError for bytes that are no text in the encoding of standard input."""
    try:
        line.encode()
    except UnicodeEncodeError:
        raise UserError("the line is not UTF-8 text; write it so") from None


def _heard(act: Callable[[], None]) -> None:
    """Act; a mistake is said in one line."""
    try:
        act()
    except UserError as error:
        line = with_flags(" ".join(str(error).split()), FLAGS, error.field)
        console.say(f"foreword: {line}")


def _lines() -> Iterator[str]:
    """Yield lines of standard input; on a terminal they can be edited."""
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # so that the other lines are answered
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    with suppress(ImportError):
        import readline  # noqa: F401  (input then knows arrows and history)
    while True:
        try:
            yield input("> ")
        except EOFError:
            console.say("")
            return


def interactive(tuned: Answerer, least: float | None, as_line: Callable[[Any], str]) -> None:
    """Answer line after line by a prompt's own task; texts are shown as they are written."""
    import json

    from foreword.prompt.predict import rows_of
    from foreword.prompt.prompt import Prompt
    from foreword.serve.engine import Engine
    from foreword.serve.talk import MOST, streamed
    from foreword.serve.texts import TextRequests
    from foreword.tasks.texts.generator import Generator

    writes = isinstance(tuned, Prompt) and isinstance(tuned.bound, Generator)
    streams = writes and len(tuned.bound.fields) == 1 and least is None

    def answered(line: str) -> Iterable[str]:
        given: Any = line
        if line.startswith("{"):
            try:
                given = json.loads(line)
            except ValueError as error:
                raise UserError(f"the line is not JSON ({error}); write one object") from None
        if streams and isinstance(given, str):
            texts = TextRequests(tuned.bound.backbone)
            yield from streamed(engine, texts.completion(tuned, given, {}, MOST))
            return
        (found,) = tuned.answers(rows_of([given], tuned.bound, "the line"))
        yield as_line(found)

    with Engine(tuned.bound.backbone, slots=1) as engine:
        converse(answered)
