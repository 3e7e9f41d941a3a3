"""The parameters of every norm as numpy arrays: stored scale, effective γ, β, epsilon, from any format and place."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import arguments, decode, meter
from .anatomy import describe
from .anatomy.parts import NormKind, NormRole, Site
from .checkpoint import Checkpoint, TensorInfo
from .errors import SourceError, parsing
from .evidence.epsilons import epsilon_at, epsilon_keys
from .inputs.opening import Source, name_of, open_source
from .limits import Limits
from .measure.samples import prefetch, whole
from .measure.sites import zero_centred
from .outputs import write_arrays
from .record import StoredScale
from .words import amount

_READING = "reading arrays of norms"
_ARRAY_STEPS, _ELEMENTS_A_STEP = 30, 200  # what an array costs, and what its numbers do: they are moved a few times
_T = TypeVar("_T")
_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormParameters:
    """One norm. Its arrays are read when they are asked for, and not kept.

    Attributes:
        name: of the site, as in `sniff`'s records.
        component: tower.
        layer: index of the block, or None.
        role: ``"stream"``, ``"query-key"`` or ``"other"``.
        kind: what the file itself says that it computes; None where it does not say.
        d: width, if known.
        epsilon: what is added under the root, where it is declared; else None.
        epsilon_from: the key, or what else declares it; "" without.
        offset: what the network adds to the stored scale: 1.0 where the file stores γ - 1, else 0.0.
        zero_centred: whether the file stores γ - 1; None if that is not known (then 0.0 is assumed).
        why: how `kind` and `offset` are known, or "".
        scale_tensor: name of the tensor that holds the scale, or None if the norm stores none.
        scale_dtype: its stored type, such as ``"BF16"``.
        shift_tensor: name of the tensor that holds the shift, or None.
        shift_dtype: its stored type.
    """

    name: str
    component: str
    layer: int | None
    role: NormRole
    kind: NormKind | None
    d: int | None
    epsilon: float | None
    epsilon_from: str
    offset: float
    zero_centred: bool | None
    why: str
    scale_tensor: str | None
    scale_dtype: str | None
    shift_tensor: str | None
    shift_dtype: str | None
    _site: Site = field(repr=False)
    _opened: _Opened = field(repr=False)

    @property
    def stored(self) -> NDArray[Any] | None:
        """The scale as the file has it, of its shape there; None if there is none.

        Raises:
            NormsniffError: it cannot be read or decoded.
        """
        return self._opened.array(self._site.scale, 0.0)

    @property
    def scale(self) -> NDArray[Any] | None:
        """The effective γ, ``stored + offset``, added in float64; None if the norm stores none (γ is 1).

        Raises:
            NormsniffError: it cannot be read or decoded.
        """
        return self._opened.array(self._site.scale, self.offset)

    @property
    def shift(self) -> NDArray[Any] | None:
        """β, of its stored shape; None if there is none (β is 0).

        Raises:
            NormsniffError: it cannot be read or decoded.
        """
        return self._opened.array(self._site.shift, 0.0)

    def facts(self) -> dict[str, Any]:
        """Return what is known beside the arrays, ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}


class Norms(Sequence[NormParameters]):
    """The norms of one model, in the order of the network. It stays open until `close`, or as long as a norm is held.

    This is a context manager, so that ``with normsniff.norms(path) as norms:`` closes the file at the end of the block.
    """

    def __init__(
        self, found: Sequence[NormParameters], opened: _Opened, judge: Callable[[], Sequence[StoredScale | None]]
    ) -> None:
        self._found, self._opened, self._judge = tuple(found), opened, judge

    @overload
    def __getitem__(self, index: int) -> NormParameters: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NormParameters]: ...
    def __getitem__(self, index: int | slice) -> NormParameters | Sequence[NormParameters]:
        """Return one norm, or several."""
        return self._found[index]

    def __len__(self) -> int:
        """Return how many norms there are."""
        return len(self._found)

    def __iter__(self) -> Iterator[NormParameters]:
        """Yield the norms."""
        return iter(self._found)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the model."""
        self.close()

    def close(self) -> None:
        """Close the model; arrays can no longer be read."""
        self._opened.close()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what the block reads of all norms together; by itself every array has the budget of the whole file.

        Raises:
            BudgetSpent: it is more work, or takes more memory, than `limits` allow.
        """
        with self._opened.counted():
            yield

    def __repr__(self) -> str:
        return f"Norms({self._opened.name!r}, {amount(len(self), 'norm')})"

    def stores(self) -> list[StoredScale | None]:
        """Return what the file has in place of each γ, with probabilities; None where there is nothing to tell it by.

        All norms of the model are read for it: their values are judged together.

        Raises:
            NormsniffError: the model is closed.
        """
        return list(self._opened.call(self._judge))

    def fetch(self) -> None:
        """Ask for the arrays of all norms at once: a few requests instead of one an array, for a model behind a URL."""
        tensors = (tensor for one in self._found for tensor in (one._site.scale, one._site.shift))
        prefetch(whole([tensor for tensor in tensors if tensor is not None]))


def norms(
    source: Source,
    *,
    norm: str | Sequence[str] = "*",
    dtype: DTypeLike = np.float32,
    limits: Limits | None = None,
) -> Norms:
    """Return every norm of a model with its parameters; reads the header, and each array when it is asked for.

    >>> with normsniff.norms("model.gguf") as norms:  # doctest: +SKIP
    ...     gammas = {one.name: one.scale for one in norms}

    Args:
        source: whatever `sniff` takes.
        norm: shell patterns (``*``, ``?``, ``[...]``); norms whose names match one of them are returned.
        dtype: float32 or float64. Stored values of up to 24 significant bits are exact in both; quantised ones are
            dequantised, in float32.
        limits: caps on what a file, and one array of it, may cost.

    Raises:
        NormsniffError: as `sniff` does.
        TypeError: an argument is of another type.
        ValueError: another dtype.
    """
    kind = np.dtype(dtype)
    if kind not in _TYPES:
        raise ValueError(f"dtype must be float32 or float64, not {kind}")
    patterns = arguments.texts("norm", norm)
    limits, where = arguments.limits(limits), name_of(source)
    with meter.metered(where, limits), np.errstate(all="ignore"):  # a file may hold any numbers
        checkpoint = open_source(source, limits)
        opened = _Opened(checkpoint, where, kind, limits)
        with parsing(where):
            keys = epsilon_keys(checkpoint)
            anatomy = describe(checkpoint)
            chosen = [any(fnmatchcase(site.name, one) for one in patterns) for site in anatomy.sites]

    def judge() -> Sequence[StoredScale | None]:
        from .checks.offset import stores
        from .checks.subject import read_subject

        return list(compress(stores(read_subject(checkpoint, anatomy, limits)), chosen))

    declared = {component: epsilon_at(keys, component) for component in {site.component for site in anatomy.sites}}
    found = [_of(site, declared[site.component], opened) for site in compress(anatomy.sites, chosen)]
    return Norms(found, opened, judge)


def save(found: Sequence[NormParameters], path: Path) -> int:
    """Write the arrays of norms, and one row of metadata a norm; return how many arrays were written.

    Every norm NAME gives ``NAME.scale`` (the effective γ), ``NAME.stored`` where that differs, and ``NAME.shift``. The
    rows are a JSON list under ``norms`` in the metadata (`normsniff.outputs.write_arrays`).

    Raises:
        OutputError: the file cannot be written.
        NormsniffError: an array cannot be read.
        ValueError: the extension is neither ``.safetensors`` nor ``.npz``.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with found.counted() if isinstance(found, Norms) else contextlib.nullcontext():
        for one in found:
            both = {"scale": one.scale, "stored": one.stored if one.offset else None, "shift": one.shift}
            new = {f"{one.name}.{part}": array for part, array in both.items() if array is not None}
            meter.hold(2 * sum(array.nbytes for array in new.values()), _READING)  # and once more as they are written
            arrays |= new
    rows = [one.facts() for one in found]
    write_arrays(path, arrays, {"format": "np", "about": "norm parameters", "norms": json.dumps(rows)})
    return len(arrays)


class _Opened:
    """A model that is open until nobody holds one of its norms."""

    def __init__(self, checkpoint: Checkpoint, where: str, dtype: np.dtype[Any], limits: Limits) -> None:
        self._where, self._dtype, self._limits = where, dtype, limits
        self._size = checkpoint.file_size or sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        self.close = weakref.finalize(self, checkpoint.close)

    @contextlib.contextmanager
    def counted(self) -> Iterator[meter.Meter]:
        with meter.metered(self._where, self._limits) as one, np.errstate(all="ignore"):
            one.grow(self._size)
            yield one

    @property
    def name(self) -> str:
        return self._where

    def call(self, function: Callable[[], _T]) -> _T:
        if not self.close.alive:
            raise SourceError(self._where, "closed: its arrays can no longer be read")
        with parsing(self._where), self.counted():
            return function()

    def array(self, tensor: TensorInfo | None, offset: float) -> NDArray[Any] | None:
        if tensor is None:
            return None
        if not self.close.alive:
            raise SourceError(self._where, "closed: its arrays can no longer be read")
        # beyond float32: infinite, as it would be in a network
        with self.counted() as one, parsing(self._where), meter.held(4 * tensor.size, _READING):
            exact = decode.exact(tensor, self._limits)
            exact += offset
            values = exact.astype(self._dtype, copy=False)
            one.charge(_ARRAY_STEPS + values.size // _ELEMENTS_A_STEP, _READING)
        meter.charge(one.steps, _READING)  # against the budget of all that are read together, where there is one
        return values


def _of(site: Site, declared: tuple[str, float] | None, opened: _Opened) -> NormParameters:
    if site.epsilon is not None:
        declared = "the file's own graph", site.epsilon
    return NormParameters(
        name=site.name,
        component=site.component,
        layer=site.layer,
        role=site.role,
        kind=site.kind,
        d=site.width,
        epsilon=None if declared is None else declared[1],
        epsilon_from="" if declared is None else declared[0],
        offset=site.offset,
        zero_centred=zero_centred(site),
        why=site.why,
        scale_tensor=None if site.scale is None else site.scale.name,
        scale_dtype=None if site.scale is None else site.scale.dtype,
        shift_tensor=None if site.shift is None else site.shift.name,
        shift_dtype=None if site.shift is None else site.shift.dtype,
        _site=site,
        _opened=opened,
    )
