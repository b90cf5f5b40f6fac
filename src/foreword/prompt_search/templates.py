"""Templates of a search: ready ones, and ones that the model writes; few are tuned with.

Each is scored by the untouched model on some training rows, and those that it answers best with are
chosen among (after LM-BFF, Gao et al. 2021, arXiv:2012.15723, and APE, Zhou et al. 2022,
arXiv:2211.01910).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import stratified
from foreword.errors import UserError
from foreword.explanation.candidates import WRITTEN as TOKENS
from foreword.explanation.candidates import Opening, written
from foreword.explanation.judge import Judge
from foreword.injection import NOTHING
from foreword.metrics.words import words
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.phrases import is_chinese
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import with_space
from foreword.tasks.templates.template import literal

KEPT = 3
"""Templates that are chosen among, beside the usual one."""

SCORED = 16
"""Training rows by which they are scored."""

SHOWN = 6
"""Rows that the model sees before it writes what is asked of them, fewer where they are long."""

WRITTEN = 4
"""Templates that the model writes."""

LONGEST = 16
"""The most words of a text that the model writes."""

READY: Mapping[str, Sequence[str]] = {
    "classify": (
        "<>\nCategory:",
        "<>\nTopic:",
        "<>\nSentiment:",
        "<>\nIntent:",
        "Text: <>\nAnswer:",
        "<>\nIn one word, this is",
        "<>\nAll in all, it was",
    ),
    "multilabel": ("<>\nTopics:", "<>\nCategories:", "Text: <>\nAnswers:"),
    "score": ("<>\nRating:", "<>\nSimilarity:", "Texts: <>\nAnswer:", "<>\nFrom low to high:"),
    "generate": ("<>\n\n", "Input: <>\nOutput:", "<>\nText:", "<>\nAnswer:"),
}
"""Ready templates of tasks; <> is where the fields of a row stand."""

READY_IN_CHINESE: Mapping[str, Sequence[str]] = {
    "classify": (
        "<>\n分类：",
        "<>\n主题：",
        "<>\n情感：",
        "<>\n意图：",
        "文本：<>\n答案：",
        "<>\n用一个词来说，这是",
        "<>\n总的来说，很",
    ),
    "multilabel": ("<>\n主题：", "<>\n分类：", "文本：<>\n答案："),
    "score": ("<>\n打分：", "<>\n相似度：", "文本：<>\n答案：", "<>\n从低到高："),
    "generate": ("<>\n\n", "输入：<>\n输出：", "<>\n文本：", "<>\n回答："),
}
"""Those of tasks whose rows are Chinese."""

ASKED = re.compile(r"\n[^\n{}\[\]]+[:：]( ?\[mask\])?$")
"""The last line of a usual template, which asks for the answer."""


@dataclass(frozen=True)
class ScoredTemplate:
    """A template, and the untouched model's dev score and mean loss with it on training rows."""

    template: str
    source: str
    score: float
    loss: float


def find_templates(
    task: Task,
    rows: Sequence[Row],
    backbone: Backbone,
    seed: int,
    until: float,
    report: Reporter,
    clock: Callable[[], float] = time.monotonic,
) -> list[ScoredTemplate]:
    """Return templates to choose among, the usual one of the task first, then the best ones.

    ``task`` has its usual template. Rows are those that are tuned on. Those that are not scored
    when the ``clock`` says ``until`` are left out.
    """
    if task.template is None or backbone.is_encoder:
        return []
    bound = task.bind(backbone)
    classes = [bound.class_of(row) for row in rows]
    chosen = [rows[n] for n in stratified(classes, SCORED, seed)]
    found: dict[str, ScoredTemplate] = {}
    with report.bar("templates", (1 + len(_forms(task)) + WRITTEN) * len(chosen)) as progress:
        for template, source in _candidates(bound, chosen, seed):
            if found and clock() > until:
                break
            if template in found:
                continue
            try:
                tried = replace(task, template=template).bind(backbone).zero_shot()  # type: ignore[type-var]
                measured = Judge.of(tried, chosen).measure(template, progress=progress)
            except UserError:
                continue  # such as one that leaves no room for some row
            found[template] = ScoredTemplate(template, source, measured.score, measured.loss)
    usual, *others = found.values()
    return [usual, *sorted(others, key=lambda each: each.loss)[:KEPT]]


def _candidates(bound: Bound, rows: Sequence[Row], seed: int) -> Iterator[tuple[str, str]]:
    yield str(bound.task.template), "usual"
    for template in _ready(bound.task, bound.backbone):
        yield template, "ready"
    for template in _written(bound, rows, seed):
        yield template, "written"


def _ready(task: Task, backbone: Backbone) -> Iterator[str]:
    """Yield the ready templates of a task, with the name of its label's field among them."""
    usual = str(task.template)
    asked = ASKED.search(usual)
    body = usual[: asked.start()] if asked else usual.rstrip("\n")
    forms = _forms(task)
    if task.label_field not in (None, "label") and asked:
        colon = "：" if is_chinese(task.language) else ":"
        forms.insert(0, f"<>\n{literal(str(task.label_field)).capitalize()}{colon}")
    for form in forms:
        end = with_space(form, "[mask]") if backbone.fills_masks else ""
        yield form.replace("<>", body) + end


def _forms(task: Task) -> list[str]:
    """Return the ready templates of a task, in the language of its rows."""
    ready = READY_IN_CHINESE if is_chinese(task.language) else READY
    return list(ready.get(name_of(task), ()))


def _written(bound: Bound, rows: Sequence[Row], seed: int) -> Iterator[str]:
    """Yield templates with a question that the model thinks was asked about rows it is shown."""
    backbone, usual = bound.backbone, bound.template.source
    if not backbone.can_generate or backbone.has_two_stacks:
        return
    chinese = is_chinese(bound.task.language)
    begin = "以上每段文本所问的问题是：哪" if chinese else "What was asked about each text: which"
    for count in range(SHOWN, 0, -1):
        shown = "\n\n".join(bound.demonstration(row) for row in rows[:count])
        ids = [*backbone.text.around[0], *backbone.text.ids(f"{shown}\n\n{begin}")]
        if len(ids) + TOKENS <= backbone.longest:
            break
    else:
        return
    opening = Opening(ids, NOTHING, "asked", seed)
    texts = [each.text for each in written(backbone, [opening], "asked", WRITTEN)]
    asked = ASKED.search(usual)
    for text in texts:
        said = re.split(r"[?.？。\n]", text)[0]
        if 2 <= len(words(said)) <= LONGEST and (said.isascii() != chinese):
            question, answer = ("哪{}？", "答案：") if chinese else ("Which {}?", "Answer:")
            question = literal(question.format(" ".join(said.split())))
            body = usual[: asked.start()] if asked else usual.rstrip("\n")
            yield f"{body}\n{question}\n{answer}"
