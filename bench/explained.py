"""What explanations recover of prompts, over tasks, methods and seeds: ``docs/explain.md``.

    python bench/explained.py run --data ../shared/data
    python bench/explained.py report

Each part of an explained prompt is one line of ``bench/explained.jsonl``, and is not made again.
A prompt is tuned on 256 rows for two epochs and explained on 64 dev rows (of which 16 are those by
which words are searched), its importance and attention on 32. Attribution and layers are of
one answer: of 12 dev rows each. There the attribution is checked by ablation: how much of the
answer's log-probability goes with the word to which it gives most, and with another one.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import spearmanr

import foreword as fw
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first
from foreword.evaluation.records import append_record, read_records
from foreword.explanation.explanation import Contribution

RECORDS = Path(__file__).with_suffix(".jsonl")
KEPT = ("task", "method", "seed", "part", "found")
SUPPORT = Path(__file__).parent.parent / "examples" / "support"
ROWS = 256
DEV_ROWS = {"words": 64, "importance": 32, "attention": 32, "answers": 12}
SEEDS = (0, 1, 2)
LINES = {"sst2": "Review: {text}\nSentiment:", "support": "Customer: {text}\nIntent:"}
FRAME = "Please [soft:10]. "
METHODS: Mapping[str, dict[str, Any]] = {
    "prefix": {"method": "prefix"},
    "frame": {"method": "soft"},
    "soft": {"method": "soft", "length": 20, "start": "text"},
}


def tuned(name: str, method: str, seed: int, data: Path) -> tuple[fw.Prompt, list[Row], float]:
    """Return a prompt, the dev rows of its task, and the processor seconds of its tuning."""
    folder = SUPPORT if name == "support" else data / name
    train = first(as_rows(folder / "train.jsonl"), ROWS, seed)
    template = (FRAME if method == "frame" else "") + LINES[name]
    began = time.process_time()
    prompt = fw.tune(
        "smollm2", train=train, template=template, epochs=2, seed=seed, **METHODS[method]
    )
    return prompt, as_rows(folder / "dev.jsonl"), round(time.process_time() - began, 1)


def explained(prompt: fw.Prompt, dev: list[Row], part: str, seed: int) -> dict[str, Any]:
    """Return what a part of an explanation found."""
    began = time.process_time()
    found: Any
    if part == "answers":
        rows = first(dev, DEV_ROWS[part], seed)
        found, left_out = [answered(prompt, row) for row in rows], {}
    else:
        made = prompt.explain(dev, parts=(part,), rows=DEV_ROWS[part], seed=seed).to_dict()
        found, left_out = made[part], made["left_out"]
    seconds = round(time.process_time() - began, 1)
    return {"seconds": seconds, "found": found, "left_out": left_out}


def answered(prompt: fw.Prompt, row: Row) -> dict[str, Any]:
    """Explain one answer, and remove each word of the row in turn."""
    text = str(row.fields["text"])
    found = prompt.explain(text=text, parts=("attribution", "layers"))
    one, lens = found.attribution, found.layers
    assert one is not None
    assert lens is not None
    answer = one.answer.strip()
    words = text.split() if len(text.split()) > 2 else []
    without = [" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))]
    whole, *others = (
        math.log(max(1e-12, each[answer]))
        for each in prompt.predict([text, *without], probabilities=True)
    )
    place = lens.labels.index(answer)
    return {
        "text": text,
        "answer": answer,
        "label": row.fields["label"],
        "delta": one.delta,
        "difference": one.answered - one.baseline,
        "by_word": by_word(words, text, one.tokens),
        "lost": [whole - each for each in others],
        "leads": {"prompt": leads(lens.prompt, place), "untouched": leads(lens.untouched, place)},
        "layers": len(lens.names),
    }


def by_word(words: Sequence[str], text: str, tokens: Sequence[Contribution]) -> list[float] | None:
    """Add up what a text's tokens contribute by word; None where they are not its characters."""
    whole = "".join(each.token for each in tokens)
    start = whole.find(text)
    if start < 0:
        return None
    values, place = [0.0] * len(words), -start
    ends = list(itertools.accumulate(len(word) + 1 for word in words))
    for each in tokens:
        last = place + len(each.token) - 1  # a space in front is of the word behind it
        if 0 <= last < len(text):
            values[next(n for n, end in enumerate(ends) if last < end)] += each.value
        place += len(each.token)
    return values


def leads(table: Sequence[Sequence[float]], place: int) -> int | None:
    """Return the first layer from which on a label has the highest probability to the end."""
    wins = [max(range(len(row)), key=row.__getitem__) == place for row in table]
    return None if not wins[-1] else len(wins) - wins[::-1].index(False) if False in wins else 0


def report(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what explanations recovered, part by part, as lines of text."""
    lines = []
    for each in sorted(records, key=lambda r: (r["part"], r["task"], r["method"], r["seed"])):
        lines.append(f"{each['task']}, {each['method']}, seed {each['seed']}: {each['part']}")
        if each["part"] == "attention":
            same = [each[key] for key in ("task", "method", "seed")]
            lines += told_attention(each["found"], importance_of(records, same))
        else:
            lines += TOLD[each["part"]](each["found"])
    return "\n".join(lines)


def importance_of(records: Sequence[Mapping[str, Any]], same: Sequence[Any]) -> Any:
    """Return what the importance of a prompt was found to be, if it was."""
    for each in records:
        if each["part"] == "importance" and [each[k] for k in ("task", "method", "seed")] == same:
            return each["found"]
    return None


def told_words(found: Mapping[str, Any]) -> list[str]:
    """Tell the best text of each kind, and the share of the gain that it recovers."""
    lines = [_losses(found)]
    for kind in ("inspect", "asked", "searched", "nearest", "control"):
        own = [text for text in found["texts"] if text["kind"] == kind]
        if own:
            best = min(own, key=lambda text: text["loss"])
            share = "no gain" if best["gain"] is None else f"{best['gain']:.0%}"
            lines.append(f"  {kind}: {best['loss']:.3f}, {share}: {best['text']!r}")
    return lines


def told_importance(found: Mapping[str, Any]) -> list[str]:
    """Tell the pieces without which the loss is highest."""
    lines = [_losses(found)]
    for kind in ("layers", "tokens", "sides"):
        worst = sorted(found[kind], key=lambda piece: -piece["loss"])[:3]
        if worst:
            told = ", ".join(f"{piece['name']} {piece['loss']:.3f}" for piece in worst)
            lines.append(f"  {kind}: {told}")
    return lines


def told_attention(found: Sequence[Mapping[str, Any]], importance: Any) -> list[str]:
    """Tell which layers attend most to the prompt, and whether these are the important ones."""
    shares = {layer["name"]: mean(layer["heads"]) for layer in found}
    most = sorted(shares, key=lambda name: -shares[name])[:3]
    lines = ["  most: " + ", ".join(f"{name} {shares[name]:.2f}" for name in most)]
    losses = {piece["name"]: piece["loss"] for piece in (importance or {}).get("layers", ())}
    if losses.keys() == shares.keys():
        rank = spearmanr([shares[n] for n in shares], [losses[n] for n in shares]).statistic
        lines.append(f"  rank correlation with the loss without the layer: {rank:.2f}")
    return lines


def told_answers(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell what removing the word that contributes most costs, and where layers decide."""
    kept = [row for row in found if row["by_word"] is not None and len(row["lost"]) > 2]
    top, other, ranks, first_of = [], [], [], 0
    for row in kept:
        place = max(range(len(row["lost"])), key=row["by_word"].__getitem__)
        top.append(row["lost"][place])
        other.append(mean(each for n, each in enumerate(row["lost"]) if n != place))
        first_of += row["lost"][place] == max(row["lost"])
        ranks.append(spearmanr(row["by_word"], row["lost"]).statistic)
    chance = mean(1 / len(row["lost"]) for row in kept)
    delta = mean(abs(row["delta"]) for row in found) / mean(abs(r["difference"]) for r in found)
    led = [row["leads"]["prompt"] for row in found if row["leads"]["prompt"] is not None]
    return [
        f"  log-probability lost without the top word: {mean(top):.3f}, another: {mean(other):.3f}",
        f"  the top word costs most in {first_of} of {len(kept)} (by chance {chance:.0%}); "
        f"more than another on average in {sum(a > b for a, b in zip(top, other, strict=True))}",
        f"  rank correlation {mean(ranks):.2f}; delta {delta:.1%} of the difference",
        f"  the answer leads from layer {sorted(led)[len(led) // 2]} on (middle of {len(led)})",
    ]


def _losses(found: Mapping[str, Any]) -> str:
    return "  prompt {:.3f}, untouched {:.3f}".format(
        *(found[key]["loss"] for key in ("prompt", "untouched"))
    )


TOLD: Mapping[str, Callable[[Any], list[str]]] = {
    "words": told_words,
    "importance": told_importance,
    "answers": told_answers,
}


def main(words: Sequence[str] | None = None) -> None:
    """Explain what has not been explained, or report what has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="+", choices=tuple(LINES), default=list(LINES))
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--parts", nargs="+", choices=tuple(DEV_ROWS), default=list(DEV_ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args(words)
    records = read_records(RECORDS, KEPT)
    if given.what == "report":
        print(report(records))
        return
    done = {tuple(record[key] for key in KEPT[:4]) for record in records}
    for seed, name, method in itertools.product(given.seeds, given.tasks, given.methods):
        left = [part for part in given.parts if (name, method, seed, part) not in done]
        if not left:
            continue
        prompt, dev, seconds = tuned(name, method, seed, given.data)
        for part in left:
            about = {"task": name, "method": method, "seed": seed, "part": part}
            found = explained(prompt, dev, part, seed)
            append_record(RECORDS, {**about, "tuned_seconds": seconds, **found})


if __name__ == "__main__":
    main()
