"""What a server allows a request, and who may ask it."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from foreword.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds on one request, and on how many there are at a time."""

    queue: int = 256  # requests in all, those being answered and those that wait
    tokens: int = 1024  # written for one request
    seconds: float = 300.0  # from a request's arrival to the end of its answer
    body: int = 2**20  # bytes
    upload: int = 2**28  # bytes of a prompt file
    choices: int = 16  # answers to one text, `n`
    inputs: int = 1024  # texts or rows in one request
    patience: float = 30.0  # seconds for which a client may say nothing, and read nothing

    def check(self) -> None:
        """Raise UserError for limits that no request could keep."""
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise UserError(f"`{name}={value}`: give a number above 0 that is not infinite")


class Keys:
    """Secrets, any of which opens a door; comparing takes the same time whichever is wrong.

    Raises UserError for one that is not of ASCII, which clients send in ways of their own.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        own = list(keys)
        if not all(key.isascii() for key in own):
            raise UserError(
                "a key has a letter that no header of HTTP holds; take a to z and digits"
            )
        self.digests = [_digest(key) for key in own]

    def __bool__(self) -> bool:
        return bool(self.digests)

    def fit(self, given: str) -> bool:
        """Whether a key is one of them."""
        found = False
        for digest in self.digests:
            found |= hmac.compare_digest(digest, _digest(given))
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Access:
    """Who may ask: without ``api_keys`` everyone; without ``admin_keys`` no one changes prompts."""

    api_keys: Keys = field(default_factory=Keys)
    admin_keys: Keys = field(default_factory=Keys)
