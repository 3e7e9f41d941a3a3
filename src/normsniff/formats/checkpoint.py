"""Where plug-ins find what a reader returns; it lives in `normsniff.checkpoint`."""

from ..checkpoint import Affine, ArraySlab, Checkpoint, Graph, Layer, Operator, Slab, TensorInfo
from ..source.views import Extent

__all__ = ["Affine", "ArraySlab", "Checkpoint", "Extent", "Graph", "Layer", "Operator", "Slab", "TensorInfo"]
