"""Foreword tunes a few words in front of a frozen language model."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from foreword.threads import limit_spinning

limit_spinning()  # before anything imports torch

if TYPE_CHECKING:
    from foreword import sklearn as sklearn
    from foreword.augmentation.augment import Augmented as Augmented
    from foreword.augmentation.augment import augment as augment
    from foreword.augmentation.rounds import Augment as Augment
    from foreword.backbone.backbone import Backbone as Backbone
    from foreword.backbone.decode import Decoding as Decoding
    from foreword.backbone.example import Example as Example
    from foreword.compose.ensemble import Ensemble as Ensemble
    from foreword.compose.ensemble import load_prompt as load_prompt
    from foreword.compose.fit import fit as fit
    from foreword.compose.merge import average as average
    from foreword.compose.merge import concatenate as concatenate
    from foreword.compose.similar import similarity as similarity
    from foreword.compression.compress import compress as compress
    from foreword.compression.self_study import SelfStudy as SelfStudy
    from foreword.data.bad_rows import BadRows as BadRows
    from foreword.data.problems import Checked as Checked
    from foreword.data.problems import Problem as Problem
    from foreword.data.read import read_rows as read_rows
    from foreword.data.row import Row as Row
    from foreword.data.rows import as_rows as as_rows
    from foreword.errors import UserError as UserError
    from foreword.evaluation.compare import compare_runs as compare_runs
    from foreword.evaluation.comparison import Comparison as Comparison
    from foreword.evaluation.comparison import Entry as Entry
    from foreword.evaluation.comparison import compare as compare
    from foreword.evaluation.evaluate import evaluate as evaluate
    from foreword.evaluation.evaluation import Answered as Answered
    from foreword.evaluation.evaluation import Evaluation as Evaluation
    from foreword.evaluation.runs import Data as Data
    from foreword.evaluation.runs import Demonstrations as Demonstrations
    from foreword.evaluation.runs import Model as Model
    from foreword.evaluation.runs import Probe as Probe
    from foreword.evaluation.runs import Run as Run
    from foreword.evaluation.runs import ZeroShot as ZeroShot
    from foreword.explanation.explain import explain as explain
    from foreword.explanation.explanation import Explanation as Explanation
    from foreword.explanation.prune import Pruned as Pruned
    from foreword.explanation.prune import prune as prune
    from foreword.export.peft import from_peft as from_peft
    from foreword.export.peft import to_peft as to_peft
    from foreword.injection import Injection as Injection
    from foreword.methods.adapter import Adapter as Adapter
    from foreword.methods.attempt import Attempt as Attempt
    from foreword.methods.auto import Auto as Auto
    from foreword.methods.cartridge import Cartridge as Cartridge
    from foreword.methods.context import Context as Context
    from foreword.methods.deep import Deep as Deep
    from foreword.methods.full import Full as Full
    from foreword.methods.head import Head as Head
    from foreword.methods.ia3 import IA3 as IA3
    from foreword.methods.lora import Lora as Lora
    from foreword.methods.parts.from_file import FromFile as FromFile
    from foreword.methods.parts.several import Several as Several
    from foreword.methods.prefix import Prefix as Prefix
    from foreword.methods.ptuning import PTuning as PTuning
    from foreword.methods.soft import Soft as Soft
    from foreword.multitask_learning.multitask import Member as Member
    from foreword.multitask_learning.multitask import Sharing as Sharing
    from foreword.multitask_learning.multitask import multitask as multitask
    from foreword.prompt.prompt import Prompt as Prompt
    from foreword.prompt_search.search import search as search
    from foreword.prompt_search.searched import Searched as Searched
    from foreword.recurrent.pretrain import Pretrained as Pretrained
    from foreword.recurrent.pretrain import pretrain as pretrain
    from foreword.recurrent.streams import Pretraining as Pretraining
    from foreword.report.report import Report as Report
    from foreword.report.report import report_on as report_on
    from foreword.reporter import SILENT as SILENT
    from foreword.reporter import Reporter as Reporter
    from foreword.retuning.remade import Remade as Remade
    from foreword.retuning.remade import Retuned as Retuned
    from foreword.retuning.retune import retune as retune
    from foreword.serve.engine import Engine as Engine
    from foreword.serve.request import Piece as Piece
    from foreword.serve.request import Sampling as Sampling
    from foreword.tasks.answer import Answer as Answer
    from foreword.tasks.chat import Chat as Chat
    from foreword.tasks.classify import Classify as Classify
    from foreword.tasks.generate import Generate as Generate
    from foreword.tasks.multilabel import Multilabel as Multilabel
    from foreword.tasks.rank import Rank as Rank
    from foreword.tasks.relate import Relate as Relate
    from foreword.tasks.score import Score as Score
    from foreword.tasks.summarize import Summarize as Summarize
    from foreword.tasks.tag import Tag as Tag
    from foreword.tasks.translate import Translate as Translate
    from foreword.terminal import Terminal as Terminal
    from foreword.training.check import check as check
    from foreword.training.find_rate import find_rate as find_rate
    from foreword.training.presets import preset as preset
    from foreword.training.register import register as register
    from foreword.training.settings import Training as Training
    from foreword.training.tune import tune as tune

    load = Backbone.load

_HOMES = {
    "Adapter": "methods.adapter",
    "Answer": "tasks.answer",
    "Answered": "evaluation.evaluation",
    "Attempt": "methods.attempt",
    "Augment": "augmentation.rounds",
    "Augmented": "augmentation.augment",
    "Auto": "methods.auto",
    "Backbone": "backbone.backbone",
    "BadRows": "data.bad_rows",
    "Cartridge": "methods.cartridge",
    "Chat": "tasks.chat",
    "Checked": "data.problems",
    "Classify": "tasks.classify",
    "Comparison": "evaluation.comparison",
    "Context": "methods.context",
    "Data": "evaluation.runs",
    "Decoding": "backbone.decode",
    "Deep": "methods.deep",
    "Demonstrations": "evaluation.runs",
    "Engine": "serve.engine",
    "Ensemble": "compose.ensemble",
    "Entry": "evaluation.comparison",
    "Evaluation": "evaluation.evaluation",
    "Example": "backbone.example",
    "Explanation": "explanation.explanation",
    "FromFile": "methods.parts.from_file",
    "Full": "methods.full",
    "Generate": "tasks.generate",
    "Head": "methods.head",
    "IA3": "methods.ia3",
    "Injection": "injection",
    "Lora": "methods.lora",
    "Member": "multitask_learning.multitask",
    "Model": "evaluation.runs",
    "Multilabel": "tasks.multilabel",
    "PTuning": "methods.ptuning",
    "Piece": "serve.request",
    "Prefix": "methods.prefix",
    "Pretrained": "recurrent.pretrain",
    "Pretraining": "recurrent.streams",
    "Probe": "evaluation.runs",
    "Problem": "data.problems",
    "Prompt": "prompt.prompt",
    "Pruned": "explanation.prune",
    "Rank": "tasks.rank",
    "Relate": "tasks.relate",
    "Remade": "retuning.remade",
    "Report": "report.report",
    "Reporter": "reporter",
    "Retuned": "retuning.remade",
    "Row": "data.row",
    "Run": "evaluation.runs",
    "SILENT": "reporter",
    "Sampling": "serve.request",
    "Score": "tasks.score",
    "Searched": "prompt_search.searched",
    "SelfStudy": "compression.self_study",
    "Several": "methods.parts.several",
    "Sharing": "multitask_learning.multitask",
    "Soft": "methods.soft",
    "Summarize": "tasks.summarize",
    "Tag": "tasks.tag",
    "Terminal": "terminal",
    "Training": "training.settings",
    "Translate": "tasks.translate",
    "UserError": "errors",
    "ZeroShot": "evaluation.runs",
    "as_rows": "data.rows",
    "augment": "augmentation.augment",
    "average": "compose.merge",
    "check": "training.check",
    "compare": "evaluation.comparison",
    "compare_runs": "evaluation.compare",
    "compress": "compression.compress",
    "concatenate": "compose.merge",
    "evaluate": "evaluation.evaluate",
    "explain": "explanation.explain",
    "find_rate": "training.find_rate",
    "fit": "compose.fit",
    "from_peft": "export.peft",
    "load": "backbone.backbone",
    "load_prompt": "compose.ensemble",
    "multitask": "multitask_learning.multitask",
    "preset": "training.presets",
    "pretrain": "recurrent.pretrain",
    "prune": "explanation.prune",
    "read_rows": "data.read",
    "register": "training.register",
    "report_on": "report.report",
    "retune": "retuning.retune",
    "search": "prompt_search.search",
    "similarity": "compose.similar",
    "to_peft": "export.peft",
    "tune": "training.tune",
}
"""Where each public name is defined; it is imported when it is first asked for."""

_COMMANDS = {
    "train": "foreword train is foreword.tune(...)",
    "eval": "foreword eval is foreword.evaluate(...)",
    "predict": "foreword predict is foreword.Prompt.load(F).predict(...)",
}
"""What the commands are that have another name in Python."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name == "sklearn":
        return import_module("foreword.sklearn")
    if name not in _HOMES:
        hint = f"; {_COMMANDS[name]}" if name in _COMMANDS else ""
        message = f"module 'foreword' has no attribute '{name}'{hint}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    home = import_module(f"foreword.{_HOMES[name]}")
    value = home.Backbone.load if name == "load" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "sklearn"})
