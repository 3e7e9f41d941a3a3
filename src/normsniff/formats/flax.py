"""Flax: a tree of arrays in MessagePack, as ``flax.serialization`` writes it.

Only the structure is read: what an array holds is stepped over. Extension 1 is an array, itself MessagePack
of (shape, name of the dtype, bytes); 3 is one number in the same dress, 2 a complex number; arrays of more than 1 GiB
are maps of chunks. A stream of pairs, the keys on the way to an array and the bytes of its tree, is read likewise.

Layouts: flax/serialization.py; EasyLM checkpoint.py (the stream); t5x, whose optimiser holds the
weights as ``target``.
"""

from __future__ import annotations

import math
import re

from .. import meter
from ..checkpoint import MOST_AXES, Checkpoint, TensorInfo
from ..dtypes import BY_NAME, UNITS
from ..errors import FormatError, LimitExceeded, NormsniffError, parsing
from ..limits import Limits
from ..source.local import ByteSource, BytesSource
from ..source.views import Extent, JoinedSource
from ..words import amount, first
from .messagepack import PackCursor

_ARRAY = 1  # extension type
_CHUNKED = "__msgpack_chunked_array__"
_CHUNKED_KEYS = 3  # that one, "shape" and "chunks"
_PAIR = 0x92  # the first byte of a list of two
_NAME_CHARACTERS = 1000
_OUTER = 2  # levels on which a training run keeps its state beside the weights
_PLAIN_NAME = re.compile(r"[\w./:+@-]{1,200}")
_TRAINING = re.compile(r"opt(imi[sz]er)?(_states?)?|rng\w*|dropout_rng|step|loss_scale|grad\w*|metrics", re.IGNORECASE)
_OPTIMISER = re.compile(r"optimi[sz]er", re.IGNORECASE)
_TARGET = "target"  # what an optimiser of flax before 0.6 was to optimise: the weights
_AVERAGED = re.compile(r"(params_?)?ema(_?params)?|ema_state|averaged_params", re.IGNORECASE)


def looks_like_model(prefix: bytes, size: int) -> bool:
    """Whether a file starts as a tree of arrays does: maps whose keys are names, then the first array."""
    walk = _TreeWalk(BytesSource(prefix), Limits())
    try:
        if prefix[0] == _PAIR:
            return _starts_stream(walk, size)
        kind, n = walk.head()
        open_ones = [(kind, n)] if kind == "map" else []
        while open_ones:
            outer, n = open_ones.pop()
            if not n:
                continue
            open_ones.append((outer, n - 1))
            if outer == "map" and not _PLAIN_NAME.fullmatch(walk.text()):
                return False
            kind, n = walk.head()
            if kind == "array":
                return n < size
            if kind in ("map", "list"):
                open_ones.append((kind, n))
            elif kind in ("text", "bytes", "ext"):
                walk.step(n)
    except NormsniffError:
        pass  # the prefix ends before an array
    return False


def _starts_stream(walk: _TreeWalk, size: int) -> bool:
    """Whether pairs of keys that are names, and bytes, lead to an array or to one in chunks."""
    while True:
        name, n = walk.pair()
        end = walk.position + n
        if not 0 < n < size or not _PLAIN_NAME.fullmatch(name):
            return False
        kind, n = walk.head()
        if kind == "array" or (kind == "map" and n == _CHUNKED_KEYS):
            return n < size
        if kind in ("map", "list"):
            return False
        walk.position = end  # a step, a seed


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Walk the tree and locate its arrays; names are the keys on the way, joined by ``/``.

    Args:
        source: the file.
        limits: caps on arrays and depth.

    Returns:
        A checkpoint of format ``"Flax"``. The state of an optimiser and averaged copies of the weights are left out,
        with a warning.

    Raises:
        FormatError: not MessagePack, an array that does not fit, or no array at all.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    with parsing(source.name):
        walk = _TreeWalk(source, limits)
        if source.size and source.read_at(0, 1)[0] == _PAIR:
            walk.stream()
        else:
            walk.tree("", 0)
        if walk.position != source.size:
            walk.fail("trailing-bytes", f"{source.size - walk.position:,} bytes follow the tree")
        if not walk.tensors:
            for name, at in walk.averaged:
                walk.position = at
                walk.tree(name, 1)
            walk.averaged.clear()
        if not walk.tensors:
            raise FormatError("no-tensors", source.name, "MessagePack without an array of Flax")
        return Checkpoint("Flax", None, walk.tensors, (source,), walk.digest(), warnings=walk.notes())


class _TreeWalk(PackCursor):
    """A position in a tree of arrays, and what was found before it."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        super().__init__(source, limits, {_ARRAY: "array"})
        self.tensors: dict[str, TensorInfo] = {}
        self.averaged: list[tuple[str, int]] = []
        self._training: list[str] = []
        self._unread: list[str] = []

    def notes(self) -> tuple[str, ...]:
        """Return warnings."""
        listed = {
            ("entry", "entries", "state of a training run"): self._training,
            ("entry", "entries", "averaged copies of the weights"): [name for name, _ in self.averaged],
            ("array", "arrays", "of an unknown type or name"): self._unread,
        }
        return tuple(
            f"{amount(len(names), one, many)} left out, {why}: {first(names)}"
            for (one, many, why), names in listed.items()
            if names
        )

    def pair(self) -> tuple[str, int]:
        """Return the joined keys at the head of a pair, and the number of bytes that follow."""
        at = self.position
        (kind, n), (kind_of_keys, n_keys) = self.head(), self.head()
        if kind != "list" or n != 2 or kind_of_keys != "list" or n_keys > self.limits.nesting:
            self.fail("bad-pair", "keys and bytes were expected", at)
        name = ""
        for _ in range(n_keys):
            name = _join(name, self.text())
        kind, size = self.head()
        if kind != "bytes":
            self.fail("bad-pair", f"{name[:200]}: its bytes were expected", at)
        return name, size

    def stream(self) -> None:
        """Note every array of a stream of (keys, bytes of a tree)."""
        left_out: dict[str, list[str]] = {}
        while self.position < self.source.size:
            name, n = self.pair()
            end = self.position + n
            keys = name.split("/")[:_OUTER]
            training = next((i for i, key in enumerate(keys) if _TRAINING.fullmatch(key)), None)
            if training is not None:
                left_out.setdefault("/".join(keys[: training + 1]), [])
                self.step(n)
                continue
            self.tree(name, 1)
            if self.position != end:
                self.fail("bad-pair", f"{name[:200]}: its tree does not fill its {n:,} bytes")
        self._training += left_out

    def tree(self, name: str, depth: int) -> None:
        """Note every array at or below the next value."""
        if depth > self.limits.nesting:
            self.fail("too-deep", f"nested deeper than {self.limits.nesting} levels")
        at = self.position
        kind, n = self.head()
        if kind == "array":
            self._add(name, *self._array(n, name))
        elif kind == "list":
            for i in range(n):
                self.tree(_join(name, str(i)), depth + 1)
        elif kind == "map":
            self._map(name, n, depth)
        else:
            self.position = at
            self.skip()

    def _map(self, name: str, n: int, depth: int) -> None:
        for i in range(n):
            key = self.text()
            if not i and key == _CHUNKED:
                self._chunks(name, n)
                return
            below = _join(name, key)
            if depth < _OUTER and _TRAINING.fullmatch(key):
                self._state(below, depth, optimiser=_OPTIMISER.fullmatch(key) is not None)
            elif not depth and n > 1 and _AVERAGED.fullmatch(key):
                self.averaged.append((below, self.position))
                self.skip()
            else:
                self.tree(below, depth + 1)

    def _state(self, name: str, depth: int, *, optimiser: bool) -> None:
        """Step over the state of a training run, but not over the weights that an optimiser holds."""
        kind = self.peek()
        if kind != "map" or not optimiser:
            if kind in ("map", "list"):
                self._training.append(name)
            self.skip()
            return
        _, n = self.head()
        for _ in range(n):
            key = self.text()
            if key == _TARGET:
                self.tree(key, depth + 2)  # of the keys above it, one would call them the optimiser's
            else:
                self._training.append(_join(name, key))
                self.skip()

    def _array(self, n: int, name: str) -> tuple[str, tuple[int, ...], Extent]:
        """Read (shape, dtype, bytes) in an extension of `n` bytes; the position ends behind it."""
        at, end = self.position, self.position + n
        kind, parts = self.head()
        kind_of_shape, axes = self.head()
        if kind != "list" or parts != 3 or kind_of_shape != "list" or axes > MOST_AXES:
            self.fail("bad-array", f"{name[:200]}: shape, dtype and bytes were expected", at)
        shape = tuple(self._count() for _ in range(axes))
        dtype = self.text()
        kind, size = self.head()
        start = self.position
        if kind != "bytes" or start + size != end:
            self.fail("bad-array", f"{name[:200]}: its bytes do not fill its extension", at)
        self.step(size)
        width = UNITS[BY_NAME[dtype]][1] if dtype in BY_NAME else 0
        if width and math.prod(shape) * width != size:
            self.fail("bad-size", f"{name[:200]}: {size:,} bytes are given to {dtype} {list(shape)}", at)
        return dtype, shape, Extent(self.source, start, end)

    def _count(self) -> int:
        kind, n = self.head()
        if kind not in ("int", "uint") or n < 0:
            self.fail("bad-shape", "a length was expected")
        return n

    def _chunks(self, name: str, n: int) -> None:
        """Read the rest of ``{chunked: true, "shape": {"0": n, ...}, "chunks": {"0": array, ...}}``."""
        at = self.position
        self.skip()
        shape: list[int] = []
        pieces: list[Extent] = []
        dtypes: set[str] = set()
        for _ in range(n - 1):
            key, (kind, count) = self.text(), self.head()
            if kind != "map" or key not in ("shape", "chunks") or (key == "shape" and count > MOST_AXES):
                self.fail("bad-array", f"{name[:200]}: a shape and chunks were expected")
            for i in range(count):
                if self.text() != str(i):
                    self.fail("bad-array", f"{name[:200]}: its chunks are out of order")
                if key == "shape":
                    shape.append(self._count())
                    continue
                kind, size = self.head()
                if kind != "array":
                    self.fail("bad-array", f"{name[:200]}: a chunk that is no array")
                dtype, _, piece = self._array(size, name)
                dtypes.add(dtype)
                pieces.append(piece)
                meter.hold(200, "noting chunks")
        if len(dtypes) != 1:
            self.fail("bad-array", f"{name[:200]}: {len(dtypes)} types in its chunks", at)
        dtype = dtypes.pop()
        joined = JoinedSource(pieces, f"{self.source.name}!{name[:200]}")
        if dtype in BY_NAME and math.prod(shape) * UNITS[BY_NAME[dtype]][1] != joined.size:
            self.fail("bad-size", f"{name[:200]}: {joined.size:,} bytes in chunks are given to {shape}", at)
        self._add(name, dtype, tuple(shape), pieces[0] if len(pieces) == 1 else Extent(joined, 0, joined.size))

    def _add(self, name: str, dtype: str, shape: tuple[int, ...], extent: Extent) -> None:
        name = name or "array"
        if dtype not in BY_NAME or len(name) > _NAME_CHARACTERS:
            self._unread.append(f"{name[:100]} ({dtype[:20]})")
            return
        if name in self.tensors:
            self.fail("duplicate-key", f"{name[:200]} occurs twice")
        meter.charge_tensors(1, "noting arrays")
        self.tensors[name] = TensorInfo(name, BY_NAME[dtype], shape, extent)
        if len(self.tensors) > self.limits.tensors:
            raise LimitExceeded(self.source.name, "tensors", self.limits.tensors, len(self.tensors))


def _join(name: str, key: str) -> str:
    if len(name) > _NAME_CHARACTERS:
        return name
    return f"{name}/{key}" if name else key
