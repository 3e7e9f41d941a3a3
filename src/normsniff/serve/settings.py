"""What whoever starts the service decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HUB = ("huggingface.co", "*.hf.co")
"""Hosts that URLs may lead to unless others are named: the Hub, and where its files lie."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the service may do, and what a request may cost.

    Attributes:
        root: directory below which requests may name files, or None.
        hosts: that URLs may lead to; ``*.`` before a name stands for all below it, a port for that port.
        networks: private networks, as CIDR, in which these hosts may be all the same.
        names: by which the service may be called, beside ``localhost`` and addresses.
        jobs: processes that answer; None takes one for every CPU.
        queue: requests that may wait for one of them; the next gets 429.
        timeout: seconds that the work for one answer may take.
        memory: bytes that one process may allocate, or None; only Linux knows such a limit.
        upload: bytes of the largest body; all bodies together may have twice as many.
    """

    root: Path | None = None
    hosts: tuple[str, ...] = HUB
    networks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    jobs: int | None = None
    queue: int = 32
    timeout: float = 60.0
    memory: int | None = 2_000_000_000
    upload: int = 2_000_000_000
