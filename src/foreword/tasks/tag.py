"""Tag: one label for every word of a sentence: parts of speech, entities, roles of a predicate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.bio import follows, is_bio, spans
from foreword.metrics.resample import Floats
from foreword.metrics.spans import span_scores, tagging
from foreword.tasks.gold import check_tags, tags_of, texts_of, words_in
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import Labelling, LabelTask
from foreword.tasks.labels.token_tags import TokenTagger
from foreword.tasks.objective import Encoded, mean
from foreword.tasks.phrases import language_for
from foreword.tasks.templates.layout import with_space
from foreword.tasks.templates.template import Template, literal
from foreword.tasks.words import words_of

TAG_WORDS = {
    "ADJ": " adjective",
    "ADP": " preposition",
    "ADV": " adverb",
    "AUX": " auxiliary",
    "CCONJ": " conjunction",
    "DET": " determiner",
    "INTJ": " interjection",
    "NOUN": " noun",
    "NUM": " number",
    "PART": " particle",
    "PRON": " pronoun",
    "PROPN": " name",
    "PUNCT": " punctuation",
    "SCONJ": " subordinating conjunction",
    "SYM": " symbol",
    "VERB": " verb",
    "PER": " person",
    "LOC": " location",
    "ORG": " organization",
    "MISC": " miscellaneous",
    "O": " other",
}
"""Default words for the tags of Universal Dependencies and CoNLL-2003."""


@dataclass(frozen=True)
class Tag(LabelTask):
    """A template of the sentence, and one of what follows for each of its words.

    The sentence is run once. For each word a short branch goes on from it, by ``word_template``,
    and ends in (or, on masked models, holds) the tag. There ``{word}`` is the word, and ``{left}``
    the fewest words before it that tell it from an equal one elsewhere in the sentence: none for a
    word that stands once. Other fields of the row, such as the predicate whose roles are asked
    for, may stand in either template. On encoder-decoders the decoder reads the branch.

    ``labels`` maps each tag to its word or words, None takes the tags that occur in the rows. Tags
    of the BIO scheme are decoded so that they are valid, and scored by their spans.
    A sentence is never cut: one that does not fit is refused. Words and tags are lists, or texts
    that are parted at white space. On an encoder there is no ``word_template``: a tag is scored on
    the state of its word (labels/token_tags.py).
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    word_template: str | None = setting(
        None, help="what follows a sentence for each word: {left}{word}, [mask]"
    )
    labels: Mapping[str, str | Sequence[str]] | None = setting(
        None, help="label or label=word,word ...; or @FILE of many words; else those of the rows"
    )
    token_field: str = setting("tokens", help="the field that holds a sentence's words")
    tag_field: str = setting("tags", help="the field that holds the words' tags")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")

    text_setting: ClassVar[str] = "token_field"
    answer_setting: ClassVar[str] = "tag_field"
    takes_lists: ClassVar[bool] = True

    def check_answer(self, row: Row) -> None:
        """Raise UserError for a row without words, or without a tag for each."""
        check_tags(row, self.token_field, self.tag_field)

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Tag:
        """Return the task with the tags of the rows and templates, where none are given."""
        template, each, labels = self.template, self.word_template, self.labels
        language = language_for(self.language, rows)
        if template is None:
            start = "" if backbone.pooling is None else literal(backbone.pooling.prompt)
            template = f"{start}{{{self.token_field}}}"
        if each is None and not backbone.is_encoder:
            each = "\n{left}{word}:" + (" [mask]" if backbone.fills_masks else "")
        if labels is None:
            tags = {tag for row in rows for tag in tags_of(row, self.tag_field)}
            labels = dict.fromkeys(sorted(tags), ())
        made = replace(
            self, template=template, word_template=each, labels=labels, language=language
        )
        return made.with_words()

    @property
    def answer_template(self) -> str:
        """The template of a word, whose answer is its tag."""
        return self.word_template or ""

    @staticmethod
    def words_for(label: str) -> str:
        """Return the words of a tag's name."""
        return tag_words(label)

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; labels and templates must be known by now."""
        names = tuple(self.labels or ())
        metric = "span_f1" if is_bio(names) else "accuracy"
        if backbone.is_encoder:
            if self.word_template is not None:
                raise UserError(
                    f"`word_template`: {backbone.name} is an encoder, which reads the words "
                    "themselves; leave it out"
                )
            read = Tags(names, self.token_field, self.tag_field, metric)
            return TokenTagger(self, backbone, read, self.labels)
        if self.word_template is None:
            raise UserError("a tagging needs a word_template; give one, or rows")
        if Template.parse(self.word_template).soft:
            raise UserError("word_template: [soft] stands before all words; put it in `template`")
        if Template.parse(self.word_template).roles:
            raise UserError("word_template: roles stand before all words; put them in `template`")
        labelling = Tags(names, self.token_field, self.tag_field, metric, self.word_template)
        return Classifier(self, backbone, labelling, self.labels)


@dataclass(frozen=True)
class Tags(Labelling):
    """One label for each word of a row."""

    names: tuple[str, ...]
    tokens: str
    field: str
    metric: str = "accuracy"  # of words, or span_f1
    slot_template: str = ""
    answer = "tags"
    asks = "Tag every word of the sentence as"
    never_cut = True

    def slots(self, row: Row) -> Sequence[Mapping[str, str]]:
        """Return each word with the words that distinguish it, and the row's other fields."""
        words = texts_of(row, self.tokens)
        own = {name: str(value) for name, value in self.as_text(row).fields.items()}
        return [
            {**own, "word": word, "left": join_words([*left, word])[: -len(word)]}
            for word, left in zip(words, left_contexts(words), strict=True)
        ]

    def as_text(self, row: Row) -> Row:
        """Return the row with its sentence as a text."""
        words = texts_of(row, self.tokens)
        return replace(row, fields={**row.fields, self.tokens: join_words(words)})

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError for empty words, and for unknown, invalid, missing or extra tags."""
        words_in(row, self.tokens)
        known = {**row.fields, "word": "", "left": ""}
        Template.parse(self.slot_template).check(known, row.where)
        if not answers:
            return
        check_tags(row, self.tokens, self.field, self.names)

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the indices of the words' tags."""
        return tuple(self.names.index(tag) for tag in texts_of(row, self.field))

    def gold_answer(self, row: Row) -> list[str]:
        """Return the words' tags."""
        return texts_of(row, self.field)

    def slot_labels(self, row: Row) -> Sequence[Sequence[int]]:
        """Return each word's tag."""
        return [(label,) for label in self.gold(row)]

    def class_of(self, row: Row) -> str | None:
        """Return None: a sentence has no class."""
        return None

    def units(self, item: Encoded) -> int:
        """Count the words."""
        return len(item.golds)

    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return minus the log-probabilities of the words' tags, summed in each row: (rows,)."""
        sizes = [len(item.golds) for item in items]
        gold = [label for item in items for label in item.golds]
        each = -scores[range(len(gold)), gold]
        return torch.stack([part.sum() for part in torch.split(each, sizes)])

    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return right, gold and predicted spans, or 100 per right word and the number of words."""
        table = scores.double().cpu().numpy()
        parts = np.split(table, np.cumsum([len(item.golds) for item in items])[:-1])
        pairs = [
            ([self.names[label] for label in item.golds], self._decoded(part))
            for item, part in zip(items, parts, strict=True)
        ]
        if is_bio(self.names):
            pairs_of_spans = [(set(spans(gold)), set(spans(guess))) for gold, guess in pairs]
            counts = [(len(g & p), len(g), len(p)) for g, p in pairs_of_spans]
            return tuple(float(sum(column)) for column in zip(*counts, strict=True))
        words = [a == b for gold, guess in pairs for a, b in zip(gold, guess, strict=True)]
        return 100.0 * sum(words), float(len(words))

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the F1 of spans, or the accuracy of words."""
        if not is_bio(self.names):
            return mean(sums)
        return 100 * float(span_scores(np.array(sums))["span_f1"])

    def _decoded(self, scores: Floats) -> list[str]:
        """Return the likeliest tags of a sentence, valid ones in the BIO scheme."""
        if not is_bio(self.names):
            return [self.names[label] for label in scores.argmax(1)]
        return [self.names[label] for label in best_bio_path(scores, self.names)]

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return the words' tags and their probabilities, and for BIO tags the spans."""
        table = scores.double().cpu().numpy()
        tags = self._decoded(table)
        own = [self.names.index(tag) for tag in tags]
        answer = {"tags": tags, "chances": np.exp(table[np.arange(len(own)), own]).tolist()}
        if not is_bio(self.names):
            return answer
        entities = [{"type": t, "start": start, "end": end} for t, start, end in spans(tags)]
        return {**answer, "spans": entities}

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return accuracy and macro F1 of words, and for BIO tags the scores of spans."""
        gold = [texts_of(row, self.field) for row in rows]
        return tagging(gold, [p["tags"] for p in predictions], self.names, seed=seed)


def tag_words(tag: str) -> str:
    """Return the default words of a tag.

    >>> tag_words("PROPN"), tag_words("B-PER"), tag_words("I-PER"), tag_words("ARG0")
    (' name', ' person', ' inside person', ' ARG0')
    """
    side, _, rest = tag.partition("-")
    if side in ("B", "I") and rest:
        return (" inside" if side == "I" else "") + tag_words(rest)
    return TAG_WORDS.get(tag, words_of(tag))


def join_words(words: Sequence[str]) -> str:
    """Join words as they are written: with spaces, but none in scripts that have none."""
    text = ""
    for word in words:
        text += with_space(text, word)
    return text


def left_contexts(words: Sequence[str]) -> list[Sequence[str]]:
    """Return, for each word, the fewest preceding words that distinguish it from equal words.

    If the sentence begins too soon, these are all words before it; so no two words have the same
    word and the same context.

    >>> left_contexts(["the", "cat", "saw", "the", "dog"])[3]
    ['saw']
    """
    contexts: list[Sequence[str]] = []
    for index in range(len(words)):
        rivals = [n for n, word in enumerate(words) if word == words[index] and n != index]
        size = 0
        while rivals and size < index:
            size += 1
            rivals = [n for n in rivals if n >= size and words[n - size] == words[index - size]]
        contexts.append(words[index - size : index])
    return contexts


def best_bio_path(scores: Floats, names: Sequence[str]) -> list[int]:
    """Return the valid sequence of BIO tags with the highest sum of scores: (words, labels).

    Viterbi 1967 (10.1109/TIT.1967.1054010), where a step is allowed or not.
    """
    first, barred = _steps(tuple(names))
    best, back = scores[0] + first, []
    for row in scores[1:]:
        ways = best[:, None] + barred  # (from, to)
        back.append(ways.argmax(0))
        best = ways.max(0) + row
    path = [int(best.argmax())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return path[::-1]


@lru_cache
def _steps(names: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Return 0 for each tag that may come first, and that may follow another; else -inf."""
    barred = np.array([[0.0 if follows(a, b) else -np.inf for b in names] for a in ("O", *names)])
    return barred[0], barred[1:]  # (labels,), (from, to)
