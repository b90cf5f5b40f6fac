"""Texts: exact match, BLEU, chrF and ROUGE, as sacrebleu and rouge-score count them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.errors import UserError
from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums
from foreword.metrics.words import CJK, KANA, Words


def generation(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    language: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Exact match, corpus BLEU, corpus chrF and ROUGE-L against one or more references a row.

    `exact_match`: share of rows that equal one of their references, white space at the ends aside.
    `bleu` (Papineni et al. 2002) and `chrf` (Popović 2015): sacrebleu's defaults, which
    `signatures` names. `rouge_l` (Lin 2004): mean over rows of the best F measure over the row's
    references, not stemmed, words as `words` cuts them. `language` (such as "zh" or "en-GB") picks
    BLEU's tokenizer, see `bleu_tokenizer`. Raises `UserError` if there are no rows or a row has no
    reference, `ValueError` if the lengths differ, and `TypeError` if a row's references are one
    bare string.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import BLEU, CHRF

    check_rows(len(predictions), len(references))
    for number, row in enumerate(references, start=1):
        if isinstance(row, str):
            raise TypeError(f"references of row {number} must be a list of strings, not a string")
        if not row:
            raise UserError(f"row {number} has no reference: give every row at least one")

    pairs = list(zip(predictions, references, strict=True))
    exact = [float(guess.strip() in {text.strip() for text in row}) for guess, row in pairs]
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    rouge = [scorer.score_multi(row, guess)["rougeL"].fmeasure for guess, row in pairs]

    # sacrebleu wants one stream per reference number; None stands where a row has fewer.
    most = max(len(row) for row in references)
    streams: list[Any] = [
        [row[i] if i < len(row) else None for row in references] for i in range(most)
    ]
    # force: what a model writes is scored as it is, without a warning that it looks tokenized.
    bleu = BLEU(tokenize=bleu_tokenizer(references, language), force=True)
    chrf = CHRF()
    # The two methods that sacrebleu.significance itself resamples every metric by: its public
    # interval is symmetric and takes its seed from the environment.
    bleu_rows = np.asarray(bleu._extract_corpus_statistics(predictions, streams))  # (N, 10)
    chrf_rows = np.asarray(chrf._extract_corpus_statistics(predictions, streams))  # (N, 18)

    def scores(sums: Floats) -> list[float]:  # (30,)
        of_bleu, of_chrf = np.split(sums[2:].astype(int), [bleu_rows.shape[1]])
        return [
            100 * float(sums[0]) / len(pairs),
            float(bleu._compute_score_from_stats(of_bleu.tolist()).score),
            float(chrf._compute_score_from_stats(of_chrf.tolist()).score),
            100 * float(sums[1]) / len(pairs),
        ]

    table = np.column_stack([exact, rouge, bleu_rows, chrf_rows])  # (N, 30)
    values = scores(table.sum(axis=0))
    sums = resampled_sums(table, np.ones(len(pairs)), seed, resamples)  # (R, 30)
    samples = np.array([scores(row) for row in sums]).T  # (4, R)
    names = ("exact_match", "bleu", "chrf", "rouge_l")
    return {
        "rows": len(pairs),
        **{name: round(value, 2) for name, value in zip(names, values, strict=True)},
        "intervals": {
            name: interval(value, sample).bounds()
            for name, value, sample in zip(names, values, samples, strict=True)
        },
        "signatures": {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())},
    }


def bleu_tokenizer(references: Sequence[Sequence[str]], language: str | None = None) -> str:
    """Name of sacrebleu's tokenizer for these references.

    Chinese: "zh". Japanese: "char" (sacrebleu's "ja-mecab" needs a dictionary of its own). Any
    other language: "13a". Without a `language`, text is Chinese or Japanese if more than 30% of
    its letters are Han or kana, and Japanese if more than 10% of those are kana.
    """
    if language is None:
        text = "".join(text for row in references for text in row)
        cjk = len(CJK.findall(text))
        if cjk <= 0.3 * sum(map(str.isalpha, text)):
            return "13a"
        return "char" if len(re.findall(f"[{KANA}]", text)) > 0.1 * cjk else "zh"
    return {"zh": "zh", "ja": "char"}.get(re.split("[-_]", language.lower())[0], "13a")
