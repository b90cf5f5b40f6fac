"""All methods by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from foreword.methods.method import Method
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft

METHODS: dict[str, type[Method]] = {"soft": Soft, "prefix": Prefix}


def name_of(method: Method) -> str:
    """Return the name under which a method's class is registered."""
    return next(name for name, kind in METHODS.items() if isinstance(method, kind))
