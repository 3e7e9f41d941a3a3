"""The shadows of a network while it trains: a live state dict to a few scalars, by samples.

>>> monitor = Monitor(model.state_dict())  # doctest: +SKIP
>>> monitor(model.state_dict())  # doctest: +SKIP
{'normsniff/rho_writers': 0.41, 'normsniff/rho_writers_error': 0.02, ...}

A matrix is sliced first and the slice converted (and, from an accelerator, copied to the host): never the whole of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from .. import arguments, verdict
from ..anatomy import describe
from ..anatomy.parts import Anatomy
from ..checkpoint import TensorInfo
from ..errors import FormatError
from ..evidence import from_shadows, load_weights, substitutes
from ..inputs.arrays import from_arrays, state_of
from ..limits import Limits
from ..measure.shadows import measure, read_vectors
from ..source.views import Extent
from ..threads import one_thread
from .summary import Summary, summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTORS = 256
"""Vectors sampled of a matrix: independent ones give its ρ a standard error of sqrt(2/256) = 9 %, and the mean over
twelve matrices one of 3 %."""


class Monitor:
    """What to sample in a network, worked out once, and measured at every call.

    The plan is made again when names or shapes change. Where a network has several towers, the main one is followed.

    Args:
        state: names and arrays of the network: ``model.state_dict()``, the module of torch itself, or any mapping
            (nested ones are flattened with dots) to arrays of numpy, torch, JAX or CuPy, in any floating type, on any
            device. It is not kept.
        vectors: vectors to sample of every matrix.
        prefix: of the names of the scalars.
        config: the network's configuration as in config.json; families that store γ - 1 are known by it.

    Raises:
        FormatError: nothing in `state` runs along a residual stream.
        TypeError: an argument is of another type.
        ValueError: `vectors` is not positive.
    """

    def __init__(
        self,
        state: Any,
        *,
        vectors: int = VECTORS,
        prefix: str = "normsniff/",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._vectors = arguments.count("vectors", vectors, 1)
        self._prefix: str = arguments.instance("prefix", prefix, (str,), "a text")
        if config is not None:
            arguments.instance("config", config, (Mapping,), "a mapping, as in config.json")
        self._config = config
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._now: dict[str, TensorInfo] = {}
        self._update(state)
        self._now.clear()

    def __call__(self, state: Any) -> dict[str, float]:
        """Measure the network and return named scalars; what cannot be told is left out.

        Returns:
            ``rho_ROLE`` and ``rho_ROLE_error`` for the writers, readers, embeddings, unembeddings and positions
            (`normsniff.training.summary.Summary` says what they are), ``rho_ROLE_learned`` for what training wrote into
            writers, readers and matrices of unknown role, ``scale_spread``, ``scale_mean`` and ``p_layernorm``.

        Raises:
            FormatError: as for the class, or an array cannot be converted.
        """
        self._update(state)
        try:
            with one_thread():
                return _flat(self._measure(), self._prefix)
        finally:
            self._now.clear()  # so that arrays which the caller drops are freed

    def _update(self, state: Any) -> None:
        checkpoint = from_arrays(state_of(state), config=self._config)
        self._now.update(checkpoint.tensors)
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        if shapes == self._shapes:
            return
        live = {
            name: msgspec.structs.replace(tensor, storage=_Live(name, self._now))
            for name, tensor in checkpoint.tensors.items()
        }
        self._anatomy = _main_stream(describe(replace(checkpoint, tensors=live)))
        self._unlike = substitutes.find(checkpoint, self._anatomy)
        self._shapes = shapes

    def _measure(self) -> Summary:
        limits = Limits()
        vectors = read_vectors(self._anatomy, limits)
        measured, _ = measure(
            self._anatomy, vectors.scales, limits, vectors=self._vectors, candidates=vectors.candidates
        )
        scales = [g for i, g in vectors.scales.items() if self._anatomy.sites[i].role == "stream"]
        return summarise(
            ((m.matrix.role, m.shadow.rho or 0.0, m.shadow.relative_error) for m in measured),
            ((float(g.mean()), float(g.std())) for g in scales if np.isfinite(g).all()),
            from_shadows(self._anatomy, measured, vectors.scale_spread, load_weights(), self._unlike),
        )


def monitor(state: Any, **options: Any) -> dict[str, float]:
    """Measure a live network once; a `Monitor` does not plan anew at every call.

    Arguments, results and errors are those of `Monitor`.
    """
    return Monitor(state, **options)(state)


@dataclass(frozen=True, slots=True)
class _Live:
    """A tensor looked up by name when it is read, so that a plan outlives the arrays that it was made from."""

    name: str
    now: Mapping[str, TensorInfo]

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        storage = self.now[self.name].storage
        assert not isinstance(storage, Extent)
        return storage.read(index)


def _main_stream(anatomy: Anatomy) -> Anatomy:
    """Keep what belongs to the main component; sites of others lose their vectors, for indices must stay."""
    main = verdict.decide(anatomy, (), load_weights())[0][0].name
    matrices = tuple(m for m in anatomy.matrices if m.component == main)
    if not matrices:
        raise FormatError("no-stream", "<arrays>", "no matrix has an axis along a residual stream")
    sites = tuple(s if s.component == main else replace(s, scale=None, shift=None) for s in anatomy.sites)
    return replace(anatomy, matrices=matrices, sites=sites, widths={main: anatomy.widths[main]})


def _flat(summary: Summary, prefix: str) -> dict[str, float]:
    scalars = {f"rho_{role}": mean.rho for role, mean in summary.rho.items()}
    scalars |= {f"rho_{role}_error": mean.error for role, mean in summary.rho.items() if mean.error is not None}
    scalars |= {f"rho_{role}_learned": rho for role, rho in summary.learned.items()}
    for name in ("scale_spread", "scale_mean", "p_layernorm"):
        if (value := getattr(summary, name)) is not None:
            scalars[name] = value
    return {prefix + name: value for name, value in scalars.items()}
