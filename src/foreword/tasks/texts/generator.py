"""All tasks whose answers are texts, on a backbone: what is learned, decoded and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example, behind, common_lead
from foreword.data.row import Row
from foreword.engine.groups import buckets, share
from foreword.engine.passes import infer
from foreword.injection import Injection, Mixture
from foreword.tasks.objective import Encoded, sum_by_row
from foreword.tasks.phrases import phrase_in
from foreword.tasks.progress import report_by_row
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.examples import TextExamples

ROWS_TOKENS = 4096
"""Tokens, prompts and completions together, that are decoded side by side."""


@dataclass(frozen=True)
class DecodingInputs:
    """Rows of token ids to continue, the injection of each, and whether it was truncated.

    The injection has read ``lead``, the tokens of every row that are not in ``ids``.
    """

    ids: list[tuple[int, ...]]
    injection: Mixture
    truncated: list[bool]
    lead: tuple[int, ...] = ()


class Generator(TextExamples):
    """A task of texts bound to a backbone."""

    metric = "log-likelihood"
    answer = "text"

    @property
    def headline(self) -> str:
        """The score by which prompts are compared."""
        return self.wording.headline

    def instruction(self) -> str:
        """Return the default text to start from."""
        return phrase_in(self.task.language, self.wording.instruction)

    # Learning ----------------------------------------------------------------------------------

    @property
    def sums_targets(self) -> bool:
        """Whether a row's loss is a sum over its targets: it is that of its tokens."""
        return True

    def units(self, item: Encoded) -> int:
        """Count the target tokens."""
        return item.gold

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's cross-entropy in nats, summed over its targets: (rows,)."""
        return self._entropies(logits, items, self.task.label_smoothing)

    def _entropies(self, logits: Tensor, items: Sequence[Encoded], smoothing: float) -> Tensor:
        answers = [token for item in items for token in item.example.answers]
        self.backbone.check_scored(answers)
        target = torch.tensor(answers, device=logits.device)
        losses = F.cross_entropy(
            logits.float(), target, reduction="none", label_smoothing=smoothing
        )
        return sum_by_row(losses, [item.gold for item in items])

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return the summed log-likelihood of the answers' tokens, and their number."""
        return -float(self._entropies(logits, items, 0.0).sum()), sum(item.gold for item in items)

    def percent(self, score: float) -> float:
        """Return the probability of a token, their geometric mean, in percent."""
        return 100 * math.exp(score)

    # Answering ---------------------------------------------------------------------------------

    def gold_answer(self, row: Row) -> str | list[str]:
        """Return the row's answer, or all of them where it has several."""
        references = list(self.references(row))
        return references[0] if len(references) == 1 else references

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return whether a text equals one of the row's answers, as the task compares texts."""
        return self.wording.matches(str(answer), self.references(row))

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return an answer for each row; for one read in windows, the likeliest of theirs."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        windows = [self.windows(row, room, before) for row in rows]
        owners = [n for n, parts in enumerate(windows) for _ in parts]
        flat = [part for parts in windows for part in parts]
        mixture = Mixture.of(injection, len(rows)).of_rows(owners)
        under = mixture if isinstance(injection, Mixture) else injection
        texts, truncated = self.decode_rows(flat, under, before, owners, progress)
        several = [n for n, owner in enumerate(owners) if len(windows[owner]) > 1]
        likelihoods = dict.fromkeys(range(len(flat)), 0.0)
        if several:
            under = mixture.of_rows(several) if isinstance(injection, Mixture) else injection
            pairs = [(flat[n], texts[n]) for n in several]
            means = self._mean_log_likelihoods(pairs, under, room, before)
            likelihoods.update(zip(several, means, strict=True))
        answers: list[dict[str, Any]] = [{} for _ in rows]
        for n in sorted(range(len(flat)), key=lambda n: likelihoods[n]):  # the likeliest comes last
            count = {"windows": len(windows[owners[n]])} if self.wording.windowed else {}
            answers[owners[n]] = {"text": texts[n], "cut": truncated[n], **count}
        return answers

    def decode_rows(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        before: str,
        owners: Sequence[int],
        progress: Any,
    ) -> tuple[list[str], list[bool]]:
        """Decode each row; ``progress`` counts an owner with the last of its rows."""
        inputs = self.decoding_inputs(rows, injection, before=before)
        texts = [""] * len(rows)
        decoding = self.decoding(before)
        sizes = [len(ids) + decoding.max_new_tokens for ids in inputs.ids]
        report = report_by_row(progress, owners)
        for group in buckets(sizes, ROWS_TOKENS):
            ids, part = [inputs.ids[i] for i in group], inputs.injection.of_rows(group)
            found = decode(self.backbone, ids, part, decoding, lead=inputs.lead)
            for i, text in zip(group, found, strict=True):
                texts[i] = self.answer_of(text)
            report(group)
        return texts, inputs.truncated

    def _mean_log_likelihoods(
        self,
        answered: Sequence[tuple[Row, str]],
        injection: Injection | Mixture,
        room: int,
        before: str,
    ) -> list[float]:
        """Return the mean log-probability of each text's tokens after its row; no text has none."""
        items = []
        for row, text in answered:
            filled = self._fill_row(row, room, before)
            items.append(self._with_answer(filled, *self._ended(filled.left, text)))
        means = [-math.inf] * len(items)
        for group, logits in infer(self.backbone, injection, [item.example for item in items]):
            losses = self._entropies(logits, [items[i] for i in group], 0.0).tolist()
            for i, loss in zip(group, losses, strict=True):
                if answered[i][1]:
                    means[i] = -loss / items[i].gold
        return means

    @torch.no_grad()
    def decoding_inputs(
        self, rows: Sequence[Row], injection: Injection | Mixture, *, before: str = ""
    ) -> DecodingInputs:
        """Return the rows to continue; the lead that all of them share is read already."""
        examples, truncated = self.lay_out(rows, injection, before=before)
        more = self.task.decoding.max_new_tokens
        longest = max((e.length for e in examples), default=0) + more
        mixture = Mixture.of(injection, len(rows))
        lead = () if isinstance(injection, Mixture) else common_lead(examples)
        read = [share(self.backbone.with_changes(p), p, lead, longest) for p in mixture.parts]
        parts = tuple(each.injection for each in read if isinstance(each.injection, Injection))
        ids = [example.ids[read[0].lead :] for example in examples]
        return DecodingInputs(
            ids,
            Mixture(parts, mixture.rows),
            truncated,
            lead[: read[0].lead] if read else (),
        )

    def lay_out(
        self, rows: Sequence[Row], injection: Injection | Mixture, *, before: str = ""
    ) -> tuple[list[Example], list[bool]]:
        """Return rows as they are read before their answers, and whether each was truncated."""
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        filled = [self._fill_row(row, room, before) for row in rows]
        whole = [Example(each.ids, each.slot, ((),), (), (), each.bos) for each in filled]
        return behind(whole, injection), [each.truncated for each in filled]

    def decoding(self, before: str) -> Decoding:
        """Stop at the blank line between demonstrations, where there are some."""
        stop = self.task.decoding.stop
        return replace(self.task.decoding, stop=(*stop, "\n\n")) if before else self.task.decoding

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare answers with all of a row's references, as the task is measured.

        ``windowed`` counts the rows that were read in windows.
        """
        references = [self.references(row) for row in rows]
        scores = self.wording.measure([str(p["text"]) for p in predictions], references, seed)
        if self.wording.windowed is None:
            return scores
        return {**scores, "windowed": sum(p.get("windows", 1) > 1 for p in predictions)}
