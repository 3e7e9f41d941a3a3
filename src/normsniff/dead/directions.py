"""The dead direction of every norm of a model: where its output never moves, known from γ alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np

from .. import arguments, kernel
from ..anatomy.parts import Site
from ..course import classify
from ..errors import LimitExceeded
from ..inputs.opening import Source
from ..limits import Limits
from ..measure.shadows import Float64
from ..model import modelled
from ..outputs import write_arrays
from ..record import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The kernel of one norm's centred output, or why there is none.

    Attributes:
        norm: name of the site.
        component: tower.
        layer: block index, if any.
        label: what the norm is: what the file says of the site itself, else the verdict on its stream.
        d: width of the norm, if known.
        output: name of the value that it puts out, where the file stores a graph; else "".
        basis: float64 of shape (k, d), orthonormal rows that span the kernel: γ⁻¹/‖γ⁻¹‖ and k = 1, or one row for
            every dimension whose scale is zero; None if there is no kernel, or γ is not known.
        dead: how many scales are exactly zero.
        condition: max|γ| / min|γ| over the scales that are not zero; None without γ.
        angle: degrees between γ⁻¹ and **1**; None without a γ⁻¹.
        carriers: how many coordinates carry the direction (participation ratio): d if all |γᵢ| are equal, about 1
            where one scale has all but vanished.
        reason: why there is no basis, or what it rests on; "" if there is nothing to say.
    """

    norm: str
    component: str
    layer: int | None
    label: Label
    d: int | None
    output: str = ""
    basis: Float64 | None = None
    dead: int = 0
    condition: float | None = None
    angle: float | None = None
    carriers: float | None = None
    reason: str = ""


def directions(source: Source, *, norm: str | Sequence[str] = "*", limits: Limits | None = None) -> list[Direction]:
    """Return the dead direction of every norm, in the order of the network; for an RMSNorm, why there is none.

    Args:
        source: whatever `sniff` takes.
        norm: shell patterns (``*``, ``?``, ``[...]``); norms whose names match one of them are returned.
        limits: caps on what a file may cost.

    Raises:
        NormsniffError: as `sniff` does; LimitExceeded also for a basis of more than ``limits.tensor_bytes``.
        TypeError: an argument is of another type.
    """
    patterns = arguments.texts("norm", norm)
    with modelled(source, limits=limits) as model:
        record = classify(model)
        labels = {component.name: component.label for component in record.components}
        return [
            _direction(site, site.kind or labels.get(site.component, record.label), scale, model.limits)
            for at, site in enumerate(model.anatomy.sites)
            if any(fnmatchcase(site.name, pattern) for pattern in patterns)
            for scale in [model.vectors.scales.get(at)]
        ]


def save(found: Sequence[Direction], path: Path) -> int:
    """Write every basis as float64 of shape (k, d) under its norm's name; return how many were written.

    Args:
        found: those without a basis are left out.
        path: ``.safetensors`` or ``.npz``; replaced as a whole if it is there.

    Raises:
        OutputError: the file cannot be written.
        ValueError: another extension.
    """
    arrays = {one.norm: one.basis for one in found if one.basis is not None}
    write_arrays(path, arrays, {"about": "orthonormal rows that span the kernel of each LayerNorm's centred output"})
    return len(arrays)


def basis_of(found: kernel.ScaleKernel, d: int) -> Float64:
    """Return orthonormal rows that span the kernel of a LayerNorm of width d, float64 of shape (k, d)."""
    if not found.dead:
        return np.asarray(found.vector)[np.newaxis]
    basis = np.zeros((len(found.dead), d))
    basis[range(len(found.dead)), found.dead] = 1
    return basis


def _direction(site: Site, label: Label, scale: Float64 | None, limits: Limits) -> Direction:
    here = partial(
        Direction,
        norm=site.name,
        component=site.component,
        layer=site.layer,
        label=label,
        d=site.width,
        output=site.output,
    )
    why_not = _ruled_out(site, label, scale)
    if why_not:
        return here(reason=why_not)
    d = site.width or 0 if scale is None else len(scale)
    _check_size(site, d, limits)
    found = kernel.dead_direction(np.ones(d) if scale is None else scale)
    _check_size(site, max(len(found.dead), 1) * d, limits)
    return here(
        basis=basis_of(found, d),
        dead=len(found.dead),
        condition=found.condition if math.isfinite(found.condition) else None,
        angle=None if found.cosine is None else math.degrees(math.acos(found.cosine)),
        carriers=None if found.dead else found.power * d,
        reason="" if label == "LayerNorm" else f"{label}: this holds only if the norm is a LayerNorm",
    )


def _ruled_out(site: Site, label: Label, scale: Float64 | None) -> str:
    """Say why nothing can be said of the kernel of a norm; "" if something can."""
    if label == "RMSNorm":
        return "RMSNorm does not subtract the mean, so no direction of its output is dead"
    if label == "none":
        return "the stream has neither LayerNorm nor RMSNorm"
    if site.scale is None:
        return "" if site.width else "it stores no scale, and its width is not known"
    if scale is None:
        return "its scale could not be read"
    if sum(n > 1 for n in site.scale.shape) > 1:
        return f"it stores a scale for each head, {list(site.scale.shape)}"
    return "" if np.isfinite(scale).all() else "its scale is not finite"


def _check_size(site: Site, values: int, limits: Limits) -> None:
    if 8 * values > limits.tensor_bytes:
        raise LimitExceeded(site.name, "bytes of the basis of its kernel", limits.tensor_bytes, 8 * values)
