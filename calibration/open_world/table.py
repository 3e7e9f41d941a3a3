"""The rows, and the half that each belongs to."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

ROWS = Path(__file__).parent / "rows"
Half = Literal["seen", "unseen"]
HALVES: tuple[Half, Half] = ("seen", "unseen")
LABELS = ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined")
SHIFTS = ("stored", "zero", "absent", "no parameters", "no norm")
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")
_FLOAT = "float32"


@dataclass(frozen=True)
class Tensor:
    """One stored tensor of a row.

    Attributes:
        shape: in the order of the file.
        start: ``random``, or the number that all its elements have before training.
        trained: False for a buffer, which training leaves as it is.
        dtype: as numpy spells it.
    """

    shape: tuple[int, ...]
    start: float | Literal["random"] = "random"
    trained: bool = True
    dtype: str = _FLOAT


@dataclass(frozen=True)
class Row:
    """One network of one code base.

    Attributes:
        name: of the row; its hash says which half it is in.
        source: repository, on GitHub unless said otherwise.
        commit: that was read; "" for a thread.
        path: of the file that defines the network.
        network: transformer, state space, cnn, …
        container: ``torch``, ``safetensors``, ``npz``, ``flax``, ``gguf``, ``h5``, ``optimiser``.
        wrapper: keys around the state dict, outermost first, or what parts the names in a flat container.
        beside: what else the file says of the network, by key; nested keys are nested tables.
        norms: how many norms of each kind run, those of queries and keys and of other towers included.
        truth: label of the main residual stream; ``undetermined`` for what has none, as a U-Net whose stream is
            GroupNorm's and whose attention has LayerNorm: there only an abstention is right.
        shifts: what is stored of the shifts of the stream's norms.
        tensors: by name; parts of a nested container are joined by ``sep``.
        sep: what joins the parts of a name.
    """

    name: str
    source: str
    commit: str
    path: str
    network: str
    container: str
    truth: str
    shifts: str
    norms: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    group: str
    wrapper: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    sep: str = "."

    @property
    def half(self) -> Half:
        """Which half it is in: by the hash of its code base, so that what shares code shares its half."""
        return HALVES[hashlib.sha256(self.source.lower().encode()).digest()[0] % 2]


def load(half: Half | None = None) -> list[Row]:
    """Return the rows of one half, or of both.

    Args:
        half: ``seen`` for whoever writes rules or counts odds.

    Raises:
        ValueError: a row contradicts itself, or a name stands twice.
    """
    rows: dict[str, Row] = {}
    for path in sorted(ROWS.glob("*.toml")):
        for row in read(path):
            if row.name in rows:
                raise ValueError(f"{path.name}: {row.name} stands twice")
            rows[row.name] = row
    return [row for row in rows.values() if half is None or row.half == half]


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of one file.

    Raises:
        ValueError: a row uses a word that is none of this table's.
    """
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["row"]:
        facts = {key: value for key, value in entry.items() if key != "tensors"}
        facts.setdefault("commit", "")
        facts["wrapper"] = tuple(facts.get("wrapper", ()))
        row = Row(**facts, group=path.stem, tensors=dict(_expanded(entry["tensors"])))
        if row.truth not in LABELS or row.shifts not in SHIFTS:
            raise ValueError(f"{row.name}: {row.truth!r} or {row.shifts!r} is no word of this table")
        yield row


def _expanded(patterns: Mapping[str, list[Any]]) -> Iterator[tuple[str, Tensor]]:
    """Fill in the numbers of the patterns, block by block, as a file has them."""
    for head, group in groupby(patterns.items(), key=lambda item: _head(item[0])):
        parts = list(group)
        if head is None:
            yield from ((name, tensor(words)) for name, words in parts)
            continue
        before, low, high = head
        for number in range(low, high + 1):
            filled = {f"{before}{number}{_RANGE.sub('', name, 1)[len(before) :]}": words for name, words in parts}
            yield from _expanded(filled)


def _head(pattern: str) -> tuple[str, int, int] | None:
    found = _RANGE.search(pattern)
    return (pattern[: found.start()], int(found[1]), int(found[2])) if found else None


def tensor(words: list[Any]) -> Tensor:
    """Read what a row says of a tensor: its lengths, then words.

    >>> tensor([64, 3, "ones", "buffer"])
    Tensor(shape=(64, 3), start=1.0, trained=False, dtype='float32')
    """
    shape = tuple(word for word in words if isinstance(word, int))
    said = [word for word in words if not isinstance(word, int)]
    start: float | Literal["random"] = "random"
    for word in said:
        if word in ("ones", "zeros"):
            start = float(word == "ones")
        elif isinstance(word, float):
            start = word
    dtype = next((w for w in said if isinstance(w, str) and re.fullmatch(r"u?int\d+|bool|float\d+", w)), _FLOAT)
    return Tensor(shape, start, "buffer" not in said, dtype)
