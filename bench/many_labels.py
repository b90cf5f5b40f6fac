"""What a thousand labels cost beside ten, on the same rows and the same model.

    python bench/many_labels.py [--model smollm2] [--rows 200] [--words 20] [--runs 5]

Without ``--model`` it is a random model of two layers with the tokenizer of smollm2. ``kinds`` of
label names: one word of one token; a pair of 60 by 60 words; "class 17"; three of 20 by 20 by 10
words. Printed are the tokens that a row runs, and the ratios of processor time, run by run in turn.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.injection import NOTHING
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier

FEW, MANY = 10, 1000


def tiny() -> Backbone:
    """Return a random model of two layers with the tokenizer of smollm2."""
    tokenizer = Backbone.load("smollm2").text.tokenizer
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    config = LlamaConfig(**shape, num_hidden_layers=2, vocab_size=len(tokenizer))
    return Backbone(LlamaForCausalLM(config), tokenizer, architecture="causal", name="tiny")


def words_of(backbone: Backbone) -> list[str]:
    """Return words of one token each, shuffled."""
    found = [token[1:] for token in backbone.text.tokenizer.get_vocab() if token.startswith("Ġ")]
    found = sorted(word for word in found if word.isalpha() and word.islower() and len(word) > 3)
    random.Random(0).shuffle(found)
    return found


def kinds(words: list[str]) -> dict[str, list[str]]:
    """Return a thousand label names of each kind."""
    draw = random.Random(1)
    pairs = itertools.product(words[:60], words[60:120])
    threes = itertools.product(words[:20], words[20:40], words[40:50])
    return {
        "one word": words[200 : 200 + MANY],
        "pairs": draw.sample([" ".join(pair) for pair in pairs], MANY),
        "numbers": [f"class {number}" for number in range(MANY)],
        "three words": draw.sample([" ".join(three) for three in threes], MANY),
    }


def ratios(few: Classifier, many: Classifier, rows: list[Row], runs: int) -> Iterator[float]:
    """Yield how often longer many labels take, run by run."""
    for task in (few, many):
        task.predict(rows[:5], NOTHING)
    for _ in range(runs):
        took = []
        for task in (few, many):
            began = time.process_time()
            task.predict(rows, NOTHING)
            took.append(time.process_time() - began)
        yield took[1] / took[0]


def main() -> None:
    """Print one line for each kind of label names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    backbone = tiny() if asked.model is None else Backbone.load(asked.model)
    words, draw = words_of(backbone), random.Random(2)
    rows = [
        Row({"text": " ".join(draw.choices(words, k=asked.words))}, f"row {n}")
        for n in range(asked.rows)
    ]
    for kind, names in kinds(words).items():
        tasks = [
            Classify(
                template="Text: {text}\nIntent:",
                labels={name: f" {name}" for name in names[:count]},
            ).bind(backbone)
            for count in (FEW, MANY)
        ]
        lengths = [task.dev_example(row_with(rows[0], names[0]), 1000) for task in tasks]
        sizes = " and ".join(str(each.example.length) for each in lengths)
        found = sorted(ratios(*tasks, rows, asked.runs))
        middle = found[len(found) // 2]
        print(
            f"{kind}: {sizes} tokens a row; {middle:.2f} times as long "
            f"({found[0]:.2f} to {found[-1]:.2f})",
            flush=True,
        )


def row_with(row: Row, label: str) -> Row:
    """Return a row with a label."""
    return Row({**row.fields, "label": label}, row.where)


if __name__ == "__main__":
    main()
