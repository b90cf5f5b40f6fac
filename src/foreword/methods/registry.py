"""All methods by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.config.registry import Registry
from foreword.errors import UserError, nearest

if TYPE_CHECKING:
    from foreword.methods.base import Method

METHODS: Registry[Method] = Registry(
    "method",
    {
        "soft": "foreword.methods.soft:Soft",
        "ptuning": "foreword.methods.ptuning:PTuning",
        "attempt": "foreword.methods.attempt:Attempt",
        "prefix": "foreword.methods.prefix:Prefix",
        "deep": "foreword.methods.deep:Deep",
        "context": "foreword.methods.context:Context",
        "cartridge": "foreword.methods.cartridge:Cartridge",
        "adapter": "foreword.methods.adapter:Adapter",
        "lora": "foreword.methods.lora:Lora",
        "ia3": "foreword.methods.ia3:IA3",
        "head": "foreword.methods.head:Head",
        "full": "foreword.methods.full:Full",
    },
)


AUTO = "auto"
"""The name of what is chosen when the rows are known (methods/auto.py)."""

CHOSEN = ("prefix", "head")
"""What it is chosen of, and whose settings it takes."""


def kinds(name: str) -> list[type[Method]]:
    """Return the classes of a method's name, several for names joined by +.

    Raises UserError for unknown names, and for one that is given twice.
    """
    parts = name.split("+")
    for part in parts:
        if part not in METHODS:
            raise UserError(f"`method={name}`: unknown '{part}'; {nearest(part, METHODS)}")
        if parts.count(part) > 1:
            raise UserError(f"`method={name}`: '{part}' stands twice; give it once")
    return [METHODS[part] for part in parts]


def name_of(method: Method) -> str:
    """Return the name under which a method's class is registered; ``a+b`` of several.

    Raises UserError where it is not.
    """
    name = getattr(method, "registered_name", None)  # of Several and FromFile, which are not in it
    return METHODS.name_of(method) if name is None else str(name)
