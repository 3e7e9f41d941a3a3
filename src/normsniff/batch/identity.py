"""Which input is which: by its bytes, as two inputs may be spelled alike in a record.

A record spells what is no UTF-8 as escapes and leaves the values of a URL's query out, so the byte 0xff and the four
characters of its escape, or two signatures of one URL, look the same there. They are two inputs, and get two rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from ..record import spelled, stored_bytes


class Identity(NamedTuple):
    """An input of a scan.

    Attributes:
        key: 16 bytes that stand for the bytes of its path or URL, which may hold credentials, and millions of which
            are kept.
        spelling: what records call it.
    """

    key: bytes
    spelling: str


def identity_of(one: str | Path) -> Identity:
    """Return the identity of an input."""
    return Identity(hashlib.blake2b(stored_bytes(one), digest_size=16).digest(), spelled(one))
