"""Where plug-ins find what a reader returns; it lives in `normsniff.checkpoint`."""

from ..checkpoint import (
    Affine,
    ArraySlab,
    Checkpoint,
    Extent,
    Graph,
    Layer,
    Operator,
    Slab,
    TensorInfo,
)

__all__ = ["Affine", "ArraySlab", "Checkpoint", "Extent", "Graph", "Layer", "Operator", "Slab", "TensorInfo"]
