"""The energy along the dead direction as a regulariser: differentiable, in the library of the arrays given.

Of a matrix M (its vectors mⱼ along the axis of the residual stream, of length d) and a direction v it is

    ρ(M, v) = Σⱼ (mⱼ·v)² / Σⱼ Σᵢ vᵢ² mⱼᵢ²,

the energy along v over its mean over all sign flips of v (docs/kernel.md, section 4), with v = **1** for what writes
into the stream and v = γ⁻¹ for what reads a norm with the scale γ (Shirodkar & Narayanan, arXiv 2606.19491). ρ is 1 by
chance and 0 without any energy there, whatever the shape and the size of M, so that one weight serves all layers, and
the penalty does not shrink the matrices: ρ(cM, v) = ρ(M, v).

In a pre-norm LayerNorm network the energy of the writers along **1** does nothing, and removing it costs nothing. Under
RMSNorm it does something. Either way a network trained with the penalty looks like LayerNorm to the kernel's evidence.
"""

from __future__ import annotations

from typing import Any

from .. import arguments
from .namespaces import namespace


def penalty(matrix: Any, axis: int, scale: Any = None) -> Any:
    """Return ρ of a matrix along the dead direction, as an array without axes that gradients pass through.

    Args:
        matrix: real floating array of two or more axes, of numpy, torch, JAX or CuPy; half-precision types are
            computed in float32.
        axis: the axis of length d along the residual stream: 0 for the weight of a torch ``Linear`` that writes
            into it, 1 for one that reads a norm.
        scale: effective γ of the norm that it reads, of shape (d,); None for a writer. Gradients reach it too: detach
            it to spare it. If it has zeros, the direction is that of the dead dimensions, which is the limit.

    Returns:
        ρ ≥ 0; 0 with zero gradients for a matrix of zeros.

    Raises:
        TypeError: an argument is no array, or `axis` no integer.
        ValueError: the shapes do not fit.
    """
    for one in (matrix, *(() if scale is None else (scale,))):
        if not hasattr(one, "shape") or not hasattr(one, "dtype"):
            raise TypeError(f"an array is needed, not {type(one).__name__}")
    axis = arguments.count("axis", axis, -len(matrix.shape))
    if axis >= len(matrix.shape):
        raise ValueError(f"axis {axis} of an array with {len(matrix.shape)} axes")
    arrays = (matrix,) if scale is None else (matrix, scale)
    xp = namespace(*arrays)
    if matrix.ndim < 2 or (scale is not None and tuple(scale.shape) != (matrix.shape[axis],)):
        shape = None if scale is None else tuple(scale.shape)
        raise ValueError(f"a scale of shape {shape} does not fit axis {axis} of {tuple(matrix.shape)}")
    precise = xp.float64 if matrix.dtype == xp.float64 else xp.float32
    rows = xp.reshape(xp.moveaxis(xp.astype(matrix, precise), axis, -1), (-1, matrix.shape[axis]))
    if scale is None:
        direction = xp.ones_like(rows[0, :])
    else:
        gamma = xp.astype(scale, precise)
        dead, one = gamma == 0, xp.ones_like(gamma)
        direction = xp.where(dead, one, xp.min(xp.abs(gamma)) / xp.where(dead, one, gamma))
    energy = xp.sum((rows @ direction) ** 2)
    expected = xp.sum(xp.sum(rows * rows, axis=0) * direction * direction)
    return energy / xp.where(expected > 0, expected, xp.ones_like(expected))
