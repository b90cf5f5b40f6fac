"""Tables as text for other programs: CSV, LaTeX and Markdown, with what is special escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "\n": r"\textbackslash{}n",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
"""What means something else in LaTeX, and how it is written to mean itself."""


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a table as CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Write a table as a ``tabular`` with the rules of booktabs.

    The first ``texts`` columns are set to the left, and the others, numbers, to the right.
    """
    lines = [f"{' & '.join(map(in_latex, each))} \\\\" for each in (header, *rows)]
    columns = "l" * texts + "r" * (len(header) - texts)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            lines[0],
            "\\midrule",
            *lines[1:],
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Write a table as Markdown, its numbers to the right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = (map(in_markdown, header), rule, *(map(in_markdown, each) for each in rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_latex(text: str) -> str:
    r"""Write a text so that LaTeX shows it; numbers of an interval get a dash between them.

    >>> in_latex("prefix_lora & 5% (1.0-2.5)")
    'prefix\\_lora \\& 5\\% (1.0--2.5)'
    """
    escaped = "".join(LATEX.get(sign, sign) for sign in text)
    return re.sub(r"(?<=\d)-(?=\d)", "--", escaped)


def in_markdown(text: str) -> str:
    r"""Write a text so that Markdown shows it in a cell.

    >>> in_markdown("a|b *c*")
    'a\\|b \\*c\\*'
    """
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text).replace("\n", "\\\\n")
