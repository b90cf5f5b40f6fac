"""Scores of predictions against gold, each with a 95% bootstrap interval.

The scores are scikit-learn's, sacrebleu's and rouge-score's. Each of them is a function of *sums
over rows*: counts of right answers, of n-gram matches, of words. So a bootstrap resample (Efron
1979, rows drawn with replacement) needs no text again: the rows' statistics are weighted by how
often each row was drawn, all resamples in one matrix product. Every score is in percent points,
0 to 100; but errors of numbers are in the numbers' own unit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreword.errors import UserError

Floats = NDArray[np.float64]

_CHUNK = 4_000_000  # draws held at once: 32 MB

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_CJK = re.compile(f"[{_HAN}{_KANA}]")


@dataclass(frozen=True)
class Interval:
    """A score and its 95% interval."""

    value: float
    low: float
    high: float

    def bounds(self, decimals: int = 2) -> list[float]:
        """Low and high, rounded."""
        return [round(self.low, decimals), round(self.high, decimals)]


def bootstrap(per_row: Sequence[float], seed: int = 0, resamples: int = 1000) -> Interval:
    """Interval of a mean over rows.

    `per_row` holds a number from 0 to 1 for each row (right or wrong, an F measure); the interval
    is in percent points. Raises `UserError` if there are no rows.
    """
    _check_rows(len(per_row))
    table = np.asarray(per_row, dtype=np.float64)[:, None]  # (N, 1)
    sums = _resampled_sums(table, np.ones(len(per_row)), seed, resamples)  # (R, 1)
    return _interval(100 * table.mean(), 100 * sums[:, 0] / len(per_row))


def classification(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Accuracy, macro F1, per-class scores and the confusion matrix, as scikit-learn counts them.

    `macro_f1` is the mean F1 of the labels that occur in `gold` (scikit-learn with `labels=` those
    and `zero_division=0`: a label never predicted counts as 0, one without gold rows does not
    count); a resample's mean is over the labels in the resample. `per_class` and `confusion` (rows
    gold, columns predicted) have every label, in the order of `labels`. Raises `UserError` if there
    are no rows, and `ValueError` if the lengths differ or a label is unknown.
    """
    from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

    _check_rows(len(gold), len(predicted))
    index = {label: number for number, label in enumerate(labels)}
    if len(index) != len(labels):
        raise ValueError(f"labels repeat: {list(labels)}")
    if unknown := {*gold, *predicted} - index.keys():
        raise ValueError(f"not among the labels: {sorted(unknown)}")
    every = list(range(len(labels)))
    truth, guess = [index[label] for label in gold], [index[label] for label in predicted]
    confusion = confusion_matrix(truth, guess, labels=every)  # (K, K)
    accuracy = 100 * float(np.trace(confusion)) / len(gold)
    occurring = sorted(set(truth))
    macro = 100 * float(f1_score(truth, guess, labels=occurring, average="macro", zero_division=0))
    scores = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0)
    right, f1 = _resampled_confusion(confusion, seed, resamples)
    return {
        "rows": len(gold),
        "accuracy": round(accuracy, 2),
        "macro_f1": round(macro, 2),
        "intervals": {
            "accuracy": _interval(accuracy, 100 * right).bounds(),
            "macro_f1": _interval(macro, 100 * f1).bounds(),
        },
        "per_class": {
            label: {
                "precision": round(100 * float(precision), 2),
                "recall": round(100 * float(recall), 2),
                "f1": round(100 * float(f), 2),
                "support": int(support),
            }
            for label, precision, recall, f, support in zip(labels, *scores, strict=True)
        },
        "confusion": {"labels": list(labels), "matrix": confusion.tolist()},
    }


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

    _check_rows(len(predictions), len(references))
    for number, row in enumerate(references, start=1):
        if isinstance(row, str):
            raise TypeError(f"references of row {number} must be a list of strings, not a string")
        if not row:
            raise UserError(f"row {number} has no reference: give every row at least one")

    pairs = list(zip(predictions, references, strict=True))
    exact = [float(guess.strip() in {text.strip() for text in row}) for guess, row in pairs]
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
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
    sums = _resampled_sums(table, np.ones(len(pairs)), seed, resamples)  # (R, 30)
    samples = np.array([scores(row) for row in sums]).T  # (4, R)
    names = ("exact_match", "bleu", "chrf", "rouge_l")
    return {
        "rows": len(pairs),
        **{name: round(value, 2) for name, value in zip(names, values, strict=True)},
        "intervals": {
            name: _interval(value, sample).bounds()
            for name, value, sample in zip(names, values, samples, strict=True)
        },
        "signatures": {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())},
    }


def regression(
    gold: Sequence[float],
    predicted: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Pearson's and Spearman's correlation in percent points (-100 to 100), RMSE and MAE.

    Spearman's is Pearson's of the ranks, equal numbers sharing their mean rank; a resample has
    ranks of its own. A correlation with what is constant counts as 0. Raises `UserError` if there
    are no rows, and `ValueError` if the lengths differ or a number is not finite.
    """
    _check_rows(len(gold), len(predicted))
    truth, guess = np.array(gold, dtype=np.float64), np.array(predicted, dtype=np.float64)
    if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
        raise ValueError("a number is not finite")
    once = np.ones((1, len(truth)))
    values = _agreement(truth, guess, once)[:, 0]  # (4,)
    samples = np.concatenate(
        [_agreement(truth, guess, draws) for draws in _draws(once[0], seed, resamples)], axis=1
    )  # (4, R)
    names = {"pearson": 2, "spearman": 2, "rmse": 4, "mae": 4}
    return {
        "rows": len(truth),
        **{
            name: round(float(value), decimals)
            for (name, decimals), value in zip(names.items(), values, strict=True)
        },
        "intervals": {
            name: _interval(value, sample).bounds(decimals)
            for (name, decimals), value, sample in zip(names.items(), values, samples, strict=True)
        },
    }


def bleu_tokenizer(references: Sequence[Sequence[str]], language: str | None = None) -> str:
    """Name of sacrebleu's tokenizer for these references.

    Chinese: "zh". Japanese: "char" (sacrebleu's "ja-mecab" needs a dictionary of its own). Any
    other language: "13a". Without a `language`, text is Chinese or Japanese if more than 30% of
    its letters are Han or kana, and Japanese if more than 10% of those are kana.
    """
    if language is None:
        text = "".join(text for row in references for text in row)
        cjk = len(_CJK.findall(text))
        if cjk <= 0.3 * sum(map(str.isalpha, text)):
            return "13a"
        return "char" if len(re.findall(f"[{_KANA}]", text)) > 0.1 * cjk else "zh"
    return {"zh": "zh", "ja": "char"}.get(re.split("[-_]", language.lower())[0], "13a")


def words(text: str) -> list[str]:
    """Cut lowercased text into runs of letters, digits and their marks, for ROUGE.

    On ASCII text this is what rouge-score's own tokenizer does, which drops all other letters. Each
    Han or kana character is a word; other scripts without spaces (Thai, Khmer) are not cut.

    >>> words("It's Größe 42, 你好!")
    ['it', 's', 'größe', '42', '你', '好']
    """
    found: list[str] = []
    inside = False
    for char in text.lower():
        kind = unicodedata.category(char)[0]
        if kind in "LN" and _CJK.match(char):
            found.append(char)
            inside = False
        elif inside and kind in "LNM":
            found[-1] += char
        else:
            inside = kind in "LN"
            if inside:
                found.append(char)
    return found


class _Words:
    """`words` as the tokenizer object that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _check_rows(rows: int, others: int | None = None) -> None:
    """Refuse lengths that differ (`ValueError`) and no rows at all (`UserError`)."""
    if others is not None and rows != others:
        raise ValueError(f"lengths differ: {rows} and {others}")
    if rows == 0:
        raise UserError("there are no rows to score: give data with at least one row")


def _resampled_sums(table: Floats, counts: Floats, seed: int, resamples: int) -> Floats:
    """Column sums of `resamples` bootstrap samples, (R, S).

    `table` (M, S) holds the statistics of M kinds of row, and `counts` (M,) how many rows are of
    each kind: drawing rows with replacement draws the kinds from a multinomial distribution.
    """
    return np.concatenate([draws @ table for draws in _draws(counts, seed, resamples)])


def _draws(counts: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    """Yield how many rows of each kind the resamples have, (size, M), some resamples at a time."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    rows = int(counts.sum())
    step = max(1, _CHUNK // len(counts))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield rng.multinomial(rows, counts / rows, size=size).astype(np.float64)


def _agreement(gold: Floats, guess: Floats, draws: Floats) -> Floats:
    """Pearson, Spearman, RMSE and MAE, (4, R), of rows drawn so many times, (R, N)."""
    rows = draws.sum(axis=1)
    errors = gold - guess
    return np.stack(
        [
            100 * _correlation(gold, guess, draws),
            100 * _correlation(_ranks(gold, draws), _ranks(guess, draws), draws),
            np.sqrt(draws @ errors**2 / rows),
            draws @ np.abs(errors) / rows,
        ]
    )


def _correlation(x: Floats, y: Floats, draws: Floats) -> Floats:
    """Pearson's correlation, (R,), of x and y, (N,) or (R, N); 0 where one is constant."""
    products: Floats = draws * _standard(x, draws) * _standard(y, draws)
    return np.asarray(products.sum(axis=1))


def _standard(values: Floats, draws: Floats) -> Floats:
    """Values less their mean and of length one, (R, N), as they are drawn; 0 if constant."""
    mean = (draws * values).sum(axis=1, keepdims=True) / draws.sum(axis=1, keepdims=True)
    centred = values - mean
    length, whole = (
        np.sqrt((draws * each**2).sum(axis=1, keepdims=True)) for each in (centred, values)
    )
    # what rounding leaves of a constant is that far below it
    varies = length > 1e-12 * whole
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=varies))


def _ranks(values: Floats, draws: Floats) -> Floats:
    """Ranks from 1, (R, N), of the drawn values; equal ones share their mean rank."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    sizes = np.add.reduceat(draws[:, order], starts, axis=1)  # (R, groups)
    ranks: Floats = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return ranks[:, group]


def _resampled_confusion(
    confusion: NDArray[np.int64], seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Accuracy and macro F1, (R,) each and 0 to 1, of bootstrap samples of a confusion matrix."""
    gold, guess = np.nonzero(confusion)  # the M cells that have rows
    one_hot = np.eye(len(confusion))
    table = np.hstack(
        [one_hot[gold] * (gold == guess)[:, None], one_hot[gold], one_hot[guess]]
    )  # (M, 3K)
    sums = _resampled_sums(table, confusion[gold, guess].astype(np.float64), seed, resamples)
    hits, support, claimed = np.split(sums, 3, axis=1)  # (R, K) each
    f1 = 2 * hits / np.maximum(support + claimed, 1)
    present = support > 0
    macro = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return hits.sum(axis=1) / confusion.sum(), macro


def _interval(value: float, samples: Floats) -> Interval:
    """Percentile interval of the samples, widened to the value where resampling is biased."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))
