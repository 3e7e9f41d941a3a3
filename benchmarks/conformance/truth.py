"""What a made file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Truth:
    """What is in a file.

    Attributes:
        label: of the main stream.
        sites: how many norms run, LayerNorm and RMSNorm together, those of queries and keys included; None where the
            file does not tell.
        scales: how many of them have a trained scale.
        shifts: how many of them have a trained shift.
        open: whether the file leaves it open what its norms compute, and whether their one variable is a scale or a
            shift, so that an abstention is right.
    """

    label: str
    sites: int | None
    scales: int
    shifts: int
    open: bool = False


@dataclass(frozen=True)
class Made:
    """A file made by a real exporter, or by hand, whose norms are known.

    Attributes:
        name: the network.
        group: the exporter or container that it is tabled under.
        truth: what is in the file.
        write: writes it into an empty directory and returns what to sniff.
        variant: what of it is compared.
    """

    name: str
    group: str
    truth: Truth
    write: Callable[[Path], Path]
    variant: str = ""
