"""A state dict through normsniff's own code path, to the numbers that features are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from normsniff.anatomy import describe
from normsniff.inputs.arrays import from_arrays
from normsniff.limits import Limits
from normsniff.measure.shadows import Measured, measure, read_vectors


def observe(state: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the tool sees in these weights, once with names (and the configuration), once from shapes alone."""
    checkpoint = replace(from_arrays(state), config=config)
    return {"roles": _look(checkpoint, False), "shapes": _look(checkpoint, True)}


def _look(checkpoint: Any, parameters_alone: bool) -> dict[str, Any]:
    anatomy = describe(checkpoint, parameters_alone=parameters_alone)
    vectors = read_vectors(anatomy, Limits())
    measured, _ = measure(anatomy, vectors.scales)
    return {
        "basis": anatomy.basis,
        "widths": dict(anatomy.widths),
        "sites": len(anatomy.sites),
        "scale_spread": _short(vectors.scale_spread),
        "matrices": [_matrix(one) for one in measured],
    }


def _matrix(one: Measured) -> dict[str, Any]:
    shadow, matrix = one.shadow, one.matrix
    return {
        "component": matrix.component,
        "role": matrix.role,
        "layer": matrix.layer,
        "axis": matrix.axis,
        "direction": one.direction,
        "d": shadow.d,
        "vectors": shadow.vectors,
        "rho": _short(shadow.rho),
        "z": _short(shadow.z),
        "relative_error": _short(shadow.relative_error),
        "dispersion": _short(shadow.dispersion),
        "alignment": _short(shadow.alignment),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
