"""What scores are called in a table, and how they are written there."""

from __future__ import annotations

from collections.abc import Mapping

MAIN: Mapping[str, str] = {
    "official_f1": "official F1",
    "span_f1": "span F1",
    "accuracy": "accuracy",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "hit_1": "hit@1",
    "hit_3": "hit@3",
    "ndcg_10": "NDCG@10",
    "mrr": "MRR",
    "exact_match": "exact match",
    "f1": "F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "rmse": "RMSE",
    "mae": "MAE",
}
"""Scores of the first table, from left to right."""

FURTHER: Mapping[str, str] = {
    "mcc": "MCC",
    "auroc": "AUROC",
    "ece": "calibration error",
    "span_precision": "span precision",
    "span_recall": "span recall",
}
"""Scores of a second table, below the first."""

ABSTAINING: Mapping[str, str] = {
    "coverage": "rows that are answered",
    "answered_accuracy": "of these, right",
    "auroc": "AUROC, known against unknown",
    "false_acceptance": "unknown rows that are answered",
}
"""Scores of a prompt that leaves unsure answers blank, from top to bottom."""

IN_UNITS = ("rmse", "mae")
"""Errors in the unit of the numbers themselves; all other scores are in percent points."""


def title(metric: str) -> str:
    """Return what a score is called in a table; one that is not known here keeps its name.

    >>> title("hit_1"), title("my_score")
    ('hit@1', 'my score')
    """
    return MAIN.get(metric) or FURTHER.get(metric) or metric.replace("_", " ")
