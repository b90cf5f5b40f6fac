"""The space of a search: the methods, and of each the settings that are chosen among."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from foreword.config.values import as_plain, plain
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.methods.auto import Auto
from foreword.methods.base import Method, settle
from foreword.methods.parts.several import Several, join_methods
from foreword.methods.registry import AUTO, CHOSEN, METHODS, name_of
from foreword.tasks.base import Bound, Task
from foreword.training.configure import WHERE, method_from, training_from
from foreword.training.settings import Training

if TYPE_CHECKING:
    from optuna.trial import Trial

USUAL = ("lora", "prefix", "prefix+head", "soft")
"""The methods of a search that names none, after the usual one of the task and that beside LoRA;
those that the model or the task cannot take are left out."""

RATE_WIDTH = 5.0
"""How far the learning rates that are tried lie from the method's own, as a factor."""

METHOD, EPOCHS, TEMPLATE, VERBALIZER = "method", "epochs", "template", "verbalizer"
"""Names of parameters of a study."""

OF_TASK = (TEMPLATE, VERBALIZER)
"""Settings of a task that may be searched."""

LENGTHS = (1, 2, 4)
"""Epochs of a search that names none: those of the presets."""

FROM_ROWS = ("auto", "demonstrations")
"""Starts whose length is that of the demonstrations."""


@dataclass(frozen=True)
class Choice:
    """A setting and what it is chosen among: ``values``, or a range by the logarithm.

    The first value is the usual one. ``starts`` are the values of ``start`` under which it is
    asked for; with None it always is.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    usual: float = 0.0
    starts: tuple[str, ...] | None = None

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return the value of a trial; ``name`` is the parameter's in the study."""
        if not self.values:
            return trial.suggest_float(name, self.low, self.high, log=True)
        if len(self.values) == 1:
            return self.values[0]
        return trial.suggest_categorical(name, self.values)

    @property
    def first(self) -> Any:
        """The usual value."""
        return self.values[0] if self.values else self.usual

    @property
    def open(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) != 1


@dataclass(frozen=True)
class Space:
    """What is searched: ``methods`` with the choices of each, and those that all ``share``.

    ``skipped`` says why methods are left out. Where the learning rate is searched (``rated``) it is
    that of a method's first part; the rates of the parts beside it keep their proportions to it.
    The first method is the usual one.
    """

    methods: Mapping[str, Sequence[Choice]]
    shared: Sequence[Choice]
    skipped: Mapping[str, str]
    rated: bool

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the settings of a trial, ``method`` among them."""
        names = list(self.methods)
        name = names[0] if len(names) == 1 else trial.suggest_categorical(METHOD, names)
        found = {METHOD: name}
        for each in self.methods[name]:
            if each.starts is None or found.get("start") in each.starts:
                found[each.name] = each.suggest(trial, f"{name}.{each.name}")
        for each in self.shared:
            found[each.name] = each.suggest(trial, each.name)
        return found

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that a trial may have, the fewest first."""
        return tuple(sorted(n for each in self.shared if each.name == EPOCHS for n in each.values))

    def usual(self, name: str | None = None) -> dict[str, Any]:
        """Return the parameters that stand for the usual settings of a method, else the first."""
        name = next(iter(self.methods)) if name is None else name
        found: dict[str, Any] = {METHOD: name} if len(self.methods) > 1 else {}
        start = next((each.first for each in self.methods[name] if each.name == "start"), None)
        for each in self.methods[name]:
            if each.open and (each.starts is None or start in each.starts):
                found[f"{name}.{each.name}"] = each.first
        return found | {each.name: each.first for each in self.shared if each.open}

    def first_looks(self) -> Iterator[dict[str, Any]]:
        """Yield parameters that are looked at before others.

        They are each method's usual settings, then those of the first with the other template that
        the untouched model answers best with.
        """
        for name in self.methods:
            yield self.usual(name)
        for each in self.shared:
            if each.name == TEMPLATE and each.open:
                yield {**self.usual(), TEMPLATE: each.values[1]}

    def configured(
        self, settings: Mapping[str, Any], task: Task, training: Training
    ) -> tuple[Task, Method, Training]:
        """Return the configurations that the settings of a trial stand for."""
        given = dict(settings)
        task = replace(task, **{n: given.pop(n) for n in OF_TASK if n in given})  # type: ignore[type-var]
        name = given.pop(METHOD)
        rate = given.pop("rate") if self.rated else None
        method = method_from(name, given, WHERE)
        how = training_from({**plain(training), **given}, WHERE)
        if rate is None:
            return task, method, how
        factor = rate / method.rate
        parts: list[Any] = [replace(each, rate=each.rate * factor) for each in _parts(method)]  # type: ignore[type-var]
        return task, join_methods(parts), how

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        every = [each for own in self.methods.values() for each in own]
        return len(self.methods) > 1 or any(each.open for each in (*every, *self.shared))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""

        def written(own: Sequence[Choice]) -> dict[str, Any]:
            return {each.name: list(each.values) or [each.low, each.high] for each in own}

        methods = {name: written(own) for name, own in self.methods.items()}
        return {"methods": methods, "shared": written(self.shared), "skipped": dict(self.skipped)}


def make_space(
    bound: Bound,
    rows: Sequence[Row],
    methods: Sequence[str] | None,
    given: Mapping[str, Sequence[Any]],
    seed: int,
) -> Space:
    """Return the space of a task's rows on a backbone, which has the task bound to it.

    ``methods`` are names; without them the usual ones are taken. ``given`` are the settings that
    are narrowed to some values, or fixed to one.

    They are checked before (:func:`check_choices`). Raises UserError where no method can be tuned.
    """
    chosen, _ = Auto().choose(bound, rows)
    usual = name_of(chosen)
    names = list(dict.fromkeys([usual, _with_lora(usual), *USUAL] if methods is None else methods))
    names = list(dict.fromkeys(usual if name == AUTO else name for name in names))
    if methods is not None and usual in names:  # what is tried first
        names = list(dict.fromkeys([usual, *names]))
    of_training = {field.name for field in dataclasses.fields(Training)} - {"seed"}
    found, skipped = {}, {}
    for name in names:
        own = {n: v for n, v in given.items() if n not in of_training}
        try:
            found[name] = _choices(name, bound, rows, own, seed, rated="rate" not in given)
        except UserError as error:
            skipped[name] = " ".join(str(error).split())
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UserError(f"none of the methods can be tuned on {bound.backbone.name}: {why}")
    shared = [Choice(n, tuple(v)) for n, v in given.items() if n in of_training]
    if TEMPLATE in given:
        shared.append(Choice(TEMPLATE, tuple(given[TEMPLATE])))
    if EPOCHS not in given:
        shared.append(Choice(EPOCHS, LENGTHS))
    if "batch_size" not in given:
        sizes = [size for size in (8, 16, 4) if size == 8 or 4 * size <= len(rows)]
        shared.append(Choice("batch_size", tuple(sizes)))
    return Space(found, shared, skipped, rated="rate" not in given)


def _with_lora(name: str) -> str:
    """Return the name of a method beside LoRA; a head stands last."""
    first, *rest = name.split("+")
    return name if "lora" in name.split("+") else "+".join([first, "lora", *rest])


def choices_of(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what each setting is chosen among: the values of a list, or the one that is given.

    For a setting that is a list itself one list is one value.
    """
    own = {s.name for name in METHODS for s in METHODS.settings(name) if s.flag == list[str]}

    def has_several(name: str, value: Any) -> bool:
        if name in own and isinstance(value, list | tuple):
            return any(isinstance(each, list | tuple) for each in value)
        return isinstance(value, list | tuple)

    return {n: as_plain(v) if has_several(n, v) else [as_plain(v)] for n, v in given.items()}


def check_choices(methods: Sequence[str] | None, given: Mapping[str, Sequence[Any]]) -> None:
    """Raise UserError for a space with nothing in it, and for unknown methods and settings."""
    if methods is not None and not methods:
        raise UserError("`methods` names none, and a search needs one to tune; leave it out")
    for name, values in given.items():
        if not values:
            raise UserError(f"`{name}` has no values to choose among; give one, or leave it out")
    of_training = {field.name for field in dataclasses.fields(Training)} - {"seed"}
    named = USUAL if methods is None else methods
    names = ["+".join(CHOSEN) if name == AUTO else name for name in named]
    own = set[str]().union(*map(settings_of, names))
    taken = own.union(of_training, OF_TASK)
    for name, values in given.items():
        if name not in taken:
            meant = get_close_matches(name, sorted(taken), n=1)
            raise UserError(
                f"`{name}` is no setting of the methods {', '.join(names)}; "
                f"{nearest(name, sorted(taken if meant else own))}"
            )
        for value in values if name in of_training else ():
            training_from({name: value}, WHERE).check()


def settings_of(name: str) -> set[str]:
    """Return the names of the settings of a method; raises UserError for an unknown one."""
    for part in name.split("+"):
        if part not in METHODS:
            raise UserError(f"`methods={name}`: unknown '{part}'; {nearest(part, METHODS)}")
    return {each.name for part in name.split("+") for each in METHODS.settings(part)}


def _choices(
    name: str,
    bound: Bound,
    rows: Sequence[Row],
    given: Mapping[str, Sequence[Any]],
    seed: int,
    *,
    rated: bool,
) -> list[Choice]:
    """Return the choices of a method; raises UserError where the backbone cannot take it.

    That is tried: its parameters are built once, a head at random, since its start reads all rows.
    """
    own = settings_of(name)
    fixed = {n: values[0] for n, values in given.items() if n in own}
    method = method_from(name, dict(fixed), WHERE, preset=True)
    quick = {"head_start": "random"} if "head_start" in own else {}
    built = method_from(name, {**fixed, **quick}, WHERE)
    settle(built, bound, rows).build(bound, rows, seed)
    usual = {k: v for part in _parts(method) for k, v in plain(part).items()}
    encoder = bound.backbone.is_encoder
    found: dict[str, Choice] = {}

    def add(name: str, values: Sequence[Any], starts: tuple[str, ...] | None = None) -> None:
        if name in own and name not in given:
            found[name] = Choice(name, tuple(dict.fromkeys(values)), starts=starts)

    for setting, values in given.items():
        if setting in own:
            found[setting] = Choice(setting, tuple(values))
    shown = () if encoder else ("demonstrations",)
    if "start" in own and "length" not in given and "shots" not in given:
        first = usual["start"]
        starts = [first, "vocabulary", *(() if first == "auto" else shown)]
        add("start", starts)
        values = found["start"].values
        add(
            "length",
            (4, 10, 20) if encoder else (20, 5, 10, 40),
            tuple(v for v in values if encoder or v not in FROM_ROWS),
        )
        if not encoder:
            few = [shots for shots in (8, 16) if shots < len(rows)]
            add("shots", (None, *few), tuple(v for v in values if v in FROM_ROWS))
    if "head_start" not in own and (words := given.get(VERBALIZER)):
        found[VERBALIZER] = Choice(VERBALIZER, tuple(words))
    add("upper", (None, 0.5))
    add("rank", (8, 4, 16))
    if rated:
        low, high = method.rate / RATE_WIDTH, method.rate * RATE_WIDTH
        found["rate"] = Choice("rate", low=low, high=high, usual=method.rate)
    return _in_order(list(found.values()))


def _in_order(found: list[Choice]) -> list[Choice]:
    """Return choices with that of the start in front, as others depend on it."""
    return sorted(found, key=lambda each: each.name != "start")


def _parts(method: Method) -> Sequence[Method]:
    """Return the methods that are joined in one, or the method alone."""
    return method.methods if isinstance(method, Several) else (method,)
