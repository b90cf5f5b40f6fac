"""Foreword tunes a few words in front of a frozen language model."""

import logging

from foreword.threads import limit_spinning

limit_spinning()  # before anything imports torch

# transformers imports these where they are installed; they remark on kernels for other machines.
for _name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.compose.ensemble import Ensemble
from foreword.compose.fit import fit
from foreword.compose.merge import average, concatenate
from foreword.compose.similar import similarity
from foreword.compression.compress import compress
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.methods.adapter import Adapter
from foreword.methods.attempt import Attempt
from foreword.methods.cartridge import Cartridge
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.lora import Lora
from foreword.methods.parts.from_file import FromFile
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft
from foreword.multitask_learning.multitask import multitask
from foreword.prompt.prompt import Prompt
from foreword.tasks.answer import Answer
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.summarize import Summarize
from foreword.tasks.tag import Tag
from foreword.tasks.translate import Translate
from foreword.training.find_rate import find_rate
from foreword.training.presets import preset
from foreword.training.settings import Training
from foreword.training.tune import tune

load = Backbone.load

__all__ = [
    "Adapter",
    "Answer",
    "Attempt",
    "Backbone",
    "Cartridge",
    "Chat",
    "Classify",
    "Context",
    "Decoding",
    "Deep",
    "Ensemble",
    "FromFile",
    "Generate",
    "Lora",
    "Multilabel",
    "PTuning",
    "Prefix",
    "Prompt",
    "Rank",
    "Relate",
    "Score",
    "Soft",
    "Summarize",
    "Tag",
    "Training",
    "Translate",
    "UserError",
    "average",
    "compress",
    "concatenate",
    "evaluate",
    "find_rate",
    "fit",
    "load",
    "multitask",
    "preset",
    "similarity",
    "tune",
]
