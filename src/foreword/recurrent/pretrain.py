"""Pretraining: a recurrent language model and its tokenizer, trained on one text file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from foreword.backbone.load.quiet import without_bars
from foreword.backbone.load.recurrent_model import RecurrentConfig, RecurrentForCausalLM
from foreword.backbone.load.sources import find_device
from foreword.config.values import plain
from foreword.errors import UserError
from foreword.recurrent.streams import Pretraining, Reading
from foreword.recurrent.tokenizers import byte_pairs, characters, encode
from foreword.reporter import Reporter
from foreword.terminal import usual_reporter
from foreword.training import checkpoint

HELD_OUT = 0.05
"""The share of the text, at its end, that is scored and never trained on."""

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What a model's folder holds; transformers of another version may write fewer of them."""


@dataclass(frozen=True)
class Pretrained:
    """A model's numbers of ``steps``, of ``tokens`` in its vocabulary, and of ``parameters``.

    ``perplexity`` per token and ``bits_per_character`` are on the held-out end of the text.
    """

    steps: int
    tokens: int
    parameters: int
    perplexity: float
    bits_per_character: float


def pretrain(
    text: str | Path,
    out: str | Path,
    settings: Pretraining | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Reporter | None = None,
) -> Pretrained:
    """Train a model on a UTF-8 text and write the folder ``out``, which opens as a backbone.

    The weights that score the held-out end of the text best are kept.

    Raises UserError for an unusable text or setting, and for an ``out`` that holds something else;
    Interrupted after Ctrl-C, once the run is saved.
    """
    report = usual_reporter() if report is None else report
    settings = settings or Pretraining()
    settings.check()
    source, folder = Path(text), Path(out)
    place = find_device(device)
    _check_out(folder)
    whole = _text(source)
    cut = len(whole) - max(1, round(HELD_OUT * len(whole)))
    tokenizer = _tokenizer(settings, whole[:cut])
    start = [tokenizer.eos_token_id]
    ids = torch.tensor([*start, *encode(tokenizer, whole[:cut])])
    held = torch.tensor([*start, *encode(tokenizer, whole[cut:])])
    least = settings.batch_size + 1
    if len(ids) < least:
        raise UserError(
            f"{source}: has {len(ids) - 1} tokens to train on, fewer than "
            f"`batch_size={settings.batch_size}`; give a longer text or a smaller `batch_size`"
        )
    unknown = int((held == tokenizer.unk_token_id).sum())
    if unknown:
        report.line(f"{unknown} of {len(held) - 1} held-out tokens are unknown ones")
    run = Reading(settings, tokenizer, ids, held, place)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    path = checkpoint.path_for(folder)
    run.progress.run = hashlib.sha256(f"{json.dumps(plain(settings))}{digest}".encode()).hexdigest()
    if resume:
        report.line(run.restore(path))
    elif checkpoint.remove(path):
        report.line(f"{folder}: discarding an unfinished run; use `resume` to continue it")
    config = {"text": str(source), "characters": len(whole), **plain(settings)}
    try:
        report.start(config, run.steps, run.progress.step)
        run.go(report, path)
    finally:
        report.done()
    model = run.streams.model
    model.load_state_dict(run.best)
    _write(folder, model, tokenizer)
    checkpoint.remove(path)
    assert run.progress.best_score is not None
    nats = -run.progress.best_score
    return Pretrained(
        steps=run.progress.step,
        tokens=len(tokenizer),
        parameters=sum(p.numel() for p in model.parameters()),
        perplexity=math.exp(min(nats, 700.0)),
        bits_per_character=nats * (len(held) - 1) / (len(whole) - cut) / math.log(2),
    )


def _text(path: Path) -> str:
    """Read a text; raises UserError, which says what is wrong with it."""
    if path.is_dir():
        raise UserError(f"`text={path}`: is a folder; name one file of text")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"`text={path}`: no such file") from None
    except OSError as error:
        raise UserError(f"`text={path}`: cannot be read ({error.strerror})") from None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"`text={path}`: is not UTF-8 (byte {error.start} is {content[error.start]:#04x}); "
            "save it as UTF-8"
        ) from None
    if len(text) < 2:
        raise UserError(f"`text={path}`: is {'too short' if text else 'empty'}; give more text")
    return text


def _tokenizer(settings: Pretraining, text: str) -> PreTrainedTokenizerFast:
    if settings.tokens == "char":
        return characters(text, settings.vocabulary)
    return byte_pairs(text, settings.vocabulary or 4096)


def _check_out(folder: Path) -> None:
    """Raise UserError, before the training, where ``out`` could not be written after it."""
    try:
        _put_back(folder)  # where a run was killed while it wrote
        if folder.is_dir():
            config = folder / "config.json"
            ours = config.is_file() and RecurrentConfig.model_type in config.read_text(
                "utf-8", "replace"
            )
            known = FILES if ours else ()
            if other := min({each.name for each in folder.iterdir()} - {*known}, default=None):
                raise UserError(f"`out={folder}`: holds something else, {other}; name a new folder")
        elif folder.exists():
            raise UserError(f"`out={folder}`: is a file; name a folder")
        fresh = _beside(folder, "new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        fresh.rmdir()
    except OSError as error:
        raise UserError(
            f"`out={folder}`: cannot be written ({error.strerror}); choose another"
        ) from None


def _write(folder: Path, model: RecurrentForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the folder under another name, then rename it: no half-written one is ever seen.

    A folder that is replaced stays until the new one has its name.
    """
    fresh, old, target = (_beside(folder, word) for word in ("new", "old", ""))
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with without_bars():
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except Exception as error:  # some libraries have errors of their own for a full disk
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"`out={folder}`: cannot be written ({why}); mend that, then use `resume`"
        ) from None
    finally:
        with suppress(OSError):
            _put_back(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Give a folder its name again where it was to be replaced and none has come in its place."""
    old, target = _beside(folder, "old"), _beside(folder)
    if old.exists() and not target.exists():
        old.rename(target)


def _beside(folder: Path, word: str = "") -> Path:
    """Return a hidden folder beside another one, or what its link leads to; itself for no word."""
    target = Path(os.path.realpath(folder))
    return target.with_name(f".{target.name}.{word}") if word else target
