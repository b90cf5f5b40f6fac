"""What several commands share: flags of a model, and a prompt on the model that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from foreword.cli.completion import File, completed
from foreword.cli.panels import FURTHER, MODEL, OUTPUT, TRAINING
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.config.settings import declared
from foreword.errors import UserError
from foreword.threads import use_threads

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.prompt.answerer import Answerer

T = TypeVar("T", bound="Answerer")

VALUES = {each.name: each.values for each in declared("foreword.training.run_settings:RunSettings")}
"""What the settings of a run may be, by name; None where that is open."""

if TYPE_CHECKING:
    Dtype = str
    Device = str
    Quantize = str
    Architecture = str
    Pooling = str
else:
    Dtype, Device, Quantize, Architecture, Pooling = (
        completed(VALUES[n]) for n in ("dtype", "device", "quantize", "architecture", "pooling")
    )

Json = Annotated[bool, Parameter(name="--json", help="one JSON object on stdout", group=OUTPUT)]
Resume = Annotated[bool, Parameter(help="go on where the run stopped", group=TRAINING)]
Verbose = Annotated[bool, Parameter(help="show all settings of the run", group=OUTPUT)]
PromptFile = Annotated[Path, Parameter(help="a prompt file")]
Model = Annotated[
    File | None, Parameter(help="instead of the model that the prompt names", group=MODEL)
]
MinProbability = Annotated[
    str | None,
    Parameter(help="leave answers blank that are less sure; auto: as fitted by eval --out"),
]
Force = Annotated[bool, Parameter(help="run on another model than the prompt's own", group=MODEL)]


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    dtype: Annotated[Dtype, Parameter(help="auto, float32, bfloat16 or float16")] = "auto"
    device: Annotated[Device, Parameter(help="auto, cpu, cuda or mps")] = "auto"
    quantize: Annotated[
        Quantize | None, Parameter(help="bfloat16, int8 or int4: smaller weights in the model")
    ] = None
    threads: Annotated[Whole | None, Parameter(help="threads of the CPU; else one a core")] = None
    architecture: Annotated[
        Architecture,
        Parameter(
            help="what the model is run as: auto (as the prompt or the folder says), causal, "
            "masked, encoder-decoder or encoder"
        ),
    ] = "auto"
    pooling: Annotated[
        Pooling,
        Parameter(
            help="how an encoder's states become one: auto (as the prompt or the folder says), "
            "mean, weightedmean, cls or last"
        ),
    ] = "auto"

    def load(self, name: str, architecture: str = "auto", pooling: str = "auto") -> Backbone:
        """Load the model of this name, as the flags say and else as is usual for it."""
        if self.threads is not None:
            use_threads(self.threads)
        from foreword.backbone.backbone import Backbone

        return Backbone.load(
            name,
            architecture=architecture if self.architecture == "auto" else self.architecture,
            pooling=pooling if self.pooling == "auto" else self.pooling,
            dtype=self.dtype,
            device=self.device,
            quantize=self.quantize,
            report=CommandTerminal(),
        )


Loaded = Annotated[Loading, Parameter(name="*", group=(MODEL, FURTHER))]
USUALLY = Loading()


def backbone_of(tuned: Answerer, model: str | None, loading: Loading) -> Backbone:
    """Load the model that a prompt names, or another one that is given."""
    name = tuned.backbone["name"] if model is None else model
    kind, pooling = tuned.backbone["architecture"], tuned.backbone.get("pooling", "auto")
    return loading.load(name, kind, pooling)


def on_backbone(
    tuned: T, path: Path, model: str | None, loading: Loading, *, force: bool = False
) -> T:
    """Return the prompt of a file on the model that it names, or on another one that is given."""
    return tuned.on_backbone(backbone_of(tuned, model, loading), force=force, where=str(path))


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return what prompts are called: their files' names, with a number where one is taken."""
    if len({*paths}) < len(paths):
        raise UserError("a prompt is given twice; name each file once")
    names: list[str] = []
    for path in paths:
        name = path.name.removesuffix(".safetensors")
        free = chain([name], (f"{name}-{number}" for number in count(2)))
        names.append(next(each for each in free if each not in names))
    return names
