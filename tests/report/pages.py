"""Small prompts and reports on them, for the tests of the page."""

from __future__ import annotations

from functools import cache

from foreword.methods.prefix import Prefix
from foreword.prompt.prompt import Prompt
from foreword.report.answers import KeptAnswers
from foreword.report.report import Report, report_on
from foreword.report.subject import Subject
from foreword.reporter import SILENT
from toys import rows, toy_run

DEV = rows(40, 100, "dev.jsonl")


@cache
def tuned() -> Prompt:
    return toy_run(None, method=Prefix(length=3, rate=0.1))


@cache
def other() -> Prompt:
    return toy_run(None)


def subject(prompt: Prompt | None = None, kept: KeptAnswers | None = None) -> Subject:
    own = prompt or tuned()
    return Subject("mine", own, "dev", DEV, rows(12), kept or KeptAnswers(), 0, SILENT)


@cache
def whole() -> Report:
    return report_on({"mine": tuned()}, DEV, train=rows(12), shifted=rows(24, 500), report=SILENT)


@cache
def pair() -> Report:
    return report_on(
        {"mine": tuned(), "<b>yours</b>": other()},
        DEV,
        others={"more": rows(12, 300)},
        sections=("quality",),
        report=SILENT,
    )
