"""What is what: norm sites, and the matrices that read and write the residual stream.

Three ways, the most certain first: from the computation graph, from names and layer classes, from shapes alone.
"""

from __future__ import annotations

from dataclasses import replace

from ..checkpoint import Checkpoint
from .parts import Anatomy, Matrix, Site

__all__ = ["Anatomy", "Matrix", "Site", "describe"]


def describe(checkpoint: Checkpoint, *, parameters_alone: bool = False) -> Anatomy:
    """Return the anatomy of a model.

    Args:
        checkpoint: the parsed file.
        parameters_alone: use shapes only; names, operators and layer classes must not influence the result.
    """
    from . import shapes

    if parameters_alone:
        return shapes.describe(checkpoint)
    anatomy = _informed(checkpoint)
    if anatomy is None:
        return shapes.describe(checkpoint)
    if any(m.role in ("writer", "reader") for m in anatomy.matrices) or len(anatomy.widths) > 1:
        return anatomy
    # Norms without any matrix of known role: shapes can still say which matrices run along the stream.
    unnamed = shapes.describe(checkpoint)
    if anatomy.widths and unnamed.widths != anatomy.widths:
        return anatomy
    known = {m.tensor.name for m in anatomy.matrices}
    more = tuple(m for m in unnamed.matrices if m.tensor.name not in known)
    return replace(anatomy, matrices=anatomy.matrices + more, widths=anatomy.widths or unnamed.widths)


def _informed(checkpoint: Checkpoint) -> Anatomy | None:
    """Use the graph, the layer list or the names, whichever the format has; None if nothing was recognised."""
    if checkpoint.graph is not None:
        from .graph import describe as graph

        return graph.describe(checkpoint)
    if checkpoint.format == "Keras":
        from .keras import describe as keras

        anatomy = keras.describe(checkpoint)
        if anatomy is not None:
            return anatomy
    if checkpoint.format == "CTranslate2":
        from .names import ctranslate2

        anatomy = ctranslate2.describe(checkpoint)
    else:
        from .names import describe as names

        anatomy = names.describe(checkpoint)
    recognised = anatomy.sites or anatomy.others or any(m.role != "unknown" for m in anatomy.matrices)
    return anatomy if recognised else None
