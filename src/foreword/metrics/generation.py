"""Generation: exact match, BLEU, chrF and ROUGE, as sacrebleu and rouge-score compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.errors import UserError
from foreword.metrics.language import code, language_of
from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums
from foreword.metrics.words import Words, half_width

ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
DEFAULT_SCORES = ("exact_match", "bleu", "chrf", "rouge_l")


def generation(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    scores: Sequence[str] = DEFAULT_SCORES,
    language: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Scores of texts against one or more references a row: those that ``scores`` names.

    `exact_match`: share of rows that equal one of their references, as `is_one_of` compares.
    `bleu` (Papineni et al. 2002) and `chrf` (Popović 2015), of the corpus: sacrebleu's defaults,
    which `signatures` names. `rouge_1`, `rouge_2`, `rouge_l` (Lin 2004): mean over rows of the best
    F measure over the row's references, not stemmed, words as `words` cuts them. `language` (such
    as "zh" or "en-GB") picks BLEU's tokenizer, see `bleu_tokenizer`. Raises `UserError` if there
    are no rows or a row has no reference, `ValueError` if the lengths differ, and `TypeError` if a
    row's references are one bare string.
    """
    check_rows(len(predictions), len(references))
    for number, row in enumerate(references, start=1):
        if isinstance(row, str):
            raise TypeError(f"references of row {number} must be a list of strings, not a string")
        if not row:
            raise UserError(f"row {number} has no reference: give every row at least one")
    texts = list(zip(predictions, references, strict=True))
    found = {**_means(texts, scores), **_corpora(texts, scores, language)}
    parts = [found[name] for name in scores]
    table = np.column_stack([part.rows for part in parts])  # (N, S)
    ends = np.cumsum([part.rows.shape[1] for part in parts])[:-1]

    def values(sums: Floats) -> list[float]:  # (S,)
        own = zip(parts, np.split(sums, ends), strict=True)
        return [part.score(sums) for part, sums in own]

    whole = values(table.sum(axis=0))
    sums = resampled_sums(table, np.ones(len(texts)), seed, resamples)  # (R, S)
    samples = np.array([values(row) for row in sums]).T  # (scores, R)
    named = list(zip(scores, whole, samples, strict=True))
    signatures = {name: part.signature for name, part in found.items() if part.signature}
    return {
        "rows": len(texts),
        **{name: round(value, 2) for name, value, _ in named},
        "intervals": {name: interval(value, sample).bounds() for name, value, sample in named},
        **({"signatures": signatures} if signatures else {}),
    }


@dataclass(frozen=True)
class _Summed:
    """A score as a function of sums over rows of ``rows`` (N, s)."""

    rows: Floats
    score: Callable[[Floats], float]
    signature: str | None = None


Texts = Sequence[tuple[str, Sequence[str]]]


def _means(texts: Texts, names: Sequence[str]) -> dict[str, _Summed]:
    """Scores of each row for itself, of which the mean counts."""
    from rouge_score.rouge_scorer import RougeScorer

    columns = {}
    if "exact_match" in names:
        exact = [float(is_one_of(guess, own)) for guess, own in texts]
        columns["exact_match"] = exact
    kinds = {name: ROUGE[name] for name in names if name in ROUGE}
    if kinds:
        scorer = RougeScorer(list(kinds.values()), tokenizer=Words())
        rouge = [scorer.score_multi(own, guess) for guess, own in texts]
        for name, kind in kinds.items():
            columns[name] = [each[kind].fmeasure for each in rouge]

    def mean(sums: Floats) -> float:
        return 100 * float(sums[0]) / len(texts)

    return {name: _Summed(np.array(own)[:, None], mean) for name, own in columns.items()}


def rows_rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return ROUGE-L of each text, 0 to 1: the best F measure over its references."""
    texts = list(zip(predictions, references, strict=True))
    return [float(each) for each in _means(texts, ("rouge_l",))["rouge_l"].rows[:, 0]]


def rows_chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return chrF of each text, 0 to 100, the best over its references: sacrebleu's."""
    from sacrebleu import CHRF

    kind = CHRF()
    return [
        float(kind.sentence_score(text, list(own)).score)
        for text, own in zip(predictions, references, strict=True)
    ]


def is_one_of(answer: str, references: Sequence[str]) -> bool:
    """Tell whether an answer is one of the references.

    White space at the ends does not count, nor whether a sign has its full-width form.
    """
    return half_width(answer).strip() in {half_width(text).strip() for text in references}


def _corpora(texts: Texts, names: Sequence[str], language: str | None) -> dict[str, _Summed]:
    """Scores of all rows together, from sums of their counts."""
    from sacrebleu import BLEU, CHRF

    references = [own for _, own in texts]
    kinds: dict[str, Any] = {}
    if "bleu" in names:
        # force: what a model writes is scored as it is, without a warning that it looks tokenized
        kinds["bleu"] = BLEU(tokenize=bleu_tokenizer(references, language), force=True)
    if "chrf" in names:
        kinds["chrf"] = CHRF()
    # sacrebleu wants one stream per reference number; None stands where a row has fewer.
    most = max(len(row) for row in references)
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    predictions = [guess for guess, _ in texts]
    found = {}
    for name, kind in kinds.items():
        # The two methods that sacrebleu.significance itself resamples every metric by: its public
        # interval is symmetric and takes its seed from the environment.
        rows = np.asarray(kind._extract_corpus_statistics(predictions, streams))

        def score(sums: Floats, kind: Any = kind) -> float:
            return float(kind._compute_score_from_stats(sums.astype(int).tolist()).score)

        found[name] = _Summed(rows, score, str(kind.get_signature()))
    return found


def bleu_tokenizer(references: Sequence[Sequence[str]], language: str | None = None) -> str:
    """Name of sacrebleu's tokenizer for these references.

    Chinese: "zh". Japanese: "char" (sacrebleu's "ja-mecab" needs a dictionary of its own). Any
    other language: "13a". Without a `language` it is that of the texts, by `language_of`.
    """
    if language is None:
        found = language_of("".join(text for row in references for text in row))
    else:
        found = code(language)
    return {"zh": "zh", "ja": "char"}.get(found or "", "13a")
