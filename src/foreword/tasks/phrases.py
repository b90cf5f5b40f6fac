"""What usual templates and instructions say, in the language of a task's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foreword.data.row import Row
from foreword.metrics.language import ROWS, code, language_of_fields

CHINESE: Mapping[str, str] = {
    "Label:": "类别：",
    "Labels:": "标签：",
    "Score:": "评分：",
    "{context}\nQuestion: {question}\nAnswer:": "{context}\n问题：{question}\n答案：",
    "TL;DR:": "摘要：",
    "HEAD and TAIL are": "HEAD和TAIL的关系：",
    "HEAD and TAIL": "HEAD和TAIL",
    ".": "。",
    " none": "无",
    "Classify the text as": "判断文本属于哪一类：",
    "Name all that holds for the text:": "找出文本符合的所有标签：",
    "Say how two things of the text relate:": "说明文本中两者的关系：",
    "Tag every word of the sentence as": "标注句中每个词：",
    "Score the text from LOW to HIGH.\n\n": "给文本打分，从LOW到HIGH。\n\n",
    "Answer the question in words of the text.\n\n": "用原文中的词句回答问题。\n\n",
    "Answer the request below.\n\n": "请回答下面的请求。\n\n",
    "Summarize the text below.\n\n": "请概括下面的文本。\n\n",
    "Continue with what fits best.\n\n": "请接上最合适的一句。\n\n",
    "\nIn other words, the task is to": "\n换句话说，这个任务是",
    "\nTo sum up, for each text you should": "\n总之，对每段文本应当",
    ". In other words, please": "。换句话说，请",
    ". That means, you should": "。也就是说，应当",
    "The library opens at nine in the morning.": "图书馆早上九点开门。",
    "A tree stood beside the long road.": "长长的路边有一棵树。",
}
"""What the phrases of tasks are in Chinese."""


def language_for(given: str | None, rows: Sequence[Row]) -> str | None:
    """Return the language of a task's rows: the one that is given, or that of their texts.

    Chinese and Japanese are found; None stands for any other. Raises UserError for what is no
    language code.
    """
    if given is not None:
        code(given)
        return given
    return language_of_fields([row.fields for row in rows[:ROWS]])


def is_chinese(language: str | None) -> bool:
    """Tell whether a task speaks Chinese; a task of no known language speaks English."""
    return language is not None and code(language) == "zh"


def phrase_in(language: str | None, english: str) -> str:
    """Return a phrase of a task in the language of its rows: Chinese, or else English."""
    return CHINESE.get(english, english) if is_chinese(language) else english


def one_of(language: str | None, asks: str, words: Sequence[str]) -> str:
    """Return a sentence that asks for one of some words."""
    *most, last = words
    if is_chinese(language):
        return f"{phrase_in(language, asks)}{'、'.join(most)}或{last}。\n\n"
    return f"{asks} {', '.join(most)} or {last}.\n\n"
