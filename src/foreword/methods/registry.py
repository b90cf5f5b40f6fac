"""All methods by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreword.config import from_plain
from foreword.errors import UserError, nearest
from foreword.methods.adapter import Adapter
from foreword.methods.attempt import Attempt
from foreword.methods.base import Method
from foreword.methods.cartridge import Cartridge
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.full import Full
from foreword.methods.head import Head
from foreword.methods.ia3 import IA3
from foreword.methods.lora import Lora
from foreword.methods.parts.from_file import FromFile
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.ptuning import PTuning
from foreword.methods.soft import Soft

METHODS: dict[str, type[Method]] = {
    "soft": Soft,
    "ptuning": PTuning,
    "attempt": Attempt,
    "prefix": Prefix,
    "deep": Deep,
    "context": Context,
    "cartridge": Cartridge,
    "adapter": Adapter,
    "lora": Lora,
    "ia3": IA3,
    "head": Head,
    "full": Full,
}


def kinds(name: str) -> list[type[Method]]:
    """Return the classes of a method's name, several for names joined by +.

    Raises UserError for unknown names, and for one that is given twice.
    """
    parts = name.split("+")
    for part in parts:
        if part not in METHODS:
            raise UserError(f"--method {name}: unknown '{part}'; {nearest(part, METHODS)}")
        if parts.count(part) > 1:
            raise UserError(f"--method {name}: '{part}' stands twice; give it once")
    return [METHODS[part] for part in parts]


def remade(about: Mapping[str, Any], where: str) -> Method:
    """Make a method again of what a prompt file says of it; raises UserError where it cannot be."""
    own = {name: value for name, value in about.items() if name not in ("trained", "training")}
    found = kinds(str(own.pop("name", None)))
    parts = own["methods"] if len(found) > 1 else [own]
    return together([from_plain(k, part, where) for k, part in zip(found, parts, strict=True)])


def together(methods: list[Method]) -> Method:
    """Return the one method there is, or all of them joint."""
    return methods[0] if len(methods) == 1 else Several(tuple(methods))


def name_of(method: Method) -> str:
    """Return the name under which a method's class is registered."""
    if isinstance(method, Several):
        return "+".join(map(name_of, method.methods))
    if isinstance(method, FromFile):
        return method.method
    return next(name for name, kind in METHODS.items() if isinstance(method, kind))
