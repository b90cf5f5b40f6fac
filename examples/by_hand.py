"""Prompt tuning by hand: what `fw.tune` does at its heart, in plain steps. Run from the repository.

The model reads [P; E(x)]: the embeddings E of a row x, and before them P, a few vectors that are
trained while every weight of the model stays as it is (Lester et al. 2021, arXiv:2104.08691).
32 rows to train on and 12 dev rows show how it works, not how well.
"""

import random

import torch
import torch.nn.functional as F

import foreword as fw

EPOCHS, BATCH, RATE = 6, 8, 5e-3
LABELS = ["negative", "positive"]

random.seed(0)
backbone = fw.load("smollm2")  # frozen: no weight asks for a gradient

# A row, written into a template, becomes token ids. What the model says next is its answer.


def encode(row: fw.Row) -> fw.Example:
    ids = backbone.text.ids(f"Review: {row.fields['text']}\nSentiment:")
    last = (0, -1)  # of branch 0, which is empty, the token before its first: the row's last
    return fw.Example(tuple(ids), slot=len(ids), branches=((),), targets=(last,))


def read(path: str) -> tuple[list[fw.Example], torch.Tensor]:
    rows = fw.read_rows(path)
    numbers = [LABELS.index(row.fields["label"]) for row in rows]
    return [encode(row) for row in rows], torch.tensor(numbers)


train, train_labels = read("examples/reviews/train.jsonl")
dev, dev_labels = read("examples/reviews/dev.jsonl")

# A verbalizer: the word that stands for each label, one token here.
words = [backbone.text.ids(f" {label}")[0] for label in LABELS]

# All that is trained: the virtual tokens, which start as the embeddings of a real text.
text = "Decide whether a film review is negative or positive.\n"
virtual = torch.nn.Parameter(backbone.embed(backbone.text.ids(text)).clone())  # (P, width)
optimizer = torch.optim.AdamW([virtual], lr=RATE)


def scores(examples: list[fw.Example], injection: fw.Injection) -> torch.Tensor:
    """Return the scores of the label words at the end of each row: (rows, labels)."""
    states = backbone.states(examples, injection)  # (rows, width)
    return backbone.logits(states, words)


def accuracy(injection: fw.Injection) -> float:
    with torch.no_grad():
        answers = scores(dev, injection).argmax(dim=1)
    return float((answers == dev_labels).float().mean())


print(f"untouched model: {accuracy(fw.Injection()):.0%} of {len(dev)} dev rows")

for epoch in range(EPOCHS):
    order = random.sample(range(len(train)), len(train))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        injection = fw.Injection(embeds=virtual, leading=len(virtual))
        logits = scores([train[i] for i in batch], injection)
        loss = F.cross_entropy(logits, train_labels[batch])
        optimizer.zero_grad()
        loss.backward()  # through the whole model, to the virtual tokens alone
        optimizer.step()
    trained = fw.Injection(embeds=virtual.detach(), leading=len(virtual))
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {accuracy(trained):.0%} of the dev rows")

print(f"{virtual.numel()} trained numbers, {virtual.numel() * 4 / 1024:.0f} KiB")
